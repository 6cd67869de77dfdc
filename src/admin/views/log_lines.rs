//! The log's tail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::Level;

use crate::observe::{LOG_LINES_KEPT, log_tail};

/// A line of the log.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct LogLineView {
    /// Counts lines.
    pub(in crate::admin) number: u64,
    /// ms since 1970.
    pub(in crate::admin) at_ms: i64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub(in crate::admin) level: &'static str,
    /// The module that says it.
    pub(in crate::admin) module: String,
    /// What it says.
    pub(in crate::admin) text: String,
}

/// The latest lines, newest first. They are those that the log's level lets pass.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct LogView {
    /// The lines.
    pub(in crate::admin) lines: Vec<LogLineView>,
}

/// Which lines.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::admin) struct LogAsked {
    /// `error`, `warn` or `info`, and what is worse; everything without.
    pub(in crate::admin) level: Option<String>,
    /// At most so many; 200 without, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::admin) limit: Option<u16>,
    /// Only lines that contain this.
    pub(in crate::admin) filter: Option<String>,
}

impl LogView {
    pub(in crate::admin) fn of(asked: &LogAsked) -> Self {
        let level = match asked.level.as_deref() {
            Some("error") => Level::ERROR,
            Some("warn") => Level::WARN,
            Some("info") => Level::INFO,
            _ => Level::TRACE,
        };
        let most = usize::from(asked.limit.unwrap_or(200)).clamp(1, LOG_LINES_KEPT);
        let filter = asked.filter.as_deref().unwrap_or_default();
        let found = log_tail().latest(level, LOG_LINES_KEPT).into_iter();
        let found = found.filter(|line| line.text.contains(filter)).take(most);
        let view = |line: crate::observe::LogLine| LogLineView {
            number: line.number,
            at_ms: line.at_ms,
            level: match line.level {
                Level::ERROR => "error",
                Level::WARN => "warn",
                Level::INFO => "info",
                Level::DEBUG => "debug",
                Level::TRACE => "trace",
            },
            module: line.target.to_owned(),
            text: line.text,
        };
        Self {
            lines: found.map(view).collect(),
        }
    }
}
