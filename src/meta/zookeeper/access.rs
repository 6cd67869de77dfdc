//! Who may use the tree's nodes: ZooKeeper's own access control lists.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use zookeeper_client::{Acl, Acls, Error};

use super::{READS_AT_ONCE, ZooKeeper, unavailable};
use crate::meta::{MetaError, NodeAccess};

/// Kept by ZooKeeper itself, where the tree's root is its own.
const ZOOKEEPERS_OWN: &str = "/zookeeper";

/// Whether anybody may do anything.
fn is_open(acls: &[Acl]) -> bool {
    acls.iter().any(|acl| acl.scheme() == "world")
}

impl ZooKeeper {
    /// Which of these nodes are there and open to everybody.
    pub(in crate::meta) async fn open_nodes(
        &self,
        paths: impl IntoIterator<Item = String>,
    ) -> Result<Vec<String>, MetaError> {
        let looked = stream::iter(paths).map(|path| async move {
            let acls = self.acls(&path).await?;
            Ok::<_, MetaError>(acls.filter(|acls| is_open(acls)).map(|_| path))
        });
        let open: Vec<Option<String>> = looked.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(open.into_iter().flatten().collect())
    }

    /// The nodes of the whole tree that are not as `access` wants them.
    pub(in crate::meta) async fn nodes_unlike(
        &self,
        access: NodeAccess,
    ) -> Result<Vec<String>, MetaError> {
        let below = self.subtree("/").await?.into_iter().map(|(path, _)| path);
        let is_ours = |path: &String| {
            let below = path.strip_prefix(ZOOKEEPERS_OWN);
            !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let all: Vec<String> = std::iter::once("/".to_owned())
            .chain(below.filter(is_ours))
            .collect();
        let open = self.open_nodes(all.clone()).await?;
        Ok(match access {
            NodeAccess::Owner => open,
            NodeAccess::Everybody => {
                let open: std::collections::HashSet<String> = open.into_iter().collect();
                let is_closed = |path: &String| !open.contains(path);
                all.into_iter().filter(is_closed).collect()
            }
        })
    }

    /// Gives a node to this session's user alone, or to everybody; whether it is there.
    pub(in crate::meta) async fn set_access(
        &self,
        path: &str,
        access: NodeAccess,
    ) -> Result<bool, MetaError> {
        let acls = match access {
            NodeAccess::Owner if self.shared.options.auth.is_none() => {
                return Err(unavailable("there is no user to own it (zk.zkAuth)"));
            }
            NodeAccess::Owner => Acls::creator_all(),
            NodeAccess::Everybody => Acls::anyone_all(),
        };
        self.read(path, |client| async move {
            match client.set_acl(path, &acls, None).await {
                Ok(_) => Ok(true),
                Err(Error::NoNode) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn acls(&self, path: &str) -> Result<Option<Vec<Acl>>, MetaError> {
        self.read(path, |client| async move {
            match client.get_acl(path).await {
                Ok((acls, _)) => Ok(Some(acls)),
                Err(Error::NoNode) => Ok(None),
                // Not open to this session, so not to everybody.
                Err(Error::NoAuth) => Ok(Some(Vec::new())),
                Err(error) => Err(error),
            }
        })
        .await
    }
}
