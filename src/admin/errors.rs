//! Errors of the API: `{"error": "word", "message": "sentence"}` under a fitting status.
//!
//! Tests: tests/dashboard.rs.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::access::Refusal;
use super::views::group::NoGroup;
use super::views::transactions::NoTransaction;
use crate::transaction::TransactionError;

/// What an error's body is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct ErrorView {
    /// A word for programs.
    pub(super) error: String,
    /// A sentence for people.
    pub(super) message: String,
}

/// Why a request has no other answer.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) view: ErrorView,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        error: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let view = ErrorView {
            error: error.into(),
            message: message.into(),
        };
        Self { status, view }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("There is no {what}."),
        )
    }

    pub(super) fn wrong_method() -> Self {
        let what = "The path does not take this method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what)
    }

    pub(super) fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    pub(super) fn failed(error: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            error.to_string(),
        )
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, word) = match refusal {
            Refusal::NoToken => (StatusCode::UNAUTHORIZED, "no_token"),
            Refusal::NotKnown => (StatusCode::UNAUTHORIZED, "not_known"),
            Refusal::WrongPassword => (StatusCode::UNAUTHORIZED, "wrong_password"),
            Refusal::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_logins"),
            Refusal::WrongToken | Refusal::BearerToken(_) => {
                (StatusCode::UNAUTHORIZED, "wrong_token")
            }
            Refusal::OtherSite => (StatusCode::FORBIDDEN, "other_site"),
        };
        Self::new(status, word, refusal.to_string())
    }
}

impl From<NoGroup> for ApiError {
    fn from(error: NoGroup) -> Self {
        let (status, word) = match &error {
            NoGroup::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
            NoGroup::Elsewhere(_) => (StatusCode::MISDIRECTED_REQUEST, "other_broker"),
            NoGroup::Group(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, word, error.to_string())
    }
}

impl From<NoTransaction> for ApiError {
    fn from(error: NoTransaction) -> Self {
        match error {
            NoTransaction::Elsewhere(_) => Self::new(
                StatusCode::MISDIRECTED_REQUEST,
                "other_broker",
                error.to_string(),
            ),
            NoTransaction::Refused(error) => error.into(),
        }
    }
}

impl From<TransactionError> for ApiError {
    fn from(error: TransactionError) -> Self {
        use TransactionError as E;
        let (status, word) = match error {
            E::TransactionalIdNotFound | E::InvalidRequest => (StatusCode::NOT_FOUND, "not_found"),
            E::InvalidTxnState | E::ConcurrentTransactions => (StatusCode::CONFLICT, "conflict"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, word, error.to_string())
    }
}

impl From<crate::log::LogError> for ApiError {
    fn from(error: crate::log::LogError) -> Self {
        Self::failed(error)
    }
}

impl From<crate::partition::PartitionError> for ApiError {
    fn from(error: crate::partition::PartitionError) -> Self {
        use crate::partition::PartitionError as E;
        match error {
            E::Unknown => Self::not_found("such partition"),
            E::NotLeader => Self::new(
                StatusCode::MISDIRECTED_REQUEST,
                "other_broker",
                error.to_string(),
            ),
            E::Offline(_) => Self::failed(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self.view)).into_response();
        // For pages, which say it in their own way.
        response.extensions_mut().insert(self);
        response
    }
}
