//! What several brokers see of one ZooKeeper: a tree that they share, each over a server that may lag, and a session each,
//! which ends when nothing was heard of it for its timeout.
//!
//! - A server answers reads from what it has applied so far; its client never sees less than what it wrote itself, and
//!   `sync` waits for all that was written before. Events come when the server applies a change, in its order.
//! - The way to a server may be cut: the session is suspended, changes wait, and go on when the way is there again. Or the
//!   server lags for as long: reads are answered, nothing else is, and the broker is not told.
//! - A lease is three quarters of the timeout from when a heartbeat was sent that was answered, as over ZooKeeper.
//! - A broker that is killed leaves its session, which expires; the next run has another one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metaq::coordinator::Slot;
use metaq::meta::records::{PartitionStatesRecord, SlotRecord, TopicRecord, decode};
use metaq::meta::{
    Answer, Change, Lease, MetaError, MetaStore, Node, Op, Overlay, Session, SessionState, Store,
    Tree, paths,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::history::Place;
use super::random::Random;
use super::store::Mood;

/// After so long without a heartbeat a session is over.
pub const SESSION_TIMEOUT: Duration = Duration::from_millis(1000);
const HEARTBEAT: Duration = Duration::from_millis(80);
/// How long a broker that starts waits for a session.
const CONNECT_MAX: Duration = Duration::from_millis(300);
/// Hosts run one after the other, a tick each, so their clocks differ by as much.
const CLOCKS_MS: u64 = 25;
/// Changes that a slow watcher may lie behind.
const BACKLOG: usize = 1024;

/// How a broker reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Nothing goes through, and the broker knows.
    Cut,
    /// The server is cut off from the others and lags.
    Lagging,
}

/// The shared tree; clones share it.
#[derive(Clone)]
pub struct Ensemble {
    state: Arc<Mutex<State>>,
    /// How many changes there are.
    grown: Arc<watch::Sender<usize>>,
    /// Told when a way is another one.
    ways: Arc<watch::Sender<u64>>,
}

/// What one multi did: paths, and what is there now.
type Transaction = Arc<[(String, Option<Node>)]>;

struct State {
    tree: Tree,
    log: Vec<Transaction>,
    /// Sessions that are there, by number, and when each was heard of, ms.
    heard: BTreeMap<u64, u64>,
    /// Whose ephemerals are where.
    owners: BTreeMap<String, u64>,
    next_session: u64,
    ways: Vec<Way>,
    moods: Vec<Mood>,
    random: Random,
    /// How many sessions were over because nothing was heard of them.
    expired: u64,
    /// What stood at some paths, and from when on, ms.
    past: BTreeMap<String, Vec<(u64, Option<Node>)>>,
}

fn now_ms() -> u64 {
    turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64
}

fn unavailable(why: &str) -> MetaError {
    MetaError::Unavailable(why.to_owned())
}

/// Paths whose past is asked about.
fn is_remembered(path: &str) -> bool {
    [paths::BROKERS, paths::TOPICS, paths::COORDINATORS]
        .into_iter()
        .chain([paths::CONTROLLER_EPOCH])
        .any(|root| paths::is_at_or_below(path, root))
}

impl State {
    fn commit(&mut self, at_ms: u64, session: Option<u64>, ops: &[Op]) -> Result<(), MetaError> {
        let mut overlay = Overlay::default();
        overlay.add(&self.tree, ops)?;
        let changed = self.tree.apply(overlay);
        for op in ops {
            let (Op::Create {
                path, ephemeral, ..
            }
            | Op::Put {
                path, ephemeral, ..
            }) = op
            else {
                continue;
            };
            match (ephemeral, session) {
                (true, Some(session)) => self.owners.insert(path.clone(), session),
                _ => self.owners.remove(path),
            };
        }
        let now = changed
            .iter()
            .map(|path| (path.clone(), self.tree.get(path)));
        let transaction: Transaction = now.collect();
        for (path, node) in transaction.iter() {
            if node.is_none() {
                self.owners.remove(path);
            }
            if is_remembered(path) {
                let past = self.past.entry(path.clone()).or_default();
                past.push((at_ms, node.clone()));
            }
        }
        if !transaction.is_empty() {
            self.log.push(transaction);
        }
        Ok(())
    }

    fn end_session(&mut self, at_ms: u64, session: u64) {
        if self.heard.remove(&session).is_none() {
            return;
        }
        let own = self.owners.iter().filter(|(_, owner)| **owner == session);
        let gone: Vec<Op> = own.map(|(path, _)| Op::delete_tree(path)).collect();
        let ended = self.commit(at_ms, None, &gone);
        ended.expect("trees can always be deleted");
    }

