//! A producer that pipelines, members of a group, and the book of what each of them did with each partition: who owned it, and in which
//! order it was read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metaq_protocol::batch::{BatchBuilder, Batches};
use metaq_protocol::frame;
use metaq_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::{
    ConsumerGroupHeartbeatRequest, FetchRequest, FindCoordinatorRequest, GroupId,
    InitProducerIdRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    ProduceRequest, ProducerId,
};
use metaq_protocol::protocol::{Request, StrBytes};
use metaq_protocol::records::Records;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::common::{name, now_ms};

const NOT_COORDINATOR: i16 = 16;
const DUPLICATE_SEQUENCE: i16 = 46;
const STALE_MEMBER_EPOCH: i16 = 113;
/// Requests of a producer that are under way at a time.
const IN_FLIGHT_MAX: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A connection that may break.
struct Link(TcpStream);

impl Link {
    fn to(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        let frame = frame::encode_request(version, 1, "ordered", request);
        self.0.write_all(&frame.map_err(io::Error::other)?)
    }

    fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer)?;
        let decoded = frame::decode_response::<R>(version, answer.into());
        Ok(decoded.map_err(io::Error::other)?.1)
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.send(version, request)?;
        self.receive::<R>(version)
    }
}

/// Where the brokers of a cluster are.
#[derive(Clone)]
pub struct Addresses(BTreeMap<i32, String>);

impl Addresses {
    pub fn of(cluster: &Cluster) -> Self {
        let nodes = cluster.nodes.iter();
        Self(nodes.map(|node| (node.id, node.address())).collect())
    }

    /// What the first broker says that answers and knows it.
    fn first<T>(&self, ask: impl Fn(&mut Link) -> io::Result<Option<T>>) -> Option<T> {
        self.0.values().find_map(|address| {
            let mut link = Link::to(address).ok()?;
            ask(&mut link).ok().flatten()
        })
    }

    fn to(&self, id: i32) -> Option<Link> {
        Link::to(self.0.get(&id)?).ok()
    }

    fn leader(&self, topic: &str, partition: i32) -> Option<Link> {
        let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let leader = self.first(|link| {
            let metadata = link.ask(9, &request)?;
            let mut partitions = metadata.topics[0].partitions.iter();
            let found = partitions.find(|found| found.partition_index == partition);
            Ok(found.map(|found| found.leader_id.0).filter(|id| *id >= 0))
        });
        self.to(leader?)
    }

    fn coordinator(&self, group: &str) -> Option<Link> {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        let found = self.first(|link| {
            let found = link.ask(4, &request)?.coordinators.remove(0);
            Ok((found.error_code == 0).then_some(found.node_id.0))
        });
        self.to(found?)
    }
}

/// The `n`-th record of a partition says so.
fn value(n: usize) -> String {
    n.to_string()
}

pub fn record(
    topic: &str,
    partition: i32,
    n: usize,
    acks: i16,
    producer: Option<i64>,
) -> ProduceRequest {
    let builder = match producer {
        Some(id) => BatchBuilder::new().producer(id, 0, n as i32),
        None => BatchBuilder::new(),
    };
    let builder = builder.push(None, Some(value(n).as_bytes()), &[], now_ms());
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(builder.finish().unwrap()));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(5_000)
        .with_topic_data(vec![topic])
}

