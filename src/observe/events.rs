//! What happened, with who and why and how long: a bounded ring for each kind, so that a client that is refused a
//! thousand times does not wash away why a group rebalanced. What happens again in the same way counts up instead.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::cut;
use crate::clock::WallClock;

/// Events of one kind that are kept.
pub const EVENTS_KEPT: usize = 256;
/// Rebalances that are kept of all groups together.
const REBALANCES_KEPT: usize = 1024;
/// Rebalances that are kept of one group: one that never rests does not push out the others.
pub const REBALANCES_PER_GROUP: usize = 32;
/// Longest text of an event, characters.
const TEXT_CHARS_MAX: usize = 400;
/// So many of the latest events are looked at for one that is the same.
const ALIKE_WITHIN: usize = 64;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A group's members changed, or what they read.
    Rebalance,
    /// A connection was closed by the broker, or not taken.
    ConnectionRejected,
    /// A request, or a part of it, was refused.
    RequestRejected,
    /// A client was slowed down.
    Throttle,
    /// Another broker is the controller, or coordinates and leads.
    Controller,
    /// The session with the coordination store changed.
    Session,
    /// A partition cannot be written or read.
    PartitionOffline,
    /// A file's sync took long.
    SlowSync,
    /// A transaction ended without its producer: it took too long, or a later producer took its place.
    Transaction,
    /// A log was compacted, or cannot be.
    Compaction,
    /// A replica fell out of sync, or is in sync again.
    InSync,
    /// Somebody did something here that changes the broker.
    Action,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Rebalance,
        Self::ConnectionRejected,
        Self::RequestRejected,
        Self::Throttle,
        Self::Controller,
        Self::Session,
        Self::PartitionOffline,
        Self::SlowSync,
        Self::Transaction,
        Self::Compaction,
        Self::InSync,
        Self::Action,
    ];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rebalance => "rebalance",
            Self::ConnectionRejected => "connection_rejected",
            Self::RequestRejected => "request_rejected",
            Self::Throttle => "throttle",
            Self::Controller => "controller",
            Self::Session => "session",
            Self::PartitionOffline => "partition_offline",
            Self::SlowSync => "slow_sync",
            Self::Transaction => "transaction",
            Self::Compaction => "compaction",
            Self::InSync => "in_sync",
            Self::Action => "action",
        }
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts events of all kinds from 1, by when they first happened.
    pub number: u64,
    /// What.
    pub kind: EventKind,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// When last, where it happened several times, ms since 1970.
    pub last_ms: i64,
    /// How often.
    pub count: u64,
    /// What it is about: a group, a topic-partition, an address.
    pub subject: String,
    /// Who did it or suffered it: a client, a member, a broker; empty where there is none.
    pub who: String,
    /// Why.
    pub why: String,
    /// What else is known.
    pub detail: String,
    /// How long it took, ms.
    pub took_ms: Option<i64>,
}

/// Something to tell.
#[derive(Debug, Clone)]
pub struct Happened {
    kind: EventKind,
    subject: String,
    who: String,
    why: String,
    detail: String,
    took_ms: Option<i64>,
}

impl Happened {
    /// Something happened to something.
    pub fn new(kind: EventKind, subject: impl AsRef<str>) -> Self {
        Self {
            kind,
            subject: cut(subject.as_ref(), TEXT_CHARS_MAX),
            who: String::new(),
            why: String::new(),
            detail: String::new(),
            took_ms: None,
        }
    }

    /// Who.
    pub fn who(mut self, who: impl AsRef<str>) -> Self {
        self.who = cut(who.as_ref(), TEXT_CHARS_MAX);
        self
    }

    /// Why.
    pub fn why(mut self, why: impl AsRef<str>) -> Self {
        self.why = cut(why.as_ref(), TEXT_CHARS_MAX);
        self
    }

    /// What else is known; it does not make two events different.
    pub fn detail(mut self, detail: impl AsRef<str>) -> Self {
        self.detail = cut(detail.as_ref(), TEXT_CHARS_MAX);
        self
    }

    /// How long it took.
    pub fn took_ms(mut self, took_ms: i64) -> Self {
        self.took_ms = Some(took_ms);
        self
    }

    fn is_like(&self, event: &Event) -> bool {
        event.kind == self.kind
            && event.subject == self.subject
            && event.who == self.who
            && event.why == self.why
    }
}

#[derive(Debug, Default)]
struct Rings {
    next: u64,
    /// One for each kind, oldest first.
    rings: [VecDeque<Event>; EventKind::ALL.len()],
    /// How often each kind happened since the start.
    totals: [u64; EventKind::ALL.len()],
}

/// A handle to what happened; clones share it.
#[derive(Debug, Clone)]
pub struct Events {
    clock: WallClock,
    rings: Arc<Mutex<Rings>>,
}

impl Events {
    /// Nothing happened yet.
    pub fn new(clock: WallClock) -> Self {
        Self {
            clock,
            rings: Arc::default(),
        }
    }

    /// Notes that something happened.
    pub fn tell(&self, happened: Happened) {
        let now_ms = self.clock.now_ms();
        let mut guard = self.rings.lock();
        let rings = &mut *guard;
        rings.totals[happened.kind as usize] += 1;
        let ring = &mut rings.rings[happened.kind as usize];
        // Every rebalance is one of its own.
        if happened.kind != EventKind::Rebalance {
            let mut latest = ring.iter_mut().rev().take(ALIKE_WITHIN);
            if let Some(event) = latest.find(|event| happened.is_like(event)) {
                event.count += 1;
                event.last_ms = now_ms;
                event.detail = happened.detail;
                event.took_ms = event.took_ms.max(happened.took_ms);
                return;
            }
        }
        make_room(ring, &happened);
        rings.next += 1;
        ring.push_back(Event {
            number: rings.next,
            kind: happened.kind,
            at_ms: now_ms,
            last_ms: now_ms,
            count: 1,
            subject: happened.subject,
            who: happened.who,
            why: happened.why,
            detail: happened.detail,
            took_ms: happened.took_ms,
        });
    }

