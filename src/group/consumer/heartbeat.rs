//! Heartbeats of members that speak KIP-848: they join, say what they read and have, learn what they are to have, and leave
//! (Kafka's GroupMetadataManager.consumerGroupHeartbeat and consumerGroupLeave).
//!
//! Tests: group/consumer/tests.rs, group/consumer/model.rs.

use uuid::Uuid;

use super::reconciliation::Reconciliation;
use super::settings::ConsumerSettings;
use super::subscriptions::compile;
use super::visible::VisibleTopics;
use super::{ConsumerGroup, ConsumerMember, MemberState, Partitions, Reads, label};
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

/// What a member says that it has.
pub(super) type Owned<'a> = &'a [(Uuid, Vec<i32>)];

/// A refusal with a text of its own.
pub(super) fn refuse(error: GroupError, message: impl Into<String>) -> Refusal {
    let message = message.into();
    Refusal { error, message }
}

/// What a member says; `None` where it says that nothing changed.
#[derive(Debug, Clone, Default)]
pub struct ConsumerHeartbeat {
    /// Empty for a new member of version 0.
    pub member_id: String,
    /// 0 to join, -1 to leave, -2 to leave for a while.
    pub member_epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Where it is.
    pub rack_id: Option<String>,
    /// ms.
    pub rebalance_timeout_ms: Option<i32>,
    /// Topics that it reads.
    pub topics: Option<Vec<String>>,
    /// A regular expression of topics that it reads.
    pub regex: Option<String>,
    /// The assignor that it prefers.
    pub assignor: Option<String>,
    /// What it has.
    pub owned: Option<Vec<(Uuid, Vec<i32>)>>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// The topics that it may know of.
    pub visible: VisibleTopics,
    /// The connection that it comes by.
    pub connection: Option<u64>,
    /// Its share of the memory for members; set by the coordinator.
    pub reserved: Option<Reserved>,
}

impl ConsumerHeartbeat {
    /// Whether it says everything, as after an error.
    fn is_full(&self) -> bool {
        self.rebalance_timeout_ms.is_some()
            && (self.topics.is_some() || self.regex.is_some())
            && self.owned.is_some()
    }

    /// Whether it says nothing but that the member lives.
    fn is_plain(&self) -> bool {
        self.rack_id.is_none()
            && self.rebalance_timeout_ms.is_none()
            && self.topics.is_none()
            && self.regex.is_none()
            && self.assignor.is_none()
            && self.owned.is_none()
    }
}

/// What a member is answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerReply {
    /// The member's id.
    pub member_id: String,
    /// Its epoch.
    pub member_epoch: i32,
    /// When to say next that it lives, ms; 0 to a member that left.
    pub heartbeat_interval_ms: i32,
    /// What it is to have, where that changed or it asked for all.
    pub assignment: Option<Vec<(Uuid, Vec<i32>)>>,
}

impl ConsumerGroup {
    /// A heartbeat. The reply holds once everything up to the change of [`Self::change_of`] its member is stored.
    pub(in crate::group) fn heartbeat(
        &mut self,
        now_ms: i64,
        beat: ConsumerHeartbeat,
        settings: &ConsumerSettings,
        topics: &dyn Topics,
    ) -> Result<ConsumerReply, Refusal> {
        match beat.member_epoch {
            LEAVE | LEAVE_FOR_A_WHILE => self.leave(now_ms, &beat),
            _ => self.live(now_ms, beat, settings, topics),
        }
    }

    /// The change after which a reply to a member holds; that of the whole group where the member is gone.
    pub(in crate::group) fn change_of(&self, member_id: &str) -> u64 {
        let member = self.members.get(member_id);
        member.map_or(self.change, |member| member.changed)
    }

