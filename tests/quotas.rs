//! Quotas of a running broker: kept, listed, and held (KIP-13, 124, 219, 546, 599, 612).

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, Running, batch, fetch_request, name, produce_request, wait_for};
use metaq_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::describe_client_quotas_request::ComponentData;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{
    AlterClientQuotasRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeClientQuotasRequest, FetchRequest, MetadataRequest, ProduceRequest,
};
use metaq_protocol::protocol::StrBytes;

const INVALID_REQUEST: i16 = 42;
const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
const ANYBODY: &[(&str, Option<&str>)] = &[("user", None)];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn entry(entity: &[(&str, Option<&str>)], ops: &[(&str, Option<f64>)]) -> EntryData {
    let named = |(kind, name): &(&str, Option<&str>)| {
        EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name.map(text))
    };
    let op = |(key, value): &(&str, Option<f64>)| {
        OpData::default()
            .with_key(text(key))
            .with_value(value.unwrap_or_default())
            .with_remove(value.is_none())
    };
    EntryData::default()
        .with_entity(entity.iter().map(named).collect())
        .with_ops(ops.iter().map(op).collect())
}

fn alter(client: &mut Client, entries: Vec<EntryData>, validate_only: bool) -> Vec<(i16, String)> {
    let request = AlterClientQuotasRequest::default()
        .with_entries(entries)
        .with_validate_only(validate_only);
    let answer = client.ask(1, &request);
    let outcome = |entry: &metaq_protocol::messages::alter_client_quotas_response::EntryData| {
        let why = entry.error_message.as_deref().unwrap_or_default();
        (entry.error_code, why.to_owned())
    };
    answer.entries.iter().map(outcome).collect()
}

fn set(client: &mut Client, entity: &[(&str, Option<&str>)], key: &str, value: f64) {
    let done = alter(client, vec![entry(entity, &[(key, Some(value))])], false);
    assert_eq!(done, [(0, String::new())]);
}

type Described = Vec<(Vec<(String, Option<String>)>, Vec<(String, f64)>)>;

fn describe(client: &mut Client, components: Vec<ComponentData>, strict: bool) -> Described {
    let request = DescribeClientQuotasRequest::default()
        .with_components(components)
        .with_strict(strict);
    let answer = client.ask(1, &request);
    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    let entries = answer.entries.unwrap().into_iter().map(|entry| {
        let entity = entry.entity.into_iter().map(|part| {
            let name = part.entity_name.map(|name| name.to_string());
            (part.entity_type.to_string(), name)
        });
        let values = entry.values.into_iter();
        let values = values.map(|value| (value.key.to_string(), value.value));
        (entity.collect(), values.collect())
    });
    entries.collect()
}

/// Waits until the broker holds a kind of quota, or none.
fn wait_until_held(broker: &Running, kind: metaq::quota::QuotaKind, is_held: bool) {
    let quotas = &broker.broker().context().quotas;
    wait_for("the quotas to be in force", || quotas.has(kind) == is_held);
}

