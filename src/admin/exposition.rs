//! `/metrics`: the counters of `metrics`, and what is looked up at the time, as OpenMetrics text, or in Prometheus' older
//! format for those who do not ask for that.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use metaq_protocol::ResponseError;
use metaq_protocol::frame::api_name;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::definitions::{self as all, Definition, METRICS, MetricKind};
use super::process;
use crate::api::{Context, error_name};
use crate::certificates::CertificateState;
use crate::meta::SessionState;
use crate::observe::{EventKind, SYNC_BUCKETS_US, SeriesKind};
use crate::partition::{Acks, CleanerFigures};
use crate::quota::{Counts, QuotaKind};
use crate::transaction::TransactionCounts;

/// A value at one moment.
#[derive(Debug)]
enum Value {
    Int(i64),
    Float(f64),
    Histogram {
        seconds: f64,
        count: u64,
        /// Upper bound in microseconds, count at or below it.
        buckets: Vec<(u64, u64)>,
    },
}

/// Series of one metric: values of its labels, and its own.
#[derive(Debug)]
struct Family {
    definition: &'static Definition,
    series: Vec<(Vec<Cow<'static, str>>, Value)>,
}

/// Everything at one moment.
#[derive(Debug, Default)]
struct Snapshot {
    families: Vec<Family>,
}

/// Renders all metrics.
pub(super) async fn render(cx: &Context) -> String {
    let groups = cx.coordinator.list().await.unwrap_or_default();
    let transactions = cx.transactions.count().await;
    let mut snapshot = Snapshot::default();
    snapshot.add_connections(cx);
    snapshot.add_certificates(cx);
    snapshot.add_quotas(cx);
    snapshot.add_requests(cx);
    snapshot.add_logs(cx);
    snapshot.add_cleaner(&cx.cleaner.figures());
    snapshot.add_groups(cx, groups.len());
    snapshot.add_transactions(&transactions);
    snapshot.add_coordination(cx);
    snapshot.add_process(cx);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut out = String::new();
    match text::encode(&mut out, &registry) {
        Ok(()) => out,
        Err(error) => format!("# {error}\n"),
    }
}

/// The same in Prometheus' text format 0.0.4: there a counter's description has its whole name, and units are not given.
pub(super) fn in_older_format(text: &str) -> String {
    let counters = METRICS
        .iter()
        .filter(|metric| metric.kind == MetricKind::Counter);
    let counters: HashSet<String> = counters.map(|metric| metric.exposed()).collect();
    let mut out = String::with_capacity(text.len() + 1024);
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(what)) = (words.next(), words.next()) else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        if let ("HELP" | "TYPE", Some(name), Some(rest)) = (what, words.next(), words.next()) {
            let whole = format!("{name}_total");
            let name = if counters.contains(&whole) {
                &whole
            } else {
                name
            };
            let _ = writeln!(out, "# {what} {name} {rest}");
        }
    }
    out
}

fn count(value: &AtomicU64) -> i64 {
    value.load(Ordering::Relaxed) as i64
}

impl Snapshot {
    fn set(&mut self, definition: &'static Definition, value: i64) {
        self.add(definition, vec![(Vec::new(), Value::Int(value))]);
    }

