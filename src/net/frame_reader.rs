//! Cuts a connection's bytes into frames. Memory grows with what arrives, never with what a length claims, and a
//! connection that is waiting for a frame holds none.
//!
//! Small frames arrive in a buffer that all connections of a thread share: one read takes in as many as are there.
//! Frames that are larger than that have a buffer of their own, so that their bytes are moved by the kernel alone.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use metaq_protocol::frame::{self, Checked};
use metaq_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use crate::memory::{Memory, NoMemory, Share};

/// Size of the buffer that connections of a thread share.
const SHARED_BYTES: usize = 256 << 10;
/// A read into it has at least this much room.
const SHARED_ROOM_MIN: usize = 64 << 10;
/// After a frame from this size on, the next one is expected to be as large, and gets a buffer of its own at once.
const LARGE_FRAME_BYTES: usize = 64 << 10;
/// Such a buffer is given without proof up to this size.
const EXPECTED_BYTES_MAX: usize = 4 << 20;
/// Who looks for more of a frame again waits for it at least so long.
const STALL_GRACE: Duration = Duration::from_millis(500);
/// Frames below this size are copied out of the shared buffer, as are all that bring no records: a request that waits for
/// long does not hold it.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// A frame's own buffer begins with this much and doubles while bytes arrive.
const GROW_BYTES_MIN: usize = 64 << 10;
/// A frame's share of the request memory begins with this much and doubles while bytes arrive: a client that sends only a
/// length gets little for it.
const SHARE_BYTES_MIN: usize = 4 << 10;
/// While a connection waits, so little is kept in a buffer of its size: of ten thousand connections most are silent.
const WAITING_BYTES_MAX: usize = 4 << 10;
const LENGTH_BYTES: usize = 4;

thread_local! {
    static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Why a connection is closed instead of read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFault {
    /// The peer, or the network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A length that no frame may have.
    #[error("frame length {bytes} is not within 8..={bytes_max}{}", looks_like(*bytes))]
    Length {
        /// Claimed.
        bytes: i32,
        /// `socket.request.max.bytes`.
        bytes_max: usize,
    },
    /// The broker is full.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// The peer began a frame and does not go on.
    #[error("a frame that had begun made no progress for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// The peer closed the connection in the middle of a frame.
    #[error("the connection ended within a frame")]
    Cut,
}

/// What sends such a length, where that is clear: an operator finds the client that speaks something else.
fn looks_like(length: i32) -> &'static str {
    match length.to_be_bytes() {
        [0x16, 3, ..] => ": the client speaks TLS, which this listener does not",
        [b'G', b'E', b'T', b' ']
        | [b'P', b'O', b'S', b'T']
        | [b'P', b'U', b'T', b' ']
        | [b'H', b'E', b'A', b'D'] => ": the client speaks HTTP",
        _ => "",
    }
}

/// Keeps what has arrived of the next frame, so that reading can be given up and taken up again.
pub(super) struct FrameReader {
    input: BytesMut,
    /// Whether `input` is a part of a thread's shared buffer.
    is_shared: bool,
    /// The size of the frame before, length included.
    frame_before: usize,
    bytes_max: usize,
    /// `socket.request.stall.ms`.
    stall_max: Duration,
    memory: Memory,
    /// Covers at least what has arrived of the frame that is being read.
    share: Share,
    /// When the frame that is being read made progress last; it counts also while the connection does something else.
    progress_at: Option<Instant>,
    /// Since when it waits for memory.
    waits_since: Option<Instant>,
    /// Of a frame that has arrived: what it will need in all until its share covers it, and whether its body is well
    /// formed.
    needs: Option<(usize, Option<Checked>)>,
}

/// A frame without its length.
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    /// What looking through its body found.
    pub(super) checked: Option<Checked>,
    /// Its share of the request memory.
    pub(super) share: Share,
}

impl FrameReader {
    pub(super) fn new(bytes_max: usize, stall_max: Duration, memory: Memory) -> Self {
        let share = memory.empty_share();
        Self {
            input: BytesMut::new(),
            is_shared: false,
            frame_before: 0,
            bytes_max,
            stall_max,
            memory,
            share,
            progress_at: None,
            waits_since: None,
            needs: None,
        }
    }

