//! What the configuration says of consumer groups.

use std::sync::Arc;

use super::assignor::Assignor;
use crate::group::share::ShareGroupSettings;
use crate::group::streams::StreamsSettings;

/// Whether a group with members may become one of the other protocol (`group.consumer.migration.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// From the classic protocol and back.
    Bidirectional,
    /// From the classic protocol.
    Upgrade,
    /// Back to the classic protocol.
    Downgrade,
    /// Neither.
    Disabled,
}

impl MigrationPolicy {
    /// The policy of a name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        match &*name.to_ascii_lowercase() {
            "bidirectional" => Some(Self::Bidirectional),
            "upgrade" => Some(Self::Upgrade),
            "downgrade" => Some(Self::Downgrade),
            "disabled" => Some(Self::Disabled),
            _ => None,
        }
    }

    /// Whether a classic group with members may become a consumer group.
    pub fn upgrades(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    /// Whether a consumer group whose members are all classic becomes a classic group.
    pub fn downgrades(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

/// What is in force for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// `consumer.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.unsettled.heartbeat.interval.ms`: the interval of members that are not where they are to be.
    pub unsettled_heartbeat_interval_ms: i32,
    /// `consumer.assignment.interval.ms`: between two targets.
    pub assignment_interval_ms: i32,
    /// `group.consumer.max.size`.
    pub members_max: usize,
    /// `group.max.size`: of a group that becomes a classic one.
    pub classic_members_max: usize,
    /// `group.consumer.assignors`: those that members may prefer; the first is the default.
    pub assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`.
    pub migration: MigrationPolicy,
}

impl ConsumerSettings {
    /// The assignor of a group whose members prefer none.
    pub(super) fn default_assignor(&self) -> Assignor {
        self.assignors.first().copied().unwrap_or(Assignor::Uniform)
    }
}

/// Knows what is in force for each group.
pub trait GroupSettings: Send + Sync {
    /// For a group of this id.
    fn consumer(&self, group_id: &str) -> Arc<ConsumerSettings>;
    /// The same of a share group.
    fn share(&self, group_id: &str) -> ShareGroupSettings;
    /// The same of a streams group.
    fn streams(&self, group_id: &str) -> StreamsSettings;
    /// Whether every member of the group gets every message (`metaq.consume.mode`).
    fn is_broadcast(&self, _group_id: &str) -> bool {
        false
    }
}
