//! `metaq server start|stop|restart|status|slave-status`: a broker in the background, with a pid file. The exit codes are
//! those of LSB init scripts; `bin/metaServer.sh` is a thin layer over this.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::json;

use super::client::{Address, Client};
use super::http::{Target, reached};
use super::mode::Mode;
use super::moves::{Known, Layout};
use super::output::{counted, print, say};
use super::{ConfigArguments, ExitWith, Failure};
use crate::broker_security::mistakes;
use crate::config::Config;
use crate::net::listen_endpoints;

/// LSB: the program is dead and its pid file is there.
const DEAD_WITH_PID_FILE: u8 = 1;
/// LSB: status of a program that does not run.
const NOT_RUNNING: u8 = 3;
/// LSB: the program is not configured.
const NOT_CONFIGURED: u8 = 6;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// While it starts, how often that is said.
const TELL_PAUSE: Duration = Duration::from_secs(10);
/// How much of the log is shown when it does not start, bytes.
const TAIL_BYTES_MAX: u64 = 4000;
/// LSB: the status is not known.
const NOT_KNOWN: u8 = 4;

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Server {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a broker in the background and wait until it is ready; says why when it is not.
    #[command(
        after_help = "Example: metaq server start -c conf/server.ini\nExit codes: 0 it runs; 1 it did not start; 6 the configuration is wrong."
    )]
    Start(Begin),
    /// Stop it, and wait until it has ended.
    #[command(after_help = "Example: metaq server stop -c conf/server.ini")]
    Stop(End),
    /// Stop it and start it.
    #[command(after_help = "Example: metaq server restart -c conf/server.ini")]
    Restart(Begin),
    /// Whether it runs: exit code 0, 3 when it is stopped, 1 when it died and left its pid file.
    #[command(after_help = "Example: metaq server status -c conf/server.ini")]
    Status(Files),
    /// Whether the copies are as far as what they are copied from: what each broker keeps, and how much of it is in sync. Exit
    /// code 0 when all is, 1 when some is not, 4 when no broker answers.
    #[command(after_help = "Example: metaq server slave-status -b broker-1:9092")]
    SlaveStatus(Address),
    /// Print where the broker of a configuration is asked on this machine: clients' address, and the dashboard's.
    #[command(after_help = "Example: metaq server address -c conf/server.ini")]
    Address {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Args)]
struct Files {
    /// Where the process is noted.
    #[arg(long, default_value = "logs/metaq.pid", value_name = "FILE")]
    pid_file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Begin {
    /// MetaQ's word for some settings (docs/replication.md): local, samsa and gregor, slave.
    mode: Option<Mode>,
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    files: Files,
    /// The log's file, where the configuration names none (log.file).
    #[arg(long, default_value = "logs/metaq.log", value_name = "FILE")]
    log_file: PathBuf,
    /// Give up waiting after this many seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Debug, Args)]
struct End {
    #[command(flatten)]
    files: Files,
    /// Give up waiting after this many seconds.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

impl Server {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Start(begin) => begin.run(),
            Action::Stop(end) => stop(&end.files, Duration::from_secs(end.timeout)),
            Action::Restart(begin) => {
                // Not stopped for a configuration that it would not start with again.
                begin.check()?;
                stop(&begin.files, Duration::from_secs(begin.timeout))?;
                begin.run()
            }
            Action::Status(files) => status(&files.pid_file, files.json),
            Action::SlaveStatus(address) => slave_status(&address),
            Action::Address { config, json } => address(&config.load()?, json),
        }
    }
}

/// Where a broker is asked: by a listener without TLS and SASL where there is one.
fn address(config: &Config, json: bool) -> Result<(), Failure> {
    let (mut listeners, _) = listen_endpoints(config)?;
    listeners.sort_by_key(|endpoint| endpoint.listener.protocol.has_handshake());
    let listener = listeners.first().ok_or("there is no listener")?;
    let bootstrap = reached(&listener.host, listener.port);
    let dashboard = Target::written(config);
    let told = json!({ "bootstrap": bootstrap, "dashboard": dashboard });
    say(json, &told, &format!("{bootstrap} {dashboard}"));
    Ok(())
}

/// A process, known again by the time it started: numbers are given anew, and all of them after a reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: i32,
    /// Clock ticks since the system started.
    started: u64,
    boot_id: String,
}

