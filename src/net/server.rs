//! Accepting connections, within the limits that all listeners share, and the end of it all.
//!
//! Tests: tests/hostile.rs, tests/listeners.rs.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{self, Accepted};
use super::endpoint::Bound;
use super::limits::{ConnectionLimits, ConnectionsMax};
use super::settings::Settings;
use super::shutdown::stopped;
use super::socket::Listener;
use crate::api::Context;
use crate::config::Config;
use crate::observe::{EventKind, Happened};
use crate::per_second::PerSecond;

/// Pause after accept failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refused connections that are told in the log.
const REFUSALS_LOGGED_A_SECOND_MAX: u64 = 10;

/// Connections that all listeners together may be sent a second.
const CREATION_RATE: &str = "max.connection.creation.rate";
/// Connections that are kept to be closed later; more are closed at once.
const HELD_MAX: u64 = 1000;

/// How long after the end of the drain connections may take to notice it.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What accepts and serves.
pub struct Server {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    drain: Duration,
    limits: Arc<ConnectionLimits>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: watch::channel(false).0,
            drain: Duration::ZERO,
            limits: Arc::default(),
        }
    }
}

impl Server {
    /// Begins to accept. May be called again for listeners of another kind: the limits count all connections together.
    pub fn serve<L: Listener>(&mut self, cx: &Arc<Context>, listeners: Vec<Bound<L>>) {
        self.drain = Settings::of(&cx.config.load()).drain;
        for listener in listeners {
            let (limits, stop) = (self.limits.clone(), self.stop.subscribe());
            let accept = accept(cx.clone(), listener, limits, stop);
            let supervisor = cx.partitions.supervisor().clone();
            self.tasks.spawn(supervisor.watch("listener", accept));
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

impl ConnectionsMax {
    fn of(config: &Config) -> Self {
        Self {
            total: config.number("max.connections") as usize,
            per_ip: config.number("max.connections.per.ip") as usize,
            unknown_per_ip: config.number("max.unauthenticated.connections.per.ip") as usize,
        }
    }
}

async fn accept<L: Listener>(
    cx: Arc<Context>,
    Bound { info, socket, .. }: Bound<L>,
    limits: Arc<ConnectionLimits>,
    stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut stopping = pin!(stopped(stop.clone()));
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    let config = cx.config.load();
                    let throttled = cx.quotas.connect(peer.ip().to_canonical(), Instant::now());
                    if !throttled.is_zero() {
                        hold(&cx, &mut connections, (stream, peer), throttled);
                        continue;
                    }
                    let rate_max = config.number(CREATION_RATE);
                    if rate_max < i64::from(i32::MAX) {
                        let wait = cx.quotas.connect_any(rate_max as f64, Instant::now());
                        tokio::select! {
                            () = tokio::time::sleep(wait) => {}
                            () = &mut stopping => break,
                        }
                    }
                    match limits.take(ConnectionsMax::of(&config), peer.ip().to_canonical(), info.protocol.has_handshake()) {
                        Ok(permit) => {
                            let accepted = Accepted { listener: info.clone(), stream, peer, permit };
                            let settings = Settings::of(&config);
                            connections.spawn(connection::run(&cx, accepted, settings, stop.clone()));
                        }
                        Err(limit) => refuse(&cx, peer, limit),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = &mut stopping => break,
        }
    }
    drop(socket);
    while connections.join_next().await.is_some() {}
}

/// Keeps a connection of an address that made too many, and closes it when it may come again (Kafka's SocketServer.Acceptor).
fn hold<S: Send + 'static>(
    cx: &Arc<Context>,
    connections: &mut JoinSet<()>,
    (stream, peer): (S, SocketAddr),
    throttled: Duration,
) {
    let metrics = &cx.metrics;
    metrics
        .connections_throttled
        .fetch_add(1, Ordering::Relaxed);
    tracing::debug!(%peer, ?throttled, "connection throttled: too many a second from its address");
    let held = metrics.connections_held.clone();
    if held.fetch_add(1, Ordering::Relaxed) >= HELD_MAX {
        held.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    connections.spawn(async move {
        tokio::time::sleep(throttled).await;
        drop(stream);
        held.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Notes that a connection was closed at once, because of a limit.
fn refuse(cx: &Context, peer: SocketAddr, limit: &str) {
    cx.metrics
        .connections_rejected
        .fetch_add(1, Ordering::Relaxed);
    static TOLD: PerSecond = PerSecond::new(REFUSALS_LOGGED_A_SECOND_MAX);
    if let Some(untold) = TOLD.take() {
        tracing::warn!(%peer, limit, untold, "connection refused: too many connections");
    }
    let ip = peer.ip().to_canonical().to_string();
    let refused = Happened::new(EventKind::ConnectionRejected, "connection").who(&ip);
    let refused = refused.why(format!("too many connections ({limit})"));
    cx.observe.events.tell(refused);
}
