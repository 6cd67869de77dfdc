//! `metaq cluster drain`: others lead what a broker leads, until that is undone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::client::{Address, Client};
use super::config::alter;
use super::moves::{
    BROKER_RESOURCE, Known, Layout, Reluctance, elect_preferred, is_strictly_ordered, reluctance,
};
use super::output::{counted, print, say};
use super::reassign::broker_number;
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
and leads what no other one that is in sync can, and what has ordering=strict: that is listed, and the exit code is 1.
It stays the controller, where it is that.

Examples:
  metaq cluster drain 2
  metaq cluster drain 2 --undo"
)]
pub(super) struct Drain {
    /// The broker's number.
    #[arg(value_parser = broker_number, allow_hyphen_values = true)]
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

/// What the other brokers keep from leading, where they do not willingly.
type Others = BTreeMap<i32, Option<Reluctance>>;

impl Drain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut client = Client::connect(&self.address)?;
        let layout = Layout::of_controller(&mut client)?;
        let is_there = layout.racks.contains_key(&self.broker);
        let keeps = |known: &Known| known.replicas.contains(&self.broker);
        if !is_there && !layout.partitions.iter().any(keeps) {
            return Err(format!("there is no broker {}", self.broker).into());
        }
        // Only the broker itself says.
        let was_drained = match is_there {
            true => Some(self.is_drained(&mut client)?),
            false => None,
        };
        match self.undo {
            true => self.undo(&mut client, was_drained),
            false => self.drain(&mut client, &layout, was_drained),
        }
    }

    fn is_drained(&self, client: &mut Client) -> Result<bool, Failure> {
        Ok(reluctance(client, self.broker)? == Some(Reluctance::Drained))
    }

    /// Waits until the broker itself knows, where it is there: whoever asks next is told so.
    fn until_it_knows(&self, client: &mut Client, drained: bool) {
        let until = Instant::now() + MOVE_WAIT;
        while self.is_drained(client).is_ok_and(|is| is != drained) && Instant::now() < until {
            std::thread::sleep(LOOK_PAUSE);
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

    fn leads(&self, layout: &Layout) -> Vec<Known> {
        let leads = |known: &&Known| known.leader == self.broker;
        layout.partitions.iter().filter(leads).cloned().collect()
    }

    fn drain(
        &self,
        client: &mut Client,
        before: &Layout,
        was_drained: Option<bool>,
    ) -> Result<(), Failure> {
        let before = self.leads(before);
        let strict = strictly_ordered(client, &before);
        self.set(client, Some("true"))?;
        let mut others = Others::new();
        for id in Layout::of_controller(client)?.racks.into_keys() {
            // One that goes meanwhile is not there.
            if id != self.broker
                && let Ok(reluctance) = reluctance(client, id)
            {
                others.insert(id, reluctance);
            }
        }
        let until = Instant::now() + MOVE_WAIT;
        let left = loop {
            let left = self.leads(&Layout::of_controller(client)?);
            let may_go = |known: &Known| {
                let leads = |id: &i32| others.get(id) == Some(&None);
                known.isr.iter().any(leads) && !strict.contains(&known.topic)
            };
            if !left.iter().any(may_go) || Instant::now() > until {
                break left;
            }
            std::thread::sleep(LOOK_PAUSE);
        };
        let is_left = |known: &&Known| {
            let is_it =
                |one: &Known| (&one.topic, one.partition) == (&known.topic, known.partition);
            left.iter().any(is_it)
        };
        let moved = before.len() - before.iter().filter(is_left).count();
        if was_drained.is_some() {
            self.until_it_knows(client, true);
        }
        let left = left.iter().map(|known| Stays {
            topic: known.topic.clone(),
            partition: known.partition,
            why: match strict.contains(&known.topic) {
                true => "its order is strict: it has no other leader",
                false => why_it_stays(known, self.broker, &others),
            },
        });
        self.tell((moved, before.len()), left.collect(), was_drained)
    }

    fn tell(
        &self,
        (moved, led): (usize, usize),
        left: Vec<Stays>,
        was_drained: Option<bool>,
    ) -> Result<(), Failure> {
        let id = self.broker;
        if self.address.json {
            let told = serde_json::json!({ "broker": id, "was_drained": was_drained, "moved": moved, "left": left });
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
            let moved = match left.is_empty() {
                true => counted(moved as u64, "partition"),
                false => format!("{moved} of {}", counted(led as u64, "partition")),
            };
            match was_drained {
                None => println!("broker {id} is away, and drained when it is back"),
                Some(true) => {
                    println!("broker {id} was drained before: others lead {moved} that it led");
                }
                Some(false) => println!("broker {id} is drained: others lead {moved} that it led"),
            }
        }
        match left.len() as u64 {
            0 => Ok(()),
            n => Err(format!("broker {id} leads {} still", counted(n, "partition")).into()),
        }
    }

    fn undo(&self, client: &mut Client, was_drained: Option<bool>) -> Result<(), Failure> {
        self.set(client, None)?;
        let id = self.broker;
        if was_drained.is_some() {
            self.until_it_knows(client, false);
        }
        let is_its = |known: &Known| known.replicas.first() == Some(&id) && known.leader != id;
        let elsewhere = |client: &mut Client| -> Result<Vec<Known>, Failure> {
            let layout = Layout::of_controller(client)?;
            Ok(layout.partitions.into_iter().filter(is_its).collect())
        };
        let own = elsewhere(client)?;
        if !own.is_empty() {
            let named = own
                .iter()
                .map(|known| (known.topic.as_str(), known.partition));
            elect_preferred(client, &named.collect::<Vec<_>>())?;
        }
        let later = match own.is_empty() {
            true => 0,
            false => elsewhere(client)?.len(),
        };
        let back = own.len().saturating_sub(later);
        let rest = match later as u64 {
            0 => String::new(),
            1 => "; 1 partition follows when it is in sync".to_owned(),
            n => format!("; {n} partitions follow when it is in sync"),
        };
        let back_again = counted(back as u64, "partition");
        let sentence = match was_drained {
            None => format!("broker {id} is away, and drained no more when it is back"),
            Some(true) => {
                format!("broker {id} is drained no more: it leads {back_again} again{rest}")
            }
            Some(false) => {
                format!("broker {id} was not drained: it leads {back_again} again{rest}")
            }
        };
        let told = serde_json::json!({ "broker": id, "was_drained": was_drained, "back": back, "later": later });
        say(self.address.json, &told, &sentence);
        Ok(())
    }
}

/// The topics of partitions that have ordering=strict, of those that are there and may be seen.
fn strictly_ordered(client: &mut Client, of: &[Known]) -> BTreeSet<String> {
    let topics: BTreeSet<&String> = of.iter().map(|known| &known.topic).collect();
    let is_strict = |topic: &&String| is_strictly_ordered(client, topic).unwrap_or(false);
    topics.into_iter().filter(is_strict).cloned().collect()
}

/// Why no other broker leads a partition. `others` are those that are there.
fn why_it_stays(known: &Known, own: i32, others: &Others) -> &'static str {
    let kept_by_others = known.replicas.iter().any(|id| *id != own);
    let in_sync = known.isr.iter().filter(|id| **id != own);
    let in_sync: Vec<&Option<Reluctance>> = in_sync.filter_map(|id| others.get(id)).collect();
    let all_are = |what: Reluctance| in_sync.iter().all(|one| **one == Some(what));
    match () {
        () if !kept_by_others => "no other broker keeps it",
        () if in_sync.is_empty() => "no other replica is in sync",
        () if in_sync.contains(&&None) => "the others do not lead it yet",
        () if all_are(Reluctance::FollowsOnly) => "the others in sync only follow",
        () if all_are(Reluctance::Drained) => "the others in sync are drained too",
        () if all_are(Reluctance::TakesNothing) => "the others in sync take no messages",
        () => "the others in sync are drained, take no messages or only follow",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_why_a_partition_stays_is_that_of_the_others_in_sync() {
        let others: Others = [
            (2, Some(Reluctance::FollowsOnly)),
            (3, Some(Reluctance::Drained)),
            (4, Some(Reluctance::TakesNothing)),
            (5, None),
        ]
        .into();
        let why = |replicas: &[i32], isr: &[i32]| {
            let known = Known {
                topic: "t".to_owned(),
                partition: 0,
                leader: 1,
                replicas: replicas.to_vec(),
                isr: isr.to_vec(),
            };
            why_it_stays(&known, 1, &others)
        };
        assert_eq!(why(&[1], &[1]), "no other broker keeps it");
        assert_eq!(why(&[1, 5], &[1]), "no other replica is in sync");
        // One that is away is in sync with nothing.
        assert_eq!(why(&[1, 9], &[1, 9]), "no other replica is in sync");
        assert_eq!(why(&[1, 2], &[1, 2]), "the others in sync only follow");
        assert_eq!(why(&[3, 1], &[3, 1]), "the others in sync are drained too");
        assert_eq!(why(&[1, 4], &[1, 4]), "the others in sync take no messages");
        assert_eq!(
            why(&[1, 2, 3], &[1, 2, 3]),
            "the others in sync are drained, take no messages or only follow"
        );
        assert_eq!(why(&[1, 5], &[1, 5]), "the others do not lead it yet");
    }
}
