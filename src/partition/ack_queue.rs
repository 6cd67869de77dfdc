//! Requests whose acknowledgement waits until what it promises is true.

use tokio::sync::oneshot;

use super::acks::Acks;
use super::watermarks::{Promise, Watermarks};
use crate::log::{Appended, LogError};

/// Where a request is answered, and what it waits for.
pub(super) struct AppendReply {
    acks: Acks,
    sender: oneshot::Sender<Result<Appended, LogError>>,
}

impl AppendReply {
    pub(super) fn new(acks: Acks, sender: oneshot::Sender<Result<Appended, LogError>>) -> Self {
        Self { acks, sender }
    }

    /// Answers; nobody may be there any more.
    pub(super) fn send(self, result: Result<Appended, LogError>) {
        let _ = self.sender.send(result);
    }

    /// Whether it waits until what is in sync has it.
    pub(super) fn is_for_all(&self) -> bool {
        self.acks == Acks::All
    }

    /// Whether it waits for a sync of the log's own files.
    pub(super) fn waits_for_sync(
        &self,
        appended: &Appended,
        watermarks: &Watermarks,
        shows: Promise,
    ) -> bool {
        let is_to_be_durable =
            appended.needs_sync || self.is_for_all() && shows == Promise::Durable;
        is_to_be_durable
            && !watermarks.holds(Promise::Durable, appended.last_offset)
            && !watermarks.waits_for_journal(appended.last_offset)
    }

    /// Whether what was promised of an append is true: acks=all is for what is committed.
    pub(super) fn is_due(&self, appended: &Appended, watermarks: &Watermarks) -> bool {
        let promise = match appended.needs_sync {
            true => Promise::Durable,
            false => Promise::Written,
        };
        watermarks.holds(promise, appended.last_offset)
            && (self.acks != Acks::All || appended.last_offset < watermarks.high_watermark())
    }
}

/// So many may wait before those are looked for whose clients do not wait any more.
const WAITING_MIN: usize = 1024;

/// Appends that wait, each with its reply.
pub(super) struct AckQueue {
    waiting: Vec<(Appended, AppendReply)>,
    /// The least last offset of those that wait: what moves before it, and there is much of that while a follower takes long, is
    /// of no use to any.
    least: i64,
    /// At how many that wait those are forgotten whose clients do not wait any more.
    forgets_at: usize,
}

impl Default for AckQueue {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            least: i64::MAX,
            forgets_at: WAITING_MIN,
        }
    }
}

impl AckQueue {
    pub(super) fn push(&mut self, appended: Appended, reply: AppendReply) {
        if self.waiting.len() >= self.forgets_at {
            self.waiting.retain(|(_, reply)| !reply.sender.is_closed());
            self.forgets_at = (2 * self.waiting.len()).max(WAITING_MIN);
        }
        self.least = self.least.min(appended.last_offset);
        self.waiting.push((appended, reply));
    }

    /// Takes those whose promise is true now.
    pub(super) fn take_reached(&mut self, watermarks: &Watermarks) -> Vec<(Appended, AppendReply)> {
        if self.least >= watermarks.durable().offset.max(watermarks.high_watermark()) {
            return Vec::new();
        }
        let is_due =
            |(appended, reply): &(Appended, AppendReply)| reply.is_due(appended, watermarks);
        if !self.waiting.iter().any(is_due) {
            return Vec::new();
        }
        let (reached, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(is_due);
        self.waiting = waiting;
        let last_offsets = self
            .waiting
            .iter()
            .map(|(appended, _)| appended.last_offset);
        self.least = last_offsets.min().unwrap_or(i64::MAX);
        reached
    }

    /// Whether somebody waits for a sync of the log's own files, rather than for the journal or for followers.
    pub(super) fn wants_sync(&self, watermarks: &Watermarks, shows: Promise) -> bool {
        let waits = |(appended, reply): &(Appended, AppendReply)| {
            reply.waits_for_sync(appended, watermarks, shows)
        };
        self.waiting.iter().any(waits)
    }

    /// Answers all that wait with a refusal.
    pub(super) fn refuse_all(&mut self, refusal: impl Fn() -> LogError) {
        self.least = i64::MAX;
        for (_, reply) in self.waiting.drain(..) {
            reply.send(Err(refusal()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::watermarks::Bound;
    use super::*;
    use crate::log::OffsetPosition;

    fn appended(last_offset: i64, needs_sync: bool) -> Appended {
        Appended {
            base_offset: last_offset,
            last_offset,
            log_append_time_ms: -1,
            log_start: 0,
            needs_sync,
        }
    }

    #[test]
    fn each_waits_for_its_own_promise_and_a_refusal_reaches_all() {
        let mut watermarks = Watermarks::opened(end(0), end(0), end(0), None);
        watermarks.appended(end(10));
        let mut queue = AckQueue::default();
        let mut answers = Vec::new();
        for (last_offset, needs_sync) in [(3, true), (9, true), (12, false)] {
            let (sender, answer) = oneshot::channel();
            let reply = AppendReply::new(Acks::Leader, sender);
            queue.push(appended(last_offset, needs_sync), reply);
            answers.push(answer);
        }
        assert!(
            queue.take_reached(&watermarks).is_empty()
                && queue.wants_sync(&watermarks, Promise::Written)
        );
        watermarks.synced(end(4));
        let reached = queue.take_reached(&watermarks);
        assert_eq!(reached.len(), 1);
        assert_eq!(reached[0].0.last_offset, 3);
        queue.refuse_all(|| LogError::Offline("x".to_owned()));
        let refused = answers[1].try_recv().unwrap();
        assert!(matches!(refused, Err(LogError::Offline(reason)) if reason == "x"));
        assert!(answers[2].try_recv().unwrap().is_err());
    }

    fn end(offset: i64) -> OffsetPosition {
        OffsetPosition {
            offset,
            segment_base: 0,
            position: 0,
        }
    }

    #[test]
    fn who_does_not_wait_any_more_is_forgotten() {
        let mut queue = AckQueue::default();
        let mut patient = Vec::new();
        for n in 0..10 * WAITING_MIN {
            let (sender, answer) = oneshot::channel();
            queue.push(
                appended(n as i64, false),
                AppendReply::new(Acks::All, sender),
            );
            if n % 100 == 0 {
                patient.push(answer);
            }
        }
        assert!(queue.waiting.len() <= 2 * WAITING_MIN);
        let mut watermarks = Watermarks::opened(end(0), end(0), end(0), None);
        watermarks.appended(end(20_000));
        assert!(queue.take_reached(&watermarks).is_empty());
        watermarks.synced(end(20_000));
        watermarks.advance(Promise::Written, Bound::At(end(5000)), |_| None);
        let reached = queue.take_reached(&watermarks);
        assert_eq!(
            reached
                .iter()
                .filter(|(_, reply)| !reply.sender.is_closed())
                .count(),
            50
        );
        watermarks.advance(Promise::Written, Bound::None, |_| None);
        for (appended, reply) in queue.take_reached(&watermarks).into_iter().chain(reached) {
            reply.send(Ok(appended));
        }
        for mut answer in patient {
            assert!(answer.try_recv().unwrap().is_ok());
        }
    }
}
