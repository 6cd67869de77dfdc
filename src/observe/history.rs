//! The last hours: one sample of everything every [`SAMPLE_INTERVAL`], and for the few busiest topics and the groups
//! with the largest lag a series of their own. Memory is fixed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use super::cut;

/// Between two samples.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Six hours of them.
pub const SAMPLES_KEPT: usize = 2160;
/// Topics, and groups, that have a series of their own.
pub const SERIES_KEPT: usize = 16;
/// Longest name of a series, characters.
const NAME_CHARS_MAX: usize = 255;

/// The broker over one interval, or at its end.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// Its end, ms since 1970.
    pub at_ms: i64,
    /// How long the interval was, ms.
    pub span_ms: i64,
    /// Bytes of records appended a second.
    pub bytes_in: f64,
    /// Bytes of records sent a second.
    pub bytes_out: f64,
    /// Messages appended a second.
    pub messages_in: f64,
    /// Requests a second.
    pub requests: f64,
    /// Produce requests: the median, the 99th and the 99.9th percentile, microseconds; 0 without requests.
    pub produce_us: [f64; 3],
    /// Requests of other APIs, without Fetch, which waits on purpose, and JoinGroup and SyncGroup, which wait for others.
    pub other_us: [f64; 3],
    /// The longest sync, microseconds.
    pub sync_us: f64,
    /// Messages that groups that are coordinated here have not read.
    pub lag: f64,
    /// Bytes of segments.
    pub log_bytes: f64,
    /// Bytes free in the fullest data directory.
    pub disk_free: f64,
    /// CPU time of the process: 1 for one core.
    pub cpu: f64,
    /// Resident memory, bytes.
    pub resident: f64,
    /// Connections.
    pub connections: f64,
}

/// What a series is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeriesKind {
    /// Bytes appended to a topic a second.
    TopicIn,
    /// Bytes sent of a topic a second.
    TopicOut,
    /// Messages that a group has not read.
    GroupLag,
}

/// One value of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// ms since 1970.
    pub at_ms: i64,
    /// In the unit of the series' kind.
    pub value: f64,
}

/// A series by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Of the topic or the group.
    pub name: String,
    /// Oldest first.
    pub points: Vec<Point>,
}

