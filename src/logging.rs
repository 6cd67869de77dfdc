//! What the broker says: where it goes, in which form, and how much of it each module says.
//!
//! The levels can be changed while it runs (`metaq loggers`, Kafka's BROKER_LOGGER resource, KIP-412). Loggers are metaq's
//! modules, and `root` for everything; a module without a level of its own has its parent's. Levels that are set at run
//! time last until the broker ends.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::observe::log_tail;
use crate::rotation::Rotating;

/// The logger of everything.
pub const ROOT: &str = "root";
/// Levels under Kafka's names (LogLevelConfig), as far as they can be told apart, and OFF.
pub const LEVELS: &[&str] = &["FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE", "OFF"];
/// The loggers beside [`ROOT`].
pub const LOGGERS: &[&str] = &[
    "metaq",
    "metaq::admin",
    "metaq::api",
    "metaq::broker",
    "metaq::cli",
    "metaq::cluster",
    "metaq::config",
    "metaq::control",
    "metaq::group",
    "metaq::log",
    "metaq::meta",
    "metaq::net",
    "metaq::partition",
    "metaq::requests",
    "zookeeper_client",
];

/// Where what is said goes.
#[derive(Debug, Clone)]
pub struct LogTarget {
    /// As JSON lines.
    pub json: bool,
    /// Standard error without.
    pub file: Option<PathBuf>,
    /// Size at which a file is set aside, bytes.
    pub file_bytes_max: u64,
    /// Files that are kept.
    pub files_max: usize,
    /// As `log.level` has it.
    pub levels: String,
}

/// Why a level is not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggerError {
    /// No such logger.
    #[error("Logger {0} does not exist!")]
    Unknown(String),
    /// No such level.
    #[error(
        "Cannot set the log level of {logger} to {level} as it is not a supported log level. Valid log levels are {}", LEVELS.join(", ")
    )]
    Level {
        /// Whose.
        logger: String,
        /// What was asked for.
        level: String,
    },
    /// The root has no parent to take its level from.
    #[error("Removing the log level of the {ROOT} logger is not allowed")]
    RemovesRoot,
}

#[derive(Default)]
struct Levels {
    /// By the configuration.
    configured: Targets,
    /// Set at run time.
    set: BTreeMap<String, LevelFilter>,
}

impl Levels {
    fn root(&self) -> LevelFilter {
        let set = self.set.get(ROOT).copied();
        set.or(self.configured.default_level())
            .unwrap_or(LevelFilter::OFF)
    }

    fn targets(&self) -> Targets {
        let mut targets = self.configured.clone().with_default(self.root());
        for (logger, level) in self.set.iter().filter(|(logger, _)| *logger != ROOT) {
            targets = targets.with_target(logger.clone(), *level);
        }
        targets
    }

    /// The level in force: of the nearest parent that has one.
    fn of(&self, logger: &str) -> LevelFilter {
        if logger == ROOT {
            return self.root();
        }
        let targets = self.targets();
        let above = targets
            .iter()
            .filter(|(target, _)| logger.starts_with(target))
            .max_by_key(|(target, _)| target.len());
        above.map_or(self.root(), |(_, level)| level)
    }
}

type Reload = reload::Handle<Targets, Registry>;

static LEVELS_NOW: Mutex<Option<Levels>> = Mutex::new(None);
static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Begins to write what is said; once a process.
pub fn start(target: &LogTarget) -> io::Result<()> {
    let levels = std::env::var("RUST_LOG").unwrap_or_else(|_| target.levels.clone());
    let levels = Levels {
        configured: parse(&levels),
        set: BTreeMap::new(),
    };
    let (filter, handle) = reload::Layer::new(levels.targets());
    *LEVELS_NOW.lock() = Some(levels);
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match &target.file {
        Some(path) => {
            let file = Rotating::open(path, target.file_bytes_max, target.files_max, MODE)?;
            let file = Arc::new(Mutex::new(file));
            let lines = lines
                .with_writer(move || Forgiving(Shared(file.clone())))
                .with_ansi(false);
            match target.json {
                true => lines.json().boxed(),
                false => lines.boxed(),
            }
        }
        None => {
            let ansi = io::IsTerminal::is_terminal(&io::stderr());
            let lines = lines
                .with_writer(|| Forgiving(io::stderr()))
                .with_ansi(ansi);
            match target.json {
                true => lines.json().boxed(),
                false => lines.with_target(false).boxed(),
            }
        }
    };
    // The filter is above both: the dashboard shows what the log has.
    let layer = lines.and_then(log_tail()).with_filter(filter);
    if tracing_subscriber::registry()
        .with(layer)
        .try_init()
        .is_ok()
    {
        let _ = RELOAD.set(handle);
    }
    Ok(())
}

fn parse(levels: &str) -> Targets {
    // Checked when it was read; RUST_LOG may be anything.
    let parsed = levels.parse::<Targets>();
    parsed.unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
}

