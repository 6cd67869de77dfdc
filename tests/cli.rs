//! The program itself: started, asked by its own commands, killed and stopped.

mod common;
#[path = "common/process.rs"]
mod process;

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use common::{Client, batch};
use process::{Process, metaq, start_arguments};

#[test]
fn the_ready_line_tells_what_an_operator_wants_to_know() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    for part in [
        "metaq ",
        "listening on 127.0.0.1:",
        "cluster ",
        "data in ",
        "0 topics and 0 partitions",
        " ms",
    ] {
        assert!(
            process.ready.contains(part),
            "{part:?} in {:?}",
            process.ready
        );
    }
}

#[test]
fn sigterm_drains_and_leaves_a_clean_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &[]);
    let mut client = Client::connect(process.address());
    client.create("t");
    assert_eq!(client.produce("t", batch(3)).0, 0);
    assert_eq!(process.signal("-TERM").code(), Some(0));
    assert!(dir.path().join(".kafka_cleanshutdown").exists());
    let (code, out, _) = metaq(&["log", "verify", dir.path().to_str().unwrap()]);
    assert!(
        code == Some(0) && out.contains("3 records") && out.contains("0 findings"),
        "{out}"
    );
}

#[test]
fn a_full_disk_is_an_error_of_its_partitions_and_the_broker_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=5m none \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", mount])
        .arg(dir.path())
        .arg(env!("CARGO_BIN_EXE_metaq"))
        .args(start_arguments(&dir.path().join("data"), &[]))
        .stderr(Stdio::null());
    let tried = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs none /mnt"])
        .status();
    assert!(
        tried.is_ok_and(|status| status.success()),
        "a small disk needs unshare -rm: root, or user namespaces"
    );
    let mut process = Process::spawn(&mut command);
    let mut client = Client::connect(process.address());
    let topics: Vec<String> = (0..200).map(|n| format!("t{n}")).collect();
    topics.iter().for_each(|topic| client.create(topic));
    let mut stored = vec![0; topics.len()];
    let mut refused = 0;
    for _ in 0..100 {
        for (topic, stored) in topics.iter().zip(&mut stored) {
            let (code, _) = client.produce(topic, batch(220));
            match code {
                0 => *stored += 1,
                code => {
                    assert_eq!(
                        code,
                        metaq_protocol::ResponseError::KafkaStorageError.code()
                    );
                    refused += 1;
                }
            }
        }
        if refused > 2 * topics.len() {
            break;
        }
    }
    assert!(refused > topics.len(), "{refused}");
    let page = process.page("/readyz");
    assert!(
        page.contains("503") && page.contains("No space left"),
        "{page}"
    );
    for (topic, stored) in topics.iter().zip(stored) {
        assert_eq!(client.fetch(topic, 0).len(), stored, "{topic}");
    }
    assert!(process.child.try_wait().unwrap().is_none());
}

