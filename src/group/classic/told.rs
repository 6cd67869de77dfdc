//! What a group tells of its rebalances: when one began, who set it off and why, whom it waited for, and what came of it.

use super::{ClassicGroup, Member, State};

/// Causes of one rebalance are noted until they are this long together: clients give them, as often as they like.
const WHY_BYTES_MAX: usize = 1024;

/// A rebalance that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::group) struct Rebalanced {
    /// From the first cause to the stored assignment, ms.
    pub(in crate::group) took_ms: i64,
    /// The member that set it off; empty where none did.
    pub(in crate::group) who: String,
    /// Why.
    pub(in crate::group) why: String,
    /// The generation after it.
    pub(in crate::group) generation: i32,
    /// Members before and after it.
    pub(in crate::group) members: (usize, usize),
    /// The member that joined last, and how long the others waited for it, ms.
    pub(in crate::group) waited_for: Option<(String, i64)>,
    /// Members that did not come back in time.
    pub(in crate::group) missing: usize,
}

/// What sets off a rebalance, unless one goes on.
#[derive(Debug, Clone, Default)]
pub(super) struct Cause {
    who: String,
    why: String,
    /// Members before it.
    members: usize,
}

/// A rebalance that goes on.
#[derive(Debug, Clone)]
pub(super) struct Rebalancing {
    began_ms: i64,
    who: String,
    why: String,
    members_before: usize,
    last_joined: Option<(String, i64)>,
    pub(super) missing: usize,
}

/// A member as people know it.
pub(super) fn label(member: &Member) -> String {
    let host = member.client_host.trim_start_matches('/');
    match &member.instance_id {
        Some(instance) => format!("{instance} ({}, {host})", member.client_id),
        None => format!("{} ({host})", member.client_id),
    }
}

impl ClassicGroup {
    /// If a rebalance begins now, then for this reason.
    pub(super) fn because(&mut self, who: String, why: impl Into<String>) {
        let members = self.members.values().filter(|member| !member.is_new);
        self.cause = Some(Cause {
            who,
            why: why.into(),
            members: members.count(),
        });
    }

    /// A rebalance begins, or begins again.
    pub(super) fn note_begin(&mut self, now_ms: i64) {
        let Cause { who, why, members } = self.cause.take().unwrap_or_default();
        match &mut self.rebalancing {
            Some(going_on) if going_on.why.len() >= WHY_BYTES_MAX => {}
            Some(going_on) if going_on.why != why => {
                going_on.why = format!("{}; then: {why}", going_on.why);
            }
            Some(_) => {}
            None => {
                self.rebalancing = Some(Rebalancing {
                    began_ms: now_ms,
                    who,
                    why,
                    members_before: members,
                    last_joined: None,
                    missing: 0,
                });
            }
        }
    }

    /// A member joined the generation that is being formed.
    pub(super) fn note_joined(&mut self, now_ms: i64, member_id: &str) {
        let label = self.members.get(member_id).map(label);
        if let (Some(going_on), Some(label)) = (&mut self.rebalancing, label) {
            going_on.last_joined = Some((label, now_ms - going_on.began_ms));
        }
    }

    /// The rebalance is over.
    pub(super) fn note_end(&mut self, now_ms: i64) {
        let Some(over) = self.rebalancing.take() else {
            return;
        };
        self.cause = None;
        self.rebalanced.push(Rebalanced {
            took_ms: now_ms - over.began_ms,
            who: over.who,
            why: over.why,
            generation: self.generation,
            members: (over.members_before, self.members.len()),
            waited_for: over.last_joined.filter(|_| self.state != State::Empty),
            missing: over.missing,
        });
    }

    /// The rebalances that ended since the last call.
    pub(in crate::group) fn take_rebalanced(&mut self) -> Vec<Rebalanced> {
        std::mem::take(&mut self.rebalanced)
    }
}
