//! The turns of a connection: what one of them queues for a writer is written at its end, at once, or by the writer
//! thread, which is woken once. Waking a thread costs more than a batch.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

use super::queue::Queue;

/// A connection whose answers are there at the end of a turn goes on with the next, this often, before others have
/// theirs.
const TURNS_MAX: usize = 4;

thread_local! {
    /// The queues to be worked off at the end of the turn, while there is one.
    static PUT_OFF: RefCell<Option<Vec<Arc<Queue>>>> = const { RefCell::new(None) };
}

/// Ends the turn, also when it panics.
struct Turn;

impl Turn {
    fn begin() -> Self {
        PUT_OFF.set(Some(Vec::new()));
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let queues = PUT_OFF.take().unwrap_or_default();
        for queue in queues {
            match std::thread::panicking() {
                true => queue.wake(),
                false => queue.end_turn(),
            }
        }
    }
}

/// Wakes a task, unless its turn is under way: then another one follows without the runtime's help.
#[derive(Default)]
struct TurnWaker {
    task: AtomicWaker,
    turn: AtomicU8,
}

/// No turn is under way.
const OVER: u8 = 0;
const UNDER_WAY: u8 = 1;
/// There is reason for another one.
const WOKEN: u8 = 2;

impl Wake for TurnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let turn = &self.turn;
        if turn.compare_exchange(UNDER_WAY, WOKEN, success, failure) == Err(OVER) {
            self.task.wake();
        }
    }
}

/// Runs a future in turns.
pub async fn in_turns<T>(mut future: Pin<&mut impl Future<Output = T>>) -> T {
    let own = Arc::new(TurnWaker::default());
    let waker = Waker::from(own.clone());
    poll_fn(|cx| {
        own.task.register(cx.waker());
        for _ in 0..TURNS_MAX {
            own.turn.store(UNDER_WAY, Ordering::Release);
            let polled = {
                let _turn = Turn::begin();
                future.as_mut().poll(&mut Context::from_waker(&waker))
            };
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            let ended = own.turn.compare_exchange(UNDER_WAY, OVER, success, failure);
            if polled.is_ready() || ended.is_ok() {
                return polled;
            }
        }
        own.turn.store(OVER, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Whether the queue will be worked off at the end of the turn that is under way.
pub(super) fn put_off(queue: &Arc<Queue>) -> bool {
    PUT_OFF.with_borrow_mut(|put_off| match put_off {
        Some(queues) => {
            queues.push(queue.clone());
            true
        }
        None => false,
    })
}
