//! DescribeCluster (key 60, v0–v2; KIP-700, 919, 1073): cluster id, controller, brokers.
//!
//! - Only the brokers' endpoints are known here; asking for controllers is MISMATCHED_ENDPOINT_TYPE.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use metaq_protocol::messages::{ApiKey, BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::authorize::authorized_cluster_operations;
use super::shared::{OPERATIONS_OMITTED, message, text};
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::DescribeCluster,
    order: Order::Alone,
    needs: &[],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

const ENDPOINT_TYPE_BROKER: i8 = 1;
const ENDPOINT_TYPE_CONTROLLER: i8 = 2;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if caller.version >= 1 && request.endpoint_type != ENDPOINT_TYPE_BROKER {
        let (error, why) = match request.endpoint_type {
            ENDPOINT_TYPE_CONTROLLER => (
                ResponseError::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER".to_owned(),
            ),
            other => (
                ResponseError::UnsupportedEndpointType,
                format!("Unsupported endpoint type {other}"),
            ),
        };
        return DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(message(&why));
    }
    let image = cx.cluster.image();
    let brokers = image.brokers.values().filter_map(|broker| {
        let (host, port) = caller.endpoint_of(broker)?;
        let described = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.id))
            .with_host(text(host))
            .with_port(port)
            .with_rack(broker.rack.clone().map(text));
        Some(described)
    });
    let asked = request.include_cluster_authorized_operations;
    DescribeClusterResponse::default()
        .with_cluster_id(text(image.cluster_id.clone()))
        .with_controller_id(BrokerId(image.controller_id))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(if asked {
            authorized_cluster_operations(&cx, &caller.session)
        } else {
            OPERATIONS_OMITTED
        })
}
