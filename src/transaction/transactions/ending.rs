//! How transactions end, and transactional ids: markers, timeouts, topics that are deleted, ids that expire.
//!
//! Tests: transaction/transactions/ending_tests.rs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::Transactions;
use crate::transaction::asks::{Ask, Errand, Markers};
use crate::transaction::limits::{
    COMPLETE_AFTER_MS, EXPIRE_AT_ONCE, EXPIRE_PAUSE_MS, MARKERS_AGAIN_MS, STORE_AGAIN_MS,
};
use crate::transaction::partitions::Partitions;
use crate::transaction::state::State;
use crate::transaction::transaction::{Halt, Transaction};

impl Transactions {
    /// Asks for the markers that are not known to be written.
    pub(super) fn send_markers(&mut self, now_ms: i64, id: &Arc<str>) {
        let (slot, coordinator_epoch) = (self.partition.slot, self.epoch);
        let number = self.context.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(entry) = self.ids.get_mut(id) else {
            return;
        };
        let Some(outcome) = entry.now.state.preparing() else {
            return;
        };
        let live = entry.live();
        if live.markers == 0 {
            live.markers = number;
        }
        let markers = Markers {
            number: live.markers,
            transactional_id: id.clone(),
            slot,
            coordinator_epoch,
            producer: entry.now.producer,
            outcome,
            version: entry.now.version,
            partitions: entry.now.partitions.clone(),
        };
        entry.live().again_ms = now_ms + MARKERS_AGAIN_MS;
        let _ = self.context.errands.send(Errand::Markers(markers));
    }

    /// Markers are written. Those of another number belong to an earlier transaction: its producer may be the same.
    pub(super) fn marked(
        &mut self,
        now_ms: i64,
        id: &Arc<str>,
        number: u64,
        partitions: &[(Arc<str>, i32)],
    ) {
        let Some(entry) = self.ids.get_mut(id) else {
            return;
        };
        let is_wanted = entry
            .live
            .as_ref()
            .is_some_and(|live| live.markers == number);
        if entry.now.state.preparing().is_none() || !is_wanted {
            return;
        }
        let before = entry.now.bytes(id);
        for (topic, index) in partitions {
            entry.now.partitions.remove(topic, *index);
        }
        let now = entry.now.bytes(id);
        let is_done = entry.now.partitions.is_empty();
        let live = entry.live();
        let is_asked_for = !live.waiting.is_empty();
        if is_done && !is_asked_for {
            live.again_ms = now_ms + COMPLETE_AFTER_MS;
        }
        self.count_bytes(before, now);
        if is_asked_for {
            self.complete(now_ms, id);
        }
    }

    /// Stores that the transaction is complete, where no marker is missing any more.
    pub(super) fn complete(&mut self, now_ms: i64, id: &Arc<str>) {
        let Some(entry) = self.ids.get(id) else {
            return;
        };
        if entry.change().is_some() || !entry.now.partitions.is_empty() {
            return;
        }
        if let Some(next) = entry.now.completed(now_ms) {
            self.store(id, next, Vec::new());
            self.take_waiting(now_ms, id);
        }
    }

    /// What is due of an id: its transaction's timeout, markers that are asked for again, a change that was not stored.
    pub(super) fn end_what_is_due(&mut self, now_ms: i64, id: &Arc<str>) {
        let Some(entry) = self.ids.get(id) else {
            return;
        };
        let again_ms = entry.live.as_ref().map_or(0, |live| live.again_ms);
        if entry.change().is_some() || again_ms > now_ms {
            return;
        }
        if entry.now.state.preparing().is_some() {
            match entry.now.partitions.is_empty() {
                true => self.complete(now_ms, id),
                false => self.send_markers(now_ms, id),
            }
        } else {
            self.timed_out(now_ms, id);
        }
    }

    /// Aborts a transaction whose time is over (TransactionCoordinator.abortTimedOutTransactions).
    pub(super) fn timed_out(&mut self, now_ms: i64, id: &Arc<str>) {
        let at_ms = self.now(id).times_out_ms();
        if at_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        let aborted = self.abort(now_ms, id);
        if let Some(entry) = self.ids.get_mut(id) {
            entry.live().again_ms = now_ms + STORE_AGAIN_MS;
        }
        match aborted {
            Ok(()) => self.report(now_ms, id, "aborted: it took too long"),
            Err(Halt::NeedsId) => self.wait_for_producer_id(now_ms, id, Ask::TimedOut),
            Err(Halt::Refuse(error)) => tracing::error!(id = &**id, %error, "cannot abort"),
        }
    }

    /// A topic was deleted: its partitions need no markers. What is stored has the topic's id, and is left out when it is read.
    pub(super) fn topic_deleted(&mut self, now_ms: i64, topic: &str, topic_id: Uuid) {
        // Made again: leaders may have known the new one before this broker did, and have records of the transaction in it.
        if self.topics.id_of(topic).is_some_and(|id| id != topic_id) {
            return;
        }
        let mut changed = Vec::new();
        let (mut before, mut now) = (0, 0);
        for (id, entry) in &mut self.ids {
            before += entry.now.bytes(id);
            let mut is_changed = entry.now.partitions.remove_topic(topic, topic_id);
            now += entry.now.bytes(id);
            let change = entry
                .live
                .as_deref_mut()
                .and_then(|live| live.change.as_mut());
            if let Some(change) = change {
                is_changed |= change.next.partitions.remove_topic(topic, topic_id);
            }
            if is_changed {
                changed.push(id.clone());
            }
        }
        self.count_bytes(before, now);
        for id in changed {
            self.complete(now_ms, &id);
            self.settle(&id);
        }
    }

    /// Removes ids that were not used for a while (TransactionStateManager.shouldExpire); of very many some, and the others
    /// soon.
    pub(super) fn expire(&mut self, now_ms: i64) {
        let limits = &self.context.limits;
        let is_over = |at_ms: i64| at_ms.saturating_add(limits.expiration_ms) <= now_ms;
        let is_expired = |now: &Transaction| {
            let is_idle = matches!(
                now.state,
                State::Empty | State::CompleteCommit | State::CompleteAbort
            );
            is_idle && now.seldom().decision.is_none() && is_over(now.updated_ms)
        };
        let expired = self.ids.iter();
        let expired = expired.filter(|(_, entry)| !entry.is_busy() && is_expired(&entry.now));
        let expired: Vec<Arc<str>> = expired
            .map(|(id, _)| id.clone())
            .take(EXPIRE_AT_ONCE)
            .collect();
        let pause_ms = match expired.len() < EXPIRE_AT_ONCE {
            true => limits.expiration_check_ms.max(1),
            false => EXPIRE_PAUSE_MS,
        };
        self.expire_at_ms = now_ms.saturating_add(pause_ms);
        for id in expired {
            let dead = Transaction {
                partitions: Partitions::NONE,
                ..Transaction::DEAD
            };
            self.store(&id, dead, Vec::new());
            self.settle(&id);
        }
    }
}
