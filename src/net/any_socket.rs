//! The listeners of a broker: each is plain TCP or encrypted, as its protocol says. Connections of both kinds are served by
//! the same code, which is compiled once.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::socket::{Listener, Socket};
use super::tls_socket::TlsSocket;
use crate::log::DiskFile;
use crate::security::ServerTls;

/// See the module's documentation.
pub struct AnyListener {
    pub(super) tcp: TcpListener,
    /// There where connections are encrypted.
    pub(super) tls: Option<Arc<ServerTls>>,
}

/// A connection of either kind.
pub enum AnySocket {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsSocket>),
}

impl AnyListener {
    /// Its certificates, where its connections are encrypted.
    pub fn tls(&self) -> Option<&Arc<ServerTls>> {
        self.tls.as_ref()
    }
}

impl Listener for AnyListener {
    type Socket = AnySocket;

    async fn accept(&self) -> io::Result<(AnySocket, SocketAddr)> {
        let (stream, peer) = self.tcp.accept().await?;
        let socket = match &self.tls {
            None => AnySocket::Plain(stream),
            Some(tls) => AnySocket::Tls(Box::new(TlsSocket::new(stream, tls.config())?)),
        };
        Ok((socket, peer))
    }
}

impl AsyncRead for AnySocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl Socket for AnySocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.local_addr(),
            Self::Tls(stream) => Socket::local_addr(stream.as_ref()),
        }
    }

    fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => Socket::set_nodelay(stream),
            Self::Tls(stream) => Socket::set_nodelay(stream.as_ref()),
        }
    }

    fn establish(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        // Nobody keeps room for a handshake while it is plain, or over.
        let handshake = match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(Box::pin(stream.establish())),
        };
        async move {
            match handshake {
                None => Ok(()),
                Some(handshake) => handshake.await,
            }
        }
    }

    fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.peer_certificate(),
        }
    }

    async fn send_bytes(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.send_bytes(bytes, more).await,
            // A plain connection keeps no room for what an encrypted one does.
            Self::Tls(stream) => Box::pin(stream.send_bytes(bytes, more)).await,
        }
    }

    async fn send_file(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.send_file(file, position, bytes).await,
            Self::Tls(stream) => Box::pin(stream.send_file(file, position, bytes)).await,
        }
    }
}
