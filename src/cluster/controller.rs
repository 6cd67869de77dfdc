//! The controller: the one broker that changes topics and deals the slots of groups. Elected by creating
//! `/controller`; every write of its term checks the version of `/controller_epoch`.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, Notify};

use super::changes::ClusterError;
use super::image::SlotInfo;
use super::placement::deal_slots;
use super::view::{ClusterEvent, View};
use crate::coordinator::Slot;
use crate::meta::records::{
    ControllerEpochRecord, ControllerRecord, RECORD_VERSION, SlotRecord, decode, encode,
};
use crate::meta::{MetaError, Op, paths};

/// This broker's time as the controller.
#[derive(Debug)]
struct Term {
    /// Version of `/controller_epoch` that the election left.
    version: i32,
}

/// This broker as the controller, or as one that may become it.
pub struct Controller {
    pub(super) view: Arc<View>,
    /// Set while this broker is the controller.
    term: ArcSwapOption<Term>,
    /// Held from what is read of the slots to what is written of them: who changes a setting deals them, and so does who
    /// hears of the change.
    dealing: Mutex<()>,
    /// Told when this broker finds that it is not the controller that it took itself for.
    deposed: Notify,
}

impl Controller {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            term: ArcSwapOption::empty(),
            dealing: Mutex::default(),
            deposed: Notify::new(),
        }
    }

    /// Waits until this broker finds that it is the controller no more.
    pub(super) async fn deposed(&self) {
        self.deposed.notified().await;
    }

    /// Gives the term up, without a word to the tree: what it held there is gone, or another one's.
    pub(super) fn resign(&self) {
        self.term.store(None);
    }

    /// Gives the term up and looks at once who the controller is: where it is this broker still, it begins from what the
    /// tree says.
    pub(super) fn begin_anew(&self) {
        self.term.store(None);
        self.deposed.notify_one();
    }

    /// Whether this broker is the controller, as far as it knows.
    pub fn is_controller(&self) -> bool {
        self.term.load().is_some() && self.view.may_act()
    }

    /// Whether it is for this broker to do what only the controller does. Where it is the controller, and its lease has lapsed in a
    /// session that lives on, that is to be tried again: nobody else will do it.
    pub(super) fn may_change(&self) -> Result<bool, ClusterError> {
        let has_lapsed = || MetaError::Unavailable("the controller's lease has lapsed".to_owned());
        match (self.term.load().is_some(), self.view.may_act()) {
            (true, false) => Err(has_lapsed().into()),
            (is_controller, _) => Ok(is_controller),
        }
    }

    /// Makes changes as the controller: none is made when this broker is the controller no more.
    pub(super) async fn change_as_controller(&self, ops: Vec<Op>) -> Result<(), ClusterError> {
        let term = self.term.load_full().ok_or(ClusterError::NotController)?;
        let mut all = vec![Op::Check {
            path: paths::CONTROLLER_EPOCH.to_owned(),
            version: Some(term.version),
        }];
        all.extend(ops);
        match self.view.meta.multi(all).await {
            Err(MetaError::BadVersion(path)) if path == paths::CONTROLLER_EPOCH => {
                tracing::warn!("this broker is the controller no more");
                self.begin_anew();
                Err(ClusterError::NotController)
            }
            result => Ok(result?),
        }
    }

    /// Learns who the controller is; where there is none, tries to become it, when this broker is registered.
    pub(super) async fn reload_controller(
        &self,
        own_epoch: Option<i64>,
    ) -> Result<(), ClusterError> {
        loop {
            if self.view.is_fenced() {
                return Ok(());
            }
            let node = self.view.meta.get(paths::CONTROLLER).await?;
            let mut stale = None;
            if let Some(node) = node {
                let record: ControllerRecord = decode(paths::CONTROLLER, &node.data)?;
                let own = record.broker_id == self.view.broker_id;
                if !own || own_epoch.is_none_or(|epoch| record.broker_epoch > epoch) {
                    self.controller_is(record.broker_id);
                    return Ok(());
                }
                if Some(record.broker_epoch) == own_epoch && self.resume_term(record.epoch).await? {
                    self.controller_is(self.view.broker_id);
                    return Ok(());
                }
                // Left by this broker's earlier session, or by an election that something else overtook.
                stale = Some(node.version);
            }
            let Some(own_epoch) = own_epoch else {
                self.controller_is(-1);
                return Ok(());
            };
            if self.view.is_stalled() && self.view.has_others() {
                self.controller_is(-1);
                return Ok(());
            }
            if let Some(version) = self.elect(own_epoch, stale).await? {
                return self.begin_term(version).await;
            }
        }
    }

    /// The tree says that this broker is the controller. It is, when the epoch is still the one of its election; an
    /// election whose answer was lost is found out here.
    async fn resume_term(&self, epoch: i32) -> Result<bool, ClusterError> {
        if self.term.load().is_some() {
            return Ok(true);
        }
        let Some(node) = self.view.meta.get(paths::CONTROLLER_EPOCH).await? else {
            return Ok(false);
        };
        let counted: ControllerEpochRecord = decode(paths::CONTROLLER_EPOCH, &node.data)?;
        if counted.epoch != epoch {
            return Ok(false);
        }
        self.begin_term(node.version).await?;
        Ok(true)
    }

    /// Changes are made only from an image that is as new as the election, and with leaders for the brokers that are there:
    /// the controller before may not have come to it.
    async fn begin_term(&self, version: i32) -> Result<(), ClusterError> {
        let change = self.view.lock_changes().await;
        self.view.read_topics(None).await?;
        self.term.store(Some(Arc::new(Term { version })));
        self.controller_is(self.view.broker_id);
        self.settle().await?;
        drop(change);
        self.deal_slots().await
    }

    pub(super) fn controller_is(&self, id: i32) {
        if id != self.view.broker_id {
            self.term.store(None);
        }
        if self.view.image().controller_id != id {
            tracing::info!(id, "controller");
            self.view.change_image(|image| image.controller_id = id);
        }
    }

    /// Tries to become the controller; the version of the epoch's node then, or `None` when somebody else was quicker.
    async fn elect(&self, own_epoch: i64, stale: Option<i32>) -> Result<Option<i32>, ClusterError> {
        let node = self.view.meta.get(paths::CONTROLLER_EPOCH).await?;
        let node = node.ok_or_else(|| MetaError::NoNode(paths::CONTROLLER_EPOCH.to_owned()))?;
        let before: ControllerEpochRecord = decode(paths::CONTROLLER_EPOCH, &node.data)?;
        let epoch = before.epoch + 1;
        let record = ControllerRecord {
            version: RECORD_VERSION,
            broker_id: self.view.broker_id,
            broker_epoch: own_epoch,
            epoch,
        };
        let mut ops = Vec::new();
        if stale.is_some() {
            ops.push(Op::Delete {
                path: paths::CONTROLLER.to_owned(),
                version: stale,
            });
        }
        ops.push(Op::Create {
            path: paths::CONTROLLER.to_owned(),
            data: encode(&record),
            ephemeral: true,
        });
        ops.push(Op::Set {
            path: paths::CONTROLLER_EPOCH.to_owned(),
            data: encode(&ControllerEpochRecord {
                version: RECORD_VERSION,
                epoch,
            }),
            version: Some(node.version),
        });
        match self.view.meta.multi(ops).await {
            Ok(()) => {
                tracing::info!(epoch, "elected as controller");
                Ok(Some(node.version.wrapping_add(1)))
            }
            Err(MetaError::NodeExists(_) | MetaError::BadVersion(_) | MetaError::NoNode(_)) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads who coordinates which groups.
    pub(super) async fn reload_slots(&self) -> Result<(), ClusterError> {
        let slots = self.read_slots().await?;
        if self.view.image().slots != slots {
            self.view.change_image(|image| image.slots = slots);
            self.view.publish_event(ClusterEvent::Slots);
        }
        Ok(())
    }

    async fn read_slots(&self) -> Result<Vec<SlotInfo>, ClusterError> {
        let mut slots = Vec::new();
        for (path, node) in self.view.meta.subtree(paths::COORDINATORS).await? {
            let Some(slot) = path.rsplit('/').next().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let slot: usize = slot;
            if slot >= Slot::COUNT {
                continue;
            }
            slots.resize(Slot::COUNT, SlotInfo::UNOWNED);
            match decode::<SlotRecord>(&path, &node.data) {
                Ok(record) => {
                    slots[slot] = SlotInfo {
                        owner: record.owner,
                        epoch: record.epoch,
                        version: node.version,
                    };
                }
                Err(error) => {
                    tracing::error!(slot, %error, "the slot is left as it is known here");
                    let known = self.view.image().slots.get(slot).copied();
                    slots[slot] = known.unwrap_or(SlotInfo::UNOWNED);
                }
            }
        }
        Ok(slots)
    }

    /// Writes this broker's slots as they are: what an earlier run of it still writes, in a session that lives on, names an older
    /// version of them and is refused from now on. Before anything is read of them.
    pub(super) async fn claim_slots(&self) -> Result<(), ClusterError> {
        loop {
            let slots = self.read_slots().await?;
            let own = slots.iter().enumerate();
            let own = own.filter(|(_, info)| info.owner == self.view.broker_id);
            let ops: Vec<Op> = own
                .map(|(slot, info)| Op::Set {
                    path: paths::coordinator_slot(slot),
                    data: encode(&SlotRecord {
                        version: RECORD_VERSION,
                        owner: info.owner,
                        epoch: info.epoch,
                    }),
                    version: Some(info.version),
                })
                .collect();
            if ops.is_empty() {
                return Ok(());
            }
            match self.view.meta.multi(ops).await {
                // The controller has dealt them meanwhile.
                Err(MetaError::BadVersion(_)) => {}
                claimed => return Ok(claimed?),
            }
        }
    }

    /// As the controller, gives every slot to a live broker.
    pub(super) async fn deal_slots(&self) -> Result<(), ClusterError> {
        let _dealing = self.dealing.lock().await;
        if !self.may_change()? {
            return Ok(());
        }
        let slots = self.read_slots().await?;
        let owners: Vec<i32> = (0..Slot::COUNT)
            .map(|slot| slots.get(slot).map_or(-1, |info| info.owner))
            .collect();
        let live = self.view.image().willing_brokers();
        let ops: Vec<Op> = deal_slots(&owners, &live)
            .into_iter()
            .map(|(slot, owner)| {
                let known = slots.get(slot).filter(|info| info.version >= 0);
                let data = encode(&SlotRecord {
                    version: RECORD_VERSION,
                    owner,
                    epoch: known.map_or(1, |info| info.epoch + 1),
                });
                let path = paths::coordinator_slot(slot);
                match known {
                    Some(info) => Op::Set {
                        path,
                        data,
                        version: Some(info.version),
                    },
                    None => Op::create(path, data),
                }
            })
            .collect();
        if ops.is_empty() {
            return Ok(());
        }
        tracing::info!(slots = ops.len(), ?live, "dealing slots of groups");
        self.change_as_controller(ops).await?;
        self.reload_slots().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{alone, put, text};
    use super::*;

    #[tokio::test]
    async fn a_term_that_another_one_overtook_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let (meta, controller) = (cluster.meta().clone(), cluster.controller());
        put(&meta, paths::CONTROLLER_EPOCH, r#"{"version":1,"epoch":7}"#).await;
        let op = Op::put("/cluster/mark", "x".into());
        let refused = controller.change_as_controller(vec![op.clone()]).await;
        assert!(matches!(refused, Err(ClusterError::NotController)));
        assert!(!controller.is_controller() && text(&meta, "/cluster/mark").await.is_none());
        // Who follows is told, looks again, and finds an election that another one overtook.
        controller.deposed().await;
        cluster.membership.reload_controller().await.unwrap();
        assert!(controller.is_controller());
        let epoch = text(&meta, paths::CONTROLLER_EPOCH).await.unwrap();
        assert!(epoch.contains(r#""epoch":8"#), "{epoch}");
        controller.change_as_controller(vec![op]).await.unwrap();
    }

    #[tokio::test]
    async fn another_broker_that_is_the_controller_stays_it() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let record = r#"{"version":1,"broker_id":5,"broker_epoch":1,"epoch":9}"#;
        put(cluster.meta(), paths::CONTROLLER, record).await;
        cluster.membership.reload_controller().await.unwrap();
        assert!(!cluster.is_controller());
        assert_eq!(cluster.image().controller_id, 5);
        // It dies.
        let gone = vec![Op::delete(paths::CONTROLLER)];
        cluster.meta().multi(gone).await.unwrap();
        cluster.membership.reload_controller().await.unwrap();
        assert!(cluster.is_controller());
        assert_eq!(cluster.image().controller_id, 0);
    }

    #[tokio::test]
    async fn slots_are_dealt_to_who_is_there_and_an_owner_that_is_gone_loses_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let slots = &cluster.image().slots;
        assert_eq!(slots.len(), Slot::COUNT);
        assert!(slots.iter().all(|slot| (slot.owner, slot.epoch) == (0, 1)));
        let path = paths::coordinator_slot(3);
        put(
            cluster.meta(),
            &path,
            r#"{"version":1,"owner":9,"epoch":4}"#,
        )
        .await;
        cluster.controller().deal_slots().await.unwrap();
        let slot = cluster.image().slots[3];
        assert_eq!((slot.owner, slot.epoch), (0, 5));
    }

    #[tokio::test]
    async fn two_that_deal_the_slots_at_once_do_not_find_each_others_version() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let path = paths::coordinator_slot(3);
        let gone = r#"{"version":1,"owner":9,"epoch":4}"#;
        put(cluster.meta(), &path, gone).await;
        let controller = cluster.controller();
        let (one, other) = tokio::join!(controller.deal_slots(), controller.deal_slots());
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        let slot = cluster.image().slots[3];
        assert_eq!((slot.owner, slot.epoch), (0, 5));
    }
}
