//! Whether a client may do what it asks for (KIP-11): the one door for all APIs. What an API needs stands in its row of the
//! table; handlers ask here by resource, in their first lines.
//!
//! Everything is allowed to everybody, but for what MetaQ's `acceptPublish` and `acceptSubscribe` take away from all.

use std::fmt;

use metaq_protocol::messages::ApiKey;

use super::context::{Caller, Context};
use crate::session::Session;

/// What is done to a resource (Kafka's AclOperation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
    TwoPhaseCommit = 15,
}

/// Of what kind a resource is (Kafka's ResourceType).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResourceKind {
    Topic,
    Group,
    Cluster,
    TransactionalId,
}

/// What something is done to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    Cluster,
    TransactionalId(&'a str),
}

impl Resource<'_> {
    fn kind(self) -> ResourceKind {
        match self {
            Self::Topic(_) => ResourceKind::Topic,
            Self::Group(_) => ResourceKind::Group,
            Self::Cluster => ResourceKind::Cluster,
            Self::TransactionalId(_) => ResourceKind::TransactionalId,
        }
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Group(id) => write!(f, "group {id}"),
            Self::Cluster => write!(f, "the cluster"),
            Self::TransactionalId(id) => write!(f, "transactional id {id}"),
        }
    }
}

/// What an API asks for; which of them, and of which resources, depends on the request.
pub(super) type Needs = &'static [(Operation, ResourceKind)];

/// A client may not do what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Denied {
    /// What it was about; the error code follows from it.
    pub(super) kind: ResourceKind,
    why: String,
}

/// Whether a client may do this.
#[inline]
pub(super) fn authorize(
    cx: &Context,
    caller: &Caller,
    operation: Operation,
    resource: Resource<'_>,
) -> Result<(), Denied> {
    let kind = resource.kind();
    debug_assert!(
        super::needs_of(caller.key).contains(&(operation, kind)),
        "the table does not say that API {} needs {operation:?} of a {kind:?}",
        caller.key
    );
    if let Resource::Topic(topic) = resource {
        accepts(cx, caller.key, topic)?;
    }
    match allows(&caller.session, operation, resource) {
        true => Ok(()),
        false => Err(Denied {
            kind,
            why: format!(
                "{} may not do {operation:?} to {resource}",
                caller.session.principal()
            ),
        }),
    }
}

/// Those that a client may do something to, and the others with the reason why not.
pub(super) fn permitted<T>(
    all: impl IntoIterator<Item = T>,
    ask: impl Fn(&T) -> Result<(), Denied>,
) -> (Vec<T>, Vec<(T, Denied)>) {
    let (mut permitted, mut denied) = (Vec::new(), Vec::new());
    for one in all {
        match ask(&one) {
            Ok(()) => permitted.push(one),
            Err(why) => denied.push((one, why)),
        }
    }
    (permitted, denied)
}

/// Whether anybody may publish to a topic, or subscribe to it.
#[inline]
fn accepts(cx: &Context, key: i16, topic: &str) -> Result<(), Denied> {
    const PRODUCE: i16 = ApiKey::Produce as i16;
    const FETCH: i16 = ApiKey::Fetch as i16;
    let why = match key {
        PRODUCE if !cx.config.accepts(topic).publish => {
            format!("acceptPublish=false: no messages are taken for {topic}")
        }
        FETCH if !cx.config.accepts(topic).subscribe => {
            format!("acceptSubscribe=false: no messages of {topic} are given")
        }
        _ => return Ok(()),
    };
    let kind = ResourceKind::Topic;
    Err(Denied { kind, why })
}

/// Whether a principal has a right; without an authorizer everybody has every one.
#[inline]
fn allows(_: &Session, _: Operation, _: Resource<'_>) -> bool {
    true
}

/// The operations that a client may do to a resource, one bit for each by its code (KIP-430).
pub(super) fn authorized_operations(session: &Session, resource: Resource<'_>) -> i32 {
    supported_operations(resource.kind())
        .iter()
        .filter(|operation| allows(session, **operation, resource))
        .fold(0, |bits, operation| bits | 1 << (*operation as u8))
}

/// What can be done to resources of a kind (Kafka's AclEntry.supportedOperations).
fn supported_operations(kind: ResourceKind) -> &'static [Operation] {
    use Operation::*;
    match kind {
        ResourceKind::Topic => &[
            Read,
            Write,
            Create,
            Delete,
            Alter,
            Describe,
            DescribeConfigs,
            AlterConfigs,
        ],
        ResourceKind::Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
        ResourceKind::TransactionalId => &[Describe, Write, TwoPhaseCommit],
        ResourceKind::Cluster => &[
            Create,
            Alter,
            Describe,
            ClusterAction,
            DescribeConfigs,
            AlterConfigs,
            IdempotentWrite,
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::observe::Client;
    use crate::session::ListenerInfo;

    #[test]
    fn every_operation_is_allowed_and_answered_in_kafkas_bits() {
        let client = Arc::new(Client::without_connection(([127, 0, 0, 1], 1).into(), "x"));
        let session = Session::new(Arc::new(ListenerInfo::plaintext()), client);
        let bits = |resource| authorized_operations(&session, resource);
        // As Kafka 4.1 answers without an authorizer.
        assert_eq!(bits(Resource::Topic("t")), 0b1101_1111_1000);
        assert_eq!(bits(Resource::Group("g")), 0b1101_0100_1000);
        assert_eq!(bits(Resource::Cluster), 0b1_1111_1010_0000);
    }
}
