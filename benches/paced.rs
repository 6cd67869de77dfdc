//! Requests at a fixed rate, whatever the broker does: latencies count from the moment at which a request was due, so
//! that a broker that stands still is seen by all that should have been sent meanwhile.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Failure, Measured, Options, error_of, frames_of, probe, read_frame};

/// What the first requests find out, new leaders and cold code, is not counted.
const WARM_UP: Duration = Duration::from_secs(3);

/// One producer's share of the rate, over the partitions `n`, `n + connections`, … in turn.
pub(super) fn paced(options: &Options, n: usize) -> Result<Measured, Failure> {
    // Sleeping ends when it is to end, not up to 50 µs later.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let (frames, records) = frames_of(options, n)?;
    let mut stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    if !options.floor {
        probe(&mut stream, &mut answers, &frames)?;
    }
    let schedule = Schedule::new(options, n, records);
    let pace = schedule.clone();
    // Waits in the socket alone: each further wake-up would be on the clock.
    let receiver = std::thread::spawn(move || receive(answers, &pace));
    let is_heard = || !receiver.is_finished();
    let sent = send(&mut stream, &frames, &schedule, is_heard);
    if sent.is_err() {
        // Nothing more will be answered.
        let _ = stream.shutdown(Shutdown::Both);
    }
    let latencies = receiver.join().map_err(|_| "a receiver panicked")??;
    sent?;
    let sent = (latencies.len() * records) as u64;
    Ok((sent, sent * options.record_bytes as u64, latencies))
}

/// When each request is due.
#[derive(Clone)]
struct Schedule {
    first: Instant,
    every: Duration,
    requests: u32,
    counted_from: Instant,
    /// Whether answers say anything.
    decoded: bool,
}

impl Schedule {
    fn new(options: &Options, n: usize, records: usize) -> Self {
        let every = Duration::from_secs_f64(
            options.connections as f64 * records as f64 / options.records_per_s.max(1) as f64,
        );
        let began = Instant::now();
        Self {
            first: began + every.mul_f64(n as f64 / options.connections as f64),
            every,
            requests: ((WARM_UP + options.run).as_secs_f64() / every.as_secs_f64()) as u32,
            counted_from: began + WARM_UP,
            decoded: !options.floor,
        }
    }

    fn due(&self) -> impl Iterator<Item = Instant> + '_ {
        (0..self.requests).map(|n| self.first + self.every * n)
    }
}

fn send(
    stream: &mut TcpStream,
    frames: &[Bytes],
    schedule: &Schedule,
    is_heard: impl Fn() -> bool,
) -> Result<(), Failure> {
    for (due, sent) in schedule.due().zip(frames.iter().cycle()) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if !is_heard() {
            return Err("the receiver ended".into());
        }
        stream.write_all(sent)?;
    }
    Ok(())
}

fn receive(mut answers: impl Read, schedule: &Schedule) -> Result<Vec<Duration>, Failure> {
    let mut latencies = Vec::with_capacity(schedule.requests as usize);
    for due in schedule.due() {
        let answer = read_frame(&mut answers)?;
        if due >= schedule.counted_from {
            latencies.push(due.elapsed());
        }
        let code = if schedule.decoded {
            error_of(answer)?
        } else {
            0
        };
        if code != 0 {
            return Err(format!("produce failed with error {code}").into());
        }
    }
    Ok(latencies)
}
