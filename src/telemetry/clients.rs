//! The clients that push, and what is kept of each, within limits.
//!
//! Tests: telemetry/mod.rs.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::otlp::Point;
use super::{ClientFacts, Subscribed, Subscriptions};
use crate::config::MatchParameter;
use crate::log::uuid_to_base64;

/// How often a client asks whether there is something to push by now (Kafka's `INTERVAL_MS_DEFAULT`).
pub(super) const INTERVAL_MS_DEFAULT: i32 = 300_000;

/// Clients that are known at a time, as in Kafka.
pub(super) const INSTANCES_MAX: usize = 16_384;
/// Points that are kept of a client.
pub(super) const POINTS_MAX: usize = 1_000;
/// What the points of all clients may take, bytes, roughly; the client that pushed longest ago loses its own.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// A client that asks for nothing any longer is forgotten after three intervals, and not before this, ms.
const FORGET_MS_MIN: i64 = 60_000;
/// Stands for all metrics in a subscription.
const ALL: &str = "*";

/// A client, as it was seen last.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) facts: ClientFacts,
    pub(super) subscribed: Subscribed,
    /// What `subscribed` was worked out from.
    pub(super) subscriptions: Subscriptions,
    pub(super) last_get_ms: i64,
    pub(super) last_push_ms: i64,
    pub(super) terminated: bool,
    /// The last error was one after which it may ask again at once.
    pub(super) may_ask_again: bool,
    pub(super) refused: String,
    pub(super) pushes: u64,
    pub(super) points: Vec<Point>,
    pub(super) points_left_out: usize,
    pub(super) kept_bytes: usize,
}

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) instances: HashMap<Uuid, Instance>,
    pub(super) kept_bytes: usize,
}

impl Clients {
    /// The client with this id, with what it is to push by now.
    pub(super) fn instance(
        &mut self,
        now_ms: i64,
        id: Uuid,
        facts: &ClientFacts,
        subscriptions: &Subscriptions,
    ) -> &mut Instance {
        if !self.instances.contains_key(&id) && self.instances.len() >= INSTANCES_MAX {
            self.forget(now_ms);
            self.forget_oldest();
        }
        let fresh = || Instance {
            facts: facts.clone(),
            subscribed: subscribed(id, facts, subscriptions),
            subscriptions: subscriptions.clone(),
            last_get_ms: i64::MIN / 2,
            last_push_ms: i64::MIN / 2,
            terminated: false,
            may_ask_again: false,
            refused: String::new(),
            pushes: 0,
            points: Vec::new(),
            points_left_out: 0,
            kept_bytes: 0,
        };
        let client = self.instances.entry(id).or_insert_with(fresh);
        if !Arc::ptr_eq(&client.subscriptions, subscriptions) {
            // With new subscriptions it may ask and push at once.
            let renewed = fresh();
            client.subscribed = renewed.subscribed;
            client.subscriptions = renewed.subscriptions;
            client.last_get_ms = renewed.last_get_ms;
            client.last_push_ms = renewed.last_push_ms;
            client.terminated = false;
        }
        client
    }

    pub(super) fn forget(&mut self, now_ms: i64) {
        let mut freed = 0;
        self.instances.retain(|_, client| {
            let kept = now_ms - client.last_seen_ms() <= client.forget_ms();
            if !kept {
                freed += client.kept_bytes;
            }
            kept
        });
        self.kept_bytes -= freed;
    }

    fn forget_oldest(&mut self) {
        if self.instances.len() < INSTANCES_MAX {
            return;
        }
        let oldest = self
            .instances
            .iter()
            .min_by_key(|(_, client)| client.last_seen_ms());
        if let Some(id) = oldest.map(|(id, _)| *id)
            && let Some(client) = self.instances.remove(&id)
        {
            self.kept_bytes -= client.kept_bytes;
        }
    }

    /// Drops points until they fit.
    pub(super) fn make_room(&mut self) {
        while self.kept_bytes > KEPT_BYTES_MAX {
            let with_points = self
                .instances
                .values_mut()
                .filter(|client| client.kept_bytes > 0);
            let Some(oldest) = with_points.min_by_key(|client| client.last_push_ms) else {
                return;
            };
            self.kept_bytes -= oldest.kept_bytes;
            oldest.points_left_out += oldest.points.len();
            oldest.points = Vec::new();
            oldest.kept_bytes = 0;
        }
    }
}

impl Instance {
    fn last_seen_ms(&self) -> i64 {
        self.last_get_ms.max(self.last_push_ms)
    }

    fn forget_ms(&self) -> i64 {
        FORGET_MS_MIN.max(i64::from(self.subscribed.interval_ms) * 3)
    }

    pub(super) fn keep(&mut self, mut points: Vec<Point>) {
        self.points_left_out = 0;
        if points.len() > POINTS_MAX {
            self.points_left_out = points.pop().map_or(0, |more| more.value as usize);
        }
        let bytes = |point: &Point| size_of::<Point>() + point.name.len() + point.labels.len();
        self.kept_bytes = points.iter().map(bytes).sum();
        self.points = points;
    }
}

/// What the subscriptions that match a client ask of it.
fn subscribed(id: Uuid, facts: &ClientFacts, subscriptions: &Subscriptions) -> Subscribed {
    let instance = uuid_to_base64(id);
    let text_of = |parameter| match parameter {
        MatchParameter::InstanceId => instance.as_str(),
        MatchParameter::ClientId => &facts.client_id,
        MatchParameter::SoftwareName => &facts.software_name,
        MatchParameter::SoftwareVersion => &facts.software_version,
        MatchParameter::SourceAddress => &facts.source_address,
        MatchParameter::SourcePort => &facts.source_port,
    };
    let matching = || subscriptions.iter().filter(|one| one.is_for(text_of));
    let mut metrics: Vec<String> = matching().flat_map(|one| one.metrics.clone()).collect();
    metrics.sort_unstable();
    metrics.dedup();
    if metrics.iter().any(|name| name == ALL) {
        metrics = vec![ALL.to_owned()];
    }
    let intervals = matching().map(|one| one.interval_ms);
    let interval_ms = intervals
        .min()
        .unwrap_or(INTERVAL_MS_DEFAULT)
        .min(INTERVAL_MS_DEFAULT);
    let text = format!("{metrics:?}{interval_ms}");
    let bits = id.as_u128();
    let folded = (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32;
    Subscribed {
        instance: id,
        subscription_id: (crc32c::crc32c(text.as_bytes()) ^ folded) as i32,
        metrics,
        interval_ms,
    }
}
