//! The data directories and the file systems that they are on.

use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::{Shared, process};

/// A data directory.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct DataDirView {
    /// Where.
    pub(in crate::admin) path: String,
    /// Size of its file system, bytes.
    pub(in crate::admin) disk_bytes: u64,
    /// What is free of it, bytes.
    pub(in crate::admin) free_bytes: u64,
    /// What this broker's segments take, bytes.
    pub(in crate::admin) log_bytes: u64,
    /// Partitions in it.
    pub(in crate::admin) partitions: usize,
}

impl DataDirView {
    /// What is used of the file system, by any program, in percent.
    pub(in crate::admin) fn used_percent(&self) -> f64 {
        match self.disk_bytes {
            0 => 0.0,
            all => (all - self.free_bytes.min(all)) as f64 / all as f64 * 100.0,
        }
    }
}

/// The data directories in figures.
pub(in crate::admin) fn data_dirs(shared: &Shared) -> Vec<DataDirView> {
    let partitions = &shared.cx.partitions;
    let mut dirs: Vec<DataDirView> = partitions
        .data_dirs()
        .map(|dir| {
            let disk = process::disk_of(dir.path());
            DataDirView {
                path: dir.path().display().to_string(),
                disk_bytes: disk.bytes,
                free_bytes: disk.free,
                log_bytes: 0,
                partitions: 0,
            }
        })
        .collect();
    let paths: Vec<_> = partitions.data_dirs().map(|dir| dir.path()).collect();
    for topic in partitions.topics() {
        for partition in topic.online() {
            let dir = partition.log().dir();
            let at = paths.iter().position(|path| dir.parent() == Some(path));
            if let Some(dir) = at.and_then(|at| dirs.get_mut(at)) {
                dir.log_bytes += partition.log().bytes();
                dir.partitions += 1;
            }
        }
    }
    dirs
}
