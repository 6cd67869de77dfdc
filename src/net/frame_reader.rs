//! Cuts a connection's bytes into frames. Memory grows with what arrives, never with what a length claims, and while
//! nothing arrives there is none beside what has.

use std::future::{Future, poll_fn};
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::alias::TcpStream;
use super::memory::{NoMemory, RequestMemory, Share};

/// What is read at once while nothing is known of the next frame.
const READ_BYTES: usize = 16 << 10;
/// A frame's buffer begins with this much and doubles while bytes arrive.
const GROW_BYTES_MIN: usize = 64 << 10;
/// A frame's share of the request memory begins with this much and doubles while bytes arrive: whoever sends only a
/// length gets little for it.
const SHARE_BYTES_MIN: usize = 4 << 10;
/// While a connection waits, so little is kept in a buffer of its size: of ten thousand connections most are silent.
const WAITING_BYTES_MAX: usize = 4 << 10;
const LENGTH_BYTES: usize = 4;

/// Why a connection is closed instead of read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFault {
    /// The peer, or the network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A length that no frame may have.
    #[error("frame length {bytes} is not within 8..={bytes_max}")]
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

/// Keeps what has arrived of the next frame, so that reading can be given up and taken up again.
pub(super) struct FrameReader {
    input: BytesMut,
    bytes_max: usize,
    /// `socket.request.stall.ms`.
    stall_max: Duration,
    memory: RequestMemory,
    /// Covers at least what has arrived of the frame that is being read.
    share: Share,
}

impl FrameReader {
    pub(super) fn new(bytes_max: usize, stall_max: Duration, memory: RequestMemory) -> Self {
        let share = memory.empty_share();
        Self {
            input: BytesMut::new(),
            bytes_max,
            stall_max,
            memory,
            share,
        }
    }

    /// The next frame without its length, or `None` when the peer closed the connection between frames.
    /// Dropping the future loses nothing.
    pub(super) async fn next(
        &mut self,
        stream: &mut TcpStream,
    ) -> Result<Option<(Bytes, Share)>, ReadFault> {
        loop {
            let room = if let Some(length) = self.length()? {
                let whole = LENGTH_BYTES + length;
                let grown = self.input.len() * 2;
                let share = whole.min(grown.max(SHARE_BYTES_MIN));
                if self.share.bytes() < share {
                    self.memory.grow(&mut self.share, whole, share).await?;
                }
                if self.input.len() >= whole {
                    let share = std::mem::replace(&mut self.share, self.memory.empty_share());
                    self.input.advance(LENGTH_BYTES);
                    return Ok(Some((self.input.split_to(length).freeze(), share)));
                }
                let room = whole.min(grown.max(GROW_BYTES_MIN));
                room.saturating_sub(self.input.len()).max(1)
            } else {
                READ_BYTES
            };
            let read = if self.input.is_empty() {
                self.read(stream, room).await?
            } else {
                let stall_max = self.stall_max;
                match tokio::time::timeout(stall_max, self.read(stream, room)).await {
                    Ok(read) => read?,
                    Err(_) => return Err(ReadFault::Stalled(stall_max)),
                }
            };
            if read == 0 {
                return if self.input.is_empty() {
                    Ok(None)
                } else {
                    Err(ReadFault::Cut)
                };
            }
        }
    }

    /// Reads what has arrived, up to `room` bytes. A look that finds nothing gives the room back; it costs no system
    /// call, because tokio knows that nothing is there.
    async fn read(&mut self, stream: &mut TcpStream, room: usize) -> io::Result<usize> {
        poll_fn(|cx| {
            self.input.reserve(room);
            let read = std::pin::pin!(stream.read_buf(&mut self.input)).poll(cx);
            if read.is_pending() && self.input.len() <= WAITING_BYTES_MAX {
                self.input = BytesMut::from(&self.input[..]);
            }
            read
        })
        .await
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
