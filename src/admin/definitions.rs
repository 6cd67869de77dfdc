//! Every metric of `/metrics`: what it is called, what it counts, and how many series it may have. docs/metrics.md is made
//! of this table, and nothing else is given out.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size; upper bounds in seconds.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Definition {
    /// Without the unit and `_total`; see [`Definition::exposed`].
    pub(super) name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// `bytes`, `seconds` or empty; stands after the name.
    pub(super) unit: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// How many series there are at most.
    pub bound: &'static str,
    /// What it is.
    pub help: &'static str,
}

impl Definition {
    /// The name under which Prometheus finds it; histograms have `_bucket`, `_sum` and `_count` after it.
    pub fn exposed(&self) -> String {
        let mut name = self.name.to_owned();
        if !self.unit.is_empty() {
            name = format!("{name}_{}", self.unit);
        }
        match self.kind {
            MetricKind::Counter => name + "_total",
            _ => name,
        }
    }
}

const fn of(kind: MetricKind, name: &'static str, help: &'static str) -> Definition {
    Definition {
        name,
        kind,
        unit: "",
        labels: &[],
        bound: "1",
        help,
    }
}

const fn counter(name: &'static str, help: &'static str) -> Definition {
    of(MetricKind::Counter, name, help)
}

const fn gauge(name: &'static str, help: &'static str) -> Definition {
    of(MetricKind::Gauge, name, help)
}

impl Definition {
    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn by(self, labels: &'static [&'static str], bound: &'static str) -> Self {
        Self {
            labels,
            bound,
            ..self
        }
    }
}

/// Series of quotas by whom they count.
pub(super) const QUOTA_SERIES_MAX: usize = 200;
const PER_QUOTA: &str = "200, throttled ones first";
const PER_API: &str = "one an API that was asked";
const PER_TOPIC: &str = "metrics.topics.max";
const PER_PARTITION: &str = "metrics.partitions.max";
const PER_DIR: &str = "one a data directory";

macro_rules! metrics {
    ($($constant:ident = $definition:expr;)*) => {
        $(pub(super) static $constant: Definition = $definition;)*
        /// All of them, in the order in which they are given out.
        pub static METRICS: &[&Definition] = &[$(&$constant),*];
    };
}

