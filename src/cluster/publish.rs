//! `/brokers/topics-pub/<topic>/<id>-m`: how many partitions of a topic this broker takes messages for, as MetaQ's
//! brokers write it. For people and tools; no broker reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use uuid::Uuid;

use super::changes::ClusterError;
use super::view::View;
use crate::meta::records::encode_count;
use crate::meta::{Op, paths};

/// Topics that one write tells of.
const TOPICS_A_WRITE: usize = 200;

/// What was written below [`paths::TOPICS_PUB`], and in which session.
#[derive(Default)]
struct Published {
    session: u64,
    /// By topic: its id, because the node goes with the topic, and the number of partitions.
    counts: BTreeMap<String, (Uuid, usize)>,
}

/// Tells which topics this broker takes messages for.
pub(super) struct Publisher {
    view: Arc<View>,
    published: Mutex<Published>,
}

impl Publisher {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            published: Mutex::default(),
        }
    }

    /// Writes what differs from what was written in this session, when this broker is registered in one.
    pub(super) async fn publish_topics(&self, session: Option<u64>) -> Result<(), ClusterError> {
        let Some(session) = session else {
            return Ok(());
        };
        let mut published = self.published.lock().await;
        if published.session != session {
            *published = Published {
                session,
                ..Published::default()
            };
        }
        let mut wanted: BTreeMap<String, (Uuid, usize)> = BTreeMap::new();
        for topic in self.view.image().topics() {
            let own = topic
                .partitions
                .iter()
                .filter(|info| info.leader == self.view.broker_id);
            let count = own.count();
            if count > 0 && self.view.config.accepts(&topic.name).publish {
                wanted.insert(topic.name.to_string(), (topic.id, count));
            }
        }
        let mut ops = Vec::new();
        for (topic, told) in &wanted {
            if published.counts.get(topic) != Some(told) {
                ops.push(Op::Put {
                    path: paths::topic_pub(topic, self.view.broker_id),
                    data: encode_count(told.1),
                    ephemeral: true,
                });
            }
        }
        for topic in published
            .counts
            .keys()
            .filter(|topic| !wanted.contains_key(*topic))
        {
            ops.push(Op::delete_tree(paths::topic_pub(
                topic,
                self.view.broker_id,
            )));
        }
        for part in ops.chunks(TOPICS_A_WRITE) {
            self.view.meta.multi(part.to_vec()).await?;
        }
        published.counts = wanted;
        Ok(())
    }
}
