//! Dead letters of share groups (KIP-1191): what is rejected, or was given out too often, goes to a topic of its own.

mod common;
#[path = "common/share_members.rs"]
mod share_members;

use common::{Client, Running, batch, fetch_request, name, now_ms, wait_for};
use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, Batches};
use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::{CreateTopicsRequest, IncrementalAlterConfigsRequest};
use metaq_protocol::records::Records;
use share_members::{Member, offset, set, text};

const LETTERS: &str = "dlq.t";
/// Of a configuration resource that is a topic.
const TOPIC_RESOURCE: i8 = 2;
const SETTINGS: [&str; 2] = ["numPartitions=1", "group.share.assignment.interval.ms=0"];
const MADE: &str = "errors.deadletterqueue.auto.create.topics.enable=true";

/// A record of the dead-letter topic: key, value, and headers as `name=value`.
struct Letter {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<String>,
}

fn letters(client: &mut Client) -> Vec<Letter> {
    let answer = client.ask(11, &fetch_request(LETTERS, 0, 0));
    let partition = &answer.responses[0].partitions[0];
    let records = partition.records.clone().unwrap_or_default();
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    for (header, bytes) in Batches::new(&records).map_while(Result::ok) {
        for record in Records::new(&header, &bytes[BATCH_HEADER_BYTES..]) {
            let record = record.unwrap();
            let headers = record.headers().map(|(name, value)| {
                let value = string(value.unwrap_or_default());
                format!("{}={value}", string(name))
            });
            all.push(Letter {
                key: record.key.map(string),
                value: record.value.map(string),
                headers: headers.collect(),
            });
        }
    }
    all
}

fn create(client: &mut Client, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(name(LETTERS))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    assert_eq!(client.ask(5, &request).topics[0].error_code, 0);
}

fn start(dir: &tempfile::TempDir, settings: &[&str]) -> Running {
    let settings = [&SETTINGS, settings].concat();
    Running::start(dir.path(), &settings)
}

/// Topic `t`, whose group begins at its beginning and has a dead-letter topic.
fn prepare(client: &mut Client, more: &[(&str, &str)]) {
    client.create("t");
    let own = [
        ("share.auto.offset.reset", "earliest"),
        ("errors.deadletterqueue.topic.name", LETTERS),
    ];
    set(client, &[&own, more].concat());
}

#[test]
fn what_is_rejected_or_given_out_too_often_is_copied_with_where_from_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir, &[MADE]);
    let mut client = broker.client();
    let more = [
        ("errors.deadletterqueue.copy.record.enable", "true"),
        ("share.delivery.count.limit", "2"),
    ];
    prepare(&mut client, &more);
    let mut records = BatchBuilder::new();
    for n in 0..5 {
        let (key, value) = (format!("key {n}"), format!("value {n}"));
        let headers: [(&[u8], Option<&[u8]>); 1] = [(b"own", Some(b"header"))];
        records = records.push(
            Some(key.as_bytes()),
            Some(value.as_bytes()),
            &headers,
            now_ms(),
        );
    }
    client.produce("t", records.finish().unwrap());
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 4, 1)]);
    let said: [share_members::Says; 3] = [(0, 0, &[3]), (1, 1, &[2]), (2, 4, &[1])];
    assert_eq!(a.take(1000, &said), [(1, 1, 2)]);
    assert_eq!(a.acknowledge(2, &[(1, 1, &[2])]), (0, 0));
    wait_for("two dead letters", || letters(&mut client).len() == 2);
    let all = letters(&mut client);
    assert_eq!(all[0].key.as_deref(), Some("key 0"));
    assert_eq!(all[0].value.as_deref(), Some("value 0"));
    let expected = |offset, count, why| {
        vec![
            "__dlq.errors.topic=t".to_owned(),
            "__dlq.errors.partition=0".to_owned(),
            "__dlq.errors.group=g".to_owned(),
            format!("__dlq.errors.delivery.count={count}"),
            format!("__dlq.errors.message={why}"),
            format!("__dlq.errors.offset={offset}"),
            "own=header".to_owned(),
        ]
    };
    assert_eq!(all[0].headers, expected(0, 1, "Offset rejected by client."));
    let why = "Offset delivery count exceeded the threshold.";
    assert_eq!(all[1].headers, expected(1, 2, why));
    wait_for("all to be done", || offset(&mut client) == (5, 0));
    assert_eq!(a.take(100, &[]), []);
    broker.stop();
}

#[test]
fn a_record_that_cannot_be_copied_yet_is_not_done_and_a_restart_forgets_none() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(&dir, &[]);
    let mut client = first.client();
    prepare(&mut client, &[]);
    let closed = ("closed.partitions", "0");
    create(
        &mut client,
        &[("errors.deadletterqueue.group.enable", "true"), closed],
    );
    client.produce("t", batch(700));
    let mut a = Member::join(&first, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 699, 1)]);
    assert_eq!(
        a.acknowledge(1, &[(0, 599, &[3]), (600, 699, &[1])]),
        (0, 0)
    );
    assert_eq!(offset(&mut client).0, 0);
    assert_eq!(letters(&mut client).len(), 0);
    first.stop();
    let second = start(&dir, &[]);
    let mut client = second.client();
    let open = AlterableConfig::default()
        .with_name(text("closed.partitions"))
        .with_value(Some(text("")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(LETTERS))
        .with_configs(vec![open]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.ask(1, &request).responses[0].error_code, 0);
    let mut b = Member::join(&second, "b", "t");
    assert_eq!(b.take(300, &[]), []);
    wait_for("all dead letters", || letters(&mut client).len() >= 600);
    let all = letters(&mut client);
    // They say where they were, without what they were.
    assert!(all.iter().all(|letter| letter.value.is_none()));
    let last = all.last().unwrap().headers.last().unwrap();
    assert_eq!(last, "__dlq.errors.offset=599");
    wait_for("all to be done", || offset(&mut client) == (700, 0));
    second.stop();
}

/// Rejects all that there is, of which a topic with these configurations gets nothing; the group's member goes on.
fn all_is_done_and_none_copied(configs: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir, &[]);
    let mut client = broker.client();
    prepare(&mut client, &[]);
    create(&mut client, configs);
    client.produce("t", batch(10));
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    assert_eq!(a.acknowledge(1, &[(0, 9, &[3])]), (0, 0));
    wait_for("all to be done", || offset(&mut client) == (10, 0));
    assert_eq!(letters(&mut client).len(), 0);
    client.produce("t", batch(1));
    assert_eq!(a.take(1000, &[]), [(10, 10, 1)]);
    broker.stop();
}

#[test]
fn a_topic_that_takes_no_dead_letters_gets_none_and_the_group_goes_on() {
    all_is_done_and_none_copied(&[]);
}

/// Letters have no keys where records are not copied.
#[test]
fn a_topic_that_can_never_take_dead_letters_keeps_no_record_from_being_done() {
    all_is_done_and_none_copied(&[
        ("errors.deadletterqueue.group.enable", "true"),
        ("cleanup.policy", "compact"),
    ]);
}
