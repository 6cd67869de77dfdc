//! Gives open partitions the roles that the cluster says they have, in place: their logs stay open.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::Partitions;
use crate::log::LogError;
use crate::partition::Partition;
use crate::partition::partition_state::PartitionState;
use crate::partition::replica::Replica;

impl Partitions {
    /// Gives partitions their roles, by topic and index. Nothing is appended in an earlier role when this returns. Those that
    /// cannot take theirs are offline.
    pub async fn take_roles(&self, roles: Vec<(Uuid, i32, PartitionState)>) {
        let mut by_volume: BTreeMap<usize, Vec<(Arc<Replica>, PartitionState)>> = BTreeMap::new();
        for (topic_id, index, state) in roles {
            let topic = self.topic_by_id(topic_id);
            let Some(partition) = topic.and_then(|topic| topic.get(index).cloned().ok()) else {
                continue;
            };
            if let Some(at) = self.volume_of(&partition) {
                let taken = (partition.replica().clone(), state);
                by_volume.entry(at).or_default().push(taken);
            }
        }
        let mut under_way = Vec::new();
        for (at, taken) in by_volume {
            let take = move || {
                taken
                    .iter()
                    .for_each(|(replica, state)| take(replica, state))
            };
            under_way.push(self.volumes[at].writer.run(take));
        }
        for done in under_way {
            // A writer that has ended writes nothing in any role.
            let _ = done.await;
        }
    }

    /// Moves a follower's log start to its leader's, as far as the follower knows that what is before it is committed.
    pub async fn follow_log_start(
        &self,
        partition: &Arc<Partition>,
        offset: i64,
    ) -> Result<(), LogError> {
        let (replica, now_ms) = (partition.replica().clone(), self.clock.now_ms());
        let follow = move || replica.follow_log_start(offset, now_ms);
        let moved = partition.writer().run(follow).await;
        let dropped =
            moved.map_err(|_| LogError::Offline("the writer thread ended".to_owned()))??;
        if !dropped.is_empty() {
            self.drop_later(dropped, partition.log().config().file_delete_delay_ms);
        }
        Ok(())
    }

    /// Takes over who is in sync in partitions that keep their roles.
    pub fn update_states(&self, states: impl IntoIterator<Item = (Uuid, i32, PartitionState)>) {
        for (topic_id, index, state) in states {
            let topic = self.topic_by_id(topic_id);
            if let Some(partition) = topic.and_then(|topic| topic.get(index).cloned().ok()) {
                partition.update_state(&state);
            }
        }
    }
}

fn take(replica: &Replica, state: &PartitionState) {
    if !state.is_led_here() {
        replica.take_role(state);
        return;
    }
    if let Err(error) = replica.lead(state) {
        let reason = format!("cannot lead in epoch {}: {error}", state.leader_epoch);
        replica.fail_sync(&reason);
    }
}
