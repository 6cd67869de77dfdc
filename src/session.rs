//! One client's connection, as everything that serves it sees it: the listener that it came in by, who the client is, and
//! where it is. Made once for each connection; every request of it shares it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::decisions::Decisions;
use crate::observe::Client;
use crate::principal::{ANONYMOUS, Principal};
use crate::security::{
    Authenticated, BearerTokens, Exchange, Mechanism, PrincipalMapping, Proof, subject,
};

/// What protects the connections of a listener (Kafka's SecurityProtocol).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Nothing: neither encrypted nor authenticated.
    Plaintext,
    /// TLS: encrypted, and authenticated where clients show certificates.
    Ssl,
    /// SASL: authenticated, not encrypted.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// As configurations and registrations have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// Whether its connections begin with a handshake of TLS or SASL.
    pub fn has_handshake(self) -> bool {
        self != Self::Plaintext
    }

    /// The protocol of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        let all = [
            Self::Plaintext,
            Self::Ssl,
            Self::SaslPlaintext,
            Self::SaslSsl,
        ];
        all.into_iter().find(|known| known.name() == name)
    }

    /// Whether connections are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether clients authenticate with SASL.
    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// How clients of a listener authenticate.
#[derive(Debug, Clone, Default)]
pub struct ListenerAuthentication {
    /// Mechanisms of SASL.
    pub mechanisms: Vec<Mechanism>,
    /// A connection with SASL authenticates again within this time.
    pub reauthentication_max: Option<Duration>,
    /// Makes users of certificates.
    pub mapping: PrincipalMapping,
    /// Who brokers are to each other.
    pub brokers_user: Option<String>,
    /// Whose bearer tokens are taken.
    pub tokens: Option<Arc<BearerTokens>>,
}

/// A listener, as its connections know it.
#[derive(Debug, Clone)]
pub struct ListenerInfo {
    /// Its name; brokers tell a client the endpoints of the listener that it came in by.
    pub name: String,
    /// What protects its connections.
    pub protocol: SecurityProtocol,
    /// Brokers speak to each other by it.
    pub is_between_brokers: bool,
    /// How its clients authenticate.
    pub authentication: ListenerAuthentication,
}

/// Names are unique in a broker.
impl PartialEq for ListenerInfo {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.protocol) == (&other.name, other.protocol)
    }
}

impl Eq for ListenerInfo {}

impl ListenerInfo {
    /// A listener whose clients have nothing to authenticate with.
    pub fn new(name: &str, protocol: SecurityProtocol) -> Self {
        Self {
            name: name.to_owned(),
            protocol,
            is_between_brokers: false,
            authentication: ListenerAuthentication::default(),
        }
    }

    /// The listener that is there without any configuration, named after its protocol as in Kafka.
    pub fn plaintext() -> Self {
        let protocol = SecurityProtocol::Plaintext;
        Self {
            is_between_brokers: true,
            ..Self::new(protocol.name(), protocol)
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    listener: Arc<ListenerInfo>,
    /// Who the client is, once that is known.
    principal: OnceLock<Principal>,
    /// The delegation token that it was authenticated with last.
    token: Mutex<Option<Arc<str>>>,
    /// Exchanges of SASL.
    exchange: Mutex<Exchange>,
    /// Until when it must authenticate again, ms since the process began.
    authenticate_by_ms: AtomicU64,
    /// The state of users by which its client was looked at last.
    users_seen: AtomicU64,
    /// Its client has logged in with a password.
    has_password: AtomicBool,
    /// Its client may ask for nothing any more.
    is_ended: AtomicBool,
    client: Arc<Client>,
    decisions: Decisions,
    /// Differs between all connections of this process.
    id: u64,
    /// Dropped with the session; there where somebody waits for that.
    end: OnceLock<watch::Sender<()>>,
}

/// No time at all.
const NEVER_MS: u64 = u64::MAX;
/// A state of users that never is.
const NOTHING_SEEN: u64 = u64::MAX;

/// When so much time has gone by, ms since the process began.
fn in_time(lifetime: Duration) -> u64 {
    uptime_ms().saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(NEVER_MS))
}

/// Milliseconds since the first time that somebody asked.
fn uptime_ms() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGUN.elapsed().as_millis() as u64
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
        Self {
            listener,
            principal: OnceLock::new(),
            token: Mutex::default(),
            exchange: Mutex::default(),
            authenticate_by_ms: AtomicU64::new(NEVER_MS),
            users_seen: AtomicU64::new(0),
            has_password: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            client,
            decisions: Decisions::default(),
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
        let session = Self::new(listener, client);
        let _ = session.principal.set(principal);
        session
    }

