//! ApiVersions (key 18, v0–v5; KIP-35, 511, 584, 1242): what this broker serves, from the version table.
//!
//! - The response header is always v0, whatever the version.
//! - A version that is not known is answered in v0 with UNSUPPORTED_VERSION and the versions of this API alone, so that the
//!   client can choose another (KIP-511).
//! - Telemetry (KIP-714) is named while there is a client metrics subscription: a client that finds it asks every few minutes
//!   (Kafka names it where a reporter takes what is pushed).
//! - A client may say which broker of which cluster it means (v5). Where it is another one, the client is to begin again with its
//!   first servers: REBOOTSTRAP_REQUIRED.
//! - Features are finalized at the level that is served, which nobody can change. With transaction.version 2 (KIP-890) clients
//!   end each transaction under an epoch of its own. Features that may be at level 0 are told from v4 on, as by Kafka.

use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::frame::{self, FrameError};
use metaq_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use metaq_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use metaq_protocol::versions;

use super::shared::text;
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::ApiVersions,
    order: Order::Alone,
    needs: &[],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let (name, version) = (
        &request.client_software_name,
        &request.client_software_version,
    );
    if !is_valid(&request, caller.version) {
        return refused(ResponseError::InvalidRequest);
    }
    if means_another(&cx, &request) {
        return refused(ResponseError::RebootstrapRequired);
    }
    if caller.version >= 3 {
        caller.session.client().is_software(name, version);
    }
    tracing::debug!(peer = %caller.session.peer(), software = %name, %version, "client");
    let has_subscriptions = cx.cluster.image().configs.has_subscriptions();
    with_features(table(has_subscriptions), caller.version)
}

fn refused(error: ResponseError) -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_error_code(error.code())
}

/// Version 3 requires the software's name and version; version 5 has both identities or none (Kafka's
/// ApiVersionsRequest.isValid).
fn is_valid(request: &ApiVersionsRequest, version: i16) -> bool {
    let names = [
        &request.client_software_name,
        &request.client_software_version,
    ];
    let has_names = names.iter().all(|name| is_software_name(name));
    (version < 3 || has_names) && request.cluster_id.is_some() == (request.node_id != -1)
}

/// Whether the client means another broker or another cluster (KafkaApis.clusterIdOrNodeIdIsInvalid).
fn means_another(cx: &Context, request: &ApiVersionsRequest) -> bool {
    request.cluster_id.as_ref().is_some_and(|cluster_id| {
        cluster_id.as_str() != cx.cluster.image().cluster_id
            || request.node_id != cx.cluster.broker_id()
    })
}

/// Kafka's pattern: letters, digits, '.' and '-'.
fn is_software_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

fn table(has_subscriptions: bool) -> ApiVersionsResponse {
    let telemetry = [ApiKey::GetTelemetrySubscriptions, ApiKey::PushTelemetry];
    let is_told = |row: &&versions::ApiRow| {
        row.is_offered && (has_subscriptions || telemetry.iter().all(|key| *key as i16 != row.key))
    };
    let rows = versions::TABLE.iter().filter(is_told).map(told);
    ApiVersionsResponse::default().with_api_keys(rows.collect())
}

/// The features that are in force, with their levels, which nobody can change.
pub(super) const FEATURES: [(&str, i16); 4] = [
    ("group.version", 1),
    ("share.version", 2),
    ("streams.version", 1),
    ("transaction.version", 2),
];
/// A client takes what is finalized from an epoch above the one it knows, which is -1 at first.
const FEATURES_EPOCH: i64 = 0;
/// A feature's lowest level may be 0 from this version on (KAFKA-17011).
const LEVEL_0_VERSION_MIN: i16 = 4;

fn with_features(response: ApiVersionsResponse, version: i16) -> ApiVersionsResponse {
    if version < 3 {
        return response;
    }
    let finalized = FEATURES.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(text(*name))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    let supported = FEATURES.iter().map(|(name, level)| {
        SupportedFeatureKey::default()
            .with_name(text(*name))
            .with_min_version(0)
            .with_max_version(*level)
    });
    let supported = supported.filter(|_| version >= LEVEL_0_VERSION_MIN);
    response
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(FEATURES_EPOCH)
        .with_finalized_features(finalized.collect())
}

fn told(row: &versions::ApiRow) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(row.key)
        .with_min_version(row.advertised_min)
        .with_max_version(row.max)
}

/// The answer to an ApiVersions request of an unknown version.
pub fn unsupported_version(correlation_id: i32) -> Result<Bytes, FrameError> {
    let own = versions::lookup(ApiKey::ApiVersions as i16).map(told);
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own.into_iter().collect());
    frame::encode_response(ApiKey::ApiVersions as i16, 0, correlation_id, &response)
}