/// Sends records to a partition, numbered from 0, as an idempotent producer with several requests under way: after an error or a broken
/// connection it sends again, in order, what was not acknowledged. Until it is told to stop, and all that it sent is acknowledged; or to
/// give up.
pub fn produce_in_order(
    addresses: &Addresses,
    topic: &str,
    partition: i32,
    (stop, give_up): (&AtomicBool, &AtomicBool),
    acknowledged: &Mutex<usize>,
) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let made = addresses.first(|link| {
        let made = link.ask(4, &request)?;
        Ok((made.error_code == 0).then_some(made.producer_id.0))
    });
    let producer = Some(made.expect("all brokers are there when it begins"));
    let (mut acked, mut sent_max) = (0, 0);
    let mut link = None;
    while !give_up.load(Ordering::SeqCst) {
        let Some(open) = link.as_mut() else {
            std::thread::sleep(PAUSE);
            let leader = addresses.leader(topic, partition);
            link = leader.map(|leader| (leader, acked));
            continue;
        };
        let (leader, sent) = open;
        let may_send = |sent: usize| sent < sent_max || !stop.load(Ordering::SeqCst);
        let mut works = true;
        while works && *sent < acked + IN_FLIGHT_MAX && may_send(*sent) {
            let request = record(topic, partition, *sent, -1, producer);
            works = leader.send(9, &request).is_ok();
            *sent += 1;
        }
        sent_max = sent_max.max(*sent);
        if works && *sent == acked {
            return;
        }
        let answered = leader.receive::<ProduceRequest>(9);
        let code = answered.map(|answer| answer.responses[0].partition_responses[0].error_code);
        match code {
            Ok(0 | DUPLICATE_SEQUENCE) if works => {
                acked += 1;
                *acknowledged.lock() = acked;
            }
            _ => link = None,
        }
    }
}

/// Everything that a partition has from an offset on, as numbers, with the offset behind it.
fn fetch(
    link: &mut Link,
    topic: &str,
    partition: i32,
    offset: i64,
) -> io::Result<(Vec<usize>, i64)> {
    let asked = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(16 << 10);
    let asked = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![asked]);
    let request = FetchRequest::default()
        .with_max_wait_ms(50)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![asked]);
    let answer = link.ask(11, &request)?;
    let found = &answer.responses[0].partitions[0];
    if found.error_code != 0 {
        return Err(io::Error::other(format!("fetch: {}", found.error_code)));
    }
    let (mut numbers, mut next) = (Vec::new(), offset);
    let bytes = found.records.clone().unwrap_or_default();
    for (header, batch) in Batches::new(&bytes).map_while(Result::ok) {
        next = header.last_offset() + 1;
        for record in Records::new(&header, &batch[61..]) {
            let value = record.unwrap().value.unwrap();
            numbers.push(std::str::from_utf8(value).unwrap().parse().unwrap());
        }
    }
    Ok((numbers, next))
}

/// All that a partition has, in its order.
pub fn read_all(addresses: &Addresses, topic: &str, partition: i32) -> Vec<usize> {
    let mut link = addresses.leader(topic, partition).unwrap();
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let (numbers, next) = fetch(&mut link, topic, partition, offset).unwrap();
        if next == offset {
            return all;
        }
        all.extend(numbers);
        offset = next;
    }
}

/// Who owns a partition, and how far it was read.
struct Owner {
    member: String,
    /// When it last told the coordinator that it is there.
    told: Instant,
    /// It knows that the coordinator does not count on it any more.
    is_out: bool,
    /// The number that it is to read next.
    next: usize,
}

/// The book of a group. Each entry checks what is promised.
pub struct Book {
    session_timeout: Duration,
    owners: Mutex<BTreeMap<i32, Owner>>,
    /// How far each partition was read by anybody.
    read: Mutex<BTreeMap<i32, usize>>,
    /// How often a partition got another owner.
    handovers: Mutex<usize>,
}

impl Book {
    pub fn new(session_timeout: Duration) -> Self {
        Self {
            session_timeout,
            owners: Mutex::default(),
            read: Mutex::default(),
            handovers: Mutex::default(),
        }
    }

    pub fn read(&self, partition: i32) -> usize {
        self.read.lock().get(&partition).copied().unwrap_or(0)
    }

    pub fn handovers(&self) -> usize {
        *self.handovers.lock()
    }

    pub fn owned_by(&self, member: &str) -> usize {
        let owners = self.owners.lock();
        let owned = owners.values().filter(|owner| owner.member == member);
        owned.count()
    }

    /// A member tells the coordinator that it is there.
    fn tells(&self, member: &str, when: Instant) {
        let mut owners = self.owners.lock();
        for owner in owners.values_mut().filter(|owner| owner.member == member) {
            owner.told = when;
        }
    }