    fn delay(&mut self, broker: usize) -> Duration {
        let delay_ms_max = self.moods[broker].delay_ms_max;
        Duration::from_millis(self.random.below(delay_ms_max + 1))
    }
}

impl Ensemble {
    pub fn new(brokers: usize, random: Random) -> Self {
        let state = State {
            tree: Tree::default(),
            log: Vec::new(),
            heard: BTreeMap::new(),
            owners: BTreeMap::new(),
            next_session: 1,
            ways: vec![Way::Open; brokers],
            moods: vec![Mood::default(); brokers],
            random,
            expired: 0,
            past: BTreeMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            grown: Arc::new(watch::Sender::new(0)),
            ways: Arc::new(watch::Sender::new(0)),
        }
    }

    pub fn behave(&self, broker: usize, mood: Mood) {
        self.state.lock().moods[broker] = mood;
    }

    pub fn lead(&self, broker: usize, way: Way) {
        self.state.lock().ways[broker] = way;
        self.ways.send_modify(|changes| *changes += 1);
    }

    /// Time goes on: sessions of which nothing was heard are over.
    pub fn pass(&self, now: Duration) {
        let now_ms = now.as_millis() as u64;
        let mut state = self.state.lock();
        let late = |heard: &u64| heard + SESSION_TIMEOUT.as_millis() as u64 <= now_ms;
        let over = state.heard.iter().filter(|(_, heard)| late(heard));
        let over: Vec<u64> = over.map(|(session, _)| *session).collect();
        state.expired += over.len() as u64;
        for session in over {
            state.end_session(now_ms, session);
        }
        let length = state.log.len();
        drop(state);
        self.grew(length);
    }

    /// Whether a node was there, with content that `is` accepts, at some time from `from` to `to`, ms.
    fn was(&self, path: &str, (from, to): (u64, u64), is: impl Fn(&Node) -> bool) -> bool {
        let state = self.state.lock();
        let Some(past) = state.past.get(path) else {
            return false;
        };
        let ends = past.iter().skip(1).map(|(at, _)| *at);
        let ends = ends.chain([u64::MAX - CLOCKS_MS]);
        past.iter().zip(ends).any(|((begin, node), end)| {
            let meets = *begin <= to + CLOCKS_MS && end + CLOCKS_MS >= from;
            meets && node.as_ref().is_some_and(&is)
        })
    }

    /// What happened, in numbers, for the trace.
    pub fn summary(&self, group: &str) -> String {
        let state = self.state.lock();
        let changes = |path: &str| state.past.get(path).map_or(0, Vec::len);
        let moved = changes(&paths::coordinator_slot(Slot::of(group).number()));
        let topics = format!("{}/", paths::TOPICS);
        let topics = state.past.keys().filter(|path| path.starts_with(&topics));
        let made: usize = topics.map(|path| changes(path)).sum();
        format!(
            "in the store: {} sessions expired, the group was given away {moved} times, {} elections, {made} topics made or deleted",
            state.expired,
            changes(paths::CONTROLLER_EPOCH),
        )
    }

    /// Whether a broker led a partition at some time in between, ms: by its state, or while it has none as its first replica.
    pub fn led(&self, broker: usize, (topic, index): Place, span: (u64, u64)) -> bool {
        let states = paths::partition_states_from(topic, 0);
        let leader_in = |node: &Node| -> Option<i32> {
            let record: PartitionStatesRecord = decode(&states, &node.data).ok()?;
            Some(record.partitions.get(&index)?.leader)
        };
        let is_leader = |node: &Node| leader_in(node) == Some(broker as i32);
        if self.was(&states, span, is_leader) {
            return true;
        }
        let has_state = {
            let state = self.state.lock();
            let first = state.past.get(&states).and_then(|past| past.first());
            first.is_some_and(|(at, _)| *at + CLOCKS_MS < span.0)
        };
        let is_without = |node: &Node| leader_in(node).is_none();
        if has_state && !self.was(&states, span, is_without) {
            return false;
        }
        let path = paths::topic(topic);
        self.was(&path, span, |node| {
            let record: Option<TopicRecord> = decode(&path, &node.data).ok();
            let partition = record.as_ref().and_then(|record| {
                let index = usize::try_from(index).ok()?;
                record.partitions.get(index)
            });
            partition.is_some_and(|partition| partition.replicas.first() == Some(&(broker as i32)))
        })
    }

