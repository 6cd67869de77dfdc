//! UpdateFeatures (key 57, v0–v2; KIP-584): features are at the level that is served and stay there. Any other level, and any
//! other feature, is INVALID_UPDATE_VERSION.

use std::collections::HashMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::update_features_request::FeatureUpdateKey;
use metaq_protocol::messages::update_features_response::UpdatableFeatureResult;
use metaq_protocol::messages::{ApiKey, UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::api_versions::FEATURES;
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

/// Every feature is at its level already. From v2 on that has no results of its own.
fn updated(
    response: UpdateFeaturesResponse,
    version: i16,
    updates: &[FeatureUpdateKey],
) -> UpdateFeaturesResponse {
    let result = |update: &FeatureUpdateKey| {
        UpdatableFeatureResult::default()
            .with_feature(update.feature.clone())
            .with_error_message(None)
    };
    match version {
        ..2 => response.with_results(updates.iter().map(result).collect()),
        _ => response,
    }
}

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
    // Of a feature that is named twice the last counts.
    let updates = request.feature_updates.iter();
    let last: HashMap<&str, &FeatureUpdateKey> = updates
        .clone()
        .map(|update| (update.feature.as_str(), update))
        .collect();
    let mut counting = updates.filter_map(|update| last.get(update.feature.as_str()));
    let is_refused = |update: &&&FeatureUpdateKey| {
        !FEATURES.contains(&(update.feature.as_str(), update.max_version_level))
    };
    let Some(update) = counting.find(is_refused) else {
        return updated(response, caller.version, &request.feature_updates);
    };
    let (feature, level) = (&update.feature, update.max_version_level);
    // Upgrade, safe downgrade, unsafe downgrade.
    let is_type = caller.version == 0 || (1..=3).contains(&update.upgrade_type);
    let known = FEATURES.iter().find(|(name, _)| feature.as_str() == *name);
    let reason = match (level, known) {
        _ if !is_type => "The controller does not support the given upgrade type.".to_owned(),
        (..0, _) => "A feature version cannot be less than 0.".to_owned(),
        (_, Some((_, own))) => format!("Its level is {own} and cannot be changed."),
        (0, None) => format!("Feature {feature} not found."),
        _ => format!("Local controller {id} does not support this feature."),
    };
    let why = format!(
        "The update failed for all features since the following feature had an error: Invalid update version {level} for feature {feature}. {reason}"
    );
    response
        .with_error_code(error.code())
        .with_error_message(message(&why))
}
