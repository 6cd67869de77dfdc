//! The system around the broker: its limits, memory, ports and clock.
//!
//! Tests: tests/shell.rs.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process::Command;

use super::Finding;
use crate::config::Config;
use crate::net::listen_endpoints;

/// Below this many open files, a few hundred partitions or connections end in errors.
const OPEN_FILES_NEEDED: u64 = 4096;
/// What thousands of partitions and connections take.
const OPEN_FILES_WANTED: u64 = 100_000;
/// Connections that arrive at once wait here.
const ACCEPT_QUEUE_WANTED: u64 = 1024;
/// Below this, MiB, the page cache has no room.
const MEMORY_WANTED_MIB: u64 = 512;
/// Files with maps of a partition: an index of offsets and one of times.
const MAPS_PER_SEGMENT: u64 = 2;
/// Maps that the process has besides.
const MAPS_BESIDES: u64 = 1000;

/// All checks of the host.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        open_files(),
        maps(config),
        memory(),
        accept_queue(),
        clock_source(),
    ];
    findings.push(clock(config));
    findings.extend(ports(config));
    findings
}

/// A number that the kernel shows.
fn kernel(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Finding {
    const CHECK: &str = "open files";
    let remedy = "raise the hard limit: ulimit -Hn 1048576, LimitNOFILE=1048576 in the service's unit, or nofile in \
                  /etc/security/limits.conf";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.maximum {
        None => Finding::ok(CHECK, "no limit"),
        Some(files) if files < OPEN_FILES_NEEDED => {
            Finding::failed(CHECK, format!("at most {files}"), remedy)
        }
        Some(files) if files < OPEN_FILES_WANTED => Finding::warning(
            CHECK,
            format!("at most {files}: enough for few partitions and connections"),
            remedy,
        ),
        Some(files) => Finding::ok(CHECK, format!("at most {files}")),
    }
}

/// Indexes are mapped, and a system allows a process only so many maps.
fn maps(config: &Config) -> Finding {
    const CHECK: &str = "memory maps";
    let Some(most) = kernel("/proc/sys/vm/max_map_count") else {
        return Finding::ok(CHECK, "not limited");
    };
    let segments: u64 = config.data_paths().iter().map(|dir| segments_in(dir)).sum();
    let needed = segments * MAPS_PER_SEGMENT + MAPS_BESIDES;
    let found = format!("at most {most}; {segments} segments take about {needed}");
    let remedy = format!(
        "sysctl -w vm.max_map_count={}, and the same in /etc/sysctl.d",
        (needed * 4).max(262_144)
    );
    match () {
        () if needed > most => Finding::failed(CHECK, found, remedy),
        () if needed * 2 > most => Finding::warning(CHECK, found, remedy),
        () => Finding::ok(CHECK, found),
    }
}

fn segments_in(dir: &std::path::Path) -> u64 {
    let Ok(partitions) = std::fs::read_dir(dir) else {
        return 0;
    };
    let files = partitions
        .flatten()
        .filter_map(|partition| std::fs::read_dir(partition.path()).ok());
    let is_segment =
        |file: &std::fs::DirEntry| file.path().extension().is_some_and(|end| end == "log");
    files
        .map(|files| files.flatten().filter(is_segment).count() as u64)
        .sum()
}

fn memory() -> Finding {
    const CHECK: &str = "memory";
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let Some(mib) = kib.map(|kib| kib / 1024) else {
        return Finding::ok(CHECK, "not known");
    };
    let found = format!("{mib} MiB available");
    if mib < MEMORY_WANTED_MIB {
        let remedy = "give the machine more memory, or move other programs: what readers ask for soon after it was \
                      written comes from the page cache";
        return Finding::warning(CHECK, found, remedy);
    }
    Finding::ok(CHECK, found)
}

fn accept_queue() -> Finding {
    const CHECK: &str = "accept queue";
    match kernel("/proc/sys/net/core/somaxconn") {
        Some(most) if most < ACCEPT_QUEUE_WANTED => Finding::warning(
            CHECK,
            format!("{most} connections may wait to be accepted"),
            format!(
                "sysctl -w net.core.somaxconn={ACCEPT_QUEUE_WANTED}: clients that all come back at once are refused otherwise"
            ),
        ),
        Some(most) => Finding::ok(CHECK, format!("{most} connections may wait to be accepted")),
        None => Finding::ok(CHECK, "not known"),
    }
}

/// Reading a slow clock costs a system call a request.
fn clock_source() -> Finding {
    const CHECK: &str = "clock source";
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = std::fs::read_to_string(path).unwrap_or_default();
    match source.trim() {
        "" => Finding::ok(CHECK, "not known"),
        slow @ ("hpet" | "acpi_pm" | "jiffies") => Finding::warning(
            CHECK,
            format!("{slow}, which is slow to read"),
            "boot with clocksource=tsc where the processor's counter is stable",
        ),
        source => Finding::ok(CHECK, source),
    }
}

fn clock(config: &Config) -> Finding {
    const CHECK: &str = "clock";
    let now = std::time::SystemTime::now();
    let newest = config.data_paths().into_iter().flat_map(|dir| {
        let partitions = std::fs::read_dir(dir).into_iter().flatten().flatten();
        partitions.filter_map(|partition| partition.metadata().ok()?.modified().ok())
    });
    if let Some(ahead) = newest
        .max()
        .and_then(|newest| newest.duration_since(now).ok())
        && ahead.as_secs() > 1
    {
        let found = format!("{} s behind what is in the data directory", ahead.as_secs());
        let remedy = "set the clock and keep it set (chrony, systemd-timesyncd): retention and look-ups by time go by it";
        return Finding::failed(CHECK, found, remedy);
    }
    let asked = Command::new("timedatectl")
        .args(["show", "-p", "NTPSynchronized", "--value"])
        .output();
    let said = asked.map_or(String::new(), |out| {
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    });
    match said.as_str() {
        "yes" => Finding::ok(CHECK, "synchronized"),
        "no" => Finding::warning(
            CHECK,
            "not synchronized",
            "run chrony or systemd-timesyncd: timestamps of several machines are compared",
        ),
        _ => Finding::ok(
            CHECK,
            "plausible; whether it is synchronized is not known here",
        ),
    }
}

fn ports(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "ports";
    let mut endpoints = match listen_endpoints(config) {
        Ok((endpoints, _)) => endpoints
            .into_iter()
            .map(|endpoint| (endpoint.host, endpoint.port))
            .collect::<Vec<_>>(),
        Err(error) => {
            let remedy = "write listeners as PLAINTEXT://host:port";
            return vec![Finding::failed(CHECK, error.to_string(), remedy)];
        }
    };
    let dashboard_host = match config.text("dashboard.http.host") {
        "" => config.text("host.name"),
        host => host,
    };
    let dashboard_port = config.number("dashboard.http.port") as u16;
    endpoints.push((dashboard_host.to_owned(), dashboard_port));
    endpoints
        .iter()
        .map(|(host, number)| port(CHECK, host, *number))
        .collect()
}

fn port(check: &'static str, host: &str, number: u16) -> Finding {
    let host = match host {
        "" => "0.0.0.0",
        host => host,
    };
    let name = format!("{host}:{number}");
    let addresses: Vec<SocketAddr> = match (host, number).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let remedy = "set hostName or listeners to an address of this machine";
            return Finding::failed(check, format!("{name}: {error}"), remedy);
        }
    };
    match TcpListener::bind(addresses.as_slice()) {
        Ok(_) => Finding::ok(check, format!("{name} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::warning(
            check,
            format!("{name} is taken"),
            "fine while the broker runs; otherwise end what listens there (ss -ltnp), or choose another port",
        ),
        Err(error) => {
            let remedy =
                "set hostName or listeners to an address of this machine, and a port from 1024 on";
            Finding::failed(check, format!("{name}: {error}"), remedy)
        }
    }
}
