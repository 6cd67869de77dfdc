//! Who is connected, and who was sent away.
//!
//! Tests: tests/dashboard.rs.

use metaq_protocol::frame::api_name;
use schemars::JsonSchema;
use serde::Serialize;

use super::events::{EventView, latest};
use super::quotas::{QuotaView, quotas_of};
use super::{Page, Part};
use crate::admin::visitor::Visitor;
use crate::api::{Context, Resource};
use crate::observe::{ClientSnapshot, EventKind};
use crate::security::Operation;

/// Events of refusals that are shown.
const REFUSALS_SHOWN: usize = 200;

/// A connection.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct ClientView {
    /// Counts connections since the start.
    pub(in crate::admin) number: u64,
    /// Where it comes from.
    pub(in crate::admin) peer: String,
    /// The listener's address that it came to.
    pub(in crate::admin) listener: String,
    /// Its name for itself; may be empty.
    pub(in crate::admin) client_id: String,
    /// Who it is, as `User:NAME`; empty where it did not have to say.
    pub(in crate::admin) user: String,
    /// The client library; empty where it does not say.
    pub(in crate::admin) software: String,
    /// Its version.
    pub(in crate::admin) software_version: String,
    /// Since when, ms since 1970.
    pub(in crate::admin) connected_ms: i64,
    /// When the broker ended it, ms since 1970.
    pub(in crate::admin) ended_ms: Option<i64>,
    /// Requests.
    pub(in crate::admin) requests: u64,
    /// Their bytes.
    pub(in crate::admin) request_bytes: u64,
    /// Bytes of answers.
    pub(in crate::admin) response_bytes: u64,
    /// Requests that were refused, as a whole or in a part.
    pub(in crate::admin) errors: u64,
    /// How long it was throttled, ms.
    pub(in crate::admin) throttled_ms: u64,
    /// How it was refused last.
    pub(in crate::admin) last_error: Option<String>,
    /// When that was, ms since 1970.
    pub(in crate::admin) last_error_ms: Option<i64>,
    /// The APIs that it uses, in the version that it asked last.
    pub(in crate::admin) apis: Vec<UsedApiView>,
}

/// An API that a client uses.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct UsedApiView {
    /// Its key.
    pub(in crate::admin) key: i16,
    /// Its name.
    pub(in crate::admin) name: &'static str,
    /// The version.
    pub(in crate::admin) version: i16,
}

impl ClientView {
    /// Library and version as people write it.
    pub(in crate::admin) fn software_text(&self) -> String {
        match self.software.is_empty() {
            true => "not told".to_owned(),
            false => format!("{} {}", self.software, self.software_version),
        }
    }

    /// Its own name, or what stands for it.
    pub(in crate::admin) fn name(&self) -> &str {
        match self.client_id.is_empty() {
            true => "(no client id)",
            false => &self.client_id,
        }
    }
}

impl From<ClientSnapshot> for ClientView {
    fn from(of: ClientSnapshot) -> Self {
        let (last_error_ms, last_error) = of.last_error.unzip();
        let api = |used: crate::observe::UsedApi| UsedApiView {
            key: used.key,
            name: api_name(used.key),
            version: used.version,
        };
        let plain = |address: std::net::SocketAddr| {
            std::net::SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
        };
        Self {
            number: of.number,
            peer: plain(of.peer),
            listener: plain(of.local),
            client_id: of.client_id,
            user: of.user,
            software: of.software,
            software_version: of.software_version,
            connected_ms: of.connected_ms,
            ended_ms: of.ended_ms,
            requests: of.requests,
            request_bytes: of.request_bytes,
            response_bytes: of.response_bytes,
            errors: of.errors,
            throttled_ms: of.throttled_ms,
            last_error,
            last_error_ms,
            apis: of.apis.into_iter().map(api).collect(),
        }
    }
}

/// Who is connected, and who was sent away.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct ClientsView {
    /// Those that are connected, the busiest first.
    pub(in crate::admin) connected: Page<ClientView>,
    /// Connections that the broker ended, newest first.
    pub(in crate::admin) ended: Vec<ClientView>,
    /// What was refused and why, newest first; alike ones are counted.
    pub(in crate::admin) rejections: Vec<EventView>,
    /// How many of which software are connected, most first.
    pub(in crate::admin) software: Vec<SoftwareView>,
    /// Those that have quotas and did something, who is throttled first; nothing without DescribeConfigs on the cluster.
    pub(in crate::admin) quotas: Vec<QuotaView>,
}

/// A client library.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct SoftwareView {
    /// Name and version.
    pub(in crate::admin) name: String,
    /// Its connections.
    pub(in crate::admin) connections: usize,
}

