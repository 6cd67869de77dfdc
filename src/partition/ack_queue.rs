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

/// Appends that wait, each with its reply.
#[derive(Default)]
pub(super) struct AckQueue {
    waiting: Vec<(Appended, AppendReply)>,
}

impl AckQueue {
    pub(super) fn push(&mut self, appended: Appended, reply: AppendReply) {
        self.waiting.push((appended, reply));
    }

    /// Takes those whose promise is true now.
    pub(super) fn take_reached(&mut self, watermarks: &Watermarks) -> Vec<(Appended, AppendReply)> {
        let is_due =
            |(appended, reply): &(Appended, AppendReply)| reply.is_due(appended, watermarks);
        if !self.waiting.iter().any(is_due) {
            return Vec::new();
        }
        let (reached, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(is_due);
        self.waiting = waiting;
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
        for (_, reply) in self.waiting.drain(..) {
            reply.send(Err(refusal()));
        }
    }
}

#[cfg(test)]
mod tests {
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
        let at = |offset| OffsetPosition {
            offset,
            segment_base: 0,
            position: 0,
        };
        let mut watermarks = Watermarks::opened(at(0), at(0), at(0), None);
        watermarks.appended(at(10));
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
        watermarks.synced(at(4));
        let reached = queue.take_reached(&watermarks);
        assert_eq!(reached.len(), 1);
        assert_eq!(reached[0].0.last_offset, 3);
        queue.refuse_all(|| LogError::Offline("x".to_owned()));
        let refused = answers[1].try_recv().unwrap();
        assert!(matches!(refused, Err(LogError::Offline(reason)) if reason == "x"));
        assert!(answers[2].try_recv().unwrap().is_err());
    }
}
