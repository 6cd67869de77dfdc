//! librdkafka through the rdkafka crate: what a Rust or C program does.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::get_rdkafka_version;
use rdkafka::{Offset, TopicPartitionList};

type Outcome = Result<(), Box<dyn std::error::Error>>;
const WAIT: Duration = Duration::from_secs(40);

fn bootstrap() -> String {
    std::env::var("BOOTSTRAP").expect("BOOTSTRAP names the broker")
}

fn unique(name: &str) -> String {
    static COUNT: Mutex<u32> = Mutex::new(0);
    let mut count = COUNT.lock().unwrap();
    *count += 1;
    format!("{name}-{}-{}", std::process::id(), *count)
}

fn config(extra: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap());
    if let Ok(authority) = std::env::var("CLIENT_CA") {
        config.set("security.protocol", "SASL_SSL");
        config.set("ssl.ca.location", authority);
        for (key, name) in [("mechanism", "MECHANISM"), ("username", "USER"), ("password", "PASSWORD")] {
            config.set(format!("sasl.{key}"), std::env::var(format!("CLIENT_{name}")).expect("it goes with CLIENT_CA"));
        }
    }
    extra.iter().for_each(|(key, value)| {
        config.set(*key, *value);
    });
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    config(&[]).create().unwrap()
}

async fn create(topic: &str, partitions: i32) -> Outcome {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for result in admin().create_topics([&new], &AdminOptions::new()).await? {
        result.map_err(|(name, code)| format!("{name}: {code}"))?;
    }
    Ok(())
}

fn producer(extra: &[(&str, &str)]) -> FutureProducer {
    config(&[&[("linger.ms", "2")], extra].concat()).create().unwrap()
}

fn consumer(group: &str, extra: &[(&str, &str)]) -> BaseConsumer {
    let base = [
        ("group.id", group),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "300"),
    ];
    config(&[&base, extra].concat()).create().unwrap()
}

/// Polls until `done` says so.
fn poll_until(consumers: &[&BaseConsumer], mut seen: impl FnMut(usize, &BorrowedMessage<'_>), done: impl Fn() -> bool) -> Outcome {
    let deadline = Instant::now() + WAIT;
    while !done() {
        if Instant::now() > deadline {
            return Err("waited 40 s".into());
        }
        for (n, consumer) in consumers.iter().enumerate() {
            while let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
                seen(n, &message);
            }
        }
    }
    Ok(())
}

fn read(topic: &str, count: usize, offset: Offset) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let reader = consumer(&unique("read"), &[]);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, offset)?;
    reader.assign(&assignment)?;
    let all = Mutex::new(Vec::new());
    poll_until(&[&reader], |_, message| all.lock().unwrap().push(describe(message)), || all.lock().unwrap().len() >= count)?;
    Ok(all.into_inner()?)
}

fn part(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), |bytes| format!("{:?}", String::from_utf8_lossy(bytes)))
}

fn describe(message: &BorrowedMessage<'_>) -> String {
    let mut text = format!("{}={}", part(message.key()), part(message.payload()));
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        text += &format!(" {}:{}", header.key, part(header.value));
    }
    text
}

fn equal<T: PartialEq + std::fmt::Debug>(actual: T, expected: T) -> Outcome {
    if actual == expected { Ok(()) } else { Err(format!("expected {expected:?}, got {actual:?}").chars().take(400).collect::<String>().into()) }
}

async fn send(client: &FutureProducer, topic: &str, payload: &str) -> Outcome {
    let record: FutureRecord<'_, (), str> = FutureRecord::to(topic).partition(0).payload(payload);
    client.send(record, WAIT).await.map(drop).map_err(|(error, _)| error.into())
}

