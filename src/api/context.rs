//! What handlers work with, and whom they answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use metaq_protocol::protocol::StrBytes;
use tokio::sync::watch;

use super::fetch_sessions::FetchSessions;
use super::request_log::RequestLog;
use crate::cluster::{Broker, Cluster, ProducerIds};
use crate::config::LiveConfig;
use crate::group::Coordinator;
use crate::metrics::Metrics;
use crate::partition::Partitions;

/// The broker as handlers see it.
pub struct Context {
    /// The configuration in force.
    pub config: Arc<LiveConfig>,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The partitions it leads.
    pub partitions: Arc<Partitions>,
    /// The groups it coordinates.
    pub coordinator: Coordinator,
    /// Producer ids.
    pub producer_ids: ProducerIds,
    /// Fetch sessions.
    pub fetch_sessions: FetchSessions,
    /// What is counted.
    pub metrics: Metrics,
    /// Requests that somebody wants to see.
    pub request_log: RequestLog,
    /// Becomes true when the broker shuts down: what waits is answered.
    pub draining: watch::Receiver<bool>,
}

/// The client behind a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Where it connects from.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// Its name for itself.
    pub client_id: Option<StrBytes>,
    /// Version of the request.
    pub version: i16,
    /// Of the request.
    pub correlation_id: i32,
}

impl Caller {
    /// The peer as Kafka prints it in group descriptions.
    pub fn host(&self) -> String {
        format!("/{}", plain(self.peer.ip()))
    }

    /// Host and port at which this client finds a broker: as advertised, or where it came in.
    pub fn endpoint_of(&self, broker: &Broker) -> (String, i32) {
        let host = if broker.host.is_empty() {
            plain(self.local.ip()).to_string()
        } else {
            broker.host.clone()
        };
        (host, i32::from(broker.port))
    }
}

/// An IPv4 address that came in over an IPv6 socket as what it is.
fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
