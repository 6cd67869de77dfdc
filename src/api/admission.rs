//! Whether a connection's next request may begin at all: a client that has to authenticate does that first, and again when its
//! time is over (KIP-368), and a user or delegation token that is not there any more is not served on.

use std::sync::Arc;

use bytes::Bytes;
use metaq_protocol::frame::api_name;
use metaq_protocol::messages::ApiKey;

use super::context::Context;
use super::{Body, sasl_authenticate};
use crate::session::Session;

const OF_AUTHENTICATION: [i16; 3] = [
    ApiKey::ApiVersions as i16,
    ApiKey::SaslHandshake as i16,
    ApiKey::SaslAuthenticate as i16,
];

/// Why a request ends its connection; `None` for one that may begin.
pub fn refusal(cx: &Context, session: &Session, key: i16) -> Option<String> {
    if !session.listener().protocol.has_sasl() || OF_AUTHENTICATION.contains(&key) {
        return None;
    }
    if !session.is_authenticated() {
        let api = api_name(key);
        return Some(format!(
            "unexpected request {api} of a client that has not authenticated"
        ));
    }
    if session.is_over() {
        return Some("the user or token is not there any more".to_owned());
    }
    if session.is_expired() {
        return Some("the client did not authenticate again in time".to_owned());
    }
    let is_checked = session.has_not_seen(cx.users.revision());
    let gone = is_checked.then(|| whose_is_gone(cx, session)).flatten();
    gone.map(|who| {
        // What was sent with it is not done either.
        session.end_for_good();
        format!("{who} is not there any more")
    })
}

/// The user or delegation token that a client has logged in with, where that is not there any more. A token that is good for a
/// shorter time by now ends the connection then.
fn whose_is_gone(cx: &Context, session: &Session) -> Option<String> {
    let user = session.principal().name();
    let Some(token) = session.token() else {
        let is_gone = session.has_password() && !cx.users.knows(user);
        return is_gone.then(|| format!("the user {user}"));
    };
    match cx.tokens.left(&token) {
        Some(left) => session.ends_within(left),
        None => return Some(format!("the delegation token {token} of {user}")),
    }
    None
}

/// Whether the next frame of a connection is a message of a mechanism without a request around it (SaslHandshake v0).
pub fn expects_token(session: &Session) -> bool {
    session.listener().protocol.has_sasl() && session.exchange().lock().expects_token()
}

/// What such a message is answered with.
pub async fn take_token(cx: &Context, session: &Arc<Session>, token: Bytes) -> Body {
    sasl_authenticate::raw(cx, session, token).await
}
