//! A member of the group: joins, takes what the leader gives it, reads on from what is committed, commits, leaves now
//! and then, and sometimes is away for so long that others take over.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use metaq_protocol::batch::{BATCH_HEADER_BYTES, Batches, verify_crc};
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::leave_group_request::MemberIdentity;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use metaq_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use metaq_protocol::messages::{
    FetchRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use metaq_protocol::protocol::Request;
use metaq_protocol::records::Records;
use tokio::time::Instant;

use super::client::{NoAnswer, name, text};
use super::history::{CACHED, History, Number, PLACES, Place, SYNCED, WORK};
use super::random::Random;
use super::router::{Brokers, Router, now_ms};
use super::world::Phase;

pub const GROUP: &str = "g";
const ANSWER_MAX: Duration = Duration::from_millis(700);
/// Among several brokers, for one of them.
const FETCH_MAX: Duration = Duration::from_millis(300);
/// Joining waits for the others.
const JOIN_MAX: Duration = Duration::from_millis(3000);
pub const SESSION_MS: i32 = 800;
const REBALANCE_MS: i32 = 1200;
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Kafka's codes.
const OFFSET_OUT_OF_RANGE: i16 = 1;
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

pub struct Consumer {
    router: Router,
    history: History,
    phase: Phase,
    random: Random,
    member_id: String,
    generation: i32,
    /// Next offset of each partition that it has.
    positions: BTreeMap<Place, i64>,
    /// How many commits it sent.
    commits: u64,
    /// Something was read since the last commit.
    is_behind: bool,
}

impl Consumer {
    pub fn new(
        name: &str,
        brokers: Brokers,
        history: History,
        phase: Phase,
        random: Random,
    ) -> Self {
        Self {
            router: Router::new(name, brokers),
            history,
            phase,
            random,
            member_id: String::new(),
            generation: -1,
            positions: BTreeMap::new(),
            commits: 0,
            is_behind: false,
        }
    }

    /// Consumes until everything is consumed.
    pub async fn run(mut self) {
        while !self.phase.is_over() {
            match self.take_part().await {
                Ok(()) => {}
                Err(NoAnswer) => self.router.disconnect(),
            }
            self.pause(100).await;
        }
    }

    async fn pause(&mut self, ms_max: u64) {
        let pause = self.random.below(ms_max);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Asks the coordinator.
    async fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, NoAnswer> {
        let coordinator = self.router.coordinator().await?;
        let client = self.router.client(coordinator);
        client.ask(version, request, limit).await
    }

    /// From joining to the end of the generation.
    async fn take_part(&mut self) -> Result<(), NoAnswer> {
        let Some(joined) = self.join().await? else {
            return Ok(());
        };
        let Some(places) = self.sync(&joined).await? else {
            return Ok(());
        };
        let member = (&*self.member_id, &*joined.leader);
        self.history.assigned(self.generation, member, &places);
        self.find_positions(&places).await?;
        self.consume().await;
        Ok(())
    }

    async fn join(&mut self) -> Result<Option<JoinGroupResponse>, NoAnswer> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("any"))
            .with_metadata(subscription(&[SYNCED, CACHED]));
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_member_id(text(&self.member_id))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = self.ask(5, &request, JOIN_MAX).await?;
        match joined.error_code {
            0 => {
                self.member_id = joined.member_id.to_string();
                self.generation = joined.generation_id;
                self.history.heard(&self.member_id);
                return Ok(Some(joined));
            }
            MEMBER_ID_REQUIRED => self.member_id = joined.member_id.to_string(),
            UNKNOWN_MEMBER => self.member_id.clear(),
            code => self.router.told_of_coordinator(code),
        }
        Ok(None)
    }

    async fn sync(&mut self, joined: &JoinGroupResponse) -> Result<Option<Vec<Place>>, NoAnswer> {
        let members = joined.members.iter();
        let members: Vec<_> = members.map(|member| member.member_id.clone()).collect();
        let turn = self.random.below(100) as usize;
        let assignment = |(n, member): (usize, &metaq_protocol::protocol::StrBytes)| {
            let places = PLACES.iter().enumerate();
            let own = places.filter(|(at, _)| (at + turn) % members.len() == n);
            let own: Vec<Place> = own.map(|(_, place)| *place).collect();
            SyncGroupRequestAssignment::default()
                .with_member_id(member.clone())
                .with_assignment(assignment(&own))
        };
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member_id))
            .with_assignments(members.iter().enumerate().map(assignment).collect());
        let synced = self.ask(3, &request, JOIN_MAX).await?;
        match synced.error_code {
            0 => {
                self.history.heard(&self.member_id);
                return Ok(Some(assigned(&synced.assignment)));
            }
            UNKNOWN_MEMBER => self.member_id.clear(),
            code => self.router.told_of_coordinator(code),
        }
        Ok(None)
    }

    async fn find_positions(&mut self, places: &[Place]) -> Result<(), NoAnswer> {
        let topics = by_topic(places.iter().map(|place| (*place, ())));
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetFetchRequestTopic::default()
                .with_name(name(topic))
                .with_partition_indexes(partitions.into_iter().map(|(index, ())| index).collect())
        });
        let request = OffsetFetchRequest::default()
            .with_group_id(group())
            .with_topics(Some(topics.collect()));
        let known: Vec<_> = places
            .iter()
            .map(|place| self.history.last_commit(*place))
            .collect();
        let response = self.ask(5, &request, ANSWER_MAX).await?;
        if response.error_code != 0 {
            return Err(NoAnswer);
        }
        self.positions.clear();
        for topic in &response.topics {
            for partition in &topic.partitions {
                let place = place_of(&topic.name, partition.partition_index);
                let at = places.iter().position(|asked| *asked == place);
                let (Some(at), 0) = (at, partition.error_code) else {
                    return Err(NoAnswer);
                };
                let offset = partition.committed_offset;
                self.history.found_committed(place, known[at], offset);
                self.positions.insert(place, offset.max(0));
            }
        }
        Ok(())
    }

    async fn consume(&mut self) {
        let mut heard = Instant::now();
        while !self.phase.is_over() {
            let goes_on = self.turn(&mut heard).await.unwrap_or_else(|NoAnswer| {
                self.router.disconnect();
                true
            });
            if !goes_on {
                return;
            }
            self.pause(40).await;
        }
    }

    /// Whether it is still a member of its generation.
    async fn turn(&mut self, heard: &mut Instant) -> Result<bool, NoAnswer> {
        if !self.phase.is_healing() {
            if self.random.one_in(60) {
                return self.leave().await;
            }
            if self.random.one_in(60) {
                // As if its process had been stopped.
                self.pause(2500).await;
                if self.random.one_in(2) {
                    return self.commit().await;
                }
            }
        }
        if heard.elapsed() >= HEARTBEAT {
            *heard = Instant::now();
            if !self.heartbeat().await? {
                return Ok(false);
            }
        }
        if !self.positions.is_empty() {
            self.fetch().await?;
        }
        match self.is_behind && self.random.one_in(3) {
            true => self.commit().await,
            false => Ok(true),
        }
    }

    /// What an answer's code means for the membership.
    fn goes_on(&mut self, code: i16) -> bool {
        self.router.told_of_coordinator(code);
        match code {
            UNKNOWN_MEMBER => {
                self.member_id.clear();
                false
            }
            ILLEGAL_GENERATION | REBALANCE => false,
            _ => true,
        }
    }

    async fn leave(&mut self) -> Result<bool, NoAnswer> {
        let member = MemberIdentity::default().with_member_id(text(&self.member_id));
        let request = LeaveGroupRequest::default()
            .with_group_id(group())
            .with_members(vec![member]);
        self.history.leaving(&self.member_id);
        self.member_id.clear();
        self.ask(3, &request, ANSWER_MAX).await?;
        self.pause(500).await;
        Ok(false)
    }

    async fn heartbeat(&mut self) -> Result<bool, NoAnswer> {
        let request = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member_id));
        let code = self.ask(3, &request, ANSWER_MAX).await?.error_code;
        if code == REBALANCE && self.is_behind {
            self.commit().await?;
        }
        if matches!(code, 0 | REBALANCE | ILLEGAL_GENERATION) {
            self.history.heard(&self.member_id);
        }
        Ok(self.goes_on(code))
    }

    async fn commit(&mut self) -> Result<bool, NoAnswer> {
        self.commits += 1;
        let order = (self.generation, self.commits);
        let sent: BTreeMap<Place, usize> = self
            .positions
            .iter()
            .map(|(place, at)| (*place, self.history.committing(*place, order, *at)))
            .collect();
        let topics = by_topic(self.positions.iter().map(|(place, at)| (*place, *at)));
        let topics = topics.into_iter().map(|(topic, partitions)| {
            let partition = |(index, offset)| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(offset)
            };
            OffsetCommitRequestTopic::default()
                .with_name(name(topic))
                .with_partitions(partitions.into_iter().map(partition).collect())
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.member_id))
            .with_topics(topics.collect());
        let (coordinator, asked_ms) = (self.router.coordinator().await?, now_ms());
        let client = self.router.client(coordinator);
        let response = client.ask(7, &request, ANSWER_MAX).await?;
        let mut goes_on = true;
        self.is_behind = false;
        for topic in &response.topics {
            for partition in &topic.partitions {
                let place = place_of(&topic.name, partition.partition_index);
                self.history.committed(sent[&place], partition.error_code);
                if partition.error_code == 0 {
                    let history = &self.history;
                    self.router
                        .check_coordinator(history, coordinator, asked_ms);
                }
                self.is_behind |= partition.error_code != 0;
                goes_on &= self.goes_on(partition.error_code);
            }
        }
        Ok(goes_on)
    }

    /// Fetches from whoever leads what this member has.
    async fn fetch(&mut self) -> Result<(), NoAnswer> {
        if self.router.is_alone() {
            let places: Vec<Place> = self.positions.keys().copied().collect();
            return self.fetch_from(0, &places, ANSWER_MAX).await;
        }
        let places: Vec<Place> = self.positions.keys().copied().collect();
        let by_leader = self.router.by_leader(places.into_iter()).await;
        // The membership has nothing to do with it.
        for (leader, places) in by_leader.unwrap_or_default() {
            if let Err(NoAnswer) = self.fetch_from(leader, &places, FETCH_MAX).await {
                self.router.lose(leader);
            }
        }
        Ok(())
    }

    async fn fetch_from(
        &mut self,
        leader: usize,
        places: &[Place],
        limit: Duration,
    ) -> Result<(), NoAnswer> {
        let at = |place: &Place| {
            let epoch = self.router.epoch(*place);
            (*place, (self.positions[place], epoch))
        };
        let topics = by_topic(places.iter().map(at));
        let topics = topics.into_iter().map(|(topic, partitions)| {
            let partition = |(index, (offset, epoch))| {
                FetchPartition::default()
                    .with_partition(index)
                    .with_current_leader_epoch(epoch)
                    .with_fetch_offset(offset)
                    .with_partition_max_bytes(2000)
            };
            FetchTopic::default()
                .with_topic(name(topic))
                .with_partitions(partitions.into_iter().map(partition).collect())
        });
        let request = FetchRequest::default()
            .with_max_wait_ms(80)
            .with_min_bytes(1)
            .with_max_bytes(4000)
            .with_session_epoch(-1)
            .with_topics(topics.collect());
        let before: BTreeMap<Place, i64> = PLACES
            .iter()
            .map(|place| (*place, self.history.high_watermark(*place)))
            .collect();
        let power_losses = self.history.power_losses();
        // From version 11 on a follower may serve it, which may lag as long as it waits for an answer that a cut way has lost.
        let version = if self.history.has_replicas() { 10 } else { 11 };
        let response = self
            .router
            .client(leader)
            .ask(version, &request, limit)
            .await?;
        for topic in &response.responses {
            for partition in &topic.partitions {
                let place = place_of(&topic.topic, partition.partition_index);
                match partition.error_code {
                    0 => {
                        let records = partition.records.clone().unwrap_or_default();
                        let at = self.positions[&place];
                        let shown = self.read(place, at, &records);
                        let before = (before[&place], power_losses);
                        self.history
                            .shown(place, before, partition.high_watermark, &shown);
                        self.is_behind |= !shown.is_empty();
                        self.positions.insert(place, at + shown.len() as i64);
                    }
                    OFFSET_OUT_OF_RANGE => self.begin_anew(leader, place).await?,
                    code => self.router.told_of_leader(place, code),
                }
            }
        }
        Ok(())
    }

    /// The records from an offset on, one behind the other.
    fn read(&self, place: Place, from: i64, records: &Bytes) -> Vec<(i64, Number)> {
        let all = records_of(records).unwrap_or_else(|what| {
            self.history.fail(format!("{place:?} from {from}: {what}"));
            Vec::new()
        });
        let shown: Vec<_> = all.into_iter().filter(|(at, _)| *at >= from).collect();
        for (expected, (offset, _)) in (from..).zip(&shown) {
            if *offset != expected {
                self.history
                    .fail(format!("{place:?}: shown {offset} instead of {expected}"));
            }
        }
        shown
    }

    async fn begin_anew(&mut self, leader: usize, place: Place) -> Result<(), NoAnswer> {
        let at = self.positions[&place];
        self.history
            .note(|| format!("{place:?}: {at} is out of range"));
        if place.0 == SYNCED || self.history.power_losses() == 0 {
            self.history.fail(format!(
                "{place:?}: {at} is out of range, although nothing is lost"
            ));
        }
        let client = self.router.client(leader);
        let start = client.earliest(place, ANSWER_MAX).await?;
        self.positions.insert(place, start);
        Ok(())
    }
}

