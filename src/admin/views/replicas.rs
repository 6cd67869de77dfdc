//! The replicas of one partition: who is in sync, how far each is behind, and what a reassignment has done.

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::Context;
use crate::cluster::PartitionInfo;
use crate::partition::{FollowerState, Partition};

/// A replica. How far it is the leader knows, and each broker of its own.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct ReplicaView {
    /// The broker that has it.
    pub(in crate::admin) broker: i32,
    /// Whether that broker is there.
    pub(in crate::admin) live: bool,
    /// Whether it leads.
    pub(in crate::admin) leads: bool,
    /// Whether it is in sync.
    pub(in crate::admin) in_sync: bool,
    /// Whether a reassignment adds it.
    pub(in crate::admin) is_added: bool,
    /// Whether a reassignment takes it away.
    pub(in crate::admin) is_removed: bool,
    /// The end of its log; `None` where it is not known here.
    pub(in crate::admin) log_end: Option<i64>,
    /// Messages that it lacks of what the leader has; on a follower, of what its leader said is committed.
    pub(in crate::admin) behind_messages: Option<i64>,
    /// Bytes of those, with the batch that it is in; known by the leader alone.
    pub(in crate::admin) behind_bytes: Option<u64>,
    /// How long ago it had all that the leader had, ms; 0 where it has. `None` where it never had since this leader leads.
    pub(in crate::admin) behind_ms: Option<u64>,
    /// How much of the leader's bytes it has, in percent.
    pub(in crate::admin) copied_percent: Option<f64>,
    /// Why it is not in sync, where it is not.
    pub(in crate::admin) why: Option<String>,
}

/// All replicas, in their order.
pub(super) fn of(
    cx: &Context,
    info: &PartitionInfo,
    partition: Option<&Partition>,
) -> Vec<ReplicaView> {
    let image = cx.cluster.image();
    let own = cx.cluster.broker_id();
    let followers = partition
        .map(|partition| partition.followers())
        .unwrap_or_default();
    let view = |id: &i32| {
        let broker = image.brokers.get(id);
        let mut view = ReplicaView {
            broker: *id,
            live: broker.is_some(),
            leads: info.leader == *id,
            in_sync: info.isr.contains(id),
            is_added: info.adding.contains(id),
            is_removed: info.removing.contains(id),
            log_end: None,
            behind_messages: None,
            behind_bytes: None,
            behind_ms: None,
            copied_percent: None,
            why: None,
        };
        let follower = followers.iter().find(|follower| follower.replica == *id);
        match (partition, follower) {
            (Some(partition), Some(follower)) => view.fill(partition, follower),
            (Some(partition), None) if *id == own => view.fill_own(partition),
            _ => {}
        }
        let is_stopping = broker.is_some_and(|broker| broker.shutting_down);
        let lag_max_ms = cx.partitions.isr_watch().lag_max.as_millis();
        view.why = (!view.in_sync).then(|| view.reason(follower, is_stopping, lag_max_ms));
        view
    };
    info.replicas.iter().map(view).collect()
}

impl ReplicaView {
    fn fill(&mut self, partition: &Partition, follower: &FollowerState) {
        if follower.log_end < 0 {
            return;
        }
        let (log, end) = (partition.log(), partition.log().ends().log_end.offset);
        let (all, behind) = (log.bytes(), log.bytes_from(follower.log_end).ok());
        self.log_end = Some(follower.log_end);
        self.behind_messages = Some((end - follower.log_end).max(0));
        self.behind_bytes = behind;
        self.behind_ms = match follower.log_end >= end {
            true => Some(0),
            false => {
                let since = follower.caught_up;
                since.map(|then| Instant::now().saturating_duration_since(then).as_millis() as u64)
            }
        };
        self.copied_percent = behind.map(|behind| match all {
            0 => 100.0,
            all => all.saturating_sub(behind) as f64 * 100.0 / all as f64,
        });
    }

    fn fill_own(&mut self, partition: &Partition) {
        self.log_end = Some(partition.log().ends().log_end.offset);
        self.behind_messages = match self.leads {
            true => Some(0),
            false => partition.follower_lag(),
        };
    }

    fn reason(&self, known: Option<&FollowerState>, is_stopping: bool, lag_max_ms: u128) -> String {
        let behind = self.behind_messages;
        let why = match (self.live, is_stopping, known, behind) {
            (false, ..) => "its broker is away",
            (_, true, ..) => "its broker is about to stop",
            (_, _, None, _) => "its leader knows why",
            (_, _, Some(_), None) => {
                "it has not fetched since this leader leads: its files cannot be used, or its broker does not reach this one"
            }
            (_, _, Some(_), Some(0)) => "it has everything, and is about to be back",
            (_, _, Some(known), Some(_)) if known.caught_up.is_none() => {
                "it copies, and has not had everything yet"
            }
            (_, _, Some(_), Some(_)) => {
                return format!(
                    "it did not have everything for longer than {lag_max_ms} ms (replica.lag.time.max.ms)"
                );
            }
        };
        why.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(live: bool, behind_messages: Option<i64>) -> ReplicaView {
        ReplicaView {
            broker: 2,
            live,
            leads: false,
            in_sync: false,
            is_added: false,
            is_removed: false,
            log_end: None,
            behind_messages,
            behind_bytes: None,
            behind_ms: None,
            copied_percent: None,
            why: None,
        }
    }

    #[test]
    fn a_replica_that_is_not_in_sync_has_a_reason() {
        let known = |caught_up| FollowerState {
            replica: 2,
            log_end: 5,
            log_start: 0,
            is_in_sync: false,
            caught_up,
        };
        let never = known(None);
        let once = known(Some(Instant::now()));
        let cases = [
            (view(false, None), Some(&never), false, "away"),
            (view(true, Some(3)), Some(&never), true, "about to stop"),
            (view(true, None), None, false, "its leader knows"),
            (view(true, None), Some(&never), false, "not fetched"),
            (view(true, Some(0)), Some(&once), false, "about to be back"),
            (
                view(true, Some(3)),
                Some(&once),
                false,
                "longer than 30000 ms",
            ),
            (
                view(true, Some(3)),
                Some(&never),
                false,
                "not had everything yet",
            ),
        ];
        for (view, known, is_stopping, expected) in cases {
            let why = view.reason(known, is_stopping, 30_000);
            assert!(why.contains(expected), "{why}: {expected}");
        }
    }
}
