//! The cluster as an object: opening its topics on this broker, and what this broker is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Mutex, Notify, broadcast, watch};
use uuid::Uuid;

use super::changes::{ClusterError, NewTopic};
use super::controller::Term;
use super::image::{Image, Topic};
use super::membership::Membership;
use super::names::check_topic_name;
use super::placement::Identities;
use super::reconcile::{Step, reconcile};
use super::reconciler::Reconciler;
use super::topic_nodes;
use crate::config::{LiveConfig, TopicOverrides};
use crate::log::uuid_to_base64;
use crate::meta::records::{ClusterRecord, DeletedTopicRecord, RECORD_VERSION, decode, encode};
use crate::meta::{Change, MetaError, MetaStore, Op, paths, upgrade_topics};
use crate::partition::{OpenReport, Partitions};

/// Events that a slow receiver may lie behind.
const EVENTS_BACKLOG: usize = 4096;
/// Kafka's own topics; their directories mean nothing here.
const KAFKA_INTERNAL: &[&str] = &[
    "__cluster_metadata",
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
];

/// What opening the cluster's topics found.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opened {
    /// Topics.
    pub topics: usize,
    /// Partitions.
    pub report: OpenReport,
}

/// What the rest of the broker is told of.
#[derive(Debug, Clone)]
pub enum ClusterEvent {
    /// A topic is gone, with what groups committed in it.
    TopicDeleted(String, Uuid),
    /// The groups that this broker coordinates may be others; see [`Image::slots`].
    Slots,
}

/// The cluster. See the module's documentation.
pub struct Cluster {
    pub(super) broker_id: i32,
    pub(super) config: Arc<LiveConfig>,
    pub(super) meta: MetaStore,
    pub(super) partitions: Arc<Partitions>,
    pub(super) reconciler: Reconciler,
    pub(super) image: ArcSwap<Image>,
    /// Held while the image is replaced, so that no change of it is lost to another one.
    image_changes: parking_lot::Mutex<()>,
    /// Told of every new image.
    image_told: watch::Sender<()>,
    /// Held while topics are changed, by this broker or because the tree says so.
    pub(super) changes: Mutex<()>,
    pub(super) membership: parking_lot::Mutex<Membership>,
    /// Set while this broker is the controller.
    pub(super) term: ArcSwapOption<Term>,
    /// Told when this broker finds that it is not the controller that it took itself for.
    pub(super) deposed: Notify,
    pub(super) events: broadcast::Sender<ClusterEvent>,
    /// What was written below [`paths::TOPICS_PUB`], and in which session.
    pub(super) published: Mutex<(u64, BTreeMap<String, usize>)>,
    /// What the tree told since before it was read first.
    pub(super) tree: Mutex<broadcast::Receiver<Change>>,
}

impl Cluster {
    /// Reads the tree, adopts partition directories that it does not know, and opens this broker's partitions.
    /// `cluster_id` is what the data directories say, if anything.
    pub async fn open(
        config: Arc<LiveConfig>,
        meta: MetaStore,
        partitions: Arc<Partitions>,
        cluster_id: Option<String>,
    ) -> Result<(Self, Opened), ClusterError> {
        let broker_id = config.number("broker.id") as i32;
        let tree = Mutex::new(meta.watch());
        super::membership::refuse_foreign_root(&meta).await?;
        let directory_id = match partitions.data_dirs().next() {
            Some(dir) => dir.property("directory.id")?,
            None => None,
        };
        super::membership::refuse_taken_number(&meta, broker_id, directory_id.as_deref()).await?;
        super::membership::ensure_base(&meta).await?;
        let cluster_id = ensure_cluster_id(&meta, cluster_id).await?;
        for dir in partitions.data_dirs() {
            dir.claim(&cluster_id, broker_id)?;
        }
        let image = ArcSwap::from_pointee(Image::of(cluster_id));
        let cluster = Self {
            broker_id,
            reconciler: Reconciler::new(config.clone(), partitions.clone()),
            config,
            meta,
            partitions,
            image,
            image_changes: parking_lot::Mutex::new(()),
            image_told: watch::Sender::new(()),
            changes: Mutex::new(()),
            membership: parking_lot::Mutex::default(),
            term: ArcSwapOption::empty(),
            deposed: Notify::new(),
            events: broadcast::channel(EVENTS_BACKLOG).0,
            published: Mutex::default(),
            tree,
        };
        let upgraded = upgrade_topics(&cluster.meta).await?;
        if upgraded > 0 {
            tracing::info!(topics = upgraded, "brought the tree to this version's form");
        }
        cluster.reload_configs().await?;
        cluster.load_topics().await?;
        let deleted = cluster.finish_deletions().await?;
        cluster.adopt_found(&deleted).await?;
        let image = cluster.image();
        let steps = reconcile(&Image::default(), &image, broker_id);
        let report = cluster.reconciler.carry_out(&steps, true).await;
        let report = report
            .ok_or_else(|| MetaError::Unavailable("opening the partitions panicked".to_owned()))?;
        let opened = Opened {
            topics: image.topics().count(),
            report,
        };
        Ok((cluster, opened))
    }

