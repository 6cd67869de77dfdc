//! Members of a share group report (ShareGroupHeartbeat).
//!
//! Tests: group/share/tests.rs.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{ShareGroup, ShareGroupSettings, ShareMember};
use crate::coordinator::Topics;
use crate::group::member;
use crate::group::messages::{GroupError, Refusal};
use crate::group::reserved::Reserved;

/// Epoch of a member that joins.
const JOIN: i32 = 0;
/// Epoch of a member that leaves.
const LEAVE: i32 = -1;
/// What a member says.
#[derive(Debug, Clone)]
pub struct ShareHeartbeat {
    /// Made by the client.
    pub member_id: String,
    /// 0 to join, -1 to leave.
    pub member_epoch: i32,
    /// Where it is; `None` where that did not change.
    pub rack: Option<String>,
    /// Topics that it reads; `None` where they did not change.
    pub topics: Option<Vec<String>>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Its share of what members may take, where it says what it reads.
    pub reserved: Option<Reserved>,
}

/// A share partition that is to be initialized at its coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToInitialize {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition's index.
    pub partition: i32,
    /// The group epoch.
    pub state_epoch: i32,
    /// Where the group begins; -1 as its configuration says.
    pub start: i64,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareReply {
    /// Of the target that it has.
    pub member_epoch: i32,
    /// How often it is to report, ms.
    pub heartbeat_interval_ms: i32,
    /// What it reads, where it is another one than before or it asked for it.
    pub assignment: Option<Vec<(Uuid, Vec<i32>)>>,
    /// What is to be initialized now.
    pub to_initialize: Vec<ToInitialize>,
}

fn refuse<T>(error: GroupError, message: String) -> Result<T, Refusal> {
    Err(Refusal { error, message })
}

impl ShareGroup {
    /// A member reports.
    pub(in crate::group) fn heartbeat(
        &mut self,
        now_ms: i64,
        (group_id, beat): (&str, ShareHeartbeat),
        settings: &ShareGroupSettings,
        topics: &dyn Topics,
    ) -> Result<ShareReply, Refusal> {
        if beat.member_epoch == LEAVE {
            return self.leave(group_id, &beat.member_id);
        }
        self.check(group_id, &beat, settings)?;
        let before = self.members.get(&beat.member_id);
        let before = before.and_then(|member| member.reserved.as_ref());
        member::check_share(beat.reserved.as_ref(), before)?;
        let is_full = beat.member_epoch == JOIN || beat.topics.is_some();
        let member_id = beat.member_id.clone();
        if self.update(beat) | self.look_at_topics(topics) {
            self.bump();
        }
        let due_ms = self.assign(now_ms, settings);
        let to_initialize = self.begin_initializing(now_ms);
        let assignment_epoch = self.assignment_epoch;
        let Some(member) = self.members.get_mut(&member_id) else {
            return Err(GroupError::UnknownMemberId.into());
        };
        member.session_until_ms = now_ms + i64::from(settings.session_timeout_ms);
        self.sessions_until_ms = self.sessions_until_ms.min(member.session_until_ms);
        let mut is_another = false;
        if !member.is_epoch_known || member.epoch != assignment_epoch {
            member.previous_epoch = member.epoch;
            member.epoch = assignment_epoch;
            member.is_epoch_known = true;
            is_another = member.assigned != member.target;
            if is_another {
                member.assigned = member.target.clone();
            }
        }
        let told = member.assigned.iter();
        let assignment = (is_full || is_another).then(|| {
            told.map(|(id, partitions)| (*id, partitions.iter().copied().collect()))
                .collect()
        });
        Ok(ShareReply {
            member_epoch: member.epoch,
            heartbeat_interval_ms: match due_ms {
                None => settings.heartbeat_interval_ms,
                // It is told then.
                Some(due_ms) => settings
                    .heartbeat_interval_ms
                    .min((due_ms - now_ms).clamp(1, i64::from(i32::MAX)) as i32),
            },
            assignment,
            to_initialize,
        })
    }

    fn leave(&mut self, group_id: &str, member_id: &str) -> Result<ShareReply, Refusal> {
        if !self.members.contains_key(member_id) {
            return refuse(GroupError::UnknownMemberId, unknown(group_id, member_id));
        }
        self.remove(member_id, "it left");
        Ok(ShareReply {
            member_epoch: LEAVE,
            heartbeat_interval_ms: 0,
            assignment: None,
            to_initialize: Vec::new(),
        })
    }

