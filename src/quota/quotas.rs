//! The quotas of a broker: what clients did is counted for those that have one, and nothing for the others. Each client that is
//! counted has a lock of its own, held for a few additions.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::rules::{CountedBy, QuotaKind, Rule, Rules};
use super::window::{Samples, Window};

/// Parts that the counts are in, each with a lock for finding them.
const SHARDS: usize = 16;
/// Counts of a shard among which those that are as new ones are looked for when one more is made.
const SHARD_COUNTS_MIN: usize = 256;
/// Who is throttled again within this time has been throttled all along.
const EPISODE_GAP: Duration = Duration::from_secs(2);
/// The bit of quotas of addresses.
const IPS: u8 = 1 << 7;

/// What a broker's configuration says of quotas.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Of bytes, requests and connections: `quota.window.num`, `quota.window.size.seconds`.
    pub samples: Samples,
    /// Of partitions: `controller.quota.window.num`, `controller.quota.window.size.seconds`.
    pub controller_samples: Samples,
}

/// Who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// The principal's name.
    pub user: &'a str,
    /// Empty for none.
    pub client_id: &'a str,
}

/// Whose counts they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: QuotaKind,
    /// Empty where all users count together.
    user: String,
    /// Empty where all client ids do.
    client_id: String,
}

#[derive(Debug)]
struct State {
    rule: Rule,
    window: Window,
    bucket: Bucket,
    /// Since when, until when, and for how long the last time.
    throttled: Option<(Instant, Instant, Duration)>,
    throttles: u64,
    throttled_for: Duration,
}

/// What somebody did, as people and metrics see it.
#[derive(Debug, Clone)]
pub struct Counts {
    /// What is limited.
    pub kind: QuotaKind,
    /// The user; empty where all users count together.
    pub user: String,
    /// The client id; empty where all client ids do.
    pub client_id: String,
    /// The quota that is in force.
    pub rule: Rule,
    /// What was done, a second: bytes, percent, or partitions.
    pub rate: f64,
    /// Of partitions, those that may be made at once.
    pub tokens: Option<f64>,
    /// While it is throttled.
    pub throttling: Option<Throttling>,
    /// How often it was throttled.
    pub throttles: u64,
    /// For how long altogether.
    pub throttled_for: Duration,
}

/// Somebody is throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttling {
    /// How long it has been so, again and again.
    pub since: Duration,
    /// How long it was told to wait the last time.
    pub last: Duration,
}

/// Whether somebody is given what it asked for, and how long it is to wait then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Whether it is.
    pub is_given: bool,
    /// How long.
    pub throttle: Duration,
}

type Shard = Mutex<HashMap<Key, Arc<Mutex<State>>>>;

/// See the module's documentation.
#[derive(Debug)]
pub struct Quotas {
    options: Options,
    began: Instant,
    /// The kinds of which there are quotas.
    kinds: AtomicU8,
    rules: ArcSwap<Rules>,
    shards: [Shard; SHARDS],
    hasher: std::hash::RandomState,
    /// Connections that addresses made.
    ips: Mutex<HashMap<IpAddr, Window>>,
    /// Connections that all made.
    connections: Mutex<Window>,
}

