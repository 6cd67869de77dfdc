//! What takes the place of `src/partition/primitives.rs`: locks and counters that let another thread run at each step, and a
//! clock that goes as it likes.

use std::cell::Cell;
use std::ops::{Add, Deref, DerefMut};
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

pub use shuttle::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub use shuttle::thread_local;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Mutex as Lock;

/// A lock as `parking_lot` has it: a panic does not poison it.
pub struct Mutex<T>(Lock<T>);

pub struct MutexGuard<'a, T> {
    of: &'a Lock<T>,
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(Lock::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard {
            of: &self.0,
            held: Some(held),
        }
    }
}

impl<T> MutexGuard<'_, T> {
    pub fn unlocked<U>(guard: &mut Self, work: impl FnOnce() -> U) -> U {
        guard.held = None;
        let done = work();
        guard.held = Some(guard.of.lock().unwrap_or_else(PoisonError::into_inner));
        done
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().unwrap()
    }
}

/// What futures_util has, which keeps the last waker that was registered.
pub struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub fn register(&self, waker: &Waker) {
        *self.0.lock() = Some(waker.clone());
    }

    pub fn wake(&self) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

std::thread_local! {
    static TIME_PASSES: Cell<bool> = const { Cell::new(false) };
}

/// Whether every wait with a timeout times out. Otherwise some never do, so that what only a timeout sets going again is
/// found; not for what is there to be noticed by it.
pub fn let_time_pass(passes: bool) {
    TIME_PASSES.set(passes);
}

pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

#[derive(Default)]
pub struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(held) = guard.held.take() {
            let held = self.0.wait(held);
            guard.held = Some(held.unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitTimeoutResult {
        let times_out = TIME_PASSES.get() || thread_rng().gen_bool(0.5);
        match times_out {
            true => MutexGuard::unlocked(guard, shuttle::thread::yield_now),
            false => self.wait(guard),
        }
        WaitTimeoutResult(times_out)
    }
}

/// Milliseconds since something; between any two of them as many pass as the test draws.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Instant(Duration);

shuttle::lazy_static! {
    static ref NOW: AtomicU64 = AtomicU64::new(0);
}

impl Instant {
    pub fn now() -> Self {
        let passed = thread_rng().gen_range(0..4);
        Self(Duration::from_millis(
            NOW.fetch_add(passed, Ordering::SeqCst) + passed,
        ))
    }

    pub fn elapsed(self) -> Duration {
        Self::now().0 - self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}