async fn round_trips() -> Outcome {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = unique(codec);
        create(&topic, 1).await?;
        for acks in ["all", "1", "0"] {
            let client = producer(&[("compression.codec", codec), ("acks", acks)]);
            let headers = OwnedHeaders::new()
                .insert(Header { key: "h", value: Some("1") })
                .insert(Header { key: "h", value: Some("2") })
                .insert(Header { key: "null", value: None::<&str> });
            let full = FutureRecord::to(&topic).partition(0).key("k").payload("v").headers(headers);
            client.send(full, WAIT).await.map_err(|(error, _)| error)?;
            client.send(FutureRecord::<str, str>::to(&topic).partition(0).key("no value"), WAIT).await.map_err(|(e, _)| e)?;
            client.send(FutureRecord::<str, str>::to(&topic).partition(0).payload(""), WAIT).await.map_err(|(e, _)| e)?;
        }
        let once = ["\"k\"=\"v\" h:\"1\" h:\"2\" null:null", "\"no value\"=null", "null=\"\""];
        equal(read(&topic, 9, Offset::Beginning)?, [once, once, once].concat().iter().map(|s| (*s).to_owned()).collect())?;
    }
    Ok(())
}

async fn large_messages() -> Outcome {
    let topic = unique("large");
    create(&topic, 1).await?;
    let client = producer(&[("message.max.bytes", "5000000")]);
    send(&client, &topic, &"x".repeat(1_000_000)).await?;
    let refused = send(&client, &topic, &"x".repeat(1_100_000)).await.err().ok_or("a message above the limit was taken")?;
    match refused.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code) {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => Ok(()),
        _ => Err(refused),
    }
}

async fn offsets_and_times() -> Outcome {
    let topic = unique("offsets");
    create(&topic, 1).await?;
    let base = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64 - 200_000;
    let client = producer(&[]);
    for n in 0..100 {
        let payload = n.to_string();
        let record: FutureRecord<'_, (), String> = FutureRecord::to(&topic).partition(0).payload(&payload).timestamp(base + n * 1000);
        client.send(record, WAIT).await.map_err(|(error, _)| error)?;
    }
    equal(read(&topic, 1, Offset::Offset(42))?[0].as_str(), "null=\"42\"")?;
    equal(read(&topic, 1, Offset::OffsetTail(2))?[0].as_str(), "null=\"98\"")?;
    let reader = consumer(&unique("times"), &[]);
    equal(reader.fetch_watermarks(&topic, 0, WAIT)?, (0, 100))?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(&topic, 0, Offset::Offset(base + 49_500))?;
    equal(reader.offsets_for_times(asked, WAIT)?.elements()[0].offset(), Offset::Offset(50))
}

async fn group_of_two(assignor: &str) -> Outcome {
    let (topic, group) = (unique("group"), unique("group"));
    create(&topic, 4).await?;
    let extra = [("partition.assignment.strategy", assignor)];
    let (first, second) = (consumer(&group, &extra), consumer(&group, &extra));
    first.subscribe(&[&topic])?;
    second.subscribe(&[&topic])?;
    let owned = |client: &BaseConsumer| client.assignment().map_or(0, |assignment| assignment.count());
    poll_until(&[&first, &second], |_, _| {}, || owned(&first) == 2 && owned(&second) == 2)?;
    let client = producer(&[]);
    let payloads: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let sends = payloads.iter().enumerate().map(|(n, payload)| {
        let record: FutureRecord<'_, (), String> = FutureRecord::to(&topic).partition(n as i32 % 4).payload(payload);
        client.send(record, WAIT)
    });
    for sent in join_all(sends).await {
        sent.map_err(|(error, _)| error)?;
    }
    let seen = Mutex::new(HashSet::new());
    let both = [&first, &second];
    let note = |n: usize, message: &BorrowedMessage<'_>| {
        seen.lock().unwrap().insert(describe(message));
        both[n].commit_message(message, CommitMode::Async).unwrap();
    };
    poll_until(&both, note, || seen.lock().unwrap().len() == 200)?;
    second.unsubscribe();
    drop(second);
    poll_until(&[&first], |_, _| {}, || owned(&first) == 4)?;
    let mut sum = 0;
    for partition in first.committed(WAIT)?.elements() {
        sum += partition.offset().to_raw().unwrap_or(0);
    }
    equal(sum, 200)
}

async fn a_dead_members_partitions_are_taken_over() -> Outcome {
    let (topic, group) = (unique("dead"), unique("dead"));
    create(&topic, 2).await?;
    let survivor = consumer(&group, &[]);
    survivor.subscribe(&[&topic])?;
    // A member in a process of its own, which is killed.
    let mut victim = Command::new(std::env::current_exe()?).args(["member", &topic, &group]).spawn()?;
    let owned = || survivor.assignment().map_or(0, |assignment| assignment.count());
    let shared = poll_until(&[&survivor], |_, _| {}, || owned() == 1);
    victim.kill()?;
    victim.wait()?;
    shared?;
    poll_until(&[&survivor], |_, _| {}, || owned() == 2)
}

