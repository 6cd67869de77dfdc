//! `metaq topic reassign`: other brokers for the partitions of topics, or more or fewer replicas.
//!
//! Tests: tests/replicas.rs.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client};
use super::moves::{Known, Layout, Move, Ongoing, carry_out, ongoing, plan, submit};
use super::output::{counted, print};

/// How long the broker that is asked may take to hear that a move was taken back.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// A broker's number on the command line.
pub(super) fn broker_number(text: &str) -> Result<i32, String> {
    let number = text.trim().parse().ok().filter(|id| *id >= 0);
    number.ok_or_else(|| "a broker's number is expected (brokerId), such as 2".to_owned())
}

fn replication_factor(text: &str) -> Result<u16, String> {
    let why = || "a number of replicas is expected, which is 1 or more".to_owned();
    let factor = text.trim().parse().ok().filter(|n| *n >= 1);
    factor.ok_or_else(why)
}

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --execute nothing is changed. What moves goes on when this command is interrupted.

Examples:
  metaq topic reassign orders --replication-factor 3
  metaq topic reassign orders payments --brokers 4,5,6 --execute
  metaq topic reassign orders --status
  metaq topic reassign orders --cancel"
)]
pub(super) struct Reassign {
    /// Names of topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// The brokers that are to keep them; all that are there when not given.
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = broker_number, allow_hyphen_values = true)]
    brokers: Option<Vec<i32>>,
    /// Replicas of each partition; as many as it has when not given.
    #[arg(short, long, value_name = "N", value_parser = replication_factor, allow_hyphen_values = true)]
    replication_factor: Option<u16>,
    /// Do it, and wait until it is done.
    #[arg(long, conflicts_with_all = ["cancel", "status"])]
    execute: bool,
    /// Take back what moves at this moment.
    #[arg(long, conflicts_with_all = ["status", "brokers", "replication_factor"])]
    cancel: bool,
    /// Show what moves at this moment.
    #[arg(long, conflicts_with_all = ["brokers", "replication_factor"])]
    status: bool,
    #[command(flatten)]
    address: Address,
}

/// A partition that moves, and how many of the brokers that come are in sync.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    ongoing: Ongoing,
    in_sync: usize,
}

impl Reassign {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(twice) = self.brokers.as_deref().and_then(named_twice) {
            return Err(format!("--brokers names broker {twice} more than once").into());
        }
        let mut client = Client::connect(&self.address)?;
        let layout = Layout::ask(&mut client, Some(&self.topics))?;
        let moving: Vec<Ongoing> = ongoing(&mut client)?
            .into_iter()
            .filter(|one| self.topics.contains(&one.topic))
            .collect();
        if self.status {
            return show_ongoing(moving, &layout.partitions, self.address.json);
        }
        if self.cancel {
            return self.cancel(&mut client, &moving);
        }
        let moves = self.plan(&mut client, &layout, &moving)?;
        show_moves(&moves, self.address.json)?;
        if self.execute && !moves.is_empty() {
            carry_out(&mut client, &moves)?;
        }
        tell(&moves, layout.partitions.len(), self.execute);
        Ok(())
    }

    /// Takes back what moves, waits until that is known, and shows who keeps the partitions then.
    fn cancel(&self, client: &mut Client, moving: &[Ongoing]) -> Result<(), Failure> {
        if moving.is_empty() {
            return show_ongoing(Vec::new(), &[], self.address.json);
        }
        let all = moving
            .iter()
            .map(|one| (one.topic.as_str(), one.partition, None));
        submit(client, &all.collect::<Vec<_>>())?;
        let is_meant = |topic: &str, partition: i32| {
            let mut meant = moving.iter();
            meant.any(|one| (one.topic.as_str(), one.partition) == (topic, partition))
        };
        let until = Instant::now() + CANCEL_WAIT;
        loop {
            let still = ongoing(client)?.into_iter();
            let still = still.filter(|one| is_meant(&one.topic, one.partition));
            match still.count() as u64 {
                0 => break,
                n if Instant::now() > until => {
                    let n = counted(n, "partition");
                    return Err(format!("{n} still move, though it was taken back").into());
                }
                _ => std::thread::sleep(LOOK_PAUSE),
            }
        }
        let mut now = Layout::ask(client, Some(&self.topics))?.partitions;
        now.retain(|known| is_meant(&known.topic, known.partition));
        let n = counted(moving.len() as u64, "partition");
        eprintln!("{n} taken back");
        let headings = ["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN SYNC"];
        print(self.address.json, &headings, &now, |known| {
            vec![
                known.topic.clone(),
                known.partition.to_string(),
                known.leader.to_string(),
                format!("{:?}", known.replicas),
                format!("{:?}", known.isr),
            ]
        })
    }

    fn plan(
        &self,
        client: &mut Client,
        layout: &Layout,
        moving: &[Ongoing],
    ) -> Result<Vec<Move>, Failure> {
        if let Some(one) = moving.first() {
            return Err(format!(
                "{}-{} moves already: wait for it (--status), or take it back (--cancel)",
                one.topic, one.partition
            )
            .into());
        }
        let mut hosts = layout.hosts(client, self.brokers.as_deref())?;
        let factor = self.replication_factor.map(usize::from);
        let most = layout.partitions.iter().map(|known| known.replicas.len());
        let needed = factor.or(most.max()).unwrap_or(0);
        if needed > hosts.len() {
            let there = counted(hosts.len() as u64, "broker");
            return Err(
                format!("{needed} replicas need as many brokers, and there are {there}").into(),
            );
        }
        // What they keep of other topics decides between brokers alike.
        for known in Layout::ask(client, None)?.partitions {
            let others = known.replicas.iter();
            for id in others.filter(|_| !self.topics.contains(&known.topic)) {
                if let Some(host) = hosts.get_mut(id) {
                    host.kept += 1;
                }
            }
        }
        Ok(plan(&hosts, &layout.partitions, factor))
    }
}

