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
    pub async fn take_roles(&self, mut roles: Vec<(Uuid, i32, PartitionState)>) {
        while !roles.is_empty() {
            roles = self.take_roles_once(roles).await;
        }
    }

    /// As [`Self::take_roles`]; those whose partition was replaced meanwhile, by what does not know of the role yet.
    async fn take_roles_once(
        &self,
        roles: Vec<(Uuid, i32, PartitionState)>,
    ) -> Vec<(Uuid, i32, PartitionState)> {
        let mut given = Vec::new();
        let mut by_volume: BTreeMap<usize, Vec<(Arc<Replica>, PartitionState)>> = BTreeMap::new();
        for (topic_id, index, state) in roles {
            let topic = self.topic_by_id(topic_id);
            let Some(partition) = topic.and_then(|topic| topic.get(index).cloned().ok()) else {
                continue;
            };
            if let Some(at) = self.volume_of(&partition) {
                let taken = (partition.replica().clone(), state.clone());
                by_volume.entry(at).or_default().push(taken);
            }
            given.push((partition, state));
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
        let is_replaced = |partition: &Arc<Partition>| {
            let (topic_id, index) = (partition.topic_id(), partition.index());
            let known = self.topic_by_id(topic_id);
            let known = known.and_then(|topic| topic.get(index).ok().cloned());
            known.is_some_and(|known| !Arc::ptr_eq(&known, partition))
        };
        let missed = given.into_iter().filter(|(known, _)| is_replaced(known));
        missed
            .map(|(partition, state)| (partition.topic_id(), partition.index(), state))
            .collect()
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
            let find = || self.topic_by_id(topic_id)?.get(index).cloned().ok();
            let mut updated = None;
            // Once more where it was replaced meanwhile.
            while let Some(partition) = find()
                && !updated
                    .as_ref()
                    .is_some_and(|updated| Arc::ptr_eq(updated, &partition))
            {
                partition.update_state(&state);
                updated = Some(partition);
            }
        }
    }
}

