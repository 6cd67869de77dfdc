//! A visitor who is let in: who it is, what it may see and do, and what the audit log is told of it.
//!
//! Tests: tests/dashboard_security.rs.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use axum::http::request::Parts;

use super::Shared;
use super::access::Known;
use super::listener::Peer;
use super::sessions::Who;
use super::wire::{NAME, own_session};
use crate::api::{Context, Resource, has_all_rights, has_right};
use crate::audit::Audited;
use crate::observe::{Client, cut};
use crate::principal::Principal;
use crate::security::Operation;
use crate::session::{ListenerInfo, SecurityProtocol, Session};

/// Longer texts of visitors are cut in the audit log, letters.
const TEXT_LETTERS_MAX: usize = 256;

/// The listener of those who ask by the dashboard.
static LISTENER: LazyLock<Arc<ListenerInfo>> =
    LazyLock::new(|| Arc::new(ListenerInfo::new("DASHBOARD", SecurityProtocol::Plaintext)));

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    known: Known,
    session: Arc<Session>,
}

/// What the audit log is told of a visitor.
pub(super) struct Deed {
    /// Method and path, or what else it is.
    pub(super) api: String,
    /// What it is about.
    pub(super) subjects: Vec<String>,
    /// Why it was refused, where it was.
    pub(super) why: Option<String>,
}

impl Deed {
    /// What is asked by a route, about what its path names.
    pub(super) fn of(
        (method, path): (&str, &str),
        named: &RawPathParams,
        why: Option<String>,
    ) -> Self {
        Self {
            api: format!("{} {path}", method.to_ascii_uppercase()),
            subjects: named.iter().map(|(_, value)| value.to_owned()).collect(),
            why,
        }
    }
}

impl Visitor {
    /// Who is known, and comes from there. Who has the token asks as the dashboard itself, which is above access control lists.
    pub(super) fn new(known: Known, peer: SocketAddr) -> Self {
        let principal = match &known.who {
            Who::Token => return Self::above(known, peer),
            Who::User { name, .. } => Principal::user(name),
            Who::Nobody => crate::principal::ANONYMOUS.clone(),
        };
        let client = Arc::new(Client::without_connection(peer, NAME));
        let session = Session::of_principal(LISTENER.clone(), client, principal);
        Self {
            known,
            session: Arc::new(session),
        }
    }

    fn above(known: Known, peer: SocketAddr) -> Self {
        Self {
            known,
            session: own_session(LISTENER.clone(), peer),
        }
    }

    /// As whom it asks the broker.
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Who it is and how that is known.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// Whether it has said who it is.
    pub(super) fn is_known(&self) -> bool {
        self.known.who != Who::Nobody
    }

    /// What people are told of who it is; nothing where nobody said it.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.known.who {
            Who::Nobody => None,
            Who::Token => Some("token"),
            Who::User { name, .. } => Some(name),
        }
    }

    /// Who did something, for people: a user with address, or an address.
    pub(super) fn label(&self) -> String {
        let ip = self.session.peer_ip();
        match &self.known.who {
            Who::User { name, .. } => format!("{name} ({ip})"),
            Who::Nobody | Who::Token => ip.to_string(),
        }
    }

    /// Whether it may do something.
    pub(super) fn may(&self, cx: &Context, operation: Operation, resource: Resource<'_>) -> bool {
        has_right(cx, &self.session, operation, resource)
    }

    /// Whether it may do everything.
    pub(super) fn may_all(&self, cx: &Context) -> bool {
        has_all_rights(cx, &self.session)
    }

    /// Whether a topic is there for it.
    pub(super) fn sees_topic(&self, cx: &Context, topic: &str) -> bool {
        self.may(cx, Operation::Describe, Resource::Topic(topic))
    }

    /// Whether a group is there for it.
    pub(super) fn sees_group(&self, cx: &Context, group: &str) -> bool {
        self.may(cx, Operation::Describe, Resource::Group(group))
    }

    /// Tells the audit log of an action that it asks for.
    pub(super) async fn audit_action(&self, cx: &Context, parts: &mut Parts) {
        let path = parts.extensions.get::<MatchedPath>().cloned();
        let named = RawPathParams::from_request_parts(parts, &()).await;
        if let (Some(path), Ok(named)) = (path, named) {
            let route = (parts.method.as_str(), path.as_str());
            self.audit(cx, Deed::of(route, &named, None));
        }
    }

    /// Tells the audit log what it did, or was refused.
    pub(super) fn audit(&self, cx: &Context, deed: Deed) {
        let principal = self.session.principal().to_string();
        audit(
            cx,
            (&principal, self.session.peer_ip()),
            deed,
            self.is_known(),
        );
    }
}

/// Tells the audit log that nobody could be let in: `named` is who somebody said to be.
pub(super) fn audit_login(cx: &Context, peer: SocketAddr, named: Option<&str>, why: String) {
    let principal = crate::principal::ANONYMOUS.to_string();
    let deed = Deed {
        api: "login".to_owned(),
        subjects: named.map(str::to_owned).into_iter().collect(),
        why: Some(why),
    };
    audit(cx, (&principal, peer.ip().to_canonical()), deed, false);
}

fn audit(cx: &Context, (principal, host): (&str, IpAddr), deed: Deed, is_known: bool) {
    if !cx.audit.is_on() {
        return;
    }
    let cut = |text: &str| cut(text, TEXT_LETTERS_MAX);
    let is_refused = deed.why.is_some();
    let line = Audited {
        time: jiff::Timestamp::now().to_string(),
        principal: cut(principal),
        host: host.to_string(),
        listener: LISTENER.name.clone(),
        client_id: NAME.to_owned(),
        api: deed.api,
        subjects: deed.subjects.iter().map(|subject| cut(subject)).collect(),
        outcome: if is_refused { "refused" } else { "asked" },
        why: deed.why.as_deref().map(cut),
        missing: 0,
    };
    match is_refused {
        true => cx.audit.tell_refusal(line, is_known),
        false => cx.audit.tell(line),
    }
}

/// Whom the guard let in.
impl FromRequestParts<Shared> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Infallible> {
        let nobody = || Self::new(Who::Nobody.into(), Peer::of(parts));
        let visitor = parts.extensions.get::<Self>().cloned();
        Ok(visitor.unwrap_or_else(nobody))
    }
}