impl Process {
    /// The process of a number, if it lives.
    fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything.
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        (state != "Z" && state != "X").then(|| Self {
            pid,
            started,
            boot_id: boot_id.trim().to_owned(),
        })
    }

    fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    fn write(&self, file: &Path) -> io::Result<()> {
        let text = format!("{}\n{} {}\n", self.pid, self.started, self.boot_id);
        let temporary = file.with_extension("pid.tmp");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, file)
    }

    /// What a pid file says. One that has a number alone was written by somebody else: the process is taken for a broker
    /// when its program is called so.
    fn read(file: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        match (words.next(), words.next()) {
            (Some(started), Some(boot_id)) => Some(Self {
                pid,
                started: started.parse().ok()?,
                boot_id: boot_id.to_owned(),
            }),
            _ => {
                let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
                let name = program.file_name()?.to_string_lossy().into_owned();
                Self::of(pid).filter(|_| name.starts_with("metaq"))
            }
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, signal)?)
    }
}

/// The broker that a pid file names, if it lives.
fn running(pid_file: &Path) -> Option<Process> {
    Process::read(pid_file).filter(Process::is_alive)
}

fn status(pid_file: &Path, json: bool) -> Result<(), Failure> {
    let found = running(pid_file);
    if json {
        let pid = found.as_ref().map(|process| process.pid);
        println!(
            "{}",
            serde_json::json!({ "running": pid.is_some(), "pid": pid })
        );
    }
    match found {
        Some(process) => {
            if !json {
                println!("metaq runs, process {}", process.pid);
            }
            Ok(())
        }
        None if pid_file.exists() => Err(ExitWith::failure(
            DEAD_WITH_PID_FILE,
            "stopped without saying so: its pid file is there, and the process is not",
        )),
        None => Err(ExitWith::failure(NOT_RUNNING, "stopped")),
    }
}

/// What a broker keeps of the partitions of a cluster.
#[derive(Serialize)]
struct Copies {
    broker: i32,
    live: bool,
    keeps: usize,
    in_sync: usize,
    leads: usize,
}

fn slave_status(address: &Address) -> Result<(), Failure> {
    let not_known = |error: Failure| ExitWith::failure(NOT_KNOWN, &error.to_string());
    let mut client = Client::connect(address).map_err(not_known)?;
    let layout = Layout::ask(&mut client, None).map_err(not_known)?;
    let keepers = layout.partitions.iter().flat_map(|known| &known.replicas);
    let brokers: BTreeSet<i32> = layout.racks.keys().chain(keepers).copied().collect();
    let count =
        |of: &dyn Fn(&Known) -> bool| layout.partitions.iter().filter(|known| of(known)).count();
    let copies = |id: i32| Copies {
        broker: id,
        live: layout.racks.contains_key(&id),
        keeps: count(&|known| known.replicas.contains(&id)),
        in_sync: count(&|known| known.leader >= 0 && known.isr.contains(&id)),
        leads: count(&|known| known.leader == id),
    };
    let rows: Vec<Copies> = brokers.into_iter().map(copies).collect();
    let headings = ["BROKER", "", "KEEPS", "IN SYNC", "LEADS"];
    print(address.json, &headings, &rows, |row| {
        let live = if row.live { "live" } else { "away" };
        vec![
            row.broker.to_string(),
            live.to_owned(),
            row.keeps.to_string(),
            row.in_sync.to_string(),
            row.leads.to_string(),
        ]
    })?;
    match rows.iter().map(|row| row.keeps - row.in_sync).sum() {
        0 => Ok(()),
        n => Err(format!("{} not in sync", counted(n as u64, "replica")).into()),
    }
}