fn named_twice(ids: &[i32]) -> Option<i32> {
    let is_earlier = |(n, id): &(usize, &i32)| ids[..*n].contains(id);
    ids.iter().enumerate().find(is_earlier).map(|(_, id)| *id)
}

/// What was changed, or would be, in a sentence.
pub(super) fn tell(moves: &[Move], partitions: usize, is_done: bool) {
    let copies: usize = moves.iter().map(|one| one.copied_to.len()).sum();
    let (changed, copies) = (moves.len(), counted(copies as u64, "replica"));
    match (changed, is_done) {
        (0, _) => eprintln!("nothing to change"),
        (_, true) => eprintln!("{changed} of {partitions} partitions changed, {copies} copied"),
        (_, false) => eprintln!(
            "{changed} of {partitions} partitions would change, {copies} would be copied; --execute does it"
        ),
    }
}

pub(super) fn show_moves(moves: &[Move], json: bool) -> Result<(), Failure> {
    let headings = ["TOPIC", "PARTITION", "REPLICAS", "PLANNED", "COPIED TO"];
    if moves.is_empty() && !json {
        return Ok(());
    }
    print(json, &headings, moves, |one| {
        vec![
            one.topic.clone(),
            one.partition.to_string(),
            format!("{:?}", one.replicas),
            format!("{:?}", one.planned),
            format!("{:?}", one.copied_to),
        ]
    })
}

fn show_ongoing(moving: Vec<Ongoing>, known: &[Known], json: bool) -> Result<(), Failure> {
    let shown = |one: Ongoing| {
        let mut known = known.iter();
        let known =
            known.find(|known| (&known.topic, known.partition) == (&one.topic, one.partition));
        let isr = known.map_or(&[][..], |known| &known.isr[..]);
        let in_sync = one.adding.iter().filter(|id| isr.contains(id)).count();
        Shown {
            ongoing: one,
            in_sync,
        }
    };
    let rows: Vec<Shown> = moving.into_iter().map(shown).collect();
    let headings = [
        "TOPIC",
        "PARTITION",
        "REPLICAS",
        "ADDING",
        "REMOVING",
        "IN SYNC",
    ];
    if rows.is_empty() && !json {
        eprintln!("nothing moves");
        return Ok(());
    }
    print(json, &headings, &rows, |row| {
        let one = &row.ongoing;
        vec![
            one.topic.clone(),
            one.partition.to_string(),
            format!("{:?}", one.replicas),
            format!("{:?}", one.adding),
            format!("{:?}", one.removing),
            format!("{} of {}", row.in_sync, one.adding.len()),
        ]
    })
}