#[test]
fn a_broker_goes_on_where_nobody_reads_what_it_says() {
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let closed = || std::io::pipe().unwrap().1;
    let outputs: [(Stdio, Stdio); 2] = [
        (full().into(), full().into()),
        (closed().into(), closed().into()),
    ];
    for (stdout, stderr) in outputs {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let port_setting = format!("serverPort={port}");
        let child = Command::new(env!("CARGO_BIN_EXE_metaq"))
            .args(start_arguments(&dir.path().join("data"), &[&port_setting]))
            .env("RUST_LOG", "debug")
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut process = Process {
            child,
            ready: String::new(),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        common::wait_for("the broker", || TcpStream::connect(address).is_ok());
        let mut client = Client::connect(address);
        client.create("t");
        assert_eq!(client.produce("t", batch(1)), (0, 0));
        // Something to be said of the partition on the writer thread.
        std::fs::remove_dir_all(dir.path().join("data/t-0")).unwrap();
        client.produce("t", batch(1));
        assert_eq!(client.produce("missing", batch(1)).0, 3);
        client.create("u");
        assert_eq!(client.produce("u", batch(1)), (0, 0));
        assert_eq!(process.signal("-TERM").code(), Some(0));
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn topics_are_managed_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let address = process.address().to_string();
    let run = |arguments: &[&str]| metaq(&[arguments, &["-b", &address]].concat());
    let (code, out, _) = run(&[
        "topic",
        "create",
        "orders",
        "-p",
        "3",
        "-o",
        "retention.ms=7200000",
    ]);
    assert!(
        code == Some(0) && out.contains("orders created with 3 partitions"),
        "{out}"
    );
    assert_eq!(run(&["topic", "create", "orders"]).0, Some(1));
    assert!(
        run(&["topic", "create", "orders"])
            .2
            .contains("already exists")
    );
    let listed: serde_json::Value =
        serde_json::from_str(&run(&["topic", "list", "--json"]).1).unwrap();
    assert_eq!(
        (&listed[0]["topic"], &listed[0]["partitions"]),
        (&"orders".into(), &3.into())
    );
    assert_eq!(
        run(&[
            "topic",
            "alter",
            "orders",
            "-p",
            "5",
            "-o",
            "flush.messages=1"
        ])
        .0,
        Some(0)
    );
    let (_, out, _) = run(&["topic", "describe", "orders"]);
    assert!(
        out.contains("flush.messages=1") && out.contains("retention.ms=7200000"),
        "{out}"
    );
    let (code, _, error) = run(&["topic", "alter", "orders", "-o", "retention.ms=never"]);
    assert!(code == Some(1) && error.contains("retention.ms"), "{error}");
    assert_eq!(run(&["topic", "delete", "orders"]).0, Some(0));
    assert_eq!(run(&["topic", "describe", "orders"]).0, Some(1));
    assert_eq!(run(&["group", "list", "--json"]).1.trim(), "[]");
}

#[test]
fn offsets_are_reset_only_when_told_to_execute() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let address = process.address().to_string();
    let run = |arguments: &[&str]| metaq(&[arguments, &["-b", &address, "--json"]].concat());
    let mut client = Client::connect(process.address());
    client.create("t");
    client.produce("t", batch(10));
    let reset = ["group", "reset-offsets", "g", "-t", "t", "--to-offset", "4"];
    let plan: serde_json::Value = serde_json::from_str(&run(&reset).1).unwrap();
    assert_eq!(plan[0]["to"], 4);
    assert_eq!(run(&["group", "describe", "g"]).0, Some(1));
    assert_eq!(run(&[&reset[..], &["--execute"]].concat()).0, Some(0));
    let shifted = [
        "group",
        "reset-offsets",
        "g",
        "-t",
        "t",
        "--shift-by",
        "-1",
        "--execute",
    ];
    assert_eq!(run(&shifted).0, Some(0));
    let described: serde_json::Value =
        serde_json::from_str(&run(&["group", "describe", "g"]).1).unwrap();
    assert_eq!(
        (
            &described["partitions"][0]["offset"],
            &described["partitions"][0]["lag"]
        ),
        (&3.into(), &7.into())
    );
    assert_eq!(run(&["group", "delete", "g"]).0, Some(0));
    assert_eq!(run(&["group", "delete", "g"]).0, Some(1));
}

#[test]
fn a_dump_shows_every_record_and_a_damaged_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &[]);
    let mut client = Client::connect(process.address());
    client.create("t");
    client.produce("t", batch(2));
    process.signal("-TERM");
    let file = dir.path().join("t-0/00000000000000000000.log");
    let (code, out, _) = metaq(&["log", "dump", file.to_str().unwrap(), "--records"]);
    assert!(code == Some(0) && out.contains("value value 1"), "{out}");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[80] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (code, out, _) = metaq(&["log", "verify", dir.path().to_str().unwrap()]);
    assert!(code == Some(1) && out.contains("CRC"), "{out}");
}

#[test]
fn looking_at_files_changes_none() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("00000000000000000000.log");
    let (code, _, error) = metaq(&["log", "dump", missing.to_str().unwrap()]);
    assert!(
        code == Some(1) && error.contains("00000000000000000000.log"),
        "{error}"
    );
    assert!(!missing.exists());
    let mut process = Process::start(dir.path(), &[]);
    let mut client = Client::connect(process.address());
    client.create("t");
    for _ in 0..5 {
        client.produce("t", batch(500));
    }
    // Beside a running broker, on files that nobody may write to.
    let partition = dir.path().join("t-0");
    let modified = || {
        let mut files: Vec<_> = std::fs::read_dir(&partition)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (
                    entry.file_name(),
                    entry.metadata().unwrap().modified().unwrap(),
                )
            })
            .collect();
        files.sort();
        files
    };
    let before = modified();
    let (code, out, said) = metaq(&["log", "verify", partition.to_str().unwrap()]);
    assert!(code == Some(0) && out.contains("2500 records"), "{out}");
    assert!(said.contains("A broker uses"), "{said}");
    assert_eq!(modified(), before);
    process.signal("-TERM");
}

#[test]
fn mistakes_are_named() {
    let (code, _, error) = metaq(&["start", "--set", "serverPortt=1"]);
    assert!(code == Some(1) && error.contains("serverPort?"), "{error}");
    let (code, _, error) = metaq(&["start", "-c", "/no/such/file.ini"]);
    assert!(
        code == Some(1) && error.contains("/no/such/file.ini"),
        "{error}"
    );
    let (code, _, error) = metaq(&["topic", "list", "-b", "127.0.0.1:1"]);
    assert!(
        code == Some(1) && error.contains("cannot reach a broker at 127.0.0.1:1"),
        "{error}"
    );
}
