//! The audit log: who asked for what that changes something, from where, and what was refused. Lines of JSON in a file of its own,
//! rotated by size; written by a thread, so that nothing waits for it. What does not fit into its queue is counted, and the
//! next line that does says how many are missing.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::Serialize;

use crate::config::Config;
use crate::per_second::PerSecond;
use crate::rotation::Rotating;

/// Lines that may wait to be written.
const LINES_WAITING_MAX: usize = 4096;
/// Refusals that are kept in a second, and those of clients that have not said who they are.
const REFUSALS_A_SECOND_MAX: u64 = 100;
const UNKNOWN_A_SECOND_MAX: u64 = 10;
/// Only its owner reads it.
const MODE: u32 = 0o600;

/// One thing that somebody asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Audited {
    /// When, RFC 3339.
    pub time: String,
    /// Who.
    pub principal: String,
    /// From where.
    pub host: String,
    /// By which listener.
    pub listener: String,
    /// What it calls itself.
    pub client_id: String,
    /// The API.
    pub api: String,
    /// What it was about, as far as it was little.
    pub subjects: Vec<String>,
    /// `asked` for a request that changes something, as it came; `refused` for what was refused of it, or of another.
    pub outcome: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Lines before this one that could not be kept.
    #[serde(skip_serializing_if = "is_zero")]
    pub missing: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// See the module's documentation.
#[derive(Debug)]
pub struct AuditLog {
    /// `None` where there is none.
    lines: Option<SyncSender<Audited>>,
    missing: AtomicU64,
    dropped: AtomicU64,
    refusals: PerSecond,
    of_unknown: PerSecond,
}

impl Default for AuditLog {
    fn default() -> Self {
        Self {
            lines: None,
            missing: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refusals: PerSecond::new(REFUSALS_A_SECOND_MAX),
            of_unknown: PerSecond::new(UNKNOWN_A_SECOND_MAX),
        }
    }
}

impl AuditLog {
    /// As `audit.log.path` says; nothing without it.
    pub fn open(config: &Config) -> io::Result<Self> {
        let path = config.text("audit.log.path");
        if path.is_empty() {
            return Ok(Self::default());
        }
        let bytes_max = config.number("audit.log.max.bytes") as u64;
        // The present one is one of them.
        let files_max = config.number("audit.log.files.max") as usize + 1;
        let mut file = Rotating::open(Path::new(path), bytes_max, files_max, MODE)?;
        let (lines, received) = sync_channel(LINES_WAITING_MAX);
        let write = move || write_all(&mut file, &received);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(write)?;
        Ok(Self {
            lines: Some(lines),
            ..Self::default()
        })
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Lines that could not be kept since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds a line about a refusal, where there are not too many already: whoever is refused can ask again and again, and what
    /// others did is not to be rotated away by that.
    pub fn tell_refusal(&self, line: Audited, is_known: bool) {
        let takes = match is_known {
            true => self.refusals.take(),
            false => self.of_unknown.take(),
        };
        match takes {
            Some(_) => self.tell(line),
            None => {
                self.missing.fetch_add(1, Ordering::Relaxed);
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Adds a line.
    pub fn tell(&self, mut line: Audited) {
        let Some(lines) = &self.lines else { return };
        line.missing = self.missing.swap(0, Ordering::Relaxed);
        if let Err(error) = lines.try_send(line) {
            let line = match error {
                std::sync::mpsc::TrySendError::Full(line)
                | std::sync::mpsc::TrySendError::Disconnected(line) => line,
            };
            self.missing.fetch_add(line.missing + 1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(file: &mut Rotating, lines: &Receiver<Audited>) {
    while let Ok(line) = lines.recv() {
        if let Err(error) = write(file, &line) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }
}

fn write(file: &mut Rotating, line: &Audited) -> io::Result<()> {
    let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
    text.push(b'\n');
    file.write(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> Audited {
        Audited {
            time: "2026-01-01T00:00:00Z".to_owned(),
            principal: "User:a".to_owned(),
            host: "127.0.0.1".to_owned(),
            listener: "PLAINTEXT".to_owned(),
            client_id: "x".to_owned(),
            api: "CreateTopics".to_owned(),
            subjects: vec![format!("topic {n}")],
            outcome: "asked",
            why: None,
            missing: 0,
        }
    }

    #[test]
    fn the_file_is_rotated_and_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = Rotating::open(&path, 1000, 3, MODE).unwrap();
        for n in 0..100 {
            write(&mut file, &line(n)).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        assert!(read("audit.log").contains("topic 99"));
        assert!(!read("audit.log.1").is_empty() && !read("audit.log.2").is_empty());
        assert!(read("audit.log.3").is_empty());
        for name in ["audit.log", "audit.log.1"] {
            assert!(read(name).len() <= 1000);
            let lines = read(name);
            let mut parsed = lines.lines().map(serde_json::from_str::<serde_json::Value>);
            assert!(parsed.all(|line| line.unwrap()["principal"] == "User:a"));
        }
        // It goes on where it ended.
        let before = read("audit.log");
        let mut again = Rotating::open(&path, 1000, 3, MODE).unwrap();
        write(&mut again, &line(100)).unwrap();
        let is_set_aside = read("audit.log.1") == before;
        assert!(is_set_aside || read("audit.log").starts_with(&before));
    }

    #[test]
    fn who_is_refused_again_and_again_does_not_fill_it() {
        let (lines, received) = sync_channel(LINES_WAITING_MAX);
        let log = AuditLog {
            lines: Some(lines),
            ..AuditLog::default()
        };
        for n in 0..1000 {
            log.tell_refusal(line(n), false);
        }
        let kept = received.try_iter().count() as u64;
        // A second may end meanwhile.
        assert!((UNKNOWN_A_SECOND_MAX..=3 * UNKNOWN_A_SECOND_MAX).contains(&kept));
        assert_eq!(log.dropped(), 1000 - kept);
        log.tell(line(0));
        assert_eq!(received.recv().unwrap().missing, 1000 - kept);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_said() {
        let (lines, received) = sync_channel(1);
        let log = AuditLog {
            lines: Some(lines),
            ..AuditLog::default()
        };
        for n in 0..4 {
            log.tell(line(n));
        }
        assert_eq!((received.recv().unwrap().missing, log.dropped()), (0, 3));
        log.tell(line(4));
        assert_eq!(received.recv().unwrap().missing, 3);
    }
}
