//! `metaq partition list|open|close|delete|move|fail-over`.
//!
//! Tests: tests/config.rs, tests/strict_order.rs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use metaq_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use metaq_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use metaq_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use metaq_protocol::messages::elect_leaders_request::TopicPartitions;
use metaq_protocol::messages::metadata_response::MetadataResponseTopic;
use metaq_protocol::messages::{
    AlterReplicaLogDirsRequest, DeleteRecordsRequest, DescribeLogDirsRequest, ElectLeadersRequest,
};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client, topic_name};
use super::config::{alter, describe};
use super::moves::TOPIC_RESOURCE;
use super::output::{or_dash, print};
use super::refused::{check, check_right};
use super::topic::{identity_of, metadata, offsets};
use crate::api::FAIL_OVER;
use crate::config::Value;
use crate::security::Operation;

const CLOSED: &str = "closed.partitions";
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
const TIMEOUT_MS: i32 = 30_000;
const NOT_ACCEPTED: &str = "with ordering=strict a partition waits for its home broker, so that its order never breaks. \
    --accept-reordering has another replica that is in sync lead; metaq partition fail-over --help says what that costs";
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Partition {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List a topic's partitions: where they are, how large, open or closed.
    #[command(after_help = "Example: metaq partition list --topic orders")]
    List {
        /// Topic.
        #[arg(short, long)]
        topic: String,
        #[command(flatten)]
        address: Address,
    },
    /// Let closed partitions take messages again.
    #[command(after_help = "Example: metaq partition open --topic orders --start 0 --end 3")]
    Open {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        address: Address,
    },
    /// Let partitions take no more messages; they can be read. It outlives restarts.
    #[command(after_help = "Example: metaq partition close --topic orders --start 2 --end 2")]
    Close {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        address: Address,
    },
    /// Delete all records of closed partitions. The partitions stay, closed and empty: clients count a topic's partitions
    /// without gaps.
    #[command(after_help = "Example: metaq partition delete --topic orders --start 2 --end 2")]
    Delete {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        address: Address,
    },
    /// Move partitions to another data directory of their broker, while they serve.
    #[command(
        after_help = "Example: metaq partition move --topic orders --start 0 --end 3 --to /disk2/metaq"
    )]
    Move {
        #[command(flatten)]
        which: Which,
        /// The data directory, as the configuration has it.
        #[arg(long, value_name = "DIRECTORY")]
        to: String,
        /// Do not wait until they are there.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        address: Address,
    },
    /// Have another replica lead partitions that wait for their home broker because the topic has ordering=strict.
    #[command(
        after_help = "A replica that is in sync leads, until the home broker is in sync again: then that one leads. What
the home broker alone has (acks=1) is cut off when it is back, and what its producers had in flight
may be taken twice or in another order, where they are not idempotent.

Where the home broker does not come back, give the partitions another one (metaq topic reassign).

Example: metaq partition fail-over --topic binlog --start 0 --accept-reordering"
    )]
    FailOver {
        #[command(flatten)]
        which: Which,
        /// Take it that the order may break where the lead changes.
        #[arg(long)]
        accept_reordering: bool,
        #[command(flatten)]
        address: Address,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Topic.
    #[arg(short, long)]
    topic: String,
    /// First partition.
    #[arg(long, value_name = "N")]
    start: i32,
    /// Last partition; the first one when not given.
    #[arg(long, value_name = "N")]
    end: Option<i32>,
    /// Count MetaQ's way: the partitions whose names are ID-N, from N = start to end.
    #[arg(long, value_name = "ID")]
    home: Option<i32>,
}

impl Which {
    /// The dense indexes that are meant; all of them must be there.
    fn indexes(&self, topic: &MetadataResponseTopic) -> Result<Vec<i32>, Failure> {
        let end = self.end.unwrap_or(self.start);
        if self.start < 0 || end < self.start {
            return Err(format!("{}..{end} is no range of partitions", self.start).into());
        }
        let by_name: BTreeMap<String, i32> = topic
            .partitions
            .iter()
            .filter_map(|partition| Some((identity_of(partition)?, partition.partition_index)))
            .collect();
        let find = |n: i32| match self.home {
            Some(home) => {
                let name = format!("{home}-{n}");
                let index = by_name.get(&name).copied();
                index.ok_or_else(|| format!("{} has no partition {name}", self.topic).into())
            }
            None if topic.partitions.iter().any(|p| p.partition_index == n) => Ok(n),
            None => Err(format!(
                "{} has no partition {n}; it has {}",
                self.topic,
                topic.partitions.len()
            )
            .into()),
        };
        (self.start..=end).map(find).collect()
    }

    fn words(indexes: &[i32]) -> String {
        Value::ranges(&indexes.iter().copied().collect())
    }
}

#[derive(Serialize)]
struct Listed {
    partition: i32,
    identity: Option<String>,
    leader: i32,
    directory: Option<String>,
    bytes: Option<i64>,
    log_start: Option<i64>,
    log_end: Option<i64>,
    closed: bool,
    moving_to: Option<String>,
}

