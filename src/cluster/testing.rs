//! A cluster of one broker on the embedded store, for the tests of this module.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use super::changes::{ClusterError, NewTopic};
use super::cluster::Cluster;
use super::image::{Broker, BrokerEndpoint};
use super::membership::Directories;
use crate::config::{Config, LiveConfig};
use crate::log::{Disk, DiskFile, RealDisk, as_real_disk};
use crate::meta::records::LossRecord;
use crate::meta::{MetaStore, Op, paths};
use crate::partition::{Partitions, PartitionsOptions};

/// What the data directory of the tests calls itself.
pub(super) const DIRECTORY: &str = "dir-a";

/// A disk on which nothing can be renamed, while it is so.
#[derive(Clone, Default)]
pub(super) struct Refusing(pub(super) Arc<AtomicBool>);

/// A disk on which nothing is created while it stands still.
#[derive(Clone, Default)]
pub(super) struct Stalling(Arc<(Mutex<bool>, Condvar)>);

impl Stalling {
    pub(super) fn stall(&self, stalls: bool) {
        *self.0.0.lock() = stalls;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut stalls = self.0.0.lock();
        self.0.1.wait_while(&mut stalls, |stalls| *stalls);
    }
}

impl Disk for Stalling {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.pass();
        RealDisk.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass();
        RealDisk.rename(from, to)
    }
    as_real_disk!(others, reserve, sync_dir);
}

impl Disk for Refusing {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(io::Error::other("it is refused")),
            false => RealDisk.rename(from, to),
        }
    }
    as_real_disk!(others, reserve, sync_dir);
}

pub(super) fn store(dir: &Path) -> MetaStore {
    MetaStore::open_embedded(&dir.join("meta")).unwrap()
}

pub(super) fn directories() -> Directories {
    Directories {
        ids: vec![DIRECTORY.to_owned()],
        lost_unsynced: false,
        lost_synced: false,
    }
}

/// Broker 0 over a store, not a member yet.
pub(super) async fn open(dir: &Path, meta: &MetaStore) -> Result<Cluster, ClusterError> {
    open_over(dir, meta, Arc::new(RealDisk)).await
}

pub(super) async fn open_over(
    dir: &Path,
    meta: &MetaStore,
    disk: Arc<dyn Disk>,
) -> Result<Cluster, ClusterError> {
    let data = dir.join("data");
    let settings = [
        format!("dataPath={}", data.display()),
        "brokerId=0".to_owned(),
    ];
    let config = Arc::new(LiveConfig::new(Config::load(None, &settings).unwrap()));
    let options = PartitionsOptions::new(vec![data]);
    let partitions = Arc::new(Partitions::open(disk, &options).unwrap());
    partitions.hold_to(meta.lease());
    let (cluster, _) = Cluster::open(config, meta.clone(), partitions, None).await?;
    Ok(cluster)
}

pub(super) fn member() -> Broker {
    Broker {
        id: 0,
        endpoints: vec![BrokerEndpoint {
            listener: "PLAINTEXT".to_owned(),
            security: "PLAINTEXT".to_owned(),
            host: "localhost".to_owned(),
            port: 9092,
        }],
        rack: None,
        accept_publish: true,
        follows_only: false,
        shutting_down: false,
        lost: LossRecord::default(),
        epoch: 0,
    }
}

/// Broker 0 as the controller of its cluster.
pub(super) async fn alone(dir: &Path) -> Cluster {
    let cluster = open(dir, &store(dir)).await.unwrap();
    cluster.join(member(), directories()).await.unwrap();
    assert!(cluster.is_controller());
    cluster
}

/// Other brokers register in the tree, each without a process, and broker 0 learns of it.
pub(super) async fn register(cluster: &Cluster, others: &[(i32, i64)]) {
    for (id, epoch) in others {
        let record = format!(
            r#"{{"version":1,"epoch":{epoch},"endpoints":[],"rack":null,"directory_id":"dir-{id}","accept_publish":true,"metaq":"0"}}"#
        );
        put(cluster.meta(), &paths::broker_master(*id), &record).await;
    }
    cluster.membership.reload_brokers().await.unwrap();
}

/// A broker's session ends.
pub(super) async fn dies(cluster: &Cluster, id: i32) {
    let gone = vec![Op::delete(paths::broker_master(id))];
    cluster.meta().multi(gone).await.unwrap();
    cluster.membership.reload_brokers().await.unwrap();
}

pub(super) fn new_topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        partitions,
        ..NewTopic::with_defaults(name)
    }
}

pub(super) async fn create(cluster: &Cluster, name: &str, partitions: i32) {
    let wanted = [new_topic(name, partitions)];
    let made = cluster.controller().create_topics(&wanted, false).await;
    assert!(made[0].is_ok(), "{made:?}");
}

pub(super) async fn put(meta: &MetaStore, path: &str, data: &str) {
    let op = Op::put(path, data.to_owned().into());
    meta.multi(vec![op]).await.unwrap();
}

pub(super) async fn text(meta: &MetaStore, path: &str) -> Option<String> {
    let node = meta.get(path).await.unwrap()?;
    Some(String::from_utf8(node.data.to_vec()).unwrap())
}