fn stop(files: &Files, timeout: Duration) -> Result<(), Failure> {
    let pid_file = &files.pid_file;
    let stopped = serde_json::json!({ "running": false });
    let Some(process) = running(pid_file) else {
        let _ = std::fs::remove_file(pid_file);
        say(files.json, &stopped, "metaq is stopped");
        return Ok(());
    };
    process.signal(Signal::TERM)?;
    let until = Instant::now() + timeout;
    while process.is_alive() {
        if Instant::now() > until {
            let (pid, seconds) = (process.pid, timeout.as_secs());
            return Err(format!("process {pid} still drains after {seconds} s").into());
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    let _ = std::fs::remove_file(pid_file);
    say(files.json, &stopped, "metaq stopped");
    Ok(())
}

impl Begin {
    fn run(&self) -> Result<(), Failure> {
        let config = self.check()?;
        let pid_file = &self.files.pid_file;
        if let Some(process) = running(pid_file) {
            let runs = serde_json::json!({ "running": true, "pid": process.pid });
            let sentence = format!("metaq runs already, process {}", process.pid);
            say(self.files.json, &runs, &sentence);
            return Ok(());
        }
        for file in [pid_file, &self.log_file] {
            let parent = file
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            parent.map_or(Ok(()), std::fs::create_dir_all)?;
        }
        let log = match config.text("log.file") {
            "" => self.log_file.clone(),
            log => PathBuf::from(log),
        };
        let log_bytes = std::fs::metadata(&log).map_or(0, |found| found.len());
        let mut started = Started::spawn(self, &log)?;
        let process = Process::of(started.child.id() as i32);
        if let Some(process) = &process {
            process.write(pid_file)?;
        }
        match started.wait(Duration::from_secs(self.timeout)) {
            Ok(ready) => {
                let pid = started.child.id();
                let runs = serde_json::json!({ "running": true, "pid": pid, "ready": ready });
                say(self.files.json, &runs, &ready);
                Ok(())
            }
            Err(NotReady::Ended(status)) => {
                let _ = std::fs::remove_file(pid_file);
                let mut said = tail(&started.output, 0);
                if said.trim().is_empty() {
                    said = tail(&log, log_bytes);
                }
                Err(format!("it did not start ({status}):\n{}", said.trim_end()).into())
            }
            Err(NotReady::Slow) => Err(format!(
                "process {} is not ready after {} s, and goes on; {} says what it does",
                started.child.id(),
                self.timeout,
                log.display()
            )
            .into()),
        }
    }

    /// Whether it can be started so.
    fn check(&self) -> Result<Config, Failure> {
        let config = self.arguments().load();
        let config =
            config.map_err(|error| ExitWith::failure(NOT_CONFIGURED, &error.to_string()))?;
        match mistakes(&config) {
            none if none.is_empty() => Ok(config),
            mistakes => Err(ExitWith::failure(NOT_CONFIGURED, &mistakes.join("\n"))),
        }
    }

    /// With what the mode says.
    fn arguments(&self) -> ConfigArguments {
        Mode::over(self.mode, &self.config)
    }
}

enum NotReady {
    Ended(ExitStatus),
    Slow,
}

/// A broker that begins, and where it says that it is ready.
struct Started {
    child: Child,
    notified: UnixDatagram,
    /// What it says before its log is open.
    output: PathBuf,
}

impl Started {
    fn spawn(begin: &Begin, log: &Path) -> Result<Self, Failure> {
        let name = format!(
            "metaq-start-{}-{}",
            std::process::id(),
            uuid::Uuid::new_v4()
        );
        let notified = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        notified.set_read_timeout(Some(LOOK_PAUSE))?;
        let output = begin.log_file.with_extension("out");
        // The dashboard's token is printed there.
        let out = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&output)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("start");
        let arguments = begin.arguments();
        if let Some(config) = &arguments.config {
            command.arg("--config").arg(config);
        }
        for set in &arguments.set {
            command.args(["--set", set]);
        }
        if !arguments.load()?.text("log.file").is_empty() {
            // The configuration names it.
        } else {
            command
                .arg("--set")
                .arg(format!("log.file={}", log.display()));
        }
        command
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // What is typed at the terminal is not for it.
            .process_group(0);
        Ok(Self {
            child: command.spawn()?,
            notified,
            output,
        })
    }

    /// Waits until it is ready; what it says then.
    fn wait(&mut self, timeout: Duration) -> Result<String, NotReady> {
        let until = Instant::now() + timeout;
        let mut told = Instant::now();
        let mut buffer = [0; 4096];
        while Instant::now() < until {
            if let Ok(bytes) = self.notified.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
                if message.lines().any(|line| line == "READY=1") {
                    let status = message
                        .lines()
                        .find_map(|line| line.strip_prefix("STATUS="));
                    return Ok(status.unwrap_or("metaq is ready").to_owned());
                }
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(NotReady::Ended(status));
            }
            if told.elapsed() > TELL_PAUSE {
                told = Instant::now();
                eprintln!("metaq starts, process {}", self.child.id());
            }
        }
        Err(NotReady::Slow)
    }
}

/// The end of a file, after a position.
fn tail(path: &Path, from: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        // It may have been set aside meanwhile.
        let from = if from > bytes { 0 } else { from };
        file.seek(SeekFrom::Start(
            from.max(bytes.saturating_sub(TAIL_BYTES_MAX)),
        ))?;
        let mut text = Vec::new();
        file.take(TAIL_BYTES_MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_by_its_number_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("metaq.pid");
        let own = Process::of(std::process::id() as i32).unwrap();
        own.write(&file).unwrap();
        assert_eq!(running(&file), Some(own.clone()));
        let first_line = std::fs::read_to_string(&file).unwrap();
        assert_eq!(
            first_line.lines().next(),
            Some(own.pid.to_string().as_str())
        );
        // The number was given to another process.
        let older = Process {
            started: own.started - 1,
            ..own.clone()
        };
        older.write(&file).unwrap();
        assert_eq!(running(&file), None);
        // The system was started anew.
        let before = Process {
            boot_id: "another".to_owned(),
            ..own
        };
        before.write(&file).unwrap();
        assert_eq!(running(&file), None);
        std::fs::write(&file, "1\n").unwrap();
        assert_eq!(running(&file), None);
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(running(&file), None);
    }
}
