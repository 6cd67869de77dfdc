//! What a topic may be called (Kafka's Topic.validate and its collision rule).

use std::sync::Arc;

/// Longest name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("the empty string is not allowed")]
    Empty,
    /// `.` or `..`.
    #[error("'{0}' is not allowed")]
    Dots(String),
    /// Too long.
    #[error("the length of '{0}' is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}")]
    TooLong(String),
    /// Another character.
    #[error(
        "'{0}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    )]
    Character(String),
}

/// Checks a name.
pub fn check_topic_name(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Dots(name.to_owned())),
        _ if name.len() > TOPIC_NAME_BYTES_MAX => Err(NameError::TooLong(name.to_owned())),
        _ if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) =>
        {
            Err(NameError::Character(name.to_owned()))
        }
        _ => Ok(()),
    }
}

/// Names of Kafka's own topics: nobody makes one, and directories of these names mean nothing here.
const RESERVED: [&str; 4] = [
    "__cluster_metadata",
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
];

/// Whether no topic may be made under a name.
pub fn is_reserved_name(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Whether a topic is shown as internal (Kafka's Topic.isInternal): the cluster's metadata are not.
pub fn is_internal_name(name: &str) -> bool {
    is_reserved_name(name) && name != RESERVED[0]
}

/// What metrics make of a name that has a `.` or `_`, which they cannot tell apart (Kafka's Topic.unifyCollisionChars);
/// nothing for other names, which collide with none.
pub(super) fn metric_name(name: &str) -> Option<Arc<str>> {
    name.contains(['.', '_'])
        .then(|| name.replace('.', "_").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_kafka_does() {
        assert_eq!(check_topic_name("a.b_c-9"), Ok(()));
        assert_eq!(check_topic_name(&"x".repeat(249)), Ok(()));
        let refused = |name: &str| check_topic_name(name).unwrap_err().to_string();
        let long = "x".repeat(250);
        let why = format!("the length of '{long}' is longer than the max allowed length 249");
        assert_eq!(refused(&long), why);
        assert_eq!(refused(""), "the empty string is not allowed");
        assert_eq!(refused(".."), "'..' is not allowed");
        for name in ["a b", "ü"] {
            let why =
                "contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'";
            assert_eq!(refused(name), format!("'{name}' {why}"));
        }
    }

    #[test]
    fn names_that_differ_in_dots_and_underscores_are_one_to_metrics() {
        assert_eq!(metric_name("a.b"), metric_name("a_b"));
        assert_ne!(metric_name("a.b"), metric_name("a.c"));
        assert_eq!(metric_name("a-b"), None);
    }
}
