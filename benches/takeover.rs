//! One producer's transactions while a coordinator is killed, and many transactional ids at rest.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use metaq_protocol::frame;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{FindCoordinatorRequest, MetadataRequest};
use metaq_protocol::protocol::StrBytes;

use super::transacting::{FIND_VERSION, INIT_VERSION, Producer, init_request};
use super::{Failure, Options, ask_at, read_frame, resident_mib, topic_name};

const METADATA_VERSION: i16 = 9;
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);
/// Requests that are under way at the same time.
const IN_FLIGHT: usize = 200;

fn connect(address: &str) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(stream)
}

/// Asks the brokers one after the other until one says who coordinates and who leads: connections to both.
fn found(options: &Options, id: &str) -> Result<(TcpStream, TcpStream), Failure> {
    for address in options.address.split(',') {
        let find = FindCoordinatorRequest::default()
            .with_key(StrBytes::from_string(id.to_owned()))
            .with_key_type(1);
        let asked = MetadataRequestTopic::default().with_name(Some(topic_name(options)));
        let metadata = MetadataRequest::default().with_topics(Some(vec![asked]));
        let (Ok(coordinator), Ok(metadata)) = (
            ask_at(address, FIND_VERSION, &find),
            ask_at(address, METADATA_VERSION, &metadata),
        ) else {
            continue;
        };
        let leader = metadata.topics[0].partitions.first().map(|it| it.leader_id);
        let leader = metadata
            .brokers
            .iter()
            .find(|it| Some(it.node_id) == leader);
        let Some(leader) = leader.filter(|_| coordinator.error_code == 0) else {
            continue;
        };
        eprintln!("coordinator {}", coordinator.node_id.0);
        let coordinator = connect(&format!("{}:{}", coordinator.host, coordinator.port))?;
        return Ok((
            coordinator,
            connect(&format!("{}:{}", leader.host, leader.port))?,
        ));
    }
    Err("nobody says who coordinates and who leads".into())
}

/// A producer, and the connection to the leader that it writes to.
type Begun = (Producer, TcpStream);

/// One transaction, of a producer that begins where there is none.
fn commit_one(options: &Options, id: &str, begun: Option<Begun>) -> Result<Begun, Failure> {
    let (mut producer, mut leader) = match begun {
        Some(begun) => begun,
        None => {
            let (coordinator, leader) = found(options, id)?;
            (Producer::begun(coordinator, id, 1)?, leader)
        }
    };
    producer.write_to(&mut leader, options, 0)?;
    producer.end(true)?;
    Ok((producer, leader))
}

/// Commits one transaction after the other, from the beginning with another connection after each failure; prints how many, and
/// the longest time without one; on standard error who coordinates, each time that it changes.
pub(super) fn take_over(options: &Options) -> Result<(), Failure> {
    let id = format!("takeover-{}", options.topic);
    let (started, mut last) = (Instant::now(), None::<Instant>);
    let (mut commits, mut failures, mut longest) = (0, 0, Duration::ZERO);
    let mut begun = None;
    while started.elapsed() < options.run {
        match commit_one(options, &id, begun.take()) {
            Ok(producer) => {
                begun = Some(producer);
                commits += 1;
                longest = longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                last = Some(Instant::now());
            }
            Err(_) => {
                failures += 1;
                std::thread::sleep(PAUSE);
            }
        }
    }
    let longest = longest.max(last.unwrap_or(started).elapsed()).as_secs_f64() * 1e3;
    println!(
        "{{\"commits\": {commits}, \"failures\": {failures}, \"longest_gap_ms\": {longest:.0}}}"
    );
    Ok(())
}

/// Begins as many transactional ids as there are to be groups; prints what the broker takes before and after.
pub(super) fn ids(options: &Options) -> Result<(), Failure> {
    let pid = options.pid.ok_or("--pid")?;
    // The coordinator may take a moment.
    let mut first = Producer::begun(connect(&options.address)?, "first", usize::MAX)?;
    let before = resident_mib(pid);
    let started = Instant::now();
    let names: Vec<String> = (0..options.groups)
        .map(|n| format!("application-{n:06}"))
        .collect();
    for chunk in names.chunks(IN_FLIGHT) {
        for name in chunk {
            let request = init_request(name);
            let frame = frame::encode_request(INIT_VERSION, 1, "load", &request)?;
            first.stream.write_all(&frame)?;
        }
        for name in chunk {
            let answer = read_frame(&mut first.stream)?;
            let answer = frame::decode_response::<metaq_protocol::messages::InitProducerIdRequest>(
                INIT_VERSION,
                answer,
            )?;
            match answer.1.error_code {
                0 => {}
                code => return Err(format!("{name}: error {code}").into()),
            }
        }
    }
    println!(
        "{{\"ids\": {}, \"seconds\": {:.1}, \"before_mib\": {before:.1}, \"rss_mib\": {:.1}}}",
        options.groups,
        started.elapsed().as_secs_f64(),
        resident_mib(pid)
    );
    Ok(())
}
