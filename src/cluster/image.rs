//! An immutable picture of the cluster, published whole behind an atomic pointer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::configs::Configs;
use super::names;
use super::tokens::Tokens;
use crate::config::TopicOverrides;
use crate::coordinator::{InternalTopic, Slot};
use crate::meta::records::LossRecord;
use crate::partition::Identity;
use crate::security::Acls;

/// Where clients of one listener find a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerEndpoint {
    /// The listener's name.
    pub listener: String,
    /// Its security protocol.
    pub security: String,
    /// Host; empty for the address that the client connected to.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A broker and where clients find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: i32,
    /// One for each of its listeners.
    pub endpoints: Vec<BrokerEndpoint>,
    /// Where it stands.
    pub rack: Option<String>,
    /// Whether it takes partitions of new topics.
    pub accept_publish: bool,
    /// Whether it never leads: it copies what others do.
    pub follows_only: bool,
    /// Whether it is about to stop: what it leads others are to lead.
    pub shutting_down: bool,
    /// The latest of its registrations with less than it had had before.
    pub lost: LossRecord,
    /// Its registration's number.
    pub epoch: i64,
}

impl Broker {
    /// One of which nothing but its registration is known.
    #[cfg(test)]
    pub fn registered(id: i32, epoch: i64) -> Self {
        Self {
            id,
            endpoints: Vec::new(),
            rack: None,
            accept_publish: true,
            follows_only: false,
            shutting_down: false,
            lost: LossRecord::default(),
            epoch,
        }
    }

    /// Where clients that came in by a listener find it; `None` where it has no such listener.
    pub fn endpoint(&self, listener: &str) -> Option<&BrokerEndpoint> {
        self.endpoints
            .iter()
            .find(|endpoint| endpoint.listener == listener)
    }

    /// Where other brokers find it, and what stands for it where people look.
    pub fn first_endpoint(&self) -> Option<&BrokerEndpoint> {
        self.endpoints.first()
    }
}

/// Who coordinates a slot of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotInfo {
    /// The broker, -1 for none.
    pub owner: i32,
    /// Counts owners.
    pub epoch: i32,
    /// Of the slot's node; every write for its groups checks it.
    pub version: i32,
}

impl SlotInfo {
    /// A slot that was not given to any broker yet.
    pub(super) const UNOWNED: Self = Self {
        owner: -1,
        epoch: 0,
        version: -1,
    };

    /// The slot as a partition: its owner leads and keeps it, its epoch is the leader epoch.
    fn as_partition(self, slot: Slot) -> PartitionInfo {
        let identity = Identity {
            broker_id: self.owner,
            number: slot.number() as i32,
        };
        let replicas = (self.owner >= 0).then_some(self.owner);
        PartitionInfo::new(identity, replicas.into_iter().collect(), self.epoch)
    }
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// `brokerId-n`.
    pub identity: Identity,
    /// Brokers that keep it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
    /// Those that have all that is committed and may lead where none that is in sync can (KIP-966).
    pub elr: Vec<i32>,
    /// Those that a reassignment adds; they are replicas already.
    pub adding: Vec<i32>,
    /// Those that go when it is complete; they are replicas still.
    pub removing: Vec<i32>,
    /// Those that were away when they were taken off the replicas: they may still have files of it.
    pub left_on: Vec<i32>,
    /// -1 for none.
    pub leader: i32,
    /// While none leads, who led last; -1 where one leads, or none ever did.
    pub last_known_leader: i32,
    /// Counts leaders.
    pub leader_epoch: i32,
    /// The leader epoch that it began with.
    pub first_epoch: i32,
    /// Counts changes of leader, in-sync replicas and replicas.
    pub partition_epoch: i32,
}

impl PartitionInfo {
    /// A partition as it begins: its first replica leads it, and all are in sync.
    pub fn new(identity: Identity, replicas: Vec<i32>, first_epoch: i32) -> Self {
        Self {
            identity,
            isr: replicas.clone(),
            elr: Vec::new(),
            adding: Vec::new(),
            removing: Vec::new(),
            left_on: Vec::new(),
            leader: replicas.first().copied().unwrap_or(-1),
            last_known_leader: -1,
            replicas,
            leader_epoch: first_epoch,
            first_epoch,
            partition_epoch: 0,
        }
    }

