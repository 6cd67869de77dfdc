//! `metaq topic create|list|describe|alter|delete`, and `reassign` (`reassign.rs`).
//!
//! Tests: tests/cli.rs, tests/advice.rs.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::{Args, Subcommand};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use metaq_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use metaq_protocol::messages::delete_topics_request::DeleteTopicState;
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use metaq_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest,
};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client, MOVE_PAUSE, MOVE_WAIT, topic_name};
use super::output::{counted, or_dash, print, say};
use super::reassign::Reassign;
use super::refused::{check, check_right};
use crate::api::IDENTITY_TAG;
use crate::security::Operation;

const TOPIC_RESOURCE: i8 = 2;
const SOURCE_TOPIC: i8 = 1;
const TIMEOUT_MS: i32 = 30_000;

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Topic {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a topic.
    #[command(
        after_help = "Example: metaq topic create orders --partitions 4 --config retention.ms=86400000"
    )]
    Create {
        /// Its name.
        name: String,
        /// Partitions; the broker's default when not given.
        #[arg(short, long)]
        partitions: Option<i32>,
        /// Replicas; the broker's default when not given.
        #[arg(short, long)]
        replication_factor: Option<i16>,
        /// A topic configuration; may be given several times.
        #[arg(short = 'o', long = "config", value_name = "KEY=VALUE")]
        config: Vec<String>,
        /// Say what would happen only.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        address: Address,
    },
    /// List topics.
    #[command(after_help = "Example: metaq topic list --json | jq -r \".[].topic\"")]
    List {
        #[command(flatten)]
        address: Address,
    },
    /// Show a topic's partitions, offsets and own configurations.
    #[command(after_help = "Example: metaq topic describe orders")]
    Describe {
        /// Its name.
        name: String,
        #[command(flatten)]
        address: Address,
    },
    /// Change a topic's configurations or extend it.
    #[command(after_help = "Example: metaq topic alter orders --config flush.messages=1")]
    Alter {
        /// Its name.
        name: String,
        /// Extend to this many partitions.
        #[arg(short, long)]
        partitions: Option<i32>,
        /// Set a configuration; may be given several times.
        #[arg(short = 'o', long = "config", value_name = "KEY=VALUE")]
        config: Vec<String>,
        /// Put a configuration back to its default; may be given several times.
        #[arg(long, value_name = "KEY")]
        delete_config: Vec<String>,
        #[command(flatten)]
        address: Address,
    },
    /// Propose other brokers for the partitions of topics, or more or fewer replicas: spread over racks, evenly, with little to
    /// copy. Show or take back what moves.
    Reassign(Reassign),
    /// Delete a topic with all its records.
    #[command(after_help = "Example: metaq topic delete orders")]
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        address: Address,
    },
}

#[derive(Serialize)]
struct Listed {
    topic: String,
    id: String,
    partitions: usize,
    replicas: usize,
}

#[derive(Serialize)]
struct Described {
    partition: i32,
    identity: Option<String>,
    leader: i32,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    log_start: Option<i64>,
    log_end: Option<i64>,
}