    /// The latest of some kinds (of all, where none is named), newest first.
    pub fn latest(&self, kinds: &[EventKind], most: usize) -> Vec<Event> {
        let about = |_: &Event| true;
        self.latest_where(kinds, most, about)
    }

    /// Of some kinds, those that are about something, newest first.
    pub fn latest_where(
        &self,
        kinds: &[EventKind],
        most: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> Vec<Event> {
        let rings = self.rings.lock();
        let kinds = match kinds {
            [] => &EventKind::ALL[..],
            kinds => kinds,
        };
        let all = kinds.iter().flat_map(|kind| &rings.rings[*kind as usize]);
        let mut found: Vec<Event> = all.filter(|event| wanted(event)).cloned().collect();
        drop(rings);
        found.sort_by_key(|event| std::cmp::Reverse((event.last_ms, event.number)));
        found.truncate(most);
        found
    }

    /// How many events of a kind are remembered of each thing that they are about.
    pub fn remembered(&self, kind: EventKind) -> HashMap<String, usize> {
        let rings = self.rings.lock();
        let mut counts = HashMap::new();
        for event in &rings.rings[kind as usize] {
            *counts.entry(event.subject.clone()).or_default() += 1;
        }
        counts
    }

    /// How often a kind happened since the start.
    pub fn total(&self, kind: EventKind) -> u64 {
        self.rings.lock().totals[kind as usize]
    }
}

fn make_room(ring: &mut VecDeque<Event>, happened: &Happened) {
    if happened.kind != EventKind::Rebalance {
        if ring.len() >= EVENTS_KEPT {
            ring.pop_front();
        }
        return;
    }
    let mut of_group = ring.iter().enumerate();
    let of_group = of_group.by_ref();
    let same: Vec<usize> = of_group
        .filter(|(_, event)| event.subject == happened.subject)
        .map(|(at, _)| at)
        .collect();
    if same.len() >= REBALANCES_PER_GROUP {
        ring.remove(same[0]);
    } else if ring.len() >= REBALANCES_KEPT {
        ring.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    fn at(now: &Arc<AtomicI64>) -> Events {
        let now = now.clone();
        Events::new(WallClock::told_by(move || now.load(Ordering::Relaxed)))
    }

    fn refused(who: &str) -> Happened {
        Happened::new(EventKind::RequestRejected, "Produce t-0")
            .who(who)
            .why("too large")
    }

    #[test]
    fn what_happens_again_in_the_same_way_counts_up() {
        let now = Arc::new(AtomicI64::new(10));
        let events = at(&now);
        events.tell(refused("a"));
        events.tell(refused("b"));
        now.store(20, Ordering::Relaxed);
        events.tell(refused("a").took_ms(3));
        let found = events.latest(&[], 10);
        assert_eq!(found.len(), 2);
        let first = &found[0];
        assert_eq!((first.who.as_str(), first.count), ("a", 2));
        assert_eq!(
            (first.at_ms, first.last_ms, first.took_ms),
            (10, 20, Some(3))
        );
        assert_eq!(events.total(EventKind::RequestRejected), 3);
    }

    #[test]
    fn a_kind_that_happens_often_does_not_push_out_another() {
        let events = at(&Arc::default());
        events.tell(Happened::new(EventKind::Session, "coordination store").why("lost"));
        for n in 0..EVENTS_KEPT * 3 {
            events.tell(refused(&n.to_string()));
        }
        let kinds = |kind| events.latest(&[kind], usize::MAX).len();
        assert_eq!(kinds(EventKind::RequestRejected), EVENTS_KEPT);
        assert_eq!(kinds(EventKind::Session), 1);
    }

    #[test]
    fn a_group_that_never_rests_does_not_push_out_the_rebalances_of_others() {
        let events = at(&Arc::default());
        events.tell(Happened::new(EventKind::Rebalance, "quiet"));
        for n in 0..REBALANCES_KEPT * 2 {
            let detail = format!("generation {n}");
            events.tell(Happened::new(EventKind::Rebalance, "busy").detail(detail));
        }
        let of = |group: &str| {
            let kinds = [EventKind::Rebalance];
            events.latest_where(&kinds, usize::MAX, |event| event.subject == group)
        };
        assert_eq!(events.remembered(EventKind::Rebalance)["quiet"], 1);
        assert_eq!(of("quiet").len(), 1);
        let busy = of("busy");
        assert_eq!(busy.len(), REBALANCES_PER_GROUP);
        assert_eq!(
            busy[0].detail,
            format!("generation {}", REBALANCES_KEPT * 2 - 1)
        );
    }

    #[test]
    fn texts_of_others_are_cut() {
        let events = at(&Arc::default());
        events.tell(refused(&"é".repeat(100_000)));
        let who = &events.latest(&[], 1)[0].who;
        assert_eq!(who.chars().count(), TEXT_CHARS_MAX + 1);
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for (n, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(EventKind::named(kind.name()), Some(kind));
            assert_eq!(kind as usize, n);
        }
    }
}
