//! What this broker knows of the cluster, and its own partitions, which follow it.
//!
//! Everybody reads the image; it is replaced here alone. Who changes topics in it holds the lock for that from what it reads
//! to the image that follows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard, broadcast, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::changes::ClusterError;
use super::image::{Image, Topic};
use super::reconcile::{Step, reconcile};
use super::reconciler::Reconciler;
use super::topic_nodes;
use crate::config::LiveConfig;
use crate::meta::records::{ClusterRecord, decode};
use crate::meta::{MetaStore, paths};
use crate::partition::{OpenReport, Partitions};

/// Events that wait for a slow receiver at most.
const EVENTS_BACKLOG: usize = 4096;

/// This broker's partitions may take a session's timeout to follow a change, and at least this long: one that opens thousands of them
/// takes its time without standing still.
const STALLED_AFTER_MIN: Duration = Duration::from_secs(10);

/// What the rest of the broker hears of.
#[derive(Debug, Clone)]
pub enum ClusterEvent {
    /// A topic is gone, with what groups committed in it.
    TopicDeleted(String, Uuid),
    /// The groups that this broker coordinates may be others; see [`Image::slots`].
    Slots,
}

/// See the module's documentation.
pub(super) struct View {
    pub(super) broker_id: i32,
    pub(super) config: Arc<LiveConfig>,
    pub(super) meta: MetaStore,
    pub(super) partitions: Arc<Partitions>,
    reconciler: Reconciler,
    image: ArcSwap<Image>,
    /// Held while the image is replaced, so that no change of it is lost to another one.
    image_lock: parking_lot::Mutex<()>,
    /// Notified of every new image.
    image_changed: watch::Sender<()>,
    /// Held while topics or configurations are changed, by this broker or because the tree says so.
    changes: Mutex<()>,
    /// Since when this broker's partitions are made to follow a change, and have not done it yet.
    applying_since: parking_lot::Mutex<Option<Instant>>,
    /// How long that may take before it counts as stalled.
    stalled_after: parking_lot::Mutex<Duration>,
    /// Topics that the tree has lost.
    lost: parking_lot::Mutex<BTreeSet<Uuid>>,
    events: broadcast::Sender<ClusterEvent>,
}

/// A change that partitions are made to follow, also where the waiting for it is given up.
struct Applying<'a>(&'a parking_lot::Mutex<Option<Instant>>);

impl<'a> Applying<'a> {
    fn begin(since: &'a parking_lot::Mutex<Option<Instant>>) -> Self {
        *since.lock() = Some(Instant::now());
        Self(since)
    }
}

impl Drop for Applying<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl View {
    /// Of a cluster of which nothing is known yet but its id.
    pub(super) fn new(
        config: Arc<LiveConfig>,
        meta: MetaStore,
        partitions: Arc<Partitions>,
        cluster_id: String,
    ) -> Self {
        let broker_id = config.number("broker.id") as i32;
        let session = config.number("zookeeper.session.timeout.ms");
        let stalled_after = Duration::from_millis(session.unsigned_abs()).max(STALLED_AFTER_MIN);
        Self {
            broker_id,
            reconciler: Reconciler::new(broker_id, config.clone(), partitions.clone()),
            config,
            meta,
            partitions,
            image: ArcSwap::from_pointee(Image::of(cluster_id)),
            image_lock: parking_lot::Mutex::new(()),
            image_changed: watch::Sender::new(()),
            changes: Mutex::new(()),
            applying_since: parking_lot::Mutex::default(),
            stalled_after: parking_lot::Mutex::new(stalled_after),
            lost: parking_lot::Mutex::default(),
            events: broadcast::channel(EVENTS_BACKLOG).0,
        }
    }

