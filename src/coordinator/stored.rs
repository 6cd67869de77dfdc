//! Nodes of slots in the coordination tree: reads, and writes that check the slot's owner.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::error::CoordinatorError;
use super::machine::{StoredId, StoredSlot};
use super::slot::Slot;
use crate::meta::{MetaError, MetaStore, Node, Op, paths};

/// Ids that are read at the same time when slots come to this broker.
const IDS_READ_AT_ONCE: usize = 32;

/// The store as the shard of one slot uses it.
pub(super) struct GuardedStore {
    meta: MetaStore,
    /// Part of every write: fails when the slot is another broker's.
    guard: Op,
}

impl GuardedStore {
    /// For a slot that is owned under this version of its node.
    pub(super) fn new(meta: MetaStore, slot: Slot, version: i32) -> Self {
        let guard = Op::Check {
            path: paths::coordinator_slot(slot.number()),
            version: Some(version),
        };
        Self { meta, guard }
    }

    /// Queues a write of nodes that belong to an id, after those that were queued before.
    pub(super) fn write(
        &self,
        id: String,
        mut ops: Vec<Op>,
    ) -> impl Future<Output = Result<(), CoordinatorError>> + Send + use<> {
        ops.push(self.guard.clone());
        let writing = self.meta.multi(ops);
        async move {
            writing.await.map_err(|error| match error {
                // Only the slot's version is checked.
                MetaError::BadVersion(_) => CoordinatorError::NotCoordinator,
                error => {
                    tracing::error!(id, %error, "cannot store what belongs to this id");
                    match error.may_heal() {
                        true => CoordinatorError::NotAvailable,
                        false => CoordinatorError::UnknownServerError,
                    }
                }
            })
        }
    }
}

/// Reads the nodes of slots: those of their ids below `root`, and their own below `slot_root`. An entry for each of the slots.
pub(super) async fn read(
    meta: &MetaStore,
    (root, slot_root): (&'static str, Option<&'static str>),
    slots: &BTreeSet<Slot>,
) -> Result<BTreeMap<Slot, StoredSlot>, MetaError> {
    let nodes = match slots.len() == Slot::COUNT {
        true => meta.subtree(root).await?,
        false => read_some(meta, root, slots).await?,
    };
    let mut by_id: BTreeMap<String, Vec<(String, Node)>> = BTreeMap::new();
    for (path, node) in nodes {
        if let Some(id) = paths::child_of(root, &path) {
            by_id.entry(id).or_default().push((path, node));
        }
    }
    let mut by_slot: BTreeMap<Slot, StoredSlot> = slots
        .iter()
        .map(|slot| (*slot, StoredSlot::default()))
        .collect();
    for (id, nodes) in by_id {
        if let Some(stored) = by_slot.get_mut(&Slot::of(&id)) {
            stored.ids.push(StoredId { id, nodes });
        }
    }
    if let Some(root) = slot_root {
        for (path, node) in read_own(meta, root, slots).await? {
            let slot = paths::slot_of_child(root, &path).and_then(Slot::new);
            if let Some(stored) = slot.and_then(|slot| by_slot.get_mut(&slot)) {
                stored.nodes.push((path, node));
            }
        }
    }
    Ok(by_slot)
}

async fn read_own(
    meta: &MetaStore,
    root: &'static str,
    slots: &BTreeSet<Slot>,
) -> Result<Vec<(String, Node)>, MetaError> {
    if slots.len() == Slot::COUNT {
        return meta.subtree(root).await;
    }
    let mut nodes = Vec::new();
    for slot in slots {
        let path = paths::child_for_slot(root, slot.number());
        nodes.extend(meta.subtree(&path).await?);
    }
    Ok(nodes)
}

async fn read_some(
    meta: &MetaStore,
    root: &'static str,
    slots: &BTreeSet<Slot>,
) -> Result<Vec<(String, Node)>, MetaError> {
    meta.sync().await?;
    let names = meta.children(root).await?;
    let ids = names.iter().filter_map(|name| paths::unescape(name));
    let wanted: Vec<String> = ids.filter(|id| slots.contains(&Slot::of(id))).collect();
    let parts: Vec<Vec<(String, Node)>> = stream::iter(wanted)
        .map(|id| async move {
            let path = paths::child(root, &id);
            let mut nodes = meta.subtree(&path).await?;
            nodes.extend(meta.get(&path).await?.map(|node| (path, node)));
            Ok::<_, MetaError>(nodes)
        })
        .buffer_unordered(IDS_READ_AT_ONCE)
        .try_collect()
        .await?;
    Ok(parts.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const ROOT: &str = "/consumers";

    async fn store(dir: &tempfile::TempDir) -> MetaStore {
        let meta = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        let put = |path: &str| Op::put(path, Bytes::new());
        let nodes = [
            "/coordinators/3",
            "/consumers/a/offsets/t/0-0",
            "/consumers/b%2fc",
            "/own/3/7",
            "/own/4/8",
        ];
        meta.multi(nodes.map(put).to_vec()).await.unwrap();
        meta
    }

    #[tokio::test]
    async fn some_slots_read_the_same_of_an_id_as_all() {
        let dir = tempfile::tempdir().unwrap();
        let meta = store(&dir).await;
        let roots = (ROOT, Some("/own"));
        let all = read(&meta, roots, &Slot::all().collect()).await.unwrap();
        assert_eq!(all.len(), Slot::COUNT);
        for id in ["a", "b/c"] {
            let some = read(&meta, roots, &[Slot::of(id)].into()).await.unwrap();
            assert_eq!(some.len(), 1);
            let of = |by_slot: &BTreeMap<Slot, StoredSlot>| {
                let mut ids = by_slot[&Slot::of(id)].ids.iter();
                let stored = ids.find(|stored| stored.id == id);
                let nodes = stored.unwrap().nodes.iter();
                nodes.map(|(path, _)| path.clone()).collect::<BTreeSet<_>>()
            };
            assert_eq!(of(&some), of(&all), "{id}");
            assert!(of(&some).contains(&paths::child(ROOT, id)));
        }
    }

    #[tokio::test]
    async fn a_slot_has_its_own_nodes_whether_some_are_read_or_all() {
        let dir = tempfile::tempdir().unwrap();
        let meta = store(&dir).await;
        let slot = Slot::new(3).unwrap();
        for slots in [Slot::all().collect(), [slot].into()] {
            let found = read(&meta, (ROOT, Some("/own")), &slots).await.unwrap();
            let own = found[&slot].nodes.iter().map(|(path, _)| path.as_str());
            let own: BTreeSet<&str> = own.filter(|path| *path != "/own/3").collect();
            assert_eq!(own, ["/own/3/7"].into());
        }
    }

    #[tokio::test]
    async fn a_write_under_an_older_version_of_the_slot_is_refused_whole() {
        let dir = tempfile::tempdir().unwrap();
        let meta = store(&dir).await;
        let slot = Slot::new(3).unwrap();
        let write = |version, path: &str| {
            let store = GuardedStore::new(meta.clone(), slot, version);
            store.write("g".to_owned(), vec![Op::put(path, Bytes::new())])
        };
        assert_eq!(write(0, "/consumers/g").await, Ok(()));
        let refused = write(1, "/consumers/h").await;
        assert_eq!(refused, Err(CoordinatorError::NotCoordinator));
        assert!(meta.get("/consumers/h").await.unwrap().is_none());
    }
}
