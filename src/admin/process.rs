//! The process and its disks as the system sees them.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

/// The process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct ProcessView {
    /// Its number.
    pub(super) pid: u32,
    /// CPU time since its start, seconds.
    pub(super) cpu_seconds: f64,
    /// Resident memory, bytes.
    pub(super) resident_bytes: u64,
    /// Address space, bytes.
    pub(super) virtual_bytes: u64,
    /// Open files and connections.
    pub(super) open_files: u64,
    /// How many it may have.
    pub(super) open_files_max: u64,
    /// Processors of the machine.
    pub(super) processors: u64,
    /// Load of the machine over 1, 5 and 15 minutes.
    pub(super) load: [f64; 3],
    /// Memory of the machine, bytes.
    pub(super) memory_bytes: u64,
    /// What of it is free or can be freed, bytes.
    pub(super) memory_available_bytes: u64,
    /// Its threads, the busiest first.
    pub(super) threads: Vec<ThreadView>,
    /// Threads and tasks that it cannot do without and that ended by a bug.
    pub(super) ended: Vec<String>,
}

/// A thread.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct ThreadView {
    /// Its number.
    pub(super) id: u32,
    /// Its name: `network` threads serve connections, `writer` threads append, `sync` threads sync.
    pub(super) name: String,
    /// R runs, S sleeps, D waits for the disk.
    pub(super) state: String,
    /// CPU time since its start, seconds.
    pub(super) cpu_seconds: f64,
}

/// A file system.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Disk {
    pub(super) bytes: u64,
    pub(super) free: u64,
}

/// The file system of a directory.
pub(super) fn disk_of(path: &Path) -> Disk {
    rustix::fs::statvfs(path).map_or(Disk::default(), |found| Disk {
        bytes: found.f_blocks * found.f_frsize,
        free: found.f_bavail * found.f_frsize,
    })
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Name, state and CPU seconds of a `stat` file of /proc.
fn stat(text: &str) -> Option<(String, String, f64)> {
    // The name stands in parentheses and may hold anything.
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let seconds = (ticks(11)? + ticks(12)?) / per_second;
    Some((name, (*fields.first()?).to_owned(), seconds))
}

/// CPU time of the process, seconds.
pub(super) fn cpu_seconds() -> f64 {
    stat(&read("/proc/self/stat")).map_or(0.0, |(_, _, seconds)| seconds)
}

/// Resident memory of the process, bytes.
pub(super) fn resident_bytes() -> u64 {
    pages(1)
}

/// Open files and connections, and how many there may be.
pub(super) fn open_files() -> (u64, u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |found| found.count() as u64);
    (open, limit.current.unwrap_or(u64::MAX))
}

fn pages(field: usize) -> u64 {
    let statm = read("/proc/self/statm");
    let pages = statm.split_whitespace().nth(field);
    let pages: u64 = pages.and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

fn threads() -> Vec<ThreadView> {
    let tasks = std::fs::read_dir("/proc/self/task");
    let tasks = tasks.into_iter().flatten().flatten();
    let thread = |task: std::fs::DirEntry| {
        let id = task.file_name().to_str()?.parse().ok()?;
        let (name, state, cpu_seconds) = stat(&read(task.path().join("stat")))?;
        Some(ThreadView {
            id,
            name,
            state,
            cpu_seconds,
        })
    };
    let mut all: Vec<ThreadView> = tasks.filter_map(thread).collect();
    all.sort_by(|a, b| b.cpu_seconds.total_cmp(&a.cpu_seconds));
    all
}

impl ProcessView {
    /// Looks; reads a file a thread.
    pub(super) fn take(ended: Vec<String>) -> Self {
        let memory = |name: &str| {
            let info = read("/proc/meminfo");
            let line = info.lines().find_map(|line| line.strip_prefix(name))?;
            let kib = line.trim_start_matches(':').split_whitespace().next()?;
            Some(kib.parse::<u64>().ok()? * 1024)
        };
        let load = read("/proc/loadavg");
        let mut load = load.split_whitespace().map_while(|text| text.parse().ok());
        let (open, most) = open_files();
        Self {
            pid: std::process::id(),
            cpu_seconds: cpu_seconds(),
            resident_bytes: resident_bytes(),
            virtual_bytes: pages(0),
            open_files: open,
            open_files_max: most,
            processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            load: [(); 3].map(|()| load.next().unwrap_or(0.0)),
            memory_bytes: memory("MemTotal").unwrap_or(0),
            memory_available_bytes: memory("MemAvailable").unwrap_or(0),
            threads: threads(),
            ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_itself() {
        let found = ProcessView::take(Vec::new());
        assert_eq!(found.pid, std::process::id());
        assert!(found.resident_bytes > 0 && found.memory_bytes > found.resident_bytes);
        assert!(found.open_files > 0 && !found.threads.is_empty());
        assert!(disk_of(Path::new("/")).bytes > 0);
    }

    #[test]
    fn a_threads_name_may_hold_anything() {
        let text = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 100 200 0";
        let (name, state, seconds) = stat(text).unwrap();
        assert_eq!((name.as_str(), state.as_str()), ("a) b (c", "S"));
        assert!(seconds > 0.0);
    }
}
