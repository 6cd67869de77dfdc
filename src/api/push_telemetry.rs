//! PushTelemetry (key 72, v0; KIP-714): a client's metrics, as OpenTelemetry's `MetricsData`.
//!
//! - They are read, and the newest of each client are kept in memory for people to look at.
//! - Payloads above `telemetry.max.bytes`, packed or unpacked, are TELEMETRY_TOO_LARGE.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, PushTelemetryRequest, PushTelemetryResponse};

use super::{Api, Caller, Context, Order, serve};
use crate::observe::{EventKind, Happened};
use crate::telemetry::{ClientFacts, Push, TelemetryError};

pub(super) const API: Api = Api {
    key: ApiKey::PushTelemetry,
    order: Order::Alone,
    needs: &[],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: PushTelemetryRequest,
) -> PushTelemetryResponse {
    let push = Push {
        subscription_id: request.subscription_id,
        terminating: request.terminating,
        compression: request.compression_type,
        metrics: &request.metrics,
    };
    let pushed = cx.telemetry.push(
        cx.partitions.clock().now_ms(),
        request.client_instance_id,
        &facts_of(&caller),
        &push,
        &cx.cluster.client_metrics(),
    );
    match pushed {
        Ok(()) => PushTelemetryResponse::default(),
        Err(error) => {
            PushTelemetryResponse::default().with_error_code(refused(&cx, &caller, &error))
        }
    }
}

/// Notes a refusal; its code. A client that comes too early is slowed down, and nothing else is wrong with it.
pub(super) fn refused(cx: &Context, caller: &Caller, error: &TelemetryError) -> i16 {
    let code = wire_error(error).code();
    match error {
        TelemetryError::Throttled(_) => {
            let slowed = Happened::new(EventKind::Throttle, "telemetry");
            let slowed = slowed
                .who(caller.session.client().label())
                .why(error.to_string());
            cx.observe.events.tell(slowed);
        }
        _ => cx.note(caller, "", code, &error.to_string()),
    }
    code
}

/// Who asks.
pub(super) fn facts_of(caller: &Caller) -> ClientFacts {
    let (client_id, software_name, software_version) = caller.session.client().names();
    ClientFacts {
        client_id,
        software_name,
        software_version,
        source_address: caller.session.peer_ip().to_string(),
        source_port: caller.session.peer().port().to_string(),
    }
}

/// As ClientMetricsManager answers.
fn wire_error(error: &TelemetryError) -> ResponseError {
    match error {
        TelemetryError::InvalidInstance(_) | TelemetryError::Terminated(_) => {
            ResponseError::InvalidRequest
        }
        TelemetryError::Throttled(_) => ResponseError::ThrottlingQuotaExceeded,
        TelemetryError::UnknownSubscription(_) => ResponseError::UnknownSubscriptionId,
        TelemetryError::UnsupportedCompression(_) => ResponseError::UnsupportedCompressionType,
        TelemetryError::TooLarge(_) => ResponseError::TelemetryTooLarge,
        TelemetryError::Damaged(_) | TelemetryError::Malformed(_) => ResponseError::InvalidRecord,
    }
}
