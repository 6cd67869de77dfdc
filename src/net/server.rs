//! Listening: bound endpoints, connection limits, and the end of it all.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{self, Settings};
use super::shutdown::stopped;
use super::socket::Listener;
use crate::api::Context;
use crate::config::Config;
use crate::observe::{EventKind, Happened};

/// Pause after accept failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted, where the system allows as many: after a restart all clients come at once, and
/// one that finds no room tries again after a second, then three, then seven.
const ACCEPT_QUEUE_MAX: i32 = 4096;

/// How long behind the end of the drain connections may take to notice it.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// An address of a listener; an empty host means all addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
}

/// A listener's address that makes no sense.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{key}={value}: {what}")]
pub struct EndpointError {
    /// The configuration.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong.
    pub what: &'static str,
}

/// The addresses to bind, and the one to tell clients, if it is given.
pub fn listen_endpoints(
    config: &Config,
) -> Result<(Vec<Endpoint>, Option<Endpoint>), EndpointError> {
    let host_and_port = Endpoint {
        host: config.text("host.name").to_owned(),
        port: config.number("port") as u16,
    };
    let listeners = match config.text("listeners") {
        "" => vec![host_and_port.clone()],
        listeners => listeners
            .split(',')
            .map(|listener| parse_endpoint("listeners", listener.trim()))
            .collect::<Result<_, _>>()?,
    };
    let advertised = match config.text("advertised.listeners") {
        "" if host_and_port.host.is_empty() => None,
        "" => Some(host_and_port),
        advertised => Some(parse_endpoint("advertised.listeners", advertised)?),
    };
    Ok((listeners, advertised))
}

fn parse_endpoint(key: &'static str, value: &str) -> Result<Endpoint, EndpointError> {
    let error = |what| EndpointError {
        key,
        value: value.to_owned(),
        what,
    };
    let (name, address) = value
        .split_once("://")
        .ok_or_else(|| error("expected PLAINTEXT://host:port"))?;
    if name != "PLAINTEXT" {
        return Err(error("only PLAINTEXT listeners are served"));
    }
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| error("the port is missing"))?;
    let port = port
        .parse()
        .map_err(|_| error("the port is not a number within 0..=65535"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    Ok(Endpoint { host, port })
}

/// Binds all endpoints; nothing is accepted yet.
pub async fn bind(endpoints: &[Endpoint]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(endpoints.len());
    for Endpoint { host, port } in endpoints {
        let bound = match host.as_str() {
            "" => match TcpListener::bind(("::", *port)).await {
                Ok(both) => Ok(both),
                // A machine without IPv6.
                Err(_) => TcpListener::bind(("0.0.0.0", *port)).await,
            },
            host => TcpListener::bind((host, *port)).await,
        };
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on {host}:{port}: {error}"),
            )
        };
        let listener = bound.map_err(named)?;
        // It listens already; this only makes the queue longer.
        rustix::net::listen(&listener, ACCEPT_QUEUE_MAX)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// What accepts and serves.
pub struct Server {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    drain: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: watch::channel(false).0,
            drain: Duration::ZERO,
        }
    }
}

impl Server {
    /// Begins to accept.
    pub fn serve<L: Listener>(&mut self, cx: &Arc<Context>, listeners: Vec<L>) {
        self.drain = Settings::of(&cx.config.load()).drain;
        let limits = Arc::new(Limits::default());
        for listener in listeners {
            let accept = accept(cx.clone(), listener, limits.clone(), self.stop.subscribe());
            let vital = cx.partitions.vital().clone();
            self.tasks.spawn(vital.watch("listener", accept));
        }
    }

    /// Becomes true when it stops.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Stops accepting, lets connections answer what is in flight for `controlled.shutdown.drain.ms`, and returns when
    /// all have ended; a little later at the latest.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain + DRAIN_GRACE, ended)
            .await
            .is_err()
        {
            tracing::warn!("connections did not end in time and are dropped");
            self.tasks.shutdown().await;
        }
    }
}

