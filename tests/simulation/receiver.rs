//! A member of a broadcast group, with a classic client: it is to get everything, and go on where it was under its
//! `group.instance.id`, whatever becomes of the others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use metaq_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use metaq_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};

use super::client::{NoAnswer, name, text};
use super::consumer::{assigned, assignment, subscription};
use super::history::{Place, WORK, WORK_PLACES};
use super::member::{Member, Said, Whim};
use super::work::SESSION_MS;

pub const GROUP: &str = "everybody";
const PAUSE_MS: u64 = 120;
const ASSIGNOR: &str = "range";

/// See the module's documentation.
pub struct Receiver {
    member: Member,
    instance: String,
    member_id: String,
    generation: i32,
    positions: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
}

impl Receiver {
    pub fn new(instance: &str, member: Member) -> Self {
        Self {
            member,
            instance: instance.to_owned(),
            member_id: String::new(),
            generation: -1,
            positions: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    /// Takes part until everything is over.
    pub async fn run(mut self) {
        while !self.member.phase.is_over() {
            // A static member does not say that it leaves.
            if matches!(self.member.whim().await, Whim::Crash | Whim::Leave) {
                self.begin_anew();
            }
            if self.take_part().await.is_err() {
                // Offsets are told by the connection that it joined by.
                self.begin_anew();
            }
            self.member.pause(PAUSE_MS).await;
        }
    }

    fn begin_anew(&mut self) {
        self.member.router.disconnect();
        self.member_id.clear();
        self.generation = -1;
        self.positions.clear();
        self.committed.clear();
    }

    /// What an answer's code lets it do next; it goes on after success alone.
    fn goes_on(&mut self, what: &str, code: i16) -> bool {
        let said = self.member.said(code);
        if said != Said::Done {
            let instance = &self.instance;
            self.member.note(|| format!("{instance}: {what}: {said:?}"));
            self.begin_anew();
        }
        said == Said::Done
    }

    async fn take_part(&mut self) -> Result<(), NoAnswer> {
        if self.generation < 0 && !self.join().await? {
            return Ok(());
        }
        let beat = HeartbeatRequest::default()
            .with_group_id(self.member.group_id())
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(Some(text(&self.instance)));
        let (_, told) = self.member.ask(4, &beat).await?;
        if !self.goes_on("Heartbeat", told.error_code) {
            return Ok(());
        }
        self.member.read(&mut self.positions).await;
        self.commit().await
    }

    /// Joins, is assigned everything, and finds where it was; whether it goes on.
    async fn join(&mut self) -> Result<bool, NoAnswer> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(ASSIGNOR))
            .with_metadata(subscription(&[WORK]));
        let request = JoinGroupRequest::default()
            .with_group_id(self.member.group_id())
            .with_session_timeout_ms(SESSION_MS as i32)
            .with_rebalance_timeout_ms(SESSION_MS as i32)
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(Some(text(&self.instance)))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let (_, joined) = self.member.ask(5, &request).await?;
        if !self.goes_on("JoinGroup", joined.error_code) {
            return Ok(false);
        }
        let is_alone = joined.leader == joined.member_id && joined.members.len() == 1;
        if !is_alone {
            let what = format!("{} is not alone: {joined:?}", self.instance);
            self.member.history.fail(what);
        }
        self.member_id = joined.member_id.to_string();
        let everything: Bytes = assignment(&WORK_PLACES);
        let own = SyncGroupRequestAssignment::default()
            .with_member_id(text(&self.member_id))
            .with_assignment(everything);
        let request = SyncGroupRequest::default()
            .with_group_id(self.member.group_id())
            .with_generation_id(joined.generation_id)
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(Some(text(&self.instance)))
            .with_assignments(vec![own]);
        let (_, synced) = self.member.ask(3, &request).await?;
        if !self.goes_on("SyncGroup", synced.error_code) {
            return Ok(false);
        }
        let places: BTreeSet<Place> = assigned(&synced.assignment).into_iter().collect();
        if places != BTreeSet::from(WORK_PLACES) {
            let what = format!("{} is assigned {places:?}", self.instance);
            self.member.history.fail(what);
        }
        if !self.find_offsets().await? {
            return Ok(false);
        }
        self.generation = joined.generation_id;
        Ok(true)
    }

    async fn find_offsets(&mut self) -> Result<bool, NoAnswer> {
        let indexes: Vec<i32> = WORK_PLACES.iter().map(|place| place.1).collect();
        let at_least = indexes
            .iter()
            .map(|index| self.member.work.last_commit(&self.instance, *index));
        let at_least: Vec<i64> = at_least.collect();
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name(WORK))
            .with_partition_indexes(indexes);
        let request = OffsetFetchRequest::default()
            .with_group_id(self.member.group_id())
            .with_topics(Some(vec![topic]));
        let (_, found) = self.member.ask(5, &request).await?;
        if !self.goes_on("OffsetFetch", found.error_code) {
            return Ok(false);
        }
        for partition in &found.topics[0].partitions {
            let (index, offset) = (partition.partition_index, partition.committed_offset);
            let work = &self.member.work;
            work.found((&self.instance, index), at_least[index as usize], offset);
            self.positions.insert(index, offset.max(0));
            self.committed.insert(index, offset.max(0));
        }
        Ok(true)
    }

    async fn commit(&mut self) -> Result<(), NoAnswer> {
        if self.positions == self.committed {
            return Ok(());
        }
        let partitions = self.positions.iter().map(|(index, offset)| {
            self.member.work.committing(&self.instance, *index, *offset);
            OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(*offset)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name(WORK))
            .with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(self.member.group_id())
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(Some(text(&self.instance)))
            .with_generation_id_or_member_epoch(self.generation)
            .with_topics(vec![topic]);
        let (_, stored) = self.member.ask(7, &request).await?;
        for partition in &stored.topics[0].partitions {
            if !self.goes_on("OffsetCommit", partition.error_code) {
                return Ok(());
            }
            let index = partition.partition_index;
            let offset = self.positions[&index];
            self.member.work.committed(&self.instance, index, offset);
            self.committed.insert(index, offset);
        }
        Ok(())
    }
}
