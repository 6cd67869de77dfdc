//! Looks at the broker from time to time: a sample for the history, and partitions that went offline.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::blocking::blocking;
use super::meter::{Rates, Reading};
use super::{process, remote};
use crate::api::Context;
use crate::observe::{EventKind, Happened, SAMPLE_INTERVAL, Sample, SeriesKind};

/// Looks for ever; the latest rates go to `rates`.
pub(super) async fn watch(cx: Arc<Context>, rates: Arc<ArcSwap<Rates>>) {
    let mut every = tokio::time::interval(SAMPLE_INTERVAL);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    every.tick().await;
    let take = |cx: &Arc<Context>| Reading::take(cx);
    let mut before = blocking(&cx, take).await.ok();
    let mut offline = BTreeSet::new();
    loop {
        every.tick().await;
        let Ok(now) = blocking(&cx, take).await else {
            continue;
        };
        let lag = lags(&cx).await;
        let span = before.replace(now);
        if let (Some(now), Some(then)) = (&before, span) {
            let measured = now.since(&then);
            note(&cx, &measured, now.log_bytes, lag);
            rates.store(Arc::new(measured));
        }
        let looked = blocking(&cx, |cx| offline_partitions(cx))
            .await
            .unwrap_or_default();
        for (name, why) in looked.difference(&offline) {
            let went = Happened::new(EventKind::PartitionOffline, name).why(why);
            cx.observe.events.tell(went);
        }
        offline = looked;
    }
}

/// Partitions that cannot be written or read, with the reason.
pub(super) fn offline_partitions(cx: &Context) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for topic in cx.partitions.topics() {
        for (index, reason) in topic.offline() {
            found.insert((format!("{}-{index}", topic.topic), reason.to_owned()));
        }
        for partition in topic.online() {
            if let Some(reason) = partition.log().offline_reason() {
                let name = format!("{}-{}", topic.topic, partition.index());
                found.insert((name, reason));
            }
        }
    }
    found
}

/// How many messages each group that is coordinated here has not read. Other brokers are asked for the ends of their
/// partitions; what one does not answer for is left out.
pub(super) async fn lags(cx: &Arc<Context>) -> Vec<(String, f64)> {
    let mut groups = cx.coordinator.survey().await;
    remote::add_share_offsets(cx, &mut groups).await;
    let elsewhere = remote::ends_of(cx, &groups).await;
    let of = |group: crate::group::GroupSurvey| {
        let parts = group.offsets.iter();
        let lag: i64 = parts
            .filter_map(|part| remote::lag_in(cx, &elsewhere, part))
            .fold(0, i64::saturating_add);
        (group.group_id, lag as f64)
    };
    groups.into_iter().map(of).collect()
}

fn note(cx: &Context, rates: &Rates, log_bytes: u64, lags: Vec<(String, f64)>) {
    let at_ms = cx.partitions.clock().now_ms();
    let dirs = cx.partitions.data_dirs();
    let free = dirs.map(|dir| process::disk_of(dir.path()).free).min();
    let history = &cx.observe.history;
    history.add(Sample {
        at_ms,
        span_ms: rates.span_ms,
        bytes_in: rates.bytes_in,
        bytes_out: rates.bytes_out,
        messages_in: rates.messages_in,
        requests: rates.requests,
        produce_us: rates.produce_us,
        other_us: rates.other_us,
        sync_us: cx.observe.syncs.take_longest_us() as f64,
        lag: lags.iter().fold(0.0, |all, (_, lag)| all + lag),
        log_bytes: log_bytes as f64,
        disk_free: free.unwrap_or(0) as f64,
        cpu: rates.cpu,
        resident: process::resident_bytes() as f64,
        connections: cx.observe.clients.len() as f64,
    });
    let topics = |of: fn(&super::meter::TopicRates) -> f64| {
        let rates = rates.topics.iter();
        rates.map(move |(name, rates)| (name.to_string(), of(rates)))
    };
    let arrived = topics(|of| of.bytes_in).collect();
    history.add_series(SeriesKind::TopicIn, at_ms, arrived);
    let left = topics(|of| of.bytes_out).collect();
    history.add_series(SeriesKind::TopicOut, at_ms, left);
    history.add_series(SeriesKind::GroupLag, at_ms, lags);
}