/// Offsets and numbers of the records in batches; an incomplete one ends them.
pub fn records_of(bytes: &Bytes) -> Result<Vec<(i64, Number)>, String> {
    let mut all = Vec::new();
    for batch in Batches::new(bytes) {
        let Ok((header, batch)) = batch else { break };
        if !verify_crc(batch) {
            return Err(format!("batch {} is damaged", header.base_offset));
        }
        for (n, record) in Records::new(&header, &batch[BATCH_HEADER_BYTES..]).enumerate() {
            let record = record.map_err(|error| error.to_string())?;
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            let mut words = value.split(' ');
            let mut number = || words.next()?.parse::<u64>().ok();
            let (Some(producer), Some(number)) = (number(), number()) else {
                return Err(format!("{value:?} was never sent"));
            };
            all.push((header.base_offset + n as i64, (producer as usize, number)));
        }
    }
    Ok(all)
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn place_of(topic: &str, partition: i32) -> Place {
    let topic = [SYNCED, WORK].into_iter().find(|known| *known == topic);
    (topic.unwrap_or(CACHED), partition)
}

fn by_topic<T>(places: impl Iterator<Item = (Place, T)>) -> BTreeMap<&'static str, Vec<(i32, T)>> {
    let mut topics: BTreeMap<&'static str, Vec<(i32, T)>> = BTreeMap::new();
    for ((topic, partition), with) in places {
        topics.entry(topic).or_default().push((partition, with));
    }
    topics
}

/// ConsumerProtocol's subscription, version 0: topics, user data.
pub fn subscription(topics: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        put_text(&mut out, topic);
    }
    out.put_i32(-1);
    out.freeze()
}

/// ConsumerProtocol's assignment, version 0: topics with partitions, user data.
pub fn assignment(places: &[Place]) -> Bytes {
    let mut out = BytesMut::new();
    let topics = by_topic(places.iter().map(|place| (*place, ())));
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for (topic, partitions) in topics {
        put_text(&mut out, topic);
        out.put_i32(partitions.len() as i32);
        partitions
            .iter()
            .for_each(|(index, ())| out.put_i32(*index));
    }
    out.put_i32(-1);
    out.freeze()
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

pub fn assigned(assignment: &[u8]) -> Vec<Place> {
    let topics = metaq::group::assigned_partitions(assignment).unwrap_or_default();
    let places = topics.iter().flat_map(|(topic, partitions)| {
        let place = |index: &i32| place_of(topic, *index);
        partitions.iter().map(place)
    });
    places.collect()
}
