//! Sends an answer: bytes from memory, small record ranges together with them, large ones from their files.
//!
//! Pages that are not in the cache are read in on a blocking thread first, so that a thread that serves
//! connections does not wait for the disk to send something.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;

use super::file_read::{read_in_background, too_short};
use super::socket::Socket;
use crate::api::Piece;
use crate::log::{DiskFile, Slice};
use crate::memory::Memory;

/// Parts up to this size are sent together, until they are as large as this.
pub(super) const JOIN_BYTES_MAX: usize = 16 << 10;
/// While others wait for memory, a peer may take nothing for this long.
const STALL_SHORT_MAX: Duration = Duration::from_secs(2);
/// Files are sent in steps of this size; between them, cold pages are looked for.
const FILE_STEP_BYTES: usize = 1 << 20;

/// Why an answer was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The peer left, or takes nothing.
    #[error("the client is gone: {0}")]
    Peer(io::Error),
    /// The disk fails, or a segment is not what it was.
    #[error("a segment cannot be read: {0}")]
    File(io::Error),
    /// It takes nothing while others wait for the memory of its answers.
    #[error("the client does not take its answers, and others wait for the memory")]
    MemoryWanted,
}

/// How long a peer may take nothing.
pub(super) struct Patience<'a> {
    /// At most.
    pub(super) stall_max: Duration,
    pub(super) memory: &'a Memory,
    /// What is reserved of it for the peer's answers, bytes.
    pub(super) reserved: usize,
}

impl Patience<'_> {
    /// Waits until another connection needs the memory more.
    async fn memory_wanted(&self) {
        tokio::time::sleep(STALL_SHORT_MAX).await;
        self.memory.wants_back(self.reserved).await;
    }
}

/// Sends all pieces in order. A peer that takes nothing for too long ends it with an error.
pub(super) async fn send_all<S: Socket>(
    stream: &mut S,
    pieces: Vec<Piece>,
    patience: &Patience<'_>,
) -> Result<(), SendError> {
    let mut joined = BytesMut::new();
    // A last one that is empty would leave what is before it waiting for more.
    let pieces = pieces.into_iter().filter(|piece| piece.bytes() > 0);
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        let more = pieces.peek().is_some();
        let is_large = piece.bytes() > JOIN_BYTES_MAX;
        if is_large || joined.len() >= JOIN_BYTES_MAX {
            send_bytes(stream, joined.split().freeze(), true, patience).await?;
        }
        match piece {
            Piece::Bytes(all) if is_large || (joined.is_empty() && !more) => {
                send_bytes(stream, all, more, patience).await?
            }
            Piece::Bytes(some) => joined.extend_from_slice(&some),
            Piece::File(slice) if is_large => send_file(stream, slice, patience).await?,
            Piece::File(slice) => {
                if !read_cached_into(&slice, &mut joined) {
                    // What is ready does not wait for the disk, nor is it lost if that fails.
                    send_bytes(stream, joined.split().freeze(), false, patience).await?;
                    let read = read_in_background(&slice.file, slice.position, slice.bytes);
                    joined = read.await.map_err(SendError::File)?;
                }
            }
        }
    }
    send_bytes(stream, joined.freeze(), false, patience).await
}

/// Waits for the socket to take something, but not for ever.
async fn in_time(
    patience: &Patience<'_>,
    send: impl Future<Output = io::Result<usize>>,
) -> Result<usize, SendError> {
    let mut send = pin!(send);
    // Mostly it takes it at once. The timers for when it does not are large, and no connection keeps room for them.
    if let Some(sent) = poll_fn(|cx| Poll::Ready(once_ready(send.as_mut().poll(cx)))).await {
        return sent.map_err(SendError::Peer);
    }
    let wait = async {
        let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "the client takes no data");
        tokio::select! {
            biased;
            sent = send => sent.map_err(SendError::Peer),
            () = tokio::time::sleep(patience.stall_max) => Err(SendError::Peer(timed_out())),
            () = patience.memory_wanted() => Err(SendError::MemoryWanted),
        }
    };
    Box::pin(wait).await
}

