//! Producing and consuming from the shell: `metaq produce`, `metaq consume`; `metaq doctor`; `metaq log repair`.

mod common;
#[path = "common/process.rs"]
mod process;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::batch;
use process::{Process, metaq};

/// Runs the program with something on its standard input: exit code and what it wrote.
fn metaq_reading(input: &[u8], arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

struct Shell {
    process: Process,
    address: String,
    dir: tempfile::TempDir,
}

impl Shell {
    fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::start(dir.path(), settings);
        let address = process.address().to_string();
        Self {
            process,
            address,
            dir,
        }
    }

    fn produce(&self, input: &[u8], arguments: &[&str]) -> (Option<i32>, String, String) {
        let all = [&["produce", "-b", &self.address], arguments].concat();
        metaq_reading(input, &all)
    }

    fn consume(&self, arguments: &[&str]) -> String {
        let all = [&["consume", "-b", &self.address], arguments].concat();
        let (code, out, err) = metaq_reading(b"", &all);
        assert_eq!(code, Some(0), "{err}");
        out
    }
}

#[test]
fn lines_go_in_and_come_out_as_they_were() {
    let shell = Shell::start(&[]);
    let (code, out, err) = shell.produce(b"one\n\ntwo\xff\nlast", &["t"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "4 records to t partition 0, offsets 0 to 3\n");
    let all = ["consume", "t", "-e", "-b", &shell.address];
    let out = Command::new(env!("CARGO_BIN_EXE_metaq")).args(all).output();
    assert_eq!(out.unwrap().stdout, b"one\n\ntwo\xff\nlast\n");
}

#[test]
fn keys_headers_and_nulls_are_kept() {
    let shell = Shell::start(&[]);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let given = [codec, "-K", ":", "-Z", "-H", "a=1", "-z", codec];
        let (code, _, err) = shell.produce(b"k:v\nk:\n:x\n", &given);
        assert_eq!(code, Some(0), "{err}");
        let out = shell.consume(&[codec, "-e", "-f", "%t[%p] %i %o %k(%K)=%s(%S) %h%%\\n"]);
        let line = |offset, record| format!("{codec}[0] 0-0 {offset} {record} a=1%\n");
        let lines = ["k(1)=v(1)", "k(1)=(-1)", "(0)=x(1)"];
        let expected = lines.iter().enumerate().map(|(n, record)| line(n, record));
        assert_eq!(out, expected.collect::<String>());
    }
}

