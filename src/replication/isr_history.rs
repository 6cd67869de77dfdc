//! Which replicas fell out of sync, why, and for how long: events for people. The leader of a partition tells of it, or where none
//! leads, the controller.
//!
//! Why a leader takes one out, its proposals know. Whatever else changes in-sync replicas is the controller's doing, and the
//! brokers of the image say why; they may be there a moment later than the partition's state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::followed::Key;
use crate::api::Context;
use crate::cluster::{Image, PartitionInfo, Topic};
use crate::observe::{EventKind, Events, Happened};

/// How long the image may take to say what became of a broker.
const SETTLES_AFTER: Duration = Duration::from_secs(1);
/// More partitions at once are told of together.
const TOLD_EACH_MAX: usize = 4;
/// So many of those that are told of together are named.
const NAMED_MAX: usize = 10;

/// A replica that its leader wants to be in sync no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Laggard {
    pub(super) replica: i32,
    /// Messages that it lacked then; `None` where it has not fetched from this leader.
    pub(super) behind: Option<i64>,
    /// How long it did not have everything.
    pub(super) lagged: Option<Duration>,
}

impl Laggard {
    fn why(&self) -> String {
        match self.behind {
            None => {
                "it does not fetch: its files cannot be used, or its broker does not reach the leader"
                    .to_owned()
            }
            Some(_) => "it did not have everything for too long (replica.lag.time.max.ms)".to_owned(),
        }
    }

    fn detail(&self) -> String {
        let lacks = |behind| format!("{behind} messages behind");
        self.behind.map_or_else(String::new, lacks)
    }
}

/// What leaders' proposals are about.
#[derive(Default)]
pub(super) struct Laggards(Mutex<BTreeMap<Key, (i32, Vec<Laggard>)>>);

impl Laggards {
    /// A proposal from this state takes these out.
    pub(super) fn propose(&self, key: Key, partition_epoch: i32, laggards: Vec<Laggard>) {
        let mut known = self.0.lock();
        match laggards.is_empty() {
            true => drop(known.remove(&key)),
            false => drop(known.insert(key, (partition_epoch, laggards))),
        }
    }

    /// What was proposed before a partition came to be in this state.
    fn before(&self, key: &Key, partition_epoch: i32) -> Vec<Laggard> {
        let known = self.0.lock();
        let proposed = known.get(key).filter(|(from, _)| *from < partition_epoch);
        proposed.map_or_else(Vec::new, |(_, laggards)| laggards.clone())
    }

    /// What was proposed before that is over.
    fn forget_before(&self, key: &Key, partition_epoch: i32) {
        let mut known = self.0.lock();
        if known
            .get(key)
            .is_some_and(|(from, _)| *from < partition_epoch)
        {
            known.remove(key);
        }
    }
}

/// A replica that is in sync, or is not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    key: Key,
    topic: Arc<str>,
    replica: i32,
    is_in_sync: bool,
    /// Whether it is a replica still.
    is_kept: bool,
    partition_epoch: i32,
    /// The broker's registration before.
    registration: Option<i64>,
}

/// What changed of the partitions that `is_told_of`.
fn changes(
    before: &Image,
    after: &Image,
    is_told_of: impl Fn(&PartitionInfo) -> bool,
) -> Vec<Change> {
    let mut all = Vec::new();
    for new in after.topics() {
        let old = before.topic(&new.name).filter(|old| old.id == new.id);
        let Some(old) = old.filter(|old| !Arc::ptr_eq(old, new)) else {
            continue;
        };
        let pairs = (0..).zip(old.partitions.iter().zip(&new.partitions));
        for (index, (old, info)) in pairs.filter(|(_, (_, info))| is_told_of(info)) {
            all.extend(of_partition(before, new, index, (old, info)));
        }
    }
    all
}

fn of_partition(
    before: &Image,
    topic: &Topic,
    index: i32,
    (old, new): (&PartitionInfo, &PartitionInfo),
) -> Vec<Change> {
    let left = old.isr.iter().filter(|id| !new.isr.contains(id));
    let joined = new.isr.iter().filter(|id| !old.isr.contains(id));
    let left = left.map(|id| (*id, false));
    let change = |(replica, is_in_sync): (i32, bool)| Change {
        key: (topic.id, index),
        topic: topic.name.clone(),
        replica,
        is_in_sync,
        is_kept: new.replicas.contains(&replica),
        partition_epoch: new.partition_epoch,
        registration: before.brokers.get(&replica).map(|broker| broker.epoch),
    };
    left.chain(joined.map(|id| (*id, true)))
        .map(change)
        .collect()
}

