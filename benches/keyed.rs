//! Records with keys, each batch made for itself: what a compacted topic is filled with.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use metaq_protocol::batch::BatchBuilder;

use super::{Failure, Measured, Options, error_of, produce_frame, read_frame};

/// Bytes of a record besides its value, about.
const RECORD_OVERHEAD: usize = 24;

/// One producer's share of the bytes, to the partition of its number; keys at random out of `--keys`.
pub(super) fn keyed(options: &Options, n: usize) -> Result<Measured, Failure> {
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let partition = n as i32 % options.partitions;
    let share = options.total_bytes / options.connections as u64;
    let (mut records, mut bytes, mut latencies) = (0, 0, Vec::new());
    let mut random = 88_172_645_463_325_252u64 + n as u64;
    let mut sent = std::collections::VecDeque::new();
    while bytes < share || !sent.is_empty() {
        if bytes < share && sent.len() < options.in_flight {
            let (batch, count) = batch_of(options, &mut random)?;
            bytes += batch.len() as u64;
            records += count;
            stream.write_all(&produce_frame(options, partition, batch)?)?;
            sent.push_back(Instant::now());
            continue;
        }
        let answer = read_frame(&mut answers)?;
        match error_of(answer)? {
            0 => latencies.extend(sent.pop_front().map(|at| at.elapsed())),
            code => return Err(format!("a batch is refused: {code}").into()),
        }
    }
    Ok((records, bytes, latencies))
}

fn batch_of(options: &Options, random: &mut u64) -> Result<(Bytes, u64), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let count = (options.batch_bytes / (options.record_bytes + RECORD_OVERHEAD)).max(1);
    let mut value = vec![0u8; options.record_bytes];
    let mut builder = BatchBuilder::new();
    for _ in 0..count {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let key = format!("key-{:010}", *random % options.keys.max(1));
        value
            .chunks_exact_mut(8)
            .zip(*random..)
            .for_each(|(at, n)| {
                at.copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            });
        builder = builder.push(Some(key.as_bytes()), Some(&value), &[], now);
    }
    Ok((builder.finish()?, count as u64))
}
