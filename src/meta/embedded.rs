//! The embedded backend: one file (`node_file`), and the whole tree in memory for reading.
//!
//! One thread takes all queued multis, checks and applies them in order, writes what came out in one durable
//! commit, then publishes it to readers and answers. So a thousand offset commits cost one sync. Changes of transactions are
//! not synced at once where `FlushTransactions` says so.
//!
//! While the file cannot be written, multis are refused and the session is suspended; reads go on.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{broadcast, oneshot, watch};

use super::node_file::{COMMIT_BYTES_MAX, NodeFile};
use super::tree::{Overlay, Tree};
use super::{Change, FlushTransactions, Lease, MetaError, Node, Op, Session, SessionState};

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
    pub(super) fn open(file: &Path, flush: FlushTransactions) -> Result<Self, MetaError> {
        let unavailable =
            |error: redb::Error| MetaError::Unavailable(format!("{}: {error}", file.display()));
        let opened = NodeFile::open(file, flush).and_then(|file| Ok((file.load()?, file)));
        let (tree, opened) = opened.map_err(unavailable)?;
        Self::of(tree, opened)
    }

    fn of(tree: Tree, mut file: NodeFile) -> Result<Self, MetaError> {
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
            let work = AssertUnwindSafe(|| run(&of_thread, &told, &mut file));
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

type Queued = Vec<(Vec<Op>, Reply)>;

fn run(shared: &Shared, session: &watch::Sender<Session>, file: &mut NodeFile) {
    while let Some(queued) = next(shared, file) {
        commit(shared, file, queued);
        file.do_due(&shared.tree.read());
        let state = match file.is_writable() {
            true => SessionState::Connected,
            false => SessionState::Suspended,
        };
        session.send_if_modified(|session| std::mem::replace(&mut session.state, state) != state);
    }
    file.sync();
}

/// What is queued, perhaps nothing where the file has something to do; `None` at the end.
fn next(shared: &Shared, file: &NodeFile) -> Option<Queued> {
    let mut state = shared.state.lock();
    while state.queued.is_empty() {
        if state.stopping {
            return None;
        }
        match file.due_in() {
            None => shared.filled.wait(&mut state),
            Some(wait) if wait.is_zero() => break,
            Some(wait) => {
                shared.filled.wait_for(&mut state, wait);
            }
        }
    }
    Some(take_commit(&mut state.queued))
}

/// Checks and writes what was queued, publishes it and answers.
fn commit(shared: &Shared, file: &mut NodeFile, queued: Queued) {
    let mut batch = Overlay::default();
    let mut answers = Vec::with_capacity(queued.len());
    {
        let tree = shared.tree.read();
        for (ops, reply) in queued {
            let result = batch.add(&tree, &ops);
            answers.push((reply, result));
        }
    }
    match file.commit(&batch) {
        Ok(()) => {
            let changed = shared.tree.write().apply(batch);
            if !changed.is_empty() {
                let _ = shared.changes.send(Change::Paths(changed));
            }
            for (reply, result) in answers {
                let _ = reply.send(result);
            }
        }
        Err(why) => {
            for (reply, _) in answers {
                let _ = reply.send(Err(MetaError::Unavailable(why.clone())));
            }
        }
    }
}

/// What goes into the next commit: at least one multi.
fn take_commit(queued: &mut VecDeque<(Vec<Op>, Reply)>) -> Queued {
    let mut bytes = 0;
    let fits = |(ops, _): &&(Vec<Op>, Reply)| {
        bytes += ops.iter().map(Op::bytes).sum::<usize>();
        bytes <= COMMIT_BYTES_MAX
    };
    let count = queued.iter().take_while(fits).count().max(1);
    queued.drain(..count.min(queued.len())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::meta::node_file::tests::{FailsAfter, on_failing_disk};

    fn put(path: &str) -> Vec<Op> {
        vec![Op::Put {
            path: path.to_owned(),
            data: vec![1; 100].into(),
            ephemeral: false,
        }]
    }

    #[tokio::test]
    async fn a_store_whose_disk_was_full_takes_changes_again_and_says_meanwhile_that_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let fails_after = FailsAfter::new((-1).into());
        let file = on_failing_disk(
            &dir.path().join("meta"),
            FlushTransactions::BeforeAnswer,
            &fails_after,
        );
        let store = Embedded::of(Tree::default(), file).unwrap();
        let mut session = store.session();
        let mut changes = store.watch();
        store.multi(put("/a")).await.unwrap();
        fails_after.store(0, Ordering::Relaxed);
        let refused = store.multi(put("/b")).await;
        assert!(
            matches!(refused, Err(MetaError::Unavailable(_))),
            "{refused:?}"
        );
        let suspended = |session: &Session| session.state == SessionState::Suspended;
        session.wait_for(suspended).await.unwrap();
        assert!(store.get("/a").is_some() && store.get("/b").is_none());
        fails_after.store(-1, Ordering::Relaxed);
        // By itself.
        let connected = |session: &Session| session.state == SessionState::Connected;
        session.wait_for(connected).await.unwrap();
        store.multi(put("/c")).await.unwrap();
        store.close();
        let mut changed = Vec::new();
        while let Ok(Change::Paths(paths)) = changes.try_recv() {
            changed.extend(paths.iter().cloned());
        }
        assert_eq!(changed, ["/a", "/c"]);
        let found = NodeFile::open(&dir.path().join("meta"), FlushTransactions::BeforeAnswer)
            .unwrap()
            .load()
            .unwrap();
        assert!(
            found.get("/a").is_some() && found.get("/b").is_none() && found.get("/c").is_some()
        );
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
