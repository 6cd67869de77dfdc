//! `metaq cluster drain`: others lead what a broker leads, until that is undone.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client};
use super::config::alter;
use super::moves::{BROKER_RESOURCE, Known, Layout, elect_preferred};
use super::output::{counted, print, say};
use crate::cluster::DRAINED;

const SET: i8 = 0;
const DELETE: i8 = 1;
/// How long the others may take to lead; the controller has them do it before it answers.
const MOVE_WAIT: Duration = Duration::from_secs(10);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(
    after_help = "It outlives restarts of the broker, and is undone by --undo alone. The broker goes on copying what others lead,
and leads what no other one that is in sync can: that is listed, and the exit code is 1. It stays the controller,
where it is that.

Examples:
  metaq cluster drain 2
  metaq cluster drain 2 --undo"
)]
pub(super) struct Drain {
    /// The broker's number.
    broker: i32,
    /// Let it lead again, at once what it is the first replica of and in sync with.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    address: Address,
}

/// A partition that it leads still.
#[derive(Serialize)]
struct Stays {
    topic: String,
    partition: i32,
    why: &'static str,
}

impl Drain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut client = Client::connect(&self.address)?;
        let layout = Layout::ask(&mut client, None)?;
        let is_there = layout.racks.contains_key(&self.broker);
        let keeps = |known: &Known| known.replicas.contains(&self.broker);
        if !is_there && !layout.partitions.iter().any(keeps) {
            return Err(format!("there is no broker {}", self.broker).into());
        }
        match self.undo {
            true => self.undo(&mut client, &layout),
            false => self.drain(&mut client, &layout),
        }
    }

    fn set(&self, client: &mut Client, value: Option<&str>) -> Result<(), Failure> {
        let operation = if value.is_some() { SET } else { DELETE };
        let change = (DRAINED.to_owned(), operation, value.map(str::to_owned));
        alter(
            client,
            None,
            BROKER_RESOURCE,
            &self.broker.to_string(),
            vec![change],
        )
    }

    fn drain(&self, client: &mut Client, layout: &Layout) -> Result<(), Failure> {
        let leads = |known: &&Known| known.leader == self.broker;
        let before = layout.partitions.iter().filter(leads).count();
        self.set(client, Some("true"))?;
        let until = Instant::now() + MOVE_WAIT;
        let left = loop {
            let now = Layout::ask(client, None)?;
            let left: Vec<Known> = now.partitions.iter().filter(leads).cloned().collect();
            let may_go = |known: &Known| known.isr.iter().any(|id| *id != self.broker);
            if !left.iter().any(may_go) || Instant::now() > until {
                break left;
            }
            std::thread::sleep(LOOK_PAUSE);
        };
        let left: Vec<Stays> = left.iter().map(|known| self.stays(known)).collect();
        self.tell(before.saturating_sub(left.len()), left)
    }

    fn stays(&self, known: &Known) -> Stays {
        let others = |ids: &[i32]| ids.iter().any(|id| *id != self.broker);
        let why = match (others(&known.replicas), others(&known.isr)) {
            (false, _) => "no other broker keeps it",
            (true, false) => "no other replica is in sync",
            (true, true) => "the others in sync are drained, take no messages or are about to stop",
        };
        Stays {
            topic: known.topic.clone(),
            partition: known.partition,
            why,
        }
    }

    fn tell(&self, moved: usize, left: Vec<Stays>) -> Result<(), Failure> {
        let id = self.broker;
        if self.address.json {
            let told = serde_json::json!({ "broker": id, "moved": moved, "left": left });
            println!("{}", serde_json::to_string_pretty(&told)?);
        } else {
            if !left.is_empty() {
                print(
                    false,
                    &["TOPIC", "PARTITION", "STAYS BECAUSE"],
                    &left,
                    |one| {
                        vec![
                            one.topic.clone(),
                            one.partition.to_string(),
                            one.why.to_owned(),
                        ]
                    },
                )?;
            }
            let moved = counted(moved as u64, "partition");
            println!("broker {id} is drained: others lead {moved} that it led");
        }
        match left.len() as u64 {
            0 => Ok(()),
            n => Err(format!("broker {id} leads {} still", counted(n, "partition")).into()),
        }
    }

    fn undo(&self, client: &mut Client, layout: &Layout) -> Result<(), Failure> {
        self.set(client, None)?;
        let id = self.broker;
        let is_its = |known: &&Known| known.replicas.first() == Some(&id) && known.leader != id;
        let own = layout.partitions.iter().filter(is_its);
        let own: Vec<(&str, i32)> = own
            .map(|known| (known.topic.as_str(), known.partition))
            .collect();
        let back = match own.is_empty() {
            true => 0,
            false => elect_preferred(client, &own)?,
        };
        let later = own.len() - back;
        let rest = match later {
            0 => String::new(),
            n => format!(
                "; {} follow when it is in sync",
                counted(n as u64, "partition")
            ),
        };
        let sentence = format!(
            "broker {id} is drained no more: it leads {} again{rest}",
            counted(back as u64, "partition")
        );
        let told = serde_json::json!({ "broker": id, "back": back, "later": later });
        say(self.address.json, &told, &sentence);
        Ok(())
    }
}
