//! Counters and histograms, each with its name, labels and meaning; this file is their documentation.
//!
//! What can be read off a partition or a group at any time (sizes, offsets, members) is not counted here but
//! looked up when metrics are asked for (`admin`).
//!
//! Tests: tests/metrics.rs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Upper bounds of the request-time buckets, microseconds.
const BUCKETS_US: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000,
];
/// API keys served are below this.
const API_KEYS: usize = 128;

/// One API's requests.
#[derive(Default)]
struct ApiMetrics {
    requests: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    time_us: AtomicU64,
    buckets: [AtomicU64; BUCKETS_US.len()],
}

/// All counters of a broker.
pub struct Metrics {
    apis: Vec<ApiMetrics>,
    /// `metaq_connections`: open connections.
    pub connections: AtomicI64,
    /// `metaq_connections_accepted_total`.
    pub connections_accepted: AtomicU64,
    /// `metaq_connections_rejected_total`: closed at once because of a limit.
    pub connections_rejected: AtomicU64,
    /// `metaq_connections_throttled_total`: closed later, because their addresses made too many a second.
    pub connections_throttled: AtomicU64,
    /// Those of them that are not closed yet.
    pub connections_held: Arc<AtomicU64>,
    /// `metaq_frames_malformed_total`: frames that closed their connection.
    pub frames_malformed: AtomicU64,
    /// `metaq_handshakes_failed_total`: connections whose handshake of TLS failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// `metaq_authentications_total`: clients that authenticated with SASL.
    pub authentications: AtomicU64,
    /// `metaq_authentications_failed_total`: tries that failed.
    pub authentications_failed: AtomicU64,
    /// `metaq_handler_panics_total`: requests that ended in a bug.
    pub handler_panics: AtomicU64,
    /// `metaq_request_memory_bytes`: held by requests that are not answered, and by answers that are not taken.
    pub request_memory_bytes: Arc<AtomicI64>,
    /// `metaq_isr_shrinks_total`: in-sync replicas of partitions led here became fewer by a proposal.
    pub isr_shrinks: AtomicU64,
    /// `metaq_isr_expands_total`: they became more.
    pub isr_expands: AtomicU64,
    /// `metaq_isr_updates_failed_total`: proposals that the controller did not take.
    pub isr_updates_failed: AtomicU64,
    /// `metaq_replication_sent_bytes_total`: records that followers took.
    pub replication_sent_bytes: AtomicU64,
    /// `metaq_replication_received_bytes_total`: records that this broker took as a follower.
    pub replication_received_bytes: AtomicU64,
    /// `metaq_request_errors_total` by API key and error code: as many as there are of both.
    errors: Mutex<BTreeMap<(i16, i16), u64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            apis: (0..API_KEYS).map(|_| ApiMetrics::default()).collect(),
            connections: AtomicI64::default(),
            connections_accepted: AtomicU64::default(),
            connections_rejected: AtomicU64::default(),
            connections_throttled: AtomicU64::default(),
            connections_held: Arc::default(),
            frames_malformed: AtomicU64::default(),
            handshakes_failed: AtomicU64::default(),
            authentications: AtomicU64::default(),
            authentications_failed: AtomicU64::default(),
            handler_panics: AtomicU64::default(),
            request_memory_bytes: Arc::default(),
            isr_shrinks: AtomicU64::default(),
            isr_expands: AtomicU64::default(),
            isr_updates_failed: AtomicU64::default(),
            replication_sent_bytes: AtomicU64::default(),
            replication_received_bytes: AtomicU64::default(),
            errors: Mutex::default(),
        }
    }
}

/// The counters of one API at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSnapshot {
    /// Its key.
    pub key: i16,
    /// `metaq_requests_total`.
    pub requests: u64,
    /// `metaq_request_bytes_total`.
    pub request_bytes: u64,
    /// `metaq_response_bytes_total`.
    pub response_bytes: u64,
    /// `metaq_request_seconds_sum`, in microseconds.
    pub time_us: u64,
    /// `metaq_request_seconds_bucket`: upper bound in microseconds, requests at or below it.
    pub buckets: Vec<(u64, u64)>,
}

impl Metrics {
    /// Notes an answered request: sizes in bytes, time from its arrival to its answer being ready.
    pub fn answered(
        &self,
        key: i16,
        request_bytes: usize,
        response_bytes: usize,
        time: std::time::Duration,
    ) {
        let Some(api) = usize::try_from(key).ok().and_then(|key| self.apis.get(key)) else {
            return;
        };
        let time_us = time.as_micros() as u64;
        api.requests.fetch_add(1, Ordering::Relaxed);
        api.request_bytes
            .fetch_add(request_bytes as u64, Ordering::Relaxed);
        api.response_bytes
            .fetch_add(response_bytes as u64, Ordering::Relaxed);
        api.time_us.fetch_add(time_us, Ordering::Relaxed);
        if let Some(at) = BUCKETS_US.iter().position(|bound| time_us <= *bound) {
            api.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes an error that was told to a client.
    pub fn refused(&self, key: i16, code: i16) {
        *self.errors.lock().entry((key, code)).or_default() += 1;
    }

    /// Errors that were told at least once: API key, error code, how often.
    pub fn errors(&self) -> Vec<(i16, i16, u64)> {
        let errors = self.errors.lock();
        let errors = errors.iter();
        errors
            .map(|((key, code), count)| (*key, *code, *count))
            .collect()
    }

    /// The APIs that were asked at least once.
    pub fn apis(&self) -> Vec<ApiSnapshot> {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let snapshot = |(key, api): (usize, &ApiMetrics)| {
            let mut below = 0;
            let cumulated = BUCKETS_US.iter().zip(&api.buckets).map(|(bound, count)| {
                below += load(count);
                (*bound, below)
            });
            ApiSnapshot {
                key: key as i16,
                requests: load(&api.requests),
                request_bytes: load(&api.request_bytes),
                response_bytes: load(&api.response_bytes),
                time_us: load(&api.time_us),
                buckets: cumulated.collect(),
            }
        };
        self.apis
            .iter()
            .enumerate()
            .filter(|(_, api)| load(&api.requests) > 0)
            .map(snapshot)
            .collect()
    }
}
