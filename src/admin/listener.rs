//! The dashboard's connections: a bounded number, and none that is silent for long, so that visitors cannot use up what
//! the clients' connections need.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

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
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 57\r\nRetry-After: 5\r\nConnection: close\r\n\r\n\
    too many connections: see dashboard.http.max.connections\n";

/// A listener that answers what is above its limit with 503. One address has half of the permits at most, so that it cannot
/// keep others from looking whether the broker lives.
pub(super) struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    per_address_max: usize,
    addresses: Addresses,
    refusals: Arc<Semaphore>,
}

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
    /// At most `connections_max` at a time.
    pub(super) fn new(listener: TcpListener, connections_max: usize) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            permits: Arc::new(Semaphore::new(connections_max)),
            per_address_max: connections_max.div_ceil(2),
            addresses: Addresses::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        }
    }

    /// Says that there are too many.
    fn refuse(&self, stream: TcpStream, peer: SocketAddr) {
        tracing::warn!(%peer, "dashboard: too many connections");
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            // Whoever is gone or too slow hears nothing.
            let _ = tokio::time::timeout(REFUSAL_WAIT, tell_refusal(stream)).await;
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

async fn tell_refusal(mut stream: TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        if request.len() > REFUSAL_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(REFUSAL).await?;
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
    type Io = Visitor<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => match self.permit(peer.ip()) {
                    Some(permit) => return (Visitor::new(stream, Some(permit), IDLE_MAX), peer),
                    None => self.refuse(stream, peer),
                },
                Err(error) => {
                    tracing::warn!(%error, "dashboard: cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
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
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
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