    /// Takes frames up to another size from now on.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The next frame without its length, or `None` when the peer closed the connection between frames.
    /// Dropping the future loses nothing.
    pub(super) async fn next<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> Result<Option<Frame>, ReadFault> {
        loop {
            let room = if let Some(length) = self.length()? {
                let whole = LENGTH_BYTES + length;
                if self.input.len() >= whole {
                    let (needs, checked) = self.needs(length);
                    self.reserve(needs, needs).await?;
                    return Ok(Some(self.take_frame(length, checked)));
                }
                let grown = self.input.len() * 2;
                let share = whole.min(grown.max(SHARE_BYTES_MIN));
                self.reserve(whole, share).await?;
                let expected = self.frame_before.min(EXPECTED_BYTES_MAX);
                whole.min(grown.max(GROW_BYTES_MIN).max(expected))
            } else {
                GROW_BYTES_MIN
            };
            let read = if self.input.is_empty() {
                poll_fn(|cx| self.poll_first(cx, stream)).await?
            } else {
                let stall_max = self.stall_max;
                let since = *self.progress_at.get_or_insert_with(Instant::now);
                // What arrived while the connection was busy may take a moment to be seen.
                let deadline = (since + stall_max).max(Instant::now() + STALL_GRACE);
                let read = poll_fn(|cx| self.poll_more(cx, stream, room));
                match tokio::time::timeout_at(deadline, read).await {
                    Ok(read) => read?,
                    Err(_) => return Err(ReadFault::Stalled(stall_max)),
                }
            };
            self.progress_at = None;
            if read == 0 {
                return if self.input.is_empty() {
                    Ok(None)
                } else {
                    Err(ReadFault::Cut)
                };
            }
        }
    }

    /// Lets the share of a frame that needs `all_bytes` in the end cover `bytes`.
    async fn reserve(&mut self, all_bytes: usize, bytes: usize) -> Result<(), NoMemory> {
        if self.share.bytes() < bytes && !self.memory.grow_now(&mut self.share, all_bytes, bytes) {
            let since = *self.waits_since.get_or_insert_with(Instant::now);
            let growth = self.memory.grow(&mut self.share, all_bytes, bytes, since);
            // No connection keeps room for this.
            Box::pin(growth).await?;
        }
        self.waits_since = None;
        Ok(())
    }

    /// What the frame that has arrived takes in memory until it is answered: itself, what it is decoded to, and as much for
    /// its answer, which most APIs make of one part for each that was asked.
    fn needs(&mut self, length: usize) -> (usize, Option<Checked>) {
        let frame = &self.input[LENGTH_BYTES..LENGTH_BYTES + length];
        *self.needs.get_or_insert_with(|| {
            let checked = frame::check(frame);
            let decoded = checked.map_or(0, |checked| checked.decoded_bytes());
            (LENGTH_BYTES + length + 2 * decoded, checked)
        })
    }

