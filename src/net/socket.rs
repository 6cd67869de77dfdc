//! What a connection needs of its stream, and a server of its listener. TCP, or whatever else carries bytes: a
//! simulated network, an encrypted stream. Everything above is compiled for each of them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bytes::BytesMut;
use rustix::net::SendFlags;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, Interest};
use tokio::net::TcpStream;

use super::file_read::read_in_background;
use crate::log::DiskFile;

/// What is read from a file at once where it cannot be sent from there.
const COPY_BYTES_MAX: usize = 64 << 10;

/// A connection's stream.
pub trait Socket: AsyncRead + Unpin + Send + 'static {
    /// The address that the peer connected to.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Lets small answers leave at once.
    fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }

    /// Makes the connection ready to be read and written, where that takes more than to accept it: the handshake of an
    /// encrypted one. Called first, in the connection's own task and for a limited time.
    fn establish(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// The certificate that the peer has shown and proved to own.
    fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        None
    }

    /// Sends from memory as soon as something is taken; returns how much. `more` says that more follows at once.
    fn send_bytes(
        &mut self,
        bytes: &[u8],
        more: bool,
    ) -> impl Future<Output = io::Result<usize>> + Send;

    /// Sends a range of a file as soon as something is taken; returns how much, 0 at the file's end. It may be less
    /// than was asked for.
    fn send_file(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: usize,
    ) -> impl Future<Output = io::Result<usize>> + Send {
        copy_file(self, file, position, bytes)
    }
}

/// Where connections come from.
pub trait Listener: Send + Sync + 'static {
    /// What it gives.
    type Socket: Socket;

    /// The next connection and its peer's address. Nothing here waits for the peer: one that is slow would hold up all.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

/// Reads a part of a file and sends it from memory.
async fn copy_file<S: Socket + ?Sized>(
    socket: &mut S,
    file: &Arc<dyn DiskFile>,
    position: u64,
    bytes: usize,
) -> io::Result<usize> {
    let mut copied = BytesMut::zeroed(bytes.min(COPY_BYTES_MAX));
    let read = match file.read_cached_at(&mut copied, position)? {
        Some(read) => read,
        None => {
            copied = read_in_background(file, position, copied.len()).await?;
            copied.len()
        }
    };
    match read {
        0 => Ok(0),
        read => socket.send_bytes(&copied[..read], bytes > read).await,
    }
}

impl Socket for TcpStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    fn set_nodelay(&self) -> io::Result<()> {
        Self::set_nodelay(self, true)
    }

    async fn send_bytes(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if more {
            // The kernel waits for what follows before it fills a packet.
            flags |= SendFlags::MORE;
        }
        when_writable(self, |socket| rustix::net::send(socket, bytes, flags)).await
    }

    async fn send_file(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        if file.descriptor().is_none() {
            return copy_file(self, file, position, bytes).await;
        }
        when_writable(self, |socket| match file.descriptor() {
            Some(descriptor) => {
                let mut from = position;
                rustix::fs::sendfile(socket, descriptor, Some(&mut from), bytes)
            }
            None => Err(rustix::io::Errno::BADF),
        })
        .await
    }
}

/// Runs a non-blocking write when the socket takes more.
async fn when_writable<T>(
    stream: &TcpStream,
    mut write: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
) -> io::Result<T> {
    let attempt = || write(stream.as_fd()).map_err(io::Error::from);
    stream.async_io(Interest::WRITABLE, attempt).await
}
