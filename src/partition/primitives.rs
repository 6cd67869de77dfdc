//! The locks, counters and clock that inline writes run on. tests/inline_write has its own, whose threads take turns as the test
//! chooses.

pub(super) use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::thread_local;
pub(super) use std::time::Instant;

pub(super) use futures_util::task::AtomicWaker;
pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