async fn administration() -> Outcome {
    let (topic, client, options) = (unique("admin"), admin(), AdminOptions::new());
    create(&topic, 1).await?;
    client.create_partitions([&NewPartitions::new(&topic, 3)], &options).await?.remove(0).map_err(|(_, code)| code)?;
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "123456");
    client.alter_configs([&change], &options).await?.remove(0).map_err(|(_, code)| code)?;
    // Brokers hear of a change a moment after it was answered.
    let deadline = Instant::now() + WAIT;
    loop {
        let described = client.describe_configs([&ResourceSpecifier::Topic(&topic)], &options).await?.remove(0);
        let retention = described.ok().and_then(|described| described.get("retention.ms")?.value.clone());
        let metadata = producer(&[]).client().fetch_metadata(Some(&topic), WAIT)?;
        let seen = (retention.as_deref(), metadata.topics()[0].partitions().len());
        if seen == (Some("123456"), 3) {
            break;
        }
        if Instant::now() > deadline {
            return equal(seen, (Some("123456"), 3));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.delete_topics(&[&topic], &options).await?.remove(0).map_err(|(_, code)| code.into()).map(drop)
}

async fn idempotent_across_kill_9() -> Outcome {
    let Ok(ctl) = std::env::var("BROKER_CTL").map_err(drop).and_then(|ctl| if ctl.is_empty() { Err(()) } else { Ok(ctl) }) else {
        return Err("SKIP no control of the broker".into());
    };
    let topic = unique("idempotent");
    create(&topic, 1).await?;
    let client = producer(&[("enable.idempotence", "true"), ("batch.num.messages", "50"), ("queue.buffering.max.messages", "100000")]);
    let payloads: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let mut sent = Vec::new();
    for (n, payload) in payloads.iter().enumerate() {
        let record: FutureRecord<'_, (), String> = FutureRecord::to(&topic).partition(0).payload(payload);
        sent.push(client.send_result(record).map_err(|(error, _)| error)?);
        if n == 10_000 {
            for delivery in sent.drain(..200) {
                delivery.await?.map_err(|(error, _)| error)?;
            }
            for verb in ["kill9", "start"] {
                if !Command::new(&ctl).arg(verb).status()?.success() {
                    return Err(format!("{verb} failed").into());
                }
            }
        }
    }
    for delivery in sent {
        delivery.await?.map_err(|(error, _)| error)?;
    }
    equal(read(&topic, 20_000, Offset::Beginning)?, payloads.iter().map(|p| format!("null={p:?}")).collect())
}

/// Joins a group and polls until it is killed.
fn member(topic: &str, group: &str) -> ! {
    let client = consumer(group, &[]);
    client.subscribe(&[topic]).unwrap();
    loop {
        client.poll(Duration::from_millis(100));
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, verb, topic, group] = arguments.as_slice()
        && verb == "member"
    {
        member(topic, group);
    }
    println!(
        "CLIENT rdkafka 0.39 (librdkafka)|{}|Rust, C|codecs, acks, groups (range, cooperative, dying member), admin, idempotence across kill -9|librdkafka/",
        get_rdkafka_version().1
    );
    report("round-trips", round_trips().await);
    report("large-messages", large_messages().await);
    report("offsets-and-times", offsets_and_times().await);
    report("group-range", group_of_two("range").await);
    report("group-cooperative", group_of_two("cooperative-sticky").await);
    report("dead-member", a_dead_members_partitions_are_taken_over().await);
    report("administration", administration().await);
    report("idempotent-kill-9", idempotent_across_kill_9().await);
}

fn report(name: &str, outcome: Outcome) {
    match outcome {
        Ok(()) => println!("PASS librdkafka/{name}"),
        Err(error) => match error.to_string().strip_prefix("SKIP ") {
            Some(why) => println!("SKIP librdkafka/{name}: {why}"),
            None => println!("FAIL librdkafka/{name}: {}", error.to_string().replace('\n', " ")),
        },
    }
}