fn change<T>(change: impl FnOnce(&mut Levels) -> T) -> T {
    let mut levels = LEVELS_NOW.lock();
    let levels = levels.get_or_insert_with(|| Levels {
        configured: parse("info"),
        set: BTreeMap::new(),
    });
    let result = change(levels);
    if let Some(handle) = RELOAD.get() {
        // It fails when nothing is logged any more.
        let _ = handle.reload(levels.targets());
    }
    result
}

/// Takes the levels of the configuration; what is set at run time stays over them.
pub fn set_levels(levels: &str) {
    if std::env::var_os("RUST_LOG").is_none() {
        let configured = parse(levels);
        change(|levels| {
            if levels.configured != configured {
                levels.configured = configured;
            }
        });
    }
}

/// Every logger with its level, under Kafka's name, and whether it was set at run time.
pub fn loggers() -> Vec<(&'static str, &'static str, bool)> {
    change(|levels| {
        let names = [ROOT].into_iter().chain(LOGGERS.iter().copied());
        names
            .map(|name| {
                (
                    name,
                    name_of(levels.of(name)),
                    levels.set.contains_key(name),
                )
            })
            .collect()
    })
}

/// Checks that a level can be set.
pub fn check(logger: &str, level: Option<&str>) -> Result<Option<LevelFilter>, LoggerError> {
    if logger != ROOT && !LOGGERS.contains(&logger) {
        return Err(LoggerError::Unknown(logger.to_owned()));
    }
    match level {
        None if logger == ROOT => Err(LoggerError::RemovesRoot),
        None => Ok(None),
        Some(level) => {
            let wrong = || LoggerError::Level {
                logger: logger.to_owned(),
                level: level.to_owned(),
            };
            level_of(level).map(Some).ok_or_else(wrong)
        }
    }
}

/// Sets a logger's level, or takes its own level away.
pub fn set(logger: &str, level: Option<&str>) -> Result<(), LoggerError> {
    let level = check(logger, level)?;
    change(|levels| match level {
        Some(level) => levels.set.insert(logger.to_owned(), level),
        None => levels.set.remove(logger),
    });
    tracing::info!(
        logger,
        level = level.map(name_of),
        "the level of a logger is set"
    );
    Ok(())
}

fn level_of(name: &str) -> Option<LevelFilter> {
    Some(match name {
        "FATAL" | "ERROR" => LevelFilter::ERROR,
        "WARN" => LevelFilter::WARN,
        "INFO" => LevelFilter::INFO,
        "DEBUG" => LevelFilter::DEBUG,
        "TRACE" => LevelFilter::TRACE,
        "OFF" => LevelFilter::OFF,
        _ => return None,
    })
}

fn name_of(level: LevelFilter) -> &'static str {
    match level {
        LevelFilter::OFF => "OFF",
        LevelFilter::ERROR => "ERROR",
        LevelFilter::WARN => "WARN",
        LevelFilter::INFO => "INFO",
        LevelFilter::DEBUG => "DEBUG",
        _ => "TRACE",
    }
}

/// Takes everything, and drops what cannot be written: the broker goes on where the disk is full or nobody reads any
/// more.
struct Forgiving<W>(W);

impl<W: Write> Write for Forgiving<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// As the umask allows.
const MODE: u32 = 0o666;

struct Shared(Arc<Mutex<Rotating>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_without_a_level_has_its_parents() {
        let mut levels = Levels {
            configured: parse("warn,metaq=info,metaq::net=debug"),
            set: BTreeMap::new(),
        };
        assert_eq!(levels.of(ROOT), LevelFilter::WARN);
        assert_eq!(levels.of("metaq::log"), LevelFilter::INFO);
        assert_eq!(levels.of("metaq::net"), LevelFilter::DEBUG);
        levels
            .set
            .insert("metaq::net".to_owned(), LevelFilter::TRACE);
        levels.set.insert(ROOT.to_owned(), LevelFilter::ERROR);
        assert_eq!(levels.of("metaq::net"), LevelFilter::TRACE);
        assert_eq!(levels.of("zookeeper_client"), LevelFilter::ERROR);
        assert!(
            levels
                .targets()
                .would_enable("metaq::net::server", &tracing::Level::TRACE)
        );
        assert!(!levels.targets().would_enable("redb", &tracing::Level::WARN));
    }

    #[test]
    fn only_known_loggers_get_known_levels() {
        assert!(matches!(
            check("metaq::nett", Some("INFO")),
            Err(LoggerError::Unknown(_))
        ));
        assert!(matches!(
            check("metaq::net", Some("info")),
            Err(LoggerError::Level { .. })
        ));
        assert_eq!(check(ROOT, None), Err(LoggerError::RemovesRoot));
        assert_eq!(
            check("metaq::net", Some("FATAL")),
            Ok(Some(LevelFilter::ERROR))
        );
        let mut sorted = LOGGERS.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, LOGGERS);
    }
}