    fn check(
        &self,
        group_id: &str,
        beat: &ShareHeartbeat,
        settings: &ShareGroupSettings,
    ) -> Result<(), Refusal> {
        let Some(member) = self.members.get(&beat.member_id) else {
            if self.members.len() >= settings.members_max {
                let max = settings.members_max;
                let why =
                    format!("The share group has reached its maximum capacity of {max} members.");
                return refuse(GroupError::GroupMaxSizeReached, why);
            }
            return match beat.member_epoch {
                JOIN => Ok(()),
                _ => refuse(
                    GroupError::UnknownMemberId,
                    unknown(group_id, &beat.member_id),
                ),
            };
        };
        let (said, known) = (beat.member_epoch, member.epoch);
        let is_believed = !member.is_epoch_known && said <= self.epoch;
        if said == JOIN || is_believed || said == known || said == member.previous_epoch {
            return Ok(());
        }
        let why = match said > known {
            true => format!(
                "The share group member has a greater member epoch ({said}) than the one known by the group coordinator ({known}). The member must abandon all its partitions and rejoin."
            ),
            false => format!(
                "The share group member has a smaller member epoch ({said}) than the one known by the group coordinator ({known}), and it does not match the previous member epoch ({}). The member must abandon all its partitions and rejoin.",
                member.previous_epoch
            ),
        };
        refuse(GroupError::FencedMemberEpoch, why)
    }

    /// Takes over what the member says of itself; whether what the group reads may be another.
    fn update(&mut self, beat: ShareHeartbeat) -> bool {
        let is_new = !self.members.contains_key(&beat.member_id);
        let member = self
            .members
            .entry(beat.member_id)
            .or_insert_with(ShareMember::new);
        let before = (
            std::mem::replace(&mut member.client_id, beat.client_id),
            std::mem::replace(&mut member.client_host, beat.client_host),
        );
        let mut is_another = (&before.0, &before.1) != (&member.client_id, &member.client_host);
        if let Some(rack) = beat.rack {
            is_another |= member.rack.as_ref() != Some(&rack);
            member.rack = Some(rack);
        }
        if beat.reserved.is_some() {
            member.reserved = beat.reserved;
        }
        let mut reads_others = is_new;
        if let Some(topics) = beat.topics {
            let topics: BTreeSet<String> = topics.into_iter().collect();
            reads_others |= member.topics != topics;
            member.topics = topics;
        }
        if reads_others {
            self.seen_version = None;
        }
        if is_another {
            self.changed();
        }
        reads_others
    }

    /// Whether the topics that members read are others than before.
    fn look_at_topics(&mut self, topics: &dyn Topics) -> bool {
        let version = topics.version();
        if self.seen_version == Some(version) {
            return false;
        }
        self.seen_version = Some(version);
        let names: BTreeSet<&String> = self
            .members
            .values()
            .flat_map(|member| &member.topics)
            .collect();
        let seen = names.into_iter();
        let seen: BTreeMap<String, (Uuid, i32)> = seen
            .filter_map(|name| Some((name.clone(), topics.shape_of(name)?)))
            .collect();
        let is_another = seen != self.seen;
        if is_another {
            self.initialize_due_ms = i64::MIN;
        }
        self.seen = seen;
        is_another
    }

    /// The share partitions that are not initialized yet.
    fn begin_initializing(&mut self, now_ms: i64) -> Vec<ToInitialize> {
        if now_ms < self.initialize_due_ms {
            return Vec::new();
        }
        let mut all = Vec::new();
        let (mut due_ms, mut is_met) = (i64::MAX, false);
        for (topic_id, count) in self.seen.values() {
            let shares = self.shares.entry(*topic_id).or_default();
            is_met |= shares.met_with.is_none();
            let begun = shares.begin(now_ms, *count, self.epoch);
            all.extend(begun.into_iter().map(|one| ToInitialize {
                topic_id: *topic_id,
                partition: one.partition,
                state_epoch: one.state_epoch,
                start: one.start,
            }));
            due_ms = due_ms.min(shares.due_ms().unwrap_or(i64::MAX));
        }
        self.initialize_due_ms = due_ms;
        if is_met {
            self.changed();
        }
        all
    }
}

fn unknown(group_id: &str, member_id: &str) -> String {
    format!("Member {member_id} is not a member of group {group_id}.")
}
