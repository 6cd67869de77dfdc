//! One client's connection, as everything that serves it sees it: the listener that it came in by, who the client is, and
//! where it is. Made once for each connection; every request of it shares it.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::observe::Client;

/// What protects the connections of a listener (Kafka's SecurityProtocol).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Nothing: neither encrypted nor authenticated.
    Plaintext,
}

impl SecurityProtocol {
    /// As configurations and registrations have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
        }
    }
}

/// A listener, as its connections know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Its name; brokers tell a client the endpoints of the listener that it came in by.
    pub name: String,
    /// What protects its connections.
    pub protocol: SecurityProtocol,
}

impl ListenerInfo {
    /// The listener that is there without any configuration, named after its protocol as in Kafka.
    pub fn plaintext() -> Self {
        let protocol = SecurityProtocol::Plaintext;
        Self {
            name: protocol.name().to_owned(),
            protocol,
        }
    }
}

/// Who a client is (Kafka's KafkaPrincipal).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    kind: Cow<'static, str>,
    name: Cow<'static, str>,
}

impl Principal {
    /// Of a kind, which is `User` mostly, and a name.
    pub fn new(kind: &str, name: &str) -> Self {
        Self {
            kind: Cow::Owned(kind.to_owned()),
            name: Cow::Owned(name.to_owned()),
        }
    }

    /// A user.
    pub fn user(name: &str) -> Self {
        Self {
            kind: Cow::Borrowed(USER),
            name: Cow::Owned(name.to_owned()),
        }
    }

    /// What it is, mostly `User`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its name among those of its kind.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The kind of principals that clients are (KafkaPrincipal.USER_TYPE).
const USER: &str = "User";

/// Whoever does not authenticate (KafkaPrincipal.ANONYMOUS).
static ANONYMOUS: Principal = Principal {
    kind: Cow::Borrowed(USER),
    name: Cow::Borrowed("ANONYMOUS"),
};

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// How far a connection's authentication is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// The listener asks for none: every client is `User:ANONYMOUS`.
    NotRequired,
    /// The client is known.
    Done(Principal),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    listener: Arc<ListenerInfo>,
    authentication: Authentication,
    client: Arc<Client>,
    /// Differs between all connections of this process.
    id: u64,
    /// Dropped with the session; there where somebody waits for that.
    end: OnceLock<watch::Sender<()>>,
}

/// Numbers connections.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Comes when a connection has ended and nothing of it is under way.
#[derive(Debug)]
pub struct SessionEnd {
    id: u64,
    end: watch::Receiver<()>,
}

impl SessionEnd {
    /// Of the connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for it.
    pub async fn wait(mut self) {
        while self.end.changed().await.is_ok() {}
    }
}

impl Session {
    /// A connection that came in by a listener; `client` is its entry in the register of connections.
    pub fn new(listener: Arc<ListenerInfo>, client: Arc<Client>) -> Self {
        let authentication = match listener.protocol {
            SecurityProtocol::Plaintext => Authentication::NotRequired,
        };
        Self {
            listener,
            authentication,
            client,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            end: OnceLock::new(),
        }
    }

    /// The same of a client that is known.
    pub fn of_principal(
        listener: Arc<ListenerInfo>,
        client: Arc<Client>,
        principal: Principal,
    ) -> Self {
        Self {
            authentication: Authentication::Done(principal),
            ..Self::new(listener, client)
        }
    }

    /// Differs between all connections of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The session's end, for the first one that asks; `None` for others.
    pub fn watch_end(&self) -> Option<SessionEnd> {
        let (sender, end) = watch::channel(());
        self.end.set(sender).ok()?;
        Some(SessionEnd { id: self.id, end })
    }

    /// The listener that it came in by.
    pub fn listener(&self) -> &ListenerInfo {
        &self.listener
    }

    /// Who the client is.
    pub fn principal(&self) -> &Principal {
        match &self.authentication {
            Authentication::NotRequired => &ANONYMOUS,
            Authentication::Done(principal) => principal,
        }
    }

    /// Where the client connects from.
    pub fn peer(&self) -> SocketAddr {
        self.client.peer()
    }

    /// The same, an IPv4 address that came in over an IPv6 socket as what it is.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer().ip().to_canonical()
    }

    /// The address that the client connected to, in the same way.
    pub fn local_ip(&self) -> IpAddr {
        self.client.local().ip().to_canonical()
    }

    /// Its entry in the register of connections.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_a_plaintext_listener_is_anonymous() {
        let peer: SocketAddr = "[::ffff:10.0.0.7]:1234".parse().unwrap();
        let client = Arc::new(Client::without_connection(peer, "x"));
        let session = Session::new(Arc::new(ListenerInfo::plaintext()), client);
        assert_eq!(session.principal().to_string(), "User:ANONYMOUS");
        assert_eq!(session.listener().name, "PLAINTEXT");
        assert_eq!(session.peer_ip().to_string(), "10.0.0.7");
    }

    #[tokio::test]
    async fn the_end_of_a_session_is_told_to_the_first_one_that_asks() {
        let client = Arc::new(Client::without_connection(([127, 0, 0, 1], 1).into(), "x"));
        let session = Session::new(Arc::new(ListenerInfo::plaintext()), client.clone());
        let other = Session::new(Arc::new(ListenerInfo::plaintext()), client);
        assert_ne!(session.id(), other.id());
        let end = session.watch_end().unwrap();
        assert_eq!(end.id(), session.id());
        assert!(session.watch_end().is_none());
        let ended = tokio::spawn(end.wait());
        tokio::task::yield_now().await;
        assert!(!ended.is_finished());
        drop(session);
        ended.await.unwrap();
    }
}
