//! Compacted topics of a running broker: what a reader from the start sees, through restarts and kills; tombstones; what an
//! operator sees of it.

mod common;
#[path = "common/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use common::{Client, Running, fetch_request, name, now_ms, wait_for};
use metaq_protocol::batch::{BatchBuilder, Batches};
use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::{CreateTopicsRequest, IncrementalAlterConfigsRequest};
use metaq_protocol::protocol::StrBytes;
use metaq_protocol::records::Records;
use process::{Process, metaq};

/// It is looked often for something to compact.
const SETTINGS: &[&str] = &[
    "log.cleaner.backoff.ms=50",
    "log.segment.delete.delay.ms=50",
    "log.flush.offset.checkpoint.interval.ms=100",
    "log.retention.check.interval.ms=100",
];
const KEYS: usize = 50;
const VALUE_BYTES: usize = 4096;

/// The value of each key, none for a deleted one.
type Values = BTreeMap<String, Option<String>>;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn create(client: &mut Client, topic: &str, configs: &[(&str, &str)]) {
    let config = |(key, value): &(&str, &str)| {
        CreatableTopicConfig::default()
            .with_name(text(key))
            .with_value(Some(text(value)))
    };
    let mut all = vec![("segment.bytes", "1048576")];
    all.extend(configs);
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(all.iter().map(config).collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    assert_eq!(client.ask(5, &request).topics[0].error_code, 0);
}

/// A topic with what was written to it.
struct Keyed {
    topic: &'static str,
    written: Values,
    count: usize,
}

impl Keyed {
    fn new(topic: &'static str) -> Self {
        Self {
            topic,
            written: Values::new(),
            count: 0,
        }
    }

    /// Writes values of all keys in turn, several in a batch; every seventh one deletes.
    fn write(&mut self, client: &mut Client, batches: usize) {
        for _ in 0..batches {
            let mut builder = BatchBuilder::new();
            for _ in 0..10 {
                let key = format!("key {}", self.count % KEYS);
                let value = match self.count % 7 {
                    0 => None,
                    _ => Some(format!("{:0VALUE_BYTES$}", self.count)),
                };
                builder = builder.push(
                    Some(key.as_bytes()),
                    value.as_ref().map(String::as_bytes),
                    &[],
                    now_ms(),
                );
                self.written.insert(key, value);
                self.count += 1;
            }
            self.produce(client, builder.finish().unwrap());
        }
    }

    fn produce(&self, client: &mut Client, batch: Bytes) {
        assert_eq!(client.produce(self.topic, batch).0, 0);
    }

    /// Writes so much that what was written before is in sealed segments.
    fn roll(&mut self, client: &mut Client) {
        self.write(client, 30);
    }

    fn live(&self) -> Values {
        let values = self.written.iter().filter(|(_, value)| value.is_some());
        values.map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

/// Everything in a topic: how many records, how many of them tombstones, and what a reader from the start ends up with.
fn read(client: &mut Client, topic: &str) -> (usize, usize, Values) {
    let (mut records, mut tombstones, mut values) = (0, 0, Values::new());
    let mut offset = 0;
    loop {
        let answer = client.ask(11, &fetch_request(topic, offset, 0));
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let found = partition.records.clone().unwrap_or_default();
        let mut next = offset;
        for (header, batch) in Batches::new(&found).map_while(Result::ok) {
            next = header.last_offset() + 1;
            for record in Records::new(&header, &batch[61..]) {
                let record = record.unwrap();
                let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let (key, value) = (string(record.key.unwrap()), record.value.map(string));
                tombstones += usize::from(value.is_none());
                records += 1;
                match value {
                    Some(value) => values.insert(key, Some(value)),
                    None => values.remove(&key),
                };
            }
        }
        if next == offset {
            return (records, tombstones, values);
        }
        offset = next;
    }
}

fn cleaned_until(data: &Path, topic: &str) -> i64 {
    let path = data.join("cleaner-offset-checkpoint");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let row = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{topic} 0 ")));
    row.map_or(0, |offset| offset.parse().unwrap())
}

fn metric(page: &str, name: &str) -> f64 {
    let mut lines = page.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(found, _)| *found == name);
    found
        .unwrap_or_else(|| panic!("no {name}"))
        .1
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn a_reader_from_the_start_sees_the_last_value_of_every_key_and_an_operator_how_it_went() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    create(&mut client, "t", &[("cleanup.policy", "compact")]);
    let mut keyed = Keyed::new("t");
    keyed.write(&mut client, 150);
    keyed.roll(&mut client);
    wait_for("compaction", || cleaned_until(dir.path(), "t") >= 1500);
    let (records, _, values) = read(&mut client, "t");
    assert_eq!(values, keyed.live());
    assert!(records < keyed.count / 2, "{records} of {}", keyed.count);
    let page = broker.page("/metrics");
    assert!(metric(&page, "metaq_cleaner_passes_total") >= 1.0);
    assert!(metric(&page, "metaq_cleaner_dropped_bytes_total") > 1e6);
    assert_eq!(metric(&page, "metaq_cleaner_uncleanable_partitions"), 0.0);
    assert!(broker.page("/topics/t").contains("The last pass ended"));
    assert!(
        broker
            .page("/events?kind=compaction")
            .contains("compacted up to")
    );
    wait_for("the old files to go", || {
        let names = std::fs::read_dir(dir.path().join("t-0")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        !names.any(|name| name.ends_with(".deleted"))
    });
    // And it goes on over a restart.
    let until = cleaned_until(dir.path(), "t");
    broker.stop();
    assert_eq!(cleaned_until(dir.path(), "t"), until);
    let path = dir.path().display().to_string();
    let (code, out, _) = metaq(&["log", "verify", &path]);
    assert_eq!(code, Some(0), "{out}");
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    assert_eq!(read(&mut client, "t").2, keyed.live());
    keyed.write(&mut client, 100);
    wait_for("another pass", || cleaned_until(dir.path(), "t") > until);
    assert_eq!(read(&mut client, "t").2, keyed.live());
    broker.stop();
}

#[test]
fn kills_lose_no_value_of_a_compacted_topic() {
    let dir = tempfile::tempdir().unwrap();
    let mut keyed = Keyed::new("t");
    for round in 0..8 {
        let mut process = Process::start(dir.path(), SETTINGS);
        let mut client = process.client();
        if round == 0 {
            let configs = [
                ("cleanup.policy", "compact"),
                ("min.cleanable.dirty.ratio", "0.01"),
            ];
            create(&mut client, "t", &configs);
        }
        assert_eq!(read(&mut client, "t").2, keyed.live(), "round {round}");
        // Passes go on while it is written and killed.
        keyed.write(&mut client, 60 + round * 3);
        process.signal("-KILL");
    }
    let process = Process::start(dir.path(), SETTINGS);
    let mut client = process.client();
    let (_, _, values) = read(&mut client, "t");
    assert_eq!(values, keyed.live());
    // Perhaps none came to its end before.
    wait_for("a pass", || cleaned_until(dir.path(), "t") > 0);
    assert_eq!(read(&mut client, "t").2, keyed.live());
    drop(process);
    let path = dir.path().display().to_string();
    let (code, out, _) = metaq(&["log", "verify", &path]);
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn tombstones_stay_for_their_time_and_go_then_without_anything_new() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    let configs = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "3000"),
    ];
    create(&mut client, "t", &configs);
    let mut keyed = Keyed::new("t");
    keyed.write(&mut client, 100);
    // What is compacted ends with all keys deleted.
    let mut builder = BatchBuilder::new();
    for key in keyed.written.keys() {
        builder = builder.push(Some(key.as_bytes()), None, &[], now_ms());
    }
    keyed.produce(&mut client, builder.finish().unwrap());
    let deleted = keyed.count as i64 + KEYS as i64;
    let filler = |client: &mut Client| {
        for n in 0..30 {
            let value = vec![b'v'; 50_000];
            let builder =
                BatchBuilder::new().push(Some(b"filler"), Some(&value), &[], now_ms() + n);
            assert_eq!(client.produce("t", builder.finish().unwrap()).0, 0);
        }
    };
    filler(&mut client);
    wait_for("compaction", || cleaned_until(dir.path(), "t") >= deleted);
    let compacted = std::time::Instant::now();
    let (_, tombstones, values) = read(&mut client, "t");
    assert!(
        tombstones >= KEYS,
        "a slow reader hears that they are deleted"
    );
    assert_eq!(values.len(), 1);
    wait_for("the tombstones to go", || read(&mut client, "t").1 == 0);
    assert!(compacted.elapsed().as_millis() > 1500);
    broker.stop();
}

#[test]
fn a_policy_that_is_set_later_compacts_what_is_there_and_one_that_is_taken_back_lets_it_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    create(&mut client, "t", &[]);
    let mut keyed = Keyed::new("t");
    keyed.write(&mut client, 100);
    let set = |client: &mut Client, policy: &str| {
        let config = AlterableConfig::default()
            .with_name(text("cleanup.policy"))
            .with_value(Some(text(policy)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(client.ask(1, &request).responses[0].error_code, 0);
    };
    set(&mut client, "compact,delete");
    wait_for("compaction", || cleaned_until(dir.path(), "t") > 0);
    set(&mut client, "delete");
    assert_eq!(read(&mut client, "t").2, keyed.live());
    broker.stop();
    // Gaps are no damage, whatever the policy is by now.
    let broker = Running::start(dir.path(), SETTINGS);
    assert_eq!(read(&mut broker.client(), "t").2, keyed.live());
    broker.stop();
}

#[test]
fn a_topic_that_is_made_again_has_nothing_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    create(&mut client, "t", &[("cleanup.policy", "compact")]);
    let mut keyed = Keyed::new("t");
    keyed.write(&mut client, 100);
    wait_for("compaction", || cleaned_until(dir.path(), "t") > 0);
    let (code, out, error) = metaq(&["topic", "delete", "t", "-b", &broker.address().to_string()]);
    assert_eq!(code, Some(0), "{out} {error}");
    create(&mut client, "t", &[("cleanup.policy", "compact")]);
    assert_eq!(cleaned_until(dir.path(), "t"), 0);
    let mut anew = Keyed::new("t");
    anew.write(&mut client, 10);
    assert_eq!(read(&mut client, "t").2, anew.live());
    broker.stop();
    assert_eq!(cleaned_until(dir.path(), "t"), 0);
}
