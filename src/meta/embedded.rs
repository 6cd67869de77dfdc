//! The embedded backend: one redb file, and the whole tree in memory for reading.
//!
//! One thread takes all queued multis, checks and applies them in order, writes what came out in one durable
//! commit, then publishes it to readers and answers. So a thousand offset commits cost one sync.
//!
//! The table `nodes` maps a path to: version i32 big-endian, then the data.

use std::collections::VecDeque;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{broadcast, oneshot, watch};

use super::tree::{Overlay, Tree};
use super::{Change, Lease, MetaError, Node, Op, Session, SessionState, paths};

const NODES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("nodes");
/// Of the file.
const MODE: u32 = 0o600;
/// One commit takes in so much, bytes: its pages are in memory until it is written.
const COMMIT_BYTES_MAX: usize = 4 << 20;
/// What the file's pages may take in memory, bytes: all reading is done in the tree.
const CACHE_BYTES: usize = 8 << 20;
/// Commits that a slow watcher may lag before it must re-read.
const WATCH_BACKLOG: usize = 1024;

type Reply = oneshot::Sender<Result<(), MetaError>>;

#[derive(Default)]
struct State {
    queued: VecDeque<(Vec<Op>, Reply)>,
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
                state.queued.push_back((ops, reply));
            }
        }
        self.shared.filled.notify_one();
        async move { answer.await.map_err(|_| closed())? }
    }

    pub(super) fn get(&self, path: &str) -> Option<Node> {
        self.shared.tree.read().get(path)
    }

    pub(super) fn children(&self, path: &str) -> Vec<String> {
        self.shared.tree.read().children(path)
    }

    pub(super) fn subtree(&self, path: &str) -> Vec<(String, Node)> {
        self.shared.tree.read().subtree(path)
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

/// Only its owner reads the file: what users log in with is derived from what it holds.
fn keep_private(file: &Path) -> std::io::Result<()> {
    let options = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(MODE)
        .open(file)?;
    if let Err(error) = options.set_permissions(Permissions::from_mode(MODE)) {
        tracing::warn!(file = %file.display(), %error, "others may read the coordination store");
    }
    Ok(())
}

fn load(file: &Path) -> Result<(Database, Tree), redb::Error> {
    keep_private(file)?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(file)?;
    let write = database.begin_write()?;
    write.open_table(NODES)?;
    write.commit()?;
    respell(&database)?;
    let mut tree = Tree::default();
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

/// Puts nodes where their names are spelt as they are now.
fn respell(database: &Database) -> Result<(), redb::Error> {
    let mut moved = Vec::new();
    for entry in database.begin_read()?.open_table(NODES)?.iter()? {
        let (path, value) = entry?;
        let to = paths::respelt(path.value());
        moved.extend(to.map(|to| (path.value().to_owned(), to, value.value().to_vec())));
    }
    if moved.is_empty() {
        return Ok(());
    }
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(NODES)?;
        for (from, to, value) in moved {
            table.remove(from.as_str())?;
            table.insert(to.as_str(), value.as_slice())?;
        }
    }
    write.commit()?;
    Ok(())
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
            take_commit(&mut state.queued)
        };
        let mut batch = Overlay::default();
        let mut answers = Vec::with_capacity(queued.len());
        {
            let tree = shared.tree.read();
            for (ops, reply) in queued {
                let result = batch.add(&tree, &ops);
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
        let changed = shared.tree.write().apply(batch);
        if !changed.is_empty() {
            let _ = shared.changes.send(Change::Paths(changed));
        }
        for (reply, result) in answers {
            let _ = reply.send(result);
        }
    }
}

/// What goes into the next commit: at least one multi.
fn take_commit(queued: &mut VecDeque<(Vec<Op>, Reply)>) -> Vec<(Vec<Op>, Reply)> {
    let mut bytes = 0;
    let fits = |(ops, _): &&(Vec<Op>, Reply)| {
        bytes += ops.iter().map(Op::bytes).sum::<usize>();
        bytes <= COMMIT_BYTES_MAX
    };
    let count = queued.iter().take_while(fits).count().max(1);
    queued.drain(..count.min(queued.len())).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_names_that_were_spelt_otherwise_are_found_under_todays_spelling() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("meta");
        let database = Database::create(&file).unwrap();
        let write = database.begin_write().unwrap();
        let mut table = write.open_table(NODES).unwrap();
        for path in ["/consumers/app-🚀/offsets/t/0-0", "/consumers/ü%2f"] {
            table.insert(path, b"\0\0\0\x03data".as_slice()).unwrap();
        }
        drop(table);
        write.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let (database, tree) = load(&file).unwrap();
            let moved = format!("{}/offsets/t/0-0", paths::group("app-🚀"));
            for path in [&moved, "/consumers/ü%2f"] {
                let node = tree.get(path).unwrap();
                assert_eq!((node.version, &node.data[..]), (3, b"data".as_slice()));
            }
            assert_eq!(tree.subtree("/consumers").len(), 2);
            drop(database);
        }
    }

    #[test]
    fn a_commit_takes_in_what_is_queued_up_to_its_bytes_and_always_one() {
        let multi = |bytes: usize| {
            let put = Op::Put {
                path: String::new(),
                data: vec![0; bytes].into(),
                ephemeral: false,
            };
            (vec![put], oneshot::channel().0)
        };
        let sizes = [1, 1 << 20, 2 << 20, 3 << 20, 5 << 20, 1];
        let mut queued: VecDeque<_> = sizes.into_iter().map(multi).collect();
        let mut taken = Vec::new();
        while !queued.is_empty() {
            taken.push(take_commit(&mut queued).len());
        }
        assert_eq!(taken, [3, 1, 1, 1]);
    }
}
