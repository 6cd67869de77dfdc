//! The embedded backend: one redb file, and the whole tree in memory for reading.
//!
//! One thread takes all queued multis, checks and applies them in order, writes what came out in one durable
//! commit, then publishes it to readers and answers. So a thousand offset commits cost one sync.
//!
//! The table `nodes` maps a path to: version i32 big-endian, then the data.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{broadcast, oneshot, watch};

use super::{Change, Lease, MetaError, Node, Op, Session, SessionState};

const NODES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("nodes");
/// Commits that a slow watcher may lie behind before it must re-read.
const WATCH_BACKLOG: usize = 1024;

type Tree = BTreeMap<String, Node>;
type Reply = oneshot::Sender<Result<(), MetaError>>;

#[derive(Default)]
struct State {
    queued: Vec<(Vec<Op>, Reply)>,
    stopping: bool,
}

struct Shared {
    tree: RwLock<Tree>,
    state: Mutex<State>,
    filled: Condvar,
    changes: broadcast::Sender<Change>,
}

pub(super) struct Embedded {
    shared: Arc<Shared>,
    session: Arc<watch::Sender<Session>>,
    lease: Arc<Lease>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Embedded {
    pub(super) fn open(file: &Path) -> Result<Self, MetaError> {
        let unavailable =
            |error: redb::Error| MetaError::Unavailable(format!("{}: {error}", file.display()));
        let (database, tree) = load(file).map_err(unavailable)?;
        let shared = Arc::new(Shared {
            tree: RwLock::new(tree),
            state: Mutex::default(),
            filled: Condvar::new(),
            changes: broadcast::channel(WATCH_BACKLOG).0,
        });
        let of_thread = shared.clone();
        let session = Arc::new(watch::Sender::new(Session {
            number: 1,
            state: SessionState::Connected,
        }));
        let told = session.clone();
        let work = move || {
            let work = AssertUnwindSafe(|| run(&of_thread, &database));
            if std::panic::catch_unwind(work).is_err() {
                // What is queued, and all that comes, is answered: the store is closed.
                let queued = {
                    let mut state = of_thread.state.lock();
                    state.stopping = true;
                    std::mem::take(&mut state.queued)
                };
                drop(queued);
                told.send_modify(|session| session.state = SessionState::Closed);
                tracing::error!("the coordination store ended by a panic; this is a bug");
            }
        };
        let thread = std::thread::Builder::new()
            .name("meta".to_owned())
            .spawn(work)
            .map_err(|error| MetaError::Unavailable(error.to_string()))?;
        Ok(Self {
            session,
            lease: Arc::new(Lease::forever()),
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn multi(
        &self,
        ops: Vec<Op>,
    ) -> impl Future<Output = Result<(), MetaError>> + Send + use<> {
        let closed = || MetaError::Unavailable("the store is closed".to_owned());
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            if state.stopping {
                let _ = reply.send(Err(closed()));
            } else {
                state.queued.push((ops, reply));
            }
        }
        self.shared.filled.notify_one();
        async move { answer.await.map_err(|_| closed())? }
    }

    pub(super) fn get(&self, path: &str) -> Option<Node> {
        self.shared.tree.read().get(path).cloned()
    }

    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let prefix = with_slash(path);
        let tree = self.shared.tree.read();
        let below = from(&tree, &prefix).map_while(|(path, _)| path.strip_prefix(&prefix));
        below
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    pub(super) fn subtree(&self, path: &str) -> Vec<(String, Node)> {
        let prefix = with_slash(path);
        let tree = self.shared.tree.read();
        let below = from(&tree, &prefix).take_while(|(path, _)| path.starts_with(&prefix));
        below
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect()
    }

    pub(super) fn watch(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    pub(super) fn session(&self) -> watch::Receiver<Session> {
        self.session.subscribe()
    }

    pub(super) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    pub(super) fn close(&self) {
        self.shared.state.lock().stopping = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

fn load(file: &Path) -> Result<(Database, Tree), redb::Error> {
    let database = Database::create(file)?;
    let write = database.begin_write()?;
    write.open_table(NODES)?;
    write.commit()?;
    let mut tree = Tree::new();
    let read = database.begin_read()?;
    for entry in read.open_table(NODES)?.iter()? {
        let (path, value) = entry?;
        if let Some((version, data)) = value.value().split_first_chunk::<4>() {
            let version = i32::from_be_bytes(*version);
            let node = Node {
                data: Bytes::copy_from_slice(data),
                version,
                ephemeral: false,
            };
            tree.insert(path.value().to_owned(), node);
        }
    }
    Ok((database, tree))
}

fn run(shared: &Shared, database: &Database) {
    loop {
        let queued = {
            let mut state = shared.state.lock();
            while state.queued.is_empty() {
                if state.stopping {
                    return;
                }
                shared.filled.wait(&mut state);
            }
            std::mem::take(&mut state.queued)
        };
        let mut batch = Overlay::default();
        let mut answers = Vec::with_capacity(queued.len());
        {
            let tree = shared.tree.read();
            for (ops, reply) in queued {
                let mut attempt = Attempt {
                    tree: &tree,
                    batch: &batch,
                    own: Overlay::default(),
                };
                let result = ops.iter().try_for_each(|op| attempt.apply(op));
                let own = attempt.own;
                if result.is_ok() {
                    batch.0.extend(own.0);
                }
                answers.push((reply, result));
            }
        }
        if let Err(error) = commit(database, &batch) {
            tracing::error!(%error, "the coordination store cannot be written");
            for (reply, _) in answers {
                let _ = reply.send(Err(MetaError::Unavailable(error.to_string())));
            }
            continue;
        }
        let changed: Arc<[String]> = batch.0.keys().cloned().collect();
        {
            let mut tree = shared.tree.write();
            for (path, node) in batch.0 {
                match node {
                    Some(node) => tree.insert(path, node),
                    None => tree.remove(&path),
                };
            }
        }
        if !changed.is_empty() {
            let _ = shared.changes.send(Change::Paths(changed));
        }
        for (reply, result) in answers {
            let _ = reply.send(result);
        }
    }
}

fn commit(database: &Database, batch: &Overlay) -> Result<(), redb::Error> {
    if batch.0.values().flatten().all(|node| node.ephemeral)
        && batch.0.values().all(Option::is_some)
    {
        return Ok(());
    }
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(NODES)?;
        let mut value = Vec::new();
        for (path, node) in &batch.0 {
            match node {
                Some(node) if !node.ephemeral => {
                    value.clear();
                    value.extend_from_slice(&node.version.to_be_bytes());
                    value.extend_from_slice(&node.data);
                    table.insert(path.as_str(), value.as_slice())?;
                }
                _ => {
                    table.remove(path.as_str())?;
                }
            }
        }
    }
    write.commit()?;
    Ok(())
}

/// Changes that are not in the tree yet; `None` for removed.
#[derive(Default)]
struct Overlay(BTreeMap<String, Option<Node>>);

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
            None => self.tree.get(path),
        }
    }

    /// Paths below `path` that exist now.
    fn below(&self, path: &str) -> Vec<String> {
        let prefix = with_slash(path);
        let starts = |path: &&String| path.starts_with(&prefix);
        let mut all: Vec<String> = from(self.tree, &prefix)
            .map(|(path, _)| path)
            .take_while(starts)
            .cloned()
            .collect();
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
                self.check(path, Some(*version))?;
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

fn from<'a>(
    tree: &'a Tree,
    prefix: &str,
) -> impl Iterator<Item = (&'a String, &'a Node)> + use<'a> {
    tree.range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
}
