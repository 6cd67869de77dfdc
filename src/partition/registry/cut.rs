//! Cuts off the ends of followers' logs whose leaders have something else there. What could bring the records back, or vouch for
//! them, is changed first, durably: the journal, then the checkpoints.
//!
//! Tests: partition/registry/roles.rs, tests/simulation.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{Partitions, offsets_of};
use crate::log::{LogError, PartitionOffsets};
use crate::partition::Partition;

/// What becomes of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutTo {
    /// What lies at and after the offset goes.
    Offset(i64),
    /// All goes, and it begins anew at the offset.
    AnewAt(i64),
}

impl CutTo {
    /// Back to an offset, of a log that starts there: where it does not reach that far back, all goes (Kafka's
    /// UnifiedLog.truncateTo).
    pub fn back_to(offset: i64, log_start: i64) -> Self {
        match offset < log_start {
            true => Self::AnewAt(offset),
            false => Self::Offset(offset),
        }
    }
}

/// A follower's log that is to be cut.
#[derive(Clone)]
pub struct Cut {
    /// The follower.
    pub partition: Arc<Partition>,
    /// The epoch in which its leader said so; in another one nothing is cut.
    pub leader_epoch: i32,
    /// What is to become of it.
    pub to: CutTo,
}

impl Cut {
    /// What the checkpoints may say at most.
    fn row(&self) -> ((String, i32), PartitionOffsets) {
        let (key, known) = offsets_of(&self.partition);
        let row = match self.to {
            CutTo::Offset(to) => PartitionOffsets {
                recovery_point: known.recovery_point.min(to),
                log_start: known.log_start,
                high_watermark: known.high_watermark.min(to),
                cleaned_until: known.cleaned_until.min(to),
            },
            CutTo::AnewAt(at) => PartitionOffsets {
                recovery_point: at,
                log_start: at,
                high_watermark: at,
                cleaned_until: 0,
            },
        };
        (key, row)
    }

    /// What the journal holds from there on does not count.
    fn journaled_from(&self) -> i64 {
        match self.to {
            CutTo::Offset(to) => to,
            CutTo::AnewAt(_) => 0,
        }
    }

    /// Cuts; called by whoever writes.
    fn carry_out(&self, now_ms: i64) -> Result<bool, LogError> {
        let replica = self.partition.replica();
        match self.to {
            CutTo::Offset(to) => replica.cut_off(self.leader_epoch, to, now_ms),
            CutTo::AnewAt(at) => replica.start_anew_at(self.leader_epoch, at, now_ms),
        }
    }
}

impl Partitions {
    /// Cuts off logs, durably when this returns. In the order of the cuts: whether it was done, which it is not where the role of
    /// the partition is another one by now.
    pub async fn cut_off(self: &Arc<Self>, cuts: Vec<Cut>) -> Vec<Result<bool, LogError>> {
        let mut results: Vec<_> = cuts.iter().map(|_| Ok(false)).collect();
        let mut by_volume: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (n, cut) in cuts.iter().enumerate() {
            if let Some(at) = self.volume_of(&cut.partition) {
                by_volume.entry(at).or_default().push(n);
            }
        }
        for (at, numbers) in by_volume {
            let of_volume: Vec<Cut> = numbers.iter().map(|n| cuts[*n].clone()).collect();
            let done = self.cut_off_in(at, of_volume).await;
            for (n, result) in numbers.into_iter().zip(done) {
                results[n] = result;
            }
        }
        results
    }

    async fn cut_off_in(
        self: &Arc<Self>,
        at: usize,
        cuts: Vec<Cut>,
    ) -> Vec<Result<bool, LogError>> {
        let refuse = |why: String| -> Vec<Result<bool, LogError>> {
            let refusal = |_| Err(LogError::Offline(why.clone()));
            cuts.iter().map(refusal).collect()
        };
        if !self.note_cuts_in_journal(at, &cuts).await {
            return cuts.iter().map(|_| Err(LogError::NotJournaled)).collect();
        }
        let rows: Vec<_> = cuts.iter().map(Cut::row).collect();
        let (own, held) = (self.clone(), rows.clone());
        let hold = move || own.volumes[at].dir.hold_rows(&held);
        match self.workers.unblock(hold).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return refuse(error.to_string()),
            None => return refuse("a checkpoint panicked; this is a bug".to_owned()),
        }
        let (now_ms, carried_out) = (self.clock.now_ms(), cuts.clone());
        let carry_out = move || {
            let all = carried_out.iter();
            all.map(|cut| cut.carry_out(now_ms)).collect::<Vec<_>>()
        };
        let done = self.volumes[at].writer.run(carry_out).await;
        // From here on the logs themselves say no more than there is.
        for ((topic, index), _) in &rows {
            self.volumes[at].dir.release_offsets(topic, *index);
        }
        done.unwrap_or_else(|_| refuse("the writer ended".to_owned()))
    }

    /// The journals are not needed any more for what earlier objects were that stood for some partitions.
    pub(super) fn release_in_journals(&self, is_released: impl Fn(Uuid, i32) -> bool) {
        let journals = self
            .volumes
            .iter()
            .filter_map(|volume| volume.writer.journal());
        journals.for_each(|journal| journal.release(&is_released));
    }

    /// Whether the journal notes, where it may hold something of them, that the logs are cut off.
    pub(super) async fn note_cuts_in_journal(self: &Arc<Self>, at: usize, cuts: &[Cut]) -> bool {
        let Some(journal) = self.volumes[at].writer.journal() else {
            return true;
        };
        if journal.is_unsettled() {
            // A disk that failed at the start, or was full, may do now.
            let own = self.clone();
            let settle = move || own.settle_journal(&own.volumes[at]).is_ok();
            if self.workers.unblock(settle).await != Some(true) {
                return false;
            }
            journal.note_settled();
        }
        let mut noted = Vec::new();
        for cut in cuts {
            let replica = cut.partition.replica();
            let (topic_id, index) = (cut.partition.topic_id(), cut.partition.index());
            if replica.was_journaled() || journal.may_hold(topic_id, index) {
                // It does not vouch for what it holds of it from now on.
                replica.not_journaled();
                noted.push((replica.clone(), cut.journaled_from()));
            }
        }
        if noted.is_empty() {
            return true;
        }
        if !journal.is_usable() {
            let (own, journal) = (self.clone(), journal.clone());
            let dissolve = move || journal.dissolve(own.disk(), own.volumes[at].dir.path());
            return self.workers.unblock(dissolve).await == Some(true);
        }
        journal.cut(noted).await.into_iter().all(|noted| noted)
    }
}
