//! Which partitions this broker copies, from whom, over which connection: what follows from the cluster image.
//!
//! Tests: tests/replication.rs, tests/simulation.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::connections::{At, Connections, Order, Start};
use super::fetcher::Fetcher;
use super::followed::Key;
use crate::api::Context;
use crate::cluster::{Image, Topic};

/// Whom a partition is copied from, and in which epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Source {
    leader: i32,
    leader_epoch: i32,
}

/// See the module's documentation.
struct Assignment<F> {
    cx: Arc<Context>,
    own: i32,
    connections: Connections<F>,
    copied: BTreeMap<Key, (Source, usize)>,
}

/// Follows the cluster image.
pub(super) async fn follow(cx: Arc<Context>) {
    let mut changes = cx.cluster.image_changes();
    let context = cx.clone();
    let copy = move |start: Start| Fetcher::new(context.clone(), start).run();
    let mut assignment = Assignment {
        own: cx.cluster.broker_id(),
        cx: cx.clone(),
        connections: Connections::new(copy),
        copied: BTreeMap::new(),
    };
    let mut before = Arc::new(Image::default());
    loop {
        changes.borrow_and_update();
        let now = cx.cluster.image();
        let lasting = now.brokers.values().filter(|broker| !broker.shutting_down);
        let eligible = lasting.map(|broker| (broker.id, broker.epoch)).collect();
        cx.partitions.isr_watch().eligible_are(eligible);
        assignment.change(&before, &now);
        before = now;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(at) = assignment.connections.panicked() => assignment.copy_again(at),
        }
    }
}

impl<F, Work> Assignment<F>
where
    F: Fn(Start) -> Work,
    Work: Future<Output = ()> + Send + 'static,
{
    /// Gives orders for what changed between two images.
    fn change(&mut self, before: &Image, now: &Image) {
        let mut ended = Vec::new();
        let mut begun: BTreeMap<i32, Vec<(Key, Source)>> = BTreeMap::new();
        for old in before.topics() {
            let stays = now.topic(&old.name).is_some_and(|new| new.id == old.id);
            if !stays {
                ended.extend(self.copied_of(old));
            }
        }
        for new in now.topics() {
            if before
                .topic(&new.name)
                .is_some_and(|old| Arc::ptr_eq(old, new))
            {
                continue;
            }
            for index in 0..new.partitions.len() as i32 {
                let key = (new.id, index);
                let source = self.source_of(new, index);
                let known = self.copied.get(&key).map(|(source, _)| *source);
                if source == known {
                    continue;
                }
                if known.is_some_and(|known| source.is_none_or(|new| new.leader != known.leader)) {
                    ended.push(key);
                }
                if let Some(source) = source {
                    begun.entry(source.leader).or_default().push((key, source));
                }
            }
        }
        self.end(ended);
        for (leader, partitions) in begun {
            self.begin(leader, partitions);
        }
    }

    fn copied_of(&self, topic: &Topic) -> Vec<Key> {
        let all = (topic.id, 0)..=(topic.id, i32::MAX);
        self.copied.range(all).map(|(key, _)| *key).collect()
    }

    /// From whom this broker copies a partition.
    fn source_of(&self, topic: &Topic, index: i32) -> Option<Source> {
        let info = topic.partition(index)?;
        // A leader that is none of the replicas, as somebody may write by hand, began a log of its own: nothing is cut off by it.
        let keeps = |id| info.replicas.contains(&id);
        let is_followed = info.leader != self.own && keeps(info.leader) && keeps(self.own);
        is_followed.then_some(Source {
            leader: info.leader,
            leader_epoch: info.leader_epoch,
        })
    }

    fn end(&mut self, keys: Vec<Key>) {
        let mut orders: BTreeMap<(i32, usize), Vec<Order>> = BTreeMap::new();
        for key in keys {
            if let Some((source, number)) = self.copied.remove(&key) {
                let to = orders.entry((source.leader, number)).or_default();
                to.push(Order::Forget(key));
            }
        }
        for (at, orders) in orders {
            self.connections.forget(at, orders);
        }
    }

    /// Copies partitions of a leader. Those that were copied from it in an earlier epoch stay with their connections.
    fn begin(&mut self, leader: i32, partitions: Vec<(Key, Source)>) {
        let mut orders: BTreeMap<usize, Vec<Order>> = BTreeMap::new();
        let mut chosen = None;
        for (key, source) in partitions {
            let known = self.copied.get(&key).map(|(_, number)| *number);
            let number = known.unwrap_or_else(|| {
                let at = *chosen.get_or_insert_with(|| self.free_connection(leader));
                self.connections.count_one_more(at);
                at.1
            });
            self.copied.insert(key, (source, number));
            let order = Order::Follow(key, source.leader_epoch);
            orders.entry(number).or_default().push(order);
        }
        for (number, orders) in orders {
            self.connections.order((leader, number), orders);
        }
    }

    fn free_connection(&mut self, leader: i32) -> At {
        let usual = self.cx.config.number("num.replica.fetchers").max(1) as usize;
        self.connections.free(leader, usual)
    }

    /// The task of a connection has panicked: another one copies what it copied.
    fn copy_again(&mut self, at: At) {
        let copied = self.copied.iter();
        let lost = copied.filter(|(_, (source, number))| (source.leader, *number) == at);
        let orders = lost.map(|(key, (source, _))| Order::Follow(*key, source.leader_epoch));
        self.connections.restart(at, orders.collect());
    }
}