    /// Takes the certificate that the client has shown and proved to own: without SASL it says who the client is. Whether it
    /// says anything.
    pub fn set_certificate(&self, certificate: &[u8]) -> bool {
        if self.listener.protocol.has_sasl() {
            return true;
        }
        let mapping = &self.listener.authentication.mapping;
        let name = subject(certificate).and_then(|subject| mapping.name_of(&subject));
        match name {
            Some(name) => {
                let principal = Principal::user(&name);
                self.client.authenticated_as(&principal.to_string());
                self.principal.set(principal).is_ok()
            }
            None => false,
        }
    }

    /// Whether the client may ask for whatever it has the right to.
    pub fn is_authenticated(&self) -> bool {
        !self.listener.protocol.has_sasl() || self.principal.get().is_some()
    }

    /// Its exchanges of SASL.
    pub fn exchange(&self) -> &Mutex<Exchange> {
        &self.exchange
    }

    /// Notes who the client is, and for how long: it must authenticate again before that is over.
    /// Whether it could: a connection stays the same user's.
    pub fn authenticated(&self, who: &Authenticated, lifetime: Option<Duration>) -> bool {
        let principal = Principal::user(&who.user);
        if *self.principal.get_or_init(|| principal.clone()) != principal {
            return false;
        }
        self.client.authenticated_as(&principal.to_string());
        *self.token.lock() = match &who.proof {
            Proof::DelegationToken(id) => Some(Arc::from(id.as_str())),
            _ => None,
        };
        let has_password = who.proof == Proof::Password;
        self.has_password.store(has_password, Ordering::Relaxed);
        // Users and tokens may have changed since it was looked at what it says.
        self.users_seen.store(NOTHING_SEEN, Ordering::Relaxed);
        let by = lifetime.map_or(NEVER_MS, in_time);
        self.authenticate_by_ms.store(by, Ordering::Relaxed);
        true
    }

    /// Lets it end earlier, where it would not end within this time.
    pub fn ends_within(&self, lifetime: Duration) {
        self.authenticate_by_ms
            .fetch_min(in_time(lifetime), Ordering::Relaxed);
    }

    /// The id of the delegation token that its client has logged in with; empty of a client of another broker.
    pub fn token(&self) -> Option<Arc<str>> {
        self.token.lock().clone()
    }

    /// The same of a client that another broker says to have logged in with one.
    pub fn with_some_token(self) -> Self {
        *self.token.lock() = Some(Arc::from(""));
        self
    }

    /// Whether its client has logged in with a password: then it is served for as long as there is such a user.
    pub fn has_password(&self) -> bool {
        self.has_password.load(Ordering::Relaxed)
    }

    /// Whether it should have authenticated again by now.
    pub fn is_expired(&self) -> bool {
        let by = self.authenticate_by_ms.load(Ordering::Relaxed);
        by != NEVER_MS && by < uptime_ms()
    }

    /// Lets its client ask for nothing any more.
    pub fn end_for_good(&self) {
        self.is_ended.store(true, Ordering::Relaxed);
    }

    /// Whether its client may ask for nothing any more.
    pub fn is_over(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Whether the client may be another broker: it came in by the listener between them, and as their user where that is asked,
    /// which a delegation token does not make it.
    pub fn may_be_broker(&self) -> bool {
        let listener = &self.listener;
        let is_brokers_user = || {
            let user = listener.authentication.brokers_user.as_deref();
            user == Some(self.principal().name()) && self.token().is_none()
        };
        listener.is_between_brokers && (!listener.protocol.has_sasl() || is_brokers_user())
    }

    /// Whether users are not as they were when this was asked last.
    pub fn has_not_seen(&self, users: u64) -> bool {
        self.users_seen.swap(users, Ordering::Relaxed) != users
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

    /// Who the client is; anonymous as long as that is not known.
    pub fn principal(&self) -> &Principal {
        self.principal.get().unwrap_or(&ANONYMOUS)
    }

    /// What the client was allowed lately: it is who it is for as long as the connection lasts.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
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