    fn live(
        &mut self,
        now_ms: i64,
        beat: ConsumerHeartbeat,
        settings: &ConsumerSettings,
        topics: &dyn Topics,
    ) -> Result<ConsumerReply, Refusal> {
        if let Some(reply) = self.unchanged(now_ms, &beat, settings, topics) {
            return Ok(reply);
        }
        self.check_room(&beat.member_id, beat.instance_id.as_deref(), settings)?;
        self.check_pattern(beat.regex.as_deref())?;
        self.check_share(&beat)?;
        let assignor = self.preferred_assignor();
        let Speaker {
            member,
            before,
            is_stored,
        } = self.member_of(&beat)?;
        let member_id = member.id.clone();
        let had = Self::partitions_of(&member);
        let assigned = member.assigned.partitions();
        let owned = beat.owned.as_deref();
        let (member, is_changed) = updated(member, &beat);
        let (who, reads) = (label(&member), member.reads.clone());
        match is_changed || !is_stored {
            true => self.put(member),
            false => self.put_unchanged(member),
        }
        let reads_others = self.reads(before.as_ref(), &reads);
        self.look_at_topics(now_ms, (&who, reads_others), topics, &beat.visible);
        let default = settings.default_assignor();
        if assignor.unwrap_or(default) != self.preferred_assignor().unwrap_or(default) {
            self.bump_epoch(&who, "members prefer another assignor");
        }
        self.make_target_if_due(now_ms, settings, topics);
        self.reconcile(now_ms, &member_id, (&had, owned), reads_others, topics);
        self.heard(now_ms, &member_id, settings.session_timeout_ms);
        let full = beat.member_epoch == JOIN || beat.is_full();
        Ok(self.reply(&member_id, settings, full.then_some(&assigned), &assigned))
    }

