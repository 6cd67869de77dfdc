//! Transactions that this broker coordinates: which are open, prepared, or do not come to an end, since when, and what they hold
//! back.
//!
//! Tests: tests/dashboard.rs, tests/dashboard_security.rs.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Page, Part};
use crate::admin::visitor::Visitor;
use crate::api::{Context, Resource};
use crate::coordinator::Slot;
use crate::log::Outcome;
use crate::security::Operation;
use crate::transaction::{HANGING_MS, State, TransactionDescription, TransactionError};

/// A transactional id.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct TransactionView {
    /// The id.
    pub(in crate::admin) transactional_id: String,
    /// Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit or CompleteAbort.
    pub(in crate::admin) state: &'static str,
    /// Its producer.
    pub(in crate::admin) producer_id: i64,
    /// The producer's epoch.
    pub(in crate::admin) epoch: i16,
    /// Whether its transactions wait for another system's decision, without timeout.
    pub(in crate::admin) two_phase: bool,
    /// After this its transaction is aborted, ms; none of two phases.
    pub(in crate::admin) timeout_ms: Option<i32>,
    /// When the transaction began, ms since 1970; none where there is none.
    pub(in crate::admin) start_ms: Option<i64>,
    /// For how long it is open, or being ended, ms.
    pub(in crate::admin) age_ms: Option<i64>,
    /// When the id changed last, ms since 1970.
    pub(in crate::admin) updated_ms: i64,
    /// Partitions of the transaction; while it ends, those without a marker yet.
    pub(in crate::admin) partitions: usize,
    /// Whether its markers have not been written for half a minute.
    pub(in crate::admin) hanging: bool,
    /// What an operator decided of a transaction of two phases.
    pub(in crate::admin) decision: Option<DecisionView>,
}

/// An operator's decision, which the other system may not know.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct DecisionView {
    /// commit or abort.
    pub(in crate::admin) outcome: &'static str,
    /// The producer of the transaction.
    pub(in crate::admin) producer_id: i64,
    /// Its epoch.
    pub(in crate::admin) epoch: i16,
    /// When, ms since 1970.
    pub(in crate::admin) at_ms: i64,
}

impl TransactionView {
    fn of(found: &TransactionDescription, now_ms: i64) -> Self {
        let is_open = found.state == State::Ongoing || found.state.preparing().is_some();
        let start_ms = (is_open && found.start_ms >= 0).then_some(found.start_ms);
        let decision = found.decision.map(|decision| DecisionView {
            outcome: match decision.outcome {
                Outcome::Commit => "commit",
                Outcome::Abort => "abort",
            },
            producer_id: decision.producer.id,
            epoch: decision.producer.epoch,
            at_ms: decision.at_ms,
        });
        Self {
            transactional_id: found.transactional_id.clone(),
            state: found.state.name(),
            producer_id: found.producer.id,
            epoch: found.producer.epoch,
            two_phase: found.is_two_phase(),
            timeout_ms: (!found.is_two_phase()).then_some(found.timeout_ms),
            start_ms,
            age_ms: start_ms.map(|start_ms| (now_ms - start_ms).max(0)),
            updated_ms: found.updated_ms,
            partitions: found.partitions.len(),
            hanging: found.state.preparing().is_some() && now_ms - found.updated_ms > HANGING_MS,
            decision,
        }
    }
}

/// Transactions that the visitor may see: those that do not come to an end first, then open ones by age, then the others by id.
pub(in crate::admin) async fn list(
    cx: &Context,
    visitor: &Visitor,
    part: &Part,
) -> Result<Page<TransactionView>, TransactionError> {
    let now_ms = cx.partitions.clock().now_ms();
    let all = cx.transactions.list().await?;
    let wanted = all
        .iter()
        .filter(|found| part.wants(&found.transactional_id))
        .filter(|found| {
            let id = Resource::TransactionalId(&found.transactional_id);
            visitor.may(cx, Operation::Describe, id)
        });
    let mut views: Vec<TransactionView> = wanted
        .map(|found| TransactionView::of(found, now_ms))
        .collect();
    views.sort_by_key(|view| {
        (
            !view.hanging,
            view.decision.is_none(),
            -view.age_ms.unwrap_or(-1),
        )
    });
    Ok(part.of(views))
}

/// A transactional id with the partitions of its transaction.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct TransactionDetail {
    /// At a glance.
    pub(in crate::admin) transaction: TransactionView,
    /// Its partitions, of topics that the visitor may see.
    pub(in crate::admin) partitions: Vec<TransactionPartitionView>,
}

/// A partition of a transaction.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct TransactionPartitionView {
    /// Its topic; `__consumer_offsets` for a slot of groups.
    pub(in crate::admin) topic: String,
    /// Its index.
    pub(in crate::admin) partition: i32,
    /// Who leads it, -1 for nobody.
    pub(in crate::admin) leader: i32,
    /// Messages that readers of committed ones do not get yet; none of another broker's partition.
    pub(in crate::admin) held_back: Option<i64>,
}

/// Why a transactional id is not shown.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::admin) enum NoTransaction {
    #[error("broker {0} coordinates this transactional id; ask its dashboard")]
    Elsewhere(i32),
    #[error(transparent)]
    Refused(#[from] TransactionError),
}

/// Whether this broker coordinates a transactional id.
pub(in crate::admin) fn check_here(cx: &Context, id: &str) -> Result<(), NoTransaction> {
    let image = cx.cluster.image();
    let own = cx.cluster.broker_id();
    match image.slot(Slot::of(id)) {
        Some(slot) if slot.owner != own => Err(NoTransaction::Elsewhere(slot.owner)),
        _ => Ok(()),
    }
}

impl TransactionDetail {
    pub(in crate::admin) async fn of(
        cx: &Context,
        visitor: &Visitor,
        id: &str,
    ) -> Result<Self, NoTransaction> {
        check_here(cx, id)?;
        let found = cx.transactions.describe(id).await?;
        let image = cx.cluster.image();
        let partition = |topic: &str, index: i32| {
            let info = image.topic_or_internal(topic);
            let info = info.and_then(|topic| topic.partition(index).cloned());
            let log = cx.partitions.get(topic, index).ok();
            TransactionPartitionView {
                topic: topic.to_owned(),
                partition: index,
                leader: info.map_or(-1, |info| info.leader),
                held_back: log.map(|log| log.high_watermark() - log.last_stable_offset()),
            }
        };
        let partitions = found.partitions.iter();
        // As DescribeTransactions.
        let partitions = partitions.filter(|(topic, _)| visitor.sees_topic(cx, topic));
        let partitions = partitions.map(|(topic, index)| partition(topic, index));
        Ok(Self {
            partitions: partitions.collect(),
            transaction: TransactionView::of(&found, cx.partitions.clock().now_ms()),
        })
    }
}