/// By whoever writes, or while nobody else knows the replica.
pub(super) fn take(replica: &Replica, state: &PartitionState) {
    // One that goes to another directory writes no more; what takes its place begins the epoch.
    if !state.is_led_here() || replica.is_deleted() {
        replica.take_role(state);
        return;
    }
    if let Err(error) = replica.lead(state) {
        let reason = format!("cannot lead in epoch {}: {error}", state.leader_epoch);
        replica.fail_sync(&reason);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use metaq_protocol::batch::{BatchBuilder, BatchHeader, header_for_append};
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::log::{LogConfig, ProducedBatch, RealDisk};
    use crate::partition::{
        Acks, Cut, CutTo, Eligible, FetchWaiter, FollowerFetch, FollowerNoted, Identity,
        PartitionsOptions, TopicToOpen,
    };

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn state(leader: i32, leader_epoch: i32, partition_epoch: i32) -> PartitionState {
        PartitionState {
            own: 1,
            leader,
            leader_epoch,
            partition_epoch,
            replicas: vec![1, 2],
            isr: vec![1, 2],
            eligible: Eligible::None,
        }
    }

    fn open(dir: &std::path::Path, state: PartitionState) -> (Arc<Partitions>, Arc<Partition>) {
        let options = PartitionsOptions::new(vec![dir.to_path_buf()]);
        let partitions = Arc::new(Partitions::open(Arc::new(RealDisk), &options).unwrap());
        let identity = Identity {
            broker_id: 1,
            number: 0,
        };
        let report = partitions.open_topics(vec![TopicToOpen {
            topic: "t".into(),
            topic_id: TOPIC,
            config: LogConfig::default(),
            partitions: vec![(0, identity, state)],
        }]);
        assert_eq!(report.online, 1);
        let partition = partitions.get("t", 0).unwrap();
        (partitions, partition)
    }

    fn batch() -> Vec<ProducedBatch> {
        let bytes = BatchBuilder::new().push(None, Some(b"v"), &[], 1).finish();
        let bytes = bytes.unwrap();
        vec![ProducedBatch {
            header: BatchHeader::parse(&bytes).unwrap(),
            bytes,
        }]
    }

    /// The batch as the leader of epoch 3 has it at an offset.
    fn batch_at(offset: i64) -> Vec<u8> {
        let whole = &batch()[0].bytes;
        let head = header_for_append(whole, offset, 3, None);
        [&head[..], &whole[head.len()..]].concat()
    }

    fn fetch(offset: i64) -> FollowerFetch {
        FollowerFetch {
            replica: 2,
            broker_epoch: 1,
            leader_epoch: -1,
            offset,
            log_start: 0,
        }
    }

    #[tokio::test]
    async fn what_is_for_all_is_answered_when_the_follower_asks_for_more() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = open(dir.path(), state(1, 3, 0));
        partition.follower_fetched(&fetch(0), None);
        let mut all = partition.append(Acks::All, batch());
        let one = partition.append(Acks::Leader, batch()).await.unwrap();
        assert_eq!(one.unwrap().base_offset, 1);
        assert_eq!(all.try_recv().unwrap_err(), TryRecvError::Empty);
        assert_eq!(partition.high_watermark(), 0);
        // Asked in the epoch before, by a fetch that took long to read.
        let late = FollowerFetch {
            leader_epoch: 2,
            ..fetch(1)
        };
        let noted = partition.follower_fetched(&late, None);
        assert_eq!(noted, FollowerNoted::Refused);
        assert_eq!(partition.high_watermark(), 0);
        let noted = partition.follower_fetched(&fetch(1), None);
        assert_eq!(noted, FollowerNoted::InSync);
        assert_eq!(all.await.unwrap().unwrap().base_offset, 0);
        assert_eq!(partition.high_watermark(), 1);
        // Who is no replica says nothing.
        let other = FollowerFetch {
            replica: 9,
            ..fetch(2)
        };
        let noted = partition.follower_fetched(&other, None);
        assert_eq!(noted, FollowerNoted::Refused);
        partitions.close();
    }

    #[tokio::test]
    async fn nothing_is_committed_while_the_controller_counts_on_one_that_is_not_in_sync() {
        let dir = tempfile::tempdir().unwrap();
        // This broker has min.insync.replicas=1; the controller, where it is 2, has made the other one eligible.
        let (partitions, partition) = open(dir.path(), state(1, 3, 0));
        partition.follower_fetched(&fetch(0), None);
        let waits = partition.append(Acks::All, batch());
        let short = PartitionState {
            isr: vec![1],
            eligible: Eligible::Some,
            ..state(1, 3, 1)
        };
        partition.update_state(&short);
        let refused = partition.check_in_sync(Acks::All);
        assert!(matches!(
            refused,
            Err(LogError::NotEnoughReplicas {
                in_sync: 1,
                needed: 2
            })
        ));
        let appended = partition.append(Acks::Leader, batch()).await.unwrap();
        assert!(appended.is_ok());
        assert_eq!(partition.high_watermark(), 0);
        // It took a proposal, and its image is still on its way.
        let unknown = PartitionState {
            isr: vec![1],
            eligible: Eligible::Unknown,
            ..state(1, 3, 2)
        };
        partition.update_state(&unknown);
        assert_eq!(partition.high_watermark(), 0);
        assert!(partition.check_in_sync(Acks::All).is_ok());
        let without = PartitionState {
            isr: vec![1],
            ..state(1, 3, 2)
        };
        partition.update_state(&without);
        assert_eq!(partition.high_watermark(), 2);
        assert!(waits.await.unwrap().is_ok());
        assert!(partition.check_in_sync(Acks::All).is_ok());
        partitions.close();
    }

    #[tokio::test]
    async fn a_followers_session_hears_of_all_that_its_next_fetch_is_to_tell() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = open(dir.path(), state(1, 3, 0));
        partition.follower_fetched(&fetch(0), None);
        let waiter = Arc::new(FetchWaiter::default());
        let _subscription = partition.subscribe(&waiter, 5, true);
        let appended = partition.append(Acks::Leader, batch()).await;
        assert_eq!(appended.unwrap().unwrap().base_offset, 0);
        assert_eq!(waiter.take_moved(), [5].into());
        // It has it: the high watermark moves.
        partition.follower_fetched(&fetch(1), None);
        assert_eq!(waiter.take_moved(), [5].into());
        partition.follower_fetched(&fetch(1), None);
        assert_eq!(waiter.take_moved(), [].into());
        let mut out = state(1, 3, 1);
        out.isr = vec![1];
        partition.update_state(&out);
        assert_eq!(waiter.take_moved(), [5].into());
        let noted = partition.follower_fetched(&fetch(1), None);
        assert_eq!(noted, FollowerNoted::OutOfSync);
        waiter.take_moved();
        partitions.delete_records(&partition, 1).await.unwrap();
        assert_eq!(waiter.take_moved(), [5].into());
        partitions
            .take_roles(vec![(TOPIC, 0, state(2, 4, 2))])
            .await;
        assert_eq!(waiter.take_moved(), [5].into());
        partitions.close();
    }

    #[tokio::test]
    async fn a_leader_that_follows_takes_nothing_and_answers_who_waits_and_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = open(dir.path(), state(1, 3, 0));
        let waiting = partition.append(Acks::All, batch());
        let kept = partition.append(Acks::Leader, batch()).await.unwrap();
        assert!(kept.is_ok());
        partitions
            .take_roles(vec![(TOPIC, 0, state(2, 4, 1))])
            .await;
        let refused = waiting.await.unwrap();
        assert!(matches!(refused, Err(LogError::NotLeader)));
        let refused = partition.append(Acks::Leader, batch()).await.unwrap();
        assert!(matches!(refused, Err(LogError::NotLeader)));
        let cut = |leader_epoch| Cut {
            partition: partition.clone(),
            leader_epoch,
            to: CutTo::Offset(1),
        };
        // What its leader of an earlier epoch said does not count.
        let done = partitions.cut_off(vec![cut(3)]).await;
        assert!(matches!(done[..], [Ok(false)]));
        let done = partitions.cut_off(vec![cut(4)]).await;
        assert!(matches!(done[..], [Ok(true)]), "{done:?}");
        assert_eq!(partition.log().ends().log_end.offset, 1);
        partitions.close();
    }

    /// A follower of three records, of which nothing is synced.
    async fn follower_of_three(dir: &std::path::Path) -> (Arc<Partitions>, Arc<Partition>) {
        let (partitions, partition) = open(dir, state(2, 3, 0));
        append_fetched(&partition, 3).await;
        (partitions, partition)
    }

    /// The follower copies so many records.
    async fn append_fetched(partition: &Partition, count: i64) {
        let end = partition.log().ends().log_end.offset;
        let all: Vec<u8> = (end..end + count).flat_map(batch_at).collect();
        let appended = partition.append_fetched(&all.into(), 3).unwrap().await;
        assert!(appended.unwrap().is_ok());
    }

    async fn cut_off(partitions: &Arc<Partitions>, partition: &Arc<Partition>, to: i64) {
        let cut = Cut {
            partition: partition.clone(),
            leader_epoch: 3,
            to: CutTo::Offset(to),
        };
        let done = partitions.cut_off(vec![cut]).await;
        assert!(matches!(done[..], [Ok(true)]), "{done:?}");
    }

    #[tokio::test]
    async fn a_sync_that_began_before_a_cut_says_nothing_of_what_comes_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = follower_of_three(dir.path()).await;
        let replica = partition.replica();
        let durable = || {
            let progress = replica.progress.lock();
            let watermarks = &progress.watermarks;
            (watermarks.log_end().offset, watermarks.durable().offset)
        };
        // The cut comes before the sync has the log to itself.
        let before = replica.log().sync_target();
        cut_off(&partitions, &partition, 1).await;
        append_fetched(&partition, 1).await;
        assert_eq!(durable(), (2, 0));
        replica.sync_to(before, 0);
        let synced_end = replica.log().ends().synced_end;
        assert_eq!((durable(), synced_end), ((2, 2), 2));
        // It comes between the sync and what is known by it.
        append_fetched(&partition, 3).await;
        let target = replica.log().sync_target();
        let synced = replica.log().sync_to(target, 0).unwrap();
        cut_off(&partitions, &partition, 3).await;
        append_fetched(&partition, 1).await;
        assert!(replica.log_was_synced(&synced));
        assert_eq!(durable(), (4, 3));
        assert!(!replica.sync_to(replica.log().sync_target(), 0));
        assert_eq!(durable(), (4, 4));
        partitions.close();
    }

    #[tokio::test]
    async fn what_was_cut_off_needs_no_journal() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = follower_of_three(dir.path()).await;
        let replica = partition.replica();
        assert!(replica.needs_journal(3));
        cut_off(&partitions, &partition, 1).await;
        append_fetched(&partition, 1).await;
        assert!(replica.needs_journal(3));
        replica.sync_to(replica.log().sync_target(), 0);
        assert!(!replica.needs_journal(3));
        partitions.close();
    }

    #[tokio::test]
    async fn what_was_stopped_or_moved_needs_the_journal_until_it_is_synced_and_what_was_deleted_does_not()
     {
        type Ends = fn(&Replica);
        let ends: [(Ends, bool); 3] = [
            (Replica::mark_stopped, true),
            (Replica::mark_moved, true),
            (Replica::mark_deleted, false),
        ];
        for (end, needs_it) in ends {
            let dir = tempfile::tempdir().unwrap();
            let (partitions, partition) = follower_of_three(dir.path()).await;
            let replica = partition.replica();
            end(replica);
            assert!(replica.is_deleted());
            assert_eq!(replica.needs_journal(3), needs_it);
            replica.sync_to(replica.log().sync_target(), 0);
            assert!(!replica.needs_journal(3));
            partitions.close();
        }
    }

    #[tokio::test]
    async fn a_follower_that_asks_for_what_its_leader_does_not_have_is_not_taken_for_one_in_sync() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = open(dir.path(), state(1, 3, 0));
        partition.follower_fetched(&fetch(0), None);
        let mut all = partition.append(Acks::All, batch());
        let one = partition.append(Acks::Leader, batch()).await.unwrap();
        assert!(one.is_ok());
        let noted = partition.follower_fetched(&fetch(3), None);
        assert_eq!(noted, FollowerNoted::Refused);
        assert_eq!(all.try_recv().unwrap_err(), TryRecvError::Empty);
        assert_eq!(partition.high_watermark(), 0);
        let noted = partition.follower_fetched(&fetch(2), None);
        assert_eq!(noted, FollowerNoted::InSync);
        assert!(all.await.unwrap().is_ok());
        partitions.close();
    }

    #[tokio::test]
    async fn a_follower_whose_leader_ends_before_its_start_begins_anew_there() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = open(dir.path(), state(2, 3, 0));
        for (to, expected) in [
            (CutTo::AnewAt(100), 100),
            (CutTo::back_to(100, 100), 100),
            (CutTo::back_to(40, 100), 40),
        ] {
            let cut = Cut {
                partition: partition.clone(),
                leader_epoch: 3,
                to,
            };
            let done = partitions.cut_off(vec![cut]).await;
            assert!(matches!(done[..], [Ok(true)]), "{done:?}");
            let ends = partition.log().ends();
            assert_eq!((ends.log_start, ends.log_end.offset), (expected, expected));
        }
        partitions.close();
    }

    #[tokio::test]
    async fn what_a_kill_left_unsynced_is_not_as_safe_as_a_topic_promises_that_syncs() {
        let dir = tempfile::tempdir().unwrap();
        let (killed, partition) = open(dir.path(), state(2, 3, 0));
        let bytes = batch()[0].bytes.clone();
        let appended = partition.append_fetched(&bytes, 3).unwrap().await;
        assert!(appended.unwrap().is_ok() && partition.has_all_as_promised());
        drop((killed, partition));
        let (partitions, partition) = open(dir.path(), state(2, 3, 0));
        assert_eq!(partition.log().ends().log_end.offset, 1);
        assert!(partition.has_all_as_promised());
        let syncs = LogConfig {
            flush_messages: 1,
            ..LogConfig::default()
        };
        partitions.reconfigure("t", &syncs);
        assert!(!partition.has_all_as_promised());
        partition.sync_soon();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !partition.has_all_as_promised() {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        partitions.close();
    }

    #[tokio::test]
    async fn of_what_is_fetched_the_whole_batches_are_taken_and_a_torn_one_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = open(dir.path(), state(2, 3, 0));
        let whole = &batch()[0].bytes;
        let all = [batch_at(0), batch_at(1), batch_at(2)].concat();
        for torn_by in [1, whole.len() - 1] {
            let end = partition.log().ends().log_end.offset;
            let from = end as usize * whole.len();
            let fetched = Bytes::copy_from_slice(&all[from..all.len() - torn_by]);
            let appended = partition.append_fetched(&fetched, 3).unwrap().await;
            assert_eq!(appended.unwrap().unwrap().last_offset, 1);
            assert_eq!(partition.log().ends().log_end.offset, 2);
            let nothing = fetched.slice(..whole.len() - 1);
            assert!(partition.append_fetched(&nothing, 3).is_err());
            partitions
                .cut_off(vec![Cut {
                    partition: partition.clone(),
                    leader_epoch: 3,
                    to: CutTo::Offset(0),
                }])
                .await;
        }
        partitions.close();
    }

    #[tokio::test]
    async fn a_replica_that_led_in_an_earlier_run_does_not_lead_in_that_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let (partitions, partition) = open(dir.path(), state(-1, 3, 0));
        partitions.update_states([(TOPIC, 0, state(1, 3, 1))]);
        assert!(!partition.is_leader() && partition.state().leader == -1);
        partitions
            .take_roles(vec![(TOPIC, 0, state(1, 4, 2))])
            .await;
        assert!(partition.is_leader() && partition.leader_epoch() == 4);
        partitions.close();
    }
}
