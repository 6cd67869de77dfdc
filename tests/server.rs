//! bin/metaServer.sh, verb by verb, from an archive that was made by bin/package and unpacked somewhere.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// An unpacked archive with a configuration on free ports.
struct Unpacked {
    _dir: tempfile::TempDir,
    home: PathBuf,
    broker: String,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Unpacked {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let packed = Command::new(format!("{ROOT}/bin/package"))
            .arg(dir.path())
            .env("METAQ_BIN", env!("CARGO_BIN_EXE_metaq"))
            .output()
            .unwrap();
        assert!(
            packed.status.success(),
            "{}",
            String::from_utf8_lossy(&packed.stderr)
        );
        let archive = String::from_utf8(packed.stdout).unwrap();
        let name = Path::new(archive.trim())
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        let expected = format!("metaq-{}-linux-", env!("CARGO_PKG_VERSION"));
        assert!(
            name.starts_with(&expected) && name.ends_with(".tar.gz"),
            "{name}"
        );
        let to = dir.path().join("some where");
        std::fs::create_dir(&to).unwrap();
        let unpacked = Command::new("tar")
            .arg("xzf")
            .arg(archive.trim())
            .arg("-C")
            .arg(&to)
            .status();
        assert!(unpacked.unwrap().success());
        let home = to.join(name.trim_end_matches(".tar.gz"));
        let (port, dashboard) = (free_port(), free_port());
        let file = home.join("conf/server.ini");
        let shipped = std::fs::read_to_string(&file).unwrap();
        let own = shipped
            .replace(
                "\nserverPort=9092",
                &format!("\nserverPort={port}\nhostName=127.0.0.1"),
            )
            .replace(
                "\ndashboardHttpPort=8120",
                &format!("\ndashboardHttpPort={dashboard}"),
            )
            .replace("\ndataPath=data", "\ndataPath=data,more");
        std::fs::write(file, own).unwrap();
        Self {
            _dir: dir,
            home,
            broker: format!("127.0.0.1:{port}"),
        }
    }

