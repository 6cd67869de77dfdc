//! Sends an answer: bytes from memory, small record ranges together with them, large ones from their files.
//!
//! Pages that are not in the cache are read in on a blocking thread first, so that a thread that serves
//! connections does not wait for the disk to send something.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags};

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
    let mut joined = BytesMut::new();
    let mut pieces = pieces.into_iter().peekable();
    while let Some(piece) = pieces.next() {
        let more = pieces.peek().is_some();
        let bytes = piece.bytes();
        if joined.len() + bytes > JOIN_BYTES_MAX && !joined.is_empty() {
            send_bytes(stream, joined.split().freeze(), true, stall_max).await?;
        }
        match piece {
            Piece::Bytes(all) if bytes > JOIN_BYTES_MAX || (joined.is_empty() && !more) => {
                send_bytes(stream, all, more, stall_max).await?
            }
            Piece::Bytes(some) => joined.extend_from_slice(&some),
            Piece::File(slice) if bytes > JOIN_BYTES_MAX => {
                send_file(stream, slice, stall_max).await?
            }
            Piece::File(slice) => {
                if !read_cached_into(&slice, &mut joined)? {
                    // What is ready does not wait for the disk, nor is it lost if that fails.
                    send_bytes(stream, joined.split().freeze(), false, stall_max).await?;
                    joined = read_in_background(&slice.file, slice.position, bytes).await?;
                }
            }
        }
    }
    send_bytes(stream, joined.freeze(), false, stall_max).await
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
    let end = position + bytes as u64;
    while position < end {
        let step = FILE_STEP_BYTES.min((end - position) as usize);
        warm(&file, position, step).await?;
        let send = stream.send_file(&file, position, step);
        match in_time(stall_max, send).await? {
            0 => return Err(too_short()),
            sent => position += sent as u64,
        }
    }
    Ok(())
}

fn too_short() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the segment is shorter than it was",
    )
}

/// Makes sure that a range is in the page cache.
async fn warm(file: &Arc<dyn DiskFile>, position: u64, bytes: usize) -> io::Result<()> {
    let last = position + bytes as u64 - 1;
    for at in [position, last] {
        if read_cached(&**file, at, &mut [0])? == 0 {
            return read_in_background(file, position, bytes).await.map(drop);
        }
    }
    Ok(())
}

/// Adds a range of a file to a buffer, if that need not wait for the disk; whether it did.
fn read_cached_into(slice: &Slice, buffer: &mut BytesMut) -> io::Result<bool> {
    let from = buffer.len();
    buffer.resize(from + slice.bytes, 0);
    let read = read_cached(&*slice.file, slice.position, &mut buffer[from..]);
    let is_whole = matches!(read, Ok(read) if read == slice.bytes);
    if !is_whole {
        buffer.truncate(from);
    }
    read.map(|_| is_whole)
}

/// Reads a range whole, where waiting for the disk holds nobody up.
async fn read_in_background(
    file: &Arc<dyn DiskFile>,
    position: u64,
    bytes: usize,
) -> io::Result<BytesMut> {
    let file = file.clone();
    let read = move || {
        let mut buffer = BytesMut::zeroed(bytes);
        match file.read_at(&mut buffer, position)? {
            read if read == bytes => Ok(buffer),
            _ => Err(too_short()),
        }
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
}

/// Reads what is in the page cache: how much was there. File systems that cannot tell are read like any file, and so is
/// what is no file of the system's.
fn read_cached(file: &dyn DiskFile, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    if let Some(descriptor) = file.descriptor() {
        let mut buffers = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(descriptor, &mut buffers, position, ReadWriteFlags::NOWAIT) {
            Ok(read) => return Ok(read),
            Err(Errno::AGAIN) => return Ok(0),
            Err(_) => {}
        }
    }
    file.read_at(buffer, position)
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::log::{Disk, RealDisk};

    const FILE_BYTES: usize = 20 << 20;
    const STALL_MAX: Duration = Duration::from_secs(60);

    /// A file that is none of the system's.
    struct InMemory(Vec<u8>);

    impl DiskFile for InMemory {
        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            let rest = &self.0[position as usize..];
            let bytes = buffer.len().min(rest.len());
            buffer[..bytes].copy_from_slice(&rest[..bytes]);
            Ok(bytes)
        }
        fn write_all_at(&self, _: &mut [io::IoSlice<'_>], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            None
        }
    }

    fn content() -> Vec<u8> {
        (0..FILE_BYTES / 4)
            .flat_map(|n| (n as u32).to_le_bytes())
            .collect()
    }

    fn on_disk(dir: &std::path::Path) -> Arc<dyn DiskFile> {
        std::fs::write(dir.join("x"), content()).unwrap();
        RealDisk.open(&dir.join("x")).unwrap()
    }

    /// What arrives of these pieces, and whether all were sent.
    async fn sent(pieces: Vec<Piece>) -> (Vec<u8>, io::Result<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut from = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut to, _) = listener.accept().await.unwrap();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            to.read_to_end(&mut all).await.unwrap();
            all
        });
        let result = send_all(&mut from, pieces, STALL_MAX).await;
        drop(from);
        (reader.await.unwrap(), result)
    }

    /// Parts of a file by position and length, each behind a few bytes.
    async fn arrive_as_they_are(file: Arc<dyn DiskFile>) {
        let content = content();
        let (mut pieces, mut expected) = (Vec::new(), Vec::new());
        let parts = [
            (0, 1),
            (5, JOIN_BYTES_MAX - 20),
            (77, 100),
            (4096, JOIN_BYTES_MAX + 1),
            (1, FILE_BYTES - 1),
            (FILE_BYTES - 3, 3),
            ((8 << 20) - 7, 1 << 20),
            (3, 100 << 10),
        ];
        for (n, (position, bytes)) in parts.into_iter().enumerate() {
            let head = vec![n as u8; 60 * n + 1];
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&content[position..position + bytes]);
            pieces.push(Piece::Bytes(head.into()));
            let (file, position) = (file.clone(), position as u64);
            pieces.push(Piece::File(Slice {
                file,
                position,
                bytes,
            }));
        }
        let large = vec![9; 3 * JOIN_BYTES_MAX];
        expected.extend_from_slice(&large);
        pieces.push(Piece::Bytes(large.into()));
        let (arrived, result) = sent(pieces).await;
        result.unwrap();
        assert!(arrived == expected, "{} bytes", arrived.len());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pieces_arrive_as_they_are_from_files() {
        let dir = tempfile::tempdir().unwrap();
        arrive_as_they_are(on_disk(dir.path())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pieces_arrive_as_they_are_from_what_is_no_file_of_the_systems() {
        arrive_as_they_are(Arc::new(InMemory(content()))).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_is_too_short_is_an_error_behind_what_was_ready() {
        let dir = tempfile::tempdir().unwrap();
        let file = on_disk(dir.path());
        for bytes in [10, 1 << 20] {
            let too_much = Slice {
                file: file.clone(),
                position: FILE_BYTES as u64 - 5,
                bytes,
            };
            let ready = Piece::Bytes("ready".into());
            let (arrived, result) = sent(vec![ready, Piece::File(too_much)]).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert!(arrived.starts_with(b"ready"));
        }
    }
}