#[test]
fn quotas_are_kept_listed_by_filter_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let both: &[(&str, Option<&str>)] = &[("client-id", None), ("user", Some("a/b"))];
    let entries = vec![
        entry(ANYBODY, &[("producer_byte_rate", Some(1024.0))]),
        entry(
            both,
            &[
                ("request_percentage", Some(12.5)),
                ("consumer_byte_rate", Some(7.0)),
            ],
        ),
        entry(
            &[("ip", Some("127.0.0.1"))],
            &[("connection_creation_rate", Some(100.0))],
        ),
        entry(
            &[("user", Some("u"))],
            &[("connection_creation_rate", Some(1.0))],
        ),
        entry(&[("user", Some("v"))], &[("producer_byte_rate", Some(0.0))]),
        entry(&[("ip", Some("no such host."))], &[]),
    ];
    let checked = alter(&mut client, entries.clone(), true);
    assert!(describe(&mut client, Vec::new(), false).is_empty());
    let done = alter(&mut client, entries, false);
    assert_eq!(done, checked);
    let codes: Vec<i16> = done.iter().map(|(code, _)| *code).collect();
    assert_eq!(
        codes,
        [0, 0, 0, INVALID_REQUEST, INVALID_REQUEST, INVALID_REQUEST]
    );
    assert_eq!(
        done[3].1,
        "Invalid configuration key connection_creation_rate"
    );
    assert_eq!(done[4].1, "Quota producer_byte_rate must be greater than 0");
    assert_eq!(
        done[5].1,
        "no such host. is not a valid IP or resolvable host."
    );
    let owned = |entity: &[(&str, Option<&str>)]| -> Vec<(String, Option<String>)> {
        let parts = entity.iter();
        parts
            .map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned)))
            .collect()
    };
    let expected = (
        owned(both),
        vec![
            ("consumer_byte_rate".to_owned(), 7.0),
            ("request_percentage".to_owned(), 12.5),
        ],
    );
    let user = ComponentData::default()
        .with_entity_type(text("user"))
        .with_match(Some(text("a/b")));
    let found = describe(&mut client, vec![user.clone()], false);
    assert_eq!(found, std::slice::from_ref(&expected));
    assert!(describe(&mut client, vec![user], true).is_empty());
    assert_eq!(describe(&mut client, Vec::new(), false).len(), 3);
    broker.stop();
    // They outlive the broker.
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    assert!(describe(&mut client, Vec::new(), false).contains(&expected));
    let gone = [("request_percentage", None), ("consumer_byte_rate", None)];
    assert_eq!(alter(&mut client, vec![entry(both, &gone)], false)[0].0, 0);
    assert_eq!(describe(&mut client, Vec::new(), false).len(), 2);
    let twice = vec![entry(both, &gone), entry(both, &gone)];
    let twice = alter(&mut client, twice, false);
    assert_eq!(twice.len(), 1);
    assert_eq!(
        twice[0].1,
        "Ignoring duplicate entity ClientQuotaEntity(entries={client-id=null, user=a/b})"
    );
    broker.stop();
}

#[test]
fn limits_that_are_none_are_refused_and_those_that_are_hardly_any_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let of = [("client-id", Some("throttled"))];
    let keys = [
        "producer_byte_rate",
        "consumer_byte_rate",
        "request_percentage",
        "controller_mutation_rate",
    ];
    for key in keys {
        for value in [f64::NAN, f64::NEG_INFINITY, -1.0, -0.0, 0.0] {
            let told = alter(&mut client, vec![entry(&of, &[(key, Some(value))])], false);
            assert_ne!(told[0].0, 0, "{key} {value}: {told:?}");
        }
        // By Kafka a rate of bytes is a whole number, and the others may be as large as they like.
        let endless = vec![entry(&of, &[(key, Some(f64::INFINITY))])];
        let told = alter(&mut client, endless, false);
        assert_eq!(
            told[0].0 != 0,
            key.ends_with("byte_rate"),
            "{key}: {told:?}"
        );
    }
    set(
        &mut client,
        &of,
        "controller_mutation_rate",
        f64::MIN_POSITIVE,
    );
    let mut throttled = broker.client();
    for n in 0..3 {
        let (_, throttle_ms) = create(&mut throttled, 5, &[format!("t-{n}")]);
        assert!((0..=i32::MAX).contains(&throttle_ms));
        // It is read no more for 25 days.
        throttled = broker.client();
    }
    client.create("witness");
    broker.stop();
}

/// Produces for some seconds as fast as it may; bytes a second, and the longest throttle.
fn produce_for(client: &mut Client, client_id: &str, seconds: u64, records: &Bytes) -> (f64, i32) {
    let began = Instant::now();
    let (mut bytes, mut longest) = (0, 0);
    let time = Duration::from_secs(seconds);
    while began.elapsed() < time {
        client.send_as(client_id, 9, &produce_request("t", records.clone(), 1));
        let (_, answer) = client.receive::<ProduceRequest>(9);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        bytes += records.len();
        longest = longest.max(answer.throttle_time_ms);
        // As a client of KIP-219 does.
        let throttle = Duration::from_millis(answer.throttle_time_ms as u64);
        let left = time.saturating_sub(began.elapsed());
        if throttle > left {
            std::thread::sleep(left);
            break;
        }
    }
    (bytes as f64 / began.elapsed().as_secs_f64(), longest)
}

