//! DescribeQuorum (key 55, v0–v2; KIP-595, 836): there is no metadata quorum; UNSUPPORTED_VERSION says so, and where the metadata
//! are instead.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, DescribeQuorumRequest, DescribeQuorumResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::DescribeQuorum,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    _request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let right = authorize(&cx, &caller, Operation::Describe, Resource::Cluster);
    let (error, why) = match right {
        Ok(()) => {
            let why = match cx.cluster.meta().kind() {
                "embedded" => {
                    "There is no metadata quorum: this broker is alone and keeps the metadata itself."
                }
                _ => "There is no metadata quorum: the metadata are in ZooKeeper.",
            };
            (ResponseError::UnsupportedVersion, why.to_owned())
        }
        Err(denied) => (denied.wire(), denied.to_string()),
    };
    DescribeQuorumResponse::default()
        .with_error_code(error.code())
        .with_error_message(message(&why))
}
