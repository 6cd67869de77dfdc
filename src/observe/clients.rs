//! The clients that are connected: a register of live connections, and a bounded ring of those that the broker had to end.
//!
//! A connection's counters are written by its own task alone, so they are plain loads and stores; who looks at them sees
//! each number as it was a moment ago. The register is bounded by `max.connections`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::cut;
use crate::clock::WallClock;

/// Longest name that is kept of a client, characters.
pub const CLIENT_TEXT_CHARS_MAX: usize = 128;
/// Ended connections that are kept.
const ENDED_KEPT: usize = 256;
/// API keys that are counted are below this.
const API_KEYS: usize = 96;

/// One connection.
#[derive(Debug)]
pub struct Client {
    number: u64,
    peer: SocketAddr,
    local: SocketAddr,
    connected_ms: i64,
    names: Mutex<Names>,
    requests: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    errors: AtomicU64,
    throttled_ms: AtomicU64,
    /// The version that each API was asked in last, plus one.
    versions: [AtomicU8; API_KEYS],
}

#[derive(Debug, Default, Clone)]
struct Names {
    client_id: String,
    user: String,
    software: String,
    software_version: String,
    last_error: Option<(i64, String)>,
}

/// An API that a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedApi {
    /// Its key.
    pub key: i16,
    /// The version that it was asked in last.
    pub version: i16,
}

/// A connection at one moment.
#[derive(Debug, Clone)]
pub struct ClientSnapshot {
    /// Counts connections since the start.
    pub number: u64,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The listener's address that it came to.
    pub local: SocketAddr,
    /// Since when, ms since 1970.
    pub connected_ms: i64,
    /// Its name for itself; empty before the first request, or where it has none.
    pub client_id: String,
    /// Who it is, as `User:NAME`; empty where it did not have to say.
    pub user: String,
    /// The client library (KIP-511); empty where it does not say.
    pub software: String,
    /// Its version.
    pub software_version: String,
    /// Requests that arrived.
    pub requests: u64,
    /// Their bytes.
    pub request_bytes: u64,
    /// Bytes of answers.
    pub response_bytes: u64,
    /// Requests that were refused, as a whole or in a part.
    pub errors: u64,
    /// How long it was throttled, ms.
    pub throttled_ms: u64,
    /// When and how it was refused last.
    pub last_error: Option<(i64, String)>,
    /// What it uses.
    pub apis: Vec<UsedApi>,
    /// When it ended, ms since 1970; `None` while it is open.
    pub ended_ms: Option<i64>,
}

impl Client {
    fn new(number: u64, peer: SocketAddr, local: SocketAddr, now_ms: i64) -> Self {
        Self {
            number,
            peer,
            local,
            connected_ms: now_ms,
            names: Mutex::default(),
            requests: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            throttled_ms: AtomicU64::new(0),
            versions: [const { AtomicU8::new(0) }; API_KEYS],
        }
    }

    /// A client that asks in another way than by a connection of the protocol.
    pub fn without_connection(peer: SocketAddr, name: &str) -> Self {
        let client = Self::new(0, peer, peer, 0);
        client.named(name);
        client
    }

    /// Counts connections since the start.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where it comes from.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The listener's address that it came to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// A request arrived. Called by the connection's own task only.
    pub fn asked(&self, key: i16, version: i16, bytes: usize) {
        add(&self.requests, 1);
        add(&self.request_bytes, bytes as u64);
        let used = usize::try_from(key)
            .ok()
            .and_then(|key| self.versions.get(key));
        if let (Some(used), Ok(version)) = (used, u8::try_from(version + 1))
            && used.load(Ordering::Relaxed) != version
        {
            used.store(version, Ordering::Relaxed);
        }
    }

    /// An answer is ready. Called by the connection's own task only.
    pub fn answered(&self, bytes: usize) {
        add(&self.response_bytes, bytes as u64);
    }

    /// It calls itself so.
    pub fn named(&self, client_id: &str) {
        self.names.lock().client_id = cut(client_id, CLIENT_TEXT_CHARS_MAX);
    }

    /// It is known to be this principal's.
    pub fn authenticated_as(&self, principal: &str) {
        self.names.lock().user = cut(principal, CLIENT_TEXT_CHARS_MAX);
    }

    /// It is this software (ApiVersions v3 and later).
    pub fn is_software(&self, name: &str, version: &str) {
        let mut names = self.names.lock();
        names.software = cut(name, CLIENT_TEXT_CHARS_MAX);
        names.software_version = cut(version, CLIENT_TEXT_CHARS_MAX);
    }

    /// A request of it was refused.
    pub fn refused(&self, now_ms: i64, why: &str) {
        add(&self.errors, 1);
        self.names.lock().last_error = Some((now_ms, cut(why, 2 * CLIENT_TEXT_CHARS_MAX)));
    }

    /// It was throttled.
    pub fn throttled(&self, ms: u64) {
        add(&self.throttled_ms, ms);
    }

    /// Its name for itself, its software, and the software's version; empty where it does not say.
    pub fn names(&self) -> (String, String, String) {
        let names = self.names.lock().clone();
        (names.client_id, names.software, names.software_version)
    }

