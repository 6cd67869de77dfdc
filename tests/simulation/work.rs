//! What members of groups of all kinds were given, told and said of one topic, and whether that can be true.
//!
//! - A partition of a consumer group, and a task of a streams group, has one owner: who was given it keeps it until it gives it
//!   up, or until nothing of it was answered for a session's length.
//! - The offset that an owner is told is one that was committed, and none before the last commit that was answered.
//! - A record that a share group's member accepted, and had that answered, is given to nobody who asks after that; how often it
//!   was given out does not get less.
//! - At the end all is owned, committed, and accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::batch::BatchBuilder;
use metaq_protocol::messages::ProduceRequest;
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use parking_lot::Mutex;

use super::client::name;
use super::history::{Ends, History, Place, WORK, WORK_PLACES};
use super::random::Random;
use super::router::{Brokers, Router, now_ms};
use super::world::Phase;

/// Of members of all kinds.
pub const SESSION_MS: u64 = 800;
/// Kafka's longest: faults are not to make a record poison.
pub const DELIVERIES_MAX: i16 = 10;
/// Hosts run one after the other, a tick each.
const CLOCKS_MS: u64 = 25;
const PRODUCE_MAX: Duration = Duration::from_millis(500);

/// What a member may own: a partition, or a task of the topology's only part.
pub type Item = i32;

/// Who owns what in one group.
#[derive(Default)]
struct Owner {
    /// And since when it knows, ms.
    items: BTreeMap<Item, u64>,
    /// When it sent what was answered last, ms.
    heard_ms: u64,
}

/// What is committed for a partition by one who goes on there.
#[derive(Default)]
struct Commits {
    answered: i64,
    sent: i64,
}

#[derive(Default)]
struct Delivered {
    /// How often it was given out, and when somebody was told so, ms.
    count: i16,
    told_ms: u64,
    /// Somebody accepted it, answered or not.
    is_asked: bool,
    /// When somebody was told that it is accepted, ms.
    accepted_ms: Option<u64>,
}

#[derive(Default)]
struct Book {
    owners: BTreeMap<&'static str, BTreeMap<String, Owner>>,
    commits: BTreeMap<(String, i32), Commits>,
    delivered: BTreeMap<(i32, i64), Delivered>,
}

/// Clones share it.
#[derive(Clone)]
pub struct Work {
    book: Arc<Mutex<Book>>,
    history: History,
}

impl Work {
    pub fn new(history: History) -> Self {
        Self {
            book: Arc::default(),
            history,
        }
    }

    /// A member was told what it owns, or with `None` that this is as it was, in answer to what it sent at `sent_ms`. False where
    /// the answer took so long that it tells nothing any more.
    pub fn told(
        &self,
        group: &'static str,
        member: &str,
        (sent_ms, items): (u64, Option<&BTreeSet<Item>>),
    ) -> bool {
        let now_ms = now_ms();
        let mut book = self.book.lock();
        let owners = book.owners.entry(group).or_default();
        if now_ms >= sent_ms + SESSION_MS {
            owners.remove(member);
            return false;
        }
        let own = owners.entry(member.to_owned()).or_default();
        own.heard_ms = sent_ms;
        let Some(items) = items else { return true };
        own.items.retain(|item, _| items.contains(item));
        let is_new = |item: &&Item| !own.items.contains_key(*item);
        let taken: Vec<Item> = items.iter().filter(is_new).copied().collect();
        own.items.extend(taken.iter().map(|item| (*item, now_ms)));
        for (other, owner) in owners.iter_mut().filter(|(other, _)| *other != member) {
            for item in taken.iter().filter(|item| owner.items.contains_key(item)) {
                if owner.heard_ms + SESSION_MS > now_ms + CLOCKS_MS {
                    self.history.fail(format!(
                        "{group}: {item} is {member}'s, and {other}'s of whom was heard at {} ms",
                        owner.heard_ms
                    ));
                }
            }
            // It was away for too long.
            owner.items.retain(|item, _| !taken.contains(item));
        }
        true
    }

    /// A member is none any more, or another one.
    pub fn gone(&self, group: &'static str, member: &str) {
        let mut book = self.book.lock();
        book.owners.entry(group).or_default().remove(member);
    }

    /// What a member sent to be committed at `sent_ms` was: nobody else may have had the partition by then.
    pub fn committed_by(&self, group: &'static str, member: &str, (item, sent_ms): (Item, u64)) {
        let book = self.book.lock();
        let owners = book.owners.get(group).into_iter().flatten();
        for (other, owner) in owners.filter(|(other, _)| *other != member) {
            let since_ms = owner.items.get(&item);
            if let Some(since_ms) = since_ms.filter(|since| **since + CLOCKS_MS < sent_ms) {
                self.history.fail(format!(
                    "{group}: {member} committed {item} at {sent_ms} ms, which is {other}'s since {since_ms} ms"
                ));
            }
        }
    }

    /// `who` is about to commit an offset.
    pub fn committing(&self, who: &str, partition: i32, offset: i64) {
        let mut book = self.book.lock();
        let commits = book.commits.entry((who.to_owned(), partition)).or_default();
        commits.sent = commits.sent.max(offset);
    }

    pub fn committed(&self, who: &str, partition: i32, offset: i64) {
        let mut book = self.book.lock();
        let commits = book.commits.entry((who.to_owned(), partition)).or_default();
        commits.answered = commits.answered.max(offset);
    }