    /// A member is given a partition, and begins to read at a number. Who had it before gave it up, having committed all that it read, or
    /// its session is over.
    fn gets(&self, partition: i32, member: &str, told: Instant, next: usize) {
        let mut owners = self.owners.lock();
        let read = self.read(partition);
        match owners.get(&partition) {
            Some(owner) => {
                let silent = owner.told.elapsed();
                assert!(
                    owner.is_out || silent >= self.session_timeout,
                    "{partition} is {}'s, which told so {silent:?} ago, and {member}'s",
                    owner.member
                );
                assert!(next <= read, "{partition}: {next} follows {read}");
            }
            None => assert_eq!(next, read, "{partition} given up by who had it before"),
        }
        let owner = Owner {
            member: member.to_owned(),
            told,
            is_out: false,
            next,
        };
        owners.insert(partition, owner);
        *self.handovers.lock() += 1;
    }

    /// A member reads a record of a partition: the one that comes next, unless the partition is another one's by now.
    fn reads(&self, partition: i32, member: &str, number: usize) -> bool {
        let mut owners = self.owners.lock();
        let owner = owners.get_mut(&partition);
        let Some(owner) = owner.filter(|owner| owner.member == member) else {
            return false;
        };
        assert_eq!(number, owner.next, "{partition} is read out of order");
        owner.next += 1;
        let mut read = self.read.lock();
        let read = read.entry(partition).or_insert(0);
        *read = owner.next.max(*read);
        true
    }

    /// A member gives a partition up, with all that it read committed or thrown out.
    fn gives_up(&self, partition: i32, member: &str, is_out: bool) {
        let mut owners = self.owners.lock();
        let owner = owners.get_mut(&partition);
        match owner.filter(|owner| owner.member == member) {
            Some(owner) if is_out => owner.is_out = true,
            Some(_) => drop(owners.remove(&partition)),
            None => {}
        }
    }
}

/// How a member ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is there.
    Not,
    /// It gives up what it has and leaves.
    Leaves,
    /// It is silent from now on.
    Dies,
}

/// A member of a group of the consumer protocol that reads one topic.
pub struct Member<'a> {
    pub id: String,
    pub group: &'a str,
    pub topic: (&'a str, Uuid),
    pub addresses: &'a Addresses,
    pub book: &'a Book,
    epoch: i32,
    owned: BTreeMap<i32, Position>,
    told: Instant,
    /// The partition that it has read something of and not committed it.
    uncommitted: Option<i32>,
    coordinator: Option<Link>,
}

/// Where it reads a partition.
struct Position {
    offset: i64,
    link: Option<Link>,
}

