//! A connection to a peer, and how it is made.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::PeerAddress;

/// Both directions of a connection to a peer.
pub struct PeerStream {
    /// Where answers come from.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Where requests go to.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// For how long the peer takes requests by it, where it says so (KIP-368).
    pub lifetime: Option<Duration>,
}

impl PeerStream {
    /// One that lasts as long as both sides want it to.
    pub fn lasting(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
            lifetime: None,
        }
    }
}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<PeerStream>> + Send>>;

/// Makes connections: over TCP, or over a simulated network.
pub type Connect = Arc<dyn Fn(&PeerAddress) -> Connecting + Send + Sync>;

pub(super) async fn connect_tcp(address: PeerAddress) -> io::Result<PeerStream> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    Ok(PeerStream::lasting(reader, writer))
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes, BytesMut};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::Peers;
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);
    const LIFETIME: Duration = Duration::from_millis(250);

    /// A frame without a body.
    fn frame(before_id: usize, id: i32) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_u32(before_id as u32);
        frame.put_bytes(0, before_id - 4);
        frame.put_i32(id);
        frame.freeze()
    }

    /// The id of the next request.
    async fn next(stream: &mut TcpStream) -> i32 {
        let mut request = [0; 12];
        stream.read_exact(&mut request).await.unwrap();
        i32::from_be_bytes([request[8], request[9], request[10], request[11]])
    }

    #[tokio::test]
    async fn another_connection_takes_the_place_of_one_whose_time_is_over_and_no_answer_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = "127.0.0.1".to_owned();
        let port = listener.local_addr().unwrap().port();
        let address = PeerAddress { host, port };
        let peers = Peers::over(Arc::new(|address| {
            let address = address.clone();
            Box::pin(async {
                let stream = connect_tcp(address).await?;
                let lifetime = Some(LIFETIME);
                Ok(PeerStream { lifetime, ..stream })
            })
        }));
        let asked = |id| peers.ask(7, &address, frame(8, id), WAIT);
        let peer = async {
            let (mut old, _) = listener.accept().await.unwrap();
            let waiting = next(&mut old).await;
            // The second comes when the first one's connection takes no more.
            let (mut new, _) = listener.accept().await.unwrap();
            let id = next(&mut new).await;
            new.write_all(&frame(4, id)).await.unwrap();
            old.write_all(&frame(4, waiting)).await.unwrap();
            // Then it ends.
            assert_eq!(old.read(&mut [0]).await.unwrap(), 0);
        };
        let late = async {
            tokio::time::sleep(LIFETIME).await;
            asked(2).await
        };
        let (first, second, ()) = tokio::join!(asked(1), late, peer);
        assert_eq!(first.unwrap(), frame(4, 1));
        assert_eq!(second.unwrap(), frame(4, 2));
    }
}