    /// What is committed at least.
    pub fn last_commit(&self, who: &str, partition: i32) -> i64 {
        let book = self.book.lock();
        let commits = book.commits.get(&(who.to_owned(), partition));
        commits.map_or(0, |commits| commits.answered)
    }

    /// An offset was told to somebody who asked when `at_least` was committed.
    pub fn found(&self, (who, partition): (&str, i32), at_least: i64, offset: i64) {
        let mut book = self.book.lock();
        let commits = book.commits.entry((who.to_owned(), partition)).or_default();
        let (sent, offset) = (commits.sent, offset.max(0));
        // Also where the answer was lost.
        commits.answered = commits.answered.max(offset);
        if !(at_least..=sent).contains(&offset) {
            self.history.fail(format!(
                "{who}: the offset of {partition} is {offset}, not {at_least} to {sent}"
            ));
        }
    }

    /// A share group's member was given a record, in answer to what it sent at `sent_ms`.
    pub fn delivered(&self, (partition, offset): (i32, i64), sent_ms: u64, count: i16) {
        let mut book = self.book.lock();
        let known = book.delivered.entry((partition, offset)).or_default();
        if let Some(accepted_ms) = known.accepted_ms
            && sent_ms > accepted_ms + CLOCKS_MS
        {
            self.history.fail(format!(
                "{partition}/{offset} is given out, and was accepted at {accepted_ms} ms"
            ));
        }
        if sent_ms > known.told_ms + CLOCKS_MS && count < known.count {
            self.history.fail(format!(
                "{partition}/{offset} is given out the {count}. time, and was the {}. time",
                known.count
            ));
        }
        known.count = known.count.max(count);
        known.told_ms = now_ms();
    }

    /// A member is about to accept a record.
    pub fn accepting(&self, partition: i32, offset: i64) {
        let mut book = self.book.lock();
        let known = book.delivered.entry((partition, offset)).or_default();
        known.is_asked = true;
    }

    pub fn accepted(&self, partition: i32, offset: i64) {
        let mut book = self.book.lock();
        let known = book.delivered.entry((partition, offset)).or_default();
        known.accepted_ms.get_or_insert_with(now_ms);
    }

    /// What is not at its end.
    pub fn lacks(
        &self,
        ends: &BTreeMap<Place, Ends>,
        (owned, committed): (&[&str], &[&str]),
    ) -> Option<String> {
        let book = self.book.lock();
        for group in owned {
            let members = book.owners.get(group);
            let items = members.into_iter().flatten();
            let items: Vec<Item> = items
                .flat_map(|(_, owner)| owner.items.keys().copied())
                .collect();
            if items.len() != WORK_PLACES.len() {
                return Some(format!("{group}: {items:?} are owned"));
            }
        }
        for place in WORK_PLACES {
            let end = ends.get(&place).map_or(-1, |ends| ends.log_end);
            let left = (0..end).find(|offset| {
                let known = book.delivered.get(&(place.1, *offset));
                !known.is_some_and(|known| known.is_asked || known.count == DELIVERIES_MAX)
            });
            if let Some(offset) = left {
                return Some(format!("{place:?}: nobody accepted {offset} of {end}"));
            }
            let behind = committed.iter().find(|who| {
                let commits = book.commits.get(&(who.to_string(), place.1));
                commits.map_or(0, |commits| commits.answered) != end
            });
            if let Some(who) = behind {
                return Some(format!("{place:?}: {who} has not committed {end}"));
            }
        }
        None
    }

    /// What happened, in numbers, for the trace.
    pub fn summary(&self) -> String {
        let book = self.book.lock();
        let again = book.delivered.values().filter(|known| known.count > 1);
        let members: usize = book.owners.values().map(BTreeMap::len).sum();
        format!(
            "{} records were given out, {} of them again, {members} members are there",
            book.delivered.len(),
            again.count()
        )
    }
}

/// Writes records to all partitions until the faults are over.
pub async fn feed(brokers: Brokers, history: History, phase: Phase, mut random: Random) {
    let mut router = Router::of("feeder", brokers, &WORK_PLACES);
    let mut number = 0;
    while !phase.is_healing() {
        tokio::time::sleep(Duration::from_millis(random.below(40))).await;
        let place = WORK_PLACES[random.below(WORK_PLACES.len() as u64) as usize];
        let mut batch = BatchBuilder::new();
        for _ in 0..=random.below(3) {
            let value = format!("0 {number}");
            number += 1;
            batch = batch.push(None, Some(value.as_bytes()), &[], super::world::EPOCH_MS);
        }
        let batch = batch.finish().expect("plain batches always encode");
        let data = PartitionProduceData::default()
            .with_index(place.1)
            .with_records(Some(batch));
        let topic = TopicProduceData::default()
            .with_name(name(WORK))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(500)
            .with_topic_data(vec![topic]);
        let Ok(leader) = router.leader(place).await else {
            continue;
        };
        match router.client(leader).ask(9, &request, PRODUCE_MAX).await {
            Ok(told) => {
                let code = told.responses[0].partition_responses[0].error_code;
                router.told_of_leader(place, code);
                history.note(|| format!("fed {place:?}: {code}"));
            }
            Err(_) => router.lose(leader),
        }
    }
    phase.producer_ended();
}
