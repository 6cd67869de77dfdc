//! MetaStore: the coordination tree. A tree of versioned nodes with ephemerals and watches, behind which stands
//! an embedded store (and, where several brokers form a cluster, ZooKeeper).
//!
//! Every change is a `multi` of create, set, delete and check, applied whole or not at all, and durable when it
//! is answered. [`paths`] and [`records`] are the only places that know what the tree looks like.

mod embedded;
pub mod paths;
pub mod records;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;

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
    /// The node must have this version.
    Check {
        /// Where.
        path: String,
        /// Expected version.
        version: i32,
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

/// Paths that one commit changed; a receiver that lagged re-reads what it cares for.
pub type Changes = Arc<[String]>;

/// The coordination tree; clones share it.
#[derive(Clone)]
pub struct MetaStore {
    embedded: Arc<embedded::Embedded>,
}

impl MetaStore {
    /// Opens or creates the embedded store in a file.
    pub fn open_embedded(file: &std::path::Path) -> Result<Self, MetaError> {
        Ok(Self {
            embedded: Arc::new(embedded::Embedded::open(file)?),
        })
    }

    /// Applies all steps or none; durable when it returns. Calls that run at the same time share one commit.
    ///
    /// It is queued when this returns; awaiting it is for the answer. So calls keep their order.
    pub fn multi(
        &self,
        ops: Vec<Op>,
    ) -> impl Future<Output = Result<(), MetaError>> + Send + use<> {
        self.embedded.multi(ops)
    }

    /// A node.
    pub async fn get(&self, path: &str) -> Result<Option<Node>, MetaError> {
        Ok(self.embedded.get(path))
    }

    /// Names of a node's children, sorted.
    pub async fn children(&self, path: &str) -> Result<Vec<String>, MetaError> {
        Ok(self.embedded.children(path))
    }

    /// Everything below a node, in path order.
    pub async fn subtree(&self, path: &str) -> Result<Vec<(String, Node)>, MetaError> {
        Ok(self.embedded.subtree(path))
    }

    /// Tells of every change from now on.
    pub fn watch(&self) -> broadcast::Receiver<Changes> {
        self.embedded.watch()
    }

    /// Finishes what is queued and closes the store.
    pub fn close(&self) {
        self.embedded.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(path: &str) -> Op {
        Op::Create {
            path: path.into(),
            data: Bytes::from_static(b"x"),
            ephemeral: false,
        }
    }

    #[tokio::test]
    async fn a_multi_is_applied_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        store
            .multi(vec![create("/a"), create("/a/b")])
            .await
            .unwrap();
        let bad = Op::Check {
            path: "/a".into(),
            version: 9,
        };
        let refused = store.multi(vec![create("/a/c"), bad]).await;
        assert_eq!(refused, Err(MetaError::BadVersion("/a".into())));
        assert_eq!(store.children("/a").await.unwrap(), ["b"]);
        assert_eq!(
            store.multi(vec![create("/x/y")]).await,
            Err(MetaError::NoNode("/x".into()))
        );
    }

    #[tokio::test]
    async fn versions_count_sets_and_guard_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        store.multi(vec![create("/a")]).await.unwrap();
        let set = |version| Op::Set {
            path: "/a".into(),
            data: Bytes::from_static(b"y"),
            version,
        };
        store.multi(vec![set(Some(0))]).await.unwrap();
        assert_eq!(
            store.multi(vec![set(Some(0))]).await,
            Err(MetaError::BadVersion("/a".into()))
        );
        assert_eq!(store.get("/a").await.unwrap().unwrap().version, 1);
    }

    #[tokio::test]
    async fn what_was_answered_survives_reopening_and_ephemerals_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("meta");
        let store = MetaStore::open_embedded(&file).unwrap();
        let ephemeral = Op::Create {
            path: "/a/e".into(),
            data: Bytes::new(),
            ephemeral: true,
        };
        let put = Op::Put {
            path: "/p/q/r".into(),
            data: Bytes::from_static(b"z"),
        };
        store
            .multi(vec![create("/a"), ephemeral, put])
            .await
            .unwrap();
        store.close();
        drop(store);
        let store = MetaStore::open_embedded(&file).unwrap();
        let paths: Vec<_> = store
            .subtree("/")
            .await
            .unwrap()
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        assert_eq!(paths, ["/a", "/p", "/p/q", "/p/q/r"]);
    }

    #[tokio::test]
    async fn deleting_a_parent_needs_the_tree_operation() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        store
            .multi(vec![create("/a"), create("/a/b"), create("/ab")])
            .await
            .unwrap();
        let delete = Op::Delete {
            path: "/a".into(),
            version: None,
        };
        assert_eq!(
            store.multi(vec![delete]).await,
            Err(MetaError::NotEmpty("/a".into()))
        );
        store
            .multi(vec![Op::DeleteTree { path: "/a".into() }])
            .await
            .unwrap();
        assert_eq!(store.children("/").await.unwrap(), ["ab"]);
    }

    #[tokio::test]
    async fn commits_are_told_to_watchers() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
        let mut changes = store.watch();
        store.multi(vec![create("/a")]).await.unwrap();
        assert_eq!(&*changes.recv().await.unwrap(), ["/a".to_owned()]);
    }
}
