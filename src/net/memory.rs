//! The memory that unanswered requests of all connections may hold (`queued.max.request.bytes`).
//!
//! A connection takes its share before it reads a frame's body and gives it back when the request is answered;
//! above the limit it waits, which the client sees as a slow connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Context;

/// The semaphore counts in this unit, because it counts to 2^29 at the least.
const UNIT_BYTES: usize = 1024;

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
    bytes: i64,
    _permit: Option<OwnedSemaphorePermit>,
}

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

    /// Waits for room for a frame. Frames are never larger than the whole, which the configuration ensures.
    pub(super) async fn take(&self, bytes: usize) -> Share {
        let permit = match &self.units {
            Some(units) => {
                let wanted = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
                units.clone().acquire_many_owned(wanted).await.ok()
            }
            None => None,
        };
        self.cx
            .metrics
            .request_memory_bytes
            .fetch_add(bytes as i64, Ordering::Relaxed);
        Share {
            cx: self.cx.clone(),
            bytes: bytes as i64,
            _permit: permit,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.cx
            .metrics
            .request_memory_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
