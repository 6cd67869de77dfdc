//! The cluster as the rest of the broker sees it: what is known of it, this broker's membership, and this broker as its
//! controller.
//!
//! Tests: tests/cluster.rs, tests/takeover.rs.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, broadcast, watch};
use uuid::Uuid;

use super::changes::ClusterError;
use super::controller::Controller;
use super::image::{Broker, Image, PartitionInfo, Topic};
use super::membership::{self, Directories, Membership};
use super::partition_changes::{IsrProposal, IsrRefusal};
use super::publish::Publisher;
use super::topic_nodes;
use super::view::{ClusterEvent, View};
use crate::config::{
    ClientMetricsSubscription, ConfigError, LiveConfig, Reload, TopicConfig, TopicOverrides,
};
use crate::log::uuid_to_base64;
use crate::meta::records::{ClusterRecord, RECORD_VERSION, UnknownUsersRecord, decode, encode};
use crate::meta::{Change, MetaError, MetaStore, Op, paths, upgrade_topics};
use crate::partition::{OpenReport, Partitions};
use crate::security::{Acls, random_secret};

/// How often a broker that starts tries to join before it gives up, and the pause between.
const JOIN_TRIES_MAX: usize = 10;
const JOIN_PAUSE: Duration = Duration::from_millis(300);

/// What opening the cluster's topics found.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenedTopics {
    /// Topics.
    pub topics: usize,
    /// Partitions.
    pub report: OpenReport,
}

/// The cluster. See the module's documentation.
pub struct Cluster {
    pub(super) view: Arc<View>,
    pub(super) controller: Arc<Controller>,
    pub(super) membership: Membership,
    publisher: Publisher,
    /// Changes of the tree since before it was read first.
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
    ) -> Result<(Self, OpenedTopics), ClusterError> {
        let broker_id = config.number("broker.id") as i32;
        let tree = Mutex::new(meta.watch());
        membership::refuse_foreign_root(&meta).await?;
        let directory_id = match partitions.data_dirs().next() {
            Some(dir) => dir.property("directory.id")?,
            None => None,
        };
        membership::refuse_taken_number(&meta, broker_id, directory_id.as_deref()).await?;
        membership::ensure_base(&meta).await?;
        let cluster_id = ensure_cluster_id(&meta, cluster_id).await?;
        for dir in partitions.data_dirs() {
            dir.claim(&cluster_id, broker_id)?;
        }
        let view = Arc::new(View::new(config, meta, partitions, cluster_id));
        let opened = open_topics(&view).await?;
        let controller = Arc::new(Controller::new(view.clone()));
        let cluster = Self {
            membership: Membership::new(view.clone(), controller.clone()),
            controller,
            publisher: Publisher::new(view.clone()),
            view,
            tree,
        };
        Ok((cluster, opened))
    }

    /// Holds up all changes, as a store that does not answer does.
    #[cfg(test)]
    pub async fn hold_changes(&self) -> impl Drop {
        self.view.lock_changes().await
    }

    /// The cluster at this moment.
    pub fn image(&self) -> Arc<Image> {
        self.view.image()
    }

    /// Looks at the access control lists that are in force.
    pub fn with_acls<T>(&self, look: impl FnOnce(&Acls) -> T) -> T {
        self.view.with_image(|image| look(&image.acls))
    }

    /// Told whenever the image is another one.
    pub fn image_changes(&self) -> watch::Receiver<()> {
        self.view.image_changes()
    }

    /// This broker's number.
    pub fn broker_id(&self) -> i32 {
        self.view.broker_id
    }

    /// The coordination tree.
    pub fn meta(&self) -> &MetaStore {
        &self.view.meta
    }

    /// Tells of topics that go and of groups that come and go.
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.view.events()
    }

    /// Whether this broker may lead and coordinate at this moment: no other broker can have taken its place.
    pub fn may_act(&self) -> bool {
        self.view.may_act()
    }

    /// Whether another process has this broker's number; this one serves no more.
    pub fn is_fenced(&self) -> bool {
        self.view.is_fenced()
    }

    /// This broker as the controller: who changes topics and configurations.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Whether this broker is the controller, as far as it knows.
    pub fn is_controller(&self) -> bool {
        self.controller.is_controller()
    }

    /// As the controller, changes the in-sync replicas of partitions as their leader proposes; see
    /// [`Controller::alter_partitions`].
    pub async fn alter_partitions(
        &self,
        leader: i32,
        leader_registration: i64,
        proposals: Vec<IsrProposal>,
    ) -> Result<Vec<Result<PartitionInfo, IsrRefusal>>, ClusterError> {
        let controller = &self.controller;
        controller
            .alter_partitions(leader, leader_registration, proposals)
            .await
    }

    /// What a topic gets from the broker's configuration, under its own overrides.
    pub fn defaults_for(&self, topic: &str) -> TopicOverrides {
        self.view.reconciler().defaults_for(topic)
    }

    /// Whether the home broker of each of a topic's partitions alone leads it.
    pub fn is_strictly_ordered(&self, topic: &Topic) -> bool {
        let broker = &self.defaults_for(&topic.name);
        let overrides = &topic.overrides;
        TopicConfig { overrides, broker }.is_strictly_ordered()
    }

    /// All client metrics subscriptions, by name.
    pub fn client_metrics(&self) -> Arc<Vec<ClientMetricsSubscription>> {
        self.image().configs.subscriptions.clone()
    }

    /// Becomes a member: registers, takes part in the election of the controller, and learns who else is there.
    pub async fn join(&self, member: Broker, directories: Directories) -> Result<(), ClusterError> {
        let mut joined = self.membership.join(member, directories).await;
        for _ in 1..JOIN_TRIES_MAX {
            let Err(ClusterError::Meta(MetaError::Unavailable(why))) = &joined else {
                break;
            };
            // Such as a lease that lapsed while much was read.
            tracing::warn!(why, "cannot join the cluster yet");
            tokio::time::sleep(JOIN_PAUSE).await;
            joined = self.membership.rejoin().await;
        }
        joined?;
        if self.is_controller() {
            self.controller.create_named_topics().await;
        }
        self.publish_topics().await
    }

    pub(super) async fn publish_topics(&self) -> Result<(), ClusterError> {
        let session = self.membership.session();
        self.publisher.publish_topics(session).await
    }

    /// Reads the configuration file again; see [`LiveConfig::reload`](crate::config::LiveConfig::reload).
    pub async fn reload_config(&self) -> Result<Reload, ConfigError> {
        let report = self.view.config.reload()?;
        let change = self.view.lock_changes().await;
        self.view.reconfigure_topics();
        if let Err(error) = self.controller.settle().await {
            tracing::warn!(%error, "cannot choose leaders by the settings that are in force now");
        }
        drop(change);
        if self.is_controller() {
            self.controller.create_named_topics().await;
        }
        if let Err(error) = self.publish_topics().await {
            tracing::warn!(%error, "cannot tell which topics are taken messages for");
        }
        for change in &report.applied {
            tracing::info!(
                name = change.name,
                from = change.from,
                to = change.to,
                "configuration changed"
            );
        }
        for change in &report.needs_restart {
            tracing::warn!(
                name = change.name,
                from = change.from,
                to = change.to,
                "in force after a restart"
            );
        }
        for change in &report.overruled {
            tracing::warn!(
                name = change.name,
                to = change.to,
                "set at run time to something else, which stays in force"
            );
        }
        Ok(report)
    }
}

