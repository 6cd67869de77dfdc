//! The changes to the cluster: creating, extending, configuring and deleting topics.
//!
//! A change is validated against the image, written to the coordination tree, applied to the image, and carried
//! out on this broker's partitions, one change at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::changes::{ClusterError, ConfigChange, NewTopic, apply_change};
use super::image::{Broker, Image, PartitionInfo, Topic};
use super::names::{self, check_topic_name};
use super::placement::{Identities, spread};
use crate::config::{Config, TopicConfig, TopicOverrides};
use crate::log::{LogConfig, uuid_to_base64};
use crate::meta::records::{
    ClusterRecord, DeletedTopicRecord, RECORD_VERSION, TopicRecord, decode, encode,
};
use crate::meta::{MetaError, MetaStore, Op, paths};
use crate::partition::{OpenReport, Partitions, TopicToOpen};

/// Most partitions that one topic may have; a typing error should not fill the disk with directories.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 100_000;
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

/// The cluster. See the module's documentation.
pub struct Cluster {
    broker_id: i32,
    config: Arc<Config>,
    meta: MetaStore,
    partitions: Arc<Partitions>,
    image: ArcSwap<Image>,
    changes: Mutex<()>,
}

impl Cluster {
    /// Reads the tree, adopts partition directories that it does not know, and opens this broker's partitions.
    /// `cluster_id` is what the data directories say, if anything.
    pub async fn open(
        config: Arc<Config>,
        meta: MetaStore,
        partitions: Arc<Partitions>,
        cluster_id: Option<String>,
    ) -> Result<(Self, Opened), ClusterError> {
        let broker_id = config.number("broker.id") as i32;
        let cluster_id = ensure_cluster_id(&meta, cluster_id).await?;
        for dir in partitions.data_dirs() {
            dir.claim(&cluster_id, broker_id)?;
        }
        let mut image = Image::default();
        (image.cluster_id, image.controller_id) = (cluster_id, broker_id);
        let image = ArcSwap::from_pointee(image);
        let cluster = Self {
            broker_id,
            config,
            meta,
            partitions,
            image,
            changes: Mutex::new(()),
        };
        cluster.load_topics().await?;
        let deleted = cluster.finish_deletions().await?;
        cluster.adopt_found(&deleted).await?;
        let image = cluster.image();
        let to_open: Vec<_> = image
            .topics()
            .map(|topic| cluster.to_open(topic, 0))
            .collect();
        let partitions = cluster.partitions.clone();
        let report = tokio::task::spawn_blocking(move || partitions.open_topics(to_open))
            .await
            .map_err(|error| MetaError::Unavailable(error.to_string()))?;
        let opened = Opened {
            topics: image.topics().count(),
            report,
        };
        cluster.create_named_topics().await;
        Ok((cluster, opened))
    }

    /// The cluster at this moment.
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// This broker's number.
    pub fn broker_id(&self) -> i32 {
        self.broker_id
    }

    /// The coordination tree.
    pub fn meta(&self) -> &MetaStore {
        &self.meta
    }

    /// Tells clients where this broker is.
    pub fn announce(&self, broker: Broker) {
        self.change_image(|image| {
            image.brokers.insert(broker.id, broker);
        });
    }

    /// What a topic gets from the broker's configuration, under its own overrides.
    pub fn defaults_for(&self, topic: &str) -> TopicOverrides {
        self.config.defaults_for_topic(topic)
    }

    fn log_config(&self, topic: &Topic) -> LogConfig {
        TopicConfig {
            overrides: &topic.overrides,
            broker: &self.defaults_for(&topic.name),
        }
        .log()
    }

    fn change_image(&self, change: impl FnOnce(&mut Image)) {
        let mut image = Image::clone(&self.image.load());
        change(&mut image);
        self.image.store(Arc::new(image));
    }

    async fn load_topics(&self) -> Result<(), ClusterError> {
        let mut topics = Vec::new();
        for (path, node) in self.meta.subtree(paths::TOPICS).await? {
            let element = path.rsplit('/').next().unwrap_or_default();
            let Some(name) = paths::unescape(element) else {
                continue;
            };
            let record: TopicRecord = decode(&path, &node.data)?;
            topics.push(Topic::from_record(&name, &path, record)?);
        }
        self.change_image(|image| topics.into_iter().for_each(|topic| image.put(topic)));
        Ok(())
    }

