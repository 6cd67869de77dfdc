//! Members of groups whose coordinator says what each has: of a consumer group (KIP-848) its partitions, which it reads and
//! commits, of a streams group (KIP-1071) the tasks of a topology that has one part.

use std::collections::{BTreeMap, BTreeSet};

use metaq_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::streams_group_heartbeat_request::{Subtopology, TaskIds, Topology};
use metaq_protocol::messages::{
    ConsumerGroupHeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest,
    StreamsGroupHeartbeatRequest,
};
use uuid::Uuid;

use super::client::{NoAnswer, name, text};
use super::history::WORK;
use super::member::{Member, Said, Whim};
use super::work::{Item, SESSION_MS};

pub const CONSUMERS: &str = "workers";
pub const STREAMS: &str = "app";
const HEARTBEAT_MS: u64 = 120;
const REBALANCE_MS: i32 = 1500;
const LEAVE: i32 = -1;
/// Kafka's code: the commit was sent with an older epoch than the member has.
const STALE_MEMBER_EPOCH: i16 = 113;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Consumer,
    Streams,
}

/// What a heartbeat was answered.
struct Told {
    sent_ms: u64,
    code: i16,
    epoch: i32,
    items: Option<BTreeSet<Item>>,
}

/// See the module's documentation.
pub struct Owner {
    kind: Kind,
    member: Member,
    topic_id: Option<Uuid>,
    id: String,
    epoch: i32,
    has: BTreeSet<Item>,
    /// All is to be said, because an answer was lost, or what it has is another thing.
    says_all: bool,
    /// Where a consumer is in each partition that it knows the committed offset of.
    positions: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
}

