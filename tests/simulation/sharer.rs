//! A member of a share group (KIP-932): it is given records, says of each that it is done, or gives it back, or says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metaq_protocol::messages::share_acknowledge_request::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch,
};
use metaq_protocol::messages::share_fetch_request::{FetchPartition, FetchTopic};
use metaq_protocol::messages::{
    ShareAcknowledgeRequest, ShareFetchRequest, ShareGroupHeartbeatRequest,
};
use uuid::Uuid;

use super::client::{NoAnswer, name, text};
use super::history::WORK;
use super::member::{Member, Said, Whim};
use super::router::now_ms;

pub const GROUP: &str = "tasks";
const HEARTBEAT_MS: u64 = 150;
const FETCH_MAX: Duration = Duration::from_millis(600);
const WAIT_MS: i32 = 50;
const LEAVE: i32 = -1;
/// What is said of a record.
const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;

/// Records that it was given, from the first to the last.
#[derive(Clone, Copy, Debug)]
struct Given {
    partition: i32,
    first: i64,
    last: i64,
}

/// See the module's documentation.
pub struct Sharer {
    member: Member,
    topic_id: Option<Uuid>,
    id: String,
    epoch: i32,
    /// The partitions that it was told to read. What others have not been told of may begin anew.
    assigned: BTreeSet<i32>,
    /// The next epoch of the session with each broker.
    sessions: BTreeMap<usize, i32>,
}

