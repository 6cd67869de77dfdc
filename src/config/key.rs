//! One row of the table of broker configurations.

use super::value::{Kind, ValueError};

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

impl BrokerKey {
    /// Why it cannot have a value; of a store that is no PEM, how to make it one.
    pub(super) fn wrong(&self, (written, value): (&str, &str), error: &ValueError) -> String {
        let remedy = match self.name.ends_with("store.type") {
            true => format!(". {}", self.doc),
            false => String::new(),
        };
        format!("{written}={value}: {error}{remedy}")
    }
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
