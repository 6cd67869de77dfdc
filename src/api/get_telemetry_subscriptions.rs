//! GetTelemetrySubscriptions (key 71, v0; KIP-714): what a client is to push of its metrics, and how often.
//!
//! - Advertised always; Kafka advertises it where a plugin takes what is pushed. Here the broker keeps it itself.
//! - Clients that no subscription matches ask again in five minutes.

use std::sync::Arc;

use metaq_protocol::messages::{
    ApiKey, GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse,
};
use metaq_protocol::protocol::StrBytes;

use super::push_telemetry::{facts_of, refused};
use super::{Api, Caller, Context, Order, serve};

pub(super) const API: Api = Api {
    key: ApiKey::GetTelemetrySubscriptions,
    order: Order::Alone,
    needs: &[],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// zstd, lz4, gzip, snappy: the best first, as in Kafka.
const CODECS: [i8; 4] = [4, 3, 1, 2];

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    let now_ms = cx.partitions.clock().now_ms();
    let subscriptions = cx.cluster.client_metrics();
    let instance = request.client_instance_id;
    let subscribed = cx
        .telemetry
        .subscribe(now_ms, instance, &facts_of(&caller), &subscriptions);
    let response = GetTelemetrySubscriptionsResponse::default();
    match subscribed {
        Ok(subscribed) => response
            .with_client_instance_id(subscribed.instance)
            .with_subscription_id(subscribed.subscription_id)
            .with_accepted_compression_types(CODECS.to_vec())
            .with_push_interval_ms(subscribed.interval_ms)
            .with_telemetry_max_bytes(cx.telemetry.payload_bytes_max() as i32)
            .with_delta_temporality(true)
            .with_requested_metrics(
                subscribed
                    .metrics
                    .into_iter()
                    .map(StrBytes::from_string)
                    .collect(),
            ),
        Err(error) => response.with_error_code(refused(&cx, &caller, &error)),
    }
}
