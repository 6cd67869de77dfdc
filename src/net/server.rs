//! Listening: bound endpoints, connection limits, and the end of it all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{self, Settings};
use super::endpoint::Bound;
use super::shutdown::stopped;
use super::socket::Listener;
use crate::api::Context;
use crate::config::Config;
use crate::observe::{EventKind, Happened};

/// Pause after accept failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long behind the end of the drain connections may take to notice it.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

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
    pub fn serve<L: Listener>(&mut self, cx: &Arc<Context>, listeners: Vec<Bound<L>>) {
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
    Bound { info, socket, .. }: Bound<L>,
    limits: Arc<Limits>,
    stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut stopping = pin!(stopped(stop.clone()));
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => match Place::take(&limits, &cx, peer.ip()) {
                    Ok(place) => {
                        cx.metrics.connections_accepted.fetch_add(1, Ordering::Relaxed);
                        let settings = Settings::of(&cx.config.load());
                        let serve =
                            connection::run(cx.clone(), info.clone(), stream, peer, settings, stop.clone());
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
    drop(socket);
    while connections.join_next().await.is_some() {}
}
