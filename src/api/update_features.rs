//! UpdateFeatures (key 57, v0–v2; KIP-584): no feature has levels here; each is INVALID_UPDATE_VERSION, as by a Kafka that does
//! not know it.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::UpdateFeatures,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let response = UpdateFeaturesResponse::default().with_error_message(None);
    if let Err(denied) = authorize(&cx, &caller, Operation::Alter, Resource::Cluster) {
        return response
            .with_error_code(denied.code())
            .with_error_message(message(&denied));
    }
    let id = cx.cluster.broker_id();
    let error = ResponseError::InvalidUpdateVersion;
    let Some(update) = request.feature_updates.first() else {
        return response;
    };
    let (feature, level) = (&update.feature, update.max_version_level);
    // Upgrade, safe downgrade, unsafe downgrade.
    let is_type = caller.version == 0 || (1..=3).contains(&update.upgrade_type);
    let reason = match level {
        _ if !is_type => "The controller does not support the given upgrade type.".to_owned(),
        ..0 => "A feature version cannot be less than 0.".to_owned(),
        0 => format!("Feature {feature} not found."),
        _ => format!("Local controller {id} does not support this feature."),
    };
    let why = format!(
        "The update failed for all features since the following feature had an error: Invalid update version {level} for feature {feature}. {reason}"
    );
    response
        .with_error_code(error.code())
        .with_error_message(message(&why))
}
