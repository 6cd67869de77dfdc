//! The last hours, thinned out to what a chart can show.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::visitor::Visitor;
use crate::api::Context;
use crate::observe::{Sample, SeriesKind};

/// Points of a series at most.
const POINTS_MAX: usize = 360;
/// Minutes that are kept.
pub(in crate::admin) const MINUTES_MAX: u32 = 360;

/// The last hours: one column a figure, one row a point in time, oldest first.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(in crate::admin) struct HistoryView {
    /// Ends of the intervals, ms since 1970.
    pub(in crate::admin) at_ms: Vec<i64>,
    /// Bytes of records appended a second.
    pub(in crate::admin) bytes_in: Vec<f64>,
    /// Bytes of records sent a second.
    pub(in crate::admin) bytes_out: Vec<f64>,
    /// Messages appended a second.
    pub(in crate::admin) messages_in: Vec<f64>,
    /// Requests a second.
    pub(in crate::admin) requests: Vec<f64>,
    /// Produce requests: the median, ms.
    pub(in crate::admin) produce_p50_ms: Vec<f64>,
    /// Produce requests: the 99th percentile, ms.
    pub(in crate::admin) produce_p99_ms: Vec<f64>,
    /// Produce requests: the 99.9th percentile, ms.
    pub(in crate::admin) produce_p999_ms: Vec<f64>,
    /// Other requests, but for those that wait on purpose: the 99th percentile, ms.
    pub(in crate::admin) other_p99_ms: Vec<f64>,
    /// The longest sync, ms.
    pub(in crate::admin) sync_ms: Vec<f64>,
    /// Messages that groups have not read.
    pub(in crate::admin) lag: Vec<f64>,
    /// Bytes of segments.
    pub(in crate::admin) log_bytes: Vec<f64>,
    /// Bytes free in the fullest data directory.
    pub(in crate::admin) disk_free: Vec<f64>,
    /// CPU of the process; 1 for one processor.
    pub(in crate::admin) cpu: Vec<f64>,
    /// Resident memory, bytes.
    pub(in crate::admin) resident: Vec<f64>,
    /// Connections.
    pub(in crate::admin) connections: Vec<f64>,
    /// The busiest topics: bytes appended a second.
    pub(in crate::admin) topics_in: Vec<SeriesView>,
    /// The busiest topics: bytes sent a second.
    pub(in crate::admin) topics_out: Vec<SeriesView>,
    /// The groups with the largest lag: messages that they have not read.
    pub(in crate::admin) groups_lag: Vec<SeriesView>,
}

/// One topic's or group's series.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(in crate::admin) struct SeriesView {
    /// Of the topic or the group.
    pub(in crate::admin) name: String,
    /// ms since 1970.
    pub(in crate::admin) at_ms: Vec<i64>,
    /// The values.
    pub(in crate::admin) values: Vec<f64>,
}

/// How much of it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::admin) struct HistoryAsked {
    /// The last so many minutes, at most 360; 60 without.
    #[schemars(range(min = 1, max = 360))]
    pub(in crate::admin) minutes: Option<u32>,
}

impl HistoryAsked {
    pub(in crate::admin) fn minutes(&self) -> u32 {
        self.minutes.unwrap_or(60).clamp(1, MINUTES_MAX)
    }
}

impl HistoryView {
    pub(in crate::admin) fn of(cx: &Context, visitor: &Visitor, asked: &HistoryAsked) -> Self {
        let from_ms = from_ms(cx, asked);
        let samples = thin(cx.observe.history.since(from_ms));
        let column = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<f64>>();
        let is_seen = |kind, name: &str| match kind {
            SeriesKind::GroupLag => visitor.sees_group(cx, name),
            SeriesKind::TopicIn | SeriesKind::TopicOut => visitor.sees_topic(cx, name),
        };
        let series = |kind| {
            let found = cx.observe.history.series(kind, from_ms);
            let view = |series: crate::observe::Series| {
                let points = thin(series.points);
                SeriesView {
                    name: series.name,
                    at_ms: points.iter().map(|point| point.at_ms).collect(),
                    values: points.iter().map(|point| point.value).collect(),
                }
            };
            let found = found.into_iter();
            let seen = found.filter(|series| is_seen(kind, &series.name));
            seen.map(view).collect()
        };
        Self {
            at_ms: samples.iter().map(|sample| sample.at_ms).collect(),
            bytes_in: column(|sample| sample.bytes_in),
            bytes_out: column(|sample| sample.bytes_out),
            messages_in: column(|sample| sample.messages_in),
            requests: column(|sample| sample.requests),
            produce_p50_ms: column(|sample| sample.produce_us[0] / 1e3),
            produce_p99_ms: column(|sample| sample.produce_us[1] / 1e3),
            produce_p999_ms: column(|sample| sample.produce_us[2] / 1e3),
            other_p99_ms: column(|sample| sample.other_us[1] / 1e3),
            sync_ms: column(|sample| sample.sync_us / 1e3),
            lag: column(|sample| sample.lag),
            log_bytes: column(|sample| sample.log_bytes),
            disk_free: column(|sample| sample.disk_free),
            cpu: column(|sample| sample.cpu),
            resident: column(|sample| sample.resident),
            connections: column(|sample| sample.connections),
            topics_in: series(SeriesKind::TopicIn),
            topics_out: series(SeriesKind::TopicOut),
            groups_lag: series(SeriesKind::GroupLag),
        }
    }
}

fn from_ms(cx: &Context, asked: &HistoryAsked) -> i64 {
    cx.partitions.clock().now_ms() - i64::from(asked.minutes()) * 60_000
}

/// One series.
pub(in crate::admin) fn one(
    cx: &Context,
    kind: SeriesKind,
    name: &str,
    asked: &HistoryAsked,
) -> SeriesView {
    let points = thin(cx.observe.history.one(kind, name, from_ms(cx, asked)));
    SeriesView {
        name: name.to_owned(),
        at_ms: points.iter().map(|point| point.at_ms).collect(),
        values: points.iter().map(|point| point.value).collect(),
    }
}

/// Every n-th, so that not too many are left; the last one stays.
fn thin<T: Copy>(all: Vec<T>) -> Vec<T> {
    let step = all.len().div_ceil(POINTS_MAX).max(1);
    let mut kept: Vec<T> = all.iter().rev().step_by(step).copied().collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_series_are_thinned_out_and_keep_their_end() {
        let kept = thin((0..2160).collect());
        assert_eq!((kept.len(), kept[359]), (360, 2159));
        assert_eq!(thin(vec![1, 2, 3]), [1, 2, 3]);
    }
}
