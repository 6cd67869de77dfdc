//! The broker's configuration: what is in force and where it comes from.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::Context;
use crate::config::{Source, broker_keys};
use crate::provider::without_secrets;

/// One configuration.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct ConfigView {
    /// Its name.
    pub(in crate::admin) name: &'static str,
    /// MetaQ's name for it.
    pub(in crate::admin) metaq_name: Option<&'static str>,
    /// The value in force; `********` for secrets that are set, URLs of identity providers without their query.
    pub(in crate::admin) value: String,
    /// The value without configuration.
    pub(in crate::admin) default: &'static str,
    /// `default`, `file line N`, `command line`, `run time` (for this broker) or `run time, all brokers`.
    pub(in crate::admin) source: String,
    /// Whether it changes while the broker runs.
    pub(in crate::admin) dynamic: bool,
    /// What it does.
    pub(in crate::admin) doc: &'static str,
}

impl ConfigView {
    /// Whether it is set.
    pub(in crate::admin) fn is_set(&self) -> bool {
        self.source != "default"
    }
}

/// All of them, in the order of the table.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct ConfigurationView {
    /// The file that was read; `null` for none.
    pub(in crate::admin) file: Option<String>,
    /// The configurations.
    pub(in crate::admin) configurations: Vec<ConfigView>,
}

impl ConfigurationView {
    pub(in crate::admin) fn of(cx: &Context) -> Self {
        let config = cx.config.load();
        let view = |key: crate::config::BrokerKey| {
            let value = config.text(key.name);
            ConfigView {
                name: key.name,
                metaq_name: key.metaq_name,
                value: match key.is_secret() && !value.is_empty() {
                    true => "********".to_owned(),
                    false if key.is_url() => without_secrets(value),
                    false => value.to_owned(),
                },
                default: key.default,
                source: match config.source(key.name) {
                    None => "default".to_owned(),
                    Some(Source::File(line)) => format!("file line {line}"),
                    Some(Source::CommandLine) => "command line".to_owned(),
                    Some(Source::DynamicDefault) => "run time, all brokers".to_owned(),
                    Some(Source::Dynamic) => "run time".to_owned(),
                },
                dynamic: key.is_dynamic(),
                doc: key.doc,
            }
        };
        Self {
            file: config.file().map(|file| file.display().to_string()),
            configurations: broker_keys().map(view).collect(),
        }
    }
}
