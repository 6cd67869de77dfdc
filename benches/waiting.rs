//! What an append costs a broker while a fetch waits for many partitions, one of which is appended to: each append wakes the
//! fetch, which goes on waiting.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use metaq_protocol::frame;
use metaq_protocol::messages::FetchRequest;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};

use crate::{
    FETCH_VERSION, Failure, Options, cpu_seconds, error_of, frames_of, probe, read_frame,
    topic_name,
};

/// Longer than a run.
const WAIT_MS: i32 = 300_000;
/// More than a run appends.
const BYTES_MIN: i32 = 1 << 30;

/// Waits for all partitions of the topic, appends to the first, and prints what an append cost.
pub fn wait(options: &Options) -> Result<(), Failure> {
    let pid = options.pid.ok_or("--pid")?;
    let mut waiting = TcpStream::connect(&options.address)?;
    let partition = |n| {
        FetchPartition::default()
            .with_partition(n)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(1)
    };
    let topic = FetchTopic::default()
        .with_topic(topic_name(options))
        .with_partitions((0..options.partitions).map(partition).collect());
    let fetch = FetchRequest::default()
        .with_max_wait_ms(WAIT_MS)
        .with_min_bytes(BYTES_MIN)
        .with_max_bytes(BYTES_MIN)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    waiting.write_all(&frame::encode_request(FETCH_VERSION, 1, "load", &fetch)?)?;
    let (frames, _) = frames_of(options, 0)?;
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    probe(&mut stream, &mut answers, &frames[..1])?;
    let (started, before, mut appends) = (Instant::now(), cpu_seconds(pid)?, 0);
    while started.elapsed() < options.run {
        stream.write_all(&frames[0])?;
        match error_of(read_frame(&mut answers)?)? {
            0 => appends += 1,
            code => return Err(format!("produce failed with error {code}").into()),
        }
    }
    let cpu = cpu_seconds(pid)? - before;
    println!(
        "{{\"partitions\": {}, \"appends_per_s\": {:.0}, \"cpu_us_per_append\": {:.1}}}",
        options.partitions,
        f64::from(appends) / started.elapsed().as_secs_f64(),
        cpu * 1e6 / f64::from(appends),
    );
    Ok(())
}
