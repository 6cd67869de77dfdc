//! `metaq group list|describe|delete|reset-offsets`.
//!
//! Tests: tests/cli.rs, tests/broadcast.rs.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use metaq_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, ListGroupsRequest};
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client};
use super::group_members::{SeenGroup, SeenMember, Shared, check_group, group_id, seen, shared};
use super::group_offsets::{Reset, committed, committed_of, starts};
use super::in_flight::{ByLeader, in_flight};
use super::output::{or_dash, print, say};
use super::refused::check;
use super::topic::{identity_of, metadata, offsets};
use crate::group::BROADCAST_PROTOCOL;
use crate::security::Operation;

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Group {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List groups.
    #[command(after_help = "Example: metaq group list")]
    List {
        #[command(flatten)]
        address: Address,
    },
    /// Show a group's partitions with offsets, lag and owners.
    #[command(after_help = "Example: metaq group describe billing --json")]
    Describe {
        /// Group id.
        group: String,
        #[command(flatten)]
        address: Address,
    },
    /// Delete an empty group with its offsets.
    #[command(after_help = "Example: metaq group delete billing")]
    Delete {
        /// Group id.
        group: String,
        #[command(flatten)]
        address: Address,
    },
    /// Set an empty group's offsets; shows what would happen unless --execute is given.
    #[command(
        after_help = "Example: metaq group reset-offsets billing -t orders --to-timestamp 1764000000000 --execute"
    )]
    ResetOffsets(Reset),
}

#[derive(Serialize)]
struct Listed {
    group: String,
    #[serde(rename = "type")]
    kind: String,
    state: String,
    protocol_type: String,
}

#[derive(Serialize)]
struct Lag {
    topic: String,
    partition: i32,
    identity: Option<String>,
    offset: Option<i64>,
    log_end: Option<i64>,
    lag: Option<i64>,
    member: Option<String>,
    client: Option<String>,
    host: Option<String>,
}

impl Group {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::List { address } => list(&mut Client::connect(&address)?, address.json),
            Action::Describe { group, address } => {
                describe(&mut Client::connect(&address)?, &group, address.json)
            }
            Action::Delete { group, address } => {
                let request =
                    DeleteGroupsRequest::default().with_groups_names(vec![group_id(&group)]);
                let error_of = |response: &DeleteGroupsResponse| {
                    response
                        .results
                        .first()
                        .map_or(0, |result| result.error_code)
                };
                let mut client = Client::connect(&address)?;
                let response = client.ask_coordinator(&group, 2, &request, error_of)?;
                let result = response
                    .results
                    .first()
                    .ok_or("the broker did not answer for the group")?;
                check_group(&group, (result.error_code, None), Operation::Delete)?;
                let done = serde_json::json!({ "group": group, "deleted": true });
                say(address.json, &done, &format!("{group} deleted"));
                Ok(())
            }
            Action::ResetOffsets(reset) => reset.run(),
        }
    }
}

fn list(client: &mut Client, json: bool) -> Result<(), Failure> {
    let mut groups = Vec::new();
    for broker in client.metadata(Some(&[]))?.brokers {
        let response = client.ask_broker(broker.node_id.0, 5, &ListGroupsRequest::default())?;
        check("groups", response.error_code, None)?;
        groups.extend(response.groups);
    }
    groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    let row = |group: &metaq_protocol::messages::list_groups_response::ListedGroup| Listed {
        group: group.group_id.to_string(),
        kind: group.group_type.to_string(),
        state: group.group_state.to_string(),
        protocol_type: group.protocol_type.to_string(),
    };
    let rows: Vec<Listed> = groups.iter().map(row).collect();
    print(
        json,
        &["GROUP", "TYPE", "STATE", "PROTOCOL"],
        &rows,
        |row| {
            vec![
                row.group.clone(),
                row.kind.clone(),
                row.state.clone(),
                row.protocol_type.clone(),
            ]
        },
    )
}

/// What the group is, and which of its members are on their way to what they are to have.
fn heading(group: &str, found: &SeenGroup) -> String {
    let assignor = match &*found.protocol {
        "" => "-",
        name => name,
    };
    let (kind, state, members) = (found.kind, &found.state, found.members.len());
    let mut text =
        format!("Group {group}: {kind}, {state}, {members} members, assignor {assignor}");
    let Some((epoch, assignment_epoch)) = found.epochs else {
        return text;
    };
    text.push_str(&format!(", epoch {epoch}"));
    if epoch != assignment_epoch {
        text.push_str(&format!(" (targets are of epoch {assignment_epoch})"));
    }
    for member in &found.members {
        let (has, of) = (member.count(), member.target.unwrap_or_default());
        // In a broadcast group each member has an epoch of its own.
        let is_behind =
            member.epoch != Some(assignment_epoch) && found.protocol != BROADCAST_PROTOCOL;
        if is_behind || has != of {
            let epoch = member.epoch.unwrap_or_default();
            let (client, host) = (&member.client, member.host.trim_start_matches('/'));
            text.push_str(&format!(
                "\n  {client} ({host}) is in epoch {epoch}, has {has} partitions and is to have {of}"
            ));
        }
    }
    text
}

