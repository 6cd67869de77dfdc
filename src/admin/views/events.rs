//! What happened.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::Context;
use crate::observe::{Event, EventKind};

/// Events at most in an answer.
const EVENTS_MAX: usize = 500;

/// Something that happened.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct EventView {
    /// Counts events, by when they first happened.
    pub(in crate::admin) number: u64,
    /// `rebalance`, `connection_rejected`, `request_rejected`, `throttle`, `controller`, `session`, `partition_offline`,
    /// `slow_sync`, `transaction`, `compaction`, `in_sync` or `action`.
    pub(in crate::admin) kind: &'static str,
    /// When first, ms since 1970.
    pub(in crate::admin) at_ms: i64,
    /// When last, ms since 1970.
    pub(in crate::admin) last_ms: i64,
    /// How often.
    pub(in crate::admin) count: u64,
    /// What it is about.
    pub(in crate::admin) subject: String,
    /// Who did it or suffered it; may be empty.
    pub(in crate::admin) who: String,
    /// Why.
    pub(in crate::admin) why: String,
    /// What else is known; may be empty.
    pub(in crate::admin) detail: String,
    /// How long it took, ms.
    pub(in crate::admin) took_ms: Option<i64>,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            number: event.number,
            kind: event.kind.name(),
            at_ms: event.at_ms,
            last_ms: event.last_ms,
            count: event.count,
            subject: event.subject,
            who: event.who,
            why: event.why,
            detail: event.detail,
            took_ms: event.took_ms,
        }
    }
}

/// What happened, newest first.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct EventsView {
    /// The events.
    pub(in crate::admin) events: Vec<EventView>,
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::admin) struct EventsAsked {
    /// Only this kind.
    pub(in crate::admin) kind: Option<String>,
    /// Only what is about this: a group, a topic-partition, an address.
    pub(in crate::admin) subject: Option<String>,
}

impl EventsView {
    /// `None` where there is no such kind.
    pub(in crate::admin) fn of(cx: &Context, asked: &EventsAsked) -> Option<Self> {
        let kinds = match asked.kind.as_deref().filter(|kind| !kind.is_empty()) {
            None => Vec::new(),
            Some(kind) => vec![EventKind::named(kind)?],
        };
        let subject = asked.subject.as_deref().filter(|text| !text.is_empty());
        let about = |event: &Event| subject.is_none_or(|subject| event.subject == subject);
        let found = cx.observe.events.latest_where(&kinds, EVENTS_MAX, about);
        Some(Self {
            events: found.into_iter().map(EventView::from).collect(),
        })
    }
}

/// The latest of some kinds.
pub(in crate::admin) fn latest(cx: &Context, kinds: &[EventKind], most: usize) -> Vec<EventView> {
    let found = cx.observe.events.latest(kinds, most);
    found.into_iter().map(EventView::from).collect()
}
