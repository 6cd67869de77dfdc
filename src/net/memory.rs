//! The memory that unanswered requests of all connections may hold (`queued.max.request.bytes`).
//!
//! A connection's share grows with what has arrived of a frame, never with what its length claims, and is given back
//! when the request is answered. Above the limit a connection waits for a while, which the client sees as a slow
//! answer, and is then closed, so that half-sent frames cannot hold each other up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Context;

/// The semaphore counts in this unit, because it counts to 2^29 at the least.
const UNIT_BYTES: usize = 1024;
/// A connection that gets no memory for this long is closed.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// See the module's documentation; clones share it.
#[derive(Clone)]
pub(super) struct RequestMemory {
    cx: Arc<Context>,
    /// `None` for no limit.
    units: Option<Arc<Semaphore>>,
}

/// A frame's share; given back when dropped.
pub(super) struct Share {
    cx: Arc<Context>,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

/// There was no memory for a request for too long.
#[derive(Debug, thiserror::Error)]
#[error("no memory for the request within {} s (queued.max.request.bytes)", WAIT_MAX.as_secs())]
pub(super) struct NoMemory;

impl RequestMemory {
    /// At most `bytes_max`, or without limit when it is negative.
    pub(super) fn new(cx: Arc<Context>, bytes_max: i64) -> Self {
        let units = usize::try_from(bytes_max)
            .ok()
            .map(|bytes| bytes.div_ceil(UNIT_BYTES));
        Self {
            cx,
            units: units.map(|units| Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)))),
        }
    }

    /// A share of nothing.
    pub(super) fn empty_share(&self) -> Share {
        Share {
            cx: self.cx.clone(),
            bytes: 0,
            permit: None,
        }
    }

    /// Lets a share grow to `bytes`; dropping the future leaves it as it was.
    pub(super) async fn grow(&self, share: &mut Share, bytes: usize) -> Result<(), NoMemory> {
        let more = bytes
            .div_ceil(UNIT_BYTES)
            .saturating_sub(share.bytes.div_ceil(UNIT_BYTES));
        if let Some(units) = &self.units {
            let wanted = u32::try_from(more).unwrap_or(u32::MAX);
            let acquired =
                tokio::time::timeout(WAIT_MAX, units.clone().acquire_many_owned(wanted)).await;
            let permit = acquired.map_err(|_| NoMemory)?.map_err(|_| NoMemory)?;
            match &mut share.permit {
                Some(held) => held.merge(permit),
                None => share.permit = Some(permit),
            }
        }
        let grown = bytes.saturating_sub(share.bytes);
        share.bytes += grown;
        self.cx
            .metrics
            .request_memory_bytes
            .fetch_add(grown as i64, Ordering::Relaxed);
        Ok(())
    }
}

impl Share {
    /// How much it covers.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.cx
            .metrics
            .request_memory_bytes
            .fetch_sub(self.bytes as i64, Ordering::Relaxed);
    }
}
