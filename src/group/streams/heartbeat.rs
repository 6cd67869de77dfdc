//! Members of a streams group report (Kafka's GroupMetadataManager.streamsGroupHeartbeat and streamsGroupLeave).
//!
//! Tests: group/streams/tests.rs, group/streams/model.rs.

use super::endpoints;
use super::member::{MemberMetadata, MemberState, StreamsMember, TaskOffsets};
use super::messages::{OwnedLists, StreamsHeartbeat, StreamsReply};
use super::readiness::{Readiness, TopicToCreate};
use super::reconciliation::Reconciliation;
use super::settings::StreamsSettings;
use super::status::{Status, StatusCode};
use super::tasks::{AssignedTasks, OwnedTasks, TaskSet};
use super::{StreamsGroup, label};
use crate::coordinator::Topics;
use crate::group::member;
use crate::group::messages::{GroupError, Refusal};
use crate::group::reserved::Reserved;

/// A member that wants to be in the group, or again without what it had.
const JOIN: i32 = 0;
/// A member that leaves.
const LEAVE: i32 = -1;
/// A static member that leaves and will be back.
const LEAVE_FOR_A_WHILE: i32 = -2;
/// Members of older versions do not know the code.
const MISSING_TAGS_VERSION_MIN: i16 = 1;

fn refuse<T>(error: GroupError, message: impl Into<String>) -> Result<T, Refusal> {
    let message = message.into();
    Err(Refusal { error, message })
}

/// Who speaks.
enum Speaker {
    /// A member that is known, or a new one, of this id.
    Of(String),
    /// A static member that comes back under another id than this one.
    InsteadOf(String),
}

impl StreamsGroup {
    /// A heartbeat. The reply holds once everything that changed is stored.
    pub(in crate::group) fn heartbeat(
        &mut self,
        now_ms: i64,
        (group_id, beat): (&str, StreamsHeartbeat),
        settings: &StreamsSettings,
        topics: &dyn Topics,
    ) -> Result<StreamsReply, Refusal> {
        if matches!(beat.member_epoch, LEAVE | LEAVE_FOR_A_WHILE) {
            return self.leave(group_id, &beat);
        }
        self.check_room(&beat, settings)?;
        let speaker = self.speaker_of(group_id, &beat)?;
        self.check_share(&speaker, &beat)?;
        self.take_topology(&beat, topics)?;
        let invalid = |message| Refusal {
            error: GroupError::StreamsInvalidTopology,
            message,
        };
        if self.look_at_topics(topics).map_err(invalid)? {
            self.bump("", "topics of the application changed");
        }
        let owned = beat.owned.as_ref().map(owned);
        self.check_tasks(owned.as_ref())?;
        self.live(now_ms, (speaker, owned), beat, settings, topics)
    }

    /// The heartbeat of a member that is not refused any more.
    fn live(
        &mut self,
        now_ms: i64,
        (speaker, owned): (Speaker, Option<OwnedTasks>),
        mut beat: StreamsHeartbeat,
        settings: &StreamsSettings,
        topics: &dyn Topics,
    ) -> Result<StreamsReply, Refusal> {
        let joins = beat.member_epoch == JOIN;
        let was_empty = self.members.is_empty();
        let mut member = self.take_out(speaker, &beat.member_id);
        let endpoint = member.metadata.endpoint.clone();
        let metadata = said_by(&member.metadata, &mut beat);
        if metadata != member.metadata {
            let differs =
                metadata.instance_id.is_none() || metadata.differs_for_assignment(&member.metadata);
            member.metadata = metadata;
            match differs {
                true => self.bump(&label(&member), "a member joined, or is another one"),
                false => self.changed(),
            }
        }
        take_offsets(&mut member, &mut beat);
        let (member_id, before) = (member.id.clone(), member.assigned.clone());
        let is_lost = !joins && beat.member_epoch < member.epoch;
        self.put(member);
        let configs = settings.of_assignment();
        if configs != self.assignment_configs {
            self.assignment_configs = configs;
            // The first member has set a rebalance off already.
            if !was_empty {
                self.bump("", "the configuration of assignments changed");
            }
        }
        if was_empty && settings.initial_rebalance_delay_ms > 0 {
            let until_ms = now_ms + i64::from(settings.initial_rebalance_delay_ms);
            self.delayed_until_ms.get_or_insert(until_ms);
        }
        let delayed = self.make_target_if_due(now_ms, settings);
        self.reconcile(now_ms, &member_id, owned.as_ref());
        self.heard(now_ms, &member_id, settings);
        if beat.shuts_down {
            self.shutdown_by.get_or_insert(member_id.clone());
        }
        let Some(member) = self.members.get(&member_id) else {
            return Err(GroupError::UnknownMemberId.into());
        };
        let is_other = member.assigned != before;
        // Kafka does not repeat what it told; a client that did not hear it would have nothing to do.
        let knows = owned.is_none_or(|owned| owned.is_all_of(&member.assigned)) && !is_lost;
        let has_endpoint = member.metadata.endpoint.is_some();
        if member.metadata.endpoint != endpoint || is_other && has_endpoint {
            self.endpoint_epoch += 1;
        }
        let to_create = self.take_missing_topics(now_ms, settings);
        let reply = self.reply(
            (&member_id, joins || is_other || !knows),
            &beat,
            delayed,
            settings,
            topics,
        );
        Ok(StreamsReply { to_create, ..reply })
    }