impl Settings {
    /// What the configuration says of a connection that begins.
    fn of(config: &Config) -> Self {
        let ms = |name| Duration::from_millis(config.number(name) as u64);
        let idle_ms = config.number("connections.max.idle.ms");
        Self {
            frame_bytes_max: config.number("socket.request.max.bytes") as usize,
            stall_max: ms("socket.request.stall.ms"),
            in_flight_max: config.number("max.inflight.requests.per.connection") as usize,
            idle_max: u64::try_from(idle_ms).ok().map(Duration::from_millis),
            drain: ms("controlled.shutdown.drain.ms"),
        }
    }
}

/// Open connections by address.
#[derive(Default)]
struct Limits {
    open: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// A connection's place among the open ones; given back when dropped.
struct Place {
    limits: Arc<Limits>,
    cx: Arc<Context>,
    ip: IpAddr,
}

impl Place {
    /// A place, or the limit that leaves none.
    fn take(limits: &Arc<Limits>, cx: &Arc<Context>, ip: IpAddr) -> Result<Self, &'static str> {
        let config = cx.config.load();
        let total_max = config.number("max.connections") as usize;
        let per_ip_max = config.number("max.connections.per.ip") as usize;
        let mut open = limits.open.lock();
        let from_ip = open.1.get(&ip).copied().unwrap_or(0);
        if open.0 >= total_max {
            return Err("max.connections");
        }
        if from_ip >= per_ip_max {
            return Err("max.connections.per.ip");
        }
        open.0 += 1;
        open.1.insert(ip, from_ip + 1);
        cx.metrics.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            limits: limits.clone(),
            cx: cx.clone(),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.0 -= 1;
        if let Some(from_ip) = open.1.get_mut(&self.ip) {
            *from_ip -= 1;
            if *from_ip == 0 {
                open.1.remove(&self.ip);
            }
        }
        self.cx.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept<L: Listener>(
    cx: Arc<Context>,
    listener: L,
    limits: Arc<Limits>,
    stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut stopping = pin!(stopped(stop.clone()));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match Place::take(&limits, &cx, peer.ip()) {
                    Ok(place) => {
                        cx.metrics.connections_accepted.fetch_add(1, Ordering::Relaxed);
                        let settings = Settings::of(&cx.config.load());
                        let serve =
                            connection::run(cx.clone(), stream, peer, settings, stop.clone());
                        connections.spawn(async move {
                            serve.await;
                            drop(place);
                        });
                    }
                    Err(limit) => {
                        cx.metrics.connections_rejected.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(%peer, limit, "connection refused: too many connections");
                        let ip = peer.ip().to_canonical().to_string();
                        let refused = Happened::new(EventKind::ConnectionRejected, "connection").who(&ip);
                        cx.observe.events.tell(refused.why(format!("too many connections ({limit})")));
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = &mut stopping => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(overrides: &[&str]) -> Result<(Vec<Endpoint>, Option<Endpoint>), EndpointError> {
        let overrides: Vec<String> = overrides.iter().map(|entry| (*entry).to_owned()).collect();
        listen_endpoints(&Config::load(None, &overrides).unwrap())
    }

    #[test]
    fn the_listener_comes_from_host_and_port_or_from_the_list() {
        let at = |host: &str, port| Endpoint {
            host: host.to_owned(),
            port,
        };
        assert_eq!(endpoints(&[]).unwrap(), (vec![at("", 9092)], None));
        assert_eq!(
            endpoints(&["hostName=a"]).unwrap(),
            (vec![at("a", 9092)], Some(at("a", 9092)))
        );
        let listed = endpoints(&[
            "listeners=PLAINTEXT://:1,PLAINTEXT://[::1]:2",
            "advertised.listeners=PLAINTEXT://x:3",
        ]);
        assert_eq!(
            listed.unwrap(),
            (vec![at("", 1), at("::1", 2)], Some(at("x", 3)))
        );
        assert!(endpoints(&["listeners=SSL://a:1"]).is_err());
        assert!(endpoints(&["listeners=a:1"]).is_err());
    }
}
