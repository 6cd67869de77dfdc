//! What this broker is in the cluster: its registration, and how it is taken over after a crash.
//!
//! `/brokers/ids/<id>` counts registrations, `/brokers/ids/<id>/master` is the one in force. A broker that finds
//! its number taken by a process with the same data directory knows that process to be dead, because it holds the
//! directory's lock itself; any other process is a second broker with the same number, and is left alone.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::changes::ClusterError;
use super::controller::Controller;
use super::image::Broker;
use super::registered::{from_record, master_record};
use super::view::{ClusterEvent, View};
use crate::log::DataDirError;
use crate::meta::records::{
    BrokerMasterRecord, BrokerRecord, ControllerEpochRecord, LossRecord, RECORD_VERSION, decode,
    encode,
};
use crate::meta::{MetaError, MetaStore, Op, paths};
use crate::partition::Partitions;

/// How MetaQ's own brokers begin what they write to `/brokers/ids/<id>/master`.
const METAQ_SCHEME: &[u8] = b"meta://";

/// Groups whose offsets tell whether a MetaQ wrote them.
const LEGACY_GROUPS_LOOKED_AT: usize = 20;

/// The data directories that a broker starts with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directories {
    /// Their ids. By the first one a broker knows its own registration.
    pub ids: Vec<String>,
    /// Whether the system ended, or was not seen to run on, while one of them was in use: what was not synced may be gone.
    pub lost_unsynced: bool,
    /// Whether a log ends before what was synced of it.
    pub lost_synced: bool,
}

impl Directories {
    /// Those of the partitions, which are open, all in use.
    pub fn of(partitions: &Partitions) -> Result<Self, DataDirError> {
        let mut directories = Self {
            lost_synced: partitions.have_lost_synced(),
            ..Self::default()
        };
        for dir in partitions.data_dirs() {
            directories.ids.extend(dir.property("directory.id")?);
            directories.lost_unsynced |= dir.may_have_lost();
        }
        Ok(directories)
    }

    fn first(&self) -> &str {
        self.ids.first().map_or("", String::as_str)
    }
}

/// What is registered, and as what.
#[derive(Debug, Clone, Default)]
struct Registration {
    member: Option<Broker>,
    directories: Directories,
    /// The store's session that it was registered in.
    session: u64,
    /// Whether an earlier run of this broker may still write: its session did not end before the registration.
    slots_unclaimed: bool,
}

/// This broker as a member of the cluster.
pub(super) struct Membership {
    view: Arc<View>,
    controller: Arc<Controller>,
    registration: Mutex<Registration>,
}

/// A root in which a MetaQ is at home is not ours to write to.
pub(super) async fn refuse_foreign_root(meta: &MetaStore) -> Result<(), ClusterError> {
    for id in meta.children(paths::BROKERS).await? {
        for name in meta.children(&format!("{}/{id}", paths::BROKERS)).await? {
            let path = format!("{}/{id}/{name}", paths::BROKERS);
            let node = meta.get(&path).await?;
            if node.is_some_and(|node| node.data.starts_with(METAQ_SCHEME)) {
                return Err(ClusterError::ForeignRoot(path));
            }
        }
    }
    // One whose brokers are stopped has left its consumers' offsets.
    let groups = meta.children(paths::GROUPS).await?;
    for group in groups.iter().take(LEGACY_GROUPS_LOOKED_AT) {
        let offsets = format!("{}/{group}/offsets", paths::GROUPS);
        let Some(topic) = meta.children(&offsets).await?.into_iter().next() else {
            continue;
        };
        let topic = format!("{offsets}/{topic}");
        if let Some(partition) = meta.children(&topic).await?.first() {
            let path = format!("{topic}/{partition}");
            let node = meta.get(&path).await?;
            if node.is_some_and(|node| !node.data.starts_with(b"{")) {
                return Err(ClusterError::ForeignRoot(path));
            }
        }
    }
    Ok(())
}

