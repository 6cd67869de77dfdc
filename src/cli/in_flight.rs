//! What members of a share group have at this moment, as `metaq group describe` shows it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Failure;
use super::client::Client;
use super::group_members::SeenMember;
use super::output::{or_dash, print};
use crate::api::{IN_FLIGHT_VERSION, ShareInFlight, in_flight_answer, in_flight_request};

/// Ranges that are shown of all partitions.
const RANGES_SHOWN: usize = 200;

/// Partitions by their leader, and by topic.
pub(super) type ByLeader = BTreeMap<i32, BTreeMap<String, Vec<i32>>>;

/// Records that a member has.
#[derive(Serialize)]
pub(super) struct Acquired {
    topic: String,
    partition: i32,
    first: i64,
    last: i64,
    member: String,
    client: Option<String>,
    held_ms: i64,
    lock_ms: i64,
    delivery_count: i16,
}

/// Some ranges of records, and how many there are beyond those.
pub(super) struct InFlight {
    pub(super) ranges: Vec<Acquired>,
    pub(super) left_out: usize,
}

/// Asks the leaders; one that does not answer is left out.
pub(super) fn in_flight(
    client: &mut Client,
    group: &str,
    leaders: &ByLeader,
    members: &[SeenMember],
) -> InFlight {
    let mut found: BTreeMap<(String, i32), ShareInFlight> = BTreeMap::new();
    for (leader, topics) in leaders {
        let request = in_flight_request(group, topics);
        if let Ok(answer) = client.ask_broker(*leader, IN_FLIGHT_VERSION, &request) {
            found.extend(in_flight_answer(&answer));
        }
    }
    let mut left_out = 0;
    let mut ranges = Vec::new();
    for ((topic, partition), told) in found {
        left_out += told.left_out;
        ranges.extend(told.ranges.into_iter().map(|range| {
            Acquired {
                topic: topic.clone(),
                partition,
                first: range.first,
                last: range.last,
                client: members
                    .iter()
                    .find(|member| member.member == range.member_id)
                    .map(|member| member.client.clone()),
                member: range.member_id,
                held_ms: range.held_ms,
                lock_ms: range.lock_ms,
                delivery_count: range.delivery_count,
            }
        }));
    }
    left_out += ranges.len().saturating_sub(RANGES_SHOWN);
    ranges.truncate(RANGES_SHOWN);
    InFlight { ranges, left_out }
}

impl InFlight {
    pub(super) fn show(&self) -> Result<(), Failure> {
        if self.ranges.is_empty() {
            println!("\nIn flight: no member has records at this moment");
            return Ok(());
        }
        println!("\nIn flight:");
        let headings = [
            "TOPIC",
            "PARTITION",
            "FIRST",
            "LAST",
            "MEMBER",
            "CLIENT",
            "HELD MS",
            "LOCK MS",
            "DELIVERIES",
        ];
        print(false, &headings, &self.ranges, |row| {
            vec![
                row.topic.clone(),
                row.partition.to_string(),
                row.first.to_string(),
                row.last.to_string(),
                row.member.clone(),
                or_dash(&row.client),
                row.held_ms.to_string(),
                row.lock_ms.to_string(),
                row.delivery_count.to_string(),
            ]
        })?;
        if self.left_out > 0 {
            println!("and {} more ranges", self.left_out);
        }
        Ok(())
    }
}