/// Why the controller took a replica out; `None` where the image does not say.
fn why_by_image(change: &Change, now: &Image) -> Option<&'static str> {
    match now.brokers.get(&change.replica) {
        _ if !change.is_kept => Some("a reassignment took the replica away"),
        None => Some("its broker is away: its session with the coordination store ended"),
        Some(broker) if broker.shutting_down => Some("its broker is about to stop"),
        Some(broker) if Some(broker.epoch) != change.registration => {
            Some("its broker was gone for a moment, and is registered anew")
        }
        Some(_) => None,
    }
}

/// What is to be told.
struct Told {
    change: Change,
    why: String,
    detail: String,
    took: Option<Duration>,
}

/// What is not told yet, and who is out since when.
#[derive(Default)]
struct History {
    unexplained: Vec<(Instant, Change)>,
    out_since: BTreeMap<(Key, i32), Instant>,
}

impl History {
    fn take(
        &mut self,
        change: Change,
        laggards: &[Laggard],
        image: &Image,
        now: Instant,
    ) -> Option<Told> {
        let place = (change.key, change.replica);
        if change.is_in_sync {
            let since = self.out_since.remove(&place);
            let took = since.map(|since| now.saturating_duration_since(since));
            let why = match took {
                Some(_) => "it has everything that is committed again",
                None => "it has everything that is committed",
            };
            let (why, detail) = (why.to_owned(), String::new());
            return Some(Told {
                change,
                why,
                detail,
                took,
            });
        }
        self.out_since.insert(place, now);
        let laggard = laggards.iter().find(|one| one.replica == change.replica);
        if let Some(laggard) = laggard {
            let (why, detail, took) = (laggard.why(), laggard.detail(), laggard.lagged);
            return Some(Told {
                change,
                why,
                detail,
                took,
            });
        }
        match why_by_image(&change, image) {
            Some(why) => Some(told(change, why)),
            None => {
                self.unexplained.push((now + SETTLES_AFTER, change));
                None
            }
        }
    }

    /// Those for which nothing more is waited.
    fn explain(&mut self, image: &Image, now: Instant) -> Vec<Told> {
        let mut all = Vec::new();
        self.unexplained.retain(|(until, change)| {
            let why = why_by_image(change, image);
            if why.is_none() && now < *until {
                return true;
            }
            let why = why.unwrap_or("it said that it cannot use its files, or lost what it had");
            all.push(told(change.clone(), why));
            false
        });
        all
    }

    fn next_at(&self) -> Option<Instant> {
        self.unexplained.iter().map(|(until, _)| *until).min()
    }

    fn forget_gone(&mut self, image: &Image) {
        self.out_since
            .retain(|((topic_id, _), _), _| image.topic_by_id(*topic_id).is_some());
    }
}

fn told(change: Change, why: &str) -> Told {
    Told {
        change,
        why: why.to_owned(),
        detail: String::new(),
        took: None,
    }
}

/// Tells of each; of many with the same reason together.
fn tell(events: &Events, all: Vec<Told>) {
    let mut alike: BTreeMap<(i32, bool, String), Vec<Told>> = BTreeMap::new();
    for one in all {
        let key = (one.change.replica, one.change.is_in_sync, one.why.clone());
        alike.entry(key).or_default().push(one);
    }
    for ((replica, is_in_sync, why), all) in alike {
        let who = format!("broker {replica}");
        let state = match is_in_sync {
            true => "in sync",
            false => "out of sync",
        };
        let why = format!("{state}: {why}");
        let name = |one: &Told| format!("{}-{}", one.change.topic, one.change.key.1);
        let happened = |subject: &str, detail: &str, took: Option<Duration>| {
            let happened = Happened::new(EventKind::InSync, subject);
            let happened = happened.who(&who).why(&why).detail(detail);
            match took {
                Some(took) => happened.took_ms(took.as_millis() as i64),
                None => happened,
            }
        };
        if all.len() <= TOLD_EACH_MAX {
            for one in &all {
                events.tell(happened(&name(one), &one.detail, one.took));
            }
            continue;
        }
        let named: Vec<String> = all.iter().take(NAMED_MAX).map(name).collect();
        let more = match all.len() > NAMED_MAX {
            true => ", …",
            false => "",
        };
        let subject = format!("{} partitions", all.len());
        let took = all.iter().filter_map(|one| one.took).max();
        let named = format!("{}{more}", named.join(", "));
        events.tell(happened(&subject, &named, took));
    }
}