    /// Whether a broker was registered at some time in between, ms.
    pub fn was_registered(&self, broker: usize, span: (u64, u64)) -> bool {
        self.was(&paths::broker_master(broker as i32), span, |_| true)
    }

    /// Whether a broker had a slot at some time in between, ms.
    pub fn had_slot(&self, broker: usize, slot: Slot, span: (u64, u64)) -> bool {
        let path = paths::coordinator_slot(slot.number());
        self.was(&path, span, |node| {
            let record: Result<SlotRecord, _> = decode(&path, &node.data);
            record.is_ok_and(|record| record.owner == broker as i32)
        })
    }

    fn grew(&self, length: usize) {
        self.grown.send_if_modified(|known| {
            let is_more = *known < length;
            *known = (*known).max(length);
            is_more
        });
    }

    fn way(&self, broker: usize) -> Way {
        self.state.lock().ways[broker]
    }

    async fn until_open(&self, broker: usize) {
        let mut ways = self.ways.subscribe();
        while self.way(broker) != Way::Open {
            ways.changed().await.expect("the ensemble is there");
        }
    }

    async fn pause(&self, broker: usize) {
        let delay = self.state.lock().delay(broker);
        tokio::time::sleep(delay).await;
    }

    fn happens(&self, broker: usize, one_in: impl Fn(&Mood) -> u64) -> bool {
        let mut state = self.state.lock();
        let n = one_in(&state.moods[broker]);
        n > 0 && state.random.one_in(n)
    }

    /// A broker comes; must be called on its runtime.
    pub async fn open(&self, broker: usize) -> Result<MetaStore, MetaError> {
        tokio::time::timeout(CONNECT_MAX, self.until_open(broker))
            .await
            .map_err(|_| unavailable("not reached"))?;
        let session = Session {
            number: 0,
            state: SessionState::Lost,
        };
        let opened = Arc::new(Opened {
            ensemble: self.clone(),
            broker,
            server: Mutex::default(),
            applied: watch::Sender::new(0),
            queued: Mutex::default(),
            filled: Notify::new(),
            changes: broadcast::channel(BACKLOG).0,
            session: watch::Sender::new(session),
            id: AtomicU64::new(0),
            lease: Arc::new(Lease::on_clock(|| now_ms() as i64)),
        });
        opened.begin();
        tokio::spawn(keep(opened.clone()));
        tokio::spawn(work(opened.clone()));
        tokio::spawn(follow(opened.clone()));
        Ok(MetaStore::over(Arc::new(Client(opened))))
    }
}

type Reply = oneshot::Sender<Result<(), MetaError>>;

/// What a broker's server has applied.
#[derive(Default)]
struct Server {
    tree: Tree,
    applied: usize,
}

/// A broker's way to its server.
struct Opened {
    ensemble: Ensemble,
    broker: usize,
    server: Mutex<Server>,
    applied: watch::Sender<usize>,
    queued: Mutex<VecDeque<(Vec<Op>, Reply)>>,
    filled: Notify,
    changes: broadcast::Sender<Change>,
    session: watch::Sender<Session>,
    /// Its number among all sessions.
    id: AtomicU64,
    lease: Arc<Lease>,
}

impl Opened {
    /// A new session, with a server that knows everything.
    fn begin(&self) {
        let now_ms = now_ms();
        let mut state = self.ensemble.state.lock();
        let id = state.next_session;
        state.next_session += 1;
        state.heard.insert(id, now_ms);
        let applied = state.log.len();
        let mut server = self.server.lock();
        for transaction in &state.log[server.applied..] {
            apply(&mut server.tree, transaction);
        }
        server.applied = applied;
        drop((server, state));
        self.id.store(id, Ordering::Relaxed);
        let number = self.session.borrow().number + 1;
        self.lease.begin(number);
        self.extend_lease(now_ms);
        self.applied.send_replace(applied);
        self.session.send_replace(Session {
            number,
            state: SessionState::Connected,
        });
        let _ = self.changes.send(Change::Everything);
    }

    fn extend_lease(&self, sent_ms: u64) {
        let held_ms = SESSION_TIMEOUT.as_millis() as u64 * 3 / 4;
        self.lease.extend_to((sent_ms + held_ms) as i64);
    }

    fn state(&self) -> SessionState {
        self.session.borrow().state
    }

