//! Offset commits, and what they are compared with: one write to ZooKeeper after the other.

use std::collections::{HashMap, VecDeque};
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Instant;

use metaq_protocol::frame;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest};
use metaq_protocol::protocol::StrBytes;

use super::{Failure, Measured, Options, ask, read_frame, topic_name};

const COMMIT_VERSION: i16 = 7;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One client's share of the groups: their commits are sent to their coordinators in turn.
pub(super) fn commit(options: &Options, n: usize) -> Result<Measured, Failure> {
    let own: Vec<String> = (n..options.groups)
        .step_by(options.connections)
        .map(|group| format!("commit-{group}"))
        .collect();
    let mut connections: HashMap<String, (TcpStream, BufReader<TcpStream>)> = HashMap::new();
    let mut places = Vec::with_capacity(own.len());
    for group in &own {
        let place = coordinator(options, group)?;
        if !connections.contains_key(&place) {
            let stream = TcpStream::connect(&place)?;
            stream.set_nodelay(true)?;
            connections.insert(place.clone(), (stream.try_clone()?, BufReader::new(stream)));
        }
        places.push(place);
    }
    let started = Instant::now();
    let mut latencies = Vec::new();
    let mut waiting: VecDeque<(usize, Instant)> = VecDeque::new();
    let (mut sent, mut bytes) = (0usize, 0);
    loop {
        let over = started.elapsed() >= options.run;
        if over && waiting.is_empty() {
            break;
        }
        while !over && waiting.len() < options.in_flight {
            let at = sent % own.len();
            let request = request(options, &own[at], (sent / own.len()) as i64);
            let frame = frame::encode_request(COMMIT_VERSION, 1, "load", &request)?;
            bytes += frame.len() as u64;
            if let Some((stream, _)) = connections.get_mut(&places[at]) {
                stream.write_all(&frame)?;
            }
            waiting.push_back((at, Instant::now()));
            sent += 1;
        }
        let Some((at, since)) = waiting.pop_front() else {
            continue;
        };
        let Some((_, answers)) = connections.get_mut(&places[at]) else {
            continue;
        };
        let answer = read_frame(answers)?;
        latencies.push(since.elapsed());
        let (_, response) = frame::decode_response::<OffsetCommitRequest>(COMMIT_VERSION, answer)?;
        match response.topics[0].partitions[0].error_code {
            0 => {}
            code => return Err(format!("a commit failed with error {code}").into()),
        }
    }
    Ok((latencies.len() as u64, bytes, latencies))
}

fn coordinator(options: &Options, group: &str) -> Result<String, Failure> {
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    for _ in 0..200 {
        let found = ask(options, 4, &find)?.coordinators.remove(0);
        if found.error_code == 0 {
            return Ok(format!("{}:{}", &*found.host, found.port));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err(format!("{group} has no coordinator").into())
}

fn request(options: &Options, group: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(options))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// Sets the nodes of as many groups, one after the other, each when the one before is answered.
pub(super) fn set_one_by_one(options: &Options) -> Result<Measured, Failure> {
    use zookeeper_client::{Acls, Client, CreateMode};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::connect(&options.address).await?;
        let mode = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let data = [b'x'; 80];
        for group in 0..options.groups {
            let path = format!("/one-by-one-{group}");
            match client.create(&path, &data, &mode).await {
                Ok(_) | Err(zookeeper_client::Error::NodeExists) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let started = Instant::now();
        let mut latencies = Vec::new();
        while started.elapsed() < options.run {
            let path = format!("/one-by-one-{}", latencies.len() % options.groups);
            let at = Instant::now();
            client.set_data(&path, &data, None).await?;
            latencies.push(at.elapsed());
        }
        let count = latencies.len() as u64;
        Ok((count, count * data.len() as u64, latencies))
    })
}