/// A partition, the member that reads it, and where that is.
type Place<'a> = ((String, i32), Option<&'a SeenMember>, Option<i64>);

fn places<'a>(committed: &BTreeMap<(String, i32), i64>, found: &'a SeenGroup) -> Vec<Place<'a>> {
    let mut owners = BTreeMap::new();
    for member in &found.members {
        owners.extend(member.keys().map(|key| (key, member)));
    }
    let keys: BTreeSet<&(String, i32)> = committed.keys().chain(owners.keys()).collect();
    let keys = keys.into_iter().cloned();
    keys.map(|key| {
        let (owner, offset) = (owners.get(&key).copied(), committed.get(&key).copied());
        (key, owner, offset)
    })
    .collect()
}

/// Of a broadcast group: each member has all, each its own offsets.
fn places_of_each<'a>(
    client: &mut Client,
    group: &str,
    found: &'a SeenGroup,
) -> Result<Vec<Place<'a>>, Failure> {
    let mut places = Vec::new();
    for member in &found.members {
        let own = committed_of(client, group, Some(&member.member))?;
        let keys: BTreeSet<(String, i32)> = own.keys().cloned().chain(member.keys()).collect();
        let of_member = keys.into_iter().map(|key| {
            let offset = own.get(&key).copied();
            (key, Some(member), offset)
        });
        places.extend(of_member);
    }
    places.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Ok(places)
}

fn describe(client: &mut Client, group: &str, json: bool) -> Result<(), Failure> {
    let found = seen(client, group)?;
    let shared = match found.kind {
        "share" => shared(client, group)?,
        _ => Shared::new(),
    };
    let committed = match found.kind {
        "share" => starts(&shared),
        _ => committed(client, group)?,
    };
    let places = match found.protocol == BROADCAST_PROTOCOL {
        true => places_of_each(client, group, &found)?,
        false => places(&committed, &found),
    };
    let mut keys: Vec<(String, i32)> = places.iter().map(|(key, _, _)| key.clone()).collect();
    keys.dedup();
    let mut ends: BTreeMap<(String, i32), i64> = BTreeMap::new();
    let mut identities: BTreeMap<(String, i32), String> = BTreeMap::new();
    let mut leaders = ByLeader::new();
    for topic in keys.iter().map(|(topic, _)| topic).collect::<BTreeSet<_>>() {
        let of_topic: Vec<i32> = keys
            .iter()
            .filter(|(name, _)| name == topic)
            .map(|(_, index)| *index)
            .collect();
        let found = metadata(client, topic)?;
        for partition in &found.partitions {
            if of_topic.contains(&partition.partition_index) {
                let topics = leaders.entry(partition.leader_id.0).or_default();
                let partitions: &mut Vec<i32> = topics.entry(topic.clone()).or_default();
                partitions.push(partition.partition_index);
            }
            let key = (topic.clone(), partition.partition_index);
            identities.extend(identity_of(partition).map(|identity| (key, identity)));
        }
        for (index, end) in offsets(client, &found, &of_topic, -1)? {
            ends.insert((topic.clone(), index), end);
        }
    }
    let rows: Vec<Lag> = places
        .into_iter()
        .map(|(key, owner, offset)| {
            let log_end = ends.get(&key).copied();
            Lag {
                identity: identities.get(&key).cloned(),
                offset,
                log_end,
                lag: match shared.get(&key) {
                    Some((_, lag)) => *lag,
                    None => offset
                        .zip(log_end)
                        .map(|(offset, end)| (end - offset).max(0)),
                },
                member: owner.map(|member| member.member.clone()),
                client: owner.map(|member| member.client.clone()),
                host: owner.map(|member| member.host.clone()),
                topic: key.0,
                partition: key.1,
            }
        })
        .collect();
    let in_flight = (found.kind == "share").then(|| {
        let members = &found.members;
        in_flight(client, group, &leaders, members)
    });
    if json {
        let (epoch, assignment_epoch) = found.epochs.unzip();
        let whole = serde_json::json!({ "group": group, "type": found.kind, "state": found.state,
            "protocol": found.protocol, "members": found.members.len(), "partitions": rows,
            "epoch": epoch, "assignment_epoch": assignment_epoch, "each_member": found.members,
            "in_flight": in_flight.as_ref().map(|found| &found.ranges),
            "in_flight_left_out": in_flight.as_ref().map(|found| found.left_out) });
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(());
    }
    println!("{}", heading(group, &found));
    let headings = [
        "TOPIC",
        "PARTITION",
        "IDENTITY",
        "OFFSET",
        "LOG END",
        "LAG",
        "MEMBER",
        "CLIENT",
        "HOST",
    ];
    print(false, &headings, &rows, |row| {
        vec![
            row.topic.clone(),
            row.partition.to_string(),
            or_dash(&row.identity),
            or_dash(&row.offset),
            or_dash(&row.log_end),
            or_dash(&row.lag),
            or_dash(&row.member),
            or_dash(&row.client),
            or_dash(&row.host),
        ]
    })?;
    in_flight.map_or(Ok(()), |found| found.show())
}
