//! ListTransactions (key 66, v0–v2; KIP-664, 994, 1152): the transactional ids that this broker coordinates.
//!
//! - By state, producer id, how long they last already (v1), and a regular expression that takes the whole id (v2).
//! - Names of states that are not known are told back. PrepareEpochFence is one that Kafka has and nothing is in.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::list_transactions_response::TransactionState;
use metaq_protocol::messages::{
    ApiKey, ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use metaq_protocol::protocol::StrBytes;
use regex::Regex;

use super::authorize::{Operation, Resource, ResourceKind, is_permitted};
use super::errors::WireError;
use super::shared::text;
use super::{Api, Caller, Context, Order, serve};
use crate::transaction::{State, TransactionDescription};

pub(super) const API: Api = Api {
    key: ApiKey::ListTransactions,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::TransactionalId)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// States of Kafka in which no id is here.
const NEVER_IN: [&str; 2] = ["Dead", "PrepareEpochFence"];

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let refuse =
        |error: ResponseError| ListTransactionsResponse::default().with_error_code(error.code());
    let Ok(wanted) = Wanted::new(&cx, &request) else {
        return refuse(ResponseError::InvalidRegularExpression);
    };
    let all = match cx.transactions.list().await {
        Ok(all) => all,
        Err(error) => return refuse(error.wire()),
    };
    let is_visible = |found: &TransactionDescription| {
        let id = Resource::TransactionalId(&found.transactional_id);
        is_permitted(&cx, &caller, Operation::Describe, id)
    };
    let found = all.into_iter();
    let found = found.filter(|found| wanted.takes(found) && is_visible(found));
    let listed = found.map(|found| {
        TransactionState::default()
            .with_producer_id(ProducerId(found.producer.id))
            .with_transaction_state(text(found.state.name()))
            .with_transactional_id(TransactionalId(text(found.transactional_id)))
    });
    ListTransactionsResponse::default()
        .with_transaction_states(listed.collect())
        .with_unknown_state_filters(wanted.unknown_states)
}

/// What is asked for.
struct Wanted {
    /// `None` for all.
    states: Option<Vec<State>>,
    unknown_states: Vec<StrBytes>,
    producer_ids: BTreeSet<i64>,
    /// Negative for any.
    duration_ms: i64,
    now_ms: i64,
    pattern: Option<Regex>,
}

impl Wanted {
    fn new(cx: &Context, request: &ListTransactionsRequest) -> Result<Self, regex::Error> {
        let (mut states, mut unknown_states) = (Vec::new(), Vec::new());
        let mut asked = HashSet::new();
        // Kafka names what it does not know once.
        for name in request
            .state_filters
            .iter()
            .filter(|name| asked.insert(*name))
        {
            match State::named(name) {
                Some(state) => states.push(state),
                None if NEVER_IN.contains(&name.as_str()) => {}
                None => unknown_states.push(name.clone()),
            }
        }
        let pattern = request.transactional_id_pattern.as_deref();
        let pattern = pattern.filter(|pattern| !pattern.is_empty());
        // By itself too: it must not end the group.
        let whole = |pattern: &str| {
            Regex::new(pattern).and_then(|_| Regex::new(&format!("^(?:{pattern})$")))
        };
        Ok(Self {
            states: (!request.state_filters.is_empty()).then_some(states),
            unknown_states,
            producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
            duration_ms: request.duration_filter,
            now_ms: cx.partitions.clock().now_ms(),
            pattern: pattern.map(whole).transpose()?,
        })
    }

    fn takes(&self, found: &TransactionDescription) -> bool {
        let states = self.states.as_ref();
        let pattern = self.pattern.as_ref();
        states.is_none_or(|states| states.contains(&found.state))
            && (self.producer_ids.is_empty() || self.producer_ids.contains(&found.producer.id))
            && (self.duration_ms < 0 || self.now_ms - found.start_ms > self.duration_ms)
            && pattern.is_none_or(|pattern| pattern.is_match(&found.transactional_id))
    }
}