/// Tells for ever.
pub(super) async fn tell_of_changes(cx: Arc<Context>, laggards: Arc<Laggards>) {
    let own = cx.cluster.broker_id();
    let mut images = cx.cluster.image_changes();
    let mut history = History::default();
    images.borrow_and_update();
    let mut before = cx.cluster.image();
    loop {
        let explains = async {
            match history.next_at() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = images.changed() => if changed.is_err() { return },
            () = explains => {}
        }
        let (image, now) = (cx.cluster.image(), Instant::now());
        let is_controller = cx.cluster.is_controller();
        let is_told_of =
            |info: &PartitionInfo| info.leader == own || info.leader < 0 && is_controller;
        let mut all = history.explain(&image, now);
        let changes = changes(&before, &image, is_told_of);
        let over: Vec<(Key, i32)> = changes
            .iter()
            .map(|change| (change.key, change.partition_epoch))
            .collect();
        for change in changes {
            let proposed = laggards.before(&change.key, change.partition_epoch);
            all.extend(history.take(change, &proposed, &image, now));
        }
        for (key, partition_epoch) in over {
            laggards.forget_before(&key, partition_epoch);
        }
        if before.topics().count() > image.topics().count() {
            history.forget_gone(&image);
        }
        before = image;
        tell(&cx.observe.events, all);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::WallClock;

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn change(replica: i32, is_in_sync: bool) -> Change {
        Change {
            key: (TOPIC, 0),
            topic: "t".into(),
            replica,
            is_in_sync,
            is_kept: true,
            partition_epoch: 6,
            registration: Some(1),
        }
    }

    fn laggard(replica: i32) -> Laggard {
        Laggard {
            replica,
            behind: Some(12),
            lagged: Some(Duration::from_secs(31)),
        }
    }

    #[test]
    fn who_lagged_is_told_with_how_far_and_how_long_and_who_is_back_with_how_long_it_was_out() {
        let (image, now) = (Image::default(), Instant::now());
        let laggards = Laggards::default();
        laggards.propose((TOPIC, 0), 5, vec![laggard(2), laggard(3)]);
        assert_eq!(laggards.before(&(TOPIC, 0), 5), []);
        let proposed = laggards.before(&(TOPIC, 0), 6);
        laggards.forget_before(&(TOPIC, 0), 6);
        assert_eq!(laggards.before(&(TOPIC, 0), 7), []);
        let mut history = History::default();
        let left = history
            .take(change(3, false), &proposed, &image, now)
            .unwrap();
        assert!(left.why.contains("replica.lag.time.max.ms"));
        assert_eq!(left.detail, "12 messages behind");
        assert_eq!(left.took, Some(Duration::from_secs(31)));
        let later = now + Duration::from_secs(5);
        let back = history.take(change(3, true), &[], &image, later).unwrap();
        assert_eq!(back.took, Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_the_controller_did_the_image_explains_by_now_or_a_moment_later() {
        let (gone, now) = (Image::default(), Instant::now());
        let mut history = History::default();
        let left = history.take(change(2, false), &[], &gone, now).unwrap();
        assert!(left.why.contains("its broker is away"), "{}", left.why);
        let mut there = Image::default();
        let broker = |epoch| crate::cluster::Broker::registered(2, epoch);
        there.brokers.insert(2, broker(1));
        assert!(history.take(change(2, false), &[], &there, now).is_none());
        assert!(history.explain(&there, now).is_empty());
        there.brokers.insert(2, broker(2));
        let told = history.explain(&there, now);
        assert!(told[0].why.contains("registered anew"));
        there.brokers.insert(2, broker(1));
        assert!(history.take(change(2, false), &[], &there, now).is_none());
        let told = history.explain(&there, now + SETTLES_AFTER);
        assert!(told[0].why.contains("cannot use its files"));
        assert!(history.next_at().is_none());
    }

    #[test]
    fn many_with_the_same_reason_are_told_of_together() {
        let events = Events::new(WallClock::default());
        let all = |n: i32| {
            let one = |index| {
                let mut change = change(2, false);
                change.key.1 = index;
                told(change, "its broker is away")
            };
            (0..n).map(one).collect::<Vec<Told>>()
        };
        tell(&events, all(2));
        tell(&events, all(30));
        let found = events.latest(&[EventKind::InSync], 10);
        let mut subjects: Vec<&str> = found.iter().map(|event| event.subject.as_str()).collect();
        subjects.sort_unstable();
        assert_eq!(subjects, ["30 partitions", "t-0", "t-1"]);
        let together = found.iter().find(|event| event.subject == "30 partitions");
        let together = together.unwrap();
        assert_eq!(together.who, "broker 2");
        assert_eq!(together.why, "out of sync: its broker is away");
        assert!(together.detail.ends_with("t-9, …"), "{}", together.detail);
    }
}