    /// The topics that this member is to have made: those that are missing, unless another one is at it, or failed just now.
    fn take_missing_topics(
        &mut self,
        now_ms: i64,
        settings: &StreamsSettings,
    ) -> Vec<TopicToCreate> {
        let readiness = self.readiness.as_ref();
        let missing = readiness.map_or(&[][..], |found| &found.to_create);
        if missing.is_empty() || now_ms < self.create_again_ms {
            return Vec::new();
        }
        self.create_again_ms = now_ms + i64::from(settings.heartbeat_interval_ms);
        missing.to_vec()
    }

    fn leave(&mut self, group_id: &str, beat: &StreamsHeartbeat) -> Result<StreamsReply, Refusal> {
        let id = match &beat.instance_id {
            None => match self.members.contains_key(&beat.member_id) {
                true => beat.member_id.clone(),
                false => return unknown_member(group_id, &beat.member_id),
            },
            Some(instance) => self.own_instance(instance, &beat.member_id)?,
        };
        if beat.shuts_down {
            self.shutdown_by.get_or_insert(id.clone());
        }
        let is_for_a_while = beat.instance_id.is_some() && beat.member_epoch == LEAVE_FOR_A_WHILE;
        match is_for_a_while {
            true => self.leave_for_a_while(&id),
            false => self.fence(&id, "a member left"),
        }
        Ok(StreamsReply {
            member_id: id,
            member_epoch: beat.member_epoch,
            ..StreamsReply::default()
        })
    }