    /// The answer to a heartbeat that says and changes nothing: most of them.
    fn unchanged(
        &mut self,
        now_ms: i64,
        beat: &ConsumerHeartbeat,
        settings: &ConsumerSettings,
        topics: &dyn Topics,
    ) -> Option<ConsumerReply> {
        let target_epoch = self.assignment_epoch;
        let is_settled = self.epoch == target_epoch
            && beat.is_plain()
            && !self.subscriptions.are_old(now_ms, topics);
        let member = self.members.get_mut(&beat.member_id)?;
        let is_its_own = member.epoch == beat.member_epoch
            && member.instance_id == beat.instance_id
            && !member.is_classic()
            && member.is_reconciled_to(target_epoch)
            && member.client_id == beat.client_id
            && member.client_host == beat.client_host;
        if !(is_settled && is_its_own) {
            return None;
        }
        member.session_deadline_ms = now_ms + i64::from(settings.session_timeout_ms);
        member.connection = beat.connection;
        Some(ConsumerReply {
            member_id: member.id.clone(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: settings.heartbeat_interval_ms,
            assignment: None,
        })
    }

    /// Whether there is room for a member that is not there yet.
    pub(super) fn check_room(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        settings: &ConsumerSettings,
    ) -> Result<(), Refusal> {
        let is_known = self.members.contains_key(member_id)
            || instance_id.is_some_and(|instance| self.instances.contains_key(instance));
        if is_known || self.members.len() < settings.members_max {
            return Ok(());
        }
        let most = settings.members_max;
        Err(refuse(
            GroupError::GroupMaxSizeReached,
            format!("The consumer group has reached its maximum capacity of {most} members."),
        ))
    }

    /// Whether what the member brings may be kept in the place of what it brought before.
    fn check_share(&self, beat: &ConsumerHeartbeat) -> Result<(), Refusal> {
        let instance = beat.instance_id.as_ref();
        let of_instance = || instance.and_then(|instance| self.instances.get(instance));
        let of_instance = || of_instance().and_then(|id| self.members.get(id));
        let known = self.members.get(&beat.member_id).or_else(of_instance);
        let before = known.and_then(|member| member.reserved.as_ref());
        Ok(member::check_share(beat.reserved.as_ref(), before)?)
    }

    fn check_pattern(&self, regex: Option<&str>) -> Result<(), Refusal> {
        let Some(pattern) = regex.filter(|pattern| !pattern.is_empty()) else {
            return Ok(());
        };
        if self.subscriptions.knows(pattern) {
            return Ok(());
        }
        let compiled = compile(pattern).map(drop);
        compiled
            .map_err(|invalid| refuse(GroupError::InvalidRegularExpression, invalid.to_string()))
    }

    /// Whether a member that is new to any group may join with what it says.
    pub(in crate::group) fn check_new(beat: &ConsumerHeartbeat) -> Result<(), Refusal> {
        Self::new(0).check_pattern(beat.regex.as_deref())
    }

    /// The member that speaks.
    fn member_of(&mut self, beat: &ConsumerHeartbeat) -> Result<Speaker, Refusal> {
        let joins = beat.member_epoch == JOIN;
        let id = match &beat.instance_id {
            None => {
                if let Some(member) = self.members.get(&beat.member_id) {
                    check_epoch(member, beat)?;
                } else if !joins {
                    return Err(unknown_member(&beat.member_id));
                }
                beat.member_id.clone()
            }
            Some(instance) => {
                let Some(member) = self.static_member(instance) else {
                    return match joins {
                        // One that is known under its id until now has the instance id from now on.
                        true => Ok(self.speaker(&beat.member_id)),
                        false => Err(refuse(
                            GroupError::UnknownMemberId,
                            format!("Instance id {instance} is unknown."),
                        )),
                    };
                };
                if joins {
                    check_released(member, beat, instance)?;
                    return Ok(self.replace(&member.id.clone(), &beat.member_id));
                }
                check_fenced(member, &beat.member_id, instance)?;
                check_epoch(member, beat)?;
                member.id.clone()
            }
        };
        Ok(self.speaker(&id))
    }

    /// A member, taken out.
    pub(super) fn speaker(&mut self, id: &str) -> Speaker {
        let Some(member) = self.members.remove(id) else {
            return Speaker::new(id);
        };
        self.forget_instance(&member);
        Speaker {
            before: Some(member.reads.clone()),
            is_stored: true,
            member,
        }
    }

    /// A static member that comes back under another id, to what it had.
    pub(super) fn replace(&mut self, old_id: &str, id: &str) -> Speaker {
        if id != old_id {
            // Whoever had that id until now is the same client.
            self.remove(id);
        }
        let Some(mut member) = self.members.remove(old_id) else {
            return Speaker::new(id);
        };
        self.touch();
        self.unstored.members.insert(old_id.to_owned());
        for key in Self::partitions_of(&member) {
            if self.owners.get(&key).is_some_and(|owner| owner == old_id) {
                self.owners.insert(key, id.to_owned());
                self.unstored.owners.insert(key);
            }
        }
        tracing::info!(member = id, instead_of = old_id, "a static member is back");
        id.clone_into(&mut member.id);
        (member.epoch, member.previous_epoch) = (0, 0);
        member.revocation_deadline_ms = None;
        Speaker {
            before: Some(member.reads.clone()),
            is_stored: false,
            member,
        }
    }

    /// Notes what topics look like, where members read others or topics changed; the target is to be made anew where that
    /// makes a difference.
    pub(super) fn look_at_topics(
        &mut self,
        now_ms: i64,
        (who, reads_others): (&str, bool),
        topics: &dyn Topics,
        visible: &VisibleTopics,
    ) {
        let is_resolved = self.subscriptions.resolve(now_ms, topics, visible);
        if !is_resolved && !reads_others && !self.subscriptions.are_old(now_ms, topics) {
            return;
        }
        let look_different = self.subscriptions.look(topics);
        if reads_others {
            self.bump_epoch(who, "a member joined, or reads other topics");
        } else if is_resolved {
            self.bump_epoch("", "other topics match the regular expressions of members");
        } else if look_different {
            self.bump_epoch("", "topics changed that members read");
        }
    }

    /// Brings a member one step towards its target.
    pub(super) fn reconcile(
        &mut self,
        now_ms: i64,
        member_id: &str,
        (had, owned): (&[(Uuid, i32)], Option<Owned<'_>>),
        has_subscription_changed: bool,
        topics: &dyn Topics,
    ) {
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        let subscribed = self.subscriptions.ids_of(&member.reads, topics);
        let step = Reconciliation {
            target_epoch: self.assignment_epoch,
            subscribed: &subscribed,
            owners: &self.owners,
            owned,
            has_subscription_changed,
        };
        let state = (member.state, member.epoch);
        if !step.step(&mut member) {
            self.members.insert(member.id.clone(), member);
            return;
        }
        if member.state != MemberState::UnrevokedPartitions || member.is_classic() {
            member.revocation_deadline_ms = None;
        } else if state != (member.state, member.epoch) || member.revocation_deadline_ms.is_none() {
            let timeout_ms = i64::from(member.rebalance_timeout_ms.max(0));
            member.revocation_deadline_ms = Some(now_ms + timeout_ms);
        }
        self.own(had, &member);
        self.put(member);
    }

    pub(super) fn heard(&mut self, now_ms: i64, member_id: &str, session_timeout_ms: i32) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        member.session_deadline_ms = now_ms + i64::from(session_timeout_ms);
        self.due_ms = self.due_ms.min(member.next_deadline());
    }

    fn reply(
        &self,
        member_id: &str,
        settings: &ConsumerSettings,
        full: Option<&Partitions>,
        before: &Partitions,
    ) -> ConsumerReply {
        let Some(member) = self.members.get(member_id) else {
            return ConsumerReply::default();
        };
        let now = member.assigned.partitions();
        let is_told = full.is_some() || now != *before;
        let assignment = is_told.then(|| {
            let topics = now.into_iter();
            topics
                .map(|(topic, partitions)| (topic, partitions.into_iter().collect()))
                .collect()
        });
        ConsumerReply {
            member_id: member_id.to_owned(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: self.interval_of(member, settings),
            assignment,
        }
    }

    /// Members that are not yet where they are to be are asked to come back soon, the later the more members there are.
    fn interval_of(&self, member: &ConsumerMember, settings: &ConsumerSettings) -> i32 {
        let usual = settings.heartbeat_interval_ms;
        let is_settled =
            self.epoch == self.assignment_epoch && member.is_reconciled_to(self.assignment_epoch);
        if is_settled {
            return usual;
        }
        let members = i32::try_from(self.members.len()).unwrap_or(i32::MAX);
        settings
            .unsettled_heartbeat_interval_ms
            .max(members)
            .min(usual)
    }

    fn leave(&mut self, now_ms: i64, beat: &ConsumerHeartbeat) -> Result<ConsumerReply, Refusal> {
        let reply = ConsumerReply {
            member_id: beat.member_id.clone(),
            member_epoch: beat.member_epoch,
            ..ConsumerReply::default()
        };
        let Some(instance) = &beat.instance_id else {
            if !self.members.contains_key(&beat.member_id) {
                return Err(unknown_member(&beat.member_id));
            }
            self.fence(
                now_ms,
                std::slice::from_ref(&beat.member_id),
                "a member left",
            );
            return Ok(reply);
        };
        let unknown = || {
            let message = format!("Instance id {instance} is unknown.");
            refuse(GroupError::UnknownMemberId, message)
        };
        let member = self.static_member(instance).ok_or_else(unknown)?;
        check_fenced(member, &beat.member_id, instance)?;
        let id = member.id.clone();
        if beat.member_epoch == LEAVE {
            self.fence(now_ms, &[id], "a static member left");
            return Ok(reply);
        }
        if let Some(mut member) = self.members.remove(&id) {
            let had = Self::partitions_of(&member);
            member.epoch = LEAVE_FOR_A_WHILE;
            member.revoking = super::partitions::Assigned::default();
            member.revocation_deadline_ms = None;
            member.assigned.reset_epochs();
            self.own(&had, &member);
            self.put(member);
        }
        Ok(reply)
    }
}

/// A member that speaks, taken out of its group.
pub(super) struct Speaker {
    pub(super) member: ConsumerMember,
    /// What it read until now; `None` for a new one.
    pub(super) before: Option<Reads>,
    /// Whether it is stored under its id.
    pub(super) is_stored: bool,
}

impl Speaker {
    pub(super) fn new(id: &str) -> Self {
        Self {
            member: ConsumerMember::new(id.to_owned()),
            before: None,
            is_stored: false,
        }
    }
}

/// What the member says, noted; whether that changed anything that is stored.
fn updated(mut member: ConsumerMember, beat: &ConsumerHeartbeat) -> (ConsumerMember, bool) {
    let mut is_changed = member.is_classic();
    fn set<T: PartialEq>(field: &mut T, value: T, is_changed: &mut bool) {
        *is_changed |= *field != value;
        *field = value;
    }
    let mut set_text = |field: &mut Option<String>, value: &Option<String>| {
        if value.is_some() {
            set(field, value.clone(), &mut is_changed);
        }
    };
    set_text(&mut member.instance_id, &beat.instance_id);
    set_text(&mut member.rack_id, &beat.rack_id);
    set_text(&mut member.reads.assignor, &beat.assignor);
    set_text(&mut member.reads.regex, &beat.regex);
    if let Some(timeout_ms) = beat.rebalance_timeout_ms {
        set(
            &mut member.rebalance_timeout_ms,
            timeout_ms,
            &mut is_changed,
        );
    }
    if let Some(topics) = &beat.topics {
        let topics = topics.iter().cloned().collect();
        set(&mut member.reads.topics, topics, &mut is_changed);
    }
    set(
        &mut member.client_id,
        beat.client_id.clone(),
        &mut is_changed,
    );
    set(
        &mut member.client_host,
        beat.client_host.clone(),
        &mut is_changed,
    );
    member.connection = beat.connection;
    // It was one of the classic protocol until now.
    member.classic = None;
    (member.join_deadline_ms, member.sync_deadline_ms) = (None, None);
    if beat.reserved.is_some() {
        member.reserved.clone_from(&beat.reserved);
    }
    (member, is_changed)
}

fn unknown_member(member_id: &str) -> Refusal {
    refuse(
        GroupError::UnknownMemberId,
        format!("Member {member_id} is not a member of the group."),
    )
}

/// Whether a member speaks of the epoch that it has, or of the one before with no more than it has: then the answer was lost.
fn check_epoch(member: &ConsumerMember, beat: &ConsumerHeartbeat) -> Result<(), Refusal> {
    let (known, said) = (member.epoch, beat.member_epoch);
    let has_no_more = || {
        let owned = beat.owned.as_deref();
        owned.is_some_and(|owned| member.assigned.has_all(owned))
    };
    let is_previous = || said == member.previous_epoch && has_no_more();
    if said == JOIN || said == known || said < known && is_previous() {
        return Ok(());
    }
    let than = match said > known {
        true => "greater",
        false => "smaller",
    };
    Err(refuse(
        GroupError::FencedMemberEpoch,
        format!(
            "The consumer group member has a {than} member epoch ({said}) than the one known by the group coordinator ({known}). The member must abandon all its partitions and rejoin."
        ),
    ))
}

/// Whether the place of a static member is free.
fn check_released(
    member: &ConsumerMember,
    beat: &ConsumerHeartbeat,
    instance: &str,
) -> Result<(), Refusal> {
    if member.epoch == LEAVE_FOR_A_WHILE || member.is_classic() {
        return Ok(());
    }
    let (new, old) = (&beat.member_id, &member.id);
    Err(refuse(
        GroupError::UnreleasedInstanceId,
        format!(
            "Static member {new} with instance id {instance} cannot join the group because the instance id is owned by {old} member."
        ),
    ))
}

/// Whether a static member is still the one of its instance id.
pub(super) fn check_fenced(
    member: &ConsumerMember,
    member_id: &str,
    instance: &str,
) -> Result<(), Refusal> {
    if member.id == member_id {
        return Ok(());
    }
    let by = &member.id;
    Err(refuse(
        GroupError::FencedInstanceId,
        format!("Static member {member_id} with instance id {instance} was fenced by member {by}."),
    ))
}
