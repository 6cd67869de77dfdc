//! A coordination store in memory that outlives the broker: it is slow, refuses, keeps the answer to what it did to
//! itself, and loses sessions.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metaq::meta::{
    Answer, Change, Lease, MetaError, Node, Op, Overlay, Session, SessionState, Store, Tree,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::random::Random;

/// Changes that a slow watcher may lie behind.
const BACKLOG: usize = 1024;

/// How it behaves at the moment.
#[derive(Clone, Copy, Default)]
pub struct Mood {
    /// A call takes up to so long.
    pub delay_ms_max: u64,
    /// One call in so many is refused; 0 for none.
    pub refuses_one_in: u64,
    /// One change in so many is made, but not answered; 0 for none.
    pub silent_one_in: u64,
}

/// What is kept while brokers come and go; clones share it.
#[derive(Clone)]
pub struct Kept {
    state: Arc<Mutex<State>>,
}

struct State {
    tree: Tree,
    random: Random,
    mood: Mood,
    /// The session of the broker that is there.
    session: Option<Arc<Opened>>,
}

type Reply = oneshot::Sender<Result<(), MetaError>>;

/// A broker's way to the store.
struct Opened {
    kept: Kept,
    queued: Mutex<VecDeque<(Vec<Op>, Reply)>>,
    filled: Notify,
    changes: broadcast::Sender<Change>,
    session: watch::Sender<Session>,
    lease: Arc<Lease>,
}

fn unavailable(why: &str) -> MetaError {
    MetaError::Unavailable(why.to_owned())
}

impl Kept {
    pub fn new(random: Random) -> Self {
        let state = State {
            tree: Tree::default(),
            random,
            mood: Mood::default(),
            session: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn behave(&self, mood: Mood) {
        self.state.lock().mood = mood;
    }

    /// A broker comes; must be called on its runtime. What an earlier one held is gone.
    pub fn open(&self) -> Arc<dyn Store> {
        let session = Session {
            number: 1,
            state: SessionState::Connected,
        };
        let opened = Arc::new(Opened {
            kept: self.clone(),
            queued: Mutex::default(),
            filled: Notify::new(),
            changes: broadcast::channel(BACKLOG).0,
            session: watch::Sender::new(session),
            lease: Arc::new(Lease::forever()),
        });
        let mut state = self.state.lock();
        state.tree.drop_ephemerals();
        state.session = Some(opened.clone());
        drop(state);
        tokio::spawn(work(opened.clone()));
        opened
    }

    /// The session of the broker that is there ends; it has no other one until [`Self::connect`].
    pub fn lose_session(&self) {
        let mut state = self.state.lock();
        let Some(opened) = state.session.clone() else {
            return;
        };
        let gone = state.tree.drop_ephemerals();
        drop(state);
        opened.lease.begin(opened.session.borrow().number + 1);
        opened.session.send_modify(|session| {
            session.state = SessionState::Lost;
        });
        for (_, reply) in opened.queued.lock().drain(..) {
            let _ = reply.send(Err(unavailable("the session is lost")));
        }
        let _ = opened.changes.send(Change::Paths(gone));
    }

    /// A new session for the broker that is there.
    pub fn connect(&self) {
        let Some(opened) = self.state.lock().session.clone() else {
            return;
        };
        opened.session.send_modify(|session| {
            if session.state == SessionState::Lost {
                session.number += 1;
                session.state = SessionState::Connected;
            }
        });
        let _ = opened.changes.send(Change::Everything);
    }

    /// The broker is gone.
    pub fn forget(&self) {
        self.state.lock().session = None;
    }

    fn delay(&self) -> Duration {
        let mut state = self.state.lock();
        let delay_ms_max = state.mood.delay_ms_max;
        Duration::from_millis(state.random.below(delay_ms_max + 1))
    }

    fn happens(&self, one_in: impl Fn(&Mood) -> u64) -> bool {
        let mut state = self.state.lock();
        let n = one_in(&state.mood);
        n > 0 && state.random.one_in(n)
    }
}

/// Makes changes in the order in which they came.
async fn work(opened: Arc<Opened>) {
    loop {
        opened.filled.notified().await;
        tokio::time::sleep(opened.kept.delay()).await;
        let queued = std::mem::take(&mut *opened.queued.lock());
        for (ops, reply) in queued {
            if opened.kept.happens(|mood| mood.refuses_one_in) {
                let _ = reply.send(Err(unavailable("refused")));
                continue;
            }
            let mut overlay = Overlay::default();
            let mut state = opened.kept.state.lock();
            let result = overlay.add(&state.tree, &ops);
            let changed = state.tree.apply(overlay);
            drop(state);
            if !changed.is_empty() {
                let _ = opened.changes.send(Change::Paths(changed));
            }
            let answer = match opened.kept.happens(|mood| mood.silent_one_in) {
                true => Err(unavailable("done, perhaps")),
                false => result,
            };
            let delay = opened.kept.delay();
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = reply.send(answer);
            });
        }
    }
}

impl Opened {
    fn is_connected(&self) -> bool {
        self.session.borrow().state == SessionState::Connected
    }

    /// Reads from the tree a little later.
    fn read<T, R>(&self, read: R) -> impl Future<Output = Result<T, MetaError>> + Send + use<T, R>
    where
        T: Send + 'static,
        R: FnOnce(&Tree) -> T + Send + 'static,
    {
        let kept = self.kept.clone();
        let refused = !self.is_connected() || kept.happens(|mood| mood.refuses_one_in);
        async move {
            tokio::time::sleep(kept.delay()).await;
            match refused {
                true => Err(unavailable("refused")),
                false => Ok(read(&kept.state.lock().tree)),
            }
        }
    }
}

impl Store for Opened {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn multi(&self, ops: Vec<Op>) -> Answer<()> {
        let (reply, answer) = oneshot::channel();
        match self.is_connected() {
            true => self.queued.lock().push_back((ops, reply)),
            false => {
                let _ = reply.send(Err(unavailable("there is no session")));
            }
        }
        self.filled.notify_one();
        Box::pin(async move { answer.await.map_err(|_| unavailable("closed"))? })
    }

    fn get(&self, path: &str) -> Answer<Option<Node>> {
        let path = path.to_owned();
        Box::pin(self.read(move |tree| tree.get(&path)))
    }

    fn children(&self, path: &str) -> Answer<Vec<String>> {
        let path = path.to_owned();
        Box::pin(self.read(move |tree| tree.children(&path)))
    }

    fn subtree(&self, path: &str) -> Answer<Vec<(String, Node)>> {
        let path = path.to_owned();
        Box::pin(self.read(move |tree| tree.subtree(&path)))
    }

    fn sync(&self) -> Answer<()> {
        Box::pin(self.read(|_| ()))
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.session.subscribe()
    }

    fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    fn close(&self) -> Answer<()> {
        self.session.send_modify(|session| {
            session.state = SessionState::Closed;
        });
        self.kept.state.lock().tree.drop_ephemerals();
        Box::pin(std::future::ready(Ok(())))
    }
}
