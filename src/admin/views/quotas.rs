//! Who has a quota, and who is throttled by which one since when.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::Context;
use crate::cluster::{Entity, EntityName};
use crate::quota::{Counts, QuotaKind};

/// Of those that are not throttled so many are shown.
const COUNTS_SHOWN: usize = 200;

/// What somebody with a quota did in the last seconds.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct QuotaView {
    /// What is limited: `producer_byte_rate`, `consumer_byte_rate`, `request_percentage` or `controller_mutation_rate`.
    pub(in crate::admin) quota: &'static str,
    /// The user; empty where all users of the client id count together.
    pub(in crate::admin) user: String,
    /// The client id; empty where all client ids of the user count together.
    pub(in crate::admin) client_id: String,
    /// Whose quota is in force.
    pub(in crate::admin) rule: String,
    /// How much it is, a second: bytes, percent of a thread, or partitions.
    pub(in crate::admin) limit: f64,
    /// What was done, in the same unit.
    pub(in crate::admin) rate: f64,
    /// While it is throttled, since when, ms since 1970.
    pub(in crate::admin) throttled_since_ms: Option<i64>,
    /// How long it was told to wait the last time, ms.
    pub(in crate::admin) throttle_ms: u64,
    /// How often it was throttled.
    pub(in crate::admin) throttles: u64,
    /// For how long altogether, ms.
    pub(in crate::admin) throttled_ms: u64,
}

impl QuotaView {
    fn of(counts: Counts, now_ms: i64) -> Self {
        let since = |since: std::time::Duration| now_ms - since.as_millis() as i64;
        let throttling = counts.throttling;
        Self {
            quota: counts.kind.key(),
            rule: rule_text(&counts.rule.entity),
            user: counts.user,
            client_id: counts.client_id,
            limit: counts.rule.limit,
            rate: counts.rate,
            throttled_since_ms: throttling.map(|throttling| since(throttling.since)),
            throttle_ms: throttling.map_or(0, |throttling| throttling.last.as_millis() as u64),
            throttles: counts.throttles,
            throttled_ms: counts.throttled_for.as_millis() as u64,
        }
    }

    /// Whom it counts, for people.
    pub(in crate::admin) fn who(&self) -> String {
        match (self.user.as_str(), self.client_id.as_str()) {
            (user, "") => format!("user {user}"),
            ("", client) => format!("client id {client}"),
            (user, client) => format!("user {user}, client id {client}"),
        }
    }

    /// A figure with its unit.
    pub(in crate::admin) fn shown(&self, figure: &f64) -> String {
        let kind = QuotaKind::ALL.iter().find(|kind| kind.key() == self.quota);
        match kind {
            Some(QuotaKind::Request) => format!("{figure:.2} %"),
            Some(QuotaKind::ControllerMutation) => format!("{figure:.2} partitions/s"),
            _ => format!("{figure:.0} B/s"),
        }
    }
}

/// Those that have quotas and did something, who is throttled first.
pub(in crate::admin) fn quotas_of(cx: &Context) -> Vec<QuotaView> {
    let now_ms = cx.partitions.clock().now_ms();
    let counts = cx.quotas.counts(tokio::time::Instant::now()).into_iter();
    let mut all: Vec<QuotaView> = counts.map(|counts| QuotaView::of(counts, now_ms)).collect();
    all.sort_by_key(|view| view.throttled_since_ms.unwrap_or(i64::MAX));
    let throttled = all.iter().filter(|view| view.throttled_since_ms.is_some());
    let shown = throttled.count() + COUNTS_SHOWN;
    all.truncate(shown);
    all
}

fn rule_text(entity: &Entity) -> String {
    let named = |kind: &str, name: &EntityName| match name {
        EntityName::Default => format!("default {kind}"),
        EntityName::Named(name) => format!("{kind} {name}"),
    };
    match entity {
        Entity::User(user) => named("user", user),
        Entity::Client(client) => named("client id", client),
        Entity::UserClient(user, client) => {
            format!("{}, {}", named("user", user), named("client id", client))
        }
        Entity::Ip(ip) => named("address", ip),
    }
}
