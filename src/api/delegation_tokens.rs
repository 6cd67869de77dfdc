//! What the APIs of delegation tokens have in common (KIP-48): who may ask at all, and which token is meant.

use std::sync::Arc;

use metaq_protocol::ResponseError;

use super::errors::WireError;
use super::{Caller, Context};
use crate::cluster::{Token, TokenRefusal};
use crate::principal::ANONYMOUS;
use crate::session::SecurityProtocol;

/// Where a time should be, in an answer that has none (Kafka's DelegationTokenManager.ERROR_TIMESTAMP).
pub(super) const NO_TIME: i64 = -1;

/// Whether a client may ask for tokens: it says who it is, and not by a token (Kafka's allowTokenRequests). How a client of
/// another broker is connected that broker has looked at.
pub(super) fn is_allowed(caller: &Caller) -> bool {
    let session = &caller.session;
    let is_anybody = match session.listener().protocol {
        SecurityProtocol::Plaintext => true,
        SecurityProtocol::Ssl => *session.principal() == ANONYMOUS,
        SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl => false,
    };
    session.token().is_none() && (caller.is_forwarded || !is_anybody)
}

/// The token that a client asks to change, by its HMAC.
pub(super) fn token_to_change(
    cx: &Context,
    caller: &Caller,
    hmac: &[u8],
) -> Result<Arc<Token>, ResponseError> {
    if !cx.tokens.is_enabled() {
        return Err(ResponseError::DelegationTokenAuthDisabled);
    }
    let token = cx.tokens.of_hmac(hmac);
    let token = token.ok_or(ResponseError::DelegationTokenNotFound)?;
    match token.may_be_changed_by(caller.session.principal()) {
        true => Ok(token),
        false => Err(ResponseError::DelegationTokenOwnerMismatch),
    }
}

/// Lets a token be good until another time, ms since 1970, which it returns.
pub(super) async fn set_expiry(
    cx: &Context,
    token: &Token,
    expires_ms: i64,
) -> Result<i64, ResponseError> {
    let controller = cx.cluster.controller();
    let changed = controller
        .set_token_expiry(&token.id, cx.tokens.now_ms(), expires_ms)
        .await;
    changed
        .map_err(|error| error.wire())?
        .map_err(|refusal| refusal.wire())?;
    Ok(expires_ms)
}

/// Notes why a token is not changed, and returns what its answer has for a time: what the controller refuses has another one than what
/// is refused before (as in Kafka's ControllerApis).
pub(super) fn refused_ms(cx: &Context, caller: &Caller, error: ResponseError) -> i64 {
    cx.note(caller, "delegation token", error.code(), "");
    match error {
        ResponseError::DelegationTokenRequestNotAllowed => NO_TIME,
        _ => 0,
    }
}

impl WireError for TokenRefusal {
    fn wire(&self) -> ResponseError {
        match self {
            Self::Tokens | Self::OfOne | Self::Bytes | Self::Names | Self::Renewers => {
                ResponseError::PolicyViolation
            }
            Self::Expired => ResponseError::DelegationTokenExpired,
            Self::Gone => ResponseError::DelegationTokenNotFound,
        }
    }
}