    /// The cluster at this moment.
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// Told whenever the image is another one.
    pub fn image_changes(&self) -> watch::Receiver<()> {
        self.image_told.subscribe()
    }

    /// This broker's number.
    pub fn broker_id(&self) -> i32 {
        self.broker_id
    }

    /// The coordination tree.
    pub fn meta(&self) -> &MetaStore {
        &self.meta
    }

    /// Tells of topics that go and of groups that come and go.
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.events.subscribe()
    }

    /// Whether this broker may lead and coordinate at this moment: nobody else can have taken its place.
    pub fn may_act(&self) -> bool {
        self.meta.lease().is_valid()
    }

    /// Whether another process has this broker's number; this one serves no more.
    pub fn is_fenced(&self) -> bool {
        self.meta.lease().is_revoked()
    }

    pub(super) fn fence(&self, place: &str) {
        self.term.store(None);
        if self.meta.lease().revoke() {
            tracing::error!(
                id = self.broker_id,
                place,
                "another process has this broker's number; this one serves no more"
            );
        }
    }

    /// What a topic gets from the broker's configuration, under its own overrides.
    pub fn defaults_for(&self, topic: &str) -> TopicOverrides {
        self.reconciler.defaults_for(topic)
    }

    /// Makes a change to topics known here, after this broker has done what follows from it: who finds a topic gone from the
    /// image may rely on it that nothing is appended to it any more, and nobody finds a partition without its log. Topics are
    /// changed by who holds `changes`.
    pub(super) async fn apply(&self, change: impl FnOnce(&mut Image)) {
        let before = self.image();
        let mut after = Image::clone(&before);
        change(&mut after);
        let steps = reconcile(&before, &after, self.broker_id);
        if self.reconciler.carry_out(&steps, false).await.is_none() {
            tracing::error!("opening partitions panicked");
        }
        self.change_image(|image| image.take_topics(&after));
        for step in steps {
            if let Step::Delete(topic) = step {
                let event = ClusterEvent::TopicDeleted(topic.name.to_string(), topic.id);
                let _ = self.events.send(event);
            }
        }
    }

    pub(super) fn change_image(&self, change: impl FnOnce(&mut Image)) {
        let _change = self.image_changes.lock();
        let mut image = Image::clone(&self.image.load());
        change(&mut image);
        self.image.store(Arc::new(image));
        self.image_told.send_replace(());
    }

    async fn load_topics(&self) -> Result<(), ClusterError> {
        let (topics, _) = topic_nodes::read_all(&self.meta).await?;
        self.change_image(|image| image.put(topics));
        Ok(())
    }

    /// Removes what this broker still has of deleted topics, and says so in the tree; returns their ids. A topic's
    /// deletion is complete when all its brokers did that.
    pub(super) async fn finish_deletions(&self) -> Result<BTreeSet<Uuid>, ClusterError> {
        let mut ids = BTreeSet::new();
        for (path, node) in self.meta.subtree(paths::DELETED).await? {
            let element = path.rsplit('/').next().unwrap_or_default();
            let Ok(id) = Uuid::parse_str(element) else {
                continue;
            };
            ids.insert(id);
            let record = match decode::<DeletedTopicRecord>(&path, &node.data) {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(%error, "a topic's deletion is left as it is");
                    continue;
                }
            };
            // Records of older versions name no brokers: there was one only.
            let concerned = record.brokers.is_empty() || record.brokers.contains(&self.broker_id);
            if concerned && self.remove_deleted(id).await {
                self.confirm_deletion(id).await?;
            }
        }
        Ok(ids)
    }

    /// Whether nothing is left of it here.
    async fn remove_deleted(&self, id: Uuid) -> bool {
        self.partitions.delete(&[id]).await;
        let mut all_gone = true;
        for found in self.partitions.found() {
            if found.topic_id == Some(id) && found.path.exists() {
                tracing::info!(dir = %found.path.display(), topic_id = %id, "finishing a topic's deletion");
                self.partitions.remove_found(&found);
                all_gone &= !found.path.exists();
            }
        }
        all_gone
    }

    /// Takes this broker off the list of those that still have to remove a deleted topic's files.
    pub(super) async fn confirm_deletion(&self, id: Uuid) -> Result<(), ClusterError> {
        let path = paths::deleted_topic(id);
        loop {
            let Some(node) = self.meta.get(&path).await? else {
                return Ok(());
            };
            let mut record: DeletedTopicRecord = decode(&path, &node.data)?;
            record.brokers.retain(|broker| *broker != self.broker_id);
            let version = Some(node.version);
            let path = path.clone();
            let op = match record.brokers.is_empty() {
                true => Op::Delete { path, version },
                false => Op::Set {
                    path,
                    data: encode(&record),
                    version,
                },
            };
            match self.meta.multi(vec![op]).await {
                Err(MetaError::BadVersion(_) | MetaError::NoNode(_)) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Makes topics of partition directories that the tree does not know, such as another Kafka's.
    async fn adopt_found(&self, deleted: &BTreeSet<Uuid>) -> Result<(), ClusterError> {
        let image = self.image();
        let mut unknown: BTreeMap<String, (Option<Uuid>, i32)> = BTreeMap::new();
        for found in self.partitions.found() {
            if image.topic(&found.topic).is_some()
                || found.topic_id.is_some_and(|id| deleted.contains(&id))
            {
                continue;
            }
            if KAFKA_INTERNAL.contains(&found.topic.as_str())
                || check_topic_name(&found.topic).is_err()
            {
                tracing::warn!(dir = %found.path.display(), "left alone: not a topic of this broker");
                continue;
            }
            let entry = unknown.entry(found.topic).or_insert((found.topic_id, 0));
            entry.0 = entry.0.or(found.topic_id);
            entry.1 = entry.1.max(found.partition + 1);
        }
        let mut adopted = Vec::new();
        for (name, (topic_id, partitions)) in unknown {
            tracing::info!(
                topic = name,
                partitions,
                "adopting a topic that was found in the data directory"
            );
            let replicas = vec![vec![self.broker_id]; partitions as usize];
            let mut partitions = self.deal(&Identities::default(), &replicas);
            // Epochs never go back, or clients would be fenced by their own records.
            for (index, partition) in partitions.iter_mut().enumerate() {
                let epoch = self.partitions.latest_epoch(&name, index as i32);
                (partition.first_epoch, partition.leader_epoch) = (epoch, epoch);
            }
            let id = topic_id.unwrap_or_else(Uuid::new_v4);
            adopted.push(Topic {
                name: name.into(),
                id,
                overrides: TopicOverrides::default(),
                partitions,
            });
        }
        let writes: Vec<_> = adopted
            .iter()
            .map(|topic| self.meta.multi(vec![topic_nodes::create(topic)]))
            .collect();
        let mut made = Vec::new();
        for (topic, written) in adopted.into_iter().zip(writes) {
            match written.await {
                Ok(()) => made.push(topic),
                // Another broker has other partitions of it.
                Err(MetaError::NodeExists(_)) => {
                    tracing::warn!(topic = %topic.name, "left alone: another broker adopted it")
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.change_image(|image| image.put(made));
        Ok(())
    }

    /// Creates the topics that the configuration names.
    pub(super) async fn create_named_topics(&self) {
        let config = self.config.load_full();
        let missing: Vec<NewTopic> = config
            .named_topics()
            .filter(|name| self.image().topic(name).is_none())
            .map(NewTopic::with_defaults)
            .collect();
        for (topic, result) in missing
            .iter()
            .zip(self.create_topics(&missing, false).await)
        {
            if let Err(error) = result {
                tracing::error!(topic = topic.name, %error, "cannot create a topic of the configuration");
            }
        }
    }
}

/// The id of the cluster that a tree is of, if any.
pub async fn cluster_id_of(meta: &MetaStore) -> Result<Option<String>, MetaError> {
    let Some(node) = meta.get(paths::CLUSTER_ID).await? else {
        return Ok(None);
    };
    Ok(Some(
        decode::<ClusterRecord>(paths::CLUSTER_ID, &node.data)?.cluster_id,
    ))
}

async fn ensure_cluster_id(
    meta: &MetaStore,
    on_disk: Option<String>,
) -> Result<String, ClusterError> {
    if let Some(known) = cluster_id_of(meta).await? {
        return Ok(known);
    }
    let cluster_id = on_disk.unwrap_or_else(|| uuid_to_base64(Uuid::new_v4()));
    let data = encode(&ClusterRecord {
        version: RECORD_VERSION,
        cluster_id: cluster_id.clone(),
    });
    match meta.multi(vec![Op::create(paths::CLUSTER_ID, data)]).await {
        Err(MetaError::NodeExists(_)) => {
            let node = meta.get(paths::CLUSTER_ID).await?;
            let data = node.map(|node| node.data).unwrap_or_default();
            Ok(decode::<ClusterRecord>(paths::CLUSTER_ID, &data)?.cluster_id)
        }
        created => created.map(|()| cluster_id).map_err(ClusterError::from),
    }
}