    fn become_state(&self, state: SessionState) {
        self.session.send_if_modified(|session| {
            let is_new = session.state != state && session.state != SessionState::Closed;
            if is_new {
                session.state = state;
            }
            is_new
        });
    }

    /// Whether the session is there, by which something is heard of it.
    fn hear(&self) -> bool {
        let mut state = self.ensemble.state.lock();
        let heard = state.heard.get_mut(&self.id.load(Ordering::Relaxed));
        heard.map(|heard| *heard = now_ms()).is_some()
    }

    fn lose(&self) {
        self.lease.end();
        self.become_state(SessionState::Lost);
        for (_, reply) in self.queued.lock().drain(..) {
            let _ = reply.send(Err(unavailable("the session is lost")));
        }
    }

    /// Applies what there is up to a number of changes, and tells of it.
    fn catch_up(&self, to: usize) {
        let state = self.ensemble.state.lock();
        let mut server = self.server.lock();
        let to = to.min(state.log.len());
        if to <= server.applied {
            return;
        }
        let new: Vec<Transaction> = state.log[server.applied..to].to_vec();
        for transaction in &new {
            apply(&mut server.tree, transaction);
        }
        server.applied = to;
        drop((server, state));
        self.applied.send_replace(to);
        for transaction in new {
            let paths = transaction.iter().map(|(path, _)| path.clone());
            let _ = self.changes.send(Change::Paths(paths.collect()));
        }
    }

    /// Waits until there is a session; fails when it is lost, or does not come in time.
    async fn connected(&self) -> Result<(), MetaError> {
        let mut session = self.session.subscribe();
        let decided = session.wait_for(|session| session.state != SessionState::Suspended);
        let decided = tokio::time::timeout(SESSION_TIMEOUT, decided).await;
        match decided {
            Ok(Ok(session)) if session.state == SessionState::Connected => Ok(()),
            _ => Err(unavailable("there is no session")),
        }
    }

    /// Waits until the server has applied so much, in the session that there is.
    async fn until_applied(&self, length: usize) -> Result<(), MetaError> {
        let number = self.session.borrow().number;
        let mut applied = self.applied.subscribe();
        let mut session = self.session.subscribe();
        let over = |session: &Session| {
            session.number != number
                || matches!(session.state, SessionState::Lost | SessionState::Closed)
        };
        tokio::select! {
            _ = applied.wait_for(|applied| *applied >= length) => Ok(()),
            _ = session.wait_for(over) => Err(unavailable("the session is lost")),
        }
    }

    async fn sync(&self) -> Result<(), MetaError> {
        self.connected().await?;
        self.ensemble.pause(self.broker).await;
        let synced = async {
            self.ensemble.until_open(self.broker).await;
            let length = self.ensemble.state.lock().log.len();
            self.until_applied(length).await
        };
        tokio::time::timeout(SESSION_TIMEOUT, synced)
            .await
            .map_err(|_| unavailable("not answered in time"))?
    }

    async fn read<T>(&self, read: impl FnOnce(&Tree) -> T) -> Result<T, MetaError> {
        self.connected().await?;
        if self
            .ensemble
            .happens(self.broker, |mood| mood.refuses_one_in)
        {
            return Err(unavailable("refused"));
        }
        self.ensemble.pause(self.broker).await;
        Ok(read(&self.server.lock().tree))
    }
}

fn apply(tree: &mut Tree, transaction: &Transaction) {
    for (path, node) in transaction.iter() {
        match node {
            Some(node) => tree.insert(path.clone(), node.clone()),
            None => {
                let mut overlay = Overlay::default();
                let gone = overlay.add(tree, &[Op::delete_tree(path)]);
                gone.expect("trees can always be deleted");
                tree.apply(overlay);
            }
        }
    }
}

/// Keeps the session: heartbeats, suspension, loss, and the next one.
async fn keep(opened: Arc<Opened>) {
    let (ensemble, broker) = (&opened.ensemble, opened.broker);
    let mut ways = ensemble.ways.subscribe();
    while opened.state() != SessionState::Closed {
        if ensemble.way(broker) == Way::Open {
            let sent_ms = now_ms();
            ensemble.pause(broker).await;
            let is_open = ensemble.way(broker) == Way::Open;
            if is_open && !opened.hear() {
                opened.lose();
                let pause = ensemble.state.lock().random.between(20, 300);
                tokio::time::sleep(Duration::from_millis(pause as u64)).await;
                ensemble.until_open(broker).await;
                if opened.state() != SessionState::Closed {
                    opened.begin();
                }
                continue;
            }
            ensemble.pause(broker).await;
            if is_open && ensemble.way(broker) == Way::Open {
                opened.extend_lease(sent_ms);
                if opened.state() == SessionState::Suspended {
                    opened.become_state(SessionState::Connected);
                    let _ = opened.changes.send(Change::Everything);
                }
            }
        }
        if ensemble.way(broker) == Way::Cut {
            opened.become_state(SessionState::Suspended);
        }
        let _ = tokio::time::timeout(HEARTBEAT, ways.changed()).await;
    }
}