    /// What the member has waits for it, until its session ends.
    fn leave_for_a_while(&mut self, id: &str) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let before = (member.assigned.clone(), member.revoking.clone());
        member.epoch = LEAVE_FOR_A_WHILE;
        member.revoking = AssignedTasks::default();
        member.assigned.active.forget_epochs();
        member.revocation_deadline_ms = None;
        self.holders.change(
            id,
            [&before.0, &before.1],
            [&member.assigned, &member.revoking],
        );
        self.changed();
    }

    fn check_room(
        &self,
        beat: &StreamsHeartbeat,
        settings: &StreamsSettings,
    ) -> Result<(), Refusal> {
        let instance = beat.instance_id.as_ref();
        let is_known = self.members.contains_key(&beat.member_id)
            || instance.is_some_and(|instance| self.instances.contains_key(instance));
        if beat.member_epoch != JOIN || is_known || self.members.len() < settings.members_max {
            return Ok(());
        }
        let most = settings.members_max;
        refuse(
            GroupError::GroupMaxSizeReached,
            format!("The streams group has reached its maximum capacity of {most} members."),
        )
    }

    /// Whether what the member brings may be kept in the place of what it brought before.
    fn check_share(&self, speaker: &Speaker, beat: &StreamsHeartbeat) -> Result<(), Refusal> {
        let (Speaker::Of(id) | Speaker::InsteadOf(id)) = speaker;
        let before = self.members.get(id);
        let before = before.and_then(|member| member.reserved.member.as_ref());
        Ok(member::check_share(beat.reserved.member.as_ref(), before)?)
    }

    /// Who speaks, where they may.
    fn speaker_of(&self, group_id: &str, beat: &StreamsHeartbeat) -> Result<Speaker, Refusal> {
        let joins = beat.member_epoch == JOIN;
        let own = || Ok(Speaker::Of(beat.member_id.clone()));
        let Some(instance) = &beat.instance_id else {
            return match self.members.get(&beat.member_id) {
                Some(member) => check_epoch(member, beat).and_then(|()| own()),
                None if joins => own(),
                None => unknown_member(group_id, &beat.member_id),
            };
        };
        if !joins {
            let id = self.own_instance(instance, &beat.member_id)?;
            if let Some(member) = self.members.get(&id) {
                check_epoch(member, beat)?;
            }
            return own();
        }
        let known = self.instances.get(instance);
        let Some(member) = known.and_then(|id| self.members.get(id)) else {
            return own();
        };
        if member.epoch != LEAVE_FOR_A_WHILE {
            let (new, old) = (&beat.member_id, &member.id);
            return refuse(
                GroupError::UnreleasedInstanceId,
                format!(
                    "Static member {new} with instance id {instance} cannot join the group because the instance id is owned by {old} member."
                ),
            );
        }
        Ok(Speaker::InsteadOf(member.id.clone()))
    }

    /// The id of a static member, where it is still the one of its instance id.
    fn own_instance(&self, instance: &str, member_id: &str) -> Result<String, Refusal> {
        match self.instances.get(instance) {
            Some(id) if id == member_id => Ok(id.clone()),
            Some(by) => refuse(
                GroupError::FencedInstanceId,
                format!(
                    "Static member {member_id} with instance id {instance} was fenced by member {by}."
                ),
            ),
            None => refuse(
                GroupError::UnknownMemberId,
                format!("Instance id {instance} is unknown."),
            ),
        }
    }

    /// The topology of the first member is the group's; another one is refused, but for an older one.
    fn take_topology(
        &mut self,
        beat: &StreamsHeartbeat,
        topics: &dyn Topics,
    ) -> Result<(), Refusal> {
        let Some(brought) = &beat.topology else {
            return Ok(());
        };
        match &self.topology {
            None => {
                let readiness = match Readiness::of(brought, topics) {
                    Ok(readiness) => readiness,
                    Err(why) => return refuse(GroupError::StreamsInvalidTopology, why),
                };
                self.topology = Some(brought.clone());
                self.reserved.clone_from(&beat.reserved.topology);
                self.seen(topics, Some(readiness));
                Ok(())
            }
            Some(own) if own.epoch > brought.epoch || own == brought => Ok(()),
            Some(_) => refuse(
                GroupError::InvalidRequest,
                "Topology updates are not supported yet.",
            ),
        }
    }

    /// Whether the tasks that a member says it has can be.
    fn check_tasks(&self, owned: Option<&OwnedTasks>) -> Result<(), Refusal> {
        let readiness = self.readiness.as_ref();
        let Some(readiness) = readiness.filter(|readiness| readiness.is_ready()) else {
            return Ok(());
        };
        for (name, n) in owned.into_iter().flat_map(OwnedTasks::iter) {
            let Some(part) = readiness.parts.get(name) else {
                return refuse(
                    GroupError::InvalidRequest,
                    format!("Subtopology {name} does not exist in the topology."),
                );
            };
            if !(0..part.tasks).contains(&n) {
                let tasks = part.tasks;
                return refuse(
                    GroupError::InvalidRequest,
                    format!(
                        "Task {n} for subtopology {name} is invalid. Number of tasks for this subtopology: {tasks}"
                    ),
                );
            }
        }
        Ok(())
    }

    /// The member that speaks, taken out to be changed; a static one that is back with all that it had.
    fn take_out(&mut self, speaker: Speaker, id: &str) -> StreamsMember {
        match speaker {
            Speaker::Of(id) => {
                let known = self.members.remove(&id);
                if let Some(member) = &known
                    && let Some(instance) = &member.metadata.instance_id
                {
                    self.instances.remove(instance);
                }
                known.unwrap_or_else(|| StreamsMember::new(id))
            }
            Speaker::InsteadOf(old_id) => {
                if old_id != id {
                    // Whoever had that id until now is the same client.
                    self.remove(id);
                }
                let Some(mut member) = self.remove(&old_id) else {
                    return StreamsMember::new(id.to_owned());
                };
                tracing::info!(member = id, instead_of = old_id, "a static member is back");
                id.clone_into(&mut member.id);
                (member.epoch, member.previous_epoch) = (0, 0);
                let nothing = AssignedTasks::default();
                self.holders.change(
                    id,
                    [&nothing, &nothing],
                    [&member.assigned, &member.revoking],
                );
                self.changed();
                member
            }
        }
    }

    /// Brings a member one step towards its target.
    fn reconcile(&mut self, now_ms: i64, id: &str, owned: Option<&OwnedTasks>) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        if member.is_reconciled_to(self.assignment_epoch) {
            return;
        }
        let Some(mut member) = self.members.remove(id) else {
            return;
        };
        let before = (member.assigned.clone(), member.revoking.clone());
        let stood = (member.state, member.epoch);
        let step = Reconciliation {
            target_epoch: self.assignment_epoch,
            others: &self.members,
            holders: &self.holders,
            owned,
        };
        if step.step(&mut member) {
            if member.state != MemberState::UnrevokedTasks {
                member.revocation_deadline_ms = None;
            } else if stood != (member.state, member.epoch)
                || member.revocation_deadline_ms.is_none()
            {
                let timeout_ms = i64::from(member.metadata.rebalance_timeout_ms.max(0));
                member.revocation_deadline_ms = Some(now_ms + timeout_ms);
            }
            self.holders.change(
                id,
                [&before.0, &before.1],
                [&member.assigned, &member.revoking],
            );
            self.changed();
        }
        self.put(member);
    }

    fn heard(&mut self, now_ms: i64, id: &str, settings: &StreamsSettings) {
        if let Some(member) = self.members.get_mut(id) {
            member.session_deadline_ms = now_ms + i64::from(settings.session_timeout_ms);
            self.due_ms = self.due_ms.min(member.next_deadline());
        }
        if self.epoch > self.assignment_epoch {
            self.due_ms = self.due_ms.min(self.target_due_ms(settings));
        }
    }

    fn reply(
        &self,
        (id, tells): (&str, bool),
        beat: &StreamsHeartbeat,
        delayed: Option<Status>,
        settings: &StreamsSettings,
        topics: &dyn Topics,
    ) -> StreamsReply {
        let Some(member) = self.members.get(id) else {
            return StreamsReply::default();
        };
        let readiness = self.readiness.as_ref();
        let is_settled = readiness.is_some_and(Readiness::is_ready)
            && self.epoch == self.assignment_epoch
            && member.is_reconciled_to(self.assignment_epoch);
        let heartbeat_interval_ms = match is_settled {
            true => settings.heartbeat_interval_ms,
            false => settings
                .unsettled_heartbeat_interval_ms
                .min(settings.heartbeat_interval_ms),
        };
        let knows_endpoints = beat.endpoint_epoch == self.endpoint_epoch;
        let endpoints = (!knows_endpoints).then(|| {
            let topology = self.topology.as_ref();
            topology.map_or_else(Vec::new, |topology| {
                endpoints::of(self.members.values(), topology, topics)
            })
        });
        StreamsReply {
            member_id: id.to_owned(),
            member_epoch: member.epoch,
            heartbeat_interval_ms,
            task_offset_interval_ms: settings.task_offset_interval_ms,
            acceptable_recovery_lag: settings.acceptable_recovery_lag,
            statuses: self.statuses(member, beat.version, delayed, settings),
            tasks: tells.then(|| lists(&member.assigned)),
            endpoint_epoch: self.endpoint_epoch,
            endpoints,
            to_create: Vec::new(),
        }
    }

    fn statuses(
        &self,
        member: &StreamsMember,
        version: i16,
        delayed: Option<Status>,
        settings: &StreamsSettings,
    ) -> Vec<Status> {
        let mut statuses = Vec::new();
        let own = member.metadata.topology_epoch;
        if let Some(topology) = self.topology.as_ref().filter(|its| own < its.epoch) {
            let epoch = topology.epoch;
            statuses.push(Status::new(
                StatusCode::StaleTopology,
                format!(
                    "The member's topology epoch {own} is behind the group's topology epoch {epoch}."
                ),
            ));
        }
        statuses.extend(delayed);
        let readiness = self.readiness.as_ref();
        statuses.extend(readiness.and_then(|found| found.status.clone()));
        if let Some(by) = &self.shutdown_by {
            statuses.push(Status::new(
                StatusCode::ShutdownApplication,
                format!(
                    "Streams group member {by} encountered a fatal error and requested a shutdown for the entire application."
                ),
            ));
        }
        let tags = settings.rack_aware_tags.iter();
        let missing: Vec<&str> = tags
            .filter(|tag| !member.metadata.client_tags.contains_key(*tag))
            .map(String::as_str)
            .collect();
        if version >= MISSING_TAGS_VERSION_MIN && !missing.is_empty() {
            let missing = missing.join(", ");
            statuses.push(Status::new(
                StatusCode::MissingClientTags,
                format!(
                    "Missing required client tags for rack-aware standby assignment: [{missing}]. Configure them via 'client.tag.<tagKey>' in your Streams config."
                ),
            ));
        }
        statuses
    }
}