/// Reads what the tree has, and opens this broker's partitions.
async fn open_topics(view: &View) -> Result<OpenedTopics, ClusterError> {
    let upgraded = upgrade_topics(&view.meta).await?;
    if upgraded > 0 {
        tracing::info!(topics = upgraded, "brought the tree to this version's form");
    }
    view.reload_configs().await?;
    view.reload_acls(None).await?;
    view.reload_tokens(None).await?;
    let (topics, _) = topic_nodes::read_all(&view.meta).await?;
    view.change_image(|image| image.put(topics));
    let deleted = view.finish_deletions().await?;
    view.adopt_found(&deleted).await?;
    view.remove_found_replicas().await;
    let report = view.open_all().await;
    let report = report
        .ok_or_else(|| MetaError::Unavailable("opening the partitions panicked".to_owned()))?;
    Ok(OpenedTopics {
        topics: view.image().topics().count(),
        report,
    })
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
    let fresh = ClusterRecord {
        version: RECORD_VERSION,
        cluster_id: on_disk.unwrap_or_else(|| uuid_to_base64(Uuid::new_v4())),
    };
    Ok(ensure(meta, paths::CLUSTER_ID, fresh).await?.cluster_id)
}

/// What makes salts for users who are not known; the first broker of a cluster chooses it.
pub async fn unknown_users_secret(meta: &MetaStore) -> Result<Vec<u8>, MetaError> {
    let fresh = UnknownUsersRecord {
        version: RECORD_VERSION,
        secret: BASE64.encode(&random_secret()),
    };
    let kept = ensure(meta, paths::UNKNOWN_USERS, fresh).await?;
    Ok(kept.secret.into_bytes())
}

/// A record that is created once: as it is there, or as it is from now on.
async fn ensure<T: Serialize + DeserializeOwned>(
    meta: &MetaStore,
    path: &str,
    fresh: T,
) -> Result<T, MetaError> {
    if let Some(node) = meta.get(path).await? {
        return decode(path, &node.data);
    }
    match meta.multi(vec![Op::create(path, encode(&fresh))]).await {
        Err(MetaError::NodeExists(_)) => {
            let node = meta.get(path).await?;
            let data = node.map(|node| node.data).unwrap_or_default();
            decode(path, &data)
        }
        created => created.map(|()| fresh),
    }
}
