//! Live values as server-sent events: one producer for all viewers, which runs while there are any.
//!
//! Tests: tests/dashboard.rs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::broadcast;

use super::Shared;
use super::errors::ApiError;
use super::meter::Reading;
use super::views::broker::RatesView;
use super::visitor::Visitor;
use crate::api::Resource;
use crate::security::Operation;

/// Viewers at a time.
const VIEWERS_MAX: usize = 32;
/// Between two values.
const EVERY: Duration = Duration::from_secs(1);
/// Lags of groups are looked up every so many values.
const LAGS_EVERY: u64 = 5;
/// Topics and groups that are shown: the busiest, and those that lag most.
const NAMED_MAX: usize = 200;

/// What is sent every second.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct LiveView {
    /// ms since 1970.
    at_ms: i64,
    /// What happens a second.
    rates: RatesView,
    /// Connections.
    connections: usize,
    /// Resident memory, bytes.
    resident: u64,
    /// Bytes of segments.
    log_bytes: u64,
    /// How long the broker has been running, ms.
    uptime_ms: u64,
    /// Topics on which something comes or goes: bytes appended, bytes sent, messages appended a second.
    topics: BTreeMap<String, [f64; 3]>,
    /// Messages that groups have not read; sent every fifth time, otherwise `null`.
    groups: Option<BTreeMap<String, f64>>,
}

/// What is sent, for those who may see all of it as text already.
struct Told {
    view: LiveView,
    text: String,
}

/// Viewers and their producer.
pub(super) struct Live {
    values: broadcast::Sender<Arc<Told>>,
    runs: AtomicBool,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            values: broadcast::channel(4).0,
            runs: AtomicBool::new(false),
        }
    }
}

/// `/api/live`: a stream of [`LiveView`], one a second.
pub(super) async fn serve(State(shared): State<Shared>, visitor: Visitor) -> Response {
    let live = &shared.live;
    if live.values.receiver_count() >= VIEWERS_MAX {
        return ApiError::busy("too many viewers look already").into_response();
    }
    let values = live.values.subscribe();
    if !live.runs.swap(true, Ordering::AcqRel) {
        tokio::spawn(produce(shared.clone()));
    }
    let viewer = (values, shared.clone(), visitor);
    let events = stream::unfold(viewer, |(mut values, shared, visitor)| async move {
        loop {
            match values.recv().await {
                Ok(told) => {
                    let text = text_for(&shared, &visitor, &told)?;
                    let event = Ok::<_, Infallible>(Event::default().data(text));
                    return Some((event, (values, shared, visitor)));
                }
                // A viewer that is slow misses values.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let alive = KeepAlive::default();
    Sse::new(events).keep_alive(alive).into_response()
}

/// What a viewer is sent: of topics and groups those that it may see. Nothing more once it may not look, or is not who it
/// was.
fn text_for(shared: &Shared, visitor: &Visitor, told: &Told) -> Option<String> {
    let cx = &shared.cx;
    let may = shared.access.is_still(visitor.known())
        && visitor.may(cx, Operation::Describe, Resource::Cluster);
    match may {
        false => None,
        true if visitor.may_all(cx) => Some(told.text.clone()),
        true => {
            let mut view = told.view.clone();
            view.topics.retain(|topic, _| visitor.sees_topic(cx, topic));
            if let Some(groups) = &mut view.groups {
                groups.retain(|group, _| visitor.sees_group(cx, group));
            }
            serde_json::to_string(&view).ok()
        }
    }
}

async fn produce(shared: Shared) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut before: Option<Reading> = None;
    let mut count = 0;
    loop {
        every.tick().await;
        if shared.live.values.receiver_count() == 0 {
            shared.live.runs.store(false, Ordering::Release);
            // Somebody may have come in between.
            if shared.live.values.receiver_count() == 0
                || shared.live.runs.swap(true, Ordering::AcqRel)
            {
                return;
            }
        }
        let cx = shared.cx.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || Reading::take(&cx)).await else {
            continue;
        };
        if let Some(then) = before.replace(now)
            && let Some(now) = &before
        {
            let with_lags = count % LAGS_EVERY == 0;
            count += 1;
            let view = value(&shared, now, &then, with_lags).await;
            if let Ok(text) = serde_json::to_string(&view) {
                let _ = shared.live.values.send(Arc::new(Told { view, text }));
            }
        }
    }
}

async fn value(shared: &Shared, now: &Reading, then: &Reading, with_lags: bool) -> LiveView {
    let cx = &shared.cx;
    let rates = now.since(then);
    let mut topics: Vec<_> = rates.topics.iter().collect();
    let busy = |of: &super::meter::TopicRates| of.bytes_in + of.bytes_out;
    topics.sort_by(|a, b| busy(b.1).total_cmp(&busy(a.1)));
    let topic = |(name, of): (&Arc<str>, &super::meter::TopicRates)| {
        (
            name.to_string(),
            [of.bytes_in, of.bytes_out, of.messages_in],
        )
    };
    let groups = match with_lags {
        true => {
            let mut lags = super::lookout::lags(cx).await;
            lags.sort_by(|a, b| b.1.total_cmp(&a.1));
            Some(lags.into_iter().take(NAMED_MAX).collect())
        }
        false => None,
    };
    LiveView {
        at_ms: cx.partitions.clock().now_ms(),
        rates: RatesView::of(&rates),
        connections: cx.observe.clients.len(),
        resident: super::process::resident_bytes(),
        log_bytes: now.log_bytes,
        uptime_ms: cx.observe.uptime().as_millis() as u64,
        topics: topics.into_iter().take(NAMED_MAX).map(topic).collect(),
        groups,
    }
}