/// What a client pushes of itself (KIP-714).
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct TelemetryView {
    /// The client's id of itself.
    pub(in crate::admin) instance: String,
    /// What it is asked for: prefixes of names, `*` for all.
    pub(in crate::admin) metrics: Vec<String>,
    /// How often, ms.
    pub(in crate::admin) interval_ms: i32,
    /// When it pushed last, ms since 1970; `null` for never.
    pub(in crate::admin) pushed_at_ms: Option<i64>,
    /// Payloads that were taken.
    pub(in crate::admin) pushes: u64,
    /// Why the last one was refused; empty when it was not.
    pub(in crate::admin) refused: String,
    /// The newest values.
    pub(in crate::admin) points: Vec<PointView>,
    /// Values that were more than are kept.
    pub(in crate::admin) points_left_out: usize,
}

/// A value that a client pushes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct PointView {
    /// Its name.
    pub(in crate::admin) name: String,
    /// `key=value`, separated by commas; empty for none.
    pub(in crate::admin) labels: String,
    /// Of a histogram, its mean.
    pub(in crate::admin) value: f64,
}

fn telemetry_of(cx: &Context, client: &ClientSnapshot) -> Vec<TelemetryView> {
    let ip = client.peer.ip().to_canonical().to_string();
    let now_ms = cx.partitions.clock().now_ms();
    let all = cx.telemetry.clients(now_ms).into_iter();
    let own = all.filter(|pushed| {
        let facts = &pushed.facts;
        facts.client_id == client.client_id && facts.source_address == ip
    });
    let point = |point: crate::telemetry::Point| PointView {
        name: point.name,
        labels: point.labels,
        value: if point.value.is_finite() {
            point.value
        } else {
            0.0
        },
    };
    let view = |pushed: crate::telemetry::Pushed| TelemetryView {
        instance: pushed.instance.to_string(),
        metrics: pushed.metrics,
        interval_ms: pushed.interval_ms,
        pushed_at_ms: pushed.pushed_at_ms,
        pushes: pushed.pushes,
        refused: pushed.refused,
        points: pushed.points.into_iter().map(point).collect(),
        points_left_out: pushed.points_left_out,
    };
    own.map(view).collect()
}

/// A client, and what happened to it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct ClientDetail {
    /// The client.
    pub(in crate::admin) client: ClientView,
    /// Whether it is connected.
    pub(in crate::admin) connected: bool,
    /// What clients of this name and address push of themselves.
    pub(in crate::admin) telemetry: Vec<TelemetryView>,
    /// What was refused to it and why, newest first.
    pub(in crate::admin) rejections: Vec<EventView>,
}

impl ClientsView {
    pub(in crate::admin) fn of(cx: &Context, visitor: &Visitor, part: &Part) -> Self {
        let live = cx.observe.clients.live();
        let mut software = std::collections::HashMap::<String, usize>::new();
        let mut all = Vec::with_capacity(live.len());
        for client in live {
            let view = ClientView::from(client.snapshot());
            *software.entry(view.software_text()).or_default() += 1;
            let wanted = [&view.client_id, &view.user, &view.peer, &view.software];
            if wanted.iter().any(|text| part.wants(text)) {
                all.push(view);
            }
        }
        all.sort_by_key(|view| std::cmp::Reverse(view.request_bytes + view.response_bytes));
        let mut software: Vec<SoftwareView> = software
            .into_iter()
            .map(|(name, connections)| SoftwareView { name, connections })
            .collect();
        software.sort_by(|a, b| (b.connections, &a.name).cmp(&(a.connections, &b.name)));
        let kinds = [EventKind::RequestRejected, EventKind::ConnectionRejected];
        let ended = cx.observe.clients.ended();
        Self {
            connected: part.of(all),
            ended: ended.into_iter().map(ClientView::from).collect(),
            rejections: latest(cx, &kinds, REFUSALS_SHOWN),
            software,
            // As DescribeClientQuotas asks for it.
            quotas: match visitor.may(cx, Operation::DescribeConfigs, Resource::Cluster) {
                true => quotas_of(cx),
                false => Vec::new(),
            },
        }
    }
}

impl ClientDetail {
    pub(in crate::admin) fn of(cx: &Context, number: u64) -> Option<Self> {
        let live = cx
            .observe
            .clients
            .get(number)
            .map(|client| client.snapshot());
        let connected = live.is_some();
        let ended = || {
            let mut ended = cx.observe.clients.ended().into_iter();
            ended.find(|ended| ended.number == number)
        };
        let snapshot = live.or_else(ended)?;
        let ip = snapshot.peer.ip().to_canonical();
        let label = match snapshot.client_id.is_empty() {
            true => ip.to_string(),
            false => format!("{} ({ip})", snapshot.client_id),
        };
        let kinds = [EventKind::RequestRejected, EventKind::ConnectionRejected];
        let of_it = cx
            .observe
            .events
            .latest_where(&kinds, REFUSALS_SHOWN, |event| event.who == label);
        Some(Self {
            telemetry: telemetry_of(cx, &snapshot),
            client: snapshot.into(),
            connected,
            rejections: of_it.into_iter().map(EventView::from).collect(),
        })
    }
}
