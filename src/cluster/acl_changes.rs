//! Access control lists: read from the tree, and changed as the controller (Kafka's AclControlManager). One node a pattern; a
//! change writes the nodes of the patterns that it is about.
//!
//! Tests of brokers that do it: tests/acls.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::changes::ClusterError;
use super::controller::Controller;
use super::view::View;
use crate::meta::records::{AclEntryRecord, AclRecord, RECORD_VERSION, decode, encode};
use crate::meta::{Op, gather, paths};
use crate::security::{
    Acls, Binding, Entry, Filter, Operation, Pattern, PatternKind, Permission, ResourceKind,
};

/// Bindings of a cluster at most: every broker keeps all of them.
pub const ACL_BINDINGS_MAX: usize = 100_000;
/// Bytes of the entries of one pattern at most: they are one node.
pub const ACL_PATTERN_BYTES_MAX: usize = 512 << 10;
/// Bindings that one request makes or deletes at most (Kafka's MAX_RECORDS_PER_USER_OP).
pub const ACL_CHANGES_A_REQUEST_MAX: usize = 10_000;
/// Nodes that are read at the same time.
const READS_AT_ONCE: usize = 64;

/// Why a binding is not made, or none is deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclRefusal {
    /// There are as many as there may be.
    #[error("there are {ACL_BINDINGS_MAX} bindings, which is the most")]
    Bindings,
    /// The pattern has as many as there may be.
    #[error("the bindings of a pattern have {ACL_PATTERN_BYTES_MAX} bytes at most")]
    Pattern,
    /// The request makes more than it may.
    #[error("Unable to perform excessively large batch operation.")]
    Creations,
    /// The request deletes more than it may.
    #[error(
        "Cannot remove more than {ACL_CHANGES_A_REQUEST_MAX} acls in a single delete operation."
    )]
    Deletions,
}

impl View {
    /// Reads the lists of patterns by the paths of their nodes, or all.
    pub(super) async fn reload_acls(
        &self,
        named: Option<&BTreeSet<String>>,
    ) -> Result<(), ClusterError> {
        let _change = self.lock_changes().await;
        self.read_acls(named).await
    }

    /// The same, by the holder of the lock for changes.
    async fn read_acls(&self, named: Option<&BTreeSet<String>>) -> Result<(), ClusterError> {
        let (nodes, before) = match named {
            None => {
                let nodes = self.meta.subtree(paths::ACLS).await?;
                let nodes = nodes.into_iter().map(|(path, node)| (path, Some(node)));
                (nodes.collect(), Acls::default())
            }
            Some(named) => {
                let read = |path: &String| {
                    let path = path.clone();
                    async move {
                        let node = self.meta.get(&path).await?;
                        Ok::<_, ClusterError>((path, node))
                    }
                };
                let reads: Vec<_> = named.iter().map(read).collect();
                let reads = stream::iter(reads).buffered(READS_AT_ONCE);
                let nodes: Vec<_> = reads.try_collect().await?;
                (nodes, Acls::clone(&self.image().acls))
            }
        };
        let read = nodes.into_iter().filter_map(|(path, node)| {
            let pattern = pattern_of(&path)?;
            let data = node.map(|node| node.data).unwrap_or_default();
            Some((pattern, entries_of(&path, &data)))
        });
        self.put_acls(before.with(read));
        Ok(())
    }

    fn put_acls(&self, acls: Acls) {
        let acls = Arc::new(acls);
        self.change_image(|image| image.acls = acls);
    }
}

