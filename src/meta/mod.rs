//! MetaStore: the coordination tree. A tree of versioned nodes with ephemerals and watches, behind which stands
//! an embedded store (and, where several brokers form a cluster, ZooKeeper).
//!
//! Every change is a `multi` of create, set, delete and check, applied whole or not at all, and durable when it
//! is answered, unless [`FlushTransactions`] says otherwise. [`paths`] and [`records`] are the only places that know what the tree looks like.

pub mod consumer_records;
mod embedded;
mod legacy;
mod node_file;
pub mod paths;
pub mod records;
mod session;
pub mod share_records;
pub mod streams_records;
mod transfer;
mod tree;
mod unsynced;
mod upgrade;
mod zookeeper;

pub use legacy::{LegacyOffset, read_legacy_offsets};
pub use session::{Lease, Session, SessionState};
pub use transfer::{Export, ImportReport, ShownNode, TransferError, export, import};
pub use tree::{Overlay, Tree};
pub use upgrade::upgrade_topics;
pub use zookeeper::{ZooKeeperOptions, ZooKeeperTls};

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{broadcast, watch};

/// Steps of a multi that every store takes, whatever they are.
pub const MULTI_OPS_MAX: usize = 500;
/// Bytes of the paths and contents of such a multi.
pub const MULTI_BYTES_MAX: usize = 256 << 10;

/// Changes that each go whole, as many in one multi as every store takes, in their order; with the number of changes.
pub fn gather(changes: impl IntoIterator<Item = Vec<Op>>) -> Vec<(usize, Vec<Op>)> {
    let mut multis: Vec<(usize, Vec<Op>)> = Vec::new();
    let mut bytes = 0;
    for ops in changes {
        let own: usize = ops.iter().map(Op::bytes).sum();
        match multis.last_mut() {
            Some((count, multi))
                if multi.len() + ops.len() <= MULTI_OPS_MAX && bytes + own <= MULTI_BYTES_MAX =>
            {
                *count += 1;
                multi.extend(ops);
                bytes += own;
            }
            _ => {
                multis.push((1, ops));
                bytes = own;
            }
        }
    }
    multis
}

/// A node's data and version; versions count sets from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Content.
    pub data: Bytes,
    /// How often it was set.
    pub version: i32,
    /// Goes with its session; never on disk.
    pub ephemeral: bool,
}

/// One step of a multi. A version of `None` means any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The node must not exist, its parent must.
    Create {
        /// Where.
        path: String,
        /// Content.
        data: Bytes,
        /// Goes with the session.
        ephemeral: bool,
    },
    /// The node must exist.
    Set {
        /// Where.
        path: String,
        /// Content.
        data: Bytes,
        /// Expected version.
        version: Option<i32>,
    },
    /// Creates the node, or sets it whatever its version; missing parents are made as empty nodes.
    Put {
        /// Where.
        path: String,
        /// Content.
        data: Bytes,
        /// Goes with the session; one of an earlier session is replaced.
        ephemeral: bool,
    },
    /// The node must exist and have no children.
    Delete {
        /// Where.
        path: String,
        /// Expected version.
        version: Option<i32>,
    },
    /// Removes a node and everything below it; nothing to remove is no error.
    DeleteTree {
        /// Where.
        path: String,
    },
    /// The node must exist, and have this version.
    Check {
        /// Where.
        path: String,
        /// Expected version.
        version: Option<i32>,
    },
}

/// Why the store refuses.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum MetaError {
    /// The node, or the parent of one to create, does not exist.
    #[error("no node {0}")]
    NoNode(String),
    /// The node to create exists.
    #[error("node {0} exists")]
    NodeExists(String),
    /// The node was changed by somebody else.
    #[error("node {0} has another version")]
    BadVersion(String),
    /// The node to delete has children.
    #[error("node {0} has children")]
    NotEmpty(String),
    /// Not a valid path.
    #[error("invalid path {0:?}")]
    InvalidPath(String),
    /// More than one node or one write may hold.
    #[error("too large for the coordination store: {0}")]
    TooLarge(String),
    /// The store cannot be reached or written; trying again may help.
    #[error("coordination store is unavailable: {0}")]
    Unavailable(String),
    /// A node's content is not what it should be.
    #[error("node {path} is malformed: {what}")]
    Malformed {
        /// Where.
        path: String,
        /// What is wrong.
        what: String,
    },
}

impl MetaError {
    /// Whether the same write may succeed later.
    pub fn may_heal(&self) -> bool {
        !matches!(self, Self::TooLarge(_) | Self::InvalidPath(_))
    }
}

impl Op {
    /// A [`Op::Put`] of a node that stays.
    pub fn put(path: impl Into<String>, data: Bytes) -> Self {
        Self::Put {
            path: path.into(),
            data,
            ephemeral: false,
        }
    }

    /// A [`Op::Create`] of a node that stays.
    pub fn create(path: impl Into<String>, data: Bytes) -> Self {
        Self::Create {
            path: path.into(),
            data,
            ephemeral: false,
        }
    }