    /// Runs a verb; exit code and all that is said.
    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(self.home.join("bin/metaServer.sh"))
            .args(words)
            // It is asked where its own configuration says.
            .env_remove("METAQ_BROKER")
            .env_remove("METAQ_DASHBOARD")
            .env_remove("METAQ_BIN")
            .current_dir("/")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    fn metaq(&self, words: &[&str]) -> String {
        let output = Command::new(self.home.join("bin/metaq"))
            .args(words)
            .args(["-b", &self.broker])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn pid(&self) -> String {
        let text = std::fs::read_to_string(self.home.join("logs/metaq.pid")).unwrap();
        text.lines().next().unwrap().to_owned()
    }

    fn kill(&self) {
        let pid = self.pid();
        assert!(
            Command::new("kill")
                .args(["-KILL", &pid])
                .status()
                .unwrap()
                .success()
        );
        let gone = Path::new("/proc").join(&pid).join("exe");
        let until = Instant::now() + Duration::from_secs(20);
        while gone.exists() && std::fs::read_link(&gone).is_ok() {
            assert!(Instant::now() < until, "{pid} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        self.run(&["stop"]);
    }
}

#[test]
fn the_scripts_are_valid() {
    for script in ["bin/metaServer.sh", "bin/package"] {
        let checked = Command::new("bash")
            .arg("-n")
            .arg(Path::new(ROOT).join(script))
            .status();
        assert!(checked.unwrap().success(), "{script}");
    }
}

#[test]
fn every_verb_does_what_it_says_with_the_exit_codes_of_lsb() {
    let unpacked = Unpacked::new();
    let code = |words: &[&str]| unpacked.run(words).0;
    let says = |words: &[&str], expected: &str| {
        let (code, said) = unpacked.run(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    };
    assert_eq!(code(&["status"]), Some(3));
    assert_eq!(code(&["stop"]), Some(0));
    assert_eq!(code(&["reload"]), Some(7));
    assert_eq!(code(&["slave-status"]), Some(4));
    assert_eq!(code(&["frobnicate"]), Some(2));
    assert_eq!(code(&[]), Some(2));

    says(&["start", "local"], "ready: listening on");
    says(&["start"], "runs already");
    says(&["status"], &unpacked.pid());
    says(&["reload"], "nothing has changed");
    unpacked.metaq(&["topic", "create", "t", "--partitions", "4"]);
    says(&["slave-status"], "LEADS");
    says(&["stats"], "metaq_connections");
    says(&["stats", "connections"], "metaq_connections");
    says(&["query", "-topic", "t"], "0-3");
    says(
        &["query", "-topic", "t", "-partition", "0-1", "-group", "g"],
        "0-1",
    );
    says(
        &[
            "close-partitions",
            "-topic",
            "t",
            "-start",
            "1",
            "-end",
            "2",
        ],
        "closed",
    );
    says(
        &[
            "delete-partitions",
            "-topic",
            "t",
            "-start",
            "2",
            "-end",
            "2",
        ],
        "emptied",
    );
    assert_eq!(
        code(&[
            "delete-partitions",
            "-topic",
            "t",
            "-start",
            "0",
            "-end",
            "1"
        ]),
        Some(1)
    );
    let listed = unpacked.metaq(&["partition", "list", "--topic", "t"]);
    assert_eq!(listed.matches("closed").count(), 2, "{listed}");
    says(
        &["open-partitions", "-topic", "t", "-start", "1", "-end", "2"],
        "open",
    );
    let there = |dir: &str, n: u32| unpacked.home.join(dir).join(format!("t-{n}")).exists();
    let to = if there("data", 0) { "more" } else { "data" };
    let moved = [
        "move-partitions",
        "-topic",
        "t",
        "-start",
        "0",
        "-end",
        "0",
        "-to",
        to,
    ];
    says(&moved, "moved");
    says(&moved, "moved");
    assert!(there(to, 0));
    let before = unpacked.pid();
    says(&["restart"], "ready: listening on");
    assert_ne!(unpacked.pid(), before);
    says(&["query", "-topic", "t"], "0-3");

    // Killed, it left its pid file; the next start is not kept from it.
    unpacked.kill();
    assert_eq!(code(&["status"]), Some(1));
    says(&["start"], "ready: listening on");
    says(&["stop"], "stopped");
    assert_eq!(code(&["status"]), Some(3));
    let log = std::fs::read_to_string(unpacked.home.join("logs/metaq.log")).unwrap();
    assert!(log.contains("closed cleanly"), "{log}");
}

#[test]
fn a_start_that_fails_says_why() {
    let unpacked = Unpacked::new();
    let file = unpacked.home.join("conf/server.ini");
    let valid = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{valid}\n[nonsense]\n")).unwrap();
    let (code, said) = unpacked.run(&["start"]);
    assert!(
        code == Some(6) && said.contains("unknown section [nonsense]"),
        "{said}"
    );
    std::fs::write(&file, valid).unwrap();
    let taken = std::net::TcpListener::bind(&unpacked.broker).unwrap();
    let (code, said) = unpacked.run(&["start"]);
    assert!(
        code == Some(1) && said.contains("cannot listen on"),
        "{said}"
    );
    drop(taken);
    assert_eq!(unpacked.run(&["status"]).0, Some(3));
    // A number of another process, left before the system was started anew.
    std::fs::write(
        unpacked.home.join("logs/metaq.pid"),
        format!("{}\n1 other-boot\n", std::process::id()),
    )
    .unwrap();
    assert_eq!(unpacked.run(&["status"]).0, Some(1));
    assert_eq!(unpacked.run(&["stop"]).0, Some(0));
    assert_eq!(unpacked.run(&["start"]).0, Some(0));
}

#[test]
fn systemd_is_told_when_it_is_ready_reloads_is_alive_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_metaq"));
    command
        .arg("start")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    for set in ["serverPort=0", "dashboardHttpPort=0", "hostName=127.0.0.1"] {
        command.args(["--set", set]);
    }
    command
        .arg("--set")
        .arg(format!("dataPath={}", dir.path().join("data").display()));
    let mut child = command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .spawn()
        .unwrap();
    let wait = |expected: &str| {
        let mut buffer = [0; 4096];
        loop {
            let bytes = socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {expected}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
            if message.lines().any(|line| line == expected) {
                return message;
            }
        }
    };
    let signal = |name: &str| {
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &id])
                .status()
                .unwrap()
                .success()
        );
    };
    assert!(wait("READY=1").contains("STATUS=metaq "));
    wait("WATCHDOG=1");
    signal("-HUP");
    assert!(wait("RELOADING=1").contains("MONOTONIC_USEC="));
    wait("READY=1");
    signal("-TERM");
    wait("STOPPING=1");
    assert!(child.wait().unwrap().success());
    let unit = std::fs::read_to_string(format!("{ROOT}/conf/metaq.service")).unwrap();
    assert!(unit.contains("Type=notify") && unit.contains("WatchdogSec="));
}

#[test]
fn man_pages_and_completions_come_from_the_command_line() {
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["man"]).contains(".TH metaq 1"));
    for (shell, part) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef metaq"),
        ("fish", "complete -c metaq"),
    ] {
        let text = run(&["completions", shell]);
        assert!(text.contains(part) && text.contains("partition"), "{shell}");
    }
}