impl Topic {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Create {
                name,
                partitions,
                replication_factor,
                config,
                dry_run,
                address,
            } => {
                let numbers = (partitions.unwrap_or(-1), replication_factor.unwrap_or(-1));
                create(
                    &mut Client::connect(&address)?,
                    &name,
                    numbers,
                    &config,
                    (dry_run, address.json),
                )
            }
            Action::List { address } => list(&mut Client::connect(&address)?, address.json),
            Action::Describe { name, address } => {
                describe(&mut Client::connect(&address)?, &name, address.json)
            }
            Action::Alter {
                name,
                partitions,
                config,
                delete_config,
                address,
            } => {
                if partitions.is_none() && config.is_empty() && delete_config.is_empty() {
                    return Err(
                        "nothing to alter: give --partitions, --config or --delete-config".into(),
                    );
                }
                let mut client = Client::connect(&address)?;
                let mut told = Vec::new();
                let configures = !config.is_empty() || !delete_config.is_empty();
                if configures {
                    alter(&mut client, &name, &config, &delete_config)?;
                    told.push(format!("{name} configured"));
                }
                if let Some(count) = partitions {
                    let extended = extend(&mut client, &name, count);
                    extended.map_err(|error| match told.first() {
                        Some(done) => format!("{done}; {error}").into(),
                        None => error,
                    })?;
                    let count = counted(count.max(0) as u64, "partition");
                    told.push(format!("{name} has {count}"));
                }
                let done = serde_json::json!({ "topic": name, "configured": configures, "partitions": partitions });
                say(address.json, &done, &told.join("\n"));
                Ok(())
            }
            Action::Reassign(reassign) => reassign.run(),
            Action::Delete { name, address } => {
                let state = DeleteTopicState::default().with_name(Some(topic_name(&name)));
                let request = DeleteTopicsRequest::default()
                    .with_topics(vec![state])
                    .with_timeout_ms(TIMEOUT_MS);
                let response = Client::connect(&address)?.ask(6, &request)?;
                let result = response
                    .responses
                    .first()
                    .ok_or("the broker did not answer for the topic")?;
                let refused = (result.error_code, result.error_message.as_deref());
                check_topic(&name, refused, Operation::Delete)?;
                let done = serde_json::json!({ "topic": name, "deleted": true });
                say(address.json, &done, &format!("{name} deleted"));
                Ok(())
            }
        }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn key_and_value(entry: &str) -> Result<(&str, &str), Failure> {
    entry
        .split_once('=')
        .ok_or_else(|| format!("{entry}: expected KEY=VALUE").into())
}

fn create(
    client: &mut Client,
    name: &str,
    numbers: (i32, i16),
    config: &[String],
    (dry_run, as_json): (bool, bool),
) -> Result<(), Failure> {
    let mut configs = Vec::with_capacity(config.len());
    for entry in config {
        let (key, value) = key_and_value(entry)?;
        configs.push(
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value))),
        );
    }
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(numbers.0)
        .with_replication_factor(numbers.1)
        .with_configs(configs);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(TIMEOUT_MS)
        .with_validate_only(dry_run);
    let response = client.ask(7, &request)?;
    let result = response
        .topics
        .first()
        .ok_or("the broker did not answer for the topic")?;
    let refused = (result.error_code, result.error_message.as_deref());
    check_topic(name, refused, Operation::Create)?;
    let done = if dry_run {
        "would be created"
    } else {
        "created"
    };
    let count = result.num_partitions;
    let partitions = counted(count.max(0) as u64, "partition");
    let told = serde_json::json!({ "topic": name, "created": !dry_run, "partitions": count });
    say(as_json, &told, &format!("{name} {done} with {partitions}"));
    Ok(())
}

fn list(client: &mut Client, json: bool) -> Result<(), Failure> {
    let response = client.metadata(None)?;
    let row = |topic: &MetadataResponseTopic| Listed {
        topic: topic
            .name
            .as_ref()
            .map(|name| name.to_string())
            .unwrap_or_default(),
        id: crate::log::uuid_to_base64(topic.topic_id),
        partitions: topic.partitions.len(),
        replicas: topic
            .partitions
            .first()
            .map_or(0, |partition| partition.replica_nodes.len()),
    };
    let rows: Vec<Listed> = response.topics.iter().map(row).collect();
    print(
        json,
        &["TOPIC", "ID", "PARTITIONS", "REPLICAS"],
        &rows,
        |row| {
            vec![
                row.topic.clone(),
                row.id.clone(),
                row.partitions.to_string(),
                row.replicas.to_string(),
            ]
        },
    )
}

/// Fails where a broker refused an operation on a topic.
fn check_topic(
    name: &str,
    refused: (i16, Option<&str>),
    operation: Operation,
) -> Result<(), Failure> {
    check_right(name, refused, (operation, &format!("topic {name}")))
}

