//! SaslHandshake (key 17, v0–v1; KIP-43): chooses how a client authenticates. A mechanism that is not enabled is answered with
//! those that are, and the connection ends, as by Kafka's SaslServerAuthenticator. After version 0 the mechanism's messages come
//! without requests around them; after version 1 they come in SaslAuthenticate.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{ApiKey, SaslHandshakeRequest, SaslHandshakeResponse};

use super::reply::Reply;
use super::sasl_authenticate::delay;
use super::shared::text;
use super::{Api, Caller, Context, Order, serve};
use crate::security::Mechanism;

pub(super) const API: Api = Api {
    key: ApiKey::SaslHandshake,
    order: Order::Alone,
    needs: &[],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: SaslHandshakeRequest,
) -> Reply<SaslHandshakeResponse> {
    let session = &caller.session;
    let listener = session.listener();
    let answer = |error: Option<ResponseError>| {
        SaslHandshakeResponse::default().with_error_code(error.map_or(0, |error| error.code()))
    };
    if !listener.protocol.has_sasl() {
        return answer(Some(ResponseError::IllegalSaslState)).into();
    }
    let mechanisms = &listener.authentication.mechanisms;
    let names = mechanisms.iter().map(|mechanism| text(mechanism.name()));
    let answer = |error| answer(error).with_mechanisms(names.collect());
    let asked = Mechanism::by_name(&request.mechanism);
    let Some(mechanism) = asked.filter(|asked| mechanisms.contains(asked)) else {
        let error = ResponseError::UnsupportedSaslMechanism;
        cx.note(&caller, &request.mechanism, error.code(), "");
        delay(&cx).await;
        return Reply::last(answer(Some(error)));
    };
    // A connection that wants to go on with another one hears of it with its next message, as by Kafka.
    session
        .exchange()
        .lock()
        .choose(mechanism, caller.version == 0);
    answer(None).into()
}
