//! The memory that clients can make the broker use (`queued.max.request.bytes`): frames, what they are decoded to, and
//! answers until they are taken.
//!
//! A connection's share grows with what has arrived of a frame, never with what its length claims. Before a frame is
//! decoded its share covers what that will take; when it is answered, the share covers the answer until it is sent.
//! Above the limit a connection waits for a while, which the client sees as a slow answer, and is then closed, so that
//! half-sent frames cannot hold each other up. Large frames leave a part to small ones, and none waits in line after
//! a large one. While one waits, connections that do not take their answers are closed, of those the ones that have
//! more than an even part ([`Memory::wants_back`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A frame up to this size is small: it may use all of the memory.
const SMALL_FRAME_BYTES_MAX: usize = 64 << 10;
/// Large frames together leave this part of the memory to small ones; one that is alone may use all.
const RESERVED_FOR_SMALL: i64 = 8;
/// Up to this size answers count as small frames do; only larger ones are counted by themselves.
const SMALL_ANSWER_BYTES_MAX: usize = 4 << 10;
/// A connection that gets no memory for this long is closed.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A connection that waits for memory says so again after this.
const WAIT_STEP: Duration = Duration::from_millis(500);

/// See the module's documentation; clones share it.
#[derive(Clone)]
pub struct Memory {
    pool: Arc<Pool>,
}

struct Pool {
    /// All that is reserved, for answers too.
    reserved: Arc<AtomicI64>,
    /// `i64::MAX` for no limit.
    bytes_max: i64,
    /// What is reserved for large frames.
    large: AtomicI64,
    /// What is reserved for larger answers, and how many there are.
    answers: AtomicI64,
    answer_count: AtomicI64,
    waiting: AtomicUsize,
    freed: Notify,
    /// Notified while a connection waits.
    short: Notify,
}