/// A topic with its partitions in order.
pub(super) fn metadata(client: &mut Client, name: &str) -> Result<MetadataResponseTopic, Failure> {
    let mut topic = client
        .metadata(Some(&[name]))?
        .topics
        .into_iter()
        .next()
        .ok_or("the broker did not answer for the topic")?;
    check_topic(name, (topic.error_code, None), Operation::Describe)?;
    topic
        .partitions
        .sort_by_key(|partition| partition.partition_index);
    Ok(topic)
}

/// A partition's `brokerId-n`, where the broker is a metaq.
pub(super) fn identity_of(partition: &MetadataResponsePartition) -> Option<String> {
    let tagged = partition.unknown_tagged_fields.get(&IDENTITY_TAG)?;
    String::from_utf8(tagged.to_vec()).ok()
}

/// All records are seen.
const READ_UNCOMMITTED: i8 = 0;

/// Offsets of partitions of a topic: -1 for the ends, -2 for the starts, or a time in ms. A partition without a leader
/// has none; one whose leader changes is asked for again.
pub(super) fn offsets(
    client: &mut Client,
    topic: &MetadataResponseTopic,
    partitions: &[i32],
    timestamp: i64,
) -> Result<BTreeMap<i32, i64>, Failure> {
    offsets_seen(client, topic, partitions, (timestamp, READ_UNCOMMITTED))
}

/// As [`offsets`], as far as a level of isolation shows: the end for readers of committed records is where the first open
/// transaction begins.
pub(super) fn offsets_seen(
    client: &mut Client,
    topic: &MetadataResponseTopic,
    partitions: &[i32],
    wanted: (i64, i8),
) -> Result<BTreeMap<i32, i64>, Failure> {
    let name = topic.name.clone().unwrap_or_default();
    let until = Instant::now() + MOVE_WAIT;
    let mut offsets = BTreeMap::new();
    let (mut asked, mut left) = (topic.clone(), partitions.to_vec());
    loop {
        let moving = leaders_offsets(client, &asked, &left, wanted, &mut offsets)?;
        let Some((index, code)) = moving.first() else {
            return Ok(offsets);
        };
        if Instant::now() > until {
            check(&format!("{} partition {index}", &*name), *code, None)?;
        }
        std::thread::sleep(MOVE_PAUSE);
        asked = metadata(client, &name)?;
        left = moving.into_iter().map(|(index, _)| index).collect();
    }
}

/// Asks the leaders that are known; those that are to be asked for again, each with its error.
fn leaders_offsets(
    client: &mut Client,
    topic: &MetadataResponseTopic,
    partitions: &[i32],
    (timestamp, isolation_level): (i64, i8),
    offsets: &mut BTreeMap<i32, i64>,
) -> Result<Vec<(i32, i16)>, Failure> {
    let name = topic.name.clone().unwrap_or_default();
    let mut by_leader: BTreeMap<i32, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for partition in &topic.partitions {
        if partitions.contains(&partition.partition_index) && partition.leader_id.0 >= 0 {
            let asked = ListOffsetsPartition::default()
                .with_partition_index(partition.partition_index)
                .with_timestamp(timestamp);
            by_leader
                .entry(partition.leader_id.0)
                .or_default()
                .push(asked);
        }
    }
    let mut moving = Vec::new();
    for (leader, asked) in by_leader {
        let asked = ListOffsetsTopic::default()
            .with_name(name.clone())
            .with_partitions(asked);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation_level)
            .with_topics(vec![asked]);
        let answered = match client.ask_broker(leader, 7, &request) {
            Ok(answer) => answer.topics,
            Err(error) => {
                // The others are shown all the same.
                eprintln!("metaq: no offsets from broker {leader}: {error}");
                continue;
            }
        };
        for partition in answered.into_iter().flat_map(|topic| topic.partitions) {
            let (index, code) = (partition.partition_index, partition.error_code);
            if is_leader_moving(code) {
                moving.push((index, code));
                continue;
            }
            check(&format!("{} partition {index}", &*name), code, None)?;
            offsets.insert(index, partition.offset);
        }
    }
    Ok(moving)
}

