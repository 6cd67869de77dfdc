//! Configurations that change while the broker runs: by clients, by its file, and over restarts; retention by schedule,
//! the archive, closed partitions, and partitions that move.

mod common;
#[path = "common/process.rs"]
mod process;

use std::path::Path;

use common::{Client, batch, name, wait_for};
use metaq_protocol::messages::alter_configs_request::AlterConfigsResource;
use metaq_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::incremental_alter_configs_request as incremental;
use metaq_protocol::messages::{
    AlterConfigsRequest, AlterReplicaLogDirsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};
use metaq_protocol::protocol::StrBytes;
use process::{Process, metaq};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

const INVALID_REQUEST: i16 = 42;
const INVALID_CONFIG: i16 = 40;
const POLICY_VIOLATION: i16 = 44;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Changes one configuration; error code and message.
fn change(
    client: &mut Client,
    kind: i8,
    of: &str,
    key: &str,
    operation: i8,
    value: &str,
) -> (i16, String) {
    let config = incremental::AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(operation)
        .with_value((operation != DELETE).then(|| text(value)));
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(of))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.ask(1, &request).responses.remove(0);
    let message = response.error_message.map(|message| message.to_string());
    (response.error_code, message.unwrap_or_default())
}

fn set(client: &mut Client, kind: i8, of: &str, key: &str, value: &str) {
    assert_eq!(
        change(client, kind, of, key, SET, value),
        (0, String::new())
    );
}

/// Value, source, and the sources of all levels.
fn described(client: &mut Client, kind: i8, of: &str, key: &str) -> Option<(String, i8, Vec<i8>)> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(of))
        .with_configuration_keys(Some(vec![text(key)]));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let result = client.ask(4, &request).results.remove(0);
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let config = result.configs.into_iter().next()?;
    let levels = config.synonyms.iter().map(|synonym| synonym.source);
    let value = config
        .value
        .map_or(String::new(), |value| value.to_string());
    Some((value, config.config_source, levels.collect()))
}

fn value(client: &mut Client, kind: i8, of: &str, key: &str) -> (String, i8) {
    let (value, source, _) = described(client, kind, of, key).unwrap();
    (value, source)
}

fn is(value: &str, source: i8) -> (String, i8) {
    (value.to_owned(), source)
}

fn resources(client: &mut Client, kind: i8) -> Vec<String> {
    let request = ListConfigResourcesRequest::default().with_resource_types(vec![kind]);
    let found = client.ask(1, &request).config_resources;
    found
        .into_iter()
        .map(|found| found.resource_name.to_string())
        .collect()
}

#[test]
fn a_brokers_settings_change_at_run_time_and_outlive_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["message.max.bytes=2000"];
    let mut process = Process::start(dir.path(), &settings);
    let mut client = process.client();
    client.create("t");
    assert_eq!(
        client.produce("t", batch(200)).0,
        10,
        "too large by the command line"
    );
    set(&mut client, BROKER, "", "message.max.bytes", "6000000");
    assert_eq!(client.produce("t", batch(200)).0, 0);
    set(&mut client, BROKER, "0", "message.max.bytes", "100");
    assert_eq!(client.produce("t", batch(200)).0, 10);
    set(&mut client, BROKER, "", "log.retention.ms", "77");
    assert_eq!(process.signal("-KILL").code(), None);

    let process = Process::start(dir.path(), &settings);
    let mut client = process.client();
    assert_eq!(client.produce("t", batch(200)).0, 10);
    let of_topic = described(&mut client, TOPIC, "t", "max.message.bytes").unwrap();
    assert_eq!(of_topic, ("100".to_owned(), 2, vec![2, 3, 4, 5]));
    assert_eq!(
        value(&mut client, BROKER, "0", "message.max.bytes"),
        is("100", 2)
    );
    assert_eq!(
        value(&mut client, BROKER, "", "message.max.bytes"),
        is("6000000", 3)
    );
    assert_eq!(value(&mut client, TOPIC, "t", "retention.ms"), is("77", 3));
    assert_eq!(
        change(&mut client, BROKER, "0", "message.max.bytes", DELETE, "").0,
        0
    );
    assert_eq!(
        value(&mut client, BROKER, "0", "message.max.bytes"),
        is("6000000", 3)
    );
    assert_eq!(client.produce("t", batch(200)).0, 0);
    assert_eq!(
        change(&mut client, BROKER, "", "message.max.bytes", DELETE, "").0,
        0
    );
    assert_eq!(
        value(&mut client, BROKER, "0", "message.max.bytes"),
        is("2000", 4)
    );
}