    /// As people call it: its own name and its address.
    pub fn label(&self) -> String {
        let (id, ip) = (self.names.lock().client_id.clone(), self.peer.ip());
        match id.is_empty() {
            true => ip.to_canonical().to_string(),
            false => format!("{id} ({})", ip.to_canonical()),
        }
    }

    /// Everything at this moment.
    pub fn snapshot(&self) -> ClientSnapshot {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let names = self.names.lock().clone();
        let used = |(key, version): (usize, &AtomicU8)| {
            let version = version.load(Ordering::Relaxed).checked_sub(1)?;
            Some(UsedApi {
                key: key as i16,
                version: i16::from(version),
            })
        };
        ClientSnapshot {
            number: self.number,
            peer: self.peer,
            local: self.local,
            connected_ms: self.connected_ms,
            client_id: names.client_id,
            user: names.user,
            software: names.software,
            software_version: names.software_version,
            requests: load(&self.requests),
            request_bytes: load(&self.request_bytes),
            response_bytes: load(&self.response_bytes),
            errors: load(&self.errors),
            throttled_ms: load(&self.throttled_ms),
            last_error: names.last_error,
            apis: self.versions.iter().enumerate().filter_map(used).collect(),
            ended_ms: None,
        }
    }
}

/// Without a locked instruction: there is one writer.
fn add(to: &AtomicU64, more: u64) {
    to.store(
        to.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Clients {
    clock: WallClock,
    next: AtomicU64,
    live: Mutex<BTreeMap<u64, Arc<Client>>>,
    /// Those that the broker ended, with the reason as their last error; oldest first.
    ended: Mutex<VecDeque<ClientSnapshot>>,
}

impl Clients {
    /// No client is connected.
    pub fn new(clock: WallClock) -> Self {
        Self {
            clock,
            next: AtomicU64::new(0),
            live: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// Registers a connection until what is returned is dropped.
    pub fn connected(self: &Arc<Self>, peer: SocketAddr, local: SocketAddr) -> Registered {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client::new(number, peer, local, self.clock.now_ms()));
        self.live.lock().insert(number, client.clone());
        Registered {
            clients: self.clone(),
            client,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.live.lock().len()
    }

    /// Whether no client is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that are connected, by number.
    pub fn live(&self) -> Vec<Arc<Client>> {
        self.live.lock().values().cloned().collect()
    }

    /// One of them.
    pub fn get(&self, number: u64) -> Option<Arc<Client>> {
        self.live.lock().get(&number).cloned()
    }

    /// Those that the broker ended, newest first.
    pub fn ended(&self) -> Vec<ClientSnapshot> {
        self.ended.lock().iter().rev().cloned().collect()
    }
}

/// A connection's entry in the register.
#[derive(Debug)]
pub struct Registered {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Registered {
    /// The connection.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The broker ends it.
    pub fn rejected(&self, why: &str) {
        let now_ms = self.clients.clock.now_ms();
        self.client.refused(now_ms, why);
        let mut snapshot = self.client.snapshot();
        snapshot.ended_ms = Some(now_ms);
        let mut ended = self.clients.ended.lock();
        if ended.len() >= ENDED_KEPT {
            ended.pop_front();
        }
        ended.push_back(snapshot);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.clients.live.lock().remove(&self.client.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn a_connection_is_known_while_it_lives() {
        let clients = Arc::new(Clients::new(WallClock::told_by(|| 7)));
        let registered = clients.connected(address(1), address(9092));
        let client = registered.client();
        client.named("app");
        client.authenticated_as("User:alice");
        client.is_software("librdkafka", "2.3.0");
        client.asked(0, 9, 100);
        client.asked(0, 9, 50);
        client.asked(18, 0, 10);
        client.asked(3000, 1, 1);
        client.answered(30);
        let seen = clients.live()[0].snapshot();
        assert_eq!((seen.requests, seen.request_bytes), (4, 161));
        assert_eq!((seen.response_bytes, seen.errors), (30, 0));
        assert_eq!(seen.client_id, "app");
        assert_eq!(seen.user, "User:alice");
        assert_eq!(seen.software_version, "2.3.0");
        let used = |key, version| UsedApi { key, version };
        assert_eq!(seen.apis, [used(0, 9), used(18, 0)]);
        assert_eq!(client.label(), "app (127.0.0.1)");
        drop(registered);
        assert!(clients.is_empty() && clients.ended().is_empty());
    }

    #[test]
    fn a_rejected_client_is_remembered_with_the_reason_but_not_for_ever() {
        let clients = Arc::new(Clients::new(WallClock::told_by(|| 7)));
        for n in 0..ENDED_KEPT + 5 {
            let registered = clients.connected(address(n as u16), address(9092));
            registered.rejected("frame length -1");
        }
        let ended = clients.ended();
        assert_eq!(ended.len(), ENDED_KEPT);
        assert_eq!(ended[0].number, (ENDED_KEPT + 5) as u64);
        assert_eq!(ended[0].last_error, Some((7, "frame length -1".to_owned())));
        assert!(clients.is_empty());
    }

    #[test]
    fn a_clients_names_are_cut() {
        let clients = Arc::new(Clients::new(WallClock::default()));
        let registered = clients.connected(address(1), address(2));
        registered.client().named(&"x".repeat(30_000));
        let seen = registered.client().snapshot();
        assert_eq!(seen.client_id.chars().count(), CLIENT_TEXT_CHARS_MAX + 1);
    }
}