/// What a member is, with what it says anew.
fn said_by(before: &MemberMetadata, beat: &mut StreamsHeartbeat) -> MemberMetadata {
    let joins = beat.member_epoch == JOIN;
    let topology_epoch = beat.topology.as_ref().map(|topology| topology.epoch);
    let or =
        |said: &mut Option<String>, known: &Option<String>| said.take().or_else(|| known.clone());
    MemberMetadata {
        instance_id: or(&mut beat.instance_id, &before.instance_id),
        rack: or(&mut beat.rack, &before.rack),
        client_id: std::mem::take(&mut beat.client_id),
        client_host: std::mem::take(&mut beat.client_host),
        rebalance_timeout_ms: beat
            .rebalance_timeout_ms
            .unwrap_or(before.rebalance_timeout_ms),
        topology_epoch: topology_epoch.unwrap_or(before.topology_epoch),
        process_id: beat
            .process_id
            .take()
            .unwrap_or_else(|| before.process_id.clone()),
        endpoint: match joins {
            true => beat.endpoint.take(),
            false => beat.endpoint.take().or_else(|| before.endpoint.clone()),
        },
        client_tags: beat
            .client_tags
            .take()
            .unwrap_or_else(|| before.client_tags.clone()),
    }
}

/// Each of both is kept until it is said anew, or there is no room for what is said: no more than standby tasks hangs on it.
fn take_offsets(member: &mut StreamsMember, beat: &mut StreamsHeartbeat) {
    fn set(
        (known, share): (&mut TaskOffsets, &mut Option<Reserved>),
        (said, reserved): (Option<TaskOffsets>, Option<Reserved>),
    ) {
        let fits = |reserved: &Reserved| reserved.may_replace(share.as_ref());
        if let Some(said) = said
            && reserved.as_ref().is_none_or(fits)
        {
            (*known, *share) = (said, reserved);
        }
    }
    let (shares, said) = (&mut member.reserved, &mut beat.reserved);
    set(
        (&mut member.offsets, &mut shares.offsets),
        (beat.offsets.take(), said.offsets.take()),
    );
    set(
        (&mut member.end_offsets, &mut shares.end_offsets),
        (beat.end_offsets.take(), said.end_offsets.take()),
    );
    if said.member.is_some() {
        shares.member = said.member.take();
    }
}

