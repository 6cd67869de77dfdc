//! `metaq support-bundle`: one archive with what somebody needs who is to help. No messages, no keys, no secrets.
//!
//! Tests: tests/shell.rs, tests/advice.rs.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::authority::PRIVATE_MODE;
use super::http::Dashboard;
use super::{ConfigArguments, Failure};
use crate::config::Config;
use crate::provider::without_secrets;

/// The end of a log file that is taken, bytes.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Files of data directories that are listed.
const FILES_MAX: usize = 100_000;

/// What a running broker tells.
const PAGES: &[(&str, &str)] = &[
    ("broker.json", "/api/broker"),
    ("cluster.json", "/api/cluster"),
    ("topics.json", "/api/topics?limit=1000"),
    ("groups.json", "/api/groups?limit=1000"),
    ("clients.json", "/api/clients?limit=1000"),
    ("events.json", "/api/events?limit=1000"),
    ("history.json", "/api/history"),
    ("configuration.json", "/api/configuration"),
    ("process.json", "/api/process"),
    ("log.json", "/api/log"),
    ("metrics.txt", "/metrics"),
    ("healthz.txt", "/healthz"),
    ("readyz.txt", "/readyz"),
];

/// What the system tells.
const SYSTEM: &[&str] = &[
    "/proc/version",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/mounts",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/pressure/cpu",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/dirty_background_ratio",
    "/proc/sys/vm/dirty_ratio",
    "/proc/sys/net/core/somaxconn",
];

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(
    after_help = "What cannot be had, because the broker does not run for instance, is named in the archive's MANIFEST; the exit
code is 1 where the broker tells nothing at all.
Names of topics, groups and clients and addresses are in it: look into it before you send it.

Examples:
  metaq support-bundle -c conf/server.ini
  metaq support-bundle -c conf/server.ini --output /tmp/broker-0.tar.gz"
)]
pub(super) struct SupportBundle {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where to write.
    #[arg(short, long, default_value = "metaq-support.tar.gz")]
    output: PathBuf,
    #[command(flatten)]
    dashboard: Dashboard,
}

struct Bundle {
    archive: tar::Builder<GzEncoder<File>>,
    manifest: String,
}

impl SupportBundle {
    pub(super) fn run(self) -> Result<(), Failure> {
        let named = |error: std::io::Error| {
            let file = self.output.display();
            match error.kind() {
                ErrorKind::AlreadyExists => format!("{file} exists: --output names another file"),
                _ => format!("{file}: {error}"),
            }
        };
        let mut options = File::options();
        let options = options.write(true).create_new(true).mode(PRIVATE_MODE);
        let file = options.open(&self.output).map_err(named)?;
        let mut bundle = Bundle {
            archive: tar::Builder::new(GzEncoder::new(file, Compression::default())),
            manifest: format!("metaq {}\n", env!("CARGO_PKG_VERSION")),
        };
        let told = self.ask_broker(&mut bundle)?;
        self.fill(&mut bundle)?;
        let manifest = std::mem::take(&mut bundle.manifest);
        bundle.put("MANIFEST", manifest.as_bytes())?;
        bundle.archive.into_inner()?.finish()?.sync_all()?;
        match self.dashboard.json {
            true => println!("{}", serde_json::json!({ "file": self.output })),
            false => print!("{manifest}\nWritten to {}.\n", self.output.display()),
        }
        told.map_err(|why| format!("the broker told nothing: {why}").into())
    }

    /// Adds what the broker tells; the last reason why it does not, where it tells nothing at all.
    fn ask_broker(&self, bundle: &mut Bundle) -> Result<Result<(), String>, Failure> {
        let config = self.config.load_leniently();
        let mut told = Err("it was asked nothing".to_owned());
        for (name, path) in PAGES {
            let target = match &config {
                Ok(config) => self.dashboard.target_or_of(config),
                Err(_) => self.dashboard.target(),
            };
            let text = target.and_then(|target| target.text(path));
            // Others need no user, and tell little.
            if path.starts_with("/api/") {
                told = match (&text, told) {
                    (Err(why), Err(_)) => Err(why.to_string()),
                    _ => Ok(()),
                };
            }
            bundle.add(&format!("broker/{name}"), text)?;
        }
        Ok(told)
    }

    fn fill(&self, bundle: &mut Bundle) -> Result<(), Failure> {
        let config = self.config.load_leniently();
        for path in SYSTEM {
            let name = format!("system{}", path.replacen("/proc", "", 1));
            bundle.add(&name, std::fs::read_to_string(path).map_err(Failure::from))?;
        }
        let config = match config {
            Ok(config) => config,
            Err(error) => return bundle.add("configuration.txt", Err(error.into())),
        };
        bundle.add("configuration.txt", Ok(shown(&config)))?;
        for (n, dir) in config.data_paths().iter().enumerate() {
            bundle.add(&format!("data-{n}.txt"), Ok(listing(dir)))?;
        }
        let mut logs = vec![PathBuf::from(config.text("log.file"))];
        if logs[0].as_os_str().is_empty() {
            // Where bin/metaServer.sh has it: beside conf/.
            let file = self.config.config.as_deref();
            let home = file.and_then(Path::parent).and_then(Path::parent);
            let home = home.unwrap_or(Path::new(""));
            logs = ["metaq.log", "metaq.out"]
                .map(|name| home.join("logs").join(name))
                .into();
        }
        for log in logs {
            let name = log
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            bundle.add(&format!("logs/{name}"), end_of(&log).map(without_token))?;
        }
        Ok(())
    }
}

impl Bundle {
    /// Adds a part, or notes why there is none.
    fn add(&mut self, name: &str, text: Result<String, Failure>) -> Result<(), Failure> {
        match text {
            Ok(text) => {
                self.manifest
                    .push_str(&format!("{name}: {} bytes\n", text.len()));
                self.put(name, text.as_bytes())
            }
            Err(why) => {
                self.manifest.push_str(&format!("{name}: missing: {why}\n"));
                Ok(())
            }
        }
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(0);
        let path = format!("metaq-support/{name}");
        Ok(self.archive.append_data(&mut header, path, bytes)?)
    }
}

/// What is set, without what is secret.
fn shown(config: &Config) -> String {
    let set = crate::config::broker_keys().filter(|key| config.source(key.name).is_some());
    let line = |key: crate::config::BrokerKey| match key.is_secret() {
        true => format!("{} is set\n", key.name),
        false if key.is_url() => {
            format!("{}={}\n", key.name, without_secrets(config.text(key.name)))
        }
        false => format!("{}={}\n", key.name, config.text(key.name)),
    };
    set.map(line).collect()
}

/// Names and sizes of a data directory's files.
fn listing(dir: &Path) -> String {
    let mut out = String::new();
    let mut dirs = vec![dir.to_path_buf()];
    let mut left = FILES_MAX;
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            out.push_str(&format!("{}: cannot be read\n", dir.display()));
            continue;
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                dirs.push(entry.path());
                continue;
            }
            if left == 0 {
                out.push_str("and more\n");
                return out;
            }
            left -= 1;
            out.push_str(&format!(
                "{:>14} {}\n",
                metadata.len(),
                entry.path().display()
            ));
        }
    }
    out
}

/// What a start wrote has the dashboard's token.
fn without_token(text: String) -> String {
    let lines = text.lines().filter(|line| !line.contains("token"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The end of a log file.
fn end_of(path: &Path) -> Result<String, Failure> {
    let mut file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_BYTES_MAX)))?;
    let mut end = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}