#[test]
fn what_a_broker_does_not_know_it_keeps_and_hides_as_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    let of = |client: &mut Client, broker: &str| described(client, BROKER, broker, "plugin.of");
    set(&mut client, BROKER, "", "plugin.of", "all");
    let hidden = String::new();
    assert_eq!(of(&mut client, ""), Some((hidden.clone(), 3, vec![3])));
    assert_eq!(of(&mut client, "0"), Some((hidden.clone(), 3, vec![3])));
    set(&mut client, BROKER, "0", "plugin.of", "one");
    assert_eq!(of(&mut client, "0"), Some((hidden.clone(), 2, vec![2, 3])));
    // What is known is in force beside it, after a restart too.
    set(&mut client, BROKER, "0", "max.connections", "77");
    drop(client);
    assert_eq!(process.signal("-KILL").code(), None);
    let process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    assert_eq!(of(&mut client, "0"), Some((hidden, 2, vec![2, 3])));
    assert_eq!(
        value(&mut client, BROKER, "0", "max.connections"),
        is("77", 2)
    );
    let listed = change(&mut client, BROKER, "0", "plugin.of", APPEND, "more");
    let why = "Can't APPEND to key plugin.of because its type is not LIST.";
    assert_eq!(listed, (INVALID_CONFIG, why.to_owned()));
    for broker in ["0", ""] {
        assert_eq!(
            change(&mut client, BROKER, broker, "plugin.of", DELETE, "").0,
            0
        );
    }
    assert_eq!(of(&mut client, "0"), None);
    // Not without end.
    for n in 0..20 {
        set(&mut client, BROKER, "0", &format!("plugin.{n}"), "x");
    }
    let full = change(&mut client, BROKER, "0", "plugin.20", SET, "x");
    assert_eq!(full.0, INVALID_REQUEST);
    assert!(full.1.contains("at most 20"), "{full:?}");
}

#[test]
fn what_does_not_change_at_run_time_is_refused_as_by_kafka_and_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    let mut refused =
        |kind, of: &str, key: &str, value: &str| change(&mut client, kind, of, key, SET, value);
    let fixed = refused(BROKER, "0", "log.dirs", "/elsewhere");
    assert_eq!(
        fixed,
        (
            INVALID_REQUEST,
            "Cannot update these configs dynamically: Set(log.dirs)".to_owned()
        )
    );
    let long = "x".repeat(300);
    assert_eq!(refused(BROKER, "", &long, "5").0, INVALID_REQUEST);
    assert_eq!(
        refused(BROKER, "0", "max.connections", "many").0,
        INVALID_REQUEST
    );
    assert_eq!(
        refused(BROKER, "zero", "max.connections", "5").0,
        INVALID_REQUEST
    );
    assert_eq!(
        refused(GROUP, "g", "consumer.session.timeout.ms", "1").0,
        INVALID_CONFIG
    );
    assert_eq!(
        refused(GROUP, "", "consumer.session.timeout.ms", "50000").0,
        INVALID_REQUEST
    );
    assert_eq!(
        refused(CLIENT_METRICS, "m", "interval.ms", "99").0,
        INVALID_REQUEST
    );
    assert_eq!(
        refused(CLIENT_METRICS, "m", "match", "client_id=([").0,
        INVALID_CONFIG
    );
    assert_eq!(
        refused(BROKER_LOGGER, "0", "metaq::nothing", "INFO").0,
        INVALID_CONFIG
    );
    assert_eq!(
        refused(BROKER_LOGGER, "1", "metaq::net", "INFO").0,
        INVALID_REQUEST
    );
    assert_eq!(refused(77, "x", "y", "z").0, INVALID_REQUEST);
    let large = "x".repeat(40_000);
    assert_eq!(
        refused(CLIENT_METRICS, "m", "metrics", &large).0,
        INVALID_REQUEST
    );
    for kind in [GROUP, CLIENT_METRICS] {
        assert!(resources(&mut client, kind).is_empty());
    }
    assert_eq!(
        value(&mut client, BROKER, "0", "max.connections"),
        is("20000", 5)
    );
}