impl Controller {
    /// Makes bindings; what becomes of each. One that is there already is no mistake.
    pub async fn create_acls(
        &self,
        bindings: Vec<Binding>,
    ) -> Result<Vec<Result<(), AclRefusal>>, ClusterError> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let mut change = Change::of(self.view.image().acls.clone());
        let outcomes: Vec<_> = bindings.into_iter().map(|one| change.add(one)).collect();
        if change.changes > ACL_CHANGES_A_REQUEST_MAX {
            return Ok(vec![Err(AclRefusal::Creations); outcomes.len()]);
        }
        self.change_acls(change).await?;
        Ok(outcomes)
    }

    /// Deletes what filters ask for; what was deleted by each. What two ask for is told to both.
    pub async fn delete_acls(
        &self,
        filters: &[Filter],
    ) -> Result<Result<Vec<Vec<Binding>>, AclRefusal>, ClusterError> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let acls = self.view.image().acls.clone();
        let mut change = Change::of(acls.clone());
        let mut deleted = Vec::new();
        for filter in filters {
            let found = acls.find(filter).map(|(pattern, entry)| Binding {
                pattern: pattern.clone(),
                entry: entry.clone(),
            });
            let found: Vec<Binding> = found.collect();
            found.iter().for_each(|binding| change.remove(binding));
            if change.changes > ACL_CHANGES_A_REQUEST_MAX {
                return Ok(Err(AclRefusal::Deletions));
            }
            deleted.push(found);
        }
        self.change_acls(change).await?;
        Ok(Ok(deleted))
    }

    /// Writes a change, and puts it in force. Where a part of it failed, what the tree has is read.
    async fn change_acls(&self, change: Change) -> Result<(), ClusterError> {
        let changed = change
            .patterns
            .iter()
            .filter(|(_, changed)| changed.is_changed);
        let changed: Vec<(Pattern, Vec<Entry>)> = changed
            .map(|(pattern, changed)| (pattern.clone(), changed.entries.iter().cloned().collect()))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let ops = changed
            .iter()
            .map(|(pattern, entries)| vec![op(pattern, entries)]);
        for (_, ops) in gather(ops) {
            if let Err(error) = self.change_as_controller(ops).await {
                let paths = changed.iter().map(|(pattern, _)| path_of(pattern));
                let read = self.view.read_acls(Some(&paths.collect())).await;
                if let Err(error) = read {
                    tracing::warn!(%error, "cannot read the access control lists");
                }
                return Err(error);
            }
        }
        self.view.put_acls(change.acls.with(changed));
        Ok(())
    }
}

/// The entries of a pattern while they are changed.
#[derive(Default)]
struct Changed {
    entries: BTreeSet<Entry>,
    bytes: usize,
    is_changed: bool,
}

/// Lists, and what changes in them.
struct Change {
    acls: Arc<Acls>,
    patterns: BTreeMap<Pattern, Changed>,
    count: usize,
    changes: usize,
}

impl Change {
    fn of(acls: Arc<Acls>) -> Self {
        Self {
            count: acls.count(),
            acls,
            patterns: BTreeMap::new(),
            changes: 0,
        }
    }

    fn pattern(&mut self, pattern: Pattern) -> &mut Changed {
        let known = self.acls.entries(&pattern);
        self.patterns.entry(pattern).or_insert_with(|| Changed {
            entries: known.iter().cloned().collect(),
            bytes: known.iter().map(bytes_of).sum(),
            is_changed: false,
        })
    }

    fn add(&mut self, binding: Binding) -> Result<(), AclRefusal> {
        let count = self.count;
        let bytes = bytes_of(&binding.entry);
        let pattern = self.pattern(binding.pattern);
        if pattern.entries.contains(&binding.entry) {
            return Ok(());
        }
        if count >= ACL_BINDINGS_MAX {
            return Err(AclRefusal::Bindings);
        }
        if pattern.bytes + bytes > ACL_PATTERN_BYTES_MAX {
            return Err(AclRefusal::Pattern);
        }
        pattern.entries.insert(binding.entry);
        pattern.bytes += bytes;
        pattern.is_changed = true;
        self.count += 1;
        self.changes += 1;
        Ok(())
    }

    fn remove(&mut self, binding: &Binding) {
        let pattern = self.pattern(binding.pattern.clone());
        if pattern.entries.remove(&binding.entry) {
            pattern.is_changed = true;
            self.changes += 1;
        }
    }
}

fn record_of(entry: &Entry) -> AclEntryRecord {
    AclEntryRecord {
        principal: entry.principal.clone(),
        host: entry.host.clone(),
        operation: entry.operation.word().to_owned(),
        permission: entry.permission.word().to_owned(),
    }
}

/// What an entry takes in its pattern's node.
fn bytes_of(entry: &Entry) -> usize {
    encode(&record_of(entry)).len() + 1
}

fn path_of(pattern: &Pattern) -> String {
    paths::acl(pattern.kind.word(), pattern.resource.word(), &pattern.name)
}

/// `None` for a node that is none of a pattern.
fn pattern_of(path: &str) -> Option<Pattern> {
    let (kind, resource, name) = paths::acl_of(path)?;
    Some(Pattern {
        resource: ResourceKind::from_word(resource)?,
        kind: PatternKind::from_word(kind)?,
        name,
    })
}

fn op(pattern: &Pattern, entries: &[Entry]) -> Op {
    let path = path_of(pattern);
    match entries.is_empty() {
        true => Op::delete_tree(path),
        false => {
            let record = AclRecord {
                version: RECORD_VERSION,
                acls: entries.iter().map(record_of).collect(),
            };
            Op::put(path, encode(&record))
        }
    }
}