impl<'a> Member<'a> {
    pub fn new(
        id: &str,
        group: &'a str,
        topic: (&'a str, Uuid),
        addresses: &'a Addresses,
        book: &'a Book,
    ) -> Self {
        Self {
            id: id.to_owned(),
            group,
            topic,
            addresses,
            book,
            epoch: 0,
            owned: BTreeMap::new(),
            told: Instant::now(),
            uncommitted: None,
            coordinator: None,
        }
    }

    /// Reads until it is told how to end.
    pub fn run(mut self, end: &Mutex<End>) {
        loop {
            match *end.lock() {
                End::Not => {}
                End::Leaves => break,
                End::Dies => return,
            }
            if !self.beat() {
                self.coordinator = None;
                std::thread::sleep(PAUSE);
                continue;
            }
            let owned: Vec<i32> = self.owned.keys().copied().collect();
            for partition in owned {
                self.read(partition);
            }
            std::thread::sleep(PAUSE);
        }
        self.give_up(false, |_| true);
        self.epoch = -1;
        self.beat();
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        if self.coordinator.is_none() {
            self.coordinator = self.addresses.coordinator(self.group);
        }
        let answer = self.coordinator.as_mut()?.ask(version, request);
        if answer.is_err() {
            self.coordinator = None;
        }
        answer.ok()
    }

    fn give_up(&mut self, is_out: bool, is_meant: impl Fn(i32) -> bool) {
        let (book, id, uncommitted) = (self.book, &self.id, self.uncommitted);
        self.owned.retain(|partition, _| {
            let stays = !is_meant(*partition);
            if !stays {
                book.gives_up(*partition, id, is_out || uncommitted == Some(*partition));
            }
            stays
        });
    }

    /// Tells what it has, and takes what it is told; whether it is a member.
    fn beat(&mut self) -> bool {
        let owned = TopicPartitions::default()
            .with_topic_id(self.topic.1)
            .with_partitions(self.owned.keys().copied().collect());
        let owned = match self.owned.is_empty() {
            true => Vec::new(),
            false => vec![owned],
        };
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(self.group)))
            .with_member_id(text(&self.id))
            .with_member_epoch(self.epoch)
            .with_rebalance_timeout_ms(30_000)
            .with_subscribed_topic_names(Some(vec![name(self.topic.0)]))
            .with_topic_partitions(Some(owned));
        let told = Instant::now();
        let Some(answer) = self.ask(1, &request) else {
            return false;
        };
        match answer.error_code {
            0 => {}
            14..=NOT_COORDINATOR => return false,
            // It was thrown out, or is not known: it has nothing any more, and joins anew.
            _ => {
                self.give_up(true, |_| true);
                self.epoch = 0;
                return false;
            }
        }
        self.book.tells(&self.id, told);
        (self.epoch, self.told) = (answer.member_epoch, told);
        if let Some(assigned) = answer.assignment {
            let assigned = assigned.topic_partitions.into_iter();
            let assigned: BTreeSet<i32> = assigned.flat_map(|topic| topic.partitions).collect();
            self.give_up(false, |partition| !assigned.contains(&partition));
            for partition in assigned {
                if !self.owned.contains_key(&partition) {
                    self.begin(partition);
                }
            }
        }
        true
    }

    fn begin(&mut self, partition: i32) {
        let asked = OffsetFetchRequestTopics::default()
            .with_name(name(self.topic.0))
            .with_partition_indexes(vec![partition]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(self.group)))
            .with_topics(Some(vec![asked]));
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        let offset = loop {
            let answer = self.ask(8, &request);
            let group = answer.as_ref().map(|answer| &answer.groups[0]);
            if let Some(group) = group.filter(|group| group.error_code == 0) {
                break group.topics[0].partitions[0].committed_offset.max(0);
            }
            self.coordinator = None;
            std::thread::sleep(PAUSE);
        };
        // Records are numbered as their offsets: there is nothing else in these logs.
        let next = offset as usize;
        self.book.gets(partition, &self.id, self.told, next);
        let position = Position { offset, link: None };
        self.owned.insert(partition, position);
    }

    fn read(&mut self, partition: i32) {
        let Some(position) = self.owned.get_mut(&partition) else {
            return;
        };
        if position.link.is_none() {
            position.link = self.addresses.leader(self.topic.0, partition);
        }
        let Some(link) = &mut position.link else {
            return;
        };
        let Ok((numbers, next)) = fetch(link, self.topic.0, partition, position.offset) else {
            position.link = None;
            return;
        };
        position.offset = next;
        self.uncommitted = Some(partition);
        let is_its = numbers
            .iter()
            .all(|number| self.book.reads(partition, &self.id, *number));
        let counts = numbers.is_empty() || is_its && self.commit(partition, next);
        if !counts {
            self.give_up(true, |one| one == partition);
        }
        self.uncommitted = None;
    }

    /// Commits what it read, until it is told whether that counts.
    fn commit(&mut self, partition: i32, offset: i64) -> bool {
        let one = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("")));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name(self.topic.0))
            .with_partitions(vec![one]);
        loop {
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(text(self.group)))
                .with_generation_id_or_member_epoch(self.epoch)
                .with_member_id(text(&self.id))
                .with_topics(vec![topic.clone()]);
            let answer = self.ask(9, &request);
            match answer.map(|answer| answer.topics[0].partitions[0].error_code) {
                Some(0) => return true,
                None | Some(14..=NOT_COORDINATOR) => self.coordinator = None,
                // It has another epoch by an answer that was lost.
                Some(STALE_MEMBER_EPOCH) => {
                    self.beat();
                    if !self.owned.contains_key(&partition) {
                        return false;
                    }
                }
                Some(_) => return false,
            }
            std::thread::sleep(PAUSE);
        }
    }
}