impl Pool {
    fn take(&self, more: i64, bytes_max: i64) -> bool {
        let fits = |reserved: i64| (reserved + more <= bytes_max).then_some(reserved + more);
        self.reserved
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

    fn give_back(&self, bytes: i64) {
        self.reserved.fetch_sub(bytes, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Small,
    Large,
    Answer,
}

/// Memory reserved for a request and then for its answer; given back when dropped.
pub struct Share {
    pool: Arc<Pool>,
    bytes: i64,
    kind: Kind,
}

/// There was no memory for a request for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory for the request within {} s (queued.max.request.bytes)", WAIT_MAX.as_secs())]
pub struct NoMemory;

impl Memory {
    /// At most `bytes_max`, or without limit when it is negative. `reserved` counts what is.
    pub fn new(reserved: Arc<AtomicI64>, bytes_max: i64) -> Self {
        let bytes_max = if bytes_max < 0 { i64::MAX } else { bytes_max };
        let pool = Pool {
            reserved,
            bytes_max,
            large: AtomicI64::new(0),
            answers: AtomicI64::new(0),
            answer_count: AtomicI64::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            short: Notify::new(),
        };
        Self {
            pool: Arc::new(pool),
        }
    }

    /// How much may be held in all, bytes.
    pub fn bytes_max(&self) -> usize {
        self.pool.bytes_max as usize
    }

    /// A share of nothing.
    pub fn empty_share(&self) -> Share {
        Share {
            pool: self.pool.clone(),
            bytes: 0,
            kind: Kind::Small,
        }
    }

    /// A share of so much, where there is room for it now.
    pub fn try_take(&self, bytes: usize) -> Option<Share> {
        let mut share = self.empty_share();
        share.try_grow(bytes).then_some(share)
    }

    /// Lets the share of a frame that needs `all_bytes` in the end, as far as that is known, grow to `bytes`, which it has waited
    /// for since then; dropping the future leaves it as it was.
    pub async fn grow(
        &self,
        share: &mut Share,
        all_bytes: usize,
        bytes: usize,
        since: Instant,
    ) -> Result<(), NoMemory> {
        if self.grow_now(share, all_bytes, bytes) {
            return Ok(());
        }
        let bytes = (bytes as i64).min(self.pool.bytes_max);
        // Whoever was busy otherwise has a step left.
        let deadline = (since + WAIT_MAX).max(Instant::now() + WAIT_STEP);
        let _waiting = Waiting::new(&self.pool);
        loop {
            let mut freed = std::pin::pin!(self.pool.freed.notified());
            // Before the next look, so that nothing is freed unnoticed in between.
            freed.as_mut().enable();
            if share.take(bytes) {
                return Ok(());
            }
            self.pool.short.notify_waiters();
            let step = deadline.min(Instant::now() + WAIT_STEP);
            let is_freed = tokio::time::timeout_at(step, freed).await.is_ok();
            if !is_freed && Instant::now() >= deadline {
                return Err(NoMemory);
            }
        }
    }

    /// The same, where there is room for it now.
    pub fn grow_now(&self, share: &mut Share, all_bytes: usize, bytes: usize) -> bool {
        share.begin(all_bytes);
        // More than there is at all is granted to one that is alone.
        share.take((bytes as i64).min(self.pool.bytes_max))
    }

    /// Waits until another connection waits for memory, while `reserved` bytes for answers that are not taken are more than an
    /// even part of what all such answers have.
    pub async fn wants_back(&self, reserved: usize) {
        loop {
            let mut short = std::pin::pin!(self.pool.short.notified());
            short.as_mut().enable();
            if self.pool.waiting.load(Ordering::SeqCst) > 0 && self.is_uneven(reserved as i64) {
                return;
            }
            short.await;
        }
    }

    fn is_uneven(&self, reserved: i64) -> bool {
        let answers = self.pool.answers.load(Ordering::SeqCst);
        let count = self.pool.answer_count.load(Ordering::SeqCst).max(1);
        reserved > 0 && reserved >= answers / count
    }
}

/// Counts the connections that wait, so that giving back costs nothing while there is none.
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
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Lets it grow to `bytes`, where there is room for it now.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        self.begin(bytes);
        self.take(bytes as i64)
    }

    fn begin(&mut self, all_bytes: usize) {
        if self.bytes == 0 && all_bytes > SMALL_FRAME_BYTES_MAX {
            self.kind = Kind::Large;
        }
    }

    /// Grows to `bytes` where there is room.
    fn take(&mut self, bytes: i64) -> bool {
        let more = bytes - self.bytes;
        let taken = more <= 0
            || match self.kind {
                Kind::Large => self.pool.take_for_large(self.bytes, more),
                _ => self.pool.take(more, self.pool.bytes_max),
            };
        if taken {
            self.bytes = self.bytes.max(bytes);
        }
        taken
    }

    /// The request is answered: what is left is an answer of so many bytes in memory, which is there already, whether
    /// there is room for it or not.
    pub fn become_answer(&mut self, bytes: usize) {
        let is_small = bytes <= SMALL_ANSWER_BYTES_MAX;
        let (bytes, before) = (bytes as i64, self.bytes);
        self.leave_kind();
        self.kind = match is_small {
            true => Kind::Small,
            false => Kind::Answer,
        };
        if !is_small {
            self.pool.answers.fetch_add(bytes, Ordering::SeqCst);
            self.pool.answer_count.fetch_add(1, Ordering::SeqCst);
        }
        self.bytes = bytes;
        match before >= bytes {
            true => self.pool.give_back(before - bytes),
            false => {
                self.pool
                    .reserved
                    .fetch_add(bytes - before, Ordering::SeqCst);
            }
        }
    }

    fn leave_kind(&self) {
        match self.kind {
            Kind::Small => {}
            Kind::Large => {
                self.pool.large.fetch_sub(self.bytes, Ordering::SeqCst);
            }
            Kind::Answer => {
                self.pool.answers.fetch_sub(self.bytes, Ordering::SeqCst);
                self.pool.answer_count.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.leave_kind();
        if self.bytes > 0 {
            self.pool.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes_max: i64) -> (Memory, Arc<AtomicI64>) {
        let reserved = Arc::new(AtomicI64::new(0));
        (Memory::new(reserved.clone(), bytes_max), reserved)
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_covers_the_answer_until_it_is_dropped() {
        let (memory, reserved) = memory(1000);
        let mut share = memory.empty_share();
        memory.grow(&mut share, 600, 600, now()).await.unwrap();
        share.become_answer(100);
        assert_eq!(reserved.load(Ordering::SeqCst), 100);
        share.become_answer(5000);
        assert_eq!(reserved.load(Ordering::SeqCst), 5000);
        let mut other = memory.empty_share();
        assert_eq!(memory.grow(&mut other, 1, 1, now()).await, Err(NoMemory));
        drop(share);
        assert_eq!(reserved.load(Ordering::SeqCst), 0);
        memory.grow(&mut other, 1, 1, now()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn while_one_waits_those_with_much_that_is_not_taken_are_asked_to_go() {
        let (memory, reserved) = memory(100_000);
        let answer = |bytes| {
            let mut share = memory.empty_share();
            share.become_answer(bytes);
            share
        };
        let (_small, large) = (answer(10_000), answer(90_000));
        let is_asked = |bytes| {
            let memory = memory.clone();
            tokio::spawn(async move { memory.wants_back(bytes).await })
        };
        let (of_small, of_large) = (is_asked(10_000), is_asked(90_000));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!of_large.is_finished());
        let mut share = memory.empty_share();
        let grown = memory.grow(&mut share, 50_000, 50_000, now());
        let goes = async {
            of_large.await.unwrap();
            drop(large);
        };
        let (grown, ()) = tokio::join!(grown, goes);
        assert_eq!(grown, Ok(()));
        assert!(!of_small.is_finished());
        assert_eq!(reserved.load(Ordering::SeqCst), 60_000);
    }
}
