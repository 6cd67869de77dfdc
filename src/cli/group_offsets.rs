//! Where groups are: what they have committed, and how that is set.
//!
//! Tests: tests/cli.rs, tests/shares_seen.rs.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use metaq_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client, topic_name};
use super::group_members::{Shared, check_group, group_id, seen, shared};
use super::output::{counted, or_dash, print};
use super::refused::check_right;
use super::topic::{metadata, offsets};
use crate::security::Operation;

/// `metaq group reset-offsets`: where a group without members goes on.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true)))]
pub(super) struct Reset {
    /// Group id.
    group: String,
    /// Topic.
    #[arg(short, long)]
    topic: String,
    /// Only this partition; may be given several times.
    #[arg(short, long)]
    partition: Vec<i32>,
    /// To the log's start.
    #[arg(long, group = "target")]
    to_earliest: bool,
    /// To the log's end.
    #[arg(long, group = "target")]
    to_latest: bool,
    /// To an offset, within the log.
    #[arg(long, group = "target", value_name = "OFFSET")]
    to_offset: Option<i64>,
    /// To the first record at or after a time, milliseconds since 1970.
    #[arg(long, group = "target", value_name = "MS")]
    to_timestamp: Option<i64>,
    /// By a number of records, backwards when negative.
    #[arg(
        long,
        group = "target",
        value_name = "N",
        allow_negative_numbers = true
    )]
    shift_by: Option<i64>,
    /// Do it.
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    address: Address,
}

#[derive(Serialize)]
struct Planned {
    topic: String,
    partition: i32,
    from: Option<i64>,
    to: i64,
}

/// Committed offsets by topic and partition.
pub(super) fn committed(
    client: &mut Client,
    group: &str,
) -> Result<BTreeMap<(String, i32), i64>, Failure> {
    committed_of(client, group, None)
}

/// The same of one member of a broadcast group.
pub(super) fn committed_of(
    client: &mut Client,
    group: &str,
    member: Option<&str>,
) -> Result<BTreeMap<(String, i32), i64>, Failure> {
    let member = member.map(|id| StrBytes::from_string(id.to_owned()));
    let version = if member.is_some() { 9 } else { 8 };
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group_id(group))
        .with_member_id(member)
        .with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let error_of = |response: &OffsetFetchResponse| {
        response.groups.first().map_or(0, |group| group.error_code)
    };
    let response = client.ask_coordinator(group, version, &request, error_of)?;
    let mut offsets = BTreeMap::new();
    for answer in response.groups {
        check_group(group, (answer.error_code, None), Operation::Describe)?;
        for topic in answer.topics {
            for partition in topic
                .partitions
                .iter()
                .filter(|partition| partition.committed_offset >= 0)
            {
                offsets.insert(
                    (topic.name.to_string(), partition.partition_index),
                    partition.committed_offset,
                );
            }
        }
    }
    Ok(offsets)
}

/// Where a share group begins with partitions, as far as that is known.
pub(super) fn starts(shared: &Shared) -> BTreeMap<(String, i32), i64> {
    let known = shared.iter();
    known
        .filter_map(|(key, (start, _))| Some((key.clone(), (*start)?)))
        .collect()
}