impl Sharer {
    pub fn new(mut member: Member) -> Self {
        Self {
            id: member.next_id(),
            member,
            topic_id: None,
            epoch: 0,
            assigned: BTreeSet::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// Takes part until everything is over.
    pub async fn run(mut self) {
        while !self.member.phase.is_over() {
            match self.member.whim().await {
                Whim::GoOn | Whim::BeAway => {}
                Whim::Crash => self.begin_anew(),
                Whim::Leave => {
                    // Whether it is heard or not.
                    let _ = self.beat(LEAVE).await;
                    self.begin_anew();
                }
            }
            // It says all each time, so there is nothing to remember of an answer that was lost.
            let _ = self.take_part().await;
            self.member.pause(HEARTBEAT_MS).await;
        }
    }

    fn begin_anew(&mut self) {
        self.id = self.member.next_id();
        self.epoch = 0;
        self.assigned.clear();
        self.sessions.clear();
    }

    async fn take_part(&mut self) -> Result<(), NoAnswer> {
        if self.topic_id.is_none() {
            self.topic_id = Some(self.member.topic_id().await?);
        }
        let (code, epoch) = self.beat(self.epoch).await?;
        match self.member.said(code) {
            Said::Done => {}
            Said::Elsewhere => return Ok(()),
            Said::NoMember => {
                self.begin_anew();
                return Ok(());
            }
            Said::Other(code) => {
                let what = format!("a heartbeat of {} is answered with {code}", self.id);
                self.member.history.fail(what);
            }
        }
        if epoch < self.epoch {
            let what = format!("{}'s epoch {} is {epoch} now", self.id, self.epoch);
            self.member.history.fail(what);
        }
        self.epoch = epoch;
        let places = self.assigned.iter().map(|index| (WORK, *index));
        let by_leader = self.member.router.by_leader(places).await?;
        for (leader, places) in by_leader {
            let indexes: Vec<i32> = places.iter().map(|place| place.1).collect();
            if self.work_with(leader, &indexes).await.is_err() {
                self.sessions.remove(&leader);
                self.member.router.lose(leader);
            }
        }
        Ok(())
    }

    /// Error code and epoch.
    async fn beat(&mut self, epoch: i32) -> Result<(i16, i32), NoAnswer> {
        let request = ShareGroupHeartbeatRequest::default()
            .with_group_id(self.member.group_id())
            .with_member_id(text(&self.id))
            .with_member_epoch(epoch)
            .with_subscribed_topic_names((epoch != LEAVE).then(|| vec![name(WORK)]));
        let (_, told) = self.member.ask(1, &request).await?;
        if let Some(assignment) = told.assignment {
            let topics = assignment.topic_partitions.into_iter();
            self.assigned = topics.flat_map(|topic| topic.partitions).collect();
        }
        Ok((told.error_code, told.member_epoch))
    }

    async fn work_with(&mut self, leader: usize, indexes: &[i32]) -> Result<(), NoAnswer> {
        let given = self.fetch(leader, indexes).await?;
        if given.is_empty() || self.member.random.one_in(12) {
            return Ok(());
        }
        self.member.pause(100).await;
        self.acknowledge(leader, &given).await
    }

    /// The epoch that the next request of a session has.
    fn session_epoch(&mut self, leader: usize) -> i32 {
        let next = self.sessions.entry(leader).or_insert(0);
        let epoch = *next;
        *next += 1;
        epoch
    }

    async fn fetch(&mut self, leader: usize, indexes: &[i32]) -> Result<Vec<Given>, NoAnswer> {
        let partition = |index: &i32| FetchPartition::default().with_partition_index(*index);
        let topic = FetchTopic::default()
            .with_topic_id(self.topic_id.unwrap_or_default())
            .with_partitions(indexes.iter().map(partition).collect());
        let request = ShareFetchRequest::default()
            .with_group_id(Some(self.member.group_id()))
            .with_member_id(Some(text(&self.id)))
            .with_share_session_epoch(self.session_epoch(leader))
            .with_max_wait_ms(WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_max_records(20)
            .with_batch_size(20)
            .with_topics(vec![topic]);
        let sent_ms = now_ms();
        let client = self.member.router.client(leader);
        let told = client.ask(2, &request, FETCH_MAX).await?;
        if told.error_code != 0 {
            let (id, code) = (&self.id, told.error_code);
            self.member
                .note(|| format!("{id}: ShareFetch from {leader}: {code}"));
            self.sessions.remove(&leader);
            return Ok(Vec::new());
        }
        let mut given = Vec::new();
        for partition in told.responses.iter().flat_map(|topic| &topic.partitions) {
            let index = partition.partition_index;
            let place = (WORK, index);
            self.member
                .router
                .told_of_leader(place, partition.error_code);
            for part in &partition.acquired_records {
                let (first, last) = (part.first_offset, part.last_offset);
                for offset in first..=last {
                    let count = part.delivery_count;
                    self.member.work.delivered((index, offset), sent_ms, count);
                }
                given.push(Given {
                    partition: index,
                    first,
                    last,
                });
            }
        }
        self.member
            .note(|| format!("{} is given {given:?}", self.id));
        Ok(given)
    }

    async fn acknowledge(&mut self, leader: usize, given: &[Given]) -> Result<(), NoAnswer> {
        let types: Vec<i8> = given
            .iter()
            .map(|_| match self.member.random.one_in(8) {
                true => RELEASE,
                false => ACCEPT,
            })
            .collect();
        for (given, _) in given
            .iter()
            .zip(&types)
            .filter(|(_, kind)| **kind == ACCEPT)
        {
            (given.first..=given.last)
                .for_each(|offset| self.member.work.accepting(given.partition, offset));
        }
        let partitions = given.iter().zip(&types).map(|(given, kind)| {
            let said = AcknowledgementBatch::default()
                .with_first_offset(given.first)
                .with_last_offset(given.last)
                .with_acknowledge_types(vec![*kind]);
            (given.partition, said)
        });
        let mut by_partition: BTreeMap<i32, Vec<AcknowledgementBatch>> = BTreeMap::new();
        for (partition, said) in partitions {
            by_partition.entry(partition).or_default().push(said);
        }
        let partitions = by_partition.into_iter().map(|(partition, said)| {
            AcknowledgePartition::default()
                .with_partition_index(partition)
                .with_acknowledgement_batches(said)
        });
        let topic = AcknowledgeTopic::default()
            .with_topic_id(self.topic_id.unwrap_or_default())
            .with_partitions(partitions.collect());
        let request = ShareAcknowledgeRequest::default()
            .with_group_id(Some(self.member.group_id()))
            .with_member_id(Some(text(&self.id)))
            .with_share_session_epoch(self.session_epoch(leader))
            .with_topics(vec![topic]);
        let client = self.member.router.client(leader);
        let told = client.ask(2, &request, FETCH_MAX).await?;
        if told.error_code != 0 {
            self.sessions.remove(&leader);
            return Ok(());
        }
        for partition in told.responses.iter().flat_map(|topic| &topic.partitions) {
            let index = partition.partition_index;
            if partition.error_code != 0 {
                let (id, code) = (&self.id, partition.error_code);
                self.member
                    .note(|| format!("{id}: ShareAcknowledge of {index}: {code}"));
                continue;
            }
            let of = given.iter().zip(&types);
            let accepted = of.filter(|(given, kind)| given.partition == index && **kind == ACCEPT);
            for (given, _) in accepted {
                (given.first..=given.last)
                    .for_each(|offset| self.member.work.accepted(index, offset));
            }
        }
        Ok(())
    }
}