    fn take_frame(&mut self, length: usize, checked: Option<Checked>) -> Frame {
        let share = std::mem::replace(&mut self.share, self.memory.empty_share());
        self.needs = None;
        self.frame_before = LENGTH_BYTES + length;
        self.input.advance(LENGTH_BYTES);
        let frame = self.input.split_to(length);
        let is_produce = frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes());
        let is_copied = length < COPIED_BYTES_MAX || !is_produce;
        let bytes = match self.is_shared && is_copied {
            true => Bytes::copy_from_slice(&frame),
            false => frame.freeze(),
        };
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Frame {
            bytes,
            checked,
            share,
        }
    }

    /// Room for `bytes` in all, in a buffer of the connection's own.
    fn make_room(&mut self, bytes: usize) {
        if self.is_shared {
            let mut own = BytesMut::with_capacity(bytes.max(self.input.len()));
            own.extend_from_slice(&self.input);
            self.input = own;
            self.is_shared = false;
        } else if self.input.capacity() < bytes {
            self.input.reserve(bytes - self.input.len());
        }
        // Only of a frame whose length is cut in two.
        if self.input.capacity() == self.input.len() {
            self.input.reserve(1);
        }
    }

    /// Reads the rest of a frame that has begun, up to `room` bytes in all. A look that finds nothing gives the room
    /// back; it costs no system call, because tokio knows that nothing is there.
    fn poll_more<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        self.make_room(room);
        let read = poll_read(cx, stream, &mut self.input);
        if read.is_pending() && self.input.len() <= WAITING_BYTES_MAX {
            self.input = BytesMut::from(&self.input[..]);
        }
        read
    }

    /// Reads what comes after a whole frame; no memory is reserved before something is there.
    fn poll_first<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        if self.frame_before >= LARGE_FRAME_BYTES {
            let mut own = BytesMut::with_capacity(self.frame_before.min(EXPECTED_BYTES_MAX));
            let read = ready!(poll_read(cx, stream, &mut own))?;
            (self.input, self.is_shared) = (own, false);
            return Poll::Ready(Ok(read));
        }
        SHARED.with_borrow_mut(|shared| {
            if shared.capacity() < SHARED_ROOM_MIN {
                *shared = BytesMut::with_capacity(SHARED_BYTES);
            }
            let read = ready!(poll_read(cx, stream, shared))?;
            (self.input, self.is_shared) = (shared.split_to(read), true);
            Poll::Ready(Ok(read))
        })
    }

    /// The next frame's length, once it has arrived.
    fn length(&self) -> Result<Option<usize>, ReadFault> {
        let Some(bytes) = self.input.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = i32::from_be_bytes(*bytes);
        match usize::try_from(bytes) {
            Ok(length) if (8..=self.bytes_max).contains(&length) => Ok(Some(length)),
            _ => Err(ReadFault::Length {
                bytes,
                bytes_max: self.bytes_max,
            }),
        }
    }
}

/// Reads into the room that a buffer has.
fn poll_read<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    pin!(stream.read_buf(buffer)).poll(cx)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    use super::*;

    const STALL_MAX: Duration = Duration::from_secs(30);
    /// After this the connection has something else to do.
    const TURN: Duration = Duration::from_secs(7);

    fn reader(memory: &Memory) -> FrameReader {
        FrameReader::new(1 << 20, STALL_MAX, memory.clone())
    }

    /// How long it takes until reading ends with a fault, when it is given up and taken up again all the time.
    async fn fault_after(
        reader: &mut FrameReader,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> (ReadFault, Duration) {
        let began = Instant::now();
        loop {
            if let Ok(read) = timeout(TURN, reader.next(stream)).await {
                return (read.err().unwrap(), began.elapsed());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_sent_frame_is_given_its_time_once_however_often_something_else_is_done() {
        let memory = Memory::new(Arc::default(), -1);
        let (mut client, mut stream) = tokio::io::duplex(1 << 20);
        let mut reader = reader(&memory);
        client.write_all(&[0, 0, 1, 0, 1]).await.unwrap();
        let (fault, after) = fault_after(&mut reader, &mut stream).await;
        assert!(matches!(fault, ReadFault::Stalled(STALL_MAX)));
        assert!(after >= STALL_MAX && after < STALL_MAX + TURN, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_goes_on_is_read_however_slowly() {
        let memory = Memory::new(Arc::default(), -1);
        let (mut client, mut stream) = tokio::io::duplex(1 << 20);
        let mut reader = reader(&memory);
        tokio::spawn(async move {
            for byte in [0, 0, 0, 8, 0, 18, 0, 0, 0, 0, 0, 1] {
                client.write_all(&[byte]).await.unwrap();
                tokio::time::sleep(STALL_MAX - Duration::from_secs(1)).await;
            }
        });
        let frame = loop {
            if let Ok(read) = timeout(TURN, reader.next(&mut stream)).await {
                break read.unwrap().unwrap();
            }
        };
        assert_eq!(frame.bytes.len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_waits_for_memory_once() {
        let memory = Memory::new(Arc::default(), 1000);
        let all = memory.try_take(1000);
        let (mut client, mut stream) = tokio::io::duplex(1 << 20);
        let mut reader = reader(&memory);
        client.write_all(&[0, 0, 1, 0, 1]).await.unwrap();
        let (fault, after) = fault_after(&mut reader, &mut stream).await;
        assert!(matches!(fault, ReadFault::NoMemory(NoMemory)));
        assert!(after < STALL_MAX + TURN, "{after:?}");
        drop(all);
    }
}
