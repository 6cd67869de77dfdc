//! Who a client is (Kafka's KafkaPrincipal).

use std::borrow::Cow;
use std::fmt;

/// A kind, `User` mostly, and a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    kind: Cow<'static, str>,
    name: Cow<'static, str>,
}

/// Whoever does not authenticate (KafkaPrincipal.ANONYMOUS).
pub static ANONYMOUS: Principal = Principal {
    kind: Cow::Borrowed(Principal::USER),
    name: Cow::Borrowed("ANONYMOUS"),
};

impl Principal {
    /// The kind of principals that clients are (KafkaPrincipal.USER_TYPE).
    pub const USER: &'static str = "User";

    /// Of a kind, which is `User` mostly, and a name.
    pub fn new(kind: &str, name: &str) -> Self {
        Self {
            kind: Cow::Owned(kind.to_owned()),
            name: Cow::Owned(name.to_owned()),
        }
    }

    /// A user.
    pub fn user(name: &str) -> Self {
        Self {
            kind: Cow::Borrowed(Principal::USER),
            name: Cow::Owned(name.to_owned()),
        }
    }

    /// What it is, mostly `User`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its name among those of its kind.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}
