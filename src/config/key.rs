//! One row of the table of broker configurations.

use super::value::Kind;

/// One broker configuration.
#[derive(Debug, Clone, Copy)]
pub struct BrokerKey {
    /// Kafka's name, or ours where Kafka has none.
    pub name: &'static str,
    /// MetaQ's name for the same thing.
    pub metaq_name: Option<&'static str>,
    /// Type and range.
    pub kind: Kind,
    /// Default, as text.
    pub default: &'static str,
    /// What it does, with unit.
    pub doc: &'static str,
}

macro_rules! key {
    ($name:literal, $metaq:expr, $kind:expr, $default:expr, $doc:literal) => {
        BrokerKey {
            name: $name,
            metaq_name: $metaq,
            kind: $kind,
            default: $default,
            doc: $doc,
        }
    };
}

pub(super) use key;
