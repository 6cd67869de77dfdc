//! Which partitions this broker copies, from whom, over which connection: what follows from the cluster image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::fetcher::{Fetcher, Order};
use super::followed::Key;
use crate::api::Context;
use crate::cluster::{Image, Topic};

/// Connections to a leader beyond num.replica.fetchers: what is to be copied at once does not wait for a fetch that waits.
const EXTRA_CONNECTIONS: usize = 2;

/// Whom a partition is copied from, and in which epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Source {
    leader: i32,
    leader_epoch: i32,
}

/// A connection to a leader.
struct Connection {
    orders: mpsc::UnboundedSender<Vec<Order>>,
    is_waiting: Arc<AtomicBool>,
    partitions: usize,
}

/// See the module's documentation.
struct Assignment {
    cx: Arc<Context>,
    own: i32,
    connections: BTreeMap<(i32, usize), Connection>,
    copied: BTreeMap<Key, (Source, usize)>,
    fetchers: JoinSet<()>,
}

/// Follows the cluster image.
pub(super) async fn follow(cx: Arc<Context>) {
    let mut changes = cx.cluster.image_changes();
    let mut assignment = Assignment {
        own: cx.cluster.broker_id(),
        cx: cx.clone(),
        connections: BTreeMap::new(),
        copied: BTreeMap::new(),
        fetchers: JoinSet::new(),
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
            Some(_) = assignment.fetchers.join_next() => {}
        }
    }
}

impl Assignment {
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
            let Some(connection) = self.connections.get_mut(&at) else {
                continue;
            };
            connection.partitions = connection.partitions.saturating_sub(orders.len());
            match connection.partitions {
                // The fetcher ends with it.
                0 => drop(self.connections.remove(&at)),
                _ => drop(connection.orders.send(orders)),
            }
        }
    }

    /// Copies partitions of a leader. Those that were copied from it in an earlier epoch stay with their connections.
    fn begin(&mut self, leader: i32, partitions: Vec<(Key, Source)>) {
        let mut orders: BTreeMap<usize, Vec<Order>> = BTreeMap::new();
        let mut chosen = None;
        for (key, source) in partitions {
            let known = self.copied.get(&key).map(|(_, number)| *number);
            let number = known.unwrap_or_else(|| {
                let number = *chosen.get_or_insert_with(|| self.free_connection(leader));
                if let Some(connection) = self.connections.get_mut(&(leader, number)) {
                    connection.partitions += 1;
                }
                number
            });
            self.copied.insert(key, (source, number));
            let order = Order::Follow(key, source.leader_epoch);
            orders.entry(number).or_default().push(order);
        }
        for (number, orders) in orders {
            if let Some(connection) = self.connections.get(&(leader, number)) {
                let _ = connection.orders.send(orders);
            }
        }
    }

    /// A connection that waits for nothing, or another one; where there are as many as may be, the one with the fewest
    /// partitions.
    fn free_connection(&mut self, leader: i32) -> usize {
        let usual = self.cx.config.number("num.replica.fetchers").max(1) as usize;
        let known = || self.connections.range((leader, 0)..=(leader, usize::MAX));
        let by_load = |(_, connection): &(&(i32, usize), &Connection)| connection.partitions;
        let free = known().filter(|(_, one)| !one.is_waiting.load(Ordering::Acquire));
        let count = known().count();
        if count >= usual
            && let Some(((_, number), _)) = free.min_by_key(by_load)
        {
            return *number;
        }
        if count >= usual + EXTRA_CONNECTIONS
            && let Some(((_, number), _)) = known().min_by_key(by_load)
        {
            return *number;
        }
        let is_taken = |number: &usize| self.connections.contains_key(&(leader, *number));
        let number = (0..).find(|number| !is_taken(number)).unwrap_or_default();
        self.connect(leader, number);
        number
    }

    fn connect(&mut self, leader: i32, number: usize) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let is_waiting = Arc::new(AtomicBool::new(false));
        let fetcher = Fetcher {
            cx: self.cx.clone(),
            leader,
            number,
            orders: receiver,
            is_waiting: is_waiting.clone(),
        };
        self.fetchers.spawn(fetcher.run());
        let connection = Connection {
            orders,
            is_waiting,
            partitions: 0,
        };
        self.connections.insert((leader, number), connection);
    }
}
