//! ExpireDelegationToken (key 40, v1–v2; KIP-48): lets a token be good for a time from now on, or removes it where that is negative,
//! by the controller, for its owner and its renewers (Kafka's DelegationTokenControlManager).

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{
    ApiKey, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
};

use super::delegation_tokens::{is_allowed, refused_ms, set_expiry, token_to_change};
use super::errors::WireError;
use super::{Api, Caller, Context, Order, serve, serve_by_controller};

pub(super) const API: Api = Api {
    key: ApiKey::ExpireDelegationToken,
    order: Order::Alone,
    needs: &[],
    start: |cx, caller, frame, stage| match is_allowed(&caller) {
        true => serve_by_controller(cx, caller, frame, stage, handle),
        false => serve(cx, caller, frame, stage, handle),
    },
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: ExpireDelegationTokenRequest,
) -> ExpireDelegationTokenResponse {
    let answer = ExpireDelegationTokenResponse::default();
    match expire(&cx, &caller, &request).await {
        Ok(expires_ms) => answer.with_expiry_timestamp_ms(expires_ms),
        Err(error) => answer
            .with_error_code(error.code())
            .with_expiry_timestamp_ms(refused_ms(&cx, &caller, error)),
    }
}

/// Until when the token is good now, ms since 1970.
async fn expire(
    cx: &Context,
    caller: &Caller,
    request: &ExpireDelegationTokenRequest,
) -> Result<i64, ResponseError> {
    if !is_allowed(caller) {
        return Err(ResponseError::DelegationTokenRequestNotAllowed);
    }
    let token = token_to_change(cx, caller, &request.hmac)?;
    let controller = cx.cluster.controller();
    let now_ms = cx.tokens.now_ms();
    let period_ms = request.expiry_time_period_ms;
    if period_ms < 0 {
        let removed = controller.remove_token(&token.id).await;
        removed.map_err(|error| error.wire())?;
        return Ok(now_ms);
    }
    if token.is_expired(now_ms) {
        return Err(ResponseError::DelegationTokenExpired);
    }
    let expires_ms = now_ms.saturating_add(period_ms).min(token.max_ms);
    set_expiry(cx, &token, expires_ms).await
}