#[test]
fn groups_and_client_metrics_have_settings_that_are_listed_told_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    set(
        &mut client,
        GROUP,
        "readers",
        "consumer.session.timeout.ms",
        "50000",
    );
    set(&mut client, CLIENT_METRICS, "all", "metrics", "*");
    set(&mut client, CLIENT_METRICS, "all", "match", "client_id=a.*");
    let appended = change(
        &mut client,
        CLIENT_METRICS,
        "all",
        "match",
        APPEND,
        "client_software_name=x",
    );
    assert_eq!(appended.0, 0);
    process.signal("-TERM");
    let process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    assert_eq!(resources(&mut client, GROUP), ["readers"]);
    assert_eq!(resources(&mut client, CLIENT_METRICS), ["all"]);
    let session = value(&mut client, GROUP, "readers", "consumer.session.timeout.ms");
    assert_eq!(session, is("50000", 8));
    assert_eq!(
        value(&mut client, GROUP, "others", "consumer.session.timeout.ms"),
        is("45000", 5)
    );
    let matches = value(&mut client, CLIENT_METRICS, "all", "match");
    assert_eq!(matches, is("client_id=a.*,client_software_name=x", 7));
    assert_eq!(
        value(&mut client, CLIENT_METRICS, "all", "interval.ms"),
        is("300000", 5)
    );
    assert_eq!(
        value(&mut client, CLIENT_METRICS, "none", "interval.ms"),
        is("300000", 5)
    );
    // AlterConfigs without any takes all away.
    let resource = AlterConfigsResource::default()
        .with_resource_type(CLIENT_METRICS)
        .with_resource_name(text("all"));
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.ask(2, &request).responses[0].error_code, 0);
    assert!(resources(&mut client, CLIENT_METRICS).is_empty());
}

#[test]
fn fewer_connections_are_taken_as_soon_as_it_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    set(&mut client, BROKER, "0", "max.connections", "1");
    assert!(process.client().is_closed());
    set(&mut client, BROKER, "0", "max.connections", "2");
    process.client().create("t");
}

fn ini(path: &Path, data: &Path, more: &str) {
    let text = format!(
        "[system]\nserverPort=0\ndashboardHttpPort=0\nhostName=127.0.0.1\ndataPath={}\n{more}",
        data.display()
    );
    std::fs::write(path, text).unwrap();
}

fn start_with(file: &Path) -> Process {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"));
    command
        .args(["start", "-c"])
        .arg(file)
        .stderr(std::process::Stdio::null());
    Process::spawn(&mut command)
}

#[test]
fn a_reload_puts_the_file_in_force_and_a_wrong_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.ini");
    let data = dir.path().join("data");
    ini(&file, &data, "message.max.bytes=2000\n");
    let process = start_with(&file);
    let mut client = process.client();
    client.create("t");
    assert_eq!(client.produce("t", batch(200)).0, 10);
    let more = "message.max.bytes=1000000\nnum.sync.threads=3\n[topic=made]\nnumPartitions=2\n";
    ini(&file, &data, more);
    let config = file.to_str().unwrap();
    let (code, out, error) = metaq(&["config", "reload", "-c", config]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(
        out.contains("message.max.bytes: 2000 -> 1000000, in force now"),
        "{out}"
    );
    assert!(
        out.contains("num.sync.threads: 8 -> 3, in force after a restart"),
        "{out}"
    );
    assert_eq!(client.produce("t", batch(200)).0, 0);
    let (_, topics, _) = metaq(&["topic", "list", "-b", &process.address().to_string()]);
    assert!(topics.contains("made"), "{topics}");

    ini(&file, &data, "message.max.bytes=1\nnonsense=1\n");
    let (code, _, error) = metaq(&["config", "reload", "-c", config]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("line 7") && error.contains("nonsense"),
        "{error}"
    );
    assert_eq!(client.produce("t", batch(200)).0, 0);

    // SIGHUP does the same.
    ini(&file, &data, "message.max.bytes=200\n");
    process.send_signal("-HUP");
    wait_for("the smaller limit", || {
        client.produce("t", batch(200)).0 == 10
    });
}

