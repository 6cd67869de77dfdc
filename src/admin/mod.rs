//! The dashboard port: health, metrics, and the cluster with its coordination tree as JSON.
//!
//! - `/healthz`: 200 while the process serves at all; 503 when a thread or a task that it needs has ended by a bug, so
//!   that it must be started anew.
//! - `/readyz`: 200 when clients are answered; 503 with a reason while starting, draining, or with partitions
//!   offline, or while others may act in this broker's place.
//! - `/metrics`: Prometheus text format.
//! - `/api/cluster`: the cluster as this broker sees it, and its session with the coordination store.
//! - `/api/meta/get|ls|tree|watch?path=/…`: the coordination tree.

mod exposition;
mod listener;
mod status;
mod tree;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::api::Context;
use crate::config::Config;
use crate::meta::SessionState;

/// The dashboard's listener, before it serves.
pub struct Bound {
    listener: TcpListener,
    connections_max: usize,
}

/// The dashboard while it serves.
pub struct Admin {
    address: Option<SocketAddr>,
    ready: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    cx: Arc<Context>,
    ready: Arc<AtomicBool>,
}

impl Admin {
    /// Binds the port; nothing is answered yet.
    pub async fn bind(config: &Config) -> std::io::Result<Bound> {
        let port = config.number("dashboard.http.port") as u16;
        let host = match config.text("dashboard.http.host") {
            "" => config.text("host.name"),
            host => host,
        };
        let bound = match host {
            "" => match TcpListener::bind(("::", port)).await {
                Ok(both) => Ok(both),
                Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
            },
            host => TcpListener::bind((host, port)).await,
        };
        let named = |error: std::io::Error| {
            std::io::Error::new(
                error.kind(),
                format!("cannot listen on {host}:{port} for the dashboard: {error}"),
            )
        };
        Ok(Bound {
            listener: bound.map_err(named)?,
            connections_max: config.number("dashboard.http.max.connections") as usize,
        })
    }

    /// Where it is served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Tells load balancers that no more work is welcome.
    pub fn not_ready(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// Ends it.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Bound {
    /// Begins to answer.
    pub fn serve(self, cx: Arc<Context>) -> Admin {
        let ready = Arc::new(AtomicBool::new(true));
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/api/cluster", get(cluster))
            .route("/api/meta/{what}", get(tree::serve))
            .with_state(Shared {
                cx,
                ready: ready.clone(),
            });
        let address = self.listener.local_addr().ok();
        let listener = listener::Limited::new(self.listener, self.connections_max);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the dashboard ended");
            }
        });
        Admin {
            address,
            ready,
            task,
        }
    }
}

async fn healthz(State(shared): State<Shared>) -> (StatusCode, String) {
    let mut ended = shared.cx.partitions.vital().ended();
    let session = shared.cx.cluster.meta().session().borrow().state;
    if session == SessionState::Closed && shared.ready.load(Ordering::Acquire) {
        ended.push("coordination store".to_owned());
    }
    match ended.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => {
            let lines = ended.iter().map(|name| format!("ended: {name}\n"));
            (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
        }
    }
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    if !shared.ready.load(Ordering::Acquire) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    let mut offline = String::new();
    for topic in shared.cx.partitions.topics() {
        for (index, reason) in topic.offline() {
            offline.push_str(&format!("offline: {}-{index}: {reason}\n", topic.topic));
        }
        for partition in topic.online() {
            // One that is on its way to another directory is back in a moment.
            let reason = partition.log().offline_reason();
            if let Some(reason) = reason.filter(|_| !partition.is_deleted()) {
                offline.push_str(&format!(
                    "offline: {}-{}: {reason}\n",
                    topic.topic,
                    partition.index()
                ));
            }
        }
    }
    let coordination = coordination(&shared.cx);
    if shared.cx.cluster.is_fenced() {
        offline.push_str("another process has this broker's number\n");
    }
    if !shared.cx.cluster.may_act() {
        offline.push_str(&coordination);
    }
    match offline.is_empty() {
        true => (StatusCode::OK, format!("ready\n{coordination}")),
        false => (StatusCode::SERVICE_UNAVAILABLE, offline),
    }
}

/// How the session with the coordination store is, in a line.
fn coordination(cx: &Context) -> String {
    let status = status::CoordinationStatus::of(cx);
    let left = status.lease_ms_left.map_or(String::new(), |ms| {
        format!(", {ms} ms left to lead and to coordinate")
    });
    format!("coordination: {} {}{left}\n", status.kind, status.session)
}

async fn cluster(State(shared): State<Shared>) -> axum::Json<status::ClusterStatus> {
    axum::Json(status::ClusterStatus::of(&shared.cx))
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let text = exposition::render(&shared.cx).await;
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
}