fn once_ready<T>(polled: Poll<T>) -> Option<T> {
    match polled {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

async fn send_bytes<S: Socket>(
    stream: &mut S,
    mut bytes: Bytes,
    more: bool,
    patience: &Patience<'_>,
) -> Result<(), SendError> {
    while !bytes.is_empty() {
        let send = stream.send_bytes(&bytes, more);
        let sent = in_time(patience, send).await?;
        bytes = bytes.slice(sent..);
    }
    Ok(())
}

async fn send_file<S: Socket>(
    stream: &mut S,
    slice: Slice,
    patience: &Patience<'_>,
) -> Result<(), SendError> {
    let Slice {
        file,
        mut position,
        bytes,
    } = slice;
    let end = position + bytes as u64;
    while position < end {
        let step = FILE_STEP_BYTES.min((end - position) as usize);
        warm(&file, position, step).await.map_err(SendError::File)?;
        let send = stream.send_file(&file, position, step);
        match in_time(patience, send).await {
            Ok(0) => return Err(SendError::File(too_short())),
            Ok(sent) => position += sent as u64,
            // A socket has no such error.
            Err(SendError::Peer(error))
                if error.raw_os_error() == Some(Errno::IO.raw_os_error()) =>
            {
                return Err(SendError::File(error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes sure that a range is in the page cache.
async fn warm(file: &Arc<dyn DiskFile>, position: u64, bytes: usize) -> io::Result<()> {
    let is_cold = |at| file.read_cached_at(&mut [0], at).map(|read| read.is_none());
    if is_cold(position)? || is_cold(position + bytes as u64 - 1)? {
        read_in_background(file, position, bytes).await?;
    }
    Ok(())
}

/// Adds a range of a file to a buffer, if it is in the page cache; whether it did.
fn read_cached_into(slice: &Slice, buffer: &mut BytesMut) -> bool {
    let from = buffer.len();
    buffer.resize(from + slice.bytes, 0);
    let part = &mut buffer[from..];
    let read = slice.file.read_cached_at(part, slice.position);
    let is_whole = matches!(read, Ok(Some(read)) if read == slice.bytes);
    if !is_whole {
        buffer.truncate(from);
    }
    is_whole
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::log::{Disk, RealDisk};

    const FILE_BYTES: usize = 20 << 20;
    const STALL_MAX: Duration = Duration::from_secs(60);

    /// A file whose page cache is another file, so that it may lack something.
    struct Cached {
        content: Vec<u8>,
        cache: Option<std::fs::File>,
        fails: bool,
    }

    impl DiskFile for Cached {
        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            if self.fails {
                return Err(io::Error::from_raw_os_error(Errno::IO.raw_os_error()));
            }
            let rest = &self.content[position as usize..];
            let bytes = buffer.len().min(rest.len());
            buffer[..bytes].copy_from_slice(&rest[..bytes]);
            Ok(bytes)
        }
        fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
            let Some(cache) = &self.cache else {
                return self.read_at(buffer, position).map(Some);
            };
            let read = std::os::unix::fs::FileExt::read_at(cache, buffer, position)?;
            Ok((read > 0).then_some(read))
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
            Ok(self.content.len() as u64)
        }
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            self.cache.as_ref().map(AsFd::as_fd)
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
    async fn sent(pieces: Vec<Piece>) -> (Vec<u8>, Result<(), SendError>) {
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
        let patience = Patience {
            stall_max: STALL_MAX,
            memory: &Memory::new(Arc::default(), -1),
            reserved: 0,
        };
        let result = send_all(&mut from, pieces, &patience).await;
        drop(from);
        (reader.await.unwrap(), result)
    }

    /// Parts of a file by position and length, each after a few bytes.
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
        let (content, cache) = (content(), None);
        let fails = false;
        arrive_as_they_are(Arc::new(Cached {
            content,
            cache,
            fails,
        }))
        .await;
    }

    /// Small parts of a file of which the first 100 bytes are in the page cache, each after a few others.
    fn half_cached(dir: &std::path::Path, fails: bool) -> Vec<Piece> {
        let content = content();
        std::fs::write(dir.join("cache"), &content[..100]).unwrap();
        let file: Arc<dyn DiskFile> = Arc::new(Cached {
            content,
            cache: Some(std::fs::File::open(dir.join("cache")).unwrap()),
            fails,
        });
        let part = |position, bytes| {
            let head = Piece::Bytes("head".into());
            let file = file.clone();
            [
                head,
                Piece::File(Slice {
                    file,
                    position,
                    bytes,
                }),
            ]
        };
        let parts = [(7, 20), (90, 30), (5000, 10_000), (0, 100)];
        parts
            .into_iter()
            .flat_map(|(position, bytes)| part(position, bytes))
            .collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_in_the_page_cache_is_read_in_the_background() {
        let dir = tempfile::tempdir().unwrap();
        let (arrived, result) = sent(half_cached(dir.path(), false)).await;
        result.unwrap();
        let content = content();
        let parts = [7..27, 90..120, 5000..15_000, 0..100];
        let expected = parts.map(|part| [b"head", &content[part]].concat());
        assert!(arrived == expected.concat());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_fails_is_not_taken_for_a_client_that_left_and_what_was_ready_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let (arrived, result) = sent(half_cached(dir.path(), true)).await;
        assert!(matches!(result, Err(SendError::File(_))), "{result:?}");
        let content = content();
        assert_eq!(arrived, [b"head", &content[7..27], b"head"].concat());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_is_too_short_is_an_error_after_what_was_ready() {
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
            assert!(
                matches!(&result, Err(SendError::File(error)) if error.kind() == io::ErrorKind::UnexpectedEof),
                "{result:?}"
            );
            assert!(arrived.starts_with(b"ready"));
        }
    }
}