#[test]
fn a_check_tells_everything_that_is_wrong_and_what_has_no_effect() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.ini");
    let wrong = "severPort=1\nserverPort=1\nport=2\nnum.io.threads=8\nssl.key.password=x\nadvertised.listeners=PLAINTEXT://0.0.0.0:1\n[topic=a]\nretention.ms=never\ndataPath=b\n[group=g]\nconsumer.session.timeout.ms=50000\n";
    ini(&file, dir.path(), wrong);
    let path = file.to_str().unwrap();
    let (code, out, _) = metaq(&["config", "check", path]);
    assert_eq!(code, Some(1));
    for told in [
        "line 6: unknown key severPort; did you mean serverPort?",
        "line 7: serverPort is set already in line 2",
        "line 8: port=2 and serverPort=0 set the same thing to different values",
        "line 10: ssl.key.password is not served: ",
        "line 13: retention.ms=never: not an integer",
        "warning: ",
        "line 9: num.io.threads has no effect",
        "advertised.listeners cannot use the nonroutable meta-address",
        "line 14: dataPath in [topic=a] has no effect",
    ] {
        assert!(out.contains(told), "{told:?} in {out}");
    }
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/server.ini");
    assert_eq!(metaq(&["config", "check", shipped]).0, Some(0));
    let (code, out, _) = metaq(&["config", "check", shipped, "--json"]);
    assert!(code == Some(0) && out.contains("\"errors\": []"), "{out}");
    let (_, out, _) = metaq(&["config", "show", "-c", shipped, "--own"]);
    assert!(out.contains("port") && out.contains("line 1"), "{out}");
}

#[test]
fn levels_of_loggers_change_at_run_time_and_requests_are_logged_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log/metaq.log");
    let data = dir.path().join("data");
    let to = format!("log.file={}", log.display());
    let process = Process::start(&data, &[&to, "log.format=json", "log.level=warn"]);
    let mut client = process.client();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    assert_eq!(
        value(&mut client, BROKER_LOGGER, "0", "metaq::net"),
        is("WARN", 6)
    );
    set(&mut client, BROKER_LOGGER, "0", "metaq", "INFO");
    assert_eq!(
        value(&mut client, BROKER_LOGGER, "0", "metaq::net"),
        is("INFO", 6)
    );
    let at = process.address().to_string();
    let (code, out, _) = metaq(&["loggers", "set", "metaq::net", "debug", "-b", &at]);
    assert_eq!(code, Some(0), "{out}");
    let (_, out, _) = metaq(&["loggers", "list", "-b", &at]);
    let line = |logger: &str| {
        out.lines()
            .find(|line| line.contains(logger))
            .unwrap()
            .to_owned()
    };
    assert!(
        line("metaq::net").contains("DEBUG") && line("root").contains("WARN"),
        "{out}"
    );
    assert_eq!(
        change(&mut client, BROKER_LOGGER, "0", "metaq::net", DELETE, "").0,
        0
    );
    assert_eq!(
        value(&mut client, BROKER_LOGGER, "0", "metaq::net"),
        is("INFO", 6)
    );
    assert_eq!(
        change(&mut client, BROKER_LOGGER, "0", "root", DELETE, "").0,
        INVALID_REQUEST
    );

    client.create("seen");
    client.create("unseen");
    let set = format!("dataPath={}", data.display());
    let words = [
        "loggers", "requests", "--topic", "seen", "--for", "30", "--set", &set,
    ];
    let (code, out, error) = metaq(&words);
    assert_eq!(code, Some(0), "{out}{error}");
    assert_eq!(client.produce("unseen", batch(1)).0, 0);
    assert_eq!(client.produce("seen", batch(1)).0, 0);
    wait_for("a line of the log of requests", || {
        text().contains("\"Produce\"")
    });
    let lines = text()
        .lines()
        .filter(|line| line.contains("metaq::requests"))
        .count();
    // A name that is within another one's is found there too.
    assert!((1..=2).contains(&lines), "{}", text());
    assert_eq!(
        metaq(&["loggers", "requests", "--off", "--set", &set]).0,
        Some(0)
    );
    let (code, _, error) = metaq(&[
        "loggers", "requests", "--topic", "t", "--for", "7200", "--set", &set,
    ]);
    assert!(code == Some(1) && error.contains("3600"), "{error}");
    assert!(
        text()
            .lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
}

