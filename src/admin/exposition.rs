//! `/metrics`: the counters of `metrics`, and what is looked up at the time, in OpenMetrics text.

use std::fmt;
use std::sync::atomic::Ordering;

use metaq_protocol::frame::api_name;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::api::Context;
use crate::meta::SessionState;

/// Everything at one moment.
#[derive(Debug, Default)]
struct Snapshot {
    counters: Vec<(&'static str, &'static str, u64)>,
    gauges: Vec<(&'static str, &'static str, i64)>,
    apis: Vec<crate::metrics::ApiSnapshot>,
    /// Topic, partition identity, and: bytes, log start, log end, high watermark.
    partitions: Vec<(String, String, [i64; 4])>,
}

/// Renders all metrics.
pub(super) async fn render(cx: &Context) -> String {
    let mut snapshot = take(cx);
    let groups = cx.coordinator.list().await.unwrap_or_default();
    snapshot
        .gauges
        .push(("metaq_groups", "Consumer groups", groups.len() as i64));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut out = String::new();
    match text::encode(&mut out, &registry) {
        Ok(()) => out,
        Err(error) => format!("# {error}\n"),
    }
}

fn take(cx: &Context) -> Snapshot {
    let metrics = &cx.metrics;
    let count = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
    let mut snapshot = Snapshot {
        counters: vec![
            (
                "metaq_connections_accepted",
                "Connections accepted",
                count(&metrics.connections_accepted),
            ),
            (
                "metaq_connections_rejected",
                "Connections closed because of a limit",
                count(&metrics.connections_rejected),
            ),
            (
                "metaq_frames_malformed",
                "Frames that closed their connection",
                count(&metrics.frames_malformed),
            ),
            (
                "metaq_handler_panics",
                "Requests that ended in a bug",
                count(&metrics.handler_panics),
            ),
        ],
        gauges: vec![
            (
                "metaq_connections",
                "Open connections",
                metrics.connections.load(Ordering::Relaxed),
            ),
            (
                "metaq_request_memory_bytes",
                "Memory held by unanswered requests",
                metrics.request_memory_bytes.load(Ordering::Relaxed),
            ),
            (
                "metaq_fetch_sessions",
                "Fetch sessions",
                cx.fetch_sessions.len() as i64,
            ),
            (
                "metaq_topics",
                "Topics",
                cx.cluster.image().topics().count() as i64,
            ),
        ],
        apis: metrics.apis(),
        partitions: Vec::new(),
    };
    add_coordination(cx, &mut snapshot);
    let mut offline = 0;
    for topic in cx.partitions.topics() {
        offline += topic.offline().count();
        for partition in topic.online() {
            let ends = partition.log().ends();
            let numbers = [
                partition.log().bytes() as i64,
                ends.log_start,
                ends.log_end.offset,
                partition.high_watermark(),
            ];
            snapshot.partitions.push((
                topic.topic.to_string(),
                partition.identity().to_string(),
                numbers,
            ));
        }
    }
    snapshot.gauges.push((
        "metaq_partitions",
        "Partitions online",
        snapshot.partitions.len() as i64,
    ));
    snapshot.gauges.push((
        "metaq_partitions_offline",
        "Partitions offline",
        offline as i64,
    ));
    snapshot
}

fn add_coordination(cx: &Context, snapshot: &mut Snapshot) {
    let (meta, image) = (cx.cluster.meta(), cx.cluster.image());
    let session = *meta.session().borrow();
    let connected = session.state == SessionState::Connected;
    let own = cx.cluster.broker_id();
    let slots = image.slots.iter().filter(|slot| slot.owner == own).count();
    let mut gauge = |name, help, value| snapshot.gauges.push((name, help, value));
    gauge(
        "metaq_coordination_connected",
        "Whether the coordination store answers",
        i64::from(connected),
    );
    gauge(
        "metaq_coordination_session",
        "Sessions with the coordination store since the start",
        session.number as i64,
    );
    gauge(
        "metaq_coordination_may_act",
        "Whether this broker may lead and coordinate",
        i64::from(cx.cluster.may_act()),
    );
    if let Some(left) = meta.lease().left() {
        gauge(
            "metaq_coordination_lease_ms",
            "How long this broker may lead and coordinate without an answer",
            left.as_millis() as i64,
        );
    }
    gauge(
        "metaq_controller",
        "Whether this broker is the controller",
        i64::from(cx.cluster.is_controller()),
    );
    gauge(
        "metaq_coordinator_slots",
        "Slots of groups that this broker coordinates",
        slots as i64,
    );
    let away = |info: &&crate::cluster::PartitionInfo| !image.brokers.contains_key(&info.leader);
    let partitions = image.topics().flat_map(|topic| &topic.partitions);
    gauge(
        "metaq_partitions_without_leader",
        "Partitions of the cluster whose broker is away",
        partitions.filter(away).count() as i64,
    );
    gauge(
        "metaq_brokers",
        "Live brokers of the cluster",
        image.brokers.len() as i64,
    );
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in &self.counters {
            let counter = ConstCounter::new(*value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, value) in &self.gauges {
            ConstGauge::new(*value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        self.encode_apis(&mut encoder)?;
        self.encode_partitions(&mut encoder)
    }
}

impl Snapshot {
    fn encode_apis(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        type Of = fn(&crate::metrics::ApiSnapshot) -> u64;
        let columns: [(&str, &str, Option<&Unit>, Of); 3] = [
            ("metaq_requests", "Requests answered", None, |api| {
                api.requests
            }),
            (
                "metaq_request",
                "Bytes of requests",
                Some(&Unit::Bytes),
                |api| api.request_bytes,
            ),
            (
                "metaq_response",
                "Bytes of answers",
                Some(&Unit::Bytes),
                |api| api.response_bytes,
            ),
        ];
        for (name, help, unit, of) in columns {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            for api in &self.apis {
                let labels = [("api", api_name(api.key))];
                ConstCounter::new(of(api)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Time from a request's arrival to its answer";
        let mut family = encoder.encode_descriptor(
            "metaq_request",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for api in &self.apis {
            let labels = [("api", api_name(api.key))];
            let mut below = 0;
            let mut buckets = Vec::with_capacity(api.buckets.len() + 1);
            for (bound_us, cumulated) in &api.buckets {
                buckets.push((*bound_us as f64 / 1e6, cumulated - below));
                below = *cumulated;
            }
            buckets.push((f64::MAX, api.requests - below));
            let mut labelled = family.encode_family(&labels)?;
            labelled.encode_histogram::<[(String, String); 0]>(
                api.time_us as f64 / 1e6,
                api.requests,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn encode_partitions(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let columns = [
            ("metaq_partition_bytes", "Bytes of segments"),
            ("metaq_partition_log_start_offset", "First readable offset"),
            (
                "metaq_partition_log_end_offset",
                "Next offset to be written",
            ),
            (
                "metaq_partition_high_watermark",
                "Offset before which readers see",
            ),
        ];
        for (n, (name, help)) in columns.into_iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (topic, identity, numbers) in &self.partitions {
                let labels = [("topic", topic.as_str()), ("partition", identity.as_str())];
                ConstGauge::new(numbers[n]).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