#[test]
fn a_producer_gets_its_rate_within_five_percent_over_ten_seconds_and_slows_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let records = batch(100);
    let rate = records.len() as f64 * 50.0;
    set(
        &mut client,
        &[("client-id", Some("slow"))],
        "producer_byte_rate",
        rate,
    );
    wait_until_held(&broker, metaq::quota::QuotaKind::Produce, true);
    let (mut slow, mut other) = (broker.client(), broker.client());
    let (mine, its) = std::thread::scope(|scope| {
        let its = scope.spawn(|| produce_for(&mut other, "other", 10, &records));
        let mine = produce_for(&mut slow, "slow", 10, &records);
        (mine, its.join().unwrap())
    });
    let (got, longest) = mine;
    assert!((got - rate).abs() < rate * 0.05, "{got} of {rate}");
    assert!(longest > 0);
    assert_eq!(its.1, 0);
    assert!(its.0 > rate * 2.0, "{} of the other", its.0);
    let quotas = &broker.broker().context().quotas;
    let counts = {
        let _runtime = broker.enter();
        quotas.counts(tokio::time::Instant::now())
    };
    assert_eq!(counts.len(), 1);
    assert_eq!((&*counts[0].user, &*counts[0].client_id), ("", "slow"));
    assert!(counts[0].throttling.is_some());
    let none = entry(
        &[("client-id", Some("slow"))],
        &[("producer_byte_rate", None)],
    );
    assert_eq!(alter(&mut client, vec![none], false)[0].0, 0);
    wait_until_held(&broker, metaq::quota::QuotaKind::Produce, false);
    assert_eq!(produce_for(&mut broker.client(), "slow", 1, &records).1, 0);
    broker.stop();
}

#[test]
fn a_consumer_gets_its_rate_and_nothing_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let records = batch(100);
    for _ in 0..50 {
        client.produce("t", records.clone());
    }
    let rate = records.len() as f64 * 40.0;
    set(&mut client, ANYBODY, "consumer_byte_rate", rate);
    wait_until_held(&broker, metaq::quota::QuotaKind::Fetch, true);
    let mut consumer = broker.client();
    let began = Instant::now();
    let (mut bytes, mut empty) = (0, 0);
    while began.elapsed() < Duration::from_secs(10) {
        let answer = consumer.ask::<FetchRequest>(12, &fetch_request("t", 0, 100));
        let topics = answer.responses.iter();
        let partitions = topics.flat_map(|topic| &topic.partitions);
        let got: usize = partitions
            .map(|partition| partition.records.as_ref().map_or(0, Bytes::len))
            .sum();
        bytes += got;
        if answer.throttle_time_ms > 0 {
            assert_eq!((got, answer.error_code), (0, 0));
            empty += 1;
        }
    }
    let got = bytes as f64 / began.elapsed().as_secs_f64();
    assert!((got - rate).abs() < rate * 0.05, "{got} of {rate}");
    assert!(empty > 0);
    broker.stop();
}

fn create(client: &mut Client, version: i16, names: &[String]) -> (Vec<i16>, i32) {
    let topic = |topic: &String| {
        CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(10)
            .with_replication_factor(1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics(names.iter().map(topic).collect())
        .with_timeout_ms(10_000);
    let answer = client.ask(version, &request);
    let codes = answer.topics.iter().map(|topic| topic.error_code);
    (codes.collect(), answer.throttle_time_ms)
}

#[test]
fn partitions_beyond_the_rate_are_refused_to_new_clients_and_throttle_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    set(&mut client, ANYBODY, "controller_mutation_rate", 2.0);
    wait_until_held(&broker, metaq::quota::QuotaKind::ControllerMutation, true);
    let names =
        |from: usize, to: usize| -> Vec<String> { (from..to).map(|n| format!("t{n}")).collect() };
    // 22 tokens: the third topic is begun with two of them, and the fourth refused.
    let (codes, throttle) = create(&mut client, 7, &names(0, 4));
    assert_eq!(codes, [0, 0, 0, THROTTLING_QUOTA_EXCEEDED]);
    assert!((3000..=4000).contains(&throttle), "{throttle}");
    // Muted for that time, and then there is a token; what is refused for another reason costs none.
    let began = Instant::now();
    let (codes, _) = create(&mut client, 7, &names(0, 1));
    assert!(began.elapsed() >= Duration::from_millis(2500));
    assert_eq!(codes, [36]);
    let (codes, throttle) = create(&mut broker.client(), 5, &names(4, 6));
    assert_eq!(codes, [0, 0]);
    assert!(throttle >= 5000, "{throttle}");
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("t0")])
        .with_timeout_ms(10_000);
    let answer = broker.client().ask(5, &request);
    assert_eq!(answer.responses[0].error_code, THROTTLING_QUOTA_EXCEEDED);
    let why = answer.responses[0].error_message.as_deref();
    assert_eq!(why, Some("The throttling quota has been exceeded."));
    broker.stop();
}