#[test]
fn a_closed_partition_takes_no_messages_and_gives_what_it_has_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    client.create("t");
    assert_eq!(client.produce("t", batch(3)).0, 0);
    let at = process.address().to_string();
    let words = [
        "partition",
        "close",
        "--topic",
        "t",
        "--home",
        "0",
        "--start",
        "0",
        "-b",
        &at,
    ];
    assert_eq!(metaq(&words).0, Some(0));
    assert_eq!(client.produce("t", batch(3)).0, POLICY_VIOLATION);
    process.signal("-KILL");
    let process = Process::start(dir.path(), &[]);
    let mut client = process.client();
    assert_eq!(client.produce("t", batch(3)).0, POLICY_VIOLATION);
    assert_eq!(client.fetch("t", 0), [(0, 3)]);
    let at = process.address().to_string();
    let run = |verb: &str| metaq(&["partition", verb, "--topic", "t", "--start", "0", "-b", &at]);
    assert_eq!(run("delete").0, Some(0));
    assert_eq!(run("open").0, Some(0));
    assert!(run("delete").2.contains("close them first"));
    assert_eq!(client.produce("t", batch(1)), (0, 3));
    let (code, _, error) = metaq(&[
        "partition",
        "close",
        "--topic",
        "t",
        "--start",
        "1",
        "-b",
        &at,
    ]);
    assert!(
        code == Some(1) && error.contains("has no partition 1"),
        "{error}"
    );
}

#[test]
fn what_is_old_goes_at_its_time_and_into_the_archive_first() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let file = dir.path().join("server.ini");
    let more = format!(
        "archivePath={}\nlog.retention.check.interval.ms=3600000\n[topic=old]\ndeletePolicy=archive,0s\ndeleteWhen=* * * * * ?\nfile.delete.delay.ms=0\n",
        archive.display()
    );
    let data = dir.path().join("data");
    ini(&file, &data, &more);
    let process = start_with(&file);
    let mut client = process.client();
    client.create("old");
    assert_eq!(client.produce("old", batch(5)).0, 0);
    let archived = || {
        let dirs = std::fs::read_dir(&archive).into_iter().flatten().flatten();
        let file = |dir: std::fs::DirEntry| dir.path().join("00000000000000000000.log");
        dirs.map(file).find(|file| file.exists())
    };
    wait_for("the archive", || archived().is_some());
    let log = data.join("old-0/00000000000000000000.log");
    wait_for("the deletion", || !log.exists());
    let (code, out, _) = metaq(&[
        "log",
        "dump",
        archived().unwrap().to_str().unwrap(),
        "--records",
    ]);
    assert!(code == Some(0) && out.contains("value 4"), "{out}");
    assert_eq!(client.produce("old", batch(1)), (0, 5));
}

/// Where a partition's directory is.
fn place(dirs: [&Path; 2]) -> Option<usize> {
    dirs.iter().position(|dir| dir.join("t-0").exists())
}

fn begin_move(client: &mut Client, to: &Path) -> i16 {
    let topic = AlterReplicaLogDirTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![0]);
    let dir = AlterReplicaLogDir::default()
        .with_path(text(to.to_str().unwrap()))
        .with_topics(vec![topic]);
    let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
    client.ask(2, &request).results[0].partitions[0].error_code
}

