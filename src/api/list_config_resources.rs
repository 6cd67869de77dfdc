//! ListConfigResources (key 74, v0–v1; KIP-714, 1142): what configurations can be described.
//!
//! - v0 lists client-metrics resources.
//! - Groups are those that have configurations of their own; brokers are those that live, or have.

use std::collections::BTreeSet;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::list_config_resources_response::ConfigResource;
use metaq_protocol::messages::{ApiKey, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::errors::WireError;
use super::shared::text;
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::Configured;

pub(super) const API: Api = Api {
    key: ApiKey::ListConfigResources,
    order: Order::Alone,
    needs: &[(Operation::DescribeConfigs, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let right = Operation::DescribeConfigs;
    if let Err(denied) = authorize(&cx, &caller, right, Resource::Cluster) {
        return ListConfigResourcesResponse::default().with_error_code(denied.code());
    }
    let types = match (caller.version, request.resource_types.as_slice()) {
        (0, _) => BTreeSet::from([CLIENT_METRICS]),
        (_, []) => BTreeSet::from(ALL),
        (_, asked) => asked.iter().copied().collect(),
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
            BROKER | BROKER_LOGGER => {
                let mut ids: BTreeSet<String> = image.brokers.keys().map(i32::to_string).collect();
                if kind == BROKER {
                    let configured = image.configs.names(Configured::Broker);
                    ids.extend(configured.map(str::to_owned));
                }
                ids.into_iter().for_each(|id| add(kind, id));
            }
            GROUP => {
                let configured = image.configs.names(Configured::Group);
                configured.for_each(|group| add(GROUP, group.to_owned()));
            }
            _ => {
                let configured = image.configs.names(Configured::ClientMetrics);
                configured.for_each(|name| add(CLIENT_METRICS, name.to_owned()));
            }
        }
    }
    ListConfigResourcesResponse::default().with_config_resources(resources)
}