#[test]
fn topics_that_are_made_in_passing_count_towards_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["auto.create.topics.enable=true", "numPartitions=10"];
    let broker = Running::start(dir.path(), &settings);
    let mut client = broker.client();
    set(&mut client, ANYBODY, "controller_mutation_rate", 2.0);
    wait_until_held(&broker, metaq::quota::QuotaKind::ControllerMutation, true);
    let topic = |n| MetadataRequestTopic::default().with_name(Some(name(&format!("t{n}"))));
    let mut asks = |topics: std::ops::Range<i32>| -> Vec<i32> {
        let request = MetadataRequest::default()
            .with_topics(Some(topics.map(topic).collect()))
            .with_allow_auto_topic_creation(true);
        client.ask(9, &request);
        let all = client.ask(9, &MetadataRequest::default().with_topics(None));
        let mut made: Vec<i32> = all
            .topics
            .iter()
            .filter_map(|topic| topic.name.as_ref()?.strip_prefix('t')?.parse().ok())
            .collect();
        made.sort_unstable();
        made
    };
    // 22 tokens, as for CreateTopics.
    assert_eq!(asks(0..4), [0, 1, 2]);
    assert_eq!(asks(3..5), [0, 1, 2]);
    broker.stop();
}

#[test]
fn requests_take_no_more_of_a_thread_than_they_may() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    for n in 0..10 {
        client.create(&format!("t{n}"));
    }
    set(
        &mut client,
        &[("client-id", Some("busy"))],
        "request_percentage",
        2.0,
    );
    wait_until_held(&broker, metaq::quota::QuotaKind::Request, true);
    let mut busy = broker.client();
    let began = Instant::now();
    let mut throttled = 0;
    // Ten seconds' worth may go at once; it counts for ten seconds.
    while began.elapsed() < Duration::from_millis(8500) {
        busy.send_as("busy", 12, &MetadataRequest::default().with_topics(None));
        let (_, answer) = busy.receive::<MetadataRequest>(12);
        assert!(answer.throttle_time_ms <= 1000);
        throttled += i32::from(answer.throttle_time_ms > 0);
    }
    assert!(throttled > 0);
    let _runtime = broker.enter();
    let counts = broker
        .broker()
        .context()
        .quotas
        .counts(tokio::time::Instant::now());
    assert!(
        // How near it comes on an idle machine, the suite quotas measures.
        (2.0 * 0.75..2.0 * 1.3).contains(&counts[0].rate),
        "{}",
        counts[0].rate
    );
    drop(_runtime);
    broker.stop();
}

fn is_served(address: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = metaq_protocol::messages::ApiVersionsRequest::default();
    let frame = metaq_protocol::frame::encode_request(0, 1, "test", &request).unwrap();
    stream.write_all(&frame).is_ok() && stream.read_exact(&mut [0; 8]).is_ok()
}

#[test]
fn an_address_that_connects_too_often_is_closed_later() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    set(
        &mut client,
        &[("ip", Some("127.0.0.1"))],
        "connection_creation_rate",
        5.0,
    );
    let quotas = broker.broker().context().quotas.clone();
    wait_for("the quotas to be in force", || quotas.has_any());
    let began = Instant::now();
    let (mut served, mut closed) = (0, 0);
    while began.elapsed() < Duration::from_secs(10) {
        match is_served(broker.address()) {
            true => served += 1,
            false => closed += 1,
        }
    }
    assert!((48..=53).contains(&served), "{served}");
    assert!(closed > 0);
    // The one that was there is served on.
    assert_eq!(describe(&mut client, Vec::new(), false).len(), 1);
    broker.stop();
}