impl Quotas {
    /// Without any quota.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            began: Instant::now(),
            kinds: AtomicU8::new(0),
            rules: ArcSwap::default(),
            shards: Default::default(),
            hasher: std::hash::RandomState::new(),
            ips: Mutex::default(),
            connections: Mutex::default(),
        }
    }

    /// Others are in force. What was counted stays, for who has a quota still.
    pub fn set_rules(&self, rules: Rules) {
        let mut kinds = rules.kinds();
        if rules.has_ips() {
            kinds |= IPS;
        }
        self.rules.store(Arc::new(rules));
        self.kinds.store(kinds, Ordering::Release);
        let rules = self.rules.load();
        for shard in &self.shards {
            shard.lock().retain(|key, state| {
                let rule = rules.find(key.kind, &key.user, &key.client_id);
                let rule = rule.filter(|rule| key == &key_of(key.kind, key.who(), rule));
                match rule {
                    Some(rule) => {
                        state.lock().rule = rule;
                        true
                    }
                    None => false,
                }
            });
        }
    }

    /// Whether anybody has a quota of a kind.
    pub fn has(&self, kind: QuotaKind) -> bool {
        self.kinds.load(Ordering::Relaxed) & kind.bit() != 0
    }

    /// Whether anybody has any.
    pub fn has_any(&self) -> bool {
        self.kinds.load(Ordering::Relaxed) != 0
    }

    /// Somebody did so much; how long it is to wait until that is no more than it may.
    pub fn charge(&self, kind: QuotaKind, who: Who<'_>, amount: f64, now: Instant) -> Duration {
        self.with(kind, who, now, |state, now_ms| {
            let samples = self.samples(kind);
            state.window.record(amount, now_ms, samples);
            let throttle_ms = match kind {
                QuotaKind::ControllerMutation => {
                    let limit = state.rule.limit;
                    state.bucket.take(amount, limit, now_ms, samples);
                    state.bucket.throttle_ms(limit, now_ms, samples)
                }
                _ => state.window.throttle_ms(state.rule.limit, now_ms, samples),
            };
            Duration::from_millis(match kind {
                // As Kafka's ClientRequestQuotaManager.
                QuotaKind::Request => throttle_ms.min(samples.ms),
                _ => throttle_ms,
            })
        })
        .unwrap_or_default()
    }

    /// Creates or deletes so many partitions where that may be at all; otherwise how long to wait (Kafka's
    /// StrictControllerMutationQuota).
    pub fn charge_strictly(&self, who: Who<'_>, count: f64, now: Instant) -> Result<(), Duration> {
        let kind = QuotaKind::ControllerMutation;
        let samples = self.samples(kind);
        let charged = self.with(kind, who, now, |state, now_ms| {
            let limit = state.rule.limit;
            match state.bucket.throttle_ms(limit, now_ms, samples) {
                0 => {
                    state.window.record(count, now_ms, samples);
                    state.bucket.take(count, limit, now_ms, samples);
                    Ok(())
                }
                ms => Err(Duration::from_millis(ms)),
            }
        });
        charged.unwrap_or(Ok(()))
    }

    /// So much is to be given to somebody: where that is more than it may have it is not given, and not charged, and the time
    /// is how long it is to wait. Who had nothing in the last seconds is given it whatever it is, or it would never come.
    pub fn charge_fetch(&self, who: Who<'_>, amount: f64, now: Instant) -> Given {
        let kind = QuotaKind::Fetch;
        let samples = self.samples(kind);
        let charged = self.with(kind, who, now, |state, now_ms| {
            let had_nothing = state.window.rate(now_ms, samples) <= 0.0;
            state.window.record(amount, now_ms, samples);
            let throttle_ms = state.window.excess_ms(state.rule.limit, now_ms, samples);
            let is_given = throttle_ms == 0 || had_nothing;
            if !is_given {
                state.window.record(-amount, now_ms, samples);
            }
            Given {
                is_given,
                throttle: Duration::from_millis(throttle_ms),
            }
        });
        charged.unwrap_or(Given {
            is_given: true,
            throttle: Duration::ZERO,
        })
    }

    /// What was charged is taken back, or is more than was known when it was charged; nobody waits for it.
    pub fn adjust(&self, kind: QuotaKind, who: Who<'_>, amount: f64, now: Instant) {
        let samples = self.samples(kind);
        self.with(kind, who, now, |state, now_ms| {
            state.window.record(amount, now_ms, samples);
        });
    }

    /// What somebody may still do without having to wait for it; `None` where it has no quota.
    pub fn left(&self, kind: QuotaKind, who: Who<'_>, now: Instant) -> Option<f64> {
        let samples = self.samples(kind);
        self.with(kind, who, now, |state, now_ms| {
            state.window.left(state.rule.limit, now_ms, samples)
        })
    }

    /// Somebody waits now, as told.
    pub fn note_throttled(&self, kind: QuotaKind, who: Who<'_>, throttle: Duration, now: Instant) {
        self.with(kind, who, now, |state, _| {
            let going_on = state
                .throttled
                .filter(|(_, until, _)| *until + EPISODE_GAP > now);
            let since = going_on.map_or(now, |(since, ..)| since);
            let until = (now + throttle).max(going_on.map_or(now, |(_, until, _)| until));
            state.throttled = Some((since, until, throttle));
            state.throttles += 1;
            state.throttled_for = state.throttled_for.saturating_add(throttle);
        });
    }

    /// An address makes a connection; how long it is to wait where it made too many (Kafka's ConnectionQuotas). Then this one
    /// does not count.
    pub fn connect(&self, ip: IpAddr, now: Instant) -> Duration {
        if self.kinds.load(Ordering::Relaxed) & IPS == 0 {
            return Duration::ZERO;
        }
        let Some(rate) = self.rules.load().connection_rate(ip) else {
            return Duration::ZERO;
        };
        let (now_ms, samples) = (self.ms(now), self.options.samples);
        let mut ips = self.ips.lock();
        // Only where it would grow, so that it costs nothing on the whole.
        if ips.len() >= SHARD_COUNTS_MIN && ips.len() == ips.capacity() && !ips.contains_key(&ip) {
            ips.retain(|_, window| !window.is_forgotten(now_ms, samples));
        }
        charge_connection(ips.entry(ip).or_default(), rate, now_ms, samples, true)
    }

    /// The same of all addresses together, against `max.connection.creation.rate`; it counts in any case.
    pub fn connect_any(&self, rate: f64, now: Instant) -> Duration {
        let (now_ms, samples) = (self.ms(now), self.options.samples);
        let mut window = self.connections.lock();
        charge_connection(&mut window, rate, now_ms, samples, false)
    }

    /// What is known of all that have quotas and did something in the last seconds, or had to wait before.
    pub fn counts(&self, now: Instant) -> Vec<Counts> {
        let now_ms = self.ms(now);
        let mut all = Vec::new();
        for shard in &self.shards {
            for (key, state) in shard.lock().iter() {
                let mut state = state.lock();
                if state.throttles > 0 || !self.is_as_new(key, &mut state, now_ms) {
                    all.push(self.shown(key, &mut state, now, now_ms));
                }
            }
        }
        all.sort_by(|a, b| (a.kind, &a.user, &a.client_id).cmp(&(b.kind, &b.user, &b.client_id)));
        all
    }

    fn shown(&self, key: &Key, state: &mut State, now: Instant, now_ms: u64) -> Counts {
        let samples = self.samples(key.kind);
        let limit = state.rule.limit;
        let is_mutation = key.kind == QuotaKind::ControllerMutation;
        let throttling = state
            .throttled
            .filter(|(_, until, _)| *until + EPISODE_GAP > now);
        Counts {
            kind: key.kind,
            user: key.user.clone(),
            client_id: key.client_id.clone(),
            rule: state.rule.clone(),
            rate: state.window.rate(now_ms, samples),
            tokens: is_mutation.then(|| state.bucket.tokens(limit, now_ms, samples)),
            throttling: throttling.map(|(since, _, last)| Throttling {
                since: now.saturating_duration_since(since),
                last,
            }),
            throttles: state.throttles,
            throttled_for: state.throttled_for,
        }
    }

    fn samples(&self, kind: QuotaKind) -> Samples {
        match kind {
            QuotaKind::ControllerMutation => self.options.controller_samples,
            _ => self.options.samples,
        }
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_millis() as u64
    }

    /// Does something with the counts of somebody who has a quota.
    fn with<T>(
        &self,
        kind: QuotaKind,
        who: Who<'_>,
        now: Instant,
        work: impl FnOnce(&mut State, u64) -> T,
    ) -> Option<T> {
        if !self.has(kind) {
            return None;
        }
        let rule = self.rules.load().find(kind, who.user, who.client_id)?;
        let now_ms = self.ms(now);
        let counts = self.counts_of(key_of(kind, who, &rule), &rule, now_ms);
        let mut state = counts.lock();
        if state.rule != rule {
            state.rule = rule;
        }
        Some(work(&mut state, now_ms))
    }

    fn counts_of(&self, key: Key, rule: &Rule, now_ms: u64) -> Arc<Mutex<State>> {
        let shard = self.hasher.hash_one(&key) as usize % SHARDS;
        let mut shard = self.shards[shard].lock();
        if let Some(known) = shard.get(&key) {
            return known.clone();
        }
        if shard.len() >= SHARD_COUNTS_MIN && shard.len() == shard.capacity() {
            shard.retain(|key, state| !self.is_as_new(key, &mut state.lock(), now_ms));
        }
        let state = Arc::new(Mutex::new(State {
            rule: rule.clone(),
            window: Window::default(),
            bucket: Bucket::default(),
            throttled: None,
            throttles: 0,
            throttled_for: Duration::ZERO,
        }));
        shard.insert(key, state.clone());
        state
    }

    /// Whether nothing would be another one without these counts.
    fn is_as_new(&self, key: &Key, state: &mut State, now_ms: u64) -> bool {
        let samples = self.samples(key.kind);
        state.window.is_forgotten(now_ms, samples)
            && (key.kind != QuotaKind::ControllerMutation
                || state.bucket.is_forgotten(state.rule.limit, now_ms, samples))
    }
}

impl Key {
    fn who(&self) -> Who<'_> {
        Who {
            user: &self.user,
            client_id: &self.client_id,
        }
    }
}

fn key_of(kind: QuotaKind, who: Who<'_>, rule: &Rule) -> Key {
    let of = |is_counted: bool, name: &str| match is_counted {
        true => name.to_owned(),
        false => String::new(),
    };
    Key {
        kind,
        user: of(rule.counted != CountedBy::Client, who.user),
        client_id: of(rule.counted != CountedBy::User, who.client_id),
    }
}

fn charge_connection(
    window: &mut Window,
    rate: f64,
    now_ms: u64,
    samples: Samples,
    is_taken_back: bool,
) -> Duration {
    window.record(1.0, now_ms, samples);
    let throttle_ms = window.excess_ms(rate, now_ms, samples).min(samples.ms);
    if throttle_ms > 0 && is_taken_back {
        window.record(-1.0, now_ms, samples);
    }
    Duration::from_millis(throttle_ms)
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
