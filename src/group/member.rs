//! One member of a classic group.

use bytes::Bytes;

use super::messages::{GroupError, JoinRequest};
use super::reserved::Reserved;

/// Names a request that waits for its answer.
pub type Waiter = u64;

/// A member's name for people, whatever protocol it speaks.
pub(super) fn member_label(
    instance_id: Option<&str>,
    client_id: &str,
    client_host: &str,
) -> String {
    let host = client_host.trim_start_matches('/');
    match instance_id {
        Some(instance) => format!("{instance} ({client_id}, {host})"),
        None => format!("{client_id} ({host})"),
    }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: i32,
    /// Never negative.
    pub(super) rebalance_timeout_ms: i32,
    /// Assignors in order of preference, each with the member's metadata.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// The share of the memory for members of all that its leader assigned with it.
    pub(super) assignment_reserved: Option<Reserved>,
    pub(super) awaiting_join: Option<Waiter>,
    pub(super) awaiting_sync: Option<Waiter>,
    /// Out of the group when silent beyond this, ms.
    pub(super) deadline_ms: i64,
    /// Asked for its assignment in this generation.
    pub(super) has_synced: bool,
    /// Joined since the last generation.
    pub(super) is_new: bool,
    /// The connection that it joined by.
    pub(super) connection: Option<u64>,
    /// Order of joining: the first one leads.
    pub(super) rank: u64,
    /// Its share of the memory for members.
    pub(super) reserved: Option<Reserved>,
}

impl Member {
    pub(super) fn new(id: String, rank: u64, request: &JoinRequest) -> Self {
        let mut member = Self {
            id,
            instance_id: request.instance_id.clone(),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            assignment_reserved: None,
            awaiting_join: None,
            awaiting_sync: None,
            deadline_ms: i64::MAX,
            has_synced: true,
            is_new: true,
            connection: None,
            rank,
            reserved: None,
        };
        member.update(request);
        member
    }

    /// Takes over what a join says.
    pub(super) fn update(&mut self, request: &JoinRequest) {
        self.client_id.clone_from(&request.client_id);
        self.client_host.clone_from(&request.client_host);
        self.session_timeout_ms = request.session_timeout_ms;
        // Any is allowed, and a negative one is 0 (Kafka's ClassicGroup.rebalanceTimeoutMs).
        self.rebalance_timeout_ms = request.rebalance_timeout_ms.max(0);
        self.protocols.clone_from(&request.protocols);
        self.connection = request.connection;
        self.reserved.clone_from(&request.reserved);
    }

    /// Takes an assignment, with its share of the memory for members.
    pub(super) fn assign(&mut self, assignment: Bytes, reserved: Option<Reserved>) {
        self.assignment = assignment;
        self.assignment_reserved = reserved;
    }

    /// Its metadata for an assignor.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    /// Notes a sign of life.
    pub(super) fn heard(&mut self, now_ms: i64) {
        self.deadline_ms = now_ms + i64::from(self.session_timeout_ms);
    }

    /// Waiting for an answer counts as being alive.
    pub(super) fn is_waiting(&self) -> bool {
        self.awaiting_join.is_some() || self.awaiting_sync.is_some()
    }
}

/// Whether what a member brings with a share, where it brings anything, may be kept in the place of what it brought before.
pub(super) fn check_share(
    share: Option<&Reserved>,
    before: Option<&Reserved>,
) -> Result<(), GroupError> {
    match share.is_none_or(|share| share.may_replace(before)) {
        true => Ok(()),
        false => Err(GroupError::GroupMaxSizeReached),
    }
}