    /// A partition as it begins where not all of its replicas can be in sync: the first that can leads it.
    pub fn begun(identity: Identity, replicas: Vec<i32>, is_active: impl Fn(i32) -> bool) -> Self {
        let mut info = Self::new(identity, replicas, 0);
        info.isr.retain(|id| is_active(*id));
        info.leader = info.isr.first().copied().unwrap_or(-1);
        info
    }

    /// Another leader or other in-sync replicas: the partition epoch grows by one, and the leader epoch where the leader is
    /// another one (as Kafka's PartitionRegistration.merge). Who is in sync is eligible no other way.
    pub fn change_state(&mut self, leader: i32, isr: Vec<i32>) {
        self.leader_epoch += i32::from(leader != self.leader);
        self.partition_epoch += 1;
        self.last_known_leader = match leader {
            -1 => self.leader.max(self.last_known_leader),
            _ => -1,
        };
        (self.leader, self.isr) = (leader, isr);
        self.elr.retain(|id| !self.isr.contains(id));
    }

    /// Whether its replicas move to other brokers.
    pub fn is_moving(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Whether its one replica leads it: no other broker can, whatever happens.
    pub fn is_alone(&self) -> bool {
        self.replicas == [self.leader]
    }

    /// Whether leader and in-sync replicas are those that it began with.
    pub fn is_as_it_began(&self) -> bool {
        let began = Self::new(self.identity, self.replicas.clone(), self.first_epoch);
        *self == began
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: Arc<str>,
    /// Id; a topic that is deleted and created again has another one.
    pub id: Uuid,
    /// Its own configurations.
    pub overrides: TopicOverrides,
    /// By dense index.
    pub partitions: Vec<PartitionInfo>,
}

impl Topic {
    /// The partition at a dense index.
    pub fn partition(&self, index: i32) -> Option<&PartitionInfo> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// Parses `brokerId-n`.
pub fn parse_identity(text: &str) -> Option<Identity> {
    let (broker_id, number) = text.split_once('-')?;
    Some(Identity {
        broker_id: broker_id.parse().ok()?,
        number: number.parse().ok()?,
    })
}

/// What the directories of the internal topic's partitions say where it has records. Clients do not see it: they name the topic.
pub const INTERNAL_TOPIC_ID: Uuid = Uuid::from_u128(0x6d65_7461_7100_4000_8000_6f66_6673_6574);
/// Of an internal topic.
const INTERNAL_SEGMENT_BYTES: usize = 4 << 20;

/// The cluster at one moment.
#[derive(Debug, Clone)]
pub struct Image {
    /// 22 characters.
    pub cluster_id: String,
    /// Live brokers by id.
    pub brokers: BTreeMap<i32, Broker>,
    /// The controller, -1 for none.
    pub controller_id: i32,
    /// Who coordinates which groups; empty until the first controller has dealt them.
    pub slots: Vec<SlotInfo>,
    /// What is set at run time for brokers, groups and client metrics.
    pub configs: Arc<Configs>,
    /// Who may do what. Another one after each change.
    pub acls: Arc<Acls>,
    /// Delegation tokens, expired ones too until they are removed. Another one after each change.
    pub tokens: Arc<Tokens>,
    /// Brokers that lead and coordinate only what no other one can (`broker.drained`).
    pub drained: BTreeSet<i32>,
    /// Shared by images that differ in other things.
    topics: Arc<Topics>,
}

/// Numbers the changes to the topics of all images of this process.
static TOPICS_VERSIONS: AtomicU64 = AtomicU64::new(1);

/// All topics.
#[derive(Debug, Clone, Default)]
struct Topics {
    /// Another one after each change.
    version: u64,
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
    /// Names that could collide with another one, each after what metrics make of it.
    by_metric_name: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl Topics {
    fn put(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        match self.by_name.insert(topic.name.clone(), topic.clone()) {
            Some(old) => {
                self.by_id.remove(&old.id);
            }
            None => {
                let metric_name = names::metric_name(&topic.name);
                self.by_metric_name
                    .extend(metric_name.map(|metric_name| (metric_name, topic.name.clone())));
            }
        }
        self.by_id.insert(topic.id, topic);
    }

    fn remove(&mut self, name: &str) {
        let Some(removed) = self.by_name.remove(name) else {
            return;
        };
        self.by_id.remove(&removed.id);
        if let Some(metric_name) = names::metric_name(name) {
            self.by_metric_name
                .remove(&(metric_name, removed.name.clone()));
        }
    }

    fn colliding(&self, name: &str) -> Option<&Arc<str>> {
        let metric_name = names::metric_name(name)?;
        self.by_metric_name
            .range((metric_name.clone(), Arc::from(""))..)
            .take_while(|(known, _)| *known == metric_name)
            .map(|(_, known)| known)
            .find(|known| ***known != *name)
    }
}

/// Of an internal topic, whose logs' start is moved by hand: nothing is deleted by age or size.
fn internal_overrides() -> TopicOverrides {
    let own = [
        ("max.message.bytes", i32::MAX.to_string()),
        ("retention.bytes", "-1".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("segment.bytes", INTERNAL_SEGMENT_BYTES.to_string()),
    ];
    TopicOverrides(own.map(|(key, value)| (key.to_owned(), value)).into())
}

impl Default for Image {
    fn default() -> Self {
        Self {
            cluster_id: String::new(),
            brokers: BTreeMap::new(),
            controller_id: -1,
            slots: Vec::new(),
            configs: Arc::default(),
            acls: Arc::default(),
            tokens: Arc::default(),
            drained: BTreeSet::new(),
            topics: Arc::default(),
        }
    }
}

impl Image {
    /// A cluster of which nothing but its id is known.
    pub(super) fn of(cluster_id: String) -> Self {
        Self {
            cluster_id,
            ..Self::default()
        }
    }

    /// A cluster of which nothing but some topics is known.
    #[cfg(test)]
    pub fn of_topics(topics: impl IntoIterator<Item = Topic>) -> Self {
        let mut image = Self::default();
        image.put(topics);
        image
    }

    /// Who has a slot; `None` until the slots were dealt.
    pub fn slot(&self, slot: Slot) -> Option<SlotInfo> {
        self.slots.get(slot.number()).copied()
    }

    /// The broker that has a slot, if it is there.
    pub fn coordinator_of(&self, slot: Slot) -> Option<&Broker> {
        self.brokers.get(&self.slot(slot)?.owner)
    }

    /// Live brokers that are not about to stop; all live ones where all are.
    pub fn lasting_brokers(&self) -> Vec<i32> {
        let live = self.brokers.values();
        let lasting = live.filter(|broker| !broker.shutting_down);
        let lasting: Vec<i32> = lasting.map(|broker| broker.id).collect();
        match lasting.is_empty() {
            true => self.brokers.keys().copied().collect(),
            false => lasting,
        }
    }

    /// Lasting brokers that are not drained; all lasting ones where all are.
    pub fn willing_brokers(&self) -> Vec<i32> {
        let lasting = self.lasting_brokers();
        let willing = lasting.iter().filter(|id| !self.drained.contains(id));
        let willing: Vec<i32> = willing.copied().collect();
        match willing.is_empty() {
            true => lasting,
            false => willing,
        }
    }

    /// Whether a broker leads also where another one could.
    pub fn leads_willingly(&self, id: i32) -> bool {
        let broker = self.brokers.get(&id);
        let leads = broker.is_some_and(|broker| broker.accept_publish && !broker.follows_only);
        leads && !self.drained.contains(&id)
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.by_name.get(name)
    }

    /// A topic by name, or the internal topic of that name.
    pub fn topic_or_internal(&self, name: &str) -> Option<Arc<Topic>> {
        let known = self.topic(name).cloned();
        known.or_else(|| self.internal_topic(name).map(Arc::new))
    }

    /// The slots as the internal topic of a name.
    pub fn internal_topic(&self, name: &str) -> Option<Topic> {
        let topic = InternalTopic::named(name)?;
        let partition = |slot: Slot| {
            self.slot(slot)
                .unwrap_or(SlotInfo::UNOWNED)
                .as_partition(slot)
        };
        Some(Topic {
            name: topic.name().into(),
            // As of a broker without topic ids: it is known by its name alone.
            id: Uuid::nil(),
            overrides: internal_overrides(),
            partitions: Slot::all().map(partition).collect(),
        })
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics.by_id.get(&id)
    }

    /// All topics by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.by_name.values()
    }

    /// Another one whenever any topic may be another.
    pub fn topics_version(&self) -> u64 {
        self.topics.version
    }

    /// Topics whose names come after `name`, or are it.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics
            .by_name
            .range::<str, _>((std::ops::Bound::Included(name), std::ops::Bound::Unbounded))
            .map(|(_, topic)| topic)
    }

    /// A topic whose name is the same as this one to metrics.
    pub(super) fn colliding(&self, name: &str) -> Option<&Arc<str>> {
        self.topics.colliding(name)
    }

    /// Takes all topics from another image.
    pub(super) fn take_topics(&mut self, other: &Self) {
        self.topics = other.topics.clone();
    }

    /// Adds topics or puts them in the place of those of the same names.
    pub(super) fn put(&mut self, topics: impl IntoIterator<Item = Topic>) {
        let known = Arc::make_mut(&mut self.topics);
        known.version = TOPICS_VERSIONS.fetch_add(1, Ordering::Relaxed);
        topics.into_iter().for_each(|topic| known.put(topic));
    }

    /// Removes topics.
    pub(super) fn remove<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let known = Arc::make_mut(&mut self.topics);
        known.version = TOPICS_VERSIONS.fetch_add(1, Ordering::Relaxed);
        names.into_iter().for_each(|name| known.remove(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicOverrides;

    fn topic(name: &str, id: u128) -> Topic {
        Topic {
            name: name.into(),
            id: Uuid::from_u128(id),
            overrides: TopicOverrides::default(),
            partitions: Vec::new(),
        }
    }

    #[test]
    fn a_topic_is_found_by_name_and_by_its_latest_id() {
        let mut image = Image::default();
        image.put([topic("a", 1), topic("b", 2)]);
        let before = image.clone();
        image.put([topic("a", 3)]);
        assert!(image.topic_by_id(Uuid::from_u128(1)).is_none());
        assert_eq!(image.topic_by_id(Uuid::from_u128(3)), image.topic("a"));
        image.remove(["b", "never there"]);
        assert!(image.topic("b").is_none() && image.topic_by_id(Uuid::from_u128(2)).is_none());
        assert!(before.topic("b").is_some() && before.topic_by_id(Uuid::from_u128(1)).is_some());
    }

    #[test]
    fn slots_are_the_partitions_of_both_internal_topics() {
        for name in ["__consumer_offsets", "__transaction_state"] {
            check_internal(name);
        }
    }

    fn check_internal(name: &str) {
        let mut image = Image::default();
        let leaders = |image: &Image| {
            let partitions = image.topic_or_internal(name).unwrap().partitions.clone();
            let of = |info: PartitionInfo| (info.leader, info.leader_epoch, info.isr);
            partitions.into_iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(leaders(&image), vec![(-1, 0, vec![]); Slot::COUNT]);
        image.slots = vec![SlotInfo::UNOWNED; Slot::COUNT];
        image.slots[5] = SlotInfo {
            owner: 2,
            epoch: 7,
            version: 9,
        };
        assert_eq!(leaders(&image)[5], (2, 7, vec![2]));
        assert_eq!(image.topics().count(), 0);
        assert!(image.topic_or_internal("__share_group_state").is_none());
        // One that was made under the name before it was an internal one.
        image.put([topic(name, 1)]);
        assert_eq!(
            image.topic_or_internal(name).unwrap().id,
            Uuid::from_u128(1)
        );
    }

    #[test]
    fn every_change_of_state_counts_and_a_new_leader_begins_an_epoch() {
        let identity = parse_identity("1-0").unwrap();
        let mut info = PartitionInfo::new(identity, vec![1, 2], 4);
        assert!(info.is_as_it_began());
        let counts = |info: &PartitionInfo| (info.leader_epoch, info.partition_epoch);
        info.change_state(1, vec![1]);
        assert_eq!((counts(&info), info.is_as_it_began()), ((4, 1), false));
        info.change_state(2, vec![2]);
        assert_eq!(counts(&info), (5, 2));
        info.change_state(-1, vec![2]);
        assert_eq!(counts(&info), (6, 3));
    }

    #[test]
    fn names_that_metrics_cannot_tell_apart_are_found_and_forgotten() {
        let mut image = Image::default();
        image.put([topic("a.b", 1), topic("plain", 2)]);
        assert_eq!(image.colliding("a_b").map(|name| &**name), Some("a.b"));
        assert_eq!(image.colliding("a.b"), None);
        assert_eq!(image.colliding("a.c"), None);
        assert_eq!(image.colliding("plain"), None);
        // Both may be there: found in a data directory.
        image.put([topic("a_b", 3)]);
        assert_eq!(image.colliding("a.b").map(|name| &**name), Some("a_b"));
        image.remove(["a.b"]);
        assert_eq!(image.colliding("a_b"), None);
        image.remove(["a_b"]);
        assert_eq!(image.colliding("a.b"), None);
    }
}
