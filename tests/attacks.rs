//! Every attack on the broker's memory at once, over as many connections as a broker takes by default: it stays within a
//! stated bound by default settings, and honest clients go on. Each attack alone is in tests/crowd.rs and tests/hostile.rs.

mod common;
#[path = "common/crowd.rs"]
mod crowd;
#[path = "common/process.rs"]
mod process;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{fetch_request, name, now_ms, produce_request};
use crowd::{DESCRIPTORS_BESIDE, QUEUE, connections, raise_descriptor_limit, warm, witness};
use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Compression};
use metaq_protocol::frame;
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use metaq_protocol::messages::{
    ConsumerGroupHeartbeatRequest, GroupId, JoinGroupRequest, MetadataRequest, OffsetCommitRequest,
    ProduceRequest, SyncGroupRequest,
};
use metaq_protocol::protocol::{Request, StrBytes};
use process::Process;
use rustix::process::{Resource, getrlimit};

/// `max.connections` by default.
const CONNECTIONS: usize = 20_000;
/// What a broker may hold by default settings, whatever its clients do; the code of a debug build takes 20 MiB more, and
/// each of its connections something.
const RESIDENT_BYTES_MAX: usize = match cfg!(debug_assertions) {
    true => 608 << 20,
    false => 576 << 20,
};
/// How long the attacks go on once all of them have begun.
const ATTACKED: Duration = Duration::from_secs(10);

/// What connections do that are not honest.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Nothing.
    Silent,
    /// Begins a large frame.
    HalfFrame,
    /// Asks for much that is decoded to more, and never reads the answers.
    ManyTopics,
    /// Fetches much and never reads it.
    DeafFetch,
    /// Has a fetch session remember names that no topic has.
    FetchSession,
    /// Takes a member id and never comes back with it.
    PendingMember,
    /// Is a member with much to say of itself.
    LargeMember,
    /// Commits offsets under ever new group ids.
    NewGroups,
    /// Sends a batch of a few bytes that is unpacked within a window of 128 MiB.
    PackedBomb,
    /// Brings a new producer with each batch.
    NewProducers,
    /// Assigns much to members that are not there.
    LargeAssignment,
    /// Asks for groups by an expression that is long.
    LongExpression,
    /// Sends what is no request.
    Garbage,
}

/// Of a hundred connections so many do that.
const MIXTURE: &[(Attack, usize)] = &[
    (Attack::Silent, 39),
    (Attack::HalfFrame, 20),
    (Attack::ManyTopics, 4),
    (Attack::DeafFetch, 10),
    (Attack::FetchSession, 2),
    (Attack::PendingMember, 10),
    (Attack::LargeMember, 3),
    (Attack::NewGroups, 2),
    (Attack::PackedBomb, 1),
    (Attack::NewProducers, 1),
    (Attack::LargeAssignment, 1),
    (Attack::LongExpression, 1),
    (Attack::Garbage, 6),
];

fn text(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

fn encode<R: Request>(version: i16, request: &R) -> Bytes {
    frame::encode_request(version, 1, "attack", request).unwrap()
}

fn join(n: usize, metadata: Bytes, id_bytes: usize) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(metadata);
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(format!("g{n}{}", "x".repeat(id_bytes)))))
        .with_session_timeout_ms(1_800_000)
        .with_rebalance_timeout_ms(1_800_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol])
}

/// A commit of one offset, with as much beside it as is allowed.
fn commit(n: usize) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(1)
        .with_committed_metadata(Some(text("m".repeat(4096))));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(format!("c{n}"))))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// A batch of a few bytes, of a producer of its own.
fn produced(id: usize) -> ProduceRequest {
    let batch = BatchBuilder::new().producer(id as i64, 0, 0);
    let batch = batch.push(None, Some(b"x"), &[], now_ms());
    produce_request("t", batch.finish().unwrap(), 1)
}

/// One record of 240 MiB of zeros, in a zstd frame of 8 KiB that asks for a window of 128 MiB: a block that is the record's
/// beginning, and then blocks of one byte that stand for 128 KiB each.
fn bomb() -> ProduceRequest {
    const BLOCK_BYTES: usize = 128 << 10;
    const BLOCKS: usize = 240 << 3;
    let varint = |value: usize| {
        let (mut rest, mut out) = ((value as u64) << 1, Vec::new());
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        out
    };
    // Attributes, timestamp and offset 0, no key, and then the value; no headers.
    let value_bytes = BLOCKS * BLOCK_BYTES - 1;
    let inside = [vec![0, 0, 0, 1], varint(value_bytes)].concat();
    let head = [varint(inside.len() + value_bytes + 1), inside].concat();
    let block = |is_last: bool, kind: usize, bytes: usize| {
        let header = usize::from(is_last) | kind << 1 | bytes << 3;
        header.to_le_bytes()[..3].to_vec()
    };
    let mut packed = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3];
    packed.extend([block(false, 0, head.len()), head].concat());
    for n in 1..=BLOCKS {
        packed.extend(block(n == BLOCKS, 1, BLOCK_BYTES));
        packed.push(0);
    }
    produce_request("t", sealed(&packed), 1)
}

/// A batch of one record around what is packed already.
fn sealed(packed: &[u8]) -> Bytes {
    let one = BatchBuilder::new().push(None, None, &[], now_ms());
    let mut header = BatchHeader::parse(&one.finish().unwrap()).unwrap();
    header.attributes = Compression::Zstd.attribute();
    header.batch_length = (BATCH_HEADER_BYTES - 12 + packed.len()) as i32;
    let mut head = [0; BATCH_HEADER_BYTES];
    header.write(&mut head);
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&head[21..]), packed);
    header.write(&mut head);
    [&head, packed].concat().into()
}