    fn add(
        &mut self,
        definition: &'static Definition,
        series: Vec<(Vec<Cow<'static, str>>, Value)>,
    ) {
        self.families.push(Family { definition, series });
    }

    fn add_connections(&mut self, cx: &Context) {
        let metrics = &cx.metrics;
        let now = |value: &AtomicI64| value.load(Ordering::Relaxed);
        self.set(&all::CONNECTIONS, now(&metrics.connections));
        self.set(
            &all::CONNECTIONS_ACCEPTED,
            count(&metrics.connections_accepted),
        );
        self.set(
            &all::CONNECTIONS_THROTTLED,
            count(&metrics.connections_throttled),
        );
        self.set(
            &all::CONNECTIONS_REJECTED,
            count(&metrics.connections_rejected),
        );
        self.set(&all::FRAMES_MALFORMED, count(&metrics.frames_malformed));
        self.set(&all::HANDSHAKES_FAILED, count(&metrics.handshakes_failed));
        self.set(&all::AUTHENTICATIONS, count(&metrics.authentications));
        self.set(&all::AUDIT_LINES_DROPPED, cx.audit.dropped() as i64);
        let failed = &metrics.authentications_failed;
        self.set(&all::AUTHENTICATIONS_FAILED, count(failed));
        self.set(&all::HANDLER_PANICS, count(&metrics.handler_panics));
        self.set(&all::REQUEST_MEMORY, now(&metrics.request_memory_bytes));
        self.set(&all::FETCH_SESSIONS, cx.fetch_sessions.len() as i64);
        self.set(&all::TELEMETRY_CLIENTS, cx.telemetry.len() as i64);
    }

    fn add_certificates(&mut self, cx: &Context) {
        let states = cx.certificates.states();
        let by_listener = |value: fn(&CertificateState) -> i64| {
            let one = |state: &CertificateState| {
                (
                    vec![Cow::Owned(state.listener.clone())],
                    Value::Int(value(state)),
                )
            };
            states.iter().map(one).collect()
        };
        self.add(
            &all::CERTIFICATE_EXPIRY,
            by_listener(|state| state.expires_s),
        );
        let is_unusable = |state: &CertificateState| i64::from(state.failure.is_some());
        self.add(&all::CERTIFICATE_UNUSABLE, by_listener(is_unusable));
    }

    fn add_quotas(&mut self, cx: &Context) {
        let mut all = cx.quotas.counts(tokio::time::Instant::now());
        let throttled = QuotaKind::ALL.into_iter().map(|kind| {
            let throttled = all.iter().filter(|one| one.kind == kind);
            let throttled = throttled.filter(|one| one.throttling.is_some()).count();
            (
                vec![Cow::Borrowed(kind.key())],
                Value::Int(throttled as i64),
            )
        });
        self.add(&all::QUOTA_THROTTLED, throttled.collect());
        all.sort_by_key(|one| one.throttling.is_none());
        all.truncate(all::QUOTA_SERIES_MAX);
        type Of = fn(&Counts) -> Option<Value>;
        let columns: [(&'static Definition, Of); 5] = [
            (&all::QUOTA_LIMIT, |one| Some(Value::Float(one.rule.limit))),
            (&all::QUOTA_RATE, |one| Some(Value::Float(one.rate))),
            (&all::QUOTA_TOKENS, |one| one.tokens.map(Value::Float)),
            (&all::QUOTA_THROTTLES, |one| {
                Some(Value::Int(one.throttles as i64))
            }),
            (&all::QUOTA_THROTTLE_TIME, |one| {
                Some(Value::Float(one.throttled_for.as_secs_f64()))
            }),
        ];
        for (definition, of) in columns {
            let series = all.iter().filter_map(|one| {
                let user = Cow::Owned(one.user.clone());
                let client = Cow::Owned(one.client_id.clone());
                Some((vec![Cow::Borrowed(one.kind.key()), user, client], of(one)?))
            });
            self.add(definition, series.collect());
        }
    }

    fn add_requests(&mut self, cx: &Context) {
        let apis = cx.metrics.apis();
        type Of = fn(&crate::metrics::ApiSnapshot) -> u64;
        let columns: [(&'static Definition, Of); 3] = [
            (&all::REQUESTS, |api| api.requests),
            (&all::REQUEST_BYTES, |api| api.request_bytes),
            (&all::RESPONSE_BYTES, |api| api.response_bytes),
        ];
        for (definition, of) in columns {
            let series = apis.iter().map(|api| {
                let labels = vec![Cow::Borrowed(api_name(api.key))];
                (labels, Value::Int(of(api) as i64))
            });
            self.add(definition, series.collect());
        }
        let times = apis.iter().map(|api| {
            let times = Value::Histogram {
                seconds: api.time_us as f64 / 1e6,
                count: api.requests,
                buckets: api.buckets.clone(),
            };
            (vec![Cow::Borrowed(api_name(api.key))], times)
        });
        self.add(&all::REQUEST_SECONDS, times.collect());
        let errors = cx
            .metrics
            .errors()
            .into_iter()
            .filter_map(|(key, code, count)| {
                let error = error_name(ResponseError::try_from_code(code)?);
                let labels = vec![Cow::Borrowed(api_name(key)), Cow::Owned(error)];
                Some((labels, Value::Int(count as i64)))
            });
        self.add(&all::REQUEST_ERRORS, errors.collect());
        let events = EventKind::ALL.into_iter().map(|kind| {
            let total = cx.observe.events.total(kind) as i64;
            (vec![Cow::Borrowed(kind.name())], Value::Int(total))
        });
        self.add(&all::EVENTS, events.collect());
    }

    fn add_logs(&mut self, cx: &Context) {
        let config = cx.config.load();
        let topics_max = config.number("metrics.topics.max").max(0) as usize;
        let partitions_max = config.number("metrics.partitions.max").max(0) as usize;
        let (mut online, mut offline, mut left_out) = (0, 0, 0);
        let mut by_topic = [const { Vec::new() }; 4];
        let mut by_partition = [const { Vec::new() }; 5];
        let mut topics = cx.partitions.topics();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        for (n, topic) in topics.into_iter().enumerate() {
            offline += topic.offline().count();
            let mut sums = [0; 4];
            for partition in topic.online() {
                let (log, ends) = (partition.log(), partition.log().ends());
                let bytes = log.bytes() as i64;
                let traffic = partition.traffic();
                let (appended, sent) = (traffic.appended_bytes(), traffic.sent_bytes());
                let more = [bytes, appended as i64, sent as i64, ends.log_end.offset];
                sums.iter_mut()
                    .zip(more)
                    .for_each(|(sum, more)| *sum += more);
                online += 1;
                if online > partitions_max {
                    left_out += 1;
                    continue;
                }
                let limits = partition.read_limits();
                let watermark = limits.high_watermark();
                let held_back = watermark - limits.last_stable_offset();
                let end = ends.log_end.offset;
                let own = [bytes, ends.log_start, end, watermark, held_back];
                for (series, value) in by_partition.iter_mut().zip(own) {
                    let labels = [topic.topic.to_string(), partition.identity().to_string()];
                    series.push((labels.map(Cow::Owned).to_vec(), Value::Int(value)));
                }
            }
            if n < topics_max {
                for (series, sum) in by_topic.iter_mut().zip(sums) {
                    let labels = vec![Cow::Owned(topic.topic.to_string())];
                    series.push((labels, Value::Int(sum)));
                }
            }
        }
        self.set(&all::TOPICS, cx.cluster.image().topics().count() as i64);
        let definitions = [
            &all::TOPIC_BYTES,
            &all::TOPIC_APPENDED,
            &all::TOPIC_SENT,
            &all::TOPIC_MESSAGES,
        ];
        for (definition, series) in definitions.into_iter().zip(by_topic) {
            self.add(definition, series);
        }
        self.set(&all::PARTITIONS, online as i64);
        self.set(&all::PARTITIONS_OFFLINE, offline as i64);
        self.set(&all::PARTITIONS_LEFT_OUT, left_out);
        let definitions = [
            &all::PARTITION_BYTES,
            &all::PARTITION_START,
            &all::PARTITION_END,
            &all::PARTITION_WATERMARK,
            &all::PARTITION_HELD_BACK,
        ];
        for (definition, series) in definitions.into_iter().zip(by_partition) {
            self.add(definition, series);
        }
        self.add_disks(cx);
    }

    fn add_disks(&mut self, cx: &Context) {
        let syncs = cx.observe.syncs.snapshot();
        let times = Value::Histogram {
            seconds: syncs.time_us as f64 / 1e6,
            count: syncs.count,
            buckets: SYNC_BUCKETS_US.into_iter().zip(syncs.buckets).collect(),
        };
        self.add(&all::SYNC_SECONDS, vec![(Vec::new(), times)]);
        let (mut sizes, mut free) = (Vec::new(), Vec::new());
        for dir in cx.partitions.data_dirs() {
            let disk = process::disk_of(dir.path());
            let name = || vec![Cow::Owned(dir.path().display().to_string())];
            sizes.push((name(), Value::Int(disk.bytes as i64)));
            free.push((name(), Value::Int(disk.free as i64)));
        }
        self.add(&all::DISK_BYTES, sizes);
        self.add(&all::DISK_FREE, free);
    }

    fn add_cleaner(&mut self, figures: &CleanerFigures) {
        for (definition, count) in [
            (&all::CLEANER_PASSES, figures.passes),
            (&all::CLEANER_FAILURES, figures.failures),
            (&all::CLEANER_READ, figures.read_bytes),
            (&all::CLEANER_WRITTEN, figures.written_bytes),
            (&all::CLEANER_DROPPED, figures.dropped_bytes),
            (&all::CLEANER_OVERDUE, figures.overdue),
            (&all::UNCLEANABLE, figures.uncleanable),
            (&all::UNCLEANABLE_BYTES, figures.uncleanable_bytes),
            (&all::CLEANER_DEAD, figures.dead_threads),
        ] {
            self.set(definition, count as i64);
        }
        let one = |value| vec![(Vec::new(), Value::Float(value))];
        self.add(&all::CLEANER_DIRTY, one(figures.dirty_ratio_max));
        let longest = figures.last_pass_ms_max as f64 / 1e3;
        self.add(&all::CLEANER_LONGEST, one(longest));
    }

    fn add_groups(&mut self, cx: &Context, groups: usize) {
        self.set(&all::GROUPS, groups as i64);
        let lags = cx.observe.history.series(SeriesKind::GroupLag, 0);
        let lags = lags.into_iter().filter_map(|series| {
            let latest = series.points.last()?.value;
            Some((vec![Cow::Owned(series.name)], Value::Float(latest)))
        });
        self.add(&all::GROUP_LAG, lags.collect());
    }

    fn add_transactions(&mut self, counts: &TransactionCounts) {
        for (definition, count) in [
            (&all::TRANSACTIONAL_IDS, counts.ids),
            (&all::TRANSACTIONS_OPEN, counts.open),
            (&all::TRANSACTIONS_TWO_PHASE, counts.two_phase),
            (&all::TRANSACTIONS_ENDING, counts.ending),
            (&all::TRANSACTIONS_HANGING, counts.hanging),
        ] {
            self.set(definition, count as i64);
        }
    }

    fn add_coordination(&mut self, cx: &Context) {
        let (meta, image) = (cx.cluster.meta(), cx.cluster.image());
        let session = *meta.session().borrow();
        let own = cx.cluster.broker_id();
        let connected = session.state == SessionState::Connected;
        self.set(&all::COORDINATION_CONNECTED, i64::from(connected));
        self.set(&all::COORDINATION_SESSION, session.number as i64);
        self.set(&all::COORDINATION_MAY_ACT, i64::from(cx.cluster.may_act()));
        if let Some(left) = meta.lease().left() {
            self.set(&all::COORDINATION_LEASE, left.as_millis() as i64);
        }
        self.set(&all::CONTROLLER, i64::from(cx.cluster.is_controller()));
        let slots = image.slots.iter().filter(|slot| slot.owner == own).count();
        self.set(&all::COORDINATOR_SLOTS, slots as i64);
        self.set(&all::BROKERS, image.brokers.len() as i64);
        let away =
            |info: &&crate::cluster::PartitionInfo| !image.brokers.contains_key(&info.leader);
        let partitions = image.topics().flat_map(|topic| &topic.partitions);
        self.set(&all::WITHOUT_LEADER, partitions.filter(away).count() as i64);
        let is_moving =
            |info: &&crate::cluster::PartitionInfo| info.leader == own && info.is_moving();
        let partitions = image.topics().flat_map(|topic| &topic.partitions);
        let moving = partitions.filter(is_moving).count();
        self.set(&all::REASSIGNING, moving as i64);
        self.add_replicas(cx);
    }

    fn add_replicas(&mut self, cx: &Context) {
        let (mut led, mut under_replicated, mut under_min_isr, mut at_min_isr) = (0, 0, 0, 0);
        let (mut replica_lag, mut follower_lag) = (0, 0);
        let image = cx.cluster.image();
        let topics = cx.partitions.topics();
        for partition in topics.iter().flat_map(|topic| topic.online()) {
            replica_lag = replica_lag.max(partition.follower_lag().unwrap_or(0));
            if !partition.is_leader() {
                continue;
            }
            let (all, in_sync) = (partition.replicas(), partition.in_sync_replicas());
            let needed = partition.needed_in_sync(Acks::All);
            // Those that a reassignment adds are not missed (Kafka's Partition.isUnderReplicated).
            let info = image.topic_by_id(partition.topic_id());
            let info = info.and_then(|topic| topic.partition(partition.index()));
            let adding = info.map_or(0, |info| info.adding.len());
            led += 1;
            under_replicated += i64::from(in_sync + adding < all);
            under_min_isr += i64::from(in_sync < needed);
            at_min_isr += i64::from(in_sync == needed);
            if all > 1 {
                let end = partition.log().ends().log_end.offset;
                let followers = partition.followers().into_iter();
                let known = followers.filter(|follower| follower.log_end >= 0);
                let lag = known.map(|follower| end - follower.log_end).max();
                follower_lag = follower_lag.max(lag.unwrap_or(0));
            }
        }
        for (definition, value) in [
            (&all::LED, led),
            (&all::UNDER_REPLICATED, under_replicated),
            (&all::UNDER_MIN_ISR, under_min_isr),
            (&all::AT_MIN_ISR, at_min_isr),
            (&all::REPLICA_LAG, replica_lag),
            (&all::FOLLOWER_LAG, follower_lag),
        ] {
            self.set(definition, value);
        }
        let metrics = &cx.metrics;
        for (definition, value) in [
            (&all::ISR_SHRINKS, &metrics.isr_shrinks),
            (&all::ISR_EXPANDS, &metrics.isr_expands),
            (&all::ISR_FAILED, &metrics.isr_updates_failed),
            (&all::REPLICATION_SENT, &metrics.replication_sent_bytes),
            (
                &all::REPLICATION_RECEIVED,
                &metrics.replication_received_bytes,
            ),
        ] {
            self.set(definition, count(value));
        }
    }

    fn add_process(&mut self, cx: &Context) {
        let version = vec![Cow::Borrowed(env!("CARGO_PKG_VERSION"))];
        self.add(&all::BUILD, vec![(version, Value::Int(1))]);
        let one = |value| vec![(Vec::new(), Value::Float(value))];
        self.add(&all::UPTIME, one(cx.observe.uptime().as_secs_f64()));
        self.add(&all::PROCESS_CPU, one(process::cpu_seconds()));
        self.set(&all::PROCESS_RESIDENT, process::resident_bytes() as i64);
        let (open, most) = process::open_files();
        self.set(&all::PROCESS_FILES, open as i64);
        self.set(
            &all::PROCESS_FILES_MAX,
            i64::try_from(most).unwrap_or(i64::MAX),
        );
        self.add(
            &all::PROCESS_START,
            one(cx.observe.started_ms() as f64 / 1e3),
        );
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.families
            .iter()
            .try_for_each(|family| family.encode(&mut encoder))
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let definition = self.definition;
        let kind = match definition.kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Histogram => MetricType::Histogram,
        };
        let unit = match definition.unit {
            "bytes" => Some(&Unit::Bytes),
            "seconds" => Some(&Unit::Seconds),
            _ => None,
        };
        let mut family = encoder.encode_descriptor(definition.name, definition.help, unit, kind)?;
        if definition.labels.is_empty() {
            // One series.
            return match self.series.first() {
                Some((_, value)) => value.encode(definition.kind, family),
                None => Ok(()),
            };
        }
        for (values, value) in &self.series {
            let names = definition.labels.iter().copied();
            let escaped: Vec<Cow<'_, str>> = values.iter().map(|value| escape(value)).collect();
            let labels: Vec<(&str, &str)> = names.zip(escaped.iter().map(AsRef::as_ref)).collect();
            value.encode(definition.kind, family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// A label's value as both text formats have it, between quotes; the library writes values as they are.
fn escape(value: &str) -> Cow<'_, str> {
    match value.contains(['\\', '"', '\n']) {
        false => Cow::Borrowed(value),
        true => {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            Cow::Owned(value.replace('\n', "\\n"))
        }
    }
}

impl Value {
    fn encode(&self, kind: MetricKind, mut to: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match (self, kind) {
            (Self::Int(value), MetricKind::Counter) => ConstCounter::new(*value as u64).encode(to),
            (Self::Int(value), _) => ConstGauge::new(*value).encode(to),
            (Self::Float(value), MetricKind::Counter) => ConstCounter::new(*value).encode(to),
            (Self::Float(value), _) => ConstGauge::new(*value).encode(to),
            (
                Self::Histogram {
                    seconds,
                    count,
                    buckets,
                },
                _,
            ) => {
                let mut below = 0;
                let mut own = Vec::with_capacity(buckets.len() + 1);
                for (bound_us, cumulated) in buckets {
                    own.push((*bound_us as f64 / 1e6, cumulated.saturating_sub(below)));
                    below = *cumulated;
                }
                own.push((f64::MAX, count.saturating_sub(below)));
                to.encode_histogram::<[(&str, &str); 0]>(*seconds, *count, &own, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_calls_a_group_is_escaped_in_its_label() {
        let name = "reports \"eu\" C:\\x\nmetaq_up 0";
        let series = vec![(vec![Cow::Borrowed(name)], Value::Float(1.0))];
        let mut snapshot = Snapshot::default();
        snapshot.add(&all::GROUP_LAG, series);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(snapshot));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        let sample = r#"metaq_group_lag{group="reports \"eu\" C:\\x\nmetaq_up 0"} 1.0"#;
        assert!(page.lines().any(|line| line == sample), "{page}");
        assert!(in_older_format(&page).contains(sample));
    }
}
