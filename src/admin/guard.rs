//! Who is let in: every request for a page or an operation of the API comes by here, and a route without a row in the table
//! of rights is served to nobody.
//!
//! Tests: tests/dashboard_security.rs.

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{Known, Refusal, WRONG_PAUSE, comes_from_elsewhere};
use super::errors::ApiError;
use super::listener::Peer;
use super::pages;
use super::rights::{self, Row};
use super::sessions::Who;
use super::visitor::{Deed, Visitor, audit_login};
use super::{Shared, errors};
use crate::per_second::PerSecond;

/// Logins that were refused, of all visitors, that are told in the log.
const REFUSALS_LOGGED_A_SECOND_MAX: u64 = 10;

/// Why a request is not served.
enum Refused {
    /// It is not known who asks.
    Unknown(Refusal),
    /// It may not, or there is no such thing.
    Error(ApiError),
    /// The path takes these methods alone.
    Method(String),
}

/// Who may not do what is asked for is told so, who is not known is sent to log in; every answer says what a browser may do
/// with it.
pub(super) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let is_api = parts.uri.path().starts_with("/api");
    let admitted = admit(&shared, &mut parts).await;
    let mut response = match admitted {
        Err(refused) => refuse(&shared, &parts, refused),
        Ok(()) if is_api => next.run(Request::from_parts(parts, body)).await,
        Ok(()) => {
            let asked = parts.clone();
            let response = next.run(Request::from_parts(parts, body)).await;
            let error = response.extensions().get::<errors::ApiError>().cloned();
            match error {
                None => response,
                Some(error) => pages::explain(&shared, &asked, error),
            }
        }
    };
    pages::guard(response.headers_mut());
    response
}

fn refuse(shared: &Shared, parts: &Parts, refused: Refused) -> Response {
    let is_api = parts.uri.path().starts_with("/api");
    let explain = |error: ApiError| match is_api {
        true => error.into_response(),
        false => pages::explain(shared, parts, error),
    };
    match refused {
        Refused::Unknown(refusal @ (Refusal::TooMany(_) | Refusal::OtherSite)) => {
            explain(refusal.into())
        }
        Refused::Unknown(refusal) if is_api => {
            let mut response = ApiError::from(refusal).into_response();
            for challenge in challenges(shared, &parts.headers) {
                let text = HeaderValue::from_static(challenge);
                response
                    .headers_mut()
                    .append(header::WWW_AUTHENTICATE, text);
            }
            response
        }
        Refused::Unknown(_) => pages::ask_to_log_in(shared, parts),
        Refused::Error(error) => explain(error),
        Refused::Method(methods) => {
            let mut response = explain(ApiError::wrong_method());
            let allow = HeaderValue::from_str(&methods).ok();
            let header = allow.map(|methods| (header::ALLOW, methods));
            response.headers_mut().extend(header);
            response
        }
    }
}

/// What programs are asked for; a browser's scripts would make it ask its user.
fn challenges(shared: &Shared, headers: &HeaderMap) -> &'static [&'static str] {
    const USER: &str = "Basic realm=\"metaq\", charset=\"UTF-8\"";
    match shared.access.takes_users() {
        true if headers.contains_key("sec-fetch-mode") => &[],
        true if shared.access.takes_bearer_tokens() => &[USER, "Bearer realm=\"metaq\""],
        true => &[USER],
        false => &["Bearer"],
    }
}

/// Says who somebody pretends to be, without what proves it.
fn named(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let encoded = value.strip_prefix("Basic ")?.trim();
    let decoded = data_encoding::BASE64.decode(encoded.as_bytes()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    Some(text.split_once(':')?.0.to_owned())
}

/// Notes who could not be let in, and lets it wait.
pub(super) async fn note_refusal(
    shared: &Shared,
    parts: &Parts,
    named: Option<&str>,
    refusal: &Refusal,
) {
    static TOLD: PerSecond = PerSecond::new(REFUSALS_LOGGED_A_SECOND_MAX);
    if refusal.is_failure() {
        let (peer, why) = (Peer::of(parts), refusal.why());
        if let Some(untold) = TOLD.take() {
            tracing::warn!(%peer, path = parts.uri.path(), ?why, untold, "a login was refused on the dashboard");
        }
        audit_login(&shared.cx, peer, named, why);
        tokio::time::sleep(WRONG_PAUSE).await;
    }
}

/// Finds out who asks, and whether it may; the visitor goes along with the request.
async fn admit(shared: &Shared, parts: &mut Parts) -> Result<(), Refused> {
    let peer = Peer::of(parts);
    if pages::is_open(parts.uri.path()) {
        let known = shared.access.of_session(&parts.headers);
        let known = known.unwrap_or_else(|| Known::from(Who::Nobody));
        parts.extensions.insert(Visitor::new(known, peer));
        return Ok(());
    }
    let acts = !matches!(parts.method, Method::GET | Method::HEAD);
    let identified = shared.access.identify(&parts.headers, peer.ip(), acts);
    let known = match identified.await {
        Ok(known) => known,
        Err(refusal) => {
            note_refusal(shared, parts, named(&parts.headers).as_deref(), &refusal).await;
            return Err(Refused::Unknown(refusal));
        }
    };
    let visitor = Visitor::new(known, peer);
    parts.extensions.insert(visitor.clone());
    let Some(matched) = parts.extensions.get::<MatchedPath>().cloned() else {
        return Err(Refused::Error(ApiError::not_found("such page")));
    };
    let matched = matched.as_str();
    let Some(row) = rights::row_of(parts.method.as_str(), matched) else {
        return Err(match rights::methods_of(matched) {
            none if none.is_empty() => Refused::Error(ApiError::not_found("such path")),
            methods => Refused::Method(methods),
        });
    };
    check(shared, parts, &visitor, row).await
}

async fn check(
    shared: &Shared,
    parts: &mut Parts,
    visitor: &Visitor,
    row: &Row,
) -> Result<(), Refused> {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let params = params.map_err(|error| Refused::Error(ApiError::bad(error.body_text())))?;
    let checked = match row.0 != "get" && comes_from_elsewhere(&parts.headers) {
        true => Err(Refusal::OtherSite.into()),
        false => rights::check(&shared.cx, visitor, row, &params),
    };
    checked.map_err(|error: ApiError| {
        let peer = Peer::of(parts);
        let why = error.view.message.clone();
        tracing::warn!(%peer, path = parts.uri.path(), why, "refused on the dashboard");
        visitor.audit(&shared.cx, Deed::of((row.0, row.1), &params, Some(why)));
        Refused::Error(error)
    })
}
