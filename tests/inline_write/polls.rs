//! Polls of a connection: who is polled again, by whom, and that no wake-up is lost.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use shuttle::future::block_on;
use shuttle::sync::Mutex;
use shuttle::thread;

use crate::inline_write::with_inline_writes;

#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Wakes itself in each of its first `wakes` polls, and is ready after `polls`; counts its polls.
fn restless(polls: usize, wakes: usize, count: &AtomicUsize) -> impl Future<Output = ()> + use<'_> {
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

/// Whether it is ready after one poll, how often it was polled in that, and how often its task was woken.
fn poll_once(polls: usize, wakes: usize) -> (bool, usize, usize) {
    let (task, count) = (Arc::new(Counted::default()), AtomicUsize::new(0));
    let waker = Waker::from(task.clone());
    let future = pin!(restless(polls, wakes, &count));
    let whole = pin!(with_inline_writes(future));
    let ready = whole.poll(&mut Context::from_waker(&waker)).is_ready();
    let counted = count.load(Ordering::SeqCst);
    (ready, counted, task.0.load(Ordering::SeqCst))
}

/// In the one order that there is.
fn alone(work: impl Fn() + Send + Sync + 'static) {
    shuttle::check_dfs(work, None);
}

#[test]
fn what_is_woken_in_its_poll_is_polled_again_without_the_runtime() {
    alone(|| {
        assert_eq!(poll_once(3, 2), (true, 3, 0));
        assert_eq!(poll_once(9, 1), (false, 2, 0));
        assert_eq!(poll_once(9, 0), (false, 1, 0));
    });
}

#[test]
fn what_is_woken_in_every_poll_lets_others_be_polled() {
    alone(|| assert_eq!(poll_once(usize::MAX, usize::MAX), (false, 4, 1)));
}

#[test]
fn what_is_woken_between_its_polls_wakes_its_task() {
    alone(|| {
        let task = Arc::new(Counted::default());
        let waker = Waker::from(task.clone());
        let mut kept = None;
        let future = pin!(poll_fn(|cx| {
            kept = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        {
            let whole = pin!(with_inline_writes(future));
            assert!(whole.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        kept.unwrap().wake();
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    });
}

/// What somebody waits for, and who.
type Awaited = Arc<Mutex<(bool, Option<Waker>)>>;

#[test]
fn no_wake_up_is_lost_in_any_order_of_a_poll_and_a_wake_up() {
    // Every order there is, not a sample.
    shuttle::check_dfs(
        || {
            let awaited = Awaited::default();
            let other = awaited.clone();
            let waking = thread::spawn(move || {
                let waker = {
                    let mut awaited = other.lock().unwrap();
                    awaited.0 = true;
                    awaited.1.take()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
            });
            let work = pin!(poll_fn(|cx| {
                let mut awaited = awaited.lock().unwrap();
                awaited.1 = Some(cx.waker().clone());
                match awaited.0 {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            }));
            block_on(with_inline_writes(work));
            waking.join().unwrap();
        },
        None,
    );
}