/// A number that another process is registered with is not ours; found out before anything is written to the data
/// directory. Where the process is gone and only its registration is left, its directory tells.
pub(super) async fn refuse_taken_number(
    meta: &MetaStore,
    id: i32,
    directory_id: Option<&str>,
) -> Result<(), ClusterError> {
    let path = paths::broker_master(id);
    match meta.get(&path).await? {
        Some(node) => refuse_other(id, &decode(&path, &node.data)?, directory_id),
        None => Ok(()),
    }
}

fn refuse_other(
    id: i32,
    record: &BrokerMasterRecord,
    directory_id: Option<&str>,
) -> Result<(), ClusterError> {
    if Some(record.directory_id.as_str()) == directory_id {
        return Ok(());
    }
    let at = record.endpoints.first();
    Err(ClusterError::DuplicateBroker {
        id,
        place: at.map_or(String::new(), |at| format!("{}:{}", at.host, at.port)),
        directory_id: record.directory_id.clone(),
    })
}

/// Makes sure that the nodes are there below which everything else is.
pub(super) async fn ensure_base(meta: &MetaStore) -> Result<(), ClusterError> {
    let epoch = encode(&ControllerEpochRecord {
        version: RECORD_VERSION,
        epoch: 0,
    });
    let nodes = [
        ("/cluster", Bytes::new()),
        ("/brokers", Bytes::new()),
        (paths::BROKERS, Bytes::new()),
        (paths::TOPICS, Bytes::new()),
        (paths::TOPICS_PUB, Bytes::new()),
        (paths::DELETED, Bytes::new()),
        (paths::GROUPS, Bytes::new()),
        (paths::COORDINATORS, Bytes::new()),
        (paths::ACLS, Bytes::new()),
        (paths::TOKENS, Bytes::new()),
        (paths::CONTROLLER_EPOCH, epoch),
    ];
    for (path, data) in nodes {
        if meta.get(path).await?.is_none() {
            match meta.multi(vec![Op::create(path, data)]).await {
                Ok(()) | Err(MetaError::NodeExists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

impl Membership {
    pub(super) fn new(view: Arc<View>, controller: Arc<Controller>) -> Self {
        Self {
            view,
            controller,
            registration: Mutex::default(),
        }
    }

    /// Becomes a member: registers, takes part in the election of the controller, and learns who else is there.
    pub(super) async fn join(
        &self,
        member: Broker,
        directories: Directories,
    ) -> Result<(), ClusterError> {
        *self.registration.lock() = Registration {
            member: Some(member),
            directories,
            ..Registration::default()
        };
        self.rejoin().await
    }

    /// The session that this broker is, or was, registered in; `None` before it joins.
    pub(super) fn session(&self) -> Option<u64> {
        let registration = self.registration.lock();
        registration
            .member
            .is_some()
            .then_some(registration.session)
    }

    /// Learns who the controller is, and takes part in its election.
    pub(super) async fn reload_controller(&self) -> Result<(), ClusterError> {
        let epoch = {
            let registration = self.registration.lock();
            registration.member.as_ref().map(|member| member.epoch)
        };
        self.controller.reload_controller(epoch).await
    }

    fn fence(&self, place: &str) {
        self.controller.resign();
        if self.view.meta.lease().revoke() {
            tracing::error!(
                id = self.view.broker_id,
                place,
                "another process has this broker's number; this one serves no more"
            );
        }
    }

    /// Registers in the session there is, when that did not happen yet, and reads who is there.
    pub(super) async fn rejoin(&self) -> Result<(), ClusterError> {
        let session = self.view.meta.session().borrow().number;
        let Registration {
            member,
            directories,
            session: registered_in,
            ..
        } = self.registration.lock().clone();
        let Some(mut member) = member else {
            return Ok(());
        };
        if self.view.is_fenced() {
            return Ok(());
        }
        let is_new = registered_in != session;
        if is_new {
            self.controller.resign();
            // What was coordinated in the session before is read anew.
            self.view.change_image(|image| image.slots.clear());
            let took_over;
            (member.epoch, member.lost, took_over) =
                match self.register(&member, &directories).await {
                    Ok(registered) => registered,
                    Err(ClusterError::DuplicateBroker { place, .. }) if registered_in > 0 => {
                        self.fence(&place);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                };
            let mut registration = self.registration.lock();
            (registration.member, registration.session) = (Some(member), session);
            registration.directories.lost_unsynced = false;
            registration.directories.lost_synced = false;
            registration.slots_unclaimed |= took_over;
            drop(registration);
            self.view.meta.lease().claim(session);
        }
        if self.registration.lock().slots_unclaimed {
            self.controller.claim_slots().await?;
            self.registration.lock().slots_unclaimed = false;
        }
        self.reload_brokers().await?;
        self.reload_controller().await?;
        self.controller.reload_slots().await?;
        if is_new {
            self.view.publish_event(ClusterEvent::Slots);
        }
        Ok(())
    }

    /// Tells the controller that this broker is about to stop. What it leads, and the groups that it coordinates, are given
    /// to others.
    pub(super) async fn announce_end(&self) -> Result<(), ClusterError> {
        let (member, directories) = {
            let mut registration = self.registration.lock();
            let Some(member) = &mut registration.member else {
                return Ok(());
            };
            member.shutting_down = true;
            (member.clone(), registration.directories.clone())
        };
        let path = paths::broker_master(member.id);
        let Some(node) = self.view.meta.get(&path).await? else {
            return Ok(());
        };
        let record: BrokerMasterRecord = decode(&path, &node.data)?;
        if record.epoch != member.epoch {
            return Ok(());
        }
        let data = encode(&master_record(&member, directories.first(), member.epoch));
        let version = Some(node.version);
        let told = self.view.meta.multi(vec![Op::Set {
            path,
            data,
            version,
        }]);
        Ok(told.await?)
    }

    /// The registration's number, what was lost by it or by earlier ones, and whether it took the place of one whose session may
    /// live on.
    async fn register(
        &self,
        member: &Broker,
        directories: &Directories,
    ) -> Result<(i64, LossRecord, bool), ClusterError> {
        let directory_id = directories.first();
        let (path, master) = (paths::broker(member.id), paths::broker_master(member.id));
        loop {
            let counted = self.view.meta.get(&path).await?;
            let before = match &counted {
                Some(node) if !node.data.is_empty() => {
                    Some(decode::<BrokerRecord>(&path, &node.data)?)
                }
                _ => None,
            };
            let epoch = before.as_ref().map_or(1, |before| before.epoch + 1);
            let lost = lost_by(before.as_ref(), directories, epoch);
            if let Some(before) = before.and_then(|before| before.directory_id)
                && before != directory_id
            {
                tracing::warn!(
                    id = member.id,
                    before,
                    now = directory_id,
                    "this broker has another data directory than before: its partitions begin empty, unless their files were moved along"
                );
            }
            let count = encode(&BrokerRecord {
                version: RECORD_VERSION,
                epoch,
                directory_id: Some(directory_id.to_owned()),
                directories: directories.ids.clone(),
                lost,
            });
            let mut ops = vec![match counted {
                Some(node) => Op::Set {
                    path: path.clone(),
                    data: count,
                    version: Some(node.version),
                },
                None => Op::create(path.clone(), count),
            }];
            let old = self.view.meta.get(&master).await?;
            let takes_over = old.is_some();
            if let Some(old) = old {
                let record: BrokerMasterRecord = decode(&master, &old.data)?;
                refuse_other(member.id, &record, Some(directory_id))?;
                tracing::info!(
                    id = member.id,
                    epoch = record.epoch,
                    "taking over the registration of this broker's earlier run"
                );
                ops.push(Op::Delete {
                    path: master.clone(),
                    version: Some(old.version),
                });
            }
            let registered = Broker {
                lost,
                ..member.clone()
            };
            ops.push(Op::Create {
                path: master.clone(),
                data: encode(&master_record(&registered, directory_id, epoch)),
                ephemeral: true,
            });
            match self.view.meta.multi(ops).await {
                Ok(()) => {
                    tracing::info!(id = member.id, epoch, "registered");
                    tell_loss(lost, epoch);
                    return Ok((epoch, lost, takes_over));
                }
                Err(MetaError::BadVersion(_) | MetaError::NodeExists(_) | MetaError::NoNode(_)) => {
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads who is there.
    pub(super) async fn reload_brokers(&self) -> Result<(), ClusterError> {
        let mut brokers = std::collections::BTreeMap::new();
        for id in self.view.meta.children(paths::BROKERS).await? {
            let Ok(id) = id.parse::<i32>() else { continue };
            let path = paths::broker_master(id);
            if let Some(node) = self.view.meta.get(&path).await? {
                let known = match decode::<BrokerMasterRecord>(&path, &node.data) {
                    Ok(record) => Some(from_record(id, record)),
                    // The others are followed all the same.
                    Err(error) => {
                        tracing::error!(broker = id, %error, "the broker is left as it is known here");
                        self.view.image().brokers.get(&id).cloned()
                    }
                };
                brokers.extend(known.map(|broker| (id, broker)));
            }
        }
        self.check_own(&mut brokers);
        self.controller.brokers_are(brokers).await?;
        self.controller.deal_slots().await
    }

    /// This broker tells clients its own place as configured, whatever it registered; and notices when another
    /// process took its number.
    fn check_own(&self, brokers: &mut std::collections::BTreeMap<i32, Broker>) {
        let registration = self.registration.lock();
        let Some(member) = &registration.member else {
            return;
        };
        if let Some(registered) = brokers.get_mut(&self.view.broker_id) {
            let fenced = registered.epoch > member.epoch;
            if fenced {
                let at = registered.first_endpoint();
                self.fence(&at.map_or(String::new(), |at| format!("{}:{}", at.host, at.port)));
            }
            if !fenced && self.view.meta.kind() == "embedded" {
                *registered = member.clone();
            }
        }
    }
}

/// What a registration says was lost: what the one before said, and what is found now. The mark stays for good; the controller
/// notes beside it which registrations it has dealt with, so that no restart in between hides a loss from it.
fn lost_by(before: Option<&BrokerRecord>, directories: &Directories, epoch: i64) -> LossRecord {
    let mut lost = before.map_or(LossRecord::default(), |before| before.lost);
    if directories.lost_unsynced {
        lost.unsynced = epoch;
    }
    let had = before.into_iter().flat_map(|before| {
        let first = before.directory_id.iter();
        first.chain(&before.directories)
    });
    let is_missing = |id: &String| !directories.ids.contains(id);
    if directories.lost_synced || had.into_iter().any(is_missing) {
        lost.directory = epoch;
    }
    lost
}

fn tell_loss(lost: LossRecord, epoch: i64) {
    if lost.directory == epoch {
        tracing::warn!(
            "a data directory of before is not there, or a log in it ends before what was synced: this broker is in sync with nothing until it has copied what may be lost"
        );
    } else if lost.unsynced == epoch {
        tracing::warn!(
            "the system did not run on since this broker ended: where a topic does not sync each message, this broker is in sync with nothing until it has copied what may be lost"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{DIRECTORY, alone, directories, member, open, put, store, text};
    use super::*;

    fn registered(directory_id: &str) -> String {
        let record = master_record(&member(), directory_id, 4);
        String::from_utf8(encode(&record).to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_registration_of_an_earlier_run_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let meta = store(dir.path());
        let cluster = open(dir.path(), &meta).await.unwrap();
        put(&meta, &paths::broker(0), r#"{"version":1,"epoch":4}"#).await;
        put(&meta, &paths::broker_master(0), &registered(DIRECTORY)).await;
        cluster.join(member(), directories()).await.unwrap();
        assert_eq!(cluster.image().brokers[&0].epoch, 5);
        assert!(cluster.may_act() && cluster.is_controller());
    }

    #[tokio::test]
    async fn what_an_earlier_run_still_writes_to_its_slots_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let meta = store(dir.path());
        let cluster = open(dir.path(), &meta).await.unwrap();
        put(&meta, &paths::broker_master(0), &registered(DIRECTORY)).await;
        let slot = |owner| format!(r#"{{"version":1,"owner":{owner},"epoch":4}}"#);
        let (own, other) = (paths::coordinator_slot(3), paths::coordinator_slot(4));
        put(&meta, &own, &slot(0)).await;
        put(&meta, &other, &slot(9)).await;
        let versions = async || {
            let of = async |path: &str| meta.get(path).await.unwrap().unwrap().version;
            (of(&own).await, of(&other).await)
        };
        let before = versions().await;
        cluster.controller().claim_slots().await.unwrap();
        assert_eq!(versions().await, (before.0 + 1, before.1));
        cluster.join(member(), directories()).await.unwrap();
        let late = Op::Check {
            path: own.clone(),
            version: Some(before.0 + 1),
        };
        let late = meta.multi(vec![late, Op::put("/consumers/late", "x".into())]);
        assert!(matches!(late.await, Err(MetaError::BadVersion(path)) if path == own));
        let known = cluster.image().slots[3];
        assert_eq!((known.owner, known.epoch), (0, 4));
        assert_eq!(known.version, versions().await.0);
    }

    #[test]
    fn what_was_lost_is_said_for_good_with_the_registration_that_found_it() {
        let directories = |ids: &[&str], lost_unsynced| Directories {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            lost_unsynced,
            lost_synced: false,
        };
        let mut before: Option<BrokerRecord> = None;
        let mut register = |now: &Directories| {
            let epoch = before.as_ref().map_or(1, |before| before.epoch + 1);
            let lost = lost_by(before.as_ref(), now, epoch);
            let record = BrokerRecord {
                version: RECORD_VERSION,
                epoch,
                directory_id: Some(now.first().to_owned()),
                directories: now.ids.clone(),
                lost,
            };
            // As it is read again.
            before = Some(decode("/x", &encode(&record)).unwrap());
            (lost.unsynced, lost.directory)
        };
        assert_eq!(register(&directories(&["a", "b"], false)), (0, 0));
        assert_eq!(register(&directories(&["a", "b"], true)), (2, 0));
        assert_eq!(register(&directories(&["b", "a", "c"], false)), (2, 0));
        assert_eq!(register(&directories(&["a", "c"], false)), (2, 4));
        assert_eq!(register(&directories(&["a", "c"], true)), (5, 4));
        let damaged = Directories {
            lost_synced: true,
            ..directories(&["a", "c"], false)
        };
        assert_eq!(register(&damaged), (5, 6));
        assert_eq!(register(&directories(&["a", "c"], false)), (5, 6));
        // By an earlier version, which says only the first one.
        let mut earlier = before.unwrap();
        earlier.directories.clear();
        let lost = |ids: &[&str]| lost_by(Some(&earlier), &directories(ids, false), 8).directory;
        assert_eq!((lost(&["c", "a"]), lost(&["c"])), (6, 8));
    }

    #[tokio::test]
    async fn a_registration_that_cannot_be_read_keeps_nobody_from_following_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let meta = store(dir.path());
        let cluster = open(dir.path(), &meta).await.unwrap();
        cluster.join(member(), directories()).await.unwrap();
        put(&meta, &paths::broker(9), r#"{"version":1,"epoch":1}"#).await;
        put(&meta, &paths::broker_master(9), "").await;
        cluster.membership.reload_brokers().await.unwrap();
        let ids: Vec<i32> = cluster.image().brokers.keys().copied().collect();
        assert_eq!(ids, [0]);
    }

    #[tokio::test]
    async fn a_number_that_another_directory_has_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let meta = store(dir.path());
        let cluster = open(dir.path(), &meta).await.unwrap();
        put(&meta, &paths::broker_master(0), &registered("dir-b")).await;
        let refused = cluster.join(member(), directories()).await;
        assert!(matches!(
            refused,
            Err(ClusterError::DuplicateBroker { id: 0, .. })
        ));
        assert!(!cluster.may_act());
        // Found before anything is written to the data directory, too.
        let other = tempfile::tempdir().unwrap();
        assert!(open(other.path(), &meta).await.is_err());
    }

    #[tokio::test]
    async fn who_finds_a_later_registration_of_its_number_serves_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let later = registered("dir-b");
        put(cluster.meta(), &paths::broker_master(0), &later).await;
        cluster.membership.reload_brokers().await.unwrap();
        assert!(cluster.is_fenced() && !cluster.may_act() && !cluster.is_controller());
        // And does not register again.
        cluster.membership.rejoin().await.unwrap();
        let left = text(cluster.meta(), &paths::broker_master(0)).await;
        assert_eq!(left, Some(later));
    }
}