metrics! {
    BUILD = gauge("metaq_build_info", "1; the version is a label").by(&["version"], "1");
    UPTIME = gauge("metaq_uptime", "Time since the start").unit("seconds");

    CONNECTIONS = gauge("metaq_connections", "Open connections");
    CONNECTIONS_ACCEPTED = counter("metaq_connections_accepted", "Connections accepted");
    CONNECTIONS_THROTTLED = counter("metaq_connections_throttled", "Connections closed later, because their addresses made too many a second");
    CONNECTIONS_REJECTED = counter("metaq_connections_rejected", "Connections closed because of a limit");
    QUOTA_LIMIT = gauge("metaq_quota_limit", "The quota in force of those that did something: bytes, percent of a thread or partitions a second").by(&["quota", "user", "client_id"], PER_QUOTA);
    QUOTA_RATE = gauge("metaq_quota_rate", "What they did of it a second (Kafka's byte-rate, request-time and mutation-rate)").by(&["quota", "user", "client_id"], PER_QUOTA);
    QUOTA_TOKENS = gauge("metaq_quota_tokens", "Partitions that they may create or delete at once (Kafka's tokens)").by(&["quota", "user", "client_id"], PER_QUOTA);
    QUOTA_THROTTLES = counter("metaq_quota_throttles", "How often they were throttled").by(&["quota", "user", "client_id"], PER_QUOTA);
    QUOTA_THROTTLE_TIME = counter("metaq_quota_throttle_time", "For how long they were told to wait (Kafka's throttle-time)").unit("seconds").by(&["quota", "user", "client_id"], PER_QUOTA);
    QUOTA_THROTTLED = gauge("metaq_quota_throttled", "How many are throttled now").by(&["quota"], "4");
    FRAMES_MALFORMED = counter("metaq_frames_malformed", "Frames that closed their connection");
    HANDSHAKES_FAILED = counter("metaq_handshakes_failed", "Connections whose handshake of TLS failed or took too long");
    CERTIFICATE_EXPIRY = gauge("metaq_certificate_expiry_timestamp", "Until when the certificate that a listener shows is good, since 1970").unit("seconds").by(&["listener"], "one a listener with TLS");
    CERTIFICATE_UNUSABLE = gauge("metaq_certificate_unusable", "1 when what is in a listener's files now cannot be used, and what was read before is shown on").by(&["listener"], "one a listener with TLS");
    AUDIT_LINES_DROPPED = counter("metaq_audit_lines_dropped", "Lines that the audit log could not keep");
    AUTHENTICATIONS = counter("metaq_authentications", "Clients that authenticated with SASL");
    AUTHENTICATIONS_FAILED = counter("metaq_authentications_failed", "Tries to authenticate with SASL that failed");
    HANDLER_PANICS = counter("metaq_handler_panics", "Requests that ended in a bug");
    REQUEST_MEMORY = gauge("metaq_request_memory", "Memory held by unanswered requests and by answers that are not taken").unit("bytes");
    FETCH_SESSIONS = gauge("metaq_fetch_sessions", "Fetch sessions");

    REQUESTS = counter("metaq_requests", "Requests answered").by(&["api"], PER_API);
    REQUEST_BYTES = counter("metaq_request", "Bytes of requests").unit("bytes").by(&["api"], PER_API);
    RESPONSE_BYTES = counter("metaq_response", "Bytes of answers").unit("bytes").by(&["api"], PER_API);
    REQUEST_SECONDS = of(
        MetricKind::Histogram,
        "metaq_request",
        "Time from a request's arrival to its answer; Fetch, JoinGroup and SyncGroup wait on purpose"
    ).unit("seconds").by(&["api"], PER_API);
    REQUEST_ERRORS = counter(
        "metaq_request_errors",
        "Errors told to clients, but for those that only send them elsewhere or let them come again"
    ).by(&["api", "error"], "one an API and error that happened");
    EVENTS = counter(
        "metaq_events",
        "What happened, as the dashboard's list of events tells it: rebalances, rejections, sessions, slow syncs and so on"
    ).by(&["kind"], "one a kind");

    TOPICS = gauge("metaq_topics", "Topics of the cluster");
    TOPIC_BYTES = gauge("metaq_topic", "Bytes of segments on this broker").unit("bytes").by(&["topic"], PER_TOPIC);
    TOPIC_APPENDED = counter(
        "metaq_topic_appended",
        "Bytes of records appended on this broker"
    ).unit("bytes").by(&["topic"], PER_TOPIC);
    TOPIC_SENT = counter(
        "metaq_topic_sent",
        "Bytes of records sent to consumers by this broker"
    ).unit("bytes").by(&["topic"], PER_TOPIC);
    TOPIC_MESSAGES = counter(
        "metaq_topic_messages",
        "Messages that this broker's partitions of the topic ever had: the sum of their log end offsets"
    ).by(&["topic"], PER_TOPIC);
    PARTITIONS = gauge("metaq_partitions", "Partitions online");
    PARTITIONS_OFFLINE = gauge("metaq_partitions_offline", "Partitions offline");
    PARTITIONS_LEFT_OUT = gauge(
        "metaq_metrics_partitions_left_out",
        "Partitions without series of their own, because there are more than metrics.partitions.max"
    );
    PARTITION_BYTES = gauge("metaq_partition", "Bytes of segments").unit("bytes").by(&["topic", "partition"], PER_PARTITION);
    PARTITION_START = gauge(
        "metaq_partition_log_start_offset",
        "First readable offset"
    ).by(&["topic", "partition"], PER_PARTITION);
    PARTITION_END = gauge(
        "metaq_partition_log_end_offset",
        "Next offset to be written"
    ).by(&["topic", "partition"], PER_PARTITION);
    PARTITION_WATERMARK = gauge(
        "metaq_partition_high_watermark",
        "Offset before which readers see"
    ).by(&["topic", "partition"], PER_PARTITION);
    PARTITION_HELD_BACK = gauge(
        "metaq_partition_last_stable_offset_lag",
        "Offsets below the high watermark that undecided transactions hold back from readers of committed records"
    ).by(&["topic", "partition"], PER_PARTITION);
    SYNC_SECONDS = of(MetricKind::Histogram, "metaq_sync", "Time of a sync to the disk").unit("seconds");
    DISK_BYTES = gauge("metaq_disk", "Size of the file system of a data directory").unit("bytes").by(&["dir"], PER_DIR);
    DISK_FREE = gauge("metaq_disk_free", "What is free of it").unit("bytes").by(&["dir"], PER_DIR);

    CLEANER_PASSES = counter("metaq_cleaner_passes", "Passes of compaction over a log that came to their end");
    CLEANER_FAILURES = counter("metaq_cleaner_failures", "Passes of compaction that failed");
    CLEANER_READ = counter("metaq_cleaner_read", "Bytes that compaction read").unit("bytes");
    CLEANER_WRITTEN = counter("metaq_cleaner_written", "Bytes that compaction wrote").unit("bytes");
    CLEANER_DROPPED = counter("metaq_cleaner_dropped", "Bytes by which compaction made logs smaller").unit("bytes");
    CLEANER_DIRTY = gauge(
        "metaq_cleaner_dirty_ratio_max",
        "The largest share of bytes of a compacted log that are not compacted yet, 0 to 1, at the cleaners' last look"
    );
    CLEANER_OVERDUE = gauge(
        "metaq_cleaner_overdue_partitions",
        "Partitions with records older than max.compaction.lag.ms that are not compacted, at the cleaners' last look"
    );
    CLEANER_LONGEST = gauge("metaq_cleaner_longest_pass", "The longest of the last passes over each log").unit("seconds");
    UNCLEANABLE = gauge("metaq_cleaner_uncleanable_partitions", "Partitions that cannot be compacted");
    UNCLEANABLE_BYTES = gauge("metaq_cleaner_uncleanable", "Bytes that are not compacted because of that").unit("bytes");
    CLEANER_DEAD = gauge("metaq_cleaner_dead_threads", "Threads that compact and ended by a bug");

    GROUPS = gauge("metaq_groups", "Groups that this broker coordinates");
    GROUP_LAG = gauge(
        "metaq_group_lag",
        "Messages that a group that is coordinated here has not read; of a share group those that are not done; looked up every ten seconds"
    ).by(&["group"], "the 16 groups that lie furthest behind");

    TRANSACTIONAL_IDS = gauge("metaq_transactional_ids", "Transactional ids that this broker coordinates");
    TRANSACTIONS_OPEN = gauge("metaq_transactions_open", "Open transactions of these");
    TRANSACTIONS_TWO_PHASE = gauge("metaq_transactions_two_phase", "Open transactions of two phases, which have no timeout");
    TRANSACTIONS_ENDING = gauge("metaq_transactions_ending", "Transactions that are decided, and whose markers are being written");
    TRANSACTIONS_HANGING = gauge(
        "metaq_transactions_hanging",
        "Transactions that are decided, and whose markers have not been written for 30 seconds"
    );

    COORDINATION_CONNECTED = gauge("metaq_coordination_connected", "1 when the coordination store answers");
    COORDINATION_SESSION = gauge("metaq_coordination_session", "Sessions with the coordination store since the start");
    COORDINATION_MAY_ACT = gauge("metaq_coordination_may_act", "1 when this broker may lead and coordinate");
    COORDINATION_LEASE = gauge(
        "metaq_coordination_lease_ms",
        "How long this broker may lead and coordinate without an answer, ms; with ZooKeeper only"
    );
    CONTROLLER = gauge("metaq_controller", "1 when this broker is the controller");
    COORDINATOR_SLOTS = gauge("metaq_coordinator_slots", "Slots of groups that this broker coordinates");
    BROKERS = gauge("metaq_brokers", "Live brokers of the cluster");
    WITHOUT_LEADER = gauge("metaq_partitions_without_leader", "Partitions of the cluster whose broker is away");
    UNDER_REPLICATED = gauge(
        "metaq_partitions_under_replicated",
        "Partitions that this broker leads and of which not all replicas are in sync (Kafka's UnderReplicatedPartitions)"
    );
    UNDER_MIN_ISR = gauge(
        "metaq_partitions_under_min_isr",
        "Partitions that this broker leads with fewer replicas in sync than min.insync.replicas (Kafka's UnderMinIsrPartitionCount): acks=all is refused"
    );

    AT_MIN_ISR = gauge(
        "metaq_partitions_at_min_isr",
        "Partitions that this broker leads with just min.insync.replicas in sync (Kafka's AtMinIsrPartitionCount): one less, and acks=all is refused"
    );
    LED = gauge("metaq_partitions_led", "Partitions that this broker leads (Kafka's LeaderCount)");
    REASSIGNING = gauge(
        "metaq_partitions_reassigning",
        "Partitions that this broker leads and whose replicas move to other brokers (Kafka's ReassigningPartitions)"
    );
    ISR_SHRINKS = counter(
        "metaq_isr_shrinks",
        "How often replicas of partitions that this broker leads fell out of sync because they lagged (Kafka's IsrShrinksPerSec)"
    );
    ISR_EXPANDS = counter(
        "metaq_isr_expands",
        "How often replicas of partitions that this broker leads came to be in sync (Kafka's IsrExpandsPerSec)"
    );
    ISR_FAILED = counter(
        "metaq_isr_updates_failed",
        "Proposals of who is in sync that the controller refused for good (Kafka's FailedIsrUpdatesPerSec)"
    );
    REPLICA_LAG = gauge(
        "metaq_replica_lag_max",
        "Messages that the replica that follows furthest behind on this broker lacks of what its leader said is committed (Kafka's MaxLag of ReplicaFetcherManager)"
    );
    FOLLOWER_LAG = gauge(
        "metaq_follower_lag_max",
        "Messages that the follower furthest behind lacks of a partition that this broker leads; of those that have fetched from it"
    );
    REPLICATION_SENT = counter(
        "metaq_replication_sent",
        "Bytes of records sent to followers (Kafka's ReplicationBytesOutPerSec)"
    ).unit("bytes");
    REPLICATION_RECEIVED = counter(
        "metaq_replication_received",
        "Bytes of records taken as a follower (Kafka's ReplicationBytesInPerSec)"
    ).unit("bytes");

    TELEMETRY_CLIENTS = gauge("metaq_telemetry_clients", "Clients that ask for or push telemetry (KIP-714)");

    PROCESS_CPU = counter("process_cpu", "User and system CPU time").unit("seconds");
    PROCESS_RESIDENT = gauge("process_resident_memory", "Resident memory").unit("bytes");
    PROCESS_FILES = gauge("process_open_fds", "Open files and connections");
    PROCESS_FILES_MAX = gauge("process_max_fds", "How many it may have");
    PROCESS_START = gauge("process_start_time", "Start, since 1970").unit("seconds");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_prometheus_style() {
        let mut names: Vec<String> = METRICS.iter().map(|metric| metric.exposed()).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        for metric in METRICS {
            let word = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(metric.exposed().chars().all(word), "{}", metric.exposed());
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'));
        }
    }
}
