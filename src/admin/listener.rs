//! The dashboard's connections: a bounded number, and none that is silent for long, so that visitors cannot use up what
//! the clients' connections need. Where the port has TLS, a connection comes to its requests after a handshake, which counts
//! as a connection and has the deadline of those of clients; who speaks plain HTTP there is told so.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use crate::api;
use crate::security::ServerTls;

/// A connection on which nothing comes and goes for this long is closed. Event streams say something more often.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Pause after accept failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections above the limit that are answered so at a time; others are just closed.
const REFUSALS_MAX: usize = 16;
/// How long, and for how many bytes, the request of one that is refused is awaited: no client expects an answer before, and
/// closing before all was read would take it away.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);
const REFUSAL_BYTES_MAX: usize = 16 * 1024;
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 57\r\nRetry-After: 5\r\nConnection: close\r\n\r\n\
    too many connections: see dashboard.http.max.connections\n";
/// What who speaks plain HTTP on a port with TLS is told.
const NEEDS_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 55\r\nConnection: close\r\n\r\n\
    this port has TLS: ask for it with https:// before it.\n";
/// What a client that begins a handshake sends first (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// A connection to the port, of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What the port's connections have in common.
pub(super) struct Settings {
    /// The broker.
    pub(super) cx: Arc<api::Context>,
    /// At most so many at a time.
    pub(super) connections_max: usize,
    /// There where they are encrypted.
    pub(super) tls: Option<Arc<ServerTls>>,
}

/// A listener that answers what is above its limit with 503. One address has half of the permits at most, so that it cannot
/// keep others from looking whether the broker lives.
pub(super) struct Limited {
    listener: TcpListener,
    cx: Arc<api::Context>,
    tls: Option<Arc<ServerTls>>,
    permits: Arc<Semaphore>,
    per_address_max: usize,
    addresses: Addresses,
    refusals: Arc<Semaphore>,
    /// Connections on their way to their first request.
    handshakes: JoinSet<Option<(Accepted, SocketAddr)>>,
}

/// A connection whose requests can be read.
type Accepted = Visitor<Box<dyn Stream>>;

/// How many connections each address has.
type Addresses = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One of them; given back when dropped.
struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
    addresses: Addresses,
    address: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock();
        if let Some(open) = addresses.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

impl Limited {
    pub(super) fn new(listener: TcpListener, settings: Settings) -> Self {
        let connections_max = settings.connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            cx: settings.cx,
            tls: settings.tls,
            permits: Arc::new(Semaphore::new(connections_max)),
            per_address_max: connections_max.div_ceil(2),
            addresses: Addresses::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            handshakes: JoinSet::new(),
        }
    }

    fn acceptor(&self) -> Option<TlsAcceptor> {
        let tls = self.tls.as_ref()?;
        Some(TlsAcceptor::from(tls.config()))
    }

    /// Takes a connection in: at once, or after its handshake.
    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Accepted> {
        let Some(permit) = self.permit(peer.ip()) else {
            self.refuse(stream, peer);
            return None;
        };
        let Some(acceptor) = self.acceptor() else {
            return Some(Visitor::new(Box::new(stream), Some(permit), IDLE_MAX));
        };
        let cx = self.cx.clone();
        self.handshakes.spawn(async move {
            let ms = cx.config.load().number("authentication.timeout.ms");
            let in_time = Duration::from_millis(ms.unsigned_abs());
            let established = tokio::time::timeout(in_time, establish(stream, acceptor)).await;
            match established.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => Some((Visitor::new(stream, Some(permit), IDLE_MAX), peer)),
                Err(error) => {
                    tracing::debug!(%peer, %error, "dashboard: the connection was not established");
                    let failed = &cx.metrics.handshakes_failed;
                    failed.fetch_add(1, Ordering::Relaxed);
                    None
                }
            }
        });
        None
    }

    /// Says that there are too many.
    fn refuse(&self, stream: TcpStream, peer: SocketAddr) {
        tracing::warn!(%peer, "dashboard: too many connections");
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else {
            return;
        };
        let acceptor = self.acceptor();
        let told = async move {
            match acceptor {
                None => tell(stream, TOO_MANY).await,
                Some(acceptor) => tell(establish(stream, acceptor).await?, TOO_MANY).await,
            }
        };
        tokio::spawn(async move {
            // Whoever is gone or too slow hears nothing.
            let _ = tokio::time::timeout(REFUSAL_WAIT, told).await;
            drop(permit);
        });
    }

    fn permit(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let mut addresses = self.addresses.lock();
        let open = addresses.get(&address).copied().unwrap_or(0);
        if open >= self.per_address_max {
            return None;
        }
        addresses.insert(address, open + 1);
        Some(ConnectionPermit {
            _permit: permit,
            addresses: self.addresses.clone(),
            address,
        })
    }
}

/// Does the handshake; who does not begin one is told what is missing.
async fn establish(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<Box<dyn Stream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
        let told = tokio::time::timeout(REFUSAL_WAIT, tell(stream, NEEDS_TLS));
        let _ = told.await;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no handshake of TLS",
        ));
    }
    Ok(Box::new(acceptor.accept(stream).await?))
}

/// Answers one request without looking at it.
async fn tell(mut stream: impl Stream, answer: &[u8]) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        if request.len() > REFUSAL_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(REFUSAL_BYTES_MAX as u64);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Where a visitor comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(SocketAddr);

impl Peer {
    /// Of a request.
    pub(super) fn of(parts: &axum::http::request::Parts) -> SocketAddr {
        let peer = parts.extensions.get::<ConnectInfo<Self>>();
        peer.map_or_else(|| ([0, 0, 0, 0], 0).into(), |ConnectInfo(Self(peer))| *peer)
    }
}

impl Connected<IncomingStream<'_, Limited>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl axum::serve::Listener for Limited {
    type Io = Accepted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => if let Some(accepted) = self.begin(stream, peer) {
                        return (accepted, peer);
                    },
                    Err(error) => {
                        tracing::warn!(%error, "dashboard: cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(done) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    if let Ok(Some(established)) = done {
                        return established;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is idle for too long, and gives its permit back then.
pub(super) struct Visitor<S> {
    stream: S,
    _permit_of_address: Option<ConnectionPermit>,
    idle_max: Duration,
    idle: Pin<Box<Sleep>>,
}

impl<S> Visitor<S> {
    fn new(stream: S, permit: Option<ConnectionPermit>, idle_max: Duration) -> Self {
        Self {
            stream,
            _permit_of_address: permit,
            idle_max,
            idle: Box::pin(tokio::time::sleep(idle_max)),
        }
    }

    /// Takes note of what an attempt to read or write came to; waiting ends when the connection is idle for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            let deadline = Instant::now() + self.idle_max;
            self.idle.as_mut().reset(deadline);
            return attempt;
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Visitor<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_read(cx, into);
        self.watch(cx, attempt)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Visitor<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, attempt)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_refusal_has_the_length_that_it_says() {
        for refusal in [TOO_MANY, NEEDS_TLS] {
            let text = std::str::from_utf8(refusal).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        }
    }

    #[tokio::test]
    async fn a_silent_visitor_is_sent_away_and_a_speaking_one_is_not() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut visitor = Visitor::new(server, None, Duration::from_millis(20));
        client.write_all(b"x").await.unwrap();
        assert_eq!(visitor.read_u8().await.unwrap(), b'x');
        let silent = visitor.read_u8().await.unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
    }
}
