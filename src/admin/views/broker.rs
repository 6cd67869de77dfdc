//! The broker at a glance: the home page.

use schemars::JsonSchema;
use serde::Serialize;

use super::data_dirs::{DataDirView, data_dirs};
use super::problems::{self, Problem};
use crate::admin::Shared;
use crate::admin::blocking::blocking;
use crate::admin::meter::Rates;
use crate::admin::status::CoordinationStatus;

/// This broker.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct BrokerView {
    /// Of the program.
    pub(in crate::admin) version: &'static str,
    /// Its number.
    pub(in crate::admin) broker_id: i32,
    /// The cluster's id.
    pub(in crate::admin) cluster_id: String,
    /// The controller's number, -1 for none.
    pub(in crate::admin) controller_id: i32,
    /// Where clients find it.
    pub(in crate::admin) listener: String,
    /// Since when it runs, ms since 1970.
    pub(in crate::admin) started_ms: i64,
    /// How long it has been running, ms.
    pub(in crate::admin) uptime_ms: u64,
    /// Its session with the coordination store.
    pub(in crate::admin) coordination: CoordinationStatus,
    /// Live brokers of the cluster.
    pub(in crate::admin) brokers: usize,
    /// Topics of the cluster.
    pub(in crate::admin) topics: usize,
    /// Partitions of this broker.
    pub(in crate::admin) partitions: usize,
    /// Partitions of this broker that cannot be used.
    pub(in crate::admin) partitions_offline: usize,
    /// Groups that this broker coordinates.
    pub(in crate::admin) groups: usize,
    /// Messages that they have not read.
    pub(in crate::admin) lag: f64,
    /// Connections of clients.
    pub(in crate::admin) connections: usize,
    /// Connections taken since the start.
    pub(in crate::admin) connections_accepted: u64,
    /// Connections refused since the start because of a limit.
    pub(in crate::admin) connections_rejected: u64,
    /// Requests refused since the start, as a whole or in a part.
    pub(in crate::admin) requests_rejected: u64,
    /// Its data directories.
    pub(in crate::admin) data: Vec<DataDirView>,
    /// What happens a second, over the last seconds.
    pub(in crate::admin) rates: RatesView,
    /// What is wrong, the worst first.
    pub(in crate::admin) problems: Vec<Problem>,
}

/// What happens a second.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub(in crate::admin) struct RatesView {
    /// Bytes of records appended.
    pub(in crate::admin) bytes_in: f64,
    /// Bytes of records sent.
    pub(in crate::admin) bytes_out: f64,
    /// Messages appended.
    pub(in crate::admin) messages_in: f64,
    /// Requests.
    pub(in crate::admin) requests: f64,
    /// CPU of the process; 1 for one processor.
    pub(in crate::admin) cpu: f64,
    /// 99th percentile of a Produce request, ms; 0 without requests.
    pub(in crate::admin) produce_p99_ms: f64,
}

impl RatesView {
    pub(in crate::admin) fn of(rates: &Rates) -> Self {
        Self {
            bytes_in: rates.bytes_in,
            bytes_out: rates.bytes_out,
            messages_in: rates.messages_in,
            requests: rates.requests,
            cpu: rates.cpu,
            produce_p99_ms: rates.produce_us[1] / 1e3,
        }
    }
}

impl BrokerView {
    pub(in crate::admin) async fn of(shared: &Shared) -> Self {
        let cx = &shared.cx;
        let image = cx.cluster.image();
        let own = image.brokers.get(&cx.cluster.broker_id());
        let own = own.and_then(|own| own.first_endpoint());
        let lags = crate::admin::lookout::lags(cx).await;
        let problems = problems::find(shared).await;
        let (mut partitions, mut offline) = (0, 0);
        for topic in cx.partitions.topics() {
            partitions += topic.online().count();
            offline += topic.offline().count();
        }
        let rates = shared.rates.load();
        let load =
            |value: &std::sync::atomic::AtomicU64| value.load(std::sync::atomic::Ordering::Relaxed);
        let events = &cx.observe.events;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            broker_id: cx.cluster.broker_id(),
            cluster_id: image.cluster_id.clone(),
            controller_id: image.controller_id,
            listener: own.map_or_else(String::new, |own| match own.host.is_empty() {
                true => format!("port {}", own.port),
                false => format!("{}:{}", own.host, own.port),
            }),
            started_ms: cx.observe.started_ms(),
            uptime_ms: cx.observe.uptime().as_millis() as u64,
            coordination: CoordinationStatus::of(cx),
            brokers: image.brokers.len(),
            topics: image.topics().count(),
            partitions: partitions + offline,
            partitions_offline: offline,
            groups: lags.len(),
            lag: lags.iter().fold(0.0, |all, (_, lag)| all + lag),
            connections: cx.observe.clients.len(),
            connections_accepted: load(&cx.metrics.connections_accepted),
            connections_rejected: load(&cx.metrics.connections_rejected),
            requests_rejected: events.total(crate::observe::EventKind::RequestRejected),
            data: blocking(shared, data_dirs).await.unwrap_or_default(),
            rates: RatesView::of(&rates),
            problems,
        }
    }
}