#[test]
fn a_partition_moves_to_another_directory_under_load_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let both = format!("dataPath={},{}", a.display(), b.display());
    let settings = [
        both.as_str(),
        "log.segment.bytes=1048576",
        "flush.messages=1",
    ];
    let settings: Vec<&str> = settings[..2]
        .iter()
        .copied()
        .chain(["unflushThreshold=1"])
        .collect();
    let mut process = start_on(&settings);
    let mut client = process.client();
    client.create("t");
    let first = place([&a, &b]).unwrap();
    let places = [&a, &b];
    assert_eq!(
        begin_move(&mut client, dir.path()),
        57,
        "not a data directory"
    );
    let address = process.address();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ends = stop.clone();
    // A producer that asks again what was refused, as clients do.
    let producer = std::thread::spawn(move || {
        let mut client = Client::connect(address);
        let (mut stored, mut refused) = (0, 0);
        while !ends.load(std::sync::atomic::Ordering::Relaxed) || stored == 0 {
            match client.produce("t", batch(100)) {
                (0, offset) => {
                    assert_eq!(offset, stored * 100);
                    stored += 1;
                }
                (6, _) => refused += 1,
                (code, _) => panic!("error {code}"),
            }
        }
        (stored, refused)
    });
    for turn in 1..=4 {
        let to = places[(first + turn) % 2];
        assert_eq!(begin_move(&mut client, to), 0);
        wait_for("the move", || place([&a, &b]) == Some((first + turn) % 2));
        // The old one is out of the way, and the new one answers.
        wait_for("the switch", || {
            client.produce("absent", batch(1)).0 == 3 && !to.join("t-0/metaq-moved").exists()
        });
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (stored, _) = producer.join().unwrap();
    let all = |client: &mut Client| {
        let mut next = 0;
        while next < stored * 100 {
            for (offset, records) in client.fetch("t", next) {
                assert_eq!((offset, records), (next, 100));
                next += 100;
            }
        }
    };
    all(&mut client);
    process.signal("-KILL");
    let mut process = start_on(&settings);
    let mut client = process.client();
    all(&mut client);
    assert_eq!(client.produce("t", batch(100)), (0, stored * 100));
    process.signal("-TERM");
    for dir in places {
        let (code, out, _) = metaq(&["log", "verify", dir.to_str().unwrap()]);
        assert!(code == Some(0) && out.contains("0 findings"), "{out}");
    }
}

#[test]
fn a_kill_amid_a_move_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let both = format!("dataPath={},{}", a.display(), b.display());
    let mut stored = 0;
    for round in 0..8 {
        let mut process = start_on(&[&both, "log.segment.bytes=1048576"]);
        let mut client = process.client();
        client.create("t");
        for _ in 0..40 {
            assert_eq!(client.produce("t", batch(500)), (0, stored));
            stored += 500;
        }
        let at = place([&a, &b]).unwrap();
        assert_eq!(begin_move(&mut client, [&b, &a][at]), 0);
        // From before the first byte is copied to behind the switch.
        std::thread::sleep(std::time::Duration::from_millis(round * 4));
        process.signal("-KILL");
        let mut process = start_on(&[&both, "log.segment.bytes=1048576"]);
        let mut client = process.client();
        let mut next = 0;
        while next < stored {
            let batches = client.fetch("t", next);
            assert!(!batches.is_empty(), "round {round}: {next} of {stored}");
            for (offset, records) in batches {
                assert_eq!(offset, next, "round {round}");
                next += i64::from(records);
            }
        }
        let there = [&a, &b]
            .iter()
            .filter(|dir| dir.join("t-0").exists())
            .count();
        assert_eq!(there, 1, "round {round}");
        process.signal("-TERM");
    }
}

/// A broker whose data directories are among the settings.
fn start_on(settings: &[&str]) -> Process {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"));
    command.arg("start").stderr(std::process::Stdio::null());
    let ports = ["serverPort=0", "dashboardHttpPort=0", "hostName=127.0.0.1"];
    for setting in ports.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    Process::spawn(&mut command)
}
