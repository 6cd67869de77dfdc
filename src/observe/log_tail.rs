//! The latest lines of the log, in memory: a layer beside the one that writes them.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::cut;
use crate::clock::WallClock;

/// Lines that are kept.
pub const LOG_LINES_KEPT: usize = 1000;
/// Longest line that is kept, characters.
const LINE_CHARS_MAX: usize = 1000;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Counts lines from 1.
    pub number: u64,
    /// ms since 1970.
    pub at_ms: i64,
    /// How bad it is.
    pub level: Level,
    /// The module that says it.
    pub target: &'static str,
    /// What it says, with the fields after the message.
    pub text: String,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct LogTail {
    clock: WallClock,
    next: AtomicU64,
    lines: Mutex<VecDeque<LogLine>>,
}

/// The one of this process: there is one log.
pub fn log_tail() -> &'static LogTail {
    static TAIL: OnceLock<LogTail> = OnceLock::new();
    TAIL.get_or_init(LogTail::default)
}

impl LogTail {
    /// The latest lines at least as bad as `level`, newest first.
    pub fn latest(&self, level: Level, most: usize) -> Vec<LogLine> {
        let lines = self.lines.lock();
        let wanted = lines.iter().rev().filter(|line| line.level <= level);
        wanted.take(most).cloned().collect()
    }

    fn push(&self, level: Level, target: &'static str, text: String) {
        let line = LogLine {
            number: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            at_ms: self.clock.now_ms(),
            level,
            target,
            text: cut(&text, LINE_CHARS_MAX),
        };
        let mut lines = self.lines.lock();
        if lines.len() >= LOG_LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl<S: Subscriber> Layer<S> for &'static LogTail {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let metadata = event.metadata();
        let text = said.message + &said.fields;
        self.push(*metadata.level(), metadata.target(), text);
    }
}

#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn the_latest_lines_are_kept_with_their_fields() {
        let tail: &'static LogTail = Box::leak(Box::default());
        let subscriber = tracing_subscriber::registry().with(tail);
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..LOG_LINES_KEPT {
                tracing::info!(n, "said");
            }
            tracing::warn!(peer = %"1.2.3.4", topic = "t", "refused");
        });
        let lines = tail.latest(Level::INFO, usize::MAX);
        assert_eq!(lines.len(), LOG_LINES_KEPT);
        assert_eq!(lines[0].text, "refused peer=1.2.3.4 topic=t");
        assert_eq!(lines[1].text, format!("said n={}", LOG_LINES_KEPT - 1));
        assert_eq!(tail.latest(Level::WARN, 10).len(), 1);
    }
}
