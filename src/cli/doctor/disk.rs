//! The data directories: whether they can be written, how much room is left, and what a sync takes.
//!
//! Tests: tests/shell.rs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{StatVfs, statfs, statvfs};

use super::Finding;
use crate::config::Config;

/// Below this share of a file system, percent, it is soon full.
const FREE_WANTED_PERCENT: u64 = 10;
/// Below this much free space no segment is begun, MiB.
const FREE_NEEDED_MIB: u64 = 64;
/// Files that a new partition has.
const FILES_WANTED: u64 = 10_000;
/// How many syncs are tried.
const SYNCS: usize = 16;
/// What one may take at the median, before topics that sync every message are slow.
const SYNC_WANTED: Duration = Duration::from_millis(20);

/// File systems that are not a disk, by the number in `f_type`.
const NOT_A_DISK: &[(u64, &str, &str)] = &[
    (
        0x0102_1994,
        "tmpfs",
        "its content is gone with the next reboot",
    ),
    (
        0x6969,
        "NFS",
        "syncs and locks depend on a server and its mount options",
    ),
    (
        0xff53_4d42,
        "CIFS",
        "its syncs and locks are not those of a disk",
    ),
    (
        0x794c_7630,
        "overlayfs",
        "it belongs to a container's image and goes with it",
    ),
    (
        0x6573_5546,
        "FUSE",
        "whether syncs reach a disk depends on its program",
    ),
];

/// All checks of the data directories.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let paths = config.data_paths();
    if paths.is_empty() {
        let remedy = "set dataPath (log.dirs)";
        return vec![Finding::failed("data directory", "none is named", remedy)];
    }
    paths.iter().flat_map(|path| check_dir(path)).collect()
}

fn check_dir(path: &Path) -> Vec<Finding> {
    const CHECK: &str = "data directory";
    let shown = path.display();
    let Some(there) = nearest(path) else {
        return vec![Finding::failed(
            CHECK,
            format!("{shown}: no such path"),
            "create it",
        )];
    };
    if !there.is_dir() {
        let found = format!("{} is not a directory", there.display());
        return vec![Finding::failed(CHECK, found, "name another dataPath")];
    }
    let probe = match Probe::create(&there) {
        Ok(probe) => probe,
        Err(error) => {
            let remedy = "give it to the user that runs the broker (chown), and see that it is mounted writable";
            let found = format!("{}: cannot be written: {error}", there.display());
            return vec![Finding::failed(CHECK, found, remedy)];
        }
    };
    let new = if there == path {
        ""
    } else {
        " will be created and"
    };
    let mut findings = vec![Finding::ok(CHECK, format!("{shown}{new} can be written"))];
    findings.extend(file_system(&there));
    if let Ok(stat) = statvfs(&there) {
        findings.extend([space(path, &stat), files(path, &stat)]);
    }
    findings.push(syncs(path, probe));
    findings
}

/// The path, or the nearest one above it that is there.
fn nearest(path: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(path).ok()?;
    let there = whole.ancestors().find(|ancestor| ancestor.exists())?;
    Some(match there == whole {
        true => path.to_owned(),
        false => there.to_owned(),
    })
}

fn file_system(there: &Path) -> Option<Finding> {
    let kind = statfs(there).ok()?.f_type as u64;
    let (_, name, why) = NOT_A_DISK.iter().find(|(magic, _, _)| *magic == kind)?;
    Some(Finding::warning(
        "file system",
        format!("{} is {name}: {why}", there.display()),
        "keep messages on a local disk with ext4 or XFS",
    ))
}

fn space(path: &Path, stat: &StatVfs) -> Finding {
    const CHECK: &str = "disk space";
    let mib = |blocks: u64| blocks.saturating_mul(stat.f_frsize) >> 20;
    let (free, all) = (mib(stat.f_bavail), mib(stat.f_blocks));
    let percent = (free * 100).checked_div(all).unwrap_or(0);
    let found = format!("{}: {free} MiB free of {all} ({percent} %)", path.display());
    let remedy = "shorten deletePolicy or log.retention.bytes, enlarge the disk, or name another dataPath beside it; \
                  metaq log verify shows what each partition takes";
    match () {
        () if free < FREE_NEEDED_MIB => Finding::failed(CHECK, found, remedy),
        () if percent < FREE_WANTED_PERCENT => Finding::warning(CHECK, found, remedy),
        () => Finding::ok(CHECK, found),
    }
}

fn files(path: &Path, stat: &StatVfs) -> Finding {
    const CHECK: &str = "files left";
    let found = format!("{}: {} more files", path.display(), stat.f_favail);
    // Some file systems have no such limit and show 0.
    if stat.f_files > 0 && stat.f_favail < FILES_WANTED {
        let remedy = "make the file system with more inodes, or larger segments (maxSegmentSize)";
        return Finding::warning(CHECK, found, remedy);
    }
    Finding::ok(CHECK, found)
}

fn syncs(path: &Path, mut probe: Probe) -> Finding {
    const CHECK: &str = "sync";
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        match probe.sync() {
            Ok(time) => times.push(time),
            Err(error) => {
                let found = format!("{}: {error}", path.display());
                return Finding::failed(
                    CHECK,
                    found,
                    "look into the system's log: the disk may be failing",
                );
            }
        }
    }
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, worst) = (times[SYNCS / 2], times[SYNCS - 1]);
    let found = format!(
        "{}: {:.2} ms at the median, {:.2} ms at worst",
        path.display(),
        ms(median),
        ms(worst)
    );
    match median > SYNC_WANTED {
        true => Finding::warning(
            CHECK,
            found,
            "use a faster disk for topics with unflushThreshold 0 or 1, or find out what else writes to this one (iostat -x 1)",
        ),
        false => Finding::ok(CHECK, found),
    }
}

/// A file that is written and synced, and removed in the end.
struct Probe {
    path: PathBuf,
    file: std::fs::File,
}

impl Probe {
    fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!(".metaq-doctor-{}", std::process::id()));
        let file = std::fs::File::create_new(&path)?;
        Ok(Self { path, file })
    }

    fn sync(&mut self) -> io::Result<Duration> {
        self.file.write_all(&[0; 4096])?;
        let began = Instant::now();
        self.file.sync_data()?;
        Ok(began.elapsed())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