impl Partition {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::List { topic, address } => {
                list(&mut Client::connect(&address)?, &topic, address.json)
            }
            Action::Open { which, address } => set_closed(&which, &address, SUBTRACT, "open"),
            Action::Close { which, address } => set_closed(&which, &address, APPEND, "closed"),
            Action::Delete { which, address } => delete(&which, &address),
            Action::Move {
                which,
                to,
                no_wait,
                address,
            } => move_to(&which, &to, no_wait, &address),
            Action::FailOver {
                which,
                accept_reordering,
                address,
            } => match accept_reordering {
                true => fail_over(&which, &address),
                false => Err(NOT_ACCEPTED.into()),
            },
        }
    }
}

fn said(address: &Address, topic: &str, partitions: &[i32], what: &str) {
    match address.json {
        true => {
            let done =
                serde_json::json!({ "topic": topic, "partitions": partitions, "done": what });
            println!("{done}");
        }
        false => println!("{topic} {}: {what}", Which::words(partitions)),
    }
}

fn set_closed(which: &Which, address: &Address, operation: i8, what: &str) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let topic = metadata(&mut client, &which.topic)?;
    let indexes = which.indexes(&topic)?;
    let changes = vec![(CLOSED.to_owned(), operation, Some(Which::words(&indexes)))];
    alter(&mut client, None, TOPIC_RESOURCE, &which.topic, changes)?;
    said(address, &which.topic, &indexes, what);
    Ok(())
}

/// The partitions of a topic that take no messages.
fn closed(client: &mut Client, topic: &str) -> Result<Vec<i32>, Failure> {
    let configs = describe(client, None, TOPIC_RESOURCE, topic)?;
    let closed = configs
        .into_iter()
        .find(|config| config.name.as_str() == CLOSED);
    let value = closed.and_then(|config| config.value).unwrap_or_default();
    Ok(Value::partitions(&value)?)
}

/// Deletes all records.
fn delete(which: &Which, address: &Address) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let topic = metadata(&mut client, &which.topic)?;
    let indexes = which.indexes(&topic)?;
    let closed = closed(&mut client, &which.topic)?;
    let open: Vec<i32> = indexes
        .iter()
        .copied()
        .filter(|index| !closed.contains(index))
        .collect();
    if !open.is_empty() {
        let which = Which::words(&open);
        return Err(format!(
            "partitions {which} are open; close them first (metaq partition close)"
        )
        .into());
    }
    for (leader, partitions) in by_leader(&topic, &indexes)? {
        let partition = |index: &i32| {
            DeleteRecordsPartition::default()
                .with_partition_index(*index)
                .with_offset(-1)
        };
        let asked = DeleteRecordsTopic::default()
            .with_name(topic_name(&which.topic))
            .with_partitions(partitions.iter().map(partition).collect());
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![asked])
            .with_timeout_ms(TIMEOUT_MS);
        let response = client.ask_broker(leader, 2, &request)?;
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            let what = format!("{} partition {}", which.topic, partition.partition_index);
            let right = (Operation::Delete, &*format!("topic {}", which.topic));
            check_right(&what, (partition.error_code, None), right)?;
        }
    }
    said(address, &which.topic, &indexes, "emptied");
    Ok(())
}

fn by_leader(
    topic: &MetadataResponseTopic,
    indexes: &[i32],
) -> Result<BTreeMap<i32, Vec<i32>>, Failure> {
    let mut all: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in &topic.partitions {
        let index = partition.partition_index;
        if indexes.contains(&index) {
            if partition.leader_id.0 < 0 {
                return Err(format!("partition {index} has no leader at this moment").into());
            }
            all.entry(partition.leader_id.0).or_default().push(index);
        }
    }
    Ok(all)
}

/// Where a partition is, how large it is there, and where it is going.
#[derive(Default)]
struct ReplicaLocation {
    directory: Option<String>,
    bytes: Option<i64>,
    moving_to: Option<String>,
}

fn locations(
    client: &mut Client,
    topic: &MetadataResponseTopic,
    indexes: &[i32],
) -> Result<BTreeMap<i32, ReplicaLocation>, Failure> {
    let name = topic.name.clone().unwrap_or_default();
    let mut locations: BTreeMap<i32, ReplicaLocation> = BTreeMap::new();
    for (leader, partitions) in by_leader(topic, indexes)? {
        let asked = DescribableLogDirTopic::default()
            .with_topic(name.clone())
            .with_partitions(partitions);
        let request = DescribeLogDirsRequest::default().with_topics(Some(vec![asked]));
        for dir in client.ask_broker(leader, 4, &request)?.results {
            for partition in dir.topics.iter().flat_map(|topic| &topic.partitions) {
                let location = locations.entry(partition.partition_index).or_default();
                let at = Some(dir.log_dir.to_string());
                match partition.is_future_key {
                    true => location.moving_to = at,
                    false => {
                        (location.directory, location.bytes) = (at, Some(partition.partition_size))
                    }
                }
            }
        }
    }
    Ok(locations)
}