impl Reset {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut client = Client::connect(&self.address)?;
        // One that is not there yet is a group of consumers.
        let found = seen(&mut client, &self.group).ok();
        let is_share = found.as_ref().is_some_and(|found| found.kind == "share");
        let before = match is_share {
            true => starts(&shared(&mut client, &self.group)?),
            false => committed(&mut client, &self.group)?,
        };
        let members = found.map_or(0, |found| found.members.len());
        if self.execute && members > 0 {
            let members = counted(members as u64, "member");
            let group = &self.group;
            return Err(format!("{group} has {members}; offsets change while it has none").into());
        }
        let plan = self.plan(&mut client, &before)?;
        print(
            self.address.json,
            &["TOPIC", "PARTITION", "FROM", "TO"],
            &plan,
            |row| {
                vec![
                    row.topic.clone(),
                    row.partition.to_string(),
                    or_dash(&row.from),
                    row.to.to_string(),
                ]
            },
        )?;
        if !self.execute {
            eprintln!("Nothing was changed; add --execute to do it.");
            return Ok(());
        }
        match is_share {
            true => self.alter(&mut client, &plan),
            false => self.commit(&mut client, &plan),
        }
    }

    /// Sets what consumers of a group have committed.
    fn commit(&self, client: &mut Client, plan: &[Planned]) -> Result<(), Failure> {
        let partition = |planned: &Planned| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(planned.partition)
                .with_committed_offset(planned.to)
                .with_committed_metadata(Some(StrBytes::default()))
        };
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partitions(plan.iter().map(partition).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let error_of = |response: &OffsetCommitResponse| {
            let first = response
                .topics
                .first()
                .and_then(|topic| topic.partitions.first());
            first.map_or(0, |partition| partition.error_code)
        };
        for partition in client
            .ask_coordinator(&self.group, 8, &request, error_of)?
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
        {
            let refused = (partition.error_code, None);
            self.check_partition(partition.partition_index, refused)?;
        }
        Ok(())
    }

    /// Sets where a share group begins with partitions, and has it forget what it did beyond.
    fn alter(&self, client: &mut Client, plan: &[Planned]) -> Result<(), Failure> {
        let partition = |planned: &Planned| {
            AlterShareGroupOffsetsRequestPartition::default()
                .with_partition_index(planned.partition)
                .with_start_offset(planned.to)
        };
        let topic = AlterShareGroupOffsetsRequestTopic::default()
            .with_topic_name(topic_name(&self.topic))
            .with_partitions(plan.iter().map(partition).collect());
        let request = AlterShareGroupOffsetsRequest::default()
            .with_group_id(group_id(&self.group))
            .with_topics(vec![topic]);
        let error_of = |response: &AlterShareGroupOffsetsResponse| response.error_code;
        let answer = client.ask_coordinator(&self.group, 0, &request, error_of)?;
        let refused = (answer.error_code, answer.error_message.as_deref());
        check_group(&self.group, refused, Operation::Read)?;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let refused = (partition.error_code, partition.error_message.as_deref());
            self.check_partition(partition.partition_index, refused)?;
        }
        Ok(())
    }

    /// Fails where the offset of a partition was refused.
    fn check_partition(&self, index: i32, refused: (i16, Option<&str>)) -> Result<(), Failure> {
        let resource = match refused.0 == ResponseError::GroupAuthorizationFailed.code() {
            true => format!("group {}", self.group),
            false => format!("topic {}", self.topic),
        };
        let what = format!("{} partition {index}", self.topic);
        check_right(&what, refused, (Operation::Read, &resource))
    }

    fn plan(
        &self,
        client: &mut Client,
        before: &BTreeMap<(String, i32), i64>,
    ) -> Result<Vec<Planned>, Failure> {
        let topic = metadata(client, &self.topic)?;
        let mut indexes: Vec<i32> = topic
            .partitions
            .iter()
            .map(|partition| partition.partition_index)
            .collect();
        if let Some(missing) = self.partition.iter().find(|index| !indexes.contains(index)) {
            return Err(format!("{} has no partition {missing}", self.topic).into());
        }
        indexes.retain(|index| self.partition.is_empty() || self.partition.contains(index));
        let (starts, ends) = (
            offsets(client, &topic, &indexes, -2)?,
            offsets(client, &topic, &indexes, -1)?,
        );
        let by_time = match self.to_timestamp {
            Some(timestamp) => offsets(client, &topic, &indexes, timestamp)?,
            None => BTreeMap::new(),
        };
        // Of those whose leader cannot be asked nothing is known, and 0 would be a guess.
        let known = |of: &BTreeMap<i32, i64>, index: &i32| {
            let offset = of.get(index).copied();
            offset.ok_or_else(|| {
                let why = "has no leader that can be asked; nothing was changed";
                format!("{} partition {index} {why}", self.topic)
            })
        };
        let plan = indexes.into_iter().map(|index| {
            let (start, end) = (known(&starts, &index)?, known(&ends, &index)?);
            if self.to_timestamp.is_some() {
                known(&by_time, &index)?;
            }
            let from = before.get(&(self.topic.clone(), index)).copied();
            let to = match (self.to_offset, self.shift_by, by_time.get(&index)) {
                (Some(offset), _, _) => offset,
                (_, Some(by), _) => from.unwrap_or(start).saturating_add(by),
                (_, _, Some(found)) => {
                    if *found < 0 {
                        end
                    } else {
                        *found
                    }
                }
                _ if self.to_latest => end,
                _ => start,
            };
            Ok(Planned {
                topic: self.topic.clone(),
                partition: index,
                from,
                to: to.clamp(start, end),
            })
        });
        plan.collect()
    }
}