    /// A [`Op::Delete`] whatever the version.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::Delete {
            path: path.into(),
            version: None,
        }
    }

    /// A [`Op::DeleteTree`].
    pub fn delete_tree(path: impl Into<String>) -> Self {
        Self::DeleteTree { path: path.into() }
    }

    /// Bytes of its path and content.
    pub fn bytes(&self) -> usize {
        let data = match self {
            Self::Create { data, .. } | Self::Set { data, .. } | Self::Put { data, .. } => {
                data.len()
            }
            Self::Delete { .. } | Self::DeleteTree { .. } | Self::Check { .. } => 0,
        };
        self.path().len() + data
    }

    /// Where it works.
    pub fn path(&self) -> &str {
        match self {
            Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Put { path, .. }
            | Self::Delete { path, .. }
            | Self::DeleteTree { path }
            | Self::Check { path, .. } => path,
        }
    }
}

/// When changes of transactions are synced by the embedded store; all other changes are before they are answered.
/// In each case those that were answered survive a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushTransactions {
    /// When the system likes, and with any other change.
    BySystem,
    /// As all others.
    BeforeAnswer,
    /// Within a second.
    EachSecond,
}

/// What a watcher hears of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These paths were created, set or deleted.
    Paths(Arc<[String]>),
    /// Anything may have changed: read again what you care for. A receiver that lagged must do the same.
    Everything,
}

/// Who may read and change a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeAccess {
    /// The user of `zk.zkAuth` alone.
    Owner,
    /// Everybody who reaches ZooKeeper.
    Everybody,
}

#[derive(Clone)]
enum Backend {
    Embedded(Arc<embedded::Embedded>),
    ZooKeeper(Arc<zookeeper::ZooKeeper>),
    Other(Arc<dyn Store>),
}

/// A store that somebody else keeps: a simulated one. What each call promises stands at [`MetaStore`].
pub trait Store: Send + Sync {
    /// See [`MetaStore::kind`].
    fn kind(&self) -> &'static str;
    /// See [`MetaStore::multi`].
    fn multi(&self, ops: Vec<Op>) -> Answer<()>;
    /// See [`MetaStore::get`].
    fn get(&self, path: &str) -> Answer<Option<Node>>;
    /// See [`MetaStore::children`].
    fn children(&self, path: &str) -> Answer<Vec<String>>;
    /// See [`MetaStore::subtree`].
    fn subtree(&self, path: &str) -> Answer<Vec<(String, Node)>>;
    /// See [`MetaStore::sync`].
    fn sync(&self) -> Answer<()>;
    /// See [`MetaStore::watch`].
    fn watch(&self) -> broadcast::Receiver<Change>;
    /// See [`MetaStore::session`].
    fn session(&self) -> watch::Receiver<Session>;
    /// See [`MetaStore::lease`].
    fn lease(&self) -> &Arc<Lease>;
    /// See [`MetaStore::close`].
    fn close(&self) -> Answer<()>;
}

/// An answer that can be waited for; what it answers is under way already.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, MetaError>> + Send>>;

/// The coordination tree; clones share it.
#[derive(Clone)]
pub struct MetaStore {
    backend: Backend,
}

impl MetaStore {
    /// Opens or creates the embedded store in a file.
    pub fn open_embedded(file: &std::path::Path) -> Result<Self, MetaError> {
        Self::open_embedded_flushing(file, FlushTransactions::BeforeAnswer)
    }

    /// The same, with another way to sync changes of transactions.
    pub fn open_embedded_flushing(
        file: &std::path::Path,
        flush: FlushTransactions,
    ) -> Result<Self, MetaError> {
        let embedded = embedded::Embedded::open(file, flush)?;
        Ok(Self {
            backend: Backend::Embedded(Arc::new(embedded)),
        })
    }

    /// Opens a session with ZooKeeper, and creates the root where it is missing.
    pub async fn connect_zookeeper(options: ZooKeeperOptions) -> Result<Self, MetaError> {
        let zookeeper = zookeeper::ZooKeeper::connect(options).await?;
        Ok(Self {
            backend: Backend::ZooKeeper(Arc::new(zookeeper)),
        })
    }

