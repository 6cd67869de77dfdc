//! What handlers take from a request, with errors as the API gives them.

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::Shared;
use super::access::{Refusal, WRONG_PAUSE};
use super::errors::ApiError;
use super::listener::Peer;
use super::visitor::Visitor;

/// What follows the `?`.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        let parsed = Query::<T>::try_from_uri(&parts.uri);
        let error =
            |error: axum::extract::rejection::QueryRejection| ApiError::bad(error.body_text());
        Ok(Self(parsed.map_err(error)?.0))
    }
}

/// What stands in the path.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, ApiError> {
        let named = Path::<T>::from_request_parts(parts, shared).await;
        let error =
            |error: axum::extract::rejection::PathRejection| ApiError::bad(error.body_text());
        Ok(Self(named.map_err(error)?.0))
    }
}

/// A visitor who may act. Nothing of the body is read before that is known.
pub(super) struct Acting(pub(super) Visitor);

impl FromRequestParts<Shared> for Acting {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, ApiError> {
        let Ok(visitor) = Visitor::from_request_parts(parts, shared).await;
        if !visitor.is_known() {
            let peer = Peer::of(parts);
            tracing::warn!(%peer, path = parts.uri.path(), "an action was refused on the dashboard");
            tokio::time::sleep(WRONG_PAUSE).await;
            return Err(Refusal::NoToken.into());
        }
        visitor.audit_action(&shared.cx, parts).await;
        Ok(Self(visitor))
    }
}

/// The body, which must be JSON.
pub(super) fn body<T: DeserializeOwned>(headers: &HeaderMap, bytes: &Bytes) -> Result<T, ApiError> {
    let kind = headers.get(axum::http::header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // A form of another site cannot send this type.
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let what = "The body must be application/json.";
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            what,
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| ApiError::bad(error.to_string()))
}
