//! What a request costs its client, and how long the client is to send nothing more for it (Kafka's RequestHandlerHelper): the
//! longest of what its quotas say, noted for the one that says so.

use std::time::Duration;

use metaq_protocol::messages::ApiKey;
use tokio::time::Instant;

use super::context::{Caller, Context};
use crate::cluster::ClusterError;
use crate::quota::{Given, QuotaKind, Who};

/// Of one thread, in all of a second.
const PERCENT: f64 = 100.0;

/// What brokers ask each other for takes no client's time.
const EXEMPT: &[ApiKey] = &[ApiKey::WriteTxnMarkers, ApiKey::AlterPartition];

/// Who is charged.
pub(super) fn who(caller: &Caller) -> Who<'_> {
    Who {
        user: caller.session.principal().name(),
        client_id: caller.client_id.as_deref().unwrap_or_default(),
    }
}

/// Charges the time that a request took of the broker's threads until now.
pub(super) fn charge_time(cx: &Context, caller: &Caller) -> Duration {
    let Some(time) = &caller.thread_time else {
        return Duration::ZERO;
    };
    if EXEMPT.iter().any(|key| *key as i16 == caller.key) {
        return Duration::ZERO;
    }
    let percent = time.spent().as_secs_f64() * PERCENT;
    let (kind, now) = (QuotaKind::Request, Instant::now());
    cx.quotas.charge(kind, who(caller), percent, now)
}

/// Charges what was done of a kind.
pub(super) fn charge(cx: &Context, caller: &Caller, kind: QuotaKind, amount: usize) -> Duration {
    if !cx.quotas.has(kind) {
        return Duration::ZERO;
    }
    cx.quotas
        .charge(kind, who(caller), amount as f64, Instant::now())
}

/// So many bytes of records are ready for a client (Kafka's KafkaApis.handleFetchRequest): where they, or the time that they
/// took, are too much they are not given.
pub(super) fn charge_fetched(cx: &Context, caller: &Caller, bytes: usize) -> Given {
    let (kind, amount) = (QuotaKind::Fetch, bytes as f64);
    let of_time = charge_time(cx, caller);
    let now = Instant::now();
    let mut given = cx.quotas.charge_fetch(who(caller), amount, now);
    if given.is_given && !of_time.is_zero() {
        cx.quotas.adjust(kind, who(caller), -amount, now);
        given.is_given = false;
    }
    given.throttle = settle(cx, caller, (kind, given.throttle), of_time);
    given
}

/// The most bytes that a fetch is answered with: what the client may still have. The first batch comes whole in any case.
pub(super) fn fetch_bytes_max(cx: &Context, caller: &Caller) -> usize {
    let left = cx
        .quotas
        .left(QuotaKind::Fetch, who(caller), Instant::now());
    left.map_or(usize::MAX, |left| left.max(1.0) as usize)
}

/// The longer of what a kind of quota and that of requests say; it is what the client is told.
pub(super) fn settle(
    cx: &Context,
    caller: &Caller,
    (kind, throttle): (QuotaKind, Duration),
    of_time: Duration,
) -> Duration {
    let longest = throttle.max(of_time);
    if !longest.is_zero() {
        let kind = if throttle > of_time {
            kind
        } else {
            QuotaKind::Request
        };
        let now = Instant::now();
        cx.quotas.note_throttled(kind, who(caller), longest, now);
    }
    longest
}

/// A request that creates or deletes partitions (KIP-599): strictly from some version on, each topic by itself; before that
/// everything is done and the client waits.
pub(super) struct Mutations<'a> {
    cx: &'a Context,
    caller: &'a Caller,
    is_strict: bool,
    throttle: Duration,
}

impl<'a> Mutations<'a> {
    /// `None` where nobody has such a quota.
    pub(super) fn of(cx: &'a Context, caller: &'a Caller, strict_from: i16) -> Option<Self> {
        cx.quotas
            .has(QuotaKind::ControllerMutation)
            .then_some(Self {
                cx,
                caller,
                is_strict: caller.version >= strict_from,
                throttle: Duration::ZERO,
            })
    }

    /// Of a request of any version that makes topics in passing, each by itself; charged by the broker that got the request.
    pub(super) fn strictly(cx: &'a Context, caller: &'a Caller) -> Option<Self> {
        Self::of(cx, caller, i16::MIN)
    }

    /// So many partitions are created or deleted.
    pub(super) fn record(&mut self, partitions: usize) -> Result<(), ClusterError> {
        let (quotas, who, now) = (&self.cx.quotas, who(self.caller), Instant::now());
        let count = partitions as f64;
        if !self.is_strict {
            self.throttle = quotas.charge(QuotaKind::ControllerMutation, who, count, now);
            return Ok(());
        }
        quotas.charge_strictly(who, count, now).map_err(|throttle| {
            self.throttle = throttle;
            ClusterError::QuotaExceeded
        })
    }

    /// How long the client is to wait.
    pub(super) fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Charges the time that sending answers took of the broker's threads; nobody waits for it now.
pub fn charge_sending(cx: &Context, who: Who<'_>, took: Duration) {
    let (kind, now) = (QuotaKind::Request, Instant::now());
    let percent = took.as_secs_f64() * PERCENT;
    cx.quotas.adjust(kind, who, percent, now);
}