    /// Over a store that somebody else keeps.
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self {
            backend: Backend::Other(store),
        }
    }

    /// `embedded` or `zookeeper`.
    pub fn kind(&self) -> &'static str {
        match &self.backend {
            Backend::Embedded(_) => "embedded",
            Backend::ZooKeeper(_) => "zookeeper",
            Backend::Other(store) => store.kind(),
        }
    }

    /// Applies all steps or none; durable when it is answered (see [`FlushTransactions`]). Calls that run at the same time share commits.
    ///
    /// It is queued when this returns; awaiting it is for the answer. So calls that touch the same nodes keep their
    /// order. A multi of nothing but puts, tree deletions and checks that is too large for one write is cut into
    /// parts, each with all checks, applied in order.
    pub fn multi(&self, ops: Vec<Op>) -> Answer<()> {
        match &self.backend {
            Backend::Embedded(store) => Box::pin(store.multi(ops)),
            Backend::ZooKeeper(store) => Box::pin(store.multi(ops)),
            Backend::Other(store) => store.multi(ops),
        }
    }

    /// A node.
    pub async fn get(&self, path: &str) -> Result<Option<Node>, MetaError> {
        match &self.backend {
            Backend::Embedded(store) => Ok(store.get(path)),
            Backend::ZooKeeper(store) => store.get(path).await,
            Backend::Other(store) => store.get(path).await,
        }
    }

    /// Names of a node's children, sorted.
    pub async fn children(&self, path: &str) -> Result<Vec<String>, MetaError> {
        match &self.backend {
            Backend::Embedded(store) => Ok(store.children(path)),
            Backend::ZooKeeper(store) => store.children(path).await,
            Backend::Other(store) => store.children(path).await,
        }
    }

    /// Everything below a node, in path order; as new as anything that was answered before the call.
    pub async fn subtree(&self, path: &str) -> Result<Vec<(String, Node)>, MetaError> {
        match &self.backend {
            Backend::Embedded(store) => Ok(store.subtree(path)),
            Backend::ZooKeeper(store) => store.subtree(path).await,
            Backend::Other(store) => store.subtree(path).await,
        }
    }

    /// Waits until reads here see everything that was answered to anybody before the call.
    pub async fn sync(&self) -> Result<(), MetaError> {
        match &self.backend {
            Backend::Embedded(_) => Ok(()),
            Backend::ZooKeeper(store) => store.sync().await,
            Backend::Other(store) => store.sync().await,
        }
    }

    /// Tells of changes below [`paths::WATCHED`] from now on.
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        match &self.backend {
            Backend::Embedded(store) => store.watch(),
            Backend::ZooKeeper(store) => store.watch(),
            Backend::Other(store) => store.watch(),
        }
    }

    /// The session, as it changes.
    pub fn session(&self) -> watch::Receiver<Session> {
        match &self.backend {
            Backend::Embedded(store) => store.session(),
            Backend::ZooKeeper(store) => store.session(),
            Backend::Other(store) => store.session(),
        }
    }

    /// Until when this process may act on what it holds.
    pub fn lease(&self) -> &Arc<Lease> {
        match &self.backend {
            Backend::Embedded(store) => store.lease(),
            Backend::ZooKeeper(store) => store.lease(),
            Backend::Other(store) => store.lease(),
        }
    }

    /// Which of these nodes are there and open to everybody who reaches ZooKeeper; none of another store's.
    pub async fn open_nodes(&self, paths: &[&str]) -> Result<Vec<String>, MetaError> {
        match &self.backend {
            Backend::ZooKeeper(store) => {
                let paths = paths.iter().map(|path| (*path).to_owned());
                store.open_nodes(paths).await
            }
            Backend::Embedded(_) | Backend::Other(_) => Ok(Vec::new()),
        }
    }

    /// The nodes in ZooKeeper that are not as `access` wants them, in path order.
    pub async fn nodes_unlike(&self, access: NodeAccess) -> Result<Vec<String>, MetaError> {
        match &self.backend {
            Backend::ZooKeeper(store) => store.nodes_unlike(access).await,
            Backend::Embedded(_) | Backend::Other(_) => Ok(Vec::new()),
        }
    }

    /// Sets who may use a node in ZooKeeper; whether it is there.
    pub async fn set_access(&self, path: &str, access: NodeAccess) -> Result<bool, MetaError> {
        match &self.backend {
            Backend::ZooKeeper(store) => store.set_access(path, access).await,
            Backend::Embedded(_) | Backend::Other(_) => Ok(false),
        }
    }

    /// Finishes what is queued and ends the session.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Embedded(store) => {
                let store = store.clone();
                let _ = tokio::task::spawn_blocking(move || store.close()).await;
            }
            Backend::ZooKeeper(store) => store.close().await,
            Backend::Other(store) => {
                let _ = store.close().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_gathered_whole_up_to_what_a_multi_holds() {
        let change = |bytes: usize| {
            let data = Bytes::from(vec![0; bytes]);
            vec![Op::put("/a", data), Op::delete_tree("/b")]
        };
        let counts = |changes: Vec<Vec<Op>>| {
            let gathered = gather(changes).into_iter();
            gathered
                .map(|(count, ops)| (count, ops.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(counts(Vec::new()), []);
        let most = MULTI_OPS_MAX / 2;
        let many = vec![change(1); most + 1];
        assert_eq!(counts(many), [(most, MULTI_OPS_MAX), (1, 2)]);
        let large = vec![change(MULTI_BYTES_MAX / 2); 3];
        assert_eq!(counts(large), [(1, 2); 3]);
        // What is too large for any is left to the store to refuse.
        assert_eq!(counts(vec![change(MULTI_BYTES_MAX * 2)]), [(1, 2)]);
    }
}
