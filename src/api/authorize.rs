//! Whether a client may do what it asks for (KIP-11): the one door for all APIs. What an API needs stands in its row of the
//! table; handlers ask here by resource, in their first lines.
//!
//! With an authorizer the access control lists decide (see [`crate::security`]); without one everything is allowed to
//! everybody, but for what MetaQ's `acceptPublish` and `acceptSubscribe` take away from all.
//!
//! Tests: tests/acls.rs, tests/advice.rs.

use std::borrow::Cow;
use std::fmt;

use metaq_protocol::messages::ApiKey;

use super::audit;
use super::context::{Caller, Context};
use crate::security::CLUSTER_NAME;
pub(super) use crate::security::{Operation, ResourceKind};
use crate::session::Session;

/// What something is done to.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    /// A topic, by its name.
    Topic(&'a str),
    /// A group, by its id.
    Group(&'a str),
    /// The cluster itself.
    Cluster,
    /// A transactional id.
    TransactionalId(&'a str),
    /// By its id.
    DelegationToken(&'a str),
    /// As `User:name`.
    User(&'a str),
}

impl Resource<'_> {
    fn kind(self) -> ResourceKind {
        match self {
            Self::Topic(_) => ResourceKind::Topic,
            Self::Group(_) => ResourceKind::Group,
            Self::Cluster => ResourceKind::Cluster,
            Self::TransactionalId(_) => ResourceKind::TransactionalId,
            Self::DelegationToken(_) => ResourceKind::DelegationToken,
            Self::User(_) => ResourceKind::User,
        }
    }
}

impl Resource<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Topic(name)
            | Self::Group(name)
            | Self::TransactionalId(name)
            | Self::DelegationToken(name)
            | Self::User(name) => name,
            Self::Cluster => CLUSTER_NAME,
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
            Self::DelegationToken(id) => write!(f, "delegation token {id}"),
            Self::User(name) => write!(f, "tokens of {name}"),
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
    why: Cow<'static, str>,
}

/// Whether a client may do this, where it asked for it by name: what is denied is seen by [`denied`].
#[inline]
pub(super) fn authorize(
    cx: &Context,
    caller: &Caller,
    operation: Operation,
    resource: Resource<'_>,
) -> Result<(), Denied> {
    check_table(caller, operation, resource.kind());
    if let Resource::Topic(topic) = resource {
        accepts(cx, caller.key, topic)?;
    }
    match allows(cx, &caller.session, operation, resource) {
        true => Ok(()),
        false => Err(denied(cx, caller, operation, resource)),
    }
}

/// Whether a client may do this, where only what it may is shown to it: nothing is denied then.
#[inline]
pub(super) fn is_permitted(
    cx: &Context,
    caller: &Caller,
    operation: Operation,
    resource: Resource<'_>,
) -> bool {
    check_table(caller, operation, resource.kind());
    allows(cx, &caller.session, operation, resource)
}

/// Whether a client may do something to any resource of a kind.
pub(super) fn is_permitted_some(
    cx: &Context,
    caller: &Caller,
    operation: Operation,
    kind: ResourceKind,
) -> bool {
    check_table(caller, operation, kind);
    let Some(authorizer) = &cx.authorizer else {
        return true;
    };
    let who = (caller.session.principal(), caller.session.peer_ip());
    cx.cluster
        .with_acls(|acls| authorizer.allows_some(acls, who, operation, kind))
}

/// Whether a principal has a right that is asked for by none of the APIs, such as those of the dashboard's pages, which have a
/// table of their own.
pub fn has_right(
    cx: &Context,
    session: &Session,
    operation: Operation,
    resource: Resource<'_>,
) -> bool {
    allows(cx, session, operation, resource)
}

/// Whether a principal may do everything: a super user, or anybody where there is no authorizer.
pub fn has_all_rights(cx: &Context, session: &Session) -> bool {
    let authorizer = cx.authorizer.as_ref();
    authorizer.is_none_or(|authorizer| authorizer.is_super(session.principal()))
}

#[inline]
fn check_table(caller: &Caller, operation: Operation, kind: ResourceKind) {
    debug_assert!(
        super::needs_of(caller.key).contains(&(operation, kind)),
        "the table does not say that API {} needs {operation:?} of a {kind:?}",
        caller.key
    );
}

/// Every decision that denies what a client asked for by name comes by here, once for each resource.
#[cold]
fn denied(cx: &Context, caller: &Caller, operation: Operation, resource: Resource<'_>) -> Denied {
    let principal = caller.session.principal();
    tracing::debug!(
        %principal,
        host = %caller.session.peer_ip(),
        api = caller.key,
        operation = operation.word(),
        %resource,
        "denied"
    );
    let kind = resource.kind();
    let missing = format!("{} is not allowed", operation.word());
    audit::denied(&cx.audit, &caller.asker(), resource.to_string(), missing);
    let why = Cow::Borrowed(why(kind));
    Denied { kind, why }
}

/// As Kafka's Errors says it.
fn why(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Topic => "Topic authorization failed.",
        ResourceKind::Group => "Group authorization failed.",
        ResourceKind::Cluster => "Cluster authorization failed.",
        ResourceKind::TransactionalId => "Transactional Id authorization failed.",
        ResourceKind::DelegationToken | ResourceKind::User => {
            "Delegation Token authorization failed."
        }
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
    const SHARE_FETCH: i16 = ApiKey::ShareFetch as i16;
    let why = match key {
        PRODUCE if !cx.config.accepts(topic).publish => {
            format!("acceptPublish=false: no messages are taken for {topic}")
        }
        FETCH | SHARE_FETCH if !cx.config.accepts(topic).subscribe => {
            format!("acceptSubscribe=false: no messages of {topic} are given")
        }
        _ => return Ok(()),
    };
    Err(Denied {
        kind: ResourceKind::Topic,
        why: why.into(),
    })
}

/// Whether a principal has a right; without an authorizer everybody has every one.
#[inline]
fn allows(cx: &Context, session: &Session, operation: Operation, resource: Resource<'_>) -> bool {
    let Some(authorizer) = &cx.authorizer else {
        return true;
    };
    let who = (session.principal(), session.peer_ip());
    let (kind, name) = (resource.kind(), resource.name());
    cx.cluster.with_acls(|acls| {
        let decide = || authorizer.allows(acls, who, operation, (kind, name));
        let deed = (operation.code(), kind.code());
        session
            .decisions()
            .recall(acls.version(), deed, name, decide)
    })
}

/// The same of the cluster, which are none for a client that may not describe it (Kafka's DescribeCluster and Metadata).
pub(super) fn authorized_cluster_operations(cx: &Context, session: &Session) -> i32 {
    match allows(cx, session, Operation::Describe, Resource::Cluster) {
        true => authorized_operations(cx, session, Resource::Cluster),
        false => 0,
    }
}

/// The operations that a client may do to a resource, one bit for each by its code (KIP-430).
pub(super) fn authorized_operations(
    cx: &Context,
    session: &Session,
    resource: Resource<'_>,
) -> i32 {
    let operations = resource.kind().operations();
    operations
        .iter()
        .filter(|operation| allows(cx, session, **operation, resource))
        .fold(0, |bits, operation| bits | 1 << operation.code())
}