fn list(client: &mut Client, name: &str, json: bool) -> Result<(), Failure> {
    let topic = metadata(client, name)?;
    let led = topic.partitions.iter().filter(|p| p.leader_id.0 >= 0);
    let indexes: Vec<i32> = led.map(|partition| partition.partition_index).collect();
    let (starts, ends) = (
        offsets(client, &topic, &indexes, -2)?,
        offsets(client, &topic, &indexes, -1)?,
    );
    let mut locations = locations(client, &topic, &indexes)?;
    let closed = closed(client, name)?;
    let rows: Vec<Listed> = topic
        .partitions
        .iter()
        .map(|partition| {
            let index = partition.partition_index;
            let location = locations.remove(&index).unwrap_or_default();
            Listed {
                partition: index,
                identity: identity_of(partition),
                leader: partition.leader_id.0,
                directory: location.directory,
                bytes: location.bytes,
                log_start: starts.get(&index).copied(),
                log_end: ends.get(&index).copied(),
                closed: closed.contains(&index),
                moving_to: location.moving_to,
            }
        })
        .collect();
    let headings = [
        "PARTITION",
        "IDENTITY",
        "LEADER",
        "DIRECTORY",
        "BYTES",
        "LOG START",
        "LOG END",
        "STATE",
    ];
    print(json, &headings, &rows, |row| {
        let state = match (&row.moving_to, row.closed) {
            (Some(to), _) => format!("moving to {to}"),
            (None, true) => "closed".to_owned(),
            (None, false) => "open".to_owned(),
        };
        vec![
            row.partition.to_string(),
            or_dash(&row.identity),
            row.leader.to_string(),
            or_dash(&row.directory),
            or_dash(&row.bytes),
            or_dash(&row.log_start),
            or_dash(&row.log_end),
            state,
        ]
    })
}

fn move_to(which: &Which, to: &str, no_wait: bool, address: &Address) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let topic = metadata(&mut client, &which.topic)?;
    let indexes = which.indexes(&topic)?;
    let before = locations(&mut client, &topic, &indexes)?;
    for (leader, partitions) in by_leader(&topic, &indexes)? {
        let asked = AlterReplicaLogDirTopic::default()
            .with_name(topic_name(&which.topic))
            .with_partitions(partitions);
        let dir = AlterReplicaLogDir::default()
            .with_path(StrBytes::from_string(to.to_owned()))
            .with_topics(vec![asked]);
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
        let response = client.ask_broker(leader, 2, &request)?;
        for partition in response.results.iter().flat_map(|topic| &topic.partitions) {
            let what = format!(
                "{} partition {} to {to}",
                which.topic, partition.partition_index
            );
            let right = (Operation::Alter, "the cluster");
            check_right(&what, (partition.error_code, None), right)?;
        }
    }
    if no_wait {
        said(address, &which.topic, &indexes, "moving");
        return Ok(());
    }
    let begun = Instant::now();
    let mut told = begun;
    loop {
        let locations = locations(&mut client, &topic, &indexes)?;
        let moving = locations
            .values()
            .filter(|location| location.moving_to.is_some());
        let moving = moving.count();
        if moving == 0 {
            // The directory may be written in another way than the broker tells it.
            let is_left = |(index, location): &(&i32, &ReplicaLocation)| {
                let is_named = |dir: &String| std::path::Path::new(dir).ends_with(to);
                let stayed = before.get(index).map(|before| &before.directory);
                stayed == Some(&location.directory)
                    && !location.directory.as_ref().is_some_and(is_named)
            };
            let left = locations.iter().filter(is_left).count();
            if left > 0 {
                return Err(
                    format!("{left} partitions were not moved; the broker's log says why").into(),
                );
            }
            said(address, &which.topic, &indexes, "moved");
            return Ok(());
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            eprintln!("{moving} of {} partitions still move", indexes.len());
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// Has another replica that is in sync lead.
fn fail_over(which: &Which, address: &Address) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let topic = metadata(&mut client, &which.topic)?;
    let indexes = which.indexes(&topic)?;
    let asked = TopicPartitions::default()
        .with_topic(topic_name(&which.topic))
        .with_partitions(indexes.clone());
    let request = ElectLeadersRequest::default()
        .with_election_type(FAIL_OVER)
        .with_topic_partitions(Some(vec![asked]))
        .with_timeout_ms(TIMEOUT_MS);
    let response = client.ask(2, &request)?;
    let right = (Operation::Alter, "the cluster");
    check_right("fail-over", (response.error_code, None), right)?;
    let results = response.replica_election_results.iter();
    let results = results.flat_map(|topic| &topic.partition_result);
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for result in results {
        let what = format!("{} partition {}", which.topic, result.partition_id);
        match check(&what, result.error_code, result.error_message.as_deref()) {
            Ok(()) => done.push(result.partition_id),
            Err(failure) => refused.push(failure),
        }
    }
    if !done.is_empty() {
        let what = "another replica leads until the home broker is in sync again";
        said(address, &which.topic, &done, what);
    }
    match refused.len() {
        0 => Ok(()),
        1 => Err(refused.remove(0)),
        n => Err(format!("{n} partitions are refused, such as {}", refused[0]).into()),
    }
}
