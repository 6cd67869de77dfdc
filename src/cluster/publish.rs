//! `/brokers/topics-pub/<topic>/<id>-m`: how many partitions of a topic this broker takes messages for, as MetaQ's
//! brokers write it. For people and tools; no broker reads it.

use std::collections::BTreeMap;

use super::changes::ClusterError;
use super::cluster::Cluster;
use crate::meta::records::encode_count;
use crate::meta::{Op, paths};

/// Topics that one write tells of.
const TOPICS_A_WRITE: usize = 200;

impl Cluster {
    /// Writes what differs from what was written in this session.
    pub(super) async fn publish_topics(&self) -> Result<(), ClusterError> {
        let (session, registered) = {
            let membership = self.membership.lock();
            (membership.session, membership.member.is_some())
        };
        if !registered {
            return Ok(());
        }
        let mut published = self.published.lock().await;
        if published.0 != session {
            *published = (session, BTreeMap::new());
        }
        let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
        for topic in self.image().topics() {
            let own = topic
                .partitions
                .iter()
                .filter(|info| info.leader == self.broker_id);
            let count = own.count();
            if count > 0 && self.config.accepts(&topic.name).publish {
                wanted.insert(topic.name.to_string(), count);
            }
        }
        let mut ops = Vec::new();
        for (topic, count) in &wanted {
            if published.1.get(topic) != Some(count) {
                ops.push(Op::Put {
                    path: paths::topic_pub(topic, self.broker_id),
                    data: encode_count(*count),
                    ephemeral: true,
                });
            }
        }
        for topic in published
            .1
            .keys()
            .filter(|topic| !wanted.contains_key(*topic))
        {
            ops.push(Op::delete_tree(paths::topic_pub(topic, self.broker_id)));
        }
        for part in ops.chunks(TOPICS_A_WRITE) {
            self.meta.multi(part.to_vec()).await?;
        }
        published.1 = wanted;
        Ok(())
    }
}
