//! MetaQ's words for how a broker is started: each stands for some settings (docs/replication.md, "Presets").

use clap::ValueEnum;

use super::ConfigArguments;
use crate::config::broker_key;

/// How a broker is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Alone, with embedded coordination.
    Local,
    /// One of two brokers that both have every message before it is acknowledged.
    Samsa,
    /// The other one; the same settings.
    Gregor,
    /// A copy of what others lead, which they do not wait for, and which never leads.
    Slave,
}

impl Mode {
    /// What it sets.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Local => &["zookeeper.enable=false"],
            Self::Samsa | Self::Gregor => &[
                "zookeeper.enable=true",
                "default.replication.factor=2",
                "min.insync.replicas=2",
            ],
            Self::Slave => &[
                "zookeeper.enable=true",
                "default.replication.factor=2",
                "min.insync.replicas=1",
                "accept.publish=false",
                "broker.follows.only=true",
            ],
        }
    }

    /// What is configured with it: over the file, and under what is set on the command line.
    pub(super) fn over(mode: Option<Self>, config: &ConfigArguments) -> ConfigArguments {
        let key = |setting: &str| {
            let name = setting.split('=').next().unwrap_or_default().trim();
            broker_key(name).map(|key| key.name)
        };
        let given: Vec<_> = config.set.iter().map(|setting| key(setting)).collect();
        let settings = mode.map_or(&[][..], Self::settings).iter();
        let settings = settings.filter(|setting| !given.contains(&key(setting)));
        let settings = settings.map(|setting| (*setting).to_owned());
        ConfigArguments {
            config: config.config.clone(),
            set: settings.chain(config.set.iter().cloned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_configured_and_the_command_line_has_the_last_word() {
        let given = ConfigArguments {
            config: None,
            set: vec!["min.insync.replicas=3".to_owned(), "brokerId=7".to_owned()],
        };
        for mode in [Mode::Local, Mode::Samsa, Mode::Gregor, Mode::Slave] {
            let config = Mode::over(Some(mode), &given).load().unwrap();
            let has = |setting: &&str| {
                let (key, value) = setting.split_once('=').unwrap();
                key == "min.insync.replicas" || config.text(key) == value
            };
            assert!(mode.settings().iter().all(has), "{mode:?}");
            assert_eq!(config.text("min.insync.replicas"), "3");
            assert_eq!(config.number("broker.id"), 7);
        }
    }
}
