//! Requests at a fixed rate, whatever the broker does: latencies count from the moment at which a request was due, so
//! that a broker that stands still is seen by all that should have been sent meanwhile.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Failure, Measured, Options, error_of, frames_of, probe, read_frame};

/// What the first requests find out, new leaders and cold code, is not counted.
const WARM_UP: Duration = Duration::from_secs(3);

/// One producer's share of the rate, over the partitions `n`, `n + connections`, … in turn.
pub(super) fn paced(options: &Options, n: usize) -> Result<Measured, Failure> {
    let (frames, records) = frames_of(options, n)?;
    let every = Duration::from_secs_f64(
        options.connections as f64 * records as f64 / options.records_per_s.max(1) as f64,
    );
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    probe(&mut stream, &mut answers, &frames)?;
    let (tell, due_times) = mpsc::channel::<Instant>();
    let receiver = std::thread::spawn(move || -> Result<Vec<(Instant, Duration)>, Failure> {
        let mut latencies = Vec::new();
        for due in due_times {
            let answer = read_frame(&mut answers)?;
            latencies.push((due, due.elapsed()));
            match error_of(answer)? {
                0 => {}
                code => return Err(format!("produce failed with error {code}").into()),
            }
        }
        Ok(latencies)
    });
    let began = Instant::now();
    let mut due = began + every.mul_f64(n as f64 / options.connections as f64);
    let end = began + WARM_UP + options.run;
    for sent in frames.iter().cycle() {
        if due >= end {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Before the request, so that the answer cannot come first.
        if tell.send(due).is_err() {
            break;
        }
        stream.write_all(sent)?;
        due += every;
    }
    drop(tell);
    let answered = receiver.join().map_err(|_| "a receiver panicked")??;
    let counted = answered
        .into_iter()
        .filter(|(due, _)| *due >= began + WARM_UP);
    let latencies: Vec<Duration> = counted.map(|(_, latency)| latency).collect();
    let sent = (latencies.len() * records) as u64;
    Ok((sent, sent * options.record_bytes as u64, latencies))
}
