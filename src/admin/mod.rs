//! The dashboard port: pages for people, the same as JSON, metrics, health.
//!
//! - `/`, and the pages that it leads to ([`pages`]); the same data as JSON under `/api` ([`api`]), described by
//!   `/api/openapi.json`. Who visits is found out by [`access`], what each page and each action needs stands in [`rights`],
//!   and [`guard`] asks for it.
//! - `/healthz`: 200 while the process serves at all; 503 when a thread or a task that it needs has ended by a bug, so
//!   that it must be started anew.
//! - `/readyz`: 200 when clients are answered; 503 with a reason while starting, draining, or with partitions
//!   offline, or while others may act in this broker's place.
//! - `/metrics`: Prometheus text format.
//!
//! Tests: tests/dashboard.rs, tests/metrics.rs.

mod access;
mod actions;
mod api;
mod attempts;
mod blocking;
mod definitions;
mod errors;
mod exposition;
mod extract;
mod guard;
mod listener;
mod live;
mod lookout;
mod meter;
mod offsets;
mod openapi;
mod operation;
mod pages;
mod process;
mod remote;
mod rights;
mod sessions;
mod status;
mod tree;
mod views;
mod visitor;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::api::Context;
use crate::config::Config;
use crate::meta::SessionState;
use crate::net::cannot_listen;
use crate::security::{BearerTokens, ServerTls};

pub use access::{TokenSource, token_of};
pub use definitions::{Definition, METRICS, MetricKind};

/// Visitors whose messages are read at a time; each may need tens of MiB.
const BROWSERS_MAX: usize = 2;
/// What Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text";
/// Largest body of a request.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The dashboard's listener, before it serves.
pub struct Bound {
    listener: TcpListener,
    connections_max: usize,
    tls: Option<Arc<ServerTls>>,
    provider: Option<Arc<BearerTokens>>,
}

/// The dashboard while it serves.
pub struct Admin {
    address: Option<SocketAddr>,
    has_tls: bool,
    ready: Arc<AtomicBool>,
    token: (String, TokenSource),
    tasks: [JoinHandle<()>; 2],
}

#[derive(Clone)]
struct Shared {
    cx: Arc<Context>,
    ready: Arc<AtomicBool>,
    access: access::SharedAccess,
    /// What happened a second, over the latest interval.
    rates: Arc<ArcSwap<meter::Rates>>,
    live: Arc<live::Live>,
    browsing: Arc<Semaphore>,
}

impl Admin {
    /// Binds the port, which has TLS where there are certificates, and takes the tokens of an identity provider where there is
    /// one; nothing is answered yet.
    pub async fn bind(
        config: &Config,
        tls: Option<Arc<ServerTls>>,
        provider: Option<Arc<BearerTokens>>,
    ) -> std::io::Result<Bound> {
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
                cannot_listen(host, port, ("dashboardHttpPort", &error)),
            )
        };
        Ok(Bound {
            listener: bound.map_err(named)?,
            connections_max: config.number("dashboard.http.max.connections") as usize,
            tls,
            provider,
        })
    }

    /// Where it is served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The same for a browser.
    pub fn url(&self) -> Option<String> {
        let scheme = if self.has_tls { "https" } else { "http" };
        Some(format!("{scheme}://{}", self.address?))
    }

    /// The token that actions need, and where it came from.
    pub fn token(&self) -> (&str, TokenSource) {
        (&self.token.0, self.token.1)
    }

    /// Tells load balancers that no more work is welcome.
    pub fn not_ready(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// Ends it.
    pub fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Bound {
    /// Begins to answer.
    pub fn serve(self, cx: Arc<Context>) -> std::io::Result<Admin> {
        let address = self.listener.local_addr().ok();
        let has_tls = self.tls.is_some();
        let cluster_id = &cx.cluster.image().cluster_id;
        let cookie = access::cookie_of(cluster_id, cx.cluster.broker_id());
        let parts = access::AccessParts {
            cookie: cookie.clone(),
            has_tls,
            users: Some(cx.users.clone()),
            provider: self.provider,
        };
        let access = Arc::new(access::Access::open(&cx.config.load(), parts)?);
        let shared = Shared {
            access: access.clone(),
            ready: Arc::new(AtomicBool::new(true)),
            rates: Arc::default(),
            live: Arc::default(),
            browsing: Arc::new(Semaphore::new(BROWSERS_MAX)),
            cx,
        };
        let lookout = lookout::watch(shared.cx.clone(), shared.rates.clone());
        let settings = listener::Settings {
            cx: shared.cx.clone(),
            connections_max: self.connections_max,
            tls: self.tls,
        };
        let listener = listener::Limited::new(self.listener, settings);
        let router =
            router(&shared, &cookie).into_make_service_with_connect_info::<listener::Peer>();
        let serve = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the dashboard ended");
            }
        });
        Ok(Admin {
            address,
            has_tls,
            ready: shared.ready,
            token: (access.token().to_owned(), access.source),
            tasks: [serve, tokio::spawn(lookout)],
        })
    }
}

fn router(shared: &Shared, cookie: &str) -> Router {
    let guarded = Router::new()
        .merge(pages::router())
        .merge(api::router(cookie));
    let guarded = guarded.layer(middleware::from_fn_with_state(shared.clone(), guard::guard));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared.clone())
}

async fn healthz(State(shared): State<Shared>) -> (StatusCode, String) {
    let mut ended = shared.cx.partitions.supervisor().ended();
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

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> impl IntoResponse {
    let text = exposition::render(&shared.cx).await;
    let accepted = headers.get(header::ACCEPT);
    let accepted = accepted.and_then(|accepted| accepted.to_str().ok());
    let (kind, text) = match accepted.unwrap_or_default().contains(OPEN_METRICS) {
        true => (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text,
        ),
        false => {
            let older = exposition::in_older_format(&text);
            ("text/plain; version=0.0.4; charset=utf-8", older)
        }
    };
    ([(header::CONTENT_TYPE, kind)], text)
}
