//! ListConfigResources (key 74, v0–v1; KIP-714, 1142): what configurations can be described.
//!
//! - v0 lists client-metrics resources, of which there are none.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::list_config_resources_response::ConfigResource;
use metaq_protocol::messages::{ApiKey, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::shared::text;
use super::{Api, Caller, Context, serve};

pub(super) const API: Api = Api {
    key: ApiKey::ListConfigResources,
    start: |cx, caller, frame| serve(cx, caller, frame, handle),
};

const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let types = match (caller.version, request.resource_types.as_slice()) {
        (0, _) => vec![CLIENT_METRICS],
        (_, []) => ALL.to_vec(),
        (_, asked) => asked.to_vec(),
    };
    if types.iter().any(|kind| !ALL.contains(kind)) {
        return ListConfigResourcesResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let image = cx.cluster.image();
    let mut resources = Vec::new();
    let mut add = |kind: i8, name: String| {
        resources.push(
            ConfigResource::default()
                .with_resource_name(text(name))
                .with_resource_type(kind),
        );
    };
    for kind in types {
        match kind {
            TOPIC => image
                .topics()
                .for_each(|topic| add(TOPIC, topic.name.to_string())),
            BROKER | BROKER_LOGGER => image
                .brokers
                .keys()
                .for_each(|id| add(kind, id.to_string())),
            _ => {}
        }
    }
    ListConfigResourcesResponse::default().with_config_resources(resources)
}
