//! Charts as SVG within the page: lines over time. Labels are HTML beside them, so that they stay readable at any width.

use std::fmt::Write;

use askama::Template;

use crate::admin::views::history::{HistoryView, SeriesView};

/// Lines of a chart at most.
const LINES_MAX: usize = 6;
/// A gap in time longer than this many intervals is a gap in the line.
const GAP: i64 = 4;

/// What is on the vertical axis.
pub(in crate::admin) type Show = fn(f64) -> String;

/// A line.
pub(in crate::admin) struct Line {
    pub(in crate::admin) label: String,
    pub(in crate::admin) last: String,
    points: String,
}

/// A chart.
#[derive(Template)]
#[template(path = "chart.html")]
pub(in crate::admin) struct Chart {
    pub(in crate::admin) title: &'static str,
    pub(in crate::admin) top: String,
    pub(in crate::admin) lines: Vec<Line>,
    pub(in crate::admin) from: String,
    pub(in crate::admin) to: String,
    pub(in crate::admin) spoken: String,
}

impl Chart {
    /// Of series that share the points in time.
    pub(in crate::admin) fn new(
        title: &'static str,
        show: Show,
        at_ms: &[i64],
        lines: &[(&str, &[f64])],
    ) -> Self {
        let series = lines.iter().map(|(name, values)| SeriesView {
            name: (*name).to_owned(),
            at_ms: at_ms.to_vec(),
            values: values.to_vec(),
        });
        Self::of(title, show, &series.collect::<Vec<_>>())
    }

    /// Of series that have their own points in time.
    pub(in crate::admin) fn of(title: &'static str, show: Show, series: &[SeriesView]) -> Self {
        let series = &series[..series.len().min(LINES_MAX)];
        let times = || series.iter().flat_map(|series| &series.at_ms).copied();
        let (from, to) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        let values = series.iter().flat_map(|series| &series.values);
        let top = nice(values.fold(0.0, |most: f64, value| most.max(*value)));
        let line = |series: &SeriesView| Line {
            label: series.name.clone(),
            last: series
                .values
                .last()
                .map_or_else(|| "–".to_owned(), |last| show(*last)),
            points: path(series, (from, to), top),
        };
        let lines: Vec<Line> = series.iter().map(line).collect();
        let now: Vec<String> = lines
            .iter()
            .map(|line| format!("{} {}", line.label, line.last))
            .collect();
        Self {
            title,
            top: show(top),
            spoken: match to > from {
                true => format!(
                    "{title}: {}. The axis ends at {}.",
                    now.join(", "),
                    show(top)
                ),
                false => format!("{title}: no samples yet."),
            },
            from: clock(from),
            to: clock(to),
            lines,
        }
    }

    /// Whether there is something to draw.
    pub(in crate::admin) fn is_drawn(&self) -> bool {
        self.from != self.to
    }
}

fn clock(ms: i64) -> String {
    super::format::time(ms).chars().skip(11).collect()
}

/// The next number that reads well.
fn nice(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let magnitude = 10f64.powf(most.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0];
    let step = steps.into_iter().find(|step| step * magnitude >= most);
    step.unwrap_or(10.0) * magnitude
}

/// The line within a square of 1000 by 100.
fn path(series: &SeriesView, (from, to): (i64, i64), top: f64) -> String {
    let span = (to - from).max(1) as f64;
    let mut spans: Vec<i64> = series.at_ms.windows(2).map(|two| two[1] - two[0]).collect();
    spans.sort_unstable();
    let usual = spans.get(spans.len() / 2).copied().unwrap_or(0);
    let mut out = String::new();
    let mut before = None;
    for (at, value) in series.at_ms.iter().zip(&series.values) {
        let x = (at - from) as f64 / span * 1000.0;
        let y = 100.0 - (value / top * 100.0).clamp(0.0, 100.0);
        let starts = before.is_none_or(|before| at - before > usual * GAP);
        let _ = write!(out, "{}{x:.1} {y:.2}", if starts { 'M' } else { 'L' });
        before = Some(*at);
    }
    out
}

/// The charts of the home page.
pub(in crate::admin) fn of_broker(history: &HistoryView) -> Vec<Chart> {
    use super::format::{byte_rate, bytes, count, cpu, duration, rate};
    let at = &history.at_ms[..];
    let duration: Show = |ms| duration(ms);
    let groups: Vec<SeriesView> = history.groups_lag.clone();
    vec![
        Chart::new(
            "Throughput",
            byte_rate,
            at,
            &[("in", &history.bytes_in), ("out", &history.bytes_out)],
        ),
        Chart::new(
            "Messages and requests",
            rate,
            at,
            &[
                ("messages in", &history.messages_in),
                ("requests", &history.requests),
            ],
        ),
        Chart::new(
            "Produce latency",
            duration,
            at,
            &[
                ("p50", &history.produce_p50_ms),
                ("p99", &history.produce_p99_ms),
                ("p99.9", &history.produce_p999_ms),
            ],
        ),
        Chart::new(
            "Other requests p99, longest sync",
            duration,
            at,
            &[
                ("requests", &history.other_p99_ms),
                ("sync", &history.sync_ms),
            ],
        ),
        match groups.is_empty() {
            true => Chart::new("Lag of groups", count, at, &[("messages", &history.lag)]),
            false => Chart::of("Lag of groups", count, &groups),
        },
        Chart::new(
            "Disk",
            bytes,
            at,
            &[
                ("segments", &history.log_bytes),
                ("free", &history.disk_free),
            ],
        ),
        Chart::new("CPU, of one processor", cpu, at, &[("cpu", &history.cpu)]),
        Chart::new("Memory", bytes, at, &[("resident", &history.resident)]),
        Chart::new("Connections", count, at, &[("open", &history.connections)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_number_that_reads_well() {
        assert_eq!(nice(0.0), 1.0);
        assert_eq!(nice(99.0), 100.0);
        assert_eq!(nice(101.0), 150.0);
        assert_eq!(nice(0.042), 0.05);
    }

    #[test]
    fn a_gap_in_time_is_a_gap_in_the_line() {
        let series = SeriesView {
            name: String::new(),
            at_ms: vec![0, 10, 20, 200, 210],
            values: vec![0.0, 1.0, 1.0, 1.0, 0.5],
        };
        let drawn = path(&series, (0, 210), 1.0);
        assert_eq!(drawn.matches('M').count(), 2, "{drawn}");
        assert!(drawn.starts_with("M0.0 100.00"), "{drawn}");
    }

    #[test]
    fn a_chart_without_samples_says_so() {
        let chart = Chart::new("Disk", |value| value.to_string(), &[], &[("a", &[])]);
        assert!(!chart.is_drawn());
        assert_eq!(chart.spoken, "Disk: no samples yet.");
    }
}