#[test]
fn json_goes_around() {
    let shell = Shell::start(&["numPartitions=3"]);
    let record = r#"{"key":"k","value":"v","headers":[{"name":"h","value":"x"},{"name":"h","value_hex":"ff"}],"partition":2,"timestamp":1700000000000}"#;
    let (code, _, err) = shell.produce(record.as_bytes(), &["t", "--input", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let first = shell.consume(&["t", "-e", "--json"]);
    let (code, _, err) = shell.produce(first.as_bytes(), &["again", "--input", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let second = shell.consume(&["again", "-e", "--json"]);
    assert_eq!(second, first.replace("\"t\"", "\"again\""));
    let (code, _, err) = shell.produce(b"{\"valu", &["t", "--input", "json"]);
    assert!(code == Some(1) && err.contains("line 1: "), "{err}");
}

#[test]
fn a_consumer_begins_where_it_is_told_to() {
    let shell = Shell::start(&[]);
    let numbers: String = (0..100).map(|n| format!("{n}\n")).collect();
    shell.produce(numbers.as_bytes(), &["t", "--batch-bytes", "500"]);
    assert_eq!(shell.consume(&["t", "-o", "42", "-c", "2"]), "42\n43\n");
    assert_eq!(shell.consume(&["t", "-o", "-2", "-e"]), "98\n99\n");
    assert_eq!(shell.consume(&["t", "-o", "latest", "-e"]), "");
    assert_eq!(shell.consume(&["t", "-o", "@0", "-c", "1"]), "0\n");
    assert_eq!(shell.consume(&["t", "-o", "@4000000000000", "-e"]), "");
    let (code, _, err) = metaq_reading(b"", &["consume", "t", "-p", "1", "-b", &shell.address]);
    assert!(code == Some(1) && err.contains("no partition 1"), "{err}");
    let (code, _, err) = metaq_reading(b"", &["consume", "none", "-b", &shell.address]);
    assert!(code == Some(1) && err.contains("no such topic"), "{err}");
}

#[test]
fn a_producer_goes_on_behind_a_kill_and_stores_each_line_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &[]);
    let address = process.address().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["produce", "t", "-b", &address, "--batch-bytes", "2000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let half = |from: i32| -> String { (from..from + 20_000).map(|n| format!("{n}\n")).collect() };
    input.write_all(half(0).as_bytes()).unwrap();
    process.signal("-KILL");
    let port = format!("serverPort={}", address.rsplit(':').next().unwrap());
    let _process = Process::start(dir.path(), &[&port]);
    input.write_all(half(20_000).as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let (_, out, _) = metaq_reading(b"", &["consume", "t", "-e", "-b", &address]);
    assert!(
        out == half(0) + &half(20_000),
        "lines are missing or doubled"
    );
}

#[test]
fn what_is_too_large_or_goes_nowhere_is_said() {
    let shell = Shell::start(&[]);
    let large = vec![b'x'; 2 << 20];
    let (code, _, err) = shell.produce(&large, &["t"]);
    assert!(code == Some(1) && err.contains("t partition 0"), "{err}");
    let (code, _, err) = shell.produce(b"x", &["t", "-p", "7"]);
    assert!(code == Some(1) && err.contains("no partition 7"), "{err}");
    let (code, _, err) = shell.produce(b"no key", &["t", "-K", ":"]);
    assert!(code == Some(1) && err.contains("line 1"), "{err}");
}

#[test]
fn the_doctor_finds_a_good_place_good_and_a_bad_one_bad() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("dataPath={}", dir.path().join(name).display());
    let doctor = |path: &str, more: &[&str]| {
        let mut all = vec![
            "doctor",
            "--json",
            "--set",
            path,
            "--set",
            "dashboardHttpPort=0",
        ];
        if !more.iter().any(|set| set.starts_with("serverPort=")) {
            all.extend(["--set", "serverPort=0"]);
        }
        all.extend(more);
        let (code, out, err) = metaq(&all);
        let findings: serde_json::Value = serde_json::from_str(&out).expect(&err);
        (code, findings.as_array().unwrap().clone())
    };
    let (code, findings) = doctor(&path("new"), &[]);
    assert_eq!(code, Some(0), "{findings:?}");
    assert!(!dir.path().join("new").exists(), "it changes nothing");
    let checks = [
        "open files",
        "memory maps",
        "disk space",
        "sync",
        "clock",
        "ports",
    ];
    for check in checks {
        assert!(
            findings.iter().any(|finding| finding["check"] == check),
            "{check}"
        );
    }
    std::fs::write(dir.path().join("file"), "").unwrap();
    let (code, findings) = doctor(&path("file"), &[]);
    let failed = findings.iter().find(|finding| finding["level"] == "failed");
    assert_eq!(
        (code, &failed.unwrap()["check"]),
        (Some(1), &"data directory".into())
    );
    let taken = Process::start(&dir.path().join("data"), &[]);
    let port = format!("serverPort={}", taken.address().port());
    let (_, findings) = doctor(
        &path("data"),
        &["--set", &port, "--set", "hostName=127.0.0.1"],
    );
    let is_taken = |finding: &serde_json::Value| {
        finding["found"].as_str().unwrap().ends_with("is taken") && finding["level"] == "warning"
    };
    assert!(findings.iter().any(is_taken), "{findings:?}");
    let nowhere = [
        "--set",
        "zk.zkEnable=true",
        "--set",
        "zk.zkConnect=127.0.0.1:1",
        "--set",
        "zk.zkConnectionTimeoutMs=500",
    ];
    let (code, findings) = doctor(&path("new"), &nowhere);
    let failed = findings
        .iter()
        .filter(|finding| finding["level"] == "failed");
    assert_eq!((code, failed.count()), (Some(1), 2), "{findings:?}");
}

/// The newest segment's file of a topic's first partition.
fn segment(data: &Path, topic: &str) -> std::path::PathBuf {
    data.join(format!("{topic}-0/00000000000000000000.log"))
}

#[test]
fn a_damaged_log_is_repaired_once_it_is_said_so() {
    let mut shell = Shell::start(&[]);
    for n in 0..20 {
        shell.produce(format!("line {n}").as_bytes(), &["t"]);
    }
    let data = shell.dir.path().to_owned();
    let dir = data.to_str().unwrap();
    let (code, _, err) = metaq(&["log", "repair", dir, "--execute"]);
    assert!(code == Some(1) && err.contains("a broker uses"), "{err}");
    shell.process.signal("-TERM");
    let mut bytes = std::fs::read(segment(&data, "t")).unwrap();
    let middle = bytes.len() / 2 + 40;
    bytes[middle] ^= 1;
    std::fs::write(segment(&data, "t"), &bytes).unwrap();
    let (code, out, _) = metaq(&["log", "repair", dir]);
    assert!(
        code == Some(0) && out.contains("is cut off at byte"),
        "{out}"
    );
    assert_eq!(std::fs::read(segment(&data, "t")).unwrap(), bytes);
    let (code, _, err) = metaq(&["log", "repair", dir, "--execute"]);
    assert!(code == Some(0) && err.contains("the rest is in"), "{err}");
    let (code, out, _) = metaq(&["log", "verify", dir]);
    assert!(code == Some(0), "{out}");
    let process = Process::start(&data, &[]);
    let address = process.address().to_string();
    let (_, out, _) = metaq_reading(b"", &["consume", "t", "-e", "-b", &address]);
    assert_eq!(
        out,
        (0..10).map(|n| format!("line {n}\n")).collect::<String>()
    );
}

#[test]
fn a_broker_is_seen_in_one_screen_and_from_all_sides() {
    let shell = Shell::start(&["log.level=info"]);
    shell.produce(b"a\nb\n", &["t"]);
    let dashboard = shell.process.dashboard().to_string();
    let (code, out, err) = metaq(&["status", "-d", &dashboard]);
    assert!(
        out.contains("1 topic with 1 partition here, 0 offline"),
        "{out}{err}"
    );
    // Nothing is wrong, but that this machine's disk may be nearly full.
    assert_eq!(code == Some(0), !out.contains("left ("), "{out}{err}");
    let mut held = shell.process.client();
    held.create("held");
    // Until the broker has noticed that the one that produced has gone.
    let mut clients = serde_json::Value::Null;
    common::wait_for("one client", || {
        let (code, out, err) = metaq(&["client", "list", "-d", &dashboard, "--json"]);
        assert_eq!(code, Some(0), "{err}");
        clients = serde_json::from_str(&out).expect(&err);
        clients.as_array().unwrap().len() == 1
    });
    let number = clients[0]["number"].to_string();
    let (code, out, err) = metaq(&["client", "describe", &number, "-d", &dashboard]);
    assert!(code == Some(0) && out.contains("Metadata"), "{out}{err}");
    assert_ne!(held.produce("none", batch(1)).0, 0);
    let (code, out, err) = metaq(&["client", "refused", "-d", &dashboard]);
    assert!(
        code == Some(0) && out.contains("UNKNOWN_TOPIC_OR_PARTITION"),
        "{out}{err}"
    );
    let (code, out, err) = metaq(&["top", "--json", "-d", &dashboard]);
    let top: serde_json::Value = serde_json::from_str(&out).expect(&err);
    assert_eq!(code, Some(0));
    assert!(
        top["rates"]["requests"].is_number() && top["clients"].is_array(),
        "{out}"
    );
    let (code, out, _) = metaq(&["top", "--by", "clients", "-d", &dashboard]);
    assert!(
        code == Some(0) && out.contains("CLIENT") && out.contains("127.0.0.1:"),
        "{out}"
    );
    let (code, _, err) = metaq(&["status", "-d", "127.0.0.1:1"]);
    assert!(code == Some(4) && err.contains("cannot reach"), "{err}");
}

#[test]
fn a_support_bundle_has_what_helps_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "dashboard.token=do-not-tell-this-token";
    let shell = Shell::start(&[secret]);
    shell.produce(b"a message nobody else may see\n", &["t"]);
    let dashboard = shell.process.dashboard().to_string();
    let data = format!("dataPath={}", shell.dir.path().display());
    let file = dir.path().join("bundle.tar.gz");
    let file = file.to_str().unwrap();
    let words = [
        "support-bundle",
        "-d",
        &dashboard,
        "--set",
        &data,
        "--set",
        secret,
        "-o",
        file,
    ];
    let (code, out, err) = metaq(&words);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        !out.contains("broker.json: missing") && out.contains("logs/metaq.log: missing"),
        "{out}"
    );
    let (code, _, err) = metaq(&words);
    assert!(code == Some(1) && err.contains("exists"), "{err}");
    let unpacked = Command::new("tar")
        .args(["xzf", file, "-C"])
        .arg(dir.path())
        .status();
    assert!(unpacked.unwrap().success());
    let found = Command::new("grep")
        .args(["-rlE", "do-not-tell-this|nobody else may see"])
        .arg(dir.path().join("metaq-support"))
        .output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "");
    for part in [
        "MANIFEST",
        "broker/broker.json",
        "broker/metrics.txt",
        "configuration.txt",
        "data-0.txt",
    ] {
        assert!(
            dir.path().join("metaq-support").join(part).exists(),
            "{part}"
        );
    }
}
