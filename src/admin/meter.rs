//! Rates: what the counters of the broker and its topics did between two looks at them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::api::Context;
use crate::metrics::ApiSnapshot;

/// APIs that wait on purpose: their times say nothing of the broker.
const WAITING_APIS: &[i16] = &[1, 11, 14, 78];
const PRODUCE: i16 = 0;

/// The counters at one moment.
pub(super) struct Reading {
    at: Instant,
    apis: Vec<ApiSnapshot>,
    cpu_s: f64,
    topics: HashMap<Uuid, Counted>,
    /// Bytes of all segments.
    pub(super) log_bytes: u64,
}

#[derive(Clone)]
struct Counted {
    name: Arc<str>,
    appended: u64,
    sent: u64,
    /// Of each partition that is online, by its number: where its log begins and ends.
    ends: HashMap<i32, (i64, i64)>,
}

impl Counted {
    /// Messages that came since an earlier reading. What a partition had when it was opened here, or was copied from another
    /// broker in one go, did not come now.
    fn messages_since(&self, then: Option<&Self>) -> i64 {
        let Some(then) = then else { return 0 };
        let came = self.ends.iter().filter_map(|(index, (start, end))| {
            let (_, before) = then.ends.get(index)?;
            Some((end - before.max(start)).max(0))
        });
        came.sum()
    }
}

/// What happened a second.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// How long it was looked, ms.
    pub(super) span_ms: i64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) messages_in: f64,
    pub(super) requests: f64,
    pub(super) cpu: f64,
    /// Produce requests: median, 99th and 99.9th percentile, microseconds.
    pub(super) produce_us: [f64; 3],
    /// The others, but for those that wait on purpose.
    pub(super) other_us: [f64; 3],
    /// Of topics on which something came or went.
    pub(super) topics: HashMap<Arc<str>, TopicRates>,
}

/// What happened on a topic a second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TopicRates {
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) messages_in: f64,
}

impl Reading {
    /// Looks at every partition; ten thousand take a millisecond or two.
    pub(super) fn take(cx: &Context) -> Self {
        let mut log_bytes = 0;
        let count = |topic: Arc<crate::partition::TopicPartitions>| {
            let mut counted = Counted {
                name: topic.topic.clone(),
                appended: 0,
                sent: 0,
                ends: HashMap::new(),
            };
            for partition in topic.online() {
                counted.appended += partition.traffic().appended_bytes();
                counted.sent += partition.traffic().sent_bytes();
                let ends = partition.log().ends();
                let of_log = (ends.log_start, ends.log_end.offset);
                counted.ends.insert(partition.index(), of_log);
                log_bytes += partition.log().bytes();
            }
            (topic.topic_id, counted)
        };
        let topics = cx.partitions.topics().into_iter().map(count).collect();
        Self {
            at: Instant::now(),
            apis: cx.metrics.apis(),
            cpu_s: super::process::cpu_seconds(),
            topics,
            log_bytes,
        }
    }

    /// What happened since an earlier reading.
    pub(super) fn since(&self, before: &Self) -> Rates {
        let seconds = (self.at - before.at).as_secs_f64().max(1e-3);
        let mut rates = Rates {
            span_ms: (seconds * 1e3) as i64,
            cpu: (self.cpu_s - before.cpu_s).max(0.0) / seconds,
            ..Rates::default()
        };
        for (id, now) in &self.topics {
            let then = before.topics.get(id);
            let (appended, sent) =
                then.map_or((now.appended, 0), |then| (then.appended, then.sent));
            let of = TopicRates {
                bytes_in: now.appended.saturating_sub(appended) as f64 / seconds,
                bytes_out: now.sent.saturating_sub(sent) as f64 / seconds,
                messages_in: now.messages_since(then) as f64 / seconds,
            };
            rates.bytes_in += of.bytes_in;
            rates.bytes_out += of.bytes_out;
            rates.messages_in += of.messages_in;
            if of.bytes_in + of.bytes_out > 0.0 {
                rates.topics.insert(now.name.clone(), of);
            }
        }
        let requests: u64 = self.apis.iter().map(|api| api.requests).sum();
        let requests_before: u64 = before.apis.iter().map(|api| api.requests).sum();
        rates.requests = requests.saturating_sub(requests_before) as f64 / seconds;
        rates.produce_us = self.percentiles(before, |key| key == PRODUCE);
        rates.other_us =
            self.percentiles(before, |key| key != PRODUCE && !WAITING_APIS.contains(&key));
        rates
    }

    fn percentiles(&self, before: &Self, wanted: impl Fn(i16) -> bool) -> [f64; 3] {
        let mut all: Vec<(u64, u64)> = Vec::new();
        let mut count = 0;
        for api in self.apis.iter().filter(|api| wanted(api.key)) {
            let then = before.apis.iter().find(|then| then.key == api.key);
            count += api.requests - then.map_or(0, |then| then.requests);
            all.resize(api.buckets.len(), (0, 0));
            for (n, (bound_us, below)) in api.buckets.iter().enumerate() {
                let before = then.and_then(|then| then.buckets.get(n));
                all[n].0 = *bound_us;
                all[n].1 += below - before.map_or(0, |(_, below)| *below);
            }
        }
        [0.5, 0.99, 0.999].map(|share| percentile(&all, count, share))
    }
}

/// A percentile of a histogram, microseconds: buckets by upper bound, each with the count at or below it. Within a bucket
/// it is taken to grow evenly; 0 without requests.
fn percentile(buckets: &[(u64, u64)], count: u64, share: f64) -> f64 {
    let wanted = count as f64 * share;
    let (mut low, mut below) = (0.0, 0.0);
    if count == 0 {
        return 0.0;
    }
    for (bound, at_or_below) in buckets {
        let (bound, at_or_below) = (*bound as f64, *at_or_below as f64);
        if at_or_below >= wanted && at_or_below > below {
            return low + (bound - low) * (wanted - below) / (at_or_below - below);
        }
        (low, below) = (bound, at_or_below);
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_partition_had_when_it_was_opened_did_not_come_now() {
        let counted = |ends: &[(i32, (i64, i64))]| Counted {
            name: "t".into(),
            appended: 0,
            sent: 0,
            ends: ends.iter().copied().collect(),
        };
        let then = counted(&[(0, (0, 10)), (1, (0, 5))]);
        // One more is led here, and one was copied anew from where its leader's log begins.
        let now = counted(&[(0, (0, 17)), (1, (900, 1000)), (2, (0, 10_000_000))]);
        assert_eq!(now.messages_since(Some(&then)), 107);
        assert_eq!(then.messages_since(None), 0);
    }

    #[test]
    fn a_percentile_lies_within_its_bucket() {
        let buckets = [(100, 50), (200, 100), (1000, 100)];
        assert_eq!(percentile(&buckets, 100, 0.5), 100.0);
        assert_eq!(percentile(&buckets, 100, 0.75), 150.0);
        assert_eq!(percentile(&buckets, 0, 0.5), 0.0);
        // What is above the last bound counts as that bound.
        assert_eq!(percentile(&buckets, 1000, 0.99), 1000.0);
    }
}
