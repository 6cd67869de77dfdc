//! What clients did and were told, and whether that can be true. The first contradiction ends the run.
//!
//! - A record that was acknowledged, or that a consumer was shown, stays at its offset with its content: through kills
//!   always, through power failures where the topic syncs; elsewhere a power failure may take what was not synced, which
//!   is an end of the log and nothing before it. (Where a call of the disk had failed, a power failure may also bring
//!   back what was written then.)
//! - A record of an idempotent producer is in the log once at most, and in the order of its numbers.
//! - High watermarks do not go back, but for such a loss, and the offsets that a producer is told follow its numbers.
//! - A generation of the group has one leader, and a partition one owner in it.
//! - A committed offset is the last acknowledged one, in the order of generations and of its owner's commits, or one
//!   that came behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::consumer::SESSION_MS;

/// Topic and partition.
pub type Place = (&'static str, i32);
/// A producer, and which of its records.
pub type Number = (usize, u64);

/// Acknowledges what is synced.
pub const SYNCED: &str = "synced";
/// Acknowledges what is in the page cache.
pub const CACHED: &str = "cached";
/// What transactions write to; synced too.
pub const PAID: &str = "paid";
pub const PAID_PLACES: [Place; 2] = [(PAID, 0), (PAID, 1)];
/// What groups of all kinds work on; synced too.
pub const WORK: &str = "work";
pub const WORK_PLACES: [Place; 4] = [(WORK, 0), (WORK, 1), (WORK, 2), (WORK, 3)];
pub const PLACES: [Place; 4] = [(SYNCED, 0), (SYNCED, 1), (CACHED, 0), (CACHED, 1)];

/// Where a log begins and ends, and up to where it is synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    pub log_start: i64,
    pub log_end: i64,
    pub synced_end: i64,
}

/// How a broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It closed everything.
    Stopped,
    /// The page cache is still there.
    Killed,
    /// What was not synced may be gone.
    PowerLost,
}

#[derive(Default)]
struct Partition {
    /// What is known to be at an offset, and whether it was acknowledged.
    known: BTreeMap<i64, (Number, bool)>,
    /// Where it begins.
    start: i64,
    /// Up to where it was seen to be synced.
    synced: i64,
    /// The next opening must find at least this.
    at_least: i64,
    /// The highest that a reader was told.
    high_watermark: i64,
    /// Records may be there again, and in another order.
    has_ghosts: bool,
    /// The last number and offset that each producer was told.
    acknowledged: BTreeMap<usize, (u64, i64)>,
}

struct Sent {
    place: Place,
    idempotent: bool,
    attempts: u32,
}

/// Generation, and the how manieth commit of its owner.
type Order = (i32, u64);

struct Commit {
    place: Place,
    order: Order,
    offset: i64,
    /// `None` while it is not known.
    accepted: Option<bool>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<Place, Partition>,
    sent: BTreeMap<Number, Sent>,
    leaders: BTreeMap<i32, String>,
    owners: BTreeMap<(i32, Place), String>,
    /// When each member was answered last, ms; those that left are not there.
    heard: BTreeMap<String, u128>,
    commits: Vec<Commit>,
    /// By place, the last of the acknowledged ones.
    last: BTreeMap<Place, usize>,
    trace: Vec<String>,
    failure: Option<String>,
    power_losses: u32,
    disk_failed: bool,
    /// Other brokers have what one lost.
    is_replicated: bool,
}

/// Clones share it.
#[derive(Clone, Default)]
pub struct History {
    state: Arc<Mutex<State>>,
}

fn now_ms() -> u128 {
    turmoil::sim_elapsed().unwrap_or_default().as_millis()
}

impl State {
    /// A group that nobody is in and that has no offsets is forgotten, and begins anew with its first generation. Nobody is
    /// in it when all have left, or were silent for their session.
    fn forget_group_of_nobody(&mut self, generation: i32, leader: &str) {
        let is_new = match self.leaders.get(&generation) {
            Some(known) => known != leader,
            // What was before it was never told to anybody.
            None => self.leaders.range(generation..).next().is_some(),
        };
        let mut members = self.leaders.values().chain(self.owners.values());
        let is_gone = |member| match self.heard.get(member) {
            Some(at) => now_ms() - at >= SESSION_MS as u128,
            None => true,
        };
        if is_new && self.last.is_empty() && members.all(is_gone) {
            self.leaders.clear();
            self.owners.clear();
            self.note("the group begins anew".to_owned());
        }
    }

    fn fail(&mut self, what: String) {
        self.note(format!("WRONG: {what}"));
        self.failure.get_or_insert(what);
    }

    fn note(&mut self, what: String) {
        let at = now_ms();
        self.trace.push(format!("{at:>6} {what}"));
    }