    pub(super) fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// The same where it is only looked at, which costs less.
    pub(super) fn with_image<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.image.load())
    }

    pub(super) fn image_changes(&self) -> watch::Receiver<()> {
        self.image_changed.subscribe()
    }

    pub(super) fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.events.subscribe()
    }

    pub(super) fn publish_event(&self, event: ClusterEvent) {
        // An error says only that none listens.
        let _ = self.events.send(event);
    }

    /// Whether this broker may lead and coordinate at this moment: no other broker can have taken its place.
    pub(super) fn may_act(&self) -> bool {
        self.meta.lease().is_valid()
    }

    /// Whether another process has this broker's number; this one serves no more.
    pub(super) fn is_fenced(&self) -> bool {
        self.meta.lease().is_revoked()
    }

    pub(super) fn reconciler(&self) -> &Reconciler {
        &self.reconciler
    }

    /// Nobody else changes topics or configurations meanwhile.
    pub(super) async fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().await
    }

    /// Whether this broker's partitions cannot follow: a disk that stands still.
    pub(super) fn is_stalled(&self) -> bool {
        let since = *self.applying_since.lock();
        since.is_some_and(|since| since.elapsed() >= *self.stalled_after.lock())
    }

    #[cfg(test)]
    pub(super) fn count_as_stalled_after(&self, time: Duration) {
        *self.stalled_after.lock() = time;
    }

    /// Whether other brokers are there.
    pub(super) fn has_others(&self) -> bool {
        self.with_image(|image| image.brokers.keys().any(|id| *id != self.broker_id))
    }

    pub(super) fn change_image(&self, change: impl FnOnce(&mut Image)) {
        let _change = self.image_lock.lock();
        let mut image = Image::clone(&self.image.load());
        change(&mut image);
        image.drained = image.configs.drained();
        self.image.store(Arc::new(image));
        self.image_changed.send_replace(());
    }

    /// Makes a change to topics known here, after this broker has done what follows from it: nothing is appended any more to
    /// a topic that is gone from the image, and no request finds a partition without its log. Topics are changed by the
    /// holder of the lock for it.
    pub(super) async fn apply(&self, change: impl FnOnce(&mut Image)) {
        let before = self.image();
        let mut after = Image::clone(&before);
        change(&mut after);
        let steps = reconcile(&before, &after, self.broker_id);
        let applying = Applying::begin(&self.applying_since);
        let carried_out = self.reconciler.carry_out(&steps, false).await;
        drop(applying);
        if carried_out.is_none() {
            tracing::error!("opening partitions panicked");
        }
        self.change_image(|image| image.take_topics(&after));
        for step in steps {
            if let Step::Delete(topic) = step {
                self.publish_event(ClusterEvent::TopicDeleted(topic.name.to_string(), topic.id));
            }
        }
    }

    /// Opens what this broker leads of the topics that are known when it starts.
    pub(super) async fn open_all(&self) -> Option<OpenReport> {
        let steps = reconcile(&Image::default(), &self.image(), self.broker_id);
        self.reconciler.carry_out(&steps, true).await
    }

    /// Whether the tree is the one that this broker began with: a ZooKeeper that was lost and came back empty has no topics, and that
    /// is no reason to delete what is here.
    pub(super) async fn check_tree(&self) -> Result<(), ClusterError> {
        let own = self.image().cluster_id.clone();
        let found = match self.meta.get(paths::CLUSTER_ID).await? {
            Some(node) => decode::<ClusterRecord>(paths::CLUSTER_ID, &node.data)?.cluster_id,
            None => "nothing".to_owned(),
        };
        match found == own {
            true => Ok(()),
            false => Err(ClusterError::OtherTree(found, own)),
        }
    }

    /// Which of these topics, whose node is missing in the tree or another one's, were deleted: then there is a note of it until this
    /// broker has removed what it has. Without one an older tree was put back, and what is here stays.
    async fn deleted_of(&self, all: Vec<Arc<Topic>>) -> Result<Vec<Arc<Topic>>, ClusterError> {
        if all.is_empty() {
            return Ok(all);
        }
        let notes = self.meta.children(paths::DELETED).await?;
        let noted: BTreeSet<Uuid> = notes.iter().filter_map(|id| id.parse().ok()).collect();
        let is_deleted = |topic: &Arc<Topic>| {
            noted.contains(&topic.id) || self.partitions.topic_by_id(topic.id).is_none()
        };
        let (deleted, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(is_deleted);
        let mut lost = self.lost.lock();
        for topic in kept {
            tracing::error!(topic = %topic.name, id = %topic.id,
                "the coordination tree has lost the topic, and no note of its deletion: it is left as it is known here");
            lost.insert(topic.id);
        }
        for topic in &deleted {
            lost.remove(&topic.id);
        }
        Ok(deleted)
    }

    /// Whether the tree has lost a topic that is known here: nothing is written of it.
    pub(super) fn is_lost(&self, topic: &Topic) -> bool {
        self.lost.lock().contains(&topic.id)
    }

    /// Reads the named topics, or all, and makes this broker's partitions follow.
    pub(super) async fn reload_topics(
        &self,
        names: Option<&BTreeSet<String>>,
    ) -> Result<(), ClusterError> {
        let _change = self.lock_changes().await;
        self.read_topics(names).await
    }

    /// The same, by the holder of the lock for changes.
    pub(super) async fn read_topics(
        &self,
        names: Option<&BTreeSet<String>>,
    ) -> Result<(), ClusterError> {
        let mut gone = Vec::new();
        let mut there = Vec::new();
        match names {
            None => {
                let (readable, unreadable) = topic_nodes::read_all(&self.meta).await?;
                there = readable;
                let known: BTreeSet<&str> = there.iter().map(|topic| &*topic.name).collect();
                let image = self.image();
                let missing = image.topics().filter(|topic| {
                    !known.contains(&*topic.name) && !unreadable.contains(&*topic.name)
                });
                gone.extend(missing.cloned());
                self.lost.lock().clear();
            }
            Some(names) => {
                for (name, read) in names
                    .iter()
                    .zip(topic_nodes::read_named(&self.meta, names).await?)
                {
                    match read {
                        Some(Ok(topic)) => there.push(topic),
                        Some(Err(error)) => {
                            tracing::error!(topic = name, %error, "the topic is left as it is known here")
                        }
                        None => gone.extend(self.image().topic(name).cloned()),
                    }
                }
            }
        }
        let image = self.image();
        let replaced = there.iter().filter_map(|topic| {
            let known = image.topic(&topic.name)?;
            (known.id != topic.id).then(|| known.clone())
        });
        gone.extend(replaced);
        gone = self.deleted_of(gone).await?;
        there.retain(|topic| {
            let known = image.topic(&topic.name);
            known.is_none_or(|known| **known != *topic && !self.is_lost(known))
        });
        if !gone.is_empty() || !there.is_empty() {
            self.apply(|image| {
                image.remove(gone.iter().map(|topic| &*topic.name));
                image.put(there);
            })
            .await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{alone, create, put};
    use super::*;
    use crate::meta::Op;

    #[tokio::test]
    async fn a_topic_that_the_tree_has_no_more_is_told_of_and_one_that_cannot_be_read_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        create(&cluster, "gone", 1).await;
        create(&cluster, "broken", 1).await;
        let (mut events, mut images) = (cluster.events(), cluster.image_changes());
        images.borrow_and_update();
        let id = cluster.image().topic("gone").unwrap().id;
        let ops = vec![
            Op::delete(paths::topic("gone")),
            Op::put(paths::topic("broken"), "no json".into()),
        ];
        cluster.meta().multi(ops).await.unwrap();
        // An older tree was put back, where nobody deleted it.
        cluster.view.reload_topics(None).await.unwrap();
        let named = BTreeSet::from(["gone".to_owned()]);
        cluster.view.reload_topics(Some(&named)).await.unwrap();
        assert!(cluster.view.partitions.get("gone", 0).is_ok());
        let kept = cluster.image().topic("gone").cloned().unwrap();
        assert!(cluster.view.is_lost(&kept));
        // Nor is it replaced by another one of its name.
        let other = Topic {
            id: Uuid::from_u128(9),
            ..Topic::clone(&kept)
        };
        let made = topic_nodes::create(&other);
        cluster.meta().multi(made).await.unwrap();
        for names in [None, Some(&named)] {
            cluster.view.reload_topics(names).await.unwrap();
            assert_eq!(cluster.image().topic("gone").unwrap().id, id);
        }
        let deleted = vec![Op::delete_tree(paths::topic("gone"))];
        cluster.meta().multi(deleted).await.unwrap();
        put(cluster.meta(), &paths::deleted_topic(id), "{}").await;
        cluster.view.reload_topics(None).await.unwrap();
        assert!(images.has_changed().unwrap());
        assert!(cluster.image().topic("gone").is_none());
        assert!(cluster.view.partitions.get("gone", 0).is_err());
        let event = events.try_recv().unwrap();
        assert!(
            matches!(event, ClusterEvent::TopicDeleted(name, of) if name == "gone" && of == id)
        );
        assert!(cluster.view.partitions.get("broken", 0).is_ok());
        // What is as it was makes no image.
        images.borrow_and_update();
        cluster.view.reload_topics(None).await.unwrap();
        assert!(!images.has_changed().unwrap());
    }

    #[tokio::test]
    async fn a_tree_of_another_cluster_or_an_empty_one_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        create(&cluster, "t", 1).await;
        cluster.view.check_tree().await.unwrap();
        let other = r#"{"version":1,"cluster_id":"another"}"#;
        put(cluster.meta(), paths::CLUSTER_ID, other).await;
        let refused = cluster.view.check_tree().await;
        assert!(matches!(refused, Err(ClusterError::OtherTree(found, _)) if found == "another"));
        let gone = vec![Op::delete(paths::CLUSTER_ID)];
        cluster.meta().multi(gone).await.unwrap();
        let refused = cluster.view.check_tree().await;
        assert!(matches!(refused, Err(ClusterError::OtherTree(..))));
        assert!(cluster.view.partitions.get("t", 0).is_ok());
    }

    #[tokio::test]
    async fn changes_to_different_things_are_not_lost_to_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        create(&cluster, "t", 1).await;
        let topics = cluster.view.apply(|image| {
            // While the steps are done, something else changes.
            image.remove(["t"]);
        });
        let other = async { cluster.view.change_image(|image| image.controller_id = 9) };
        tokio::join!(topics, other);
        let image = cluster.image();
        assert!(image.topic("t").is_none() && image.controller_id == 9);
    }
}
