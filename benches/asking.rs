//! Metadata requests of all topics, so many in one write, the next ones when all are answered: the broker finds the same work in its
//! socket every time.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Instant;

use metaq_protocol::frame;
use metaq_protocol::messages::MetadataRequest;

use crate::{Failure, Measured, Options, read_frame};

const METADATA_VERSION: i16 = 9;

/// Asks as long as it is told to, on one connection.
pub fn asking(options: &Options, _: usize) -> Result<Measured, Failure> {
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::with_capacity(1 << 16, stream.try_clone()?);
    let all = MetadataRequest::default().with_topics(None);
    let one = frame::encode_request(METADATA_VERSION, 1, "load", &all)?;
    let many = one.repeat(options.in_flight);
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < options.run {
        let at = Instant::now();
        stream.write_all(&many)?;
        for _ in 0..options.in_flight {
            read_frame(&mut answers)?;
        }
        latencies.push(at.elapsed());
    }
    let answered = (latencies.len() * options.in_flight) as u64;
    Ok((answered, answered, latencies))
}