#[derive(Debug, Default)]
struct Kept {
    samples: VecDeque<Sample>,
    series: HashMap<SeriesKind, HashMap<String, VecDeque<Point>>>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct History {
    kept: Mutex<Kept>,
}

impl History {
    /// Adds a sample.
    pub fn add(&self, sample: Sample) {
        let samples = &mut self.kept.lock().samples;
        if samples.len() >= SAMPLES_KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Adds a value to each of the series of a kind. A name that is new takes the place of the series whose latest value
    /// is smallest, where its own is larger. A topic that is not among the names is idle; a group that is not is gone, and
    /// its series goes after six hours.
    pub fn add_series(&self, kind: SeriesKind, at_ms: i64, mut values: Vec<(String, f64)>) {
        values.sort_by(|a, b| b.1.total_cmp(&a.1));
        let all = &mut self.kept.lock().series;
        let of_kind = all.entry(kind).or_default();
        let oldest_ms = at_ms - SAMPLES_KEPT as i64 * SAMPLE_INTERVAL.as_millis() as i64;
        for points in of_kind.values_mut() {
            while points.front().is_some_and(|first| first.at_ms < oldest_ms) {
                points.pop_front();
            }
        }
        of_kind.retain(|_, points| !points.is_empty());
        if kind != SeriesKind::GroupLag {
            let named: HashSet<&String> = values.iter().map(|(name, _)| name).collect();
            let idle = of_kind.keys().filter(|name| !named.contains(name));
            let idle: Vec<String> = idle.cloned().collect();
            values.extend(idle.into_iter().map(|name| (name, 0.0)));
        }
        for (name, value) in values {
            let name = cut(&name, NAME_CHARS_MAX);
            if !of_kind.contains_key(&name) && of_kind.len() >= SERIES_KEPT {
                let last = |points: &VecDeque<Point>| points.back().map_or(0.0, |last| last.value);
                let smallest = of_kind
                    .iter()
                    .map(|(name, points)| (last(points), name))
                    .min_by(|a, b| a.0.total_cmp(&b.0))
                    .map(|(least, name)| (least, name.clone()));
                match smallest {
                    Some((least, smallest)) if least < value => of_kind.remove(&smallest),
                    _ => continue,
                };
            }
            let points = of_kind.entry(name).or_default();
            if points.len() >= SAMPLES_KEPT {
                points.pop_front();
            }
            points.push_back(Point { at_ms, value });
        }
    }

    /// The samples since a time, oldest first.
    pub fn since(&self, from_ms: i64) -> Vec<Sample> {
        let kept = self.kept.lock();
        let from = kept
            .samples
            .partition_point(|sample| sample.at_ms < from_ms);
        kept.samples.range(from..).copied().collect()
    }

    /// The latest sample.
    pub fn latest(&self) -> Option<Sample> {
        self.kept.lock().samples.back().copied()
    }

    /// The series of a kind since a time, the largest latest value first.
    pub fn series(&self, kind: SeriesKind, from_ms: i64) -> Vec<Series> {
        let kept = self.kept.lock();
        let of_kind = kept.series.get(&kind).into_iter().flatten();
        let mut found: Vec<Series> = of_kind
            .map(|(name, points)| Series {
                name: name.clone(),
                points: since(points, from_ms),
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        drop(kept);
        let last = |series: &Series| series.points.last().map_or(0.0, |point| point.value);
        found.sort_by(|a, b| {
            last(b)
                .total_cmp(&last(a))
                .then_with(|| a.name.cmp(&b.name))
        });
        found
    }

    /// One series since a time, oldest first; empty where there is none.
    pub fn one(&self, kind: SeriesKind, name: &str, from_ms: i64) -> Vec<Point> {
        let kept = self.kept.lock();
        let points = kept.series.get(&kind).and_then(|all| all.get(name));
        points.map_or_else(Vec::new, |points| since(points, from_ms))
    }
}

fn since(points: &VecDeque<Point>, from_ms: i64) -> Vec<Point> {
    let from = points.partition_point(|point| point.at_ms < from_ms);
    points.range(from..).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_hours_are_kept_and_no_more() {
        let history = History::default();
        for n in 0..SAMPLES_KEPT as i64 + 10 {
            history.add(Sample {
                at_ms: n,
                ..Sample::default()
            });
        }
        assert_eq!(history.since(0).len(), SAMPLES_KEPT);
        assert_eq!(history.since(0)[0].at_ms, 10);
        assert_eq!(history.since(SAMPLES_KEPT as i64).len(), 10);
        assert_eq!(history.latest().unwrap().at_ms, SAMPLES_KEPT as i64 + 9);
    }

    #[test]
    fn the_largest_have_series_and_small_ones_make_room() {
        let history = History::default();
        let many = |from: usize| {
            let names = from..from + SERIES_KEPT;
            names.map(|n| (format!("t{n:02}"), n as f64)).collect()
        };
        history.add_series(SeriesKind::TopicIn, 1, many(0));
        history.add_series(SeriesKind::TopicIn, 2, vec![("big".to_owned(), 1e6)]);
        history.add_series(SeriesKind::TopicIn, 3, vec![("small".to_owned(), 0.0)]);
        let found = history.series(SeriesKind::TopicIn, 0);
        assert_eq!(found.len(), SERIES_KEPT);
        assert_eq!(found[0].name, "big");
        assert!(found.iter().all(|series| series.name != "t00"));
        assert!(history.one(SeriesKind::TopicIn, "small", 0).is_empty());
        assert!(history.series(SeriesKind::GroupLag, 0).is_empty());
    }

    #[test]
    fn a_series_that_ended_goes_after_six_hours() {
        let history = History::default();
        history.add_series(SeriesKind::GroupLag, 1, vec![("g".to_owned(), 5.0)]);
        let later = 2 + SAMPLES_KEPT as i64 * SAMPLE_INTERVAL.as_millis() as i64;
        history.add_series(SeriesKind::GroupLag, later, vec![("h".to_owned(), 1.0)]);
        let names: Vec<_> = history.series(SeriesKind::GroupLag, 0);
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].name, "h");
    }
}