/// The server applies what was changed, sooner or later.
async fn follow(opened: Arc<Opened>) {
    let (ensemble, broker) = (&opened.ensemble, opened.broker);
    let mut grown = ensemble.grown.subscribe();
    loop {
        let length = *grown.borrow_and_update();
        ensemble.pause(broker).await;
        ensemble.until_open(broker).await;
        opened.catch_up(length);
        if grown.changed().await.is_err() {
            return;
        }
    }
}

/// Makes changes in the order in which they came.
async fn work(opened: Arc<Opened>) {
    let (ensemble, broker) = (&opened.ensemble, opened.broker);
    loop {
        opened.filled.notified().await;
        ensemble.pause(broker).await;
        ensemble.until_open(broker).await;
        let queued = std::mem::take(&mut *opened.queued.lock());
        for (ops, reply) in queued {
            // The server refuses what comes in a session that is over; the broker learns of it by its next heartbeat.
            let id = opened.id.load(Ordering::Relaxed);
            let refused = ensemble.happens(broker, |mood| mood.refuses_one_in);
            let mut state = ensemble.state.lock();
            if refused || !state.heard.contains_key(&id) {
                let _ = reply.send(Err(unavailable("refused")));
                continue;
            }
            let result = state.commit(now_ms(), Some(id), &ops);
            let length = state.log.len();
            drop(state);
            ensemble.grew(length);
            let is_silent = ensemble.happens(broker, |mood| mood.silent_one_in);
            let waiting = opened.clone();
            tokio::spawn(async move {
                let seen = waiting.until_applied(length).await;
                waiting.ensemble.pause(waiting.broker).await;
                let answer = match is_silent {
                    true => Err(unavailable("done, perhaps")),
                    false => seen.and(result),
                };
                let _ = reply.send(answer);
            });
        }
    }
}

/// What the broker holds.
struct Client(Arc<Opened>);

impl Store for Client {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn multi(&self, ops: Vec<Op>) -> Answer<()> {
        let (reply, answer) = oneshot::channel();
        match self.0.state() {
            SessionState::Connected | SessionState::Suspended => {
                self.0.queued.lock().push_back((ops, reply))
            }
            SessionState::Lost | SessionState::Closed => {
                let _ = reply.send(Err(unavailable("there is no session")));
            }
        }
        self.0.filled.notify_one();
        Box::pin(async move { answer.await.map_err(|_| unavailable("closed"))? })
    }

    fn get(&self, path: &str) -> Answer<Option<Node>> {
        let (opened, path) = (self.0.clone(), path.to_owned());
        Box::pin(async move { opened.read(|tree| tree.get(&path)).await })
    }

    fn children(&self, path: &str) -> Answer<Vec<String>> {
        let (opened, path) = (self.0.clone(), path.to_owned());
        Box::pin(async move { opened.read(|tree| tree.children(&path)).await })
    }

    fn subtree(&self, path: &str) -> Answer<Vec<(String, Node)>> {
        let (opened, path) = (self.0.clone(), path.to_owned());
        Box::pin(async move {
            opened.sync().await?;
            opened.read(|tree| tree.subtree(&path)).await
        })
    }

    fn sync(&self) -> Answer<()> {
        let opened = self.0.clone();
        Box::pin(async move { opened.sync().await })
    }

    fn watch(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.0.session.subscribe()
    }

    fn lease(&self) -> &Arc<Lease> {
        &self.0.lease
    }

    fn close(&self) -> Answer<()> {
        let opened = self.0.clone();
        opened.become_state(SessionState::Closed);
        let id = opened.id.load(Ordering::Relaxed);
        let mut state = opened.ensemble.state.lock();
        // Where it is not reached, it is left to expire.
        if state.ways[opened.broker] == Way::Open {
            state.end_session(now_ms(), id);
        }
        let length = state.log.len();
        drop(state);
        opened.ensemble.grew(length);
        Box::pin(std::future::ready(Ok(())))
    }
}
