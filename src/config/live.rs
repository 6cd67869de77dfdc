//! The configuration of a running broker: one snapshot that everybody reads, replaced whole by `reload` and by changes
//! at run time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Accepts, Config, ConfigError, Overrides, broker_keys};

/// See the module's documentation.
pub struct LiveConfig {
    current: ArcSwap<Config>,
    /// What the hot path asks for costs one load each.
    accepts_all: AtomicBool,
    fetch_bytes_max: AtomicUsize,
    /// One change at a time.
    changes: Mutex<()>,
    changed: watch::Sender<u64>,
}

/// A setting whose value is another one now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Kafka's name, or the section.
    pub name: String,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
}

/// What reading the configuration file again did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// In force now.
    pub applied: Vec<Changed>,
    /// Written in the file, and in force after a restart.
    pub needs_restart: Vec<Changed>,
    /// Written in the file, but set at run time or on the command line to something else.
    pub overruled: Vec<Changed>,
}

impl LiveConfig {
    /// A broker starts with this.
    pub fn new(config: Config) -> Self {
        Self {
            accepts_all: AtomicBool::new(config.accepts_all),
            fetch_bytes_max: AtomicUsize::new(config.fetch_bytes_max),
            current: ArcSwap::from_pointee(config),
            changes: Mutex::new(()),
            changed: watch::channel(0).0,
        }
    }

    /// What is in force; not to be kept for long.
    pub fn load(&self) -> Guard<Arc<Config>> {
        self.current.load()
    }

