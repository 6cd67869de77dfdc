//! Asking another broker: one request on a connection of its own. Rare, so nothing is kept open.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::image::Broker;

/// How long the other broker may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Largest answer that is taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Sends a frame, length and all, and returns the answer, length and all.
pub async fn ask(broker: &Broker, frame: Bytes) -> io::Result<Bytes> {
    let exchange = async {
        let mut stream = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&frame).await?;
        let length = stream.read_u32().await?;
        if length as usize > ANSWER_BYTES_MAX {
            let what = format!("an answer of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut answer = BytesMut::zeroed(length as usize);
        stream.read_exact(&mut answer).await?;
        let mut whole = BytesMut::with_capacity(answer.len() + 4);
        whole.put_u32(length);
        whole.put_slice(&answer);
        Ok(whole.freeze())
    };
    tokio::time::timeout(ANSWER_MAX, exchange)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