    /// Whether what was said of a place may have been lost with the power since.
    fn is_late(&self, place: Place, power_losses: u32) -> bool {
        place.0 == CACHED && power_losses != self.power_losses
    }

    /// A record is at an offset: somebody was told.
    fn know(&mut self, place: Place, offset: i64, number: Number, acknowledged: bool) {
        if self.is_replicated && place.0 == CACHED && self.power_losses > 0 {
            // A follower that still had it may have shown it after whoever leads by now lost it.
            return;
        }
        match self.sent.get(&number) {
            Some(sent) if sent.place == place => {}
            _ => self.fail(format!(
                "{place:?} {offset}: {number:?} was never sent there"
            )),
        }
        let known = &mut self.partitions.entry(place).or_default().known;
        let entry = known.entry(offset).or_insert((number, false));
        entry.1 |= acknowledged;
        if entry.0 != number {
            let other = entry.0;
            self.fail(format!(
                "{place:?} {offset}: {number:?}, and before {other:?}"
            ));
        }
    }
}

impl State {
    fn know_committed(&mut self, place: Place, commit: usize, order: Order) {
        let last = self.last.get(&place);
        if last.is_none_or(|last| self.commits[*last].order < order) {
            self.last.insert(place, commit);
        }
    }

    /// What is synced nowhere may be lost wherever the power is.
    fn forget_cached(&mut self) {
        for (place, partition) in &mut self.partitions {
            if place.0 == CACHED {
                partition.known.clear();
                partition.acknowledged.clear();
                partition.high_watermark = 0;
                partition.has_ghosts = true;
            }
        }
    }

    /// After a write that failed, a power failure may bring back what was written then, in the place of what was
    /// written over it and not synced.
    fn forget_unsynced(&mut self, place: Place) {
        let partition = self.partitions.entry(place).or_default();
        partition.known.split_off(&partition.synced);
        partition.acknowledged.clear();
        partition.has_ghosts = true;
    }
}

impl History {
    /// A call of the disk is going to fail.
    pub fn disk_fails(&self) {
        self.state.lock().disk_failed = true;
    }

    /// What is acknowledged is on several brokers: no end of one of them takes anything, but that of what is nowhere synced.
    pub fn is_replicated(&self) {
        self.state.lock().is_replicated = true;
    }

    pub fn has_replicas(&self) -> bool {
        self.state.lock().is_replicated
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        state.note(what());
    }

    /// The same, outside of any host.
    pub fn note_at(&self, ms: u128, what: String) {
        self.state.lock().trace.push(format!("{ms:>6} {what}"));
    }

    pub fn fail(&self, what: String) {
        self.state.lock().fail(what);
    }

    pub fn failure(&self) -> Option<String> {
        self.state.lock().failure.clone()
    }

