//! What a broker remembers of itself, for people: what happened and why, who is connected, how the last hours were, what
//! was logged. All of it is bounded, in memory, and gone with the process.
//!
//! Nothing here slows a request down: a connection counts on its own [`Client`] with plain stores, and everything else is
//! noted where something unusual happens, or looked up from time to time.

mod clients;
mod events;
mod history;
mod log_tail;
mod syncs;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use clients::{CLIENT_TEXT_CHARS_MAX, Client, ClientSnapshot, Clients, Registered, UsedApi};
pub use events::{EVENTS_KEPT, Event, EventKind, Events, Happened, REBALANCES_PER_GROUP};
pub use history::{
    History, Point, SAMPLE_INTERVAL, SAMPLES_KEPT, SERIES_KEPT, Sample, Series, SeriesKind,
};
pub use log_tail::{LOG_LINES_KEPT, LogLine, LogTail, log_tail};
pub use syncs::{SYNC_BUCKETS_US, SYNC_SLOW, SyncSnapshot, Syncs};

use crate::clock::WallClock;

/// See the module's documentation.
#[derive(Debug)]
pub struct Observe {
    /// What happened.
    pub events: Events,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// The last hours.
    pub history: History,
    /// How long syncs of files take.
    pub syncs: Arc<Syncs>,
    started: Instant,
    started_ms: i64,
}

impl Observe {
    /// Remembers nothing yet.
    pub fn new(clock: &WallClock) -> Self {
        let events = Events::new(clock.clone());
        Self {
            syncs: Arc::new(Syncs::telling(events.clone())),
            events,
            clients: Arc::new(Clients::new(clock.clone())),
            history: History::default(),
            started: Instant::now(),
            started_ms: clock.now_ms(),
        }
    }

    /// How long the broker has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Since when, ms since 1970.
    pub fn started_ms(&self) -> i64 {
        self.started_ms
    }
}

/// At most so many characters of a text that others chose.
pub fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
