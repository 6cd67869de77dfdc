//! What a broker refused, as a person is told: the right that is missing, where it is that.

use metaq_protocol::ResponseError;

use super::Failure;
use super::words::in_words;
use crate::security::Operation;

/// Who asks has no right to an operation on something, such as `topic orders`.
pub(super) fn needed(operation: Operation, resource: &str) -> Failure {
    Lacking(format!("you need {} on {resource}", operation.word())).into()
}

/// A right that is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lacking(String);

/// Whether something failed because a right is missing.
pub(super) fn is_lacking(failure: &Failure) -> bool {
    failure.is::<Lacking>()
}

fn is_of_rights(code: i16) -> bool {
    use ResponseError as E;
    matches!(
        ResponseError::try_from_code(code),
        Some(
            E::TopicAuthorizationFailed
                | E::GroupAuthorizationFailed
                | E::ClusterAuthorizationFailed
                | E::TransactionalIdAuthorizationFailed
        )
    )
}

/// Makes an error code a failure as [`check`] does; a right that is missing is named.
pub(super) fn check_right(
    what: &str,
    (code, message): (i16, Option<&str>),
    (operation, resource): (Operation, &str),
) -> Result<(), Failure> {
    match is_of_rights(code) {
        true => Err(needed(operation, resource)),
        false => check(what, code, message),
    }
}

/// What a broker refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Refused {
    error: ResponseError,
    what: String,
}

/// Whether a failure stays however often it is tried: a broker refused something, and not for the time being.
pub(super) fn is_lasting(failure: &Failure) -> bool {
    let refused = failure.downcast_ref::<Refused>();
    refused.is_some_and(|refused| !refused.error.is_retriable())
}

/// Makes an error code a failure, with the broker's message where there is one.
pub(super) fn check(what: &str, code: i16, message: Option<&str>) -> Result<(), Failure> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => {
            let why = message.map_or_else(|| in_words(error), str::to_owned);
            let what = format!("{what}: {why}");
            Err(Refused { error, what }.into())
        }
    }
}
