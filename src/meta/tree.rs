//! A coordination tree in memory, and what multis do to it.
//!
//! Tests: tests/meta.rs, tests/simulation.rs.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::{MetaError, Node, Op};

/// Nodes by path.
#[derive(Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// A node.
    pub fn get(&self, path: &str) -> Option<Node> {
        self.nodes.get(path).cloned()
    }

    /// Names of a node's children, sorted.
    pub fn children(&self, path: &str) -> Vec<String> {
        let prefix = with_slash(path);
        let below = self.from(&prefix);
        let below = below.map_while(|(path, _)| path.strip_prefix(&prefix));
        below
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    /// Everything below a node, in path order.
    pub fn subtree(&self, path: &str) -> Vec<(String, Node)> {
        let prefix = with_slash(path);
        let below = self.from(&prefix);
        below
            .take_while(|(path, _)| path.starts_with(&prefix))
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect()
    }

    /// All nodes, in path order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter()
    }

    /// Puts a node in its place, whatever is there.
    pub fn insert(&mut self, path: String, node: Node) {
        self.nodes.insert(path, node);
    }

    /// Makes changes; returns where.
    pub fn apply(&mut self, changes: Overlay) -> Arc<[String]> {
        let changed: Arc<[String]> = changes.0.keys().cloned().collect();
        for (path, node) in changes.0 {
            match node {
                Some(node) => self.nodes.insert(path, node),
                None => self.nodes.remove(&path),
            };
        }
        changed
    }

    /// Removes what goes with a session; returns what that was.
    pub fn drop_ephemerals(&mut self) -> Arc<[String]> {
        let ephemerals = self.nodes.iter().filter(|(_, node)| node.ephemeral);
        let gone: Arc<[String]> = ephemerals.map(|(path, _)| path.clone()).collect();
        self.nodes.retain(|_, node| !node.ephemeral);
        gone
    }

    fn from<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (&'a String, &'a Node)> + use<'a> {
        self.nodes
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
    }
}

/// Changes that are not in the tree yet; `None` for removed.
#[derive(Default)]
pub struct Overlay(pub(super) BTreeMap<String, Option<Node>>);

impl Overlay {
    /// Adds what all steps do to the tree and to what is here already, or nothing of it.
    pub fn add(&mut self, tree: &Tree, ops: &[Op]) -> Result<(), MetaError> {
        let mut attempt = Attempt {
            tree,
            batch: self,
            own: Overlay::default(),
        };
        ops.iter().try_for_each(|op| attempt.apply(op))?;
        let own = attempt.own;
        self.0.extend(own.0);
        Ok(())
    }
}

/// One multi being tried on top of the tree and of the batch's earlier multis.
struct Attempt<'a> {
    tree: &'a Tree,
    batch: &'a Overlay,
    own: Overlay,
}

impl Attempt<'_> {
    fn get(&self, path: &str) -> Option<&Node> {
        match self.own.0.get(path).or_else(|| self.batch.0.get(path)) {
            Some(changed) => changed.as_ref(),
            None => self.tree.nodes.get(path),
        }
    }

    /// Paths below `path` that exist now.
    fn below(&self, path: &str) -> Vec<String> {
        let prefix = with_slash(path);
        let starts = |path: &&String| path.starts_with(&prefix);
        let there = self.tree.from(&prefix).map(|(path, _)| path);
        let mut all: Vec<String> = there.take_while(starts).cloned().collect();
        for overlay in [self.batch, &self.own] {
            let range = overlay
                .0
                .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
            all.extend(range.map(|(path, _)| path).take_while(starts).cloned());
        }
        all.sort_unstable();
        all.dedup();
        all.retain(|path| self.get(path).is_some());
        all
    }

    fn check(&self, path: &str, version: Option<i32>) -> Result<i32, MetaError> {
        let node = self
            .get(path)
            .ok_or_else(|| MetaError::NoNode(path.to_owned()))?;
        match version {
            Some(version) if version != node.version => Err(MetaError::BadVersion(path.to_owned())),
            _ => Ok(node.version),
        }
    }

    fn apply(&mut self, op: &Op) -> Result<(), MetaError> {
        match op {
            Op::Create {
                path,
                data,
                ephemeral,
            } => {
                if let Some(parent) = parent_of(path)?
                    && self.get(parent).is_none()
                {
                    return Err(MetaError::NoNode(parent.to_owned()));
                }
                if self.get(path).is_some() {
                    return Err(MetaError::NodeExists(path.clone()));
                }
                self.write(
                    path,
                    Node {
                        data: data.clone(),
                        version: 0,
                        ephemeral: *ephemeral,
                    },
                );
            }
            Op::Set {
                path,
                data,
                version,
            } => {
                let version = self.check(path, *version)?.wrapping_add(1);
                let ephemeral = self.get(path).is_some_and(|node| node.ephemeral);
                self.write(
                    path,
                    Node {
                        data: data.clone(),
                        version,
                        ephemeral,
                    },
                );
            }
            Op::Put {
                path,
                data,
                ephemeral,
            } => self.put(path, data, *ephemeral)?,
            Op::Delete { path, version } => {
                self.check(path, *version)?;
                if !self.below(path).is_empty() {
                    return Err(MetaError::NotEmpty(path.clone()));
                }
                self.own.0.insert(path.clone(), None);
            }
            Op::DeleteTree { path } => {
                for below in self.below(path) {
                    self.own.0.insert(below, None);
                }
                if self.get(path).is_some() {
                    self.own.0.insert(path.clone(), None);
                }
            }
            Op::Check { path, version } => {
                self.check(path, *version)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, data: &Bytes, ephemeral: bool) -> Result<(), MetaError> {
        if let Some(parent) = parent_of(path)?
            && self.get(parent).is_none()
        {
            self.put(parent, &Bytes::new(), false)?;
        }
        let version = self
            .get(path)
            .map_or(0, |node| node.version.wrapping_add(1));
        self.write(
            path,
            Node {
                data: data.clone(),
                version,
                ephemeral,
            },
        );
        Ok(())
    }

    fn write(&mut self, path: &str, node: Node) {
        self.own.0.insert(path.to_owned(), Some(node));
    }
}

/// The parent of a path; `None` at the top.
fn parent_of(path: &str) -> Result<Option<&str>, MetaError> {
    let invalid = || MetaError::InvalidPath(path.to_owned());
    let (parent, name) = path.rsplit_once('/').ok_or_else(invalid)?;
    if name.is_empty() || !path.starts_with('/') || path.contains("//") {
        return Err(invalid());
    }
    Ok((!parent.is_empty()).then_some(parent))
}

fn with_slash(path: &str) -> String {
    if path.ends_with('/') {
        path.to_owned()
    } else {
        format!("{path}/")
    }
}
