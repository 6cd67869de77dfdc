//! FindCoordinator (key 10, v0–v6; KIP-699, 890, 932): which broker coordinates a group, or a transactional id.
//!
//! - Either belongs to a slot by its id, and a slot to a live broker; without one it is COORDINATOR_NOT_AVAILABLE.
//! - A share partition has one of its own, by its key `group:topic id:partition`; only brokers ask for it, and a key that is none is
//!   INVALID_REQUEST.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::find_coordinator_response::Coordinator;
use metaq_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use metaq_protocol::protocol::StrBytes;

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{INVALID_REQUEST, message, text};
use super::{Api, Caller, Context, Order, serve};
use crate::coordinator::Slot;
use crate::share::ShareKey;

pub(super) const API: Api = Api {
    key: ApiKey::FindCoordinator,
    order: Order::Alone,
    needs: &[
        (Operation::Describe, ResourceKind::Group),
        (Operation::Describe, ResourceKind::TransactionalId),
        (Operation::ClusterAction, ResourceKind::Cluster),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
const KEY_TYPE_SHARE: i8 = 2;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if caller.version < 4 {
        return match find(&cx, &caller, request.key_type, &request.key) {
            // Kafka's name of no error.
            Ok((id, host, port)) => FindCoordinatorResponse::default()
                .with_error_message(message(&"NONE"))
                .with_node_id(BrokerId(id))
                .with_host(text(host))
                .with_port(port),
            Err((error, why)) => FindCoordinatorResponse::default()
                .with_error_code(error.code())
                .with_error_message(message(&why))
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        };
    }
    let answer = |key: StrBytes| match find(&cx, &caller, request.key_type, &key) {
        Ok((id, host, port)) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(id))
            .with_host(text(host))
            .with_port(port),
        Err((error, why)) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message(message(&why)),
    };
    let coordinators = request.coordinator_keys.into_iter().map(answer);
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

type FoundCoordinator = Result<(i32, String, i32), (ResponseError, String)>;

fn find(cx: &Context, caller: &Caller, key_type: i8, key: &str) -> FoundCoordinator {
    let invalid = |why: &str| (ResponseError::InvalidRequest, why.to_owned());
    let resource = match key_type {
        KEY_TYPE_GROUP => Resource::Group(key),
        KEY_TYPE_TRANSACTION => Resource::TransactionalId(key),
        KEY_TYPE_SHARE if ShareKey::parse(key).is_none() => return Err(invalid(INVALID_REQUEST)),
        KEY_TYPE_SHARE => Resource::Cluster,
        _ => return Err(invalid(INVALID_REQUEST)),
    };
    let operation = match key_type {
        KEY_TYPE_SHARE => Operation::ClusterAction,
        _ => Operation::Describe,
    };
    authorize(cx, caller, operation, resource).map_err(|denied| {
        let why = match caller.version {
            ..4 => denied.to_string(),
            // Kafka gives the code alone.
            _ => String::new(),
        };
        (denied.wire(), why)
    })?;
    let image = cx.cluster.image();
    let found = image.coordinator_of(Slot::of(key));
    match found.and_then(|broker| Some((broker.id, caller.endpoint_of(broker)?))) {
        Some((id, (host, port))) => Ok((id, host, port)),
        None => Err((
            ResponseError::CoordinatorNotAvailable,
            ResponseError::CoordinatorNotAvailable.to_string(),
        )),
    }
}
