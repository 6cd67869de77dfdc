//! Sends an answer: bytes from memory, record ranges from files by sendfile where
//! the socket can.
//!
//! Pages that are not in the cache are read in on a blocking thread first, so that a thread that serves
//! connections does not wait for the disk to send something.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::io::ReadWriteFlags;

use super::socket::Socket;
use crate::api::Piece;
use crate::log::{DiskFile, Slice};

/// Small parts are copied together up to this size.
const JOIN_BYTES_MAX: usize = 16 << 10;
/// Files are sent in steps of this size; between them, cold pages are looked for.
const FILE_STEP_BYTES: usize = 1 << 20;

/// Sends all pieces in order. A peer that takes nothing for `stall_max` ends it with an error.
pub(super) async fn send_all<S: Socket>(
    stream: &mut S,
    pieces: Vec<Piece>,
    stall_max: Duration,
) -> io::Result<()> {
    let mut pieces = join_small(pieces).into_iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Bytes(bytes) => {
                send_bytes(stream, bytes, pieces.peek().is_some(), stall_max).await?
            }
            Piece::File(slice) => send_file(stream, slice, stall_max).await?,
        }
    }
    Ok(())
}

fn join_small(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::with_capacity(pieces.len());
    let mut pending: Vec<Bytes> = Vec::new();
    let mut pending_bytes = 0;
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) if pending_bytes + bytes.len() <= JOIN_BYTES_MAX => {
                pending_bytes += bytes.len();
                pending.push(bytes);
            }
            piece => {
                joined.extend(flush(&mut pending, &mut pending_bytes));
                match piece {
                    Piece::Bytes(bytes) if bytes.len() <= JOIN_BYTES_MAX => {
                        pending_bytes = bytes.len();
                        pending.push(bytes);
                    }
                    piece => joined.push(piece),
                }
            }
        }
    }
    joined.extend(flush(&mut pending, &mut pending_bytes));
    joined
}

fn flush(pending: &mut Vec<Bytes>, bytes: &mut usize) -> Option<Piece> {
    let joined = match pending.len() {
        0 => return None,
        1 => pending.pop(),
        _ => {
            let mut all = BytesMut::with_capacity(*bytes);
            pending
                .drain(..)
                .for_each(|part| all.extend_from_slice(&part));
            Some(all.freeze())
        }
    };
    *bytes = 0;
    joined.map(Piece::Bytes)
}

/// Waits for the socket to take something, but not for ever.
async fn in_time(
    stall_max: Duration,
    send: impl Future<Output = io::Result<usize>>,
) -> io::Result<usize> {
    match tokio::time::timeout(stall_max, send).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes no data",
        )),
    }
}

async fn send_bytes<S: Socket>(
    stream: &mut S,
    mut bytes: Bytes,
    more: bool,
    stall_max: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = in_time(stall_max, stream.send_bytes(&bytes, more)).await?;
        bytes = bytes.slice(sent..);
    }
    Ok(())
}

async fn send_file<S: Socket>(stream: &mut S, slice: Slice, stall_max: Duration) -> io::Result<()> {
    let Slice {
        file,
        mut position,
        bytes,
    } = slice;
    let mut left = bytes;
    while left > 0 {
        let step = left.min(FILE_STEP_BYTES);
        warm(&file, position, step).await?;
        let sent = in_time(stall_max, stream.send_file(&file, position, step)).await?;
        if sent == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the segment is shorter than it was",
            ));
        }
        (position, left) = (position + sent as u64, left - sent);
    }
    Ok(())
}

/// Makes sure that a range is in the page cache.
async fn warm(file: &Arc<dyn DiskFile>, position: u64, bytes: usize) -> io::Result<()> {
    let last = position + bytes as u64 - 1;
    if is_cached(&**file, position) && is_cached(&**file, last) {
        return Ok(());
    }
    let file = file.clone();
    let read = move || {
        let mut scratch = vec![0; bytes];
        file.read_at(&mut scratch, position).map(drop)
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
}

/// Whether the page at a position can be read without waiting. What cannot tell counts as cached.
fn is_cached(file: &dyn DiskFile, position: u64) -> bool {
    let Some(descriptor) = file.descriptor() else {
        return true;
    };
    let mut byte = [0];
    let result = rustix::io::preadv2(
        descriptor,
        &mut [IoSliceMut::new(&mut byte)],
        position,
        ReadWriteFlags::NOWAIT,
    );
    !matches!(result, Err(rustix::io::Errno::AGAIN))
}