/// The entries of a node. What cannot be read, a later version wrote: nothing is allowed by it, and everything is denied to
/// everybody, because it may deny.
fn entries_of(path: &str, data: &[u8]) -> Vec<Entry> {
    if data.is_empty() {
        return Vec::new();
    }
    let entries = decode::<AclRecord>(path, data).ok().and_then(|record| {
        let entries = record.acls.into_iter().map(entry_of);
        entries.collect::<Option<Vec<Entry>>>()
    });
    entries.unwrap_or_else(|| {
        tracing::error!(
            path,
            "an access control list cannot be read, and denies all that it is of"
        );
        vec![Entry {
            principal: "User:*".to_owned(),
            host: crate::security::WILDCARD.to_owned(),
            operation: Operation::All,
            permission: Permission::Deny,
        }]
    })
}

fn entry_of(record: AclEntryRecord) -> Option<Entry> {
    Some(Entry {
        operation: Operation::from_word(&record.operation)?,
        permission: Permission::from_word(&record.permission)?,
        principal: record.principal,
        host: record.host,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::alone;
    use super::*;

    fn binding(name: &str, who: &str) -> Binding {
        Binding {
            pattern: Pattern {
                resource: ResourceKind::Topic,
                kind: PatternKind::Literal,
                name: name.to_owned(),
            },
            entry: Entry {
                principal: who.to_owned(),
                host: "*".to_owned(),
                operation: Operation::Read,
                permission: Permission::Allow,
            },
        }
    }

    fn of_topic(name: &str) -> Filter {
        Filter {
            name: Some(name.to_owned()),
            ..Filter::ALL
        }
    }

    #[tokio::test]
    async fn what_is_made_is_in_the_tree_in_words_and_read_again_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let controller = cluster.controller();
        let made = vec![
            binding("a/b", "User:x"),
            binding("a/b", "User:x"),
            binding("*", "User:y"),
        ];
        let outcomes = controller.create_acls(made).await.unwrap();
        assert_eq!(outcomes, [Ok(()), Ok(()), Ok(())]);
        let node = cluster.meta().get("/acl/literal/topic/a%2fb").await;
        assert_eq!(
            &node.unwrap().unwrap().data[..],
            br#"{"version":1,"acls":[{"principal":"User:x","host":"*","operation":"Read","permission":"Allow"}]}"#
        );
        assert_eq!(cluster.image().acls.count(), 2);
        let before = cluster.image().acls.clone();
        cluster.view.reload_acls(None).await.unwrap();
        let all = |acls: &Acls| {
            let found = acls.find(&Filter::ALL);
            let found = found.map(|(pattern, entry)| (pattern.clone(), entry.clone()));
            found.collect::<Vec<_>>()
        };
        assert_eq!(all(&before), all(&cluster.image().acls));
        let filters = [of_topic("a/b"), Filter::ALL];
        let deleted = controller.delete_acls(&filters).await.unwrap().unwrap();
        assert_eq!((deleted[0].len(), deleted[1].len()), (1, 2));
        assert_eq!(cluster.image().acls.count(), 0);
        let node = cluster.meta().get("/acl/literal/topic/a%2fb").await;
        assert!(node.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_read_denies() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let path = "/acl/prefixed/topic/a".to_owned();
        let op = Op::put(path.clone(), r#"{"version":2}"#.into());
        cluster.meta().multi(vec![op]).await.unwrap();
        let named = BTreeSet::from([path]);
        cluster.view.reload_acls(Some(&named)).await.unwrap();
        let acls = cluster.image().acls.clone();
        let found: Vec<_> = acls.find(&Filter::ALL).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.permission, Permission::Deny);
    }

    #[tokio::test]
    async fn bindings_of_a_pattern_end_at_its_bytes_and_those_of_a_request_at_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let controller = cluster.controller();
        let long = "x".repeat(ACL_PATTERN_BYTES_MAX / 4);
        let many = (0..5).map(|n| binding("t", &format!("User:{n}{long}")));
        let outcomes = controller.create_acls(many.collect()).await.unwrap();
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert_eq!(refused, 2);
        let many = (0..=ACL_CHANGES_A_REQUEST_MAX).map(|n| binding(&format!("t{n}"), "User:x"));
        let outcomes = controller.create_acls(many.collect()).await.unwrap();
        let of_all = vec![Err(AclRefusal::Creations); ACL_CHANGES_A_REQUEST_MAX + 1];
        assert_eq!(outcomes, of_all);
        assert_eq!(cluster.image().acls.count(), 3);
    }

    #[test]
    fn there_are_so_many_bindings_and_one_that_is_there_may_be_made_again() {
        let mut change = Change::of(Arc::default());
        change.add(binding("t", "User:x")).unwrap();
        change.count = ACL_BINDINGS_MAX;
        assert_eq!(change.add(binding("t", "User:x")), Ok(()));
        let one_more = change.add(binding("t", "User:y"));
        assert_eq!(one_more, Err(AclRefusal::Bindings));
    }
}
