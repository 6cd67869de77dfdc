//! A controller whose own disk stands still gives way to a broker that can act.
//!
//! Before the next change is made, this broker has done on its own partitions what follows from the last one (see
//! [`View::apply`]). While a disk of the controller takes no write, that would hold up leaders, in-sync replicas and topics of
//! the whole cluster, in a session that lives on. After `zookeeper.session.timeout.ms`, and 10 s at least, it deletes `/controller`, and stands for election again when the disk goes on.

use std::sync::Arc;
use std::time::Duration;

use super::changes::ClusterError;
use super::cluster::Cluster;
use super::controller::Controller;
use crate::meta::records::{ControllerRecord, decode};
use crate::meta::{MetaError, Op, paths};

/// How often a broker looks whether it stands still.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

impl Cluster {
    /// Gives way whenever this broker stands still, until the task is aborted.
    pub async fn give_way_while_stalled(self: Arc<Self>) {
        let mut gave_way = false;
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            match self.controller.look_for_standstill(gave_way).await {
                Ok(gives_way) => gave_way = gives_way,
                Err(error) => tracing::warn!(%error, "cannot give way to another controller"),
            }
        }
    }
}

impl Controller {
    /// Gives way where this broker stands still, and learns who took its place; whether it has given way.
    async fn look_for_standstill(&self, gave_way: bool) -> Result<bool, ClusterError> {
        if !self.view.is_stalled() {
            if gave_way {
                tracing::info!("the disk goes on: this broker may be the controller again");
                self.begin_anew();
            }
            return Ok(false);
        }
        // The count first: whoever is elected after it was read has changed it.
        let counted = self.view.meta.get(paths::CONTROLLER_EPOCH).await?;
        let (Some(counted), Some(node)) = (counted, self.view.meta.get(paths::CONTROLLER).await?)
        else {
            return Ok(gave_way);
        };
        let record: ControllerRecord = decode(paths::CONTROLLER, &node.data)?;
        if record.broker_id != self.view.broker_id {
            self.controller_is(record.broker_id);
            return Ok(gave_way);
        }
        if !self.view.has_others() {
            return Ok(gave_way);
        }
        tracing::warn!("a disk of this broker stands still: another one is to be the controller");
        let given_up = self.view.meta.multi(vec![
            Op::Check {
                path: paths::CONTROLLER_EPOCH.to_owned(),
                version: Some(counted.version),
            },
            Op::delete(paths::CONTROLLER),
        ]);
        match given_up.await {
            Ok(()) | Err(MetaError::NoNode(_) | MetaError::BadVersion(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.controller_is(-1);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::Broker;
    use super::super::testing::{
        Stalling, create, directories, member, open_over, put, register, store, text,
    };
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_controller_whose_disk_stands_still_gives_way_until_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Stalling::default();
        let meta = store(dir.path());
        let cluster = open_over(dir.path(), &meta, Arc::new(disk.clone())).await;
        let cluster = Arc::new(cluster.unwrap());
        cluster.join(member(), directories()).await.unwrap();
        let controller = cluster.controller.clone();
        let stalled_max = Duration::from_millis(100);
        cluster.view.count_as_stalled_after(stalled_max);

        disk.stall(true);
        let creating = cluster.clone();
        let creating = tokio::spawn(async move { create(&creating, "t", 1).await });
        // Alone, it stays: nobody else could do more.
        while !cluster.view.is_stalled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!controller.look_for_standstill(false).await.unwrap());
        assert!(controller.is_controller());

        let record = r#"{"version":1,"epoch":1,"endpoints":[],"rack":null,"directory_id":"dir-1","accept_publish":true,"metaq":"0"}"#;
        put(&meta, &paths::broker_master(1), record).await;
        cluster.view.change_image(|image| {
            image.brokers.insert(1, Broker { id: 1, ..member() });
        });
        assert!(controller.look_for_standstill(false).await.unwrap());
        assert!(!controller.is_controller() && cluster.image().controller_id == -1);
        assert!(text(&meta, paths::CONTROLLER).await.is_none());
        // It does not stand for election while it stands still.
        cluster.membership.reload_controller().await.unwrap();
        assert!(text(&meta, paths::CONTROLLER).await.is_none());
        // It learns who took its place.
        let taken = r#"{"version":1,"broker_id":1,"broker_epoch":1,"epoch":9}"#;
        put(&meta, paths::CONTROLLER, taken).await;
        assert!(controller.look_for_standstill(true).await.unwrap());
        assert_eq!(cluster.image().controller_id, 1);

        disk.stall(false);
        creating.await.unwrap();
        assert!(!cluster.view.is_stalled());
        let gone = vec![Op::delete(paths::CONTROLLER)];
        meta.multi(gone).await.unwrap();
        assert!(!controller.look_for_standstill(true).await.unwrap());
        // Who follows the tree is told to look again.
        controller.deposed().await;
        register(&cluster, &[(1, 1)]).await;
        cluster.membership.reload_controller().await.unwrap();
        assert!(controller.is_controller());
    }
}