    /// What is in force, to keep.
    pub fn load_full(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// See [`Config::number`].
    pub fn number(&self, name: &str) -> i64 {
        self.load().number(name)
    }

    /// See [`Config::flag`].
    pub fn flag(&self, name: &str) -> bool {
        self.load().flag(name)
    }

    /// See [`Config::text`].
    pub fn text(&self, name: &str) -> String {
        self.load().text(name).to_owned()
    }

    /// See [`Config::accepts`].
    pub fn accepts(&self, topic: &str) -> Accepts {
        match self.accepts_all.load(Ordering::Relaxed) {
            true => Accepts {
                publish: true,
                subscribe: true,
            },
            false => self.load().accepts(topic),
        }
    }

    /// `fetch.max.bytes`.
    pub fn fetch_bytes_max(&self) -> usize {
        self.fetch_bytes_max.load(Ordering::Relaxed)
    }

    /// Counts changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn store(&self, config: Config) {
        self.accepts_all
            .store(config.accepts_all, Ordering::Relaxed);
        self.fetch_bytes_max
            .store(config.fetch_bytes_max, Ordering::Relaxed);
        self.current.store(Arc::new(config));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Puts what was set at run time in force; whether that changes anything.
    pub fn set_dynamic(&self, defaults: &Overrides, own: &Overrides) -> bool {
        let _change = self.changes.lock();
        let (changed, told) = self.load().with_dynamic(defaults, own);
        for what in told {
            tracing::warn!(what, "a configuration that was set at run time is left out");
        }
        let before = self.load_full();
        let same = before.dynamic == changed.dynamic
            && before.dynamic_defaults == changed.dynamic_defaults;
        if !same {
            self.store(changed);
        }
        !same
    }

    /// Reads file and command line again, and puts in force what can change at run time. A file that is wrong
    /// changes nothing.
    pub fn reload(&self) -> Result<Reload, ConfigError> {
        let _change = self.changes.lock();
        let before = self.load_full();
        let mut after = Config::load(before.file.as_deref(), &before.command_line)?;
        after.dynamic = before.dynamic.clone();
        after.dynamic_defaults = before.dynamic_defaults.clone();
        let mut report = Reload::default();
        for key in broker_keys() {
            let written = |config: &Config| {
                let setting = config.settings.get(key.name);
                setting
                    .map_or(key.default, |setting| &setting.value)
                    .to_owned()
            };
            let change = Changed {
                name: key.name.to_owned(),
                from: written(&before),
                to: written(&after),
            };
            if change.from == change.to {
                continue;
            }
            let change = match key.is_secret() {
                true => Changed {
                    from: "(secret)".to_owned(),
                    to: "(another secret)".to_owned(),
                    ..change
                },
                false => change,
            };
            if !key.is_dynamic() {
                // The file says so, and it is not so: what is asked for the value gets the one that is.
                match before.settings.get(key.name) {
                    Some(setting) => after.settings.insert(key.name, setting.clone()),
                    None => after.settings.remove(key.name),
                };
                report.needs_restart.push(change);
            } else if after.dynamic.contains_key(key.name)
                || after.dynamic_defaults.contains_key(key.name)
            {
                report.overruled.push(change);
            } else {
                report.applied.push(change);
            }
        }
        compare_sections(&before, &after, &mut report);
        // The settings that wait for a restart are old ones that went together.
        let _ = after.finish();
        self.store(after);
        Ok(report)
    }
}

fn compare_sections(before: &Config, after: &Config, report: &mut Reload) {
    let sections = |config: &Config| -> BTreeMap<String, String> {
        let topics = config
            .topics
            .iter()
            .map(|section| (format!("[topic={}]", section.pattern), section.to_string()));
        let groups = config
            .groups
            .iter()
            .map(|section| (format!("[group={}]", section.pattern), section.to_string()));
        topics.chain(groups).collect()
    };
    let (before, after) = (sections(before), sections(after));
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for name in names {
        let text = |of: &BTreeMap<String, String>| of.get(name).cloned().unwrap_or_default();
        let change = Changed {
            name: name.clone(),
            from: text(&before),
            to: text(&after),
        };
        if change.from != change.to || before.contains_key(name) != after.contains_key(name) {
            report.applied.push(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(changes: &[Changed]) -> Vec<&str> {
        changes.iter().map(|change| change.name.as_str()).collect()
    }

    #[test]
    fn a_reload_applies_what_it_can_and_says_what_needs_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.ini");
        std::fs::write(&file, "[system]\nserverPort=1\nmax.connections=5\n").unwrap();
        let live = LiveConfig::new(Config::load(Some(&file), &[]).unwrap());
        let text = "[system]\nserverPort=2\nmax.connections=6\nfetch.max.bytes=2048\n[topic=a]\nretention.ms=7\n";
        std::fs::write(&file, text).unwrap();
        let changed = live.subscribe();
        let report = live.reload().unwrap();
        let applied = ["max.connections", "fetch.max.bytes", "[topic=a]"];
        assert_eq!(names(&report.applied), applied);
        assert_eq!(names(&report.needs_restart), ["port"]);
        assert_eq!(
            (live.number("port"), live.number("max.connections")),
            (1, 6)
        );
        assert_eq!(live.fetch_bytes_max(), 2048);
        assert!(changed.has_changed().unwrap());
        assert_eq!(names(&live.reload().unwrap().needs_restart), ["port"]);
    }

    #[test]
    fn a_file_that_is_wrong_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.ini");
        std::fs::write(&file, "[system]\nmax.connections=5\n").unwrap();
        let live = LiveConfig::new(Config::load(Some(&file), &[]).unwrap());
        std::fs::write(&file, "[system]\nmax.connections=6\nnonsense=1\n").unwrap();
        let error = live.reload().unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        assert_eq!(live.number("max.connections"), 5);
    }

    #[test]
    fn a_secret_that_changed_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.ini");
        std::fs::write(&file, "[zookeeper]\nzk.zkAuth=digest:a:pass\n").unwrap();
        let live = LiveConfig::new(Config::load(Some(&file), &[]).unwrap());
        std::fs::write(&file, "[zookeeper]\nzk.zkAuth=digest:a:word\n").unwrap();
        let report = live.reload().unwrap();
        assert_eq!(names(&report.needs_restart), ["zookeeper.auth"]);
        let told = format!("{report:?}");
        assert!(!told.contains("pass") && !told.contains("word"), "{told}");
    }

    #[test]
    fn what_was_set_at_run_time_stays_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.ini");
        std::fs::write(&file, "[system]\nmax.connections=5\n").unwrap();
        let live = LiveConfig::new(Config::load(Some(&file), &[]).unwrap());
        let set = |value: &str| Overrides::from([("max.connections".to_owned(), value.to_owned())]);
        assert!(live.set_dynamic(&set("7"), &Overrides::new()));
        assert!(!live.set_dynamic(&set("7"), &Overrides::new()));
        std::fs::write(&file, "[system]\nmax.connections=6\n").unwrap();
        assert_eq!(
            names(&live.reload().unwrap().overruled),
            ["max.connections"]
        );
        assert_eq!(live.number("max.connections"), 7);
        assert!(live.set_dynamic(&set("7"), &set("8")));
        assert_eq!(live.number("max.connections"), 8);
        assert!(live.set_dynamic(&Overrides::new(), &Overrides::new()));
        assert_eq!(live.number("max.connections"), 6);
        let port = Overrides::from([("port".to_owned(), "1".to_owned())]);
        assert!(!live.set_dynamic(&port, &Overrides::new()));
    }
}
