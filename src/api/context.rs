//! What handlers work with, and whom they answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::frame::{RequestFrame, api_name, decode_response, encode_request};
use metaq_protocol::protocol::{Request, StrBytes};
use tokio::sync::watch;

use super::audit::{self, Asker};
use super::fetch_sessions::FetchSessions;
use super::request_log::RequestLog;
use super::thread_time::ThreadTime;
use crate::audit::AuditLog;
use crate::certificates::Certificates;
use crate::cluster::{Broker, Cluster, ProducerIds};
use crate::config::LiveConfig;
use crate::group::GroupCoordinator;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::observe::{EventKind, Happened, Observe};
use crate::partition::{Cleaner, Partitions};
use crate::peer::{Lane, PeerAddress, Peers};
use crate::quota::Quotas;
use crate::security::Authorizer;
use crate::session::Session;
use crate::share::Shares;
use crate::telemetry::Telemetry;
use crate::throttle::Throttles;
use crate::tokens::LiveTokens;
use crate::transaction::TransactionCoordinator;
use crate::users::LiveUsers;

/// An answer's length, before it.
const LENGTH_BYTES: usize = 4;

/// The broker as handlers see it.
pub struct Context {
    /// The configuration in force.
    pub config: Arc<LiveConfig>,
    /// Who decides what clients may do, where anybody does.
    pub authorizer: Option<Authorizer>,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The partitions it leads.
    pub partitions: Arc<Partitions>,
    /// Who compacts them.
    pub cleaner: Arc<Cleaner>,
    /// The groups it coordinates.
    pub coordinator: GroupCoordinator,
    /// The transactional ids it coordinates.
    pub transactions: TransactionCoordinator,
    /// What it has of share groups, beside the groups.
    pub shares: Shares,
    /// Connections to other brokers.
    pub peers: Peers,
    /// Who may authenticate.
    pub users: Arc<LiveUsers>,
    /// Delegation tokens.
    pub tokens: Arc<LiveTokens>,
    /// Producer ids.
    pub producer_ids: ProducerIds,
    /// How fast throttled replicas are copied.
    pub throttles: Throttles,
    /// How much each client may do.
    pub quotas: Arc<Quotas>,
    /// Fetch sessions.
    pub fetch_sessions: FetchSessions,
    /// The memory that requests and answers may hold.
    pub memory: Memory,
    /// The memory that unpacking produced batches may take. It is apart: requests that hold all of theirs must not wait for
    /// each other to be unpacked. What needs more than all of it takes it from that of requests.
    pub unpacking: Memory,
    /// What is counted.
    pub metrics: Metrics,
    /// Requests that an operator wants to see.
    pub request_log: RequestLog,
    /// Metrics that clients push.
    pub telemetry: Telemetry,
    /// The certificates that it shows.
    pub certificates: Certificates,
    /// Who did what.
    pub audit: AuditLog,
    /// What it remembers of itself, for people.
    pub observe: Arc<Observe>,
    /// Becomes true when the broker shuts down: what waits is answered.
    pub draining: watch::Receiver<bool>,
}

/// Of one request so many refusals are noted: it may ask for a hundred thousand things.
pub(super) const REFUSALS_NOTED_MAX: usize = 16;

impl Context {
    /// Notes what a request was refused, by subject, code and why; of very many refusals the first ones.
    pub(super) fn note_all<'a>(
        &self,
        caller: &Caller,
        outcomes: impl Iterator<Item = (&'a str, i16, &'a str)>,
    ) {
        let refused = outcomes.filter(|(_, code, _)| *code != 0);
        for (subject, code, why) in refused.take(REFUSALS_NOTED_MAX) {
            self.note(caller, subject, code, why);
        }
    }

    /// Sends a request to another broker, length and all; its answer, length and all.
    pub async fn ask_broker(
        &self,
        broker: &Broker,
        frame: Bytes,
        wait: Duration,
    ) -> io::Result<Bytes> {
        self.ask_broker_on(Lane::Forwards, broker, frame, wait)
            .await
    }

    /// The same, on another connection.
    pub async fn ask_broker_on(
        &self,
        lane: Lane,
        broker: &Broker,
        frame: Bytes,
        wait: Duration,
    ) -> io::Result<Bytes> {
        let Some(endpoint) = broker.first_endpoint() else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let address = PeerAddress {
            host: endpoint.host.clone(),
            port: endpoint.port,
        };
        let to = (broker.id, &address);
        self.peers.ask_on(lane, to, frame, wait).await
    }

    /// Sends a request under a client id, in a version that every broker understands, and reads the answer.
    pub async fn call<R: Request>(
        &self,
        (lane, broker): (Lane, &Broker),
        (client_id, version): (&str, i16),
        request: &R,
        wait: Duration,
    ) -> io::Result<R::Response> {
        let frame = encode_request(version, 0, client_id, request).map_err(io::Error::other)?;
        let answer = self.ask_broker_on(lane, broker, frame, wait).await?;
        let answer = answer.slice(answer.len().min(LENGTH_BYTES)..);
        let decoded = decode_response::<R>(version, answer).map_err(io::Error::other)?;
        Ok(decoded.1)
    }

    /// Notes that a request was refused, or what it asked of `subject`; what clients meet every day is left out. Nothing
    /// is noted for code 0.
    pub(super) fn note(&self, caller: &Caller, subject: &str, code: i16, why: &str) {
        let Some(error) = ResponseError::try_from_code(code).filter(|error| !is_routine(*error))
        else {
            return;
        };
        let why = match why {
            "" => wire_name(error),
            why => format!("{}: {why}", wire_name(error)),
        };
        audit::refused(&self.audit, &caller.asker(), subject, (error, &why));
        let api = api_name(caller.key);
        self.metrics.refused(caller.key, error.code());
        let now_ms = self.partitions.clock().now_ms();
        let client = caller.session.client();
        client.refused(now_ms, &format!("{api} {subject}: {why}"));
        let refused = Happened::new(EventKind::RequestRejected, format!("{api} {subject}"));
        let refused = refused.who(client.label()).why(why);
        self.observe.events.tell(refused);
    }
}

