//! The program as a child of the test: started, asked, measured, killed.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::common::Client;

/// The words behind `metaq` that start a broker, on ports that the system chooses where the settings do not.
pub fn start_arguments(data: &Path, settings: &[&str]) -> Vec<String> {
    let data = format!("dataPath={}", data.display());
    let mut all = vec!["dashboardHttpPort=0", "hostName=127.0.0.1", &data];
    if !settings.iter().any(|set| set.starts_with("serverPort=")) {
        all.push("serverPort=0");
    }
    all.extend(settings);
    let set = |setting: &str| ["--set".to_owned(), setting.to_owned()];
    let words = all.into_iter().flat_map(set);
    ["start".to_owned()].into_iter().chain(words).collect()
}

/// A command that starts a broker and is silent about it.
pub fn start_command(data: &Path, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metaq"));
    command
        .args(start_arguments(data, settings))
        .stderr(Stdio::null());
    command
}

/// A running broker; killed when dropped.
pub struct Process {
    pub child: Child,
    pub ready: String,
}

impl Process {
    pub fn start(data: &Path, settings: &[&str]) -> Self {
        Self::spawn(&mut start_command(data, settings))
    }

    /// The same with what it says in a file.
    pub fn start_logging(data: &Path, settings: &[&str], log: &Path) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        Self::spawn(start_command(data, settings).stderr(log))
    }

    /// Starts a command that ends up as a broker, and waits until it is ready.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        Self { child, ready }
    }

    fn word_behind(&self, words: &str) -> &str {
        let behind = self.ready.split(words).nth(1);
        let word = behind.and_then(|rest| rest.split(',').next());
        word.unwrap_or_else(|| panic!("not ready: {:?}", self.ready))
    }

    pub fn address(&self) -> SocketAddr {
        self.word_behind("listening on ").parse().unwrap()
    }

    /// Of its second listener.
    pub fn second_address(&self) -> SocketAddr {
        let behind = self.ready.split("listening on ").nth(1);
        let second = behind.and_then(|addresses| addresses.split(", ").nth(1));
        second.unwrap().parse().unwrap()
    }

    /// Host and port of the dashboard.
    pub fn dashboard(&self) -> &str {
        self.word_behind("dashboard http://")
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// The answer of a page of the dashboard, head and body.
    pub fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.dashboard()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> i64 {
        let page = self.page("/metrics");
        let mut lines = page.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines
            .find(|(found, _)| *found == name)
            .unwrap_or_else(|| panic!("no metric {name} in {page}"));
        value.trim().parse().unwrap()
    }

    /// What the broker keeps in memory, bytes.
    pub fn resident(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages = statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
        pages * rustix::param::page_size()
    }

    /// The most that it ever kept in memory, bytes.
    pub fn resident_peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<usize>().unwrap() << 10
    }

    pub fn send_signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Sends a signal and waits for the end.
    pub fn signal(&mut self, signal: &str) -> ExitStatus {
        self.send_signal(signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `metaq` with some words; its exit code, output and errors.
pub fn metaq(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}
