//! `metaq cluster balance`: as many replicas and leaders on each broker, each partition over as many racks as it can be.
//!
//! Tests: tests/replicas.rs.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client};
use super::moves::{Known, Layout, Move, carry_out, elect_preferred, ongoing, plan};
use super::output::{counted, or_dash, print};
use super::reassign::{show_moves, tell};

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --execute nothing is changed. Partitions count alike, however large they are. What moves already, and
what a broker keeps that is away, is left alone. What moves goes on when this command is interrupted.

Examples:
  metaq cluster balance
  metaq cluster balance --execute"
)]
pub(super) struct Balance {
    /// Do it, and wait until it is done.
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    address: Address,
}

/// What a broker has, and would have.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Share {
    broker: i32,
    rack: Option<String>,
    replicas: usize,
    replicas_planned: usize,
    leaders: usize,
    leaders_planned: usize,
}

#[derive(Serialize)]
struct Shown<'a> {
    moves: &'a [Move],
    brokers: Vec<Share>,
    left_alone: usize,
}

impl Balance {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut client = Client::connect(&self.address)?;
        let layout = Layout::ask(&mut client, None)?;
        let moving = ongoing(&mut client)?;
        let moving: BTreeSet<(&str, i32)> = moving
            .iter()
            .map(|one| (one.topic.as_str(), one.partition))
            .collect();
        let mut hosts = layout.hosts(&mut client, None)?;
        let is_meant = |known: &Known| {
            let is_there = |id: &i32| layout.racks.contains_key(id);
            let moves = moving.contains(&(known.topic.as_str(), known.partition));
            !moves && known.replicas.iter().all(is_there)
        };
        let (meant, rest): (Vec<Known>, Vec<Known>) =
            layout.partitions.iter().cloned().partition(is_meant);
        for id in rest.iter().flat_map(|known| &known.replicas) {
            if let Some(host) = hosts.get_mut(id) {
                host.kept += 1;
            }
        }
        let moves = plan(&hosts, &meant, None);
        let shares = shares(&layout, &moves);
        match self.address.json {
            true => {
                let shown = Shown {
                    moves: &moves,
                    brokers: shares,
                    left_alone: rest.len(),
                };
                println!("{}", serde_json::to_string_pretty(&shown)?);
            }
            false => {
                show_moves(&moves, false)?;
                show_shares(&shares)?;
            }
        }
        if !rest.is_empty() {
            let n = counted(rest.len() as u64, "partition");
            eprintln!("{n} left alone: on a broker that is away, or moving already");
        }
        if self.execute && !moves.is_empty() {
            carry_out(&mut client, &moves)?;
        }
        let elsewhere = led_elsewhere(&meant, &moves);
        if !moves.is_empty() || elsewhere.is_empty() {
            tell(&moves, meant.len(), self.execute);
        }
        lead(&mut client, &elsewhere, self.execute)
    }
}

/// What is not moved, and not led by the first of its replicas.
fn led_elsewhere<'a>(meant: &'a [Known], moves: &[Move]) -> Vec<(&'a str, i32)> {
    let moved: BTreeSet<(&str, i32)> = moves
        .iter()
        .map(|one| (one.topic.as_str(), one.partition))
        .collect();
    meant
        .iter()
        .filter(|known| known.replicas.first() != Some(&known.leader))
        .map(|known| (known.topic.as_str(), known.partition))
        .filter(|name| !moved.contains(name))
        .collect()
}

/// Has the first replicas lead also what was even already, or says that they would.
fn lead(client: &mut Client, elsewhere: &[(&str, i32)], executes: bool) -> Result<(), Failure> {
    if elsewhere.is_empty() {
        return Ok(());
    }
    let counted = counted(elsewhere.len() as u64, "partition");
    match executes {
        true => {
            let elected = elect_preferred(client, elsewhere)?;
            eprintln!("of {counted} more, {elected} are led by the first of their replicas again");
        }
        false => eprintln!(
            "{counted} more would be led by the first of their replicas again; --execute does it"
        ),
    }
    Ok(())
}

fn shares(layout: &Layout, moves: &[Move]) -> Vec<Share> {
    let planned: BTreeMap<(&str, i32), &[i32]> = moves
        .iter()
        .map(|one| ((one.topic.as_str(), one.partition), &one.planned[..]))
        .collect();
    let share = |(id, rack): (&i32, &Option<String>)| {
        let mut share = Share {
            broker: *id,
            rack: rack.clone(),
            replicas: 0,
            replicas_planned: 0,
            leaders: 0,
            leaders_planned: 0,
        };
        for known in &layout.partitions {
            let name = (known.topic.as_str(), known.partition);
            let after = planned.get(&name).copied().unwrap_or(&known.replicas);
            share.replicas += usize::from(known.replicas.contains(id));
            share.replicas_planned += usize::from(after.contains(id));
            share.leaders += usize::from(known.leader == *id);
            share.leaders_planned += usize::from(after.first() == Some(id));
        }
        share
    };
    layout.racks.iter().map(share).collect()
}

fn show_shares(shares: &[Share]) -> Result<(), Failure> {
    let headings = [
        "BROKER", "RACK", "REPLICAS", "PLANNED", "LEADERS", "PLANNED",
    ];
    print(false, &headings, shares, |share| {
        vec![
            share.broker.to_string(),
            or_dash(&share.rack),
            share.replicas.to_string(),
            share.replicas_planned.to_string(),
            share.leaders.to_string(),
            share.leaders_planned.to_string(),
        ]
    })
}
