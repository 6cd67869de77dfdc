//! turmoil's network in the place of TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use metaq::peer::{PeerAddress, PeerStream, Peers};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

/// Connections between brokers.
pub fn peers() -> Peers {
    Peers::over(Arc::new(|address| Box::pin(connect(address.clone()))))
}

async fn connect(address: PeerAddress) -> io::Result<PeerStream> {
    let stream = turmoil::net::TcpStream::connect((address.host.as_str(), address.port)).await?;
    let (reader, writer) = stream.into_split();
    Ok(PeerStream::lasting(reader, writer))
}

/// A listener in the simulation.
pub struct Listener(pub turmoil::net::TcpListener);

/// A connection in the simulation.
pub struct Socket(turmoil::net::TcpStream);

impl metaq::net::Listener for Listener {
    type Socket = Socket;

    async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Socket(stream), peer))
    }
}

impl metaq::net::Socket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn send_bytes(&mut self, bytes: &[u8], _more: bool) -> io::Result<usize> {
        self.0.write(bytes).await
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}