/// Whether an error says that another broker leads, or that the leader has just begun.
fn is_leader_moving(code: i16) -> bool {
    matches!(
        ResponseError::try_from_code(code),
        Some(
            ResponseError::NotLeaderOrFollower
                | ResponseError::LeaderNotAvailable
                | ResponseError::OffsetNotAvailable
        )
    )
}

fn describe(client: &mut Client, name: &str, json: bool) -> Result<(), Failure> {
    let topic = metadata(client, name)?;
    let indexes: Vec<i32> = topic
        .partitions
        .iter()
        .map(|partition| partition.partition_index)
        .collect();
    let (starts, ends) = (
        offsets(client, &topic, &indexes, -2)?,
        offsets(client, &topic, &indexes, -1)?,
    );
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let rows: Vec<Described> = topic
        .partitions
        .iter()
        .map(|partition| Described {
            partition: partition.partition_index,
            identity: identity_of(partition),
            leader: partition.leader_id.0,
            leader_epoch: partition.leader_epoch,
            replicas: ids(&partition.replica_nodes),
            isr: ids(&partition.isr_nodes),
            log_start: starts.get(&partition.partition_index).copied(),
            log_end: ends.get(&partition.partition_index).copied(),
        })
        .collect();
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(name));
    let configs = client.ask(
        4,
        &DescribeConfigsRequest::default().with_resources(vec![resource]),
    )?;
    let own: BTreeMap<String, String> = configs
        .results
        .iter()
        .flat_map(|result| &result.configs)
        .filter(|config| config.config_source == SOURCE_TOPIC)
        .map(|config| {
            (
                config.name.to_string(),
                config
                    .value
                    .as_ref()
                    .map(|v| v.to_string())
                    .unwrap_or_default(),
            )
        })
        .collect();
    let id = crate::log::uuid_to_base64(topic.topic_id);
    if json {
        let whole =
            serde_json::json!({ "topic": name, "id": id, "config": own, "partitions": rows });
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(());
    }
    println!("Topic {name}, id {id}");
    for (key, value) in &own {
        println!("  {key}={value}");
    }
    let headings = [
        "PARTITION",
        "IDENTITY",
        "LEADER",
        "EPOCH",
        "REPLICAS",
        "ISR",
        "LOG START",
        "LOG END",
    ];
    print(false, &headings, &rows, |row| {
        vec![
            row.partition.to_string(),
            or_dash(&row.identity),
            row.leader.to_string(),
            row.leader_epoch.to_string(),
            format!("{:?}", row.replicas),
            format!("{:?}", row.isr),
            or_dash(&row.log_start),
            or_dash(&row.log_end),
        ]
    })
}

fn alter(
    client: &mut Client,
    name: &str,
    set: &[String],
    delete: &[String],
) -> Result<(), Failure> {
    let mut configs = Vec::with_capacity(set.len() + delete.len());
    for entry in set {
        let (key, value) = key_and_value(entry)?;
        configs.push(
            AlterableConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value))),
        );
    }
    for key in delete {
        configs.push(
            AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(1)
                .with_value(None),
        );
    }
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(name))
        .with_configs(configs);
    let response = client.ask(
        1,
        &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
    )?;
    let result = response
        .responses
        .first()
        .ok_or("the broker did not answer for the topic")?;
    let refused = (result.error_code, result.error_message.as_deref());
    check_topic(name, refused, Operation::AlterConfigs)?;
    Ok(())
}

fn extend(client: &mut Client, name: &str, count: i32) -> Result<(), Failure> {
    let topic = CreatePartitionsTopic::default()
        .with_name(topic_name(name))
        .with_count(count)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(TIMEOUT_MS);
    let response = client.ask(3, &request)?;
    let result = response
        .results
        .first()
        .ok_or("the broker did not answer for the topic")?;
    let refused = (result.error_code, result.error_message.as_deref());
    check_topic(name, refused, Operation::Alter)?;
    Ok(())
}
