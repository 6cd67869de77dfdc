//! Taking a tree from one store to another, as a JSON file: topics, groups, offsets, configurations, ids. What
//! belongs to running brokers (registrations, the controller, owners of slots, members' nodes) is left out and made anew. Epochs of
//! slots are taken along: partitions know them from the markers of transactions, and refuse earlier ones.

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use super::records::{ClusterRecord, RECORD_VERSION, SlotRecord, decode, encode};
use super::{MetaError, MetaStore, Node, Op, paths};

/// What is taken along, each with everything below.
const TAKEN: &[&str] = &[
    "/cluster",
    paths::TOPICS,
    paths::DELETED,
    "/config",
    paths::ACLS,
    paths::TOKENS,
    paths::GROUPS,
    paths::COORDINATORS,
    paths::SHARES,
    paths::PRODUCERS,
    paths::PRODUCER_IDS,
    "/transactions",
];
/// Bytes that one write of an import holds.
const WRITE_BYTES: usize = 128 << 10;

/// A node as people and tools see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownNode {
    /// Where.
    pub path: String,
    /// Content, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Content as hexadecimal digits, where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// How often it was set.
    #[serde(default)]
    pub version: i32,
    /// Goes with its session.
    #[serde(default)]
    pub ephemeral: bool,
}

impl ShownNode {
    /// Shows a node.
    pub fn new(path: String, node: &Node) -> Self {
        let text = std::str::from_utf8(&node.data).ok().map(str::to_owned);
        let hex = text.is_none().then(|| HEXLOWER.encode(&node.data));
        Self {
            path,
            text,
            hex,
            version: node.version,
            ephemeral: node.ephemeral,
        }
    }

    fn data(&self) -> Option<Bytes> {
        match (&self.text, &self.hex) {
            (Some(text), None) => Some(text.clone().into()),
            (None, Some(digits)) => {
                let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
                Some(bytes.into())
            }
            _ => None,
        }
    }
}

/// A tree in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Version of the format.
    pub version: u32,
    /// The program's version that wrote it.
    pub metaq: String,
    /// In path order.
    pub nodes: Vec<ShownNode>,
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Nodes that were made.
    pub created: usize,
    /// Nodes that were there already, the same.
    pub present: usize,
}

/// Why a tree is not taken along.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A broker uses the store.
    #[error("broker {0} is registered in the store; stop it first")]
    InUse(String),
    /// Not a file that an export wrote, or of a later version.
    #[error("not an export that this version reads: {0}")]
    Format(String),
    /// The target has something else.
    #[error(
        "the store has other content already, such as {0}; import into an empty root of ZooKeeper, or a data directory without metaq-meta.redb"
    )]
    Conflict(String),
}

/// Reads everything that is taken along.
pub async fn export(store: &MetaStore) -> Result<Export, TransferError> {
    refuse_running_brokers(store).await?;
    let mut nodes = Vec::new();
    for root in TAKEN {
        if let Some(node) = store.get(root).await? {
            nodes.push(((*root).to_owned(), node));
            nodes.extend(store.subtree(root).await?);
        }
    }
    nodes.retain(|(path, node)| !node.ephemeral && !is_of_member(path));
    nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Export {
        version: RECORD_VERSION,
        metaq: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: nodes
            .into_iter()
            .filter_map(|(path, node)| Some(ShownNode::new(path.clone(), &taken(&path, node)?)))
            .collect(),
    })
}

/// A node as it is taken along; `None` for a slot's that cannot be read.
fn taken(path: &str, mut node: Node) -> Option<Node> {
    if path.starts_with(paths::COORDINATORS) && path != paths::COORDINATORS {
        let slot: SlotRecord = decode(path, &node.data).ok()?;
        node.data = encode(&SlotRecord { owner: -1, ..slot });
    }
    Some(node)
}

/// Nodes below a group's `ids` are ephemeral, and made anew by the group's coordinator.
fn is_of_member(path: &str) -> bool {
    let below = path.strip_prefix(paths::GROUPS).unwrap_or_default();
    below.split('/').nth(2) == Some("ids")
}

async fn refuse_running_brokers(store: &MetaStore) -> Result<(), TransferError> {
    for id in store.children(paths::BROKERS).await? {
        let master = format!("{}/{id}/master", paths::BROKERS);
        if store.get(&master).await?.is_some() {
            return Err(TransferError::InUse(id));
        }
    }
    Ok(())
}

