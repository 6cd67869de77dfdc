//! RenewDelegationToken (key 39, v1–v2; KIP-48): lets a token be good for longer, by the controller, for its owner and its
//! renewers (Kafka's DelegationTokenControlManager).

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, RenewDelegationTokenRequest, RenewDelegationTokenResponse};

use super::delegation_tokens::{is_allowed, refused_ms, set_expiry, token_to_change};
use super::{Api, Caller, Context, Order, serve, serve_by_controller};

pub(super) const API: Api = Api {
    key: ApiKey::RenewDelegationToken,
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
    request: RenewDelegationTokenRequest,
) -> RenewDelegationTokenResponse {
    let answer = RenewDelegationTokenResponse::default();
    match renew(&cx, &caller, &request).await {
        Ok(expires_ms) => answer.with_expiry_timestamp_ms(expires_ms),
        Err(error) => answer
            .with_error_code(error.code())
            .with_expiry_timestamp_ms(refused_ms(&cx, &caller, error)),
    }
}

/// Until when the token is good now, ms since 1970.
async fn renew(
    cx: &Context,
    caller: &Caller,
    request: &RenewDelegationTokenRequest,
) -> Result<i64, ResponseError> {
    if !is_allowed(caller) {
        return Err(ResponseError::DelegationTokenRequestNotAllowed);
    }
    let token = cx.tokens.of_hmac(&request.hmac);
    // Kafka says that it has expired also to who may not renew it.
    if token.is_some_and(|token| token.is_expired(cx.tokens.now_ms())) {
        return Err(ResponseError::DelegationTokenExpired);
    }
    let token = token_to_change(cx, caller, &request.hmac)?;
    let expires_ms = cx.tokens.renewed_ms(&token, request.renew_period_ms);
    set_expiry(cx, &token, expires_ms).await
}
