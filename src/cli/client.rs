//! A small blocking client for the operator commands.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use metaq_protocol::ResponseError;
use metaq_protocol::frame;
use metaq_protocol::protocol::Request;

use super::Failure;

/// An answer that takes longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Which broker to ask.
#[derive(Debug, Args)]
pub(super) struct Address {
    /// Address of a broker.
    #[arg(
        short,
        long,
        default_value = "127.0.0.1:9092",
        value_name = "HOST:PORT"
    )]
    bootstrap: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// A connection to a broker.
pub(super) struct Client {
    stream: TcpStream,
    next_correlation_id: i32,
}

impl Client {
    pub(super) fn connect(address: &Address) -> Result<Self, Failure> {
        let stream = TcpStream::connect(&address.bootstrap)
            .map_err(|error| format!("cannot reach a broker at {}: {error}", address.bootstrap))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            next_correlation_id: 0,
        })
    }

    /// Sends a request in a version and waits for its answer.
    pub(super) fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Failure> {
        self.next_correlation_id += 1;
        let sent = frame::encode_request(version, self.next_correlation_id, "metaq-cli", request)?;
        self.stream.write_all(&sent)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(format!("the answer claims {length} bytes; is this a Kafka port?").into());
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        let (correlation_id, response) = frame::decode_response::<R>(version, Bytes::from(answer))?;
        if correlation_id != self.next_correlation_id {
            return Err("the answer belongs to another request".into());
        }
        Ok(response)
    }
}

/// Makes an error code a failure, with the broker's message where there is one.
pub(super) fn check(what: &str, code: i16, message: Option<&str>) -> Result<(), Failure> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(format!(
            "{what}: {}",
            message.map_or_else(|| error.to_string(), str::to_owned)
        )
        .into()),
    }
}