impl Attack {
    /// What the nth connection sends.
    fn frames(self, n: usize) -> Vec<Bytes> {
        match self {
            Self::Silent => Vec::new(),
            Self::HalfFrame => vec![Bytes::from_static(&[0, 0x0f, 0x42, 0x40, 0, 0, 0, 9, 0])],
            Self::ManyTopics => {
                let topic = MetadataRequestTopic::default().with_name(Some(name("x")));
                let request = MetadataRequest::default().with_topics(Some(vec![topic; 10_000]));
                vec![encode(1, &request); 2]
            }
            Self::DeafFetch => vec![encode(11, &fetch_request("large", 0, 0)); 10],
            Self::FetchSession => {
                let one = fetch_request("t", 0, 0).topics.remove(0);
                let topic = |i| {
                    one.clone()
                        .with_topic(name(&format!("{n}-{i}-{}", "x".repeat(200))))
                };
                let request = fetch_request("t", 0, 0)
                    .with_session_epoch(0)
                    .with_topics((0..1000).map(topic).collect());
                vec![encode(11, &request)]
            }
            Self::PendingMember => vec![encode(4, &join(n, Bytes::new(), 30_000))],
            Self::LargeMember => vec![encode(3, &join(n, vec![7; 500_000].into(), 0))],
            Self::NewGroups => (0..50).map(|i| encode(7, &commit(n * 50 + i))).collect(),
            Self::PackedBomb => vec![encode(9, &bomb()); 4],
            Self::NewProducers => (0..1000)
                .map(|i| encode(9, &produced(n * 1000 + i)))
                .collect(),
            Self::LargeAssignment => {
                let assignment = SyncGroupRequestAssignment::default()
                    .with_member_id(text("x".repeat(30_000)))
                    .with_assignment(vec![7; 400_000].into());
                let request = SyncGroupRequest::default()
                    .with_group_id(GroupId(text(format!("s{n}"))))
                    .with_member_id(text("nobody".to_owned()))
                    .with_assignments(vec![assignment]);
                vec![encode(3, &request); 4]
            }
            Self::LongExpression => {
                let request = ConsumerGroupHeartbeatRequest::default()
                    .with_group_id(GroupId(text(format!("r{n}"))))
                    .with_member_id(text(format!("m{n}")))
                    .with_rebalance_timeout_ms(1_800_000)
                    .with_subscribed_topic_regex(Some(text("(a|b){1,100}".repeat(300))))
                    .with_topic_partitions(Some(Vec::new()));
                vec![encode(1, &request); 4]
            }
            Self::Garbage => vec![vec![n as u8; 100 + n % 5000].into()],
        }
    }
}

/// A connection, and what it has not sent yet.
struct Attacker {
    stream: TcpStream,
    rest: Bytes,
}

impl Attacker {
    fn connect(address: SocketAddr, n: usize) -> Self {
        let mut below = 0;
        let kind = MIXTURE.iter().find(|(_, part)| {
            below += part;
            n % 100 < below
        });
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            rest: kind.unwrap().0.frames(n).concat().into(),
        }
    }

    /// Sends what the broker takes.
    fn go_on(&mut self) {
        while !self.rest.is_empty() {
            match self.stream.write(&self.rest) {
                Ok(sent) => drop(self.rest.split_to(sent)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // Closed by the broker.
                Err(_) => self.rest.clear(),
            }
        }
    }
}

fn fill_large_topic(broker: &Process) {
    let mut client = broker.client();
    client.create("large");
    let batch = BatchBuilder::new().push(None, Some(&[7; 1_000_000]), &[], now_ms());
    let batch = batch.finish().unwrap();
    for _ in 0..32 {
        assert_eq!(client.produce("large", batch.clone()).0, 0);
    }
}

#[test]
fn all_attacks_at_once_over_twenty_thousand_connections_stay_within_a_bound() {
    assert_eq!(MIXTURE.iter().map(|(_, part)| part).sum::<usize>(), 100);
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let allowed = allowed.saturating_sub(DESCRIPTORS_BESIDE) as usize;
    let crowd = CONNECTIONS.min(allowed) - 10;
    raise_descriptor_limit(crowd);
    let dir = tempfile::tempdir().unwrap();
    let mut broker = warm(dir.path(), &[]);
    fill_large_topic(&broker);
    let mut client = broker.client();
    let mut attackers: Vec<Attacker> = Vec::with_capacity(crowd);
    while attackers.len() < crowd {
        let from = attackers.len();
        let some = from..crowd.min(from + QUEUE / 2);
        attackers.extend(some.map(|n| Attacker::connect(broker.address(), n)));
        attackers.iter_mut().for_each(Attacker::go_on);
        witness(&mut client);
    }
    let begun = Instant::now();
    let mut witnessed = 0;
    while begun.elapsed() < ATTACKED {
        attackers.iter_mut().for_each(Attacker::go_on);
        witness(&mut client);
        witnessed += 1;
    }
    let (peak, now) = (broker.resident_peak(), broker.resident());
    println!(
        "{crowd} connections, {} of them left: {} MiB at most, {} MiB at the end; served {witnessed} times beside them",
        connections(&broker),
        peak >> 20,
        now >> 20,
    );
    assert!(peak < RESIDENT_BYTES_MAX, "{} MiB", peak >> 20);
    drop(attackers);
    // What waits for memory is let go after half a minute.
    let gone = Instant::now() + Duration::from_secs(60);
    while connections(&broker) > 1 {
        assert!(Instant::now() < gone, "{} stay", connections(&broker));
        witness(&mut client);
    }
    witness(&mut client);
    assert_eq!(broker.metric("metaq_handler_panics_total"), 0);
    assert_eq!(broker.signal("-TERM").code(), Some(0));
}