    pub fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().trace)
    }

    pub fn sending(&self, place: Place, numbers: &[Number], idempotent: bool) {
        let mut state = self.state.lock();
        for number in numbers {
            let sent = state.sent.entry(*number).or_insert(Sent {
                place,
                idempotent,
                attempts: 0,
            });
            sent.attempts += 1;
        }
    }

    /// The broker acknowledged records from an offset on.
    pub fn acknowledged(&self, place: Place, power_losses: u32, base: i64, numbers: &[Number]) {
        let mut state = self.state.lock();
        state.note(format!("{place:?} {base}: acknowledged {numbers:?}"));
        let may_be_lost = state.is_replicated && place.0 == CACHED && state.power_losses > 0;
        if state.is_late(place, power_losses) || may_be_lost {
            return;
        }
        for (at, number) in (base..).zip(numbers) {
            state.know(place, at, *number, true);
        }
        let Some((producer, first)) = numbers.first() else {
            return;
        };
        let partition = state.partitions.entry(place).or_default();
        // The earlier one may be told later: it was refused for a while although it was stored.
        let last = partition.acknowledged.insert(*producer, (*first, base));
        if let Some((number, at)) = last
            && (number < *first) != (at < base)
        {
            state.fail(format!(
                "{place:?}: producer {producer} has {first} at {base} and {number} at {at}"
            ));
        }
    }

    /// What a reader knows before it asks.
    pub fn high_watermark(&self, place: Place) -> i64 {
        let state = self.state.lock();
        let partition = state.partitions.get(&place);
        partition.map_or(0, |partition| partition.high_watermark)
    }

    /// How often the power was lost so far: what was known before may be known no more.
    pub fn power_losses(&self) -> u32 {
        self.state.lock().power_losses
    }

    /// A reader was told of a high watermark and shown records.
    pub fn shown(
        &self,
        place: Place,
        (before, power_losses): (i64, u32),
        high_watermark: i64,
        records: &[(i64, Number)],
    ) {
        let mut state = self.state.lock();
        if state.is_late(place, power_losses) {
            return;
        }
        // A new leader may serve before it knows what is committed, as Kafka's does.
        if high_watermark < before && !state.is_replicated {
            state.fail(format!(
                "{place:?}: high watermark {high_watermark} after {before}"
            ));
        }
        let partition = state.partitions.entry(place).or_default();
        partition.high_watermark = partition.high_watermark.max(high_watermark);
        for (offset, number) in records {
            if *offset >= high_watermark {
                state.fail(format!("{place:?} {offset}: shown above {high_watermark}"));
            }
            state.know(place, *offset, *number, false);
        }
    }

    /// A broker is gone that had `places`; `ends` are of the partitions that it had open.
    pub fn ended(&self, how: End, places: &[Place], ends: &BTreeMap<Place, Ends>) {
        let mut state = self.state.lock();
        let told: Vec<String> = ends
            .iter()
            .map(|(place, ends)| format!("{place:?} {}/{}", ends.synced_end, ends.log_end))
            .collect();
        state.note(format!("{how:?} at {}", told.join(", ")));
        state.power_losses += u32::from(how == End::PowerLost);
        if state.is_replicated {
            if how == End::PowerLost {
                state.forget_cached();
            }
            return;
        }
        for place in places.iter().copied() {
            let partition = state.partitions.entry(place).or_default();
            if let Some(ends) = ends.get(&place) {
                partition.synced = partition.synced.max(ends.synced_end);
                partition.at_least = ends.log_end;
            }
            if how == End::PowerLost && state.disk_failed && place.0 == CACHED {
                state.forget_unsynced(place);
            }
            let partition = state.partitions.entry(place).or_default();
            match how {
                End::Stopped | End::Killed => {}
                End::PowerLost => {
                    partition.at_least = partition.synced;
                    if place.0 == CACHED {
                        partition.high_watermark = partition.high_watermark.min(partition.synced);
                    }
                }
            }
        }
    }

    /// A broker opened its partitions.
    pub fn opened(&self, ends: &BTreeMap<Place, Ends>) {
        let mut state = self.state.lock();
        state.note(format!("opened {ends:?}"));
        if state.is_replicated {
            return;
        }
        for (place, ends) in ends {
            let partition = state.partitions.entry(*place).or_default();
            let (end, at_least) = (ends.log_end, partition.at_least);
            let mut lost = partition.known.split_off(&end);
            let kept = partition.known.split_off(&ends.log_start);
            lost.append(&mut std::mem::replace(&mut partition.known, kept));
            let start = std::mem::replace(&mut partition.start, ends.log_start);
            // Where nothing is synced, the first segment may be lost before a later one.
            let first_may_go = place.0 == CACHED && partition.synced <= start;
            let told = partition.high_watermark;
            partition.high_watermark = told.min(end);
            partition.acknowledged.retain(|_, (_, last)| *last < end);
            if end < at_least {
                state.fail(format!("{place:?}: opened at {end}, not at {at_least}"));
            }
            if start != ends.log_start && !first_may_go {
                state.fail(format!(
                    "{place:?}: began at {start}, begins at {}",
                    ends.log_start
                ));
            }
            if place.0 == SYNCED && told > end {
                state.fail(format!("{place:?}: opened at {end}, shown to {told}"));
            }
            if let Some((offset, number)) = lost
                .iter()
                .find_map(|(at, (number, told))| told.then_some((at, number)))
                && place.0 == SYNCED
            {
                state.fail(format!(
                    "{place:?} {offset}: {number:?} was acknowledged and is lost"
                ));
            }
        }
    }

    /// A producer's next record is refused as out of order.
    pub fn out_of_order(&self, place: Place, number: Number, code: i16) {
        let mut state = self.state.lock();
        state.note(format!("{place:?}: {number:?} refused with {code}"));
        if place.0 == SYNCED || state.power_losses == 0 {
            state.fail(format!(
                "{place:?}: {number:?} was refused with {code}, although nothing is lost"
            ));
        }
    }

    /// A member leaves.
    pub fn leaving(&self, member: &str) {
        let mut state = self.state.lock();
        state.note(format!("{member} leaves"));
        state.heard.remove(member);
    }

    /// A member was answered as one.
    pub fn heard(&self, member: &str) {
        self.state.lock().heard.insert(member.to_owned(), now_ms());
    }

    /// A member was given its part of what the leader dealt.
    pub fn assigned(&self, generation: i32, (member, leader): (&str, &str), places: &[Place]) {
        let mut state = self.state.lock();
        state.forget_group_of_nobody(generation, leader);
        let known = state.leaders.entry(generation);
        let known = known.or_insert_with(|| leader.to_owned()).clone();
        if known != leader {
            state.fail(format!(
                "generation {generation} is led by {known} and by {leader}"
            ));
        }
        state.note(format!("{generation}: {member} has {places:?}"));
        for place in places {
            let owner = state.owners.entry((generation, *place));
            let owner = owner.or_insert_with(|| member.to_owned()).clone();
            if owner != member {
                state.fail(format!(
                    "{place:?} is {owner}'s and {member}'s in generation {generation}"
                ));
            }
        }
    }

    /// A commit is sent; the number is for [`Self::committed`].
    pub fn committing(&self, place: Place, order: Order, offset: i64) -> usize {
        let mut state = self.state.lock();
        state.commits.push(Commit {
            place,
            order,
            offset,
            accepted: None,
        });
        state.commits.len() - 1
    }

    pub fn committed(&self, commit: usize, code: i16) {
        let mut state = self.state.lock();
        let Commit {
            place,
            order,
            offset,
            ..
        } = state.commits[commit];
        state.note(format!("{place:?}: commit {offset} of {order:?}: {code}"));
        // An error is no promise that it was not stored.
        if code != 0 {
            return;
        }
        state.commits[commit].accepted = Some(true);
        state.know_committed(place, commit, order);
    }

    /// The last acknowledged commit: a reader of offsets takes note before it asks.
    pub fn last_commit(&self, place: Place) -> Option<usize> {
        self.state.lock().last.get(&place).copied()
    }

    /// A member was told what is committed; -1 for nothing. From now on that is as good as acknowledged.
    pub fn found_committed(&self, place: Place, last: Option<usize>, offset: i64) {
        let mut state = self.state.lock();
        state.note(format!("{place:?}: {offset} is committed"));
        let last = last.map(|last| (state.commits[last].order, state.commits[last].offset));
        let is_behind = |commit: &Commit| last.is_none_or(|(last, _)| commit.order >= last);
        let told = |commit: &Commit| commit.place == place && commit.offset == offset;
        let commits = state.commits.iter().enumerate();
        let found = commits.filter(|(_, commit)| told(commit) && is_behind(commit));
        // The first that it may be: less is known then.
        if let Some((found, order)) = found
            .map(|(at, commit)| (at, commit.order))
            .min_by_key(|(_, order)| *order)
        {
            state.know_committed(place, found, order);
            return;
        }
        let Some((last, before)) = last else { return };
        // It may have been on its way for long.
        let late =
            |commit: &Commit| commit.accepted.is_none() && told(commit) && commit.order.0 >= last.0;
        if !state.commits.iter().any(late) {
            state.fail(format!(
                "{place:?}: {offset} is committed, after {before} of {last:?} was acknowledged"
            ));
        }
    }

    /// Up to where a partition is committed, by what was acknowledged.
    pub fn committed_end(&self, place: Place) -> i64 {
        let state = self.state.lock();
        let last = state.last.get(&place);
        last.map_or(0, |last| state.commits[*last].offset)
    }

    /// All that is in the logs at the end.
    pub fn finish(&self, logs: &BTreeMap<Place, Vec<(i64, Number)>>) {
        let mut state = self.state.lock();
        let mut counts: BTreeMap<Number, u32> = BTreeMap::new();
        for (place, log) in logs {
            let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
            let start = state.partitions.entry(*place).or_default().start;
            for (expected, (offset, number)) in (start..).zip(log) {
                if *offset != expected {
                    state.fail(format!("{place:?}: {offset} behind {expected}"));
                    return;
                }
                state.know(*place, *offset, *number, false);
                let count = counts.entry(*number).or_default();
                *count += 1;
                let Some(sent) = state.sent.get(number) else {
                    continue;
                };
                let (idempotent, attempts, count) = (sent.idempotent, sent.attempts, *count);
                let has_ghosts = state.partitions.entry(*place).or_default().has_ghosts;
                let idempotent = idempotent && !has_ghosts;
                let is_again = (idempotent && count > 1) || count > attempts;
                if is_again && !has_ghosts {
                    state.fail(format!("{place:?} {offset}: {number:?} is there again"));
                }
                let newest = newest.insert(number.0, number.1);
                if idempotent && newest.is_some_and(|newest| newest > number.1) {
                    state.fail(format!(
                        "{place:?} {offset}: {number:?} behind number {newest:?}"
                    ));
                }
            }
            let end = start + log.len() as i64;
            let known = &state.partitions.entry(*place).or_default().known;
            if let Some((offset, (number, _))) = known.range(end..).next() {
                let what = format!("{place:?} {offset}: {number:?} is missing");
                state.fail(what);
            }
        }
    }
}