/// What tells a client where to go, or to come again: nothing is wrong.
fn is_routine(error: ResponseError) -> bool {
    use ResponseError as E;
    matches!(
        error,
        E::NotLeaderOrFollower
            | E::LeaderNotAvailable
            | E::NotController
            | E::NotCoordinator
            | E::ConcurrentTransactions
            | E::CoordinatorLoadInProgress
            | E::CoordinatorNotAvailable
            | E::RebalanceInProgress
            | E::MemberIdRequired
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch
            | E::FetchSessionIdNotFound
            | E::InvalidFetchSessionEpoch
    )
}

/// As Kafka writes it.
pub fn wire_name(error: ResponseError) -> String {
    let mut name = String::new();
    for letter in format!("{error:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The client that sent a request, and what the request's header says.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its connection.
    pub session: Arc<Session>,
    /// Its name for itself.
    pub client_id: Option<StrBytes>,
    /// API key of the request.
    pub key: i16,
    /// Version of the request.
    pub version: i16,
    /// Of the request.
    pub correlation_id: i32,
    /// Another broker sent it on for a client (KIP-590).
    pub is_forwarded: bool,
    /// How long the request keeps a thread; there while somebody has a quota of that.
    pub thread_time: Option<Arc<ThreadTime>>,
}

impl Caller {
    /// Who sent a request.
    pub fn of(session: Arc<Session>, frame: &RequestFrame) -> Self {
        Self {
            session,
            client_id: frame.client_id.clone(),
            key: frame.api_key,
            version: frame.version,
            correlation_id: frame.correlation_id,
            is_forwarded: false,
            thread_time: None,
        }
    }

    /// The same, for the audit log.
    pub(super) fn asker(&self) -> Asker<'_> {
        Asker {
            session: &self.session,
            client_id: self.client_id.as_deref(),
            key: self.key,
        }
    }

    /// The peer as Kafka prints it in group descriptions.
    pub fn host(&self) -> String {
        format!("/{}", self.session.peer_ip())
    }

    /// Host and port at which this client finds a broker: those of the listener that it came in by, as advertised, or the
    /// address that it connected to. `None` where the broker has no such listener.
    pub fn endpoint_of(&self, broker: &Broker) -> Option<(String, i32)> {
        let endpoint = broker.endpoint(&self.session.listener().name)?;
        let host = match endpoint.host.as_str() {
            "" => self.session.local_ip().to_string(),
            host => host.to_owned(),
        };
        Some((host, i32::from(endpoint.port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::BrokerEndpoint;
    use crate::meta::records::LossRecord;
    use crate::observe::Clients;
    use crate::session::{ListenerInfo, SecurityProtocol};

    #[test]
    fn a_client_finds_a_broker_by_the_listener_that_it_came_in_by() {
        let endpoint = |listener: &str, host: &str, port| BrokerEndpoint {
            listener: listener.to_owned(),
            security: "PLAINTEXT".to_owned(),
            host: host.to_owned(),
            port,
        };
        let broker = Broker {
            id: 7,
            endpoints: vec![endpoint("IN", "broker-7", 1), endpoint("OUT", "", 2)],
            rack: None,
            accept_publish: true,
            follows_only: false,
            shutting_down: false,
            lost: LossRecord::default(),
            epoch: 1,
        };
        let clients = Arc::new(Clients::new(crate::clock::WallClock::default()));
        let local = "[::ffff:192.0.2.1]:99".parse().unwrap();
        let registered = clients.connected(local, local);
        let found = |listener: &str| {
            let info = ListenerInfo::new(listener, SecurityProtocol::Plaintext);
            let caller = Caller {
                session: Arc::new(Session::new(Arc::new(info), registered.client().clone())),
                client_id: None,
                key: 0,
                version: 0,
                correlation_id: 0,
                is_forwarded: false,
                thread_time: None,
            };
            caller.endpoint_of(&broker)
        };
        assert_eq!(found("IN"), Some(("broker-7".to_owned(), 1)));
        assert_eq!(found("OUT"), Some(("192.0.2.1".to_owned(), 2)));
        assert_eq!(found("ELSEWHERE"), None);
    }
}