fn owned(lists: &OwnedLists) -> OwnedTasks {
    OwnedTasks {
        active: TaskSet::of(lists.active.iter().cloned()),
        standby: TaskSet::of(lists.standby.iter().cloned()),
        warmup: TaskSet::of(lists.warmup.iter().cloned()),
    }
}

fn lists(tasks: &AssignedTasks) -> OwnedLists {
    OwnedLists {
        active: tasks.active.tasks().lists().into_iter().collect(),
        standby: tasks.standby.lists().into_iter().collect(),
        warmup: Vec::new(),
    }
}

fn unknown_member<T>(group_id: &str, member_id: &str) -> Result<T, Refusal> {
    refuse(
        GroupError::UnknownMemberId,
        format!("Member {member_id} is not a member of group {group_id}."),
    )
}

/// Whether a member speaks of the epoch that it has, or of the one before with no more than it has: then the answer was lost.
fn check_epoch(member: &StreamsMember, beat: &StreamsHeartbeat) -> Result<(), Refusal> {
    let (known, said) = (member.epoch, beat.member_epoch);
    let has_no_more = || {
        let lists = beat.owned.as_ref();
        lists.is_some_and(|lists| owned(lists).are_all(&member.assigned))
    };
    let is_previous = || said == member.previous_epoch && has_no_more();
    if said == JOIN || said == known || said < known && is_previous() {
        return Ok(());
    }
    let than = match said > known {
        true => "greater",
        false => "smaller",
    };
    refuse(
        GroupError::FencedMemberEpoch,
        format!(
            "The streams group member has a {than} member epoch ({said}) than the one known by the group coordinator ({known}). The member must abandon all its partitions and rejoin."
        ),
    )
}
