//! Inline writes: what a connection queues for a writer in one poll is written at the end of that poll, or by the writer
//! thread, which is woken once. Waking a thread costs more than a batch.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A connection whose answers are there at the end of a poll is polled again at once, this often, before the runtime polls
/// others.
const POLLS_MAX: usize = 4;

/// What has work to do at the end of a poll.
pub(super) trait EndOfPoll {
    /// Does it, or leaves it to its thread.
    fn end_poll(&self);
    /// Wakes its thread.
    fn wake(&self);
}

thread_local! {
    /// The queues to be worked off at the end of the poll, while there is one.
    static PUT_OFF: RefCell<Option<Vec<Arc<dyn EndOfPoll>>>> = const { RefCell::new(None) };
}

/// Ends the poll, also when it panics.
struct PollEnd;

impl Drop for PollEnd {
    fn drop(&mut self) {
        let queues = PUT_OFF.take().unwrap_or_default();
        match &queues[..] {
            [queue] if !std::thread::panicking() => queue.end_poll(),
            // One directory's disk is not waited for before another's.
            queues => queues.iter().for_each(|queue| queue.wake()),
        }
    }
}

/// Leaves what the poll has queued so far to the writer threads: the poll takes long.
pub(super) fn wake_now() {
    let queues = PUT_OFF.with_borrow_mut(|put_off| put_off.as_mut().map(std::mem::take));
    queues.iter().flatten().for_each(|queue| queue.wake());
}

/// Wakes a task, unless its poll is under way: then another one follows without the runtime's help.
#[derive(Default)]
struct PollWaker {
    task: AtomicWaker,
    poll: AtomicU8,
}

/// Of [`PollWaker::poll`].
const UNDER_WAY: u8 = 1;
/// There is reason for another one.
const WOKEN: u8 = 2;

impl Wake for PollWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Writes in any case, so that what was done before is seen by the poll that sees this.
        if self.poll.fetch_or(WOKEN, Ordering::AcqRel) & UNDER_WAY == 0 {
            self.task.wake();
        }
    }
}

impl PollWaker {
    /// Begins a poll; what was there to wake for is looked at now.
    fn begin(&self) {
        self.poll.swap(UNDER_WAY, Ordering::AcqRel);
    }

    /// Whether the poll ended; otherwise there is reason for another one.
    fn end(&self) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let ended = self.poll.compare_exchange(UNDER_WAY, 0, success, failure);
        ended.is_ok()
    }
}

/// Polls a future, and at the end of each poll writes what it has queued.
pub async fn with_inline_writes<T>(mut future: Pin<&mut impl Future<Output = T>>) -> T {
    let own = Arc::new(PollWaker::default());
    let waker = Waker::from(own.clone());
    poll_fn(|cx| {
        own.task.register(cx.waker());
        for _ in 0..POLLS_MAX {
            own.begin();
            let polled = {
                PUT_OFF.set(Some(Vec::new()));
                let _end = PollEnd;
                future.as_mut().poll(&mut Context::from_waker(&waker))
            };
            if polled.is_ready() || own.end() {
                return polled;
            }
        }
        // Others are polled first.
        own.poll.swap(0, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Whether the queue will be worked off at the end of the poll that is under way.
pub(super) fn put_off<Q: EndOfPoll + 'static>(queue: &Arc<Q>) -> bool {
    let at = Arc::as_ptr(queue).cast::<()>();
    PUT_OFF.with_borrow_mut(|put_off| match put_off {
        Some(queues) => {
            if !queues
                .iter()
                .any(|known| Arc::as_ptr(known).cast::<()>() == at)
            {
                queues.push(queue.clone());
            }
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself in each of its first `wakes` polls, and is ready after `polls`; counts its polls.
    fn restless(
        polls: usize,
        wakes: usize,
        count: &AtomicUsize,
    ) -> impl Future<Output = ()> + use<'_> {
        poll_fn(move |cx| {
            let poll = count.fetch_add(1, Ordering::SeqCst) + 1;
            if poll <= wakes {
                cx.waker().wake_by_ref();
            }
            match poll >= polls {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
    }

    fn poll_once(polls: usize, wakes: usize) -> (bool, usize, usize) {
        let (task, count) = (Arc::new(Counted::default()), AtomicUsize::new(0));
        let waker = Waker::from(task.clone());
        let future = std::pin::pin!(restless(polls, wakes, &count));
        let whole = std::pin::pin!(with_inline_writes(future));
        let ready = whole.poll(&mut Context::from_waker(&waker)).is_ready();
        let counted = count.load(Ordering::SeqCst);
        (ready, counted, task.0.load(Ordering::SeqCst))
    }

    #[test]
    fn what_is_woken_in_its_poll_is_polled_again_without_the_runtime() {
        assert_eq!(poll_once(3, 2), (true, 3, 0));
        assert_eq!(poll_once(9, 1), (false, 2, 0));
        assert_eq!(poll_once(9, 0), (false, 1, 0));
    }

    #[test]
    fn what_is_woken_in_every_poll_lets_others_be_polled() {
        assert_eq!(poll_once(usize::MAX, usize::MAX), (false, POLLS_MAX, 1));
    }

    #[test]
    fn what_is_woken_between_its_polls_wakes_its_task() {
        let task = Arc::new(Counted::default());
        let waker = Waker::from(task.clone());
        let mut kept = None;
        let future = std::pin::pin!(poll_fn(|cx| {
            kept = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        {
            let whole = std::pin::pin!(with_inline_writes(future));
            assert!(whole.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        kept.unwrap().wake();
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    }
}
