//! What a group reports of its rebalances: when one began, which member set it off and why, whom it waited for, and the
//! result.

use super::{ClassicGroup, Member, State};
use crate::group::member::member_label;

/// Causes of one rebalance are noted until they are this long together: clients give them, as often as they like.
const WHY_BYTES_MAX: usize = 1024;

/// A rebalance that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::group) struct Rebalanced {
    /// From the first cause to the stored assignment, ms.
    pub(in crate::group) took_ms: i64,
    /// The member that set it off; empty if none did.
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

/// What would set off a rebalance.
#[derive(Debug, Clone, Default)]
pub(super) struct Cause {
    who: String,
    why: String,
    /// Members before it.
    members: usize,
}

/// A rebalance that is under way.
#[derive(Debug, Clone)]
pub(super) struct Rebalancing {
    began_ms: i64,
    who: String,
    why: String,
    members_before: usize,
    last_joined: Option<(String, i64)>,
    pub(super) missing: usize,
}

/// A member's name for people.
pub(super) fn label(member: &Member) -> String {
    member_label(
        member.instance_id.as_deref(),
        &member.client_id,
        &member.client_host,
    )
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
            Some(under_way) if under_way.why.len() >= WHY_BYTES_MAX => {}
            Some(under_way) if under_way.why != why => {
                under_way.why = format!("{}; then: {why}", under_way.why);
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
        if let (Some(under_way), Some(label)) = (&mut self.rebalancing, label) {
            under_way.last_joined = Some((label, now_ms - under_way.began_ms));
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

/// What happened, with the reason that the client gave (KIP-800), if any.
pub(super) fn with_reason(what: &str, reason: &str) -> String {
    match reason {
        "" => what.to_owned(),
        reason => format!("{what}: {reason}"),
    }
}
