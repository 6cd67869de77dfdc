//! The memory that unanswered requests of all connections may hold (`queued.max.request.bytes`).
//!
//! A connection's share grows with what has arrived of a frame, never with what its length claims, and is given back
//! when the request is answered. Above the limit a connection waits for a while, which the client sees as a slow
//! answer, and is then closed, so that half-sent frames cannot hold each other up. Large frames leave a part to small
//! ones, and nobody stands in line behind a large one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::Context;

/// A frame up to this size is small: it may use all of the memory.
const SMALL_FRAME_BYTES_MAX: usize = 64 << 10;
/// Large frames together leave this part of the memory to small ones; one that is alone may use all.
const RESERVED_FOR_SMALL: i64 = 8;
/// A connection that gets no memory for this long is closed.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// See the module's documentation; clones share it.
#[derive(Clone)]
pub(super) struct RequestMemory {
    pool: Arc<Pool>,
}

/// What is held is counted in `metaq_request_memory_bytes`.
struct Pool {
    cx: Arc<Context>,
    /// `i64::MAX` for no limit.
    bytes_max: i64,
    /// What large frames hold.
    large: AtomicI64,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Pool {
    fn held(&self) -> &AtomicI64 {
        &self.cx.metrics.request_memory_bytes
    }

    fn take(&self, more: i64, bytes_max: i64) -> bool {
        let fits = |held: i64| (held + more <= bytes_max).then_some(held + more);
        self.held()
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits)
            .is_ok()
    }

    fn take_for_large(&self, has: i64, more: i64) -> bool {
        let is_alone = self.large.fetch_add(more, Ordering::SeqCst) == has;
        let reserved = match is_alone {
            true => 0,
            false => self.bytes_max / RESERVED_FOR_SMALL,
        };
        let taken = self.take(more, self.bytes_max - reserved);
        if !taken {
            self.large.fetch_sub(more, Ordering::SeqCst);
        }
        taken
    }
}

/// A frame's share; given back when dropped.
pub(super) struct Share {
    pool: Arc<Pool>,
    bytes: i64,
    is_large: bool,
}

/// There was no memory for a request for too long.
#[derive(Debug, thiserror::Error)]
#[error("no memory for the request within {} s (queued.max.request.bytes)", WAIT_MAX.as_secs())]
pub(super) struct NoMemory;

impl RequestMemory {
    /// At most `bytes_max`, or without limit when it is negative.
    pub(super) fn new(cx: Arc<Context>, bytes_max: i64) -> Self {
        let bytes_max = if bytes_max < 0 { i64::MAX } else { bytes_max };
        let pool = Pool {
            cx,
            bytes_max,
            large: AtomicI64::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        };
        Self {
            pool: Arc::new(pool),
        }
    }

    /// A share of nothing.
    pub(super) fn empty_share(&self) -> Share {
        Share {
            pool: self.pool.clone(),
            bytes: 0,
            is_large: false,
        }
    }

    /// Lets the share of a frame of `frame_bytes` grow to `bytes`; dropping the future leaves it as it was.
    pub(super) async fn grow(
        &self,
        share: &mut Share,
        frame_bytes: usize,
        bytes: usize,
    ) -> Result<(), NoMemory> {
        if share.bytes == 0 {
            share.is_large = frame_bytes > SMALL_FRAME_BYTES_MAX;
        }
        if share.take(bytes as i64) {
            return Ok(());
        }
        let deadline = Instant::now() + WAIT_MAX;
        let _waiting = Waiting::new(&self.pool);
        loop {
            let mut freed = std::pin::pin!(self.pool.freed.notified());
            // Before the next look, so that nothing is freed unnoticed in between.
            freed.as_mut().enable();
            if share.take(bytes as i64) {
                return Ok(());
            }
            tokio::time::timeout_at(deadline, freed)
                .await
                .map_err(|_| NoMemory)?;
        }
    }
}

/// Counts who waits, so that giving back costs nothing while nobody does.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.waiting.fetch_add(1, Ordering::SeqCst);
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Share {
    /// How much it covers.
    pub(super) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Grows to `bytes` where there is room.
    fn take(&mut self, bytes: i64) -> bool {
        let more = bytes - self.bytes;
        let taken = more <= 0
            || match self.is_large {
                true => self.pool.take_for_large(self.bytes, more),
                false => self.pool.take(more, self.pool.bytes_max),
            };
        if taken {
            self.bytes = self.bytes.max(bytes);
        }
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        if self.is_large {
            self.pool.large.fetch_sub(self.bytes, Ordering::SeqCst);
        }
        self.pool.held().fetch_sub(self.bytes, Ordering::SeqCst);
        if self.pool.waiting.load(Ordering::SeqCst) > 0 {
            self.pool.freed.notify_waiters();
        }
    }
}