    /// Removes what is left of topics whose deletion was cut short; returns their ids.
    async fn finish_deletions(&self) -> Result<BTreeSet<Uuid>, ClusterError> {
        let pending = self.meta.children(paths::DELETED).await?;
        let ids: BTreeSet<Uuid> = pending
            .iter()
            .filter_map(|id| Uuid::parse_str(id).ok())
            .collect();
        for found in self.partitions.found() {
            if let Some(id) = found.topic_id.filter(|id| ids.contains(id)) {
                tracing::info!(dir = %found.path.display(), topic_id = %id, "finishing a topic's deletion");
                self.partitions.remove_found(&found);
            }
        }
        let done = ids
            .iter()
            .map(|id| Op::DeleteTree {
                path: paths::deleted_topic(*id),
            })
            .collect();
        self.meta.multi(done).await?;
        Ok(ids)
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
                partition.leader_epoch = self.partitions.latest_epoch(&name, index as i32);
            }
            let id = topic_id.unwrap_or_else(Uuid::new_v4);
            adopted.push(Topic {
                name: name.into(),
                id,
                overrides: TopicOverrides::default(),
                partitions,
            });
        }
        let put = |topic: &Topic| Op::Put {
            path: paths::topic(&topic.name),
            data: encode(&topic.to_record()),
        };
        if !adopted.is_empty() {
            self.meta.multi(adopted.iter().map(put).collect()).await?;
            self.change_image(|image| adopted.into_iter().for_each(|topic| image.put(topic)));
        }
        Ok(())
    }

    /// Creates the topics that the configuration names.
    async fn create_named_topics(&self) {
        let missing: Vec<NewTopic> = self
            .config
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

    fn to_open(&self, topic: &Topic, from: usize) -> TopicToOpen {
        let own = topic
            .partitions
            .iter()
            .enumerate()
            .skip(from)
            .filter(|(_, info)| info.leader == self.broker_id);
        TopicToOpen {
            topic: topic.name.clone(),
            topic_id: topic.id,
            config: self.log_config(topic),
            partitions: own
                .map(|(index, info)| (index as i32, info.identity, info.leader_epoch))
                .collect(),
        }
    }

    /// Creates topics; the answers stand in the order of the requests. All that can be created is created in
    /// one write.
    pub async fn create_topics(
        &self,
        wanted: &[NewTopic],
        validate_only: bool,
    ) -> Vec<Result<Arc<Topic>, ClusterError>> {
        let _change = self.changes.lock().await;
        let mut planned_names: BTreeSet<&str> = BTreeSet::new();
        let mut results: Vec<Result<Topic, ClusterError>> = Vec::with_capacity(wanted.len());
        for new in wanted {
            let planned = match planned_names.contains(new.name.as_str()) {
                true => Err(ClusterError::TopicExists(new.name.clone())),
                false => self.plan(new),
            };
            planned_names.insert(&new.name);
            results.push(planned);
        }
        let planned: Vec<&Topic> = results.iter().flatten().collect();
        if validate_only || planned.is_empty() {
            return results
                .into_iter()
                .map(|result| result.map(Arc::new))
                .collect();
        }
        if let Err(error) = self.store_new(&planned).await {
            return results
                .into_iter()
                .map(|result| result.and_then(|_| Err(error.clone().into())))
                .collect();
        }
        let to_open = planned.iter().map(|topic| self.to_open(topic, 0)).collect();
        let planned: Vec<Topic> = planned.into_iter().cloned().collect();
        // Opened before they are told of, so that nobody finds a partition without its log.
        self.open_here(to_open).await;
        self.change_image(|image| planned.into_iter().for_each(|topic| image.put(topic)));
        results
            .into_iter()
            .map(|result| result.map(Arc::new))
            .collect()
    }

    async fn store_new(&self, topics: &[&Topic]) -> Result<(), MetaError> {
        if self.meta.get(paths::TOPICS).await?.is_none() {
            self.meta
                .multi(vec![Op::Put {
                    path: paths::TOPICS.to_owned(),
                    data: bytes::Bytes::new(),
                }])
                .await?;
        }
        let create = |topic: &&Topic| Op::Create {
            path: paths::topic(&topic.name),
            data: encode(&topic.to_record()),
            ephemeral: false,
        };
        self.meta.multi(topics.iter().map(create).collect()).await
    }

    async fn open_here(&self, to_open: Vec<TopicToOpen>) -> usize {
        let partitions = self.partitions.clone();
        let opened = tokio::task::spawn_blocking(move || partitions.open_topics(to_open)).await;
        opened.map_or(usize::MAX, |report| report.offline)
    }

    fn plan(&self, new: &NewTopic) -> Result<Topic, ClusterError> {
        check_topic_name(&new.name)?;
        let image = self.image.load();
        if image.topic(&new.name).is_some() {
            return Err(ClusterError::TopicExists(new.name.clone()));
        }
        if let Some(other) = image
            .topics()
            .find(|topic| names::collide(&topic.name, &new.name))
        {
            return Err(ClusterError::Collision(
                new.name.clone(),
                other.name.to_string(),
            ));
        }
        let mut overrides = TopicOverrides::default();
        for (name, value) in &new.config {
            let value = value.clone().ok_or_else(|| {
                ClusterError::ConfigChange(format!(
                    "Null value not supported for topic configs: {name}"
                ))
            })?;
            overrides.0.insert(name.clone(), value);
        }
        overrides.validate()?;
        let replicas = self.plan_replicas(new)?;
        let partitions = self.deal(&Identities::default(), &replicas);
        Ok(Topic {
            name: new.name.as_str().into(),
            id: new_topic_id(),
            overrides,
            partitions,
        })
    }

    /// The replicas of each partition of a new topic.
    fn plan_replicas(&self, new: &NewTopic) -> Result<Vec<Vec<i32>>, ClusterError> {
        if !new.assignments.is_empty() {
            if new.partitions != -1 || new.replication_factor != -1 {
                return Err(ClusterError::Request(
                    "Both numPartitions or replicationFactor and replicasAssignments were set."
                        .to_owned(),
                ));
            }
            return self.check_assignments(0, &new.assignments);
        }
        let brokers = self.live_brokers();
        let partitions = match new.partitions {
            -1 => self.config.partitions_for_topic(&new.name) * brokers.len().max(1) as i32,
            n => n,
        };
        if partitions <= 0 {
            return Err(ClusterError::Partitions(
                "Number of partitions must be larger than 0.".to_owned(),
            ));
        }
        if partitions > PARTITIONS_PER_TOPIC_MAX {
            return Err(ClusterError::Partitions(format!(
                "Number of partitions must not be larger than {PARTITIONS_PER_TOPIC_MAX}."
            )));
        }
        self.check_replication_factor(new.replication_factor)?;
        Ok(spread(&brokers, partitions as usize))
    }

    fn check_replication_factor(&self, asked: i16) -> Result<(), ClusterError> {
        let factor = if asked == -1 {
            self.config.number("default.replication.factor")
        } else {
            i64::from(asked)
        };
        let live = self.live_brokers().len();
        if factor < 1 {
            return Err(ClusterError::ReplicationFactor(
                "Replication factor must be larger than 0.".to_owned(),
            ));
        }
        if factor as usize > live {
            return Err(ClusterError::ReplicationFactor(format!(
                "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only {live} broker(s) are registered."
            )));
        }
        Ok(())
    }

    fn check_assignments(
        &self,
        first: i32,
        assignments: &BTreeMap<i32, Vec<i32>>,
    ) -> Result<Vec<Vec<i32>>, ClusterError> {
        let live = self.live_brokers();
        let mut all = Vec::with_capacity(assignments.len());
        for (n, (index, replicas)) in assignments.iter().enumerate() {
            if *index != first + n as i32 {
                return Err(ClusterError::Assignment(
                    "Partitions should be a consecutive 0-based integer sequence.".to_owned(),
                ));
            }
            let distinct: BTreeSet<_> = replicas.iter().collect();
            if replicas.is_empty() || distinct.len() != replicas.len() {
                return Err(ClusterError::Assignment(format!(
                    "The replicas {replicas:?} of partition {index} are empty or not distinct."
                )));
            }
            if let Some(absent) = replicas.iter().find(|id| !live.contains(id)) {
                return Err(ClusterError::Assignment(format!(
                    "The manual partition assignment includes broker {absent}, but no such broker is registered."
                )));
            }
            all.push(replicas.clone());
        }
        Ok(all)
    }

    fn live_brokers(&self) -> Vec<i32> {
        let image = self.image.load();
        if image.brokers.is_empty() {
            vec![self.broker_id]
        } else {
            image.brokers.keys().copied().collect()
        }
    }

    /// Gives new partitions their identities: the home broker is the first replica.
    fn deal(&self, taken: &Identities, replicas: &[Vec<i32>]) -> Vec<PartitionInfo> {
        let mut identities = taken.clone();
        let deal_one = |replicas: &Vec<i32>| {
            let home = replicas.first().copied().unwrap_or(self.broker_id);
            PartitionInfo {
                identity: identities.next_of(home),
                replicas: replicas.clone(),
                isr: replicas.clone(),
                leader: home,
                leader_epoch: 0,
            }
        };
        replicas.iter().map(deal_one).collect()
    }

    /// Extends a topic to `count` partitions.
    pub async fn create_partitions(
        &self,
        name: &str,
        count: i32,
        assignments: Option<Vec<Vec<i32>>>,
        validate_only: bool,
    ) -> Result<(), ClusterError> {
        let _change = self.changes.lock().await;
        let topic = self
            .image()
            .topic(name)
            .cloned()
            .ok_or(ClusterError::UnknownTopic)?;
        let have = topic.partitions.len() as i32;
        if count == have {
            return Err(ClusterError::Partitions(format!(
                "Topic already has {have} partition(s)."
            )));
        }
        if count < have {
            return Err(ClusterError::Partitions(format!(
                "The topic {name} currently has {have} partition(s); {count} would not be an increase."
            )));
        }
        if count > PARTITIONS_PER_TOPIC_MAX {
            return Err(ClusterError::Partitions(format!(
                "Number of partitions must not be larger than {PARTITIONS_PER_TOPIC_MAX}."
            )));
        }
        let more = (count - have) as usize;
        let replicas = match assignments {
            Some(assignments) if assignments.len() != more => {
                return Err(ClusterError::Assignment(format!(
                    "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                    assignments.len()
                )));
            }
            Some(assignments) => {
                let by_index = assignments
                    .into_iter()
                    .enumerate()
                    .map(|(n, replicas)| (have + n as i32, replicas));
                self.check_assignments(have, &by_index.collect())?
            }
            None => spread(&self.live_brokers(), more),
        };
        if validate_only {
            return Ok(());
        }
        let mut extended = Topic::clone(&topic);
        let taken = Identities::of(&topic);
        extended.partitions.extend(self.deal(&taken, &replicas));
        self.store(&extended).await?;
        let offline = self
            .open_here(vec![self.to_open(&extended, have as usize)])
            .await;
        self.change_image(|image| image.put(extended));
        if offline > 0 {
            Err(ClusterError::Storage(offline))
        } else {
            Ok(())
        }
    }

    /// Changes a topic's configuration.
    pub async fn change_config(
        &self,
        name: &str,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), ClusterError> {
        let _change = self.changes.lock().await;
        let topic = self
            .image()
            .topic(name)
            .cloned()
            .ok_or(ClusterError::UnknownTopic)?;
        let mut changed = Topic::clone(&topic);
        let defaults = self.defaults_for(name);
        for change in changes {
            apply_change(&mut changed.overrides, &defaults, change)?;
        }
        changed.overrides.validate()?;
        if validate_only {
            return Ok(());
        }
        self.store(&changed).await?;
        self.partitions
            .reconfigure(name, &self.log_config(&changed));
        self.change_image(|image| image.put(changed));
        Ok(())
    }

    /// Deletes a topic; its name is free when this returns.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClusterError> {
        let _change = self.changes.lock().await;
        if !self.config.flag("delete.topic.enable") {
            return Err(ClusterError::DeletionDisabled);
        }
        let topic = self
            .image()
            .topic(name)
            .cloned()
            .ok_or(ClusterError::UnknownTopic)?;
        // The note outlives a crash before the files are out of the way, where they would look like a topic to adopt.
        let note = encode(&DeletedTopicRecord {
            version: RECORD_VERSION,
            topic: name.to_owned(),
        });
        let forget = vec![
            Op::Put {
                path: paths::deleted_topic(topic.id),
                data: note,
            },
            Op::Delete {
                path: paths::topic(name),
                version: None,
            },
        ];
        self.meta.multi(forget).await?;
        self.change_image(|image| {
            image.remove(name);
        });
        self.partitions.delete(topic.id).await;
        let done = Op::DeleteTree {
            path: paths::deleted_topic(topic.id),
        };
        self.meta.multi(vec![done]).await?;
        Ok(())
    }

    async fn store(&self, topic: &Topic) -> Result<(), MetaError> {
        let data = encode(&topic.to_record());
        self.meta
            .multi(vec![Op::Set {
                path: paths::topic(&topic.name),
                data,
                version: None,
            }])
            .await
    }
}

/// Random, but none that would read as a command-line option in base64.
fn new_topic_id() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if !uuid_to_base64(id).starts_with('-') {
            return id;
        }
    }
}

async fn ensure_cluster_id(
    meta: &MetaStore,
    on_disk: Option<String>,
) -> Result<String, ClusterError> {
    if let Some(node) = meta.get(paths::CLUSTER_ID).await? {
        return Ok(decode::<ClusterRecord>(paths::CLUSTER_ID, &node.data)?.cluster_id);
    }
    let cluster_id = on_disk.unwrap_or_else(|| uuid_to_base64(Uuid::new_v4()));
    let data = encode(&ClusterRecord {
        version: RECORD_VERSION,
        cluster_id: cluster_id.clone(),
    });
    meta.multi(vec![Op::Put {
        path: paths::CLUSTER_ID.to_owned(),
        data,
    }])
    .await?;
    Ok(cluster_id)
}
