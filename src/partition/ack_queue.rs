//! Requests whose acknowledgement waits until what it promises is true.

use tokio::sync::oneshot;

use super::watermarks::{Promise, Watermarks};
use crate::log::{Appended, LogError};

/// Where a request is answered.
pub(super) type AppendReply = oneshot::Sender<Result<Appended, LogError>>;

/// What is promised of an append.
pub(super) fn promise_of(appended: &Appended) -> Promise {
    match appended.needs_sync {
        true => Promise::Durable,
        false => Promise::Written,
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
        let holds =
            |appended: &Appended| watermarks.holds(promise_of(appended), appended.last_offset);
        if !self.waiting.iter().any(|(appended, _)| holds(appended)) {
            return Vec::new();
        }
        let (reached, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(appended, _)| holds(appended));
        self.waiting = waiting;
        reached
    }

    /// Whether somebody waits for a sync of the log's own files.
    pub(super) fn wants_sync(&self, watermarks: &Watermarks) -> bool {
        let in_journal = |appended: &Appended| watermarks.waits_for_journal(appended.last_offset);
        self.waiting
            .iter()
            .any(|(appended, _)| !in_journal(appended))
    }

    /// Answers all that wait with a refusal.
    pub(super) fn refuse_all(&mut self, reason: &str) {
        for (_, reply) in self.waiting.drain(..) {
            let _ = reply.send(Err(LogError::Offline(reason.to_owned())));
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
        let mut watermarks = Watermarks::opened(at(0), at(0), None);
        watermarks.appended(at(10));
        let mut queue = AckQueue::default();
        let mut answers = Vec::new();
        for (last_offset, needs_sync) in [(3, true), (9, true), (12, false)] {
            let (reply, answer) = oneshot::channel();
            queue.push(appended(last_offset, needs_sync), reply);
            answers.push(answer);
        }
        assert!(queue.take_reached(&watermarks).is_empty() && queue.wants_sync(&watermarks));
        watermarks.synced(at(4));
        let reached = queue.take_reached(&watermarks);
        assert_eq!(reached.len(), 1);
        assert_eq!(reached[0].0.last_offset, 3);
        queue.refuse_all("x");
        let refused = answers[1].try_recv().unwrap();
        assert!(matches!(refused, Err(LogError::Offline(reason)) if reason == "x"));
        assert!(answers[2].try_recv().unwrap().is_err());
    }
}
