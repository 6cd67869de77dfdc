//! UnregisterBroker (key 64, v0; KIP-500): a broker's registration ends with its session, so that there is nothing to take back.
//!
//! - A broker that is there is INVALID_REQUEST; any other one BROKER_ID_NOT_REGISTERED, as by Kafka.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::UnregisterBroker,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let id = request.broker_id.0;
    let right = authorize(&cx, &caller, Operation::Alter, Resource::Cluster);
    let (error, why) = match right {
        Err(denied) => (denied.wire(), denied.to_string()),
        Ok(()) if cx.cluster.image().brokers.contains_key(&id) => (
            ResponseError::InvalidRequest,
            format!("Broker {id} is running; stop it, and its registration ends with its session."),
        ),
        Ok(()) => (
            ResponseError::BrokerIdNotRegistered,
            format!("Broker ID {id} is not currently registered"),
        ),
    };
    UnregisterBrokerResponse::default()
        .with_error_code(error.code())
        .with_error_message(message(&why))
}