/// Writes an export into a store that has nothing else. An import that was cut short goes on where it was.
pub async fn import(store: &MetaStore, file: &Export) -> Result<ImportReport, TransferError> {
    let wrong = |what: String| TransferError::Format(what);
    if file.version != RECORD_VERSION {
        return Err(wrong(format!("version {}", file.version)));
    }
    refuse_running_brokers(store).await?;
    let mut wanted = std::collections::BTreeMap::new();
    for node in &file.nodes {
        let mut roots = TAKEN.iter();
        if !roots.any(|root| paths::is_at_or_below(&node.path, root)) {
            return Err(wrong(format!("{} does not belong in it", node.path)));
        }
        let data = node.data();
        let data = data.ok_or_else(|| wrong(format!("{} has no content", node.path)))?;
        wanted.insert(node.path.as_str(), data);
    }
    match wanted.get(paths::CLUSTER_ID) {
        Some(data) => decode::<ClusterRecord>(paths::CLUSTER_ID, data)?,
        None => return Err(wrong(format!("{} is missing", paths::CLUSTER_ID))),
    };
    let mut present = 0;
    for root in TAKEN {
        let own = store
            .get(root)
            .await?
            .map(|node| ((*root).to_owned(), node));
        for (path, node) in store.subtree(root).await?.into_iter().chain(own) {
            match wanted.get(path.as_str()) {
                Some(data) if *data == node.data => present += 1,
                // A node that is there for those below it only.
                None if node.data.is_empty() => {}
                _ => return Err(TransferError::Conflict(path)),
            }
        }
    }
    write(store, &wanted).await?;
    Ok(ImportReport {
        created: wanted.len().saturating_sub(present),
        present,
    })
}

async fn write(
    store: &MetaStore,
    wanted: &std::collections::BTreeMap<&str, Bytes>,
) -> Result<(), MetaError> {
    let (mut part, mut bytes) = (Vec::new(), 0);
    for (path, data) in wanted {
        let own = path.len() + data.len();
        if bytes + own > WRITE_BYTES && !part.is_empty() {
            store.multi(std::mem::take(&mut part)).await?;
            bytes = 0;
        }
        bytes += own;
        part.push(Op::put(*path, data.clone()));
    }
    match part.is_empty() {
        true => Ok(()),
        false => store.multi(part).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(dir: &tempfile::TempDir, name: &str) -> MetaStore {
        MetaStore::open_embedded(&dir.path().join(name)).unwrap()
    }

    fn put(path: &str, data: &str) -> Op {
        Op::put(path, data.to_owned().into())
    }

    #[tokio::test]
    async fn a_tree_comes_over_whole_and_what_is_of_running_brokers_stays() {
        let dir = tempfile::tempdir().unwrap();
        let from = store(&dir, "from").await;
        let cluster = r#"{"version":1,"cluster_id":"abc"}"#;
        let ops = vec![
            put("/cluster/id", cluster),
            put("/brokers/topics/t", "{}"),
            put("/brokers/topics/t/partitions/0", "{\"partitions\":{}}"),
            put("/brokers/ids/0", "{}"),
            put("/controller_epoch", "{}"),
            put("/coordinators/3", r#"{"version":1,"owner":4,"epoch":7}"#),
            put("/producers/3/1007", "{}"),
            put("/consumers/g/offsets/t/0-0", "{\"offset\":7}"),
            put("/consumers/g/ids/m", "{}"),
            put("/acl/literal/topic/*", "{\"acls\":[]}"),
            put("/tokens/abc", "{\"owner\":\"User:a\"}"),
            Op::put("/config/x/y", Bytes::from_static(&[0xff, 0])),
        ];
        from.multi(ops).await.unwrap();
        let file = export(&from).await.unwrap();
        let text = serde_json::to_string(&file).unwrap();
        let file: Export = serde_json::from_str(&text).unwrap();
        let to = store(&dir, "to").await;
        let report = import(&to, &file).await.unwrap();
        assert_eq!((report.created, report.present), (file.nodes.len(), 0));
        let offset = to.get("/consumers/g/offsets/t/0-0").await.unwrap().unwrap();
        assert_eq!(&offset.data[..], b"{\"offset\":7}");
        let states = to.get("/brokers/topics/t/partitions/0").await.unwrap();
        assert_eq!(&states.unwrap().data[..], b"{\"partitions\":{}}");
        let acl = to.get("/acl/literal/topic/*").await.unwrap().unwrap();
        assert_eq!(&acl.data[..], b"{\"acls\":[]}");
        assert!(to.get("/tokens/abc").await.unwrap().is_some());
        assert_eq!(
            &to.get("/config/x/y").await.unwrap().unwrap().data[..],
            [0xff, 0]
        );
        for left in ["/brokers/ids/0", "/controller_epoch", "/consumers/g/ids/m"] {
            assert!(to.get(left).await.unwrap().is_none(), "{left}");
        }
        // The next owner's markers must not look older than those that logs have.
        let slot = to.get("/coordinators/3").await.unwrap().unwrap();
        let expected = br#"{"version":1,"owner":-1,"epoch":7}"#;
        assert_eq!(&slot.data[..], expected);
        assert!(to.get("/producers/3/1007").await.unwrap().is_some());
        // Once more changes nothing; something else is not written over.
        assert!(import(&to, &file).await.is_ok());
        to.multi(vec![put("/brokers/topics/t", "changed")])
            .await
            .unwrap();
        let refused = import(&to, &file).await;
        assert!(
            matches!(refused, Err(TransferError::Conflict(path)) if path == "/brokers/topics/t")
        );
    }

    #[tokio::test]
    async fn a_store_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let used = store(&dir, "used").await;
        let ops = vec![put("/cluster/id", "{}"), put("/brokers/ids/4/master", "{}")];
        used.multi(ops).await.unwrap();
        assert!(matches!(export(&used).await, Err(TransferError::InUse(id)) if id == "4"));
    }
}