impl Owner {
    pub fn new(kind: Kind, mut member: Member) -> Self {
        Self {
            kind,
            id: member.next_id(),
            member,
            topic_id: None,
            epoch: 0,
            has: BTreeSet::new(),
            says_all: true,
            positions: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    /// Takes part until everything is over.
    pub async fn run(mut self) {
        while !self.member.phase.is_over() {
            match self.member.whim().await {
                Whim::GoOn | Whim::BeAway => {}
                Whim::Crash => self.begin_anew(),
                Whim::Leave => {
                    self.member.work.gone(self.member.group, &self.id);
                    // Whether it is heard or not.
                    let _ = self.beat(LEAVE).await;
                    self.begin_anew();
                }
            }
            if self.take_part().await.is_err() {
                self.says_all = true;
            }
            self.member.pause(HEARTBEAT_MS).await;
        }
    }

    async fn take_part(&mut self) -> Result<(), NoAnswer> {
        if self.topic_id.is_none() {
            self.topic_id = Some(self.member.topic_id().await?);
        }
        // Clients commit whether a heartbeat is due or not.
        if self.kind == Kind::Consumer && self.member.random.one_in(4) {
            self.member.read(&mut self.positions).await;
            self.commit().await?;
        }
        let told = self.beat(self.epoch).await?;
        self.hear(told);
        if self.kind == Kind::Consumer {
            self.find_offsets().await?;
            self.member.read(&mut self.positions).await;
            self.commit().await?;
        }
        Ok(())
    }

    fn begin_anew(&mut self) {
        self.member.work.gone(self.member.group, &self.id);
        self.id = self.member.next_id();
        self.epoch = 0;
        self.has.clear();
        self.says_all = true;
        self.positions.clear();
        self.committed.clear();
    }

    async fn beat(&mut self, epoch: i32) -> Result<Told, NoAnswer> {
        match self.kind {
            Kind::Consumer => self.beat_of_consumer(epoch).await,
            Kind::Streams => self.beat_of_streams(epoch).await,
        }
    }

    async fn beat_of_consumer(&mut self, epoch: i32) -> Result<Told, NoAnswer> {
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(self.member.group_id())
            .with_member_id(text(&self.id))
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(-1);
        if self.says_all && epoch != LEAVE {
            let own = TopicPartitions::default()
                .with_topic_id(self.topic_id.unwrap_or_default())
                .with_partitions(self.has.iter().copied().collect());
            let own = (!self.has.is_empty()).then_some(own);
            request = request
                .with_rebalance_timeout_ms(REBALANCE_MS)
                .with_subscribed_topic_names(Some(vec![name(WORK)]))
                .with_topic_partitions(Some(own.into_iter().collect()));
        }
        let (sent_ms, told) = self.member.ask(1, &request).await?;
        let items = told.assignment.map(|assignment| {
            let topics = assignment.topic_partitions.into_iter();
            topics.flat_map(|topic| topic.partitions).collect()
        });
        Ok(Told {
            sent_ms,
            code: told.error_code,
            epoch: told.member_epoch,
            items,
        })
    }

    async fn beat_of_streams(&mut self, epoch: i32) -> Result<Told, NoAnswer> {
        let mut request = StreamsGroupHeartbeatRequest::default()
            .with_group_id(self.member.group_id())
            .with_member_id(text(&self.id))
            .with_member_epoch(epoch);
        if self.says_all && epoch != LEAVE {
            let tasks = TaskIds::default()
                .with_subtopology_id(text("0"))
                .with_partitions(self.has.iter().copied().collect());
            let tasks = (!self.has.is_empty()).then_some(tasks);
            request = request
                .with_rebalance_timeout_ms(REBALANCE_MS)
                .with_process_id(Some(text(&self.id)))
                .with_active_tasks(Some(tasks.into_iter().collect()))
                .with_standby_tasks(Some(Vec::new()))
                .with_warmup_tasks(Some(Vec::new()));
        }
        if epoch == 0 {
            let part = Subtopology::default()
                .with_subtopology_id(text("0"))
                .with_source_topics(vec![name(WORK)]);
            let topology = Topology::default().with_subtopologies(vec![part]);
            request = request.with_topology(Some(topology));
        }
        let (sent_ms, told) = self.member.ask(1, &request).await?;
        let items = told.active_tasks.map(|tasks| {
            let tasks = tasks.into_iter();
            tasks.flat_map(|task| task.partitions).collect()
        });
        Ok(Told {
            sent_ms,
            code: told.error_code,
            epoch: told.member_epoch,
            items,
        })
    }

    fn hear(&mut self, told: Told) {
        match self.member.said(told.code) {
            Said::Done => {}
            Said::Elsewhere => {
                self.says_all = true;
                return;
            }
            Said::NoMember => {
                let (id, epoch) = (&self.id, self.epoch);
                self.member
                    .note(|| format!("{id} in epoch {epoch} is none any more"));
                return self.begin_anew();
            }
            Said::Other(code) => {
                let what = format!("a heartbeat of {} is answered with {code}", self.id);
                return self.member.history.fail(what);
            }
        }
        if told.epoch < self.epoch {
            let what = format!("{}'s epoch {} is {} now", self.id, self.epoch, told.epoch);
            self.member.history.fail(what);
        }
        self.epoch = told.epoch;
        self.says_all = false;
        let group = self.member.group;
        let items = (told.sent_ms, told.items.as_ref());
        if !self.member.work.told(group, &self.id, items) {
            return self.begin_anew();
        }
        if let Some(items) = told.items {
            let (id, epoch) = (&self.id, self.epoch);
            self.member
                .note(|| format!("{id} in epoch {epoch} has {items:?}"));
            self.says_all = items != self.has;
            self.positions.retain(|item, _| items.contains(item));
            self.committed.retain(|item, _| items.contains(item));
            self.has = items;
        }
    }

    /// Where to go on in partitions that are new.
    async fn find_offsets(&mut self) -> Result<(), NoAnswer> {
        let known = |item: &&i32| !self.positions.contains_key(*item);
        let wanted: Vec<i32> = self.has.iter().filter(known).copied().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let at_least: BTreeMap<i32, i64> = wanted
            .iter()
            .map(|item| (*item, self.member.work.last_commit(CONSUMERS, *item)))
            .collect();
        let topic = OffsetFetchRequestTopics::default()
            .with_name(name(WORK))
            .with_partition_indexes(wanted);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(self.member.group_id())
            .with_member_id(Some(text(&self.id)))
            .with_member_epoch(self.epoch)
            .with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default()
            .with_groups(vec![group])
            .with_require_stable(true);
        let (_, found) = self.member.ask(9, &request).await?;
        let group = &found.groups[0];
        if group.error_code == STALE_MEMBER_EPOCH {
            return Ok(());
        }
        match self.member.said(group.error_code) {
            Said::Done => {}
            Said::NoMember => {
                self.begin_anew();
                return Ok(());
            }
            Said::Elsewhere => return Ok(()),
            Said::Other(code) => {
                self.member
                    .history
                    .fail(format!("OffsetFetch is answered with {code}"));
                return Ok(());
            }
        }
        for partition in &group.topics[0].partitions {
            let index = partition.partition_index;
            let work = &self.member.work;
            work.found(
                (CONSUMERS, index),
                at_least[&index],
                partition.committed_offset,
            );
            let offset = partition.committed_offset.max(0);
            self.positions.insert(index, offset);
            self.committed.insert(index, offset);
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), NoAnswer> {
        let is_new = |(item, offset): &(&i32, &i64)| self.committed.get(*item) != Some(*offset);
        let more: Vec<(i32, i64)> = self
            .positions
            .iter()
            .filter(is_new)
            .map(|(item, offset)| (*item, *offset))
            .collect();
        if more.is_empty() {
            return Ok(());
        }
        let partitions = more.iter().map(|(item, offset)| {
            self.member.work.committing(CONSUMERS, *item, *offset);
            OffsetCommitRequestPartition::default()
                .with_partition_index(*item)
                .with_committed_offset(*offset)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name(WORK))
            .with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(self.member.group_id())
            .with_member_id(text(&self.id))
            .with_generation_id_or_member_epoch(self.epoch)
            .with_topics(vec![topic]);
        let (sent_ms, stored) = self.member.ask(9, &request).await?;
        for partition in &stored.topics[0].partitions {
            let index = partition.partition_index;
            match self.member.said(partition.error_code) {
                Said::Done => {
                    let offset = self.positions[&index];
                    let work = &self.member.work;
                    work.committed_by(CONSUMERS, &self.id, (index, sent_ms));
                    work.committed(CONSUMERS, index, offset);
                    self.committed.insert(index, offset);
                }
                Said::Elsewhere => {}
                Said::NoMember => {
                    self.begin_anew();
                    return Ok(());
                }
                Said::Other(STALE_MEMBER_EPOCH) => {}
                Said::Other(code) => {
                    self.member
                        .note(|| format!("a commit is answered with {code}"));
                }
            }
        }
        Ok(())
    }
}

/// Longer than a member is given to give something up, so that it is thrown out for silence first.
const _: () = assert!(REBALANCE_MS as u64 > SESSION_MS);
