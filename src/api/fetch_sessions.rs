//! Incremental fetch sessions (KIP-227; Kafka's FetchSessionCache and FetchManager): the broker remembers what a
//! client fetches, so that requests and answers name only what changed.
//!
//! Bounded by `max.incremental.fetch.session.cache.slots`. When it is full, a session that was not used for two
//! minutes gives way; otherwise the newcomer fetches without a session, unless it is a follower, to which any consumer's session
//! gives way (Kafka's privileged sessions). What all sessions together remember is bounded in bytes too. Each session has its own lock; the one over all of them is held for a look-up only.
//!
//! The session of a follower waits for its partitions through all of its fetches: a fetch looks only at those that moved since
//! they were read last, and at those of which more is due ([`SessionWatch`]).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use super::fetch_line::{Line, PartitionFetch, PartitionKey};
use crate::cluster::TOPIC_NAME_BYTES_MAX;
use crate::partition::{FetchWaiter, Partition, SessionClock};

/// A session unused for this long may be evicted (Kafka's MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS).
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// What all sessions of consumers together remember, bytes; who would go beyond fetches without a session. About 50,000 partitions.
const BYTES_MAX: usize = 16 << 20;
/// The same of followers. About 200,000 partitions.
const FOLLOWERS_BYTES_MAX: usize = 64 << 20;

/// What a fetch request is.
pub(super) enum FetchKind {
    /// Everything is named, nothing is remembered; the answer names everything under this session id.
    Full(i32),
    /// The answer names changes only.
    Incremental(i32),
}

/// Why a session cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionError {
    NotFound,
    WrongEpoch,
    TopicIds,
}

/// What an answer says of a partition, and whether there are records in it.
pub(super) struct LastSent {
    pub(super) key: PartitionKey,
    pub(super) ends: (i64, i64),
    pub(super) records: bool,
}

/// What a request is to be answered from.
pub(super) struct Begun {
    pub(super) kind: FetchKind,
    /// What is to be read: all of the session, of a follower's session what may give something.
    pub(super) wanted: Vec<PartitionFetch>,
    /// Of a follower's session.
    pub(super) watch: Option<SessionWatch>,
}

/// The broker that fetches as a follower, and its registration.
pub(super) type FollowerId = (i32, i64);

/// A request's session and what it names.
pub(super) struct SessionRequest<'a> {
    pub(super) id: i32,
    pub(super) epoch: i32,
    pub(super) by_id: bool,
    pub(super) named: Vec<PartitionFetch>,
    pub(super) forgotten: &'a [PartitionKey],
    pub(super) follower: Option<FollowerId>,
}

struct Session {
    epoch: i32,
    by_id: bool,
    line: Line,
    watcher: Option<Watcher>,
}

/// How a follower's session hears what moved.
#[derive(Clone)]
struct Watcher {
    follower: FollowerId,
    clock: Arc<SessionClock>,
    waiter: Arc<FetchWaiter>,
}

impl Watcher {
    fn new(follower: FollowerId) -> Self {
        Self {
            follower,
            clock: Arc::new(SessionClock::new(tokio::time::Instant::now())),
            waiter: Arc::default(),
        }
    }

    /// For a request that looks at those slots.
    fn watch(&self, session: &Arc<Mutex<Session>>, unread: BTreeSet<usize>) -> SessionWatch {
        SessionWatch {
            session: session.clone(),
            watcher: self.clone(),
            unread,
        }
    }
}

/// A fetch in a follower's session: which partitions it is to look at. Those that it does not call read are looked at by the
/// session's next fetch again.
pub(super) struct SessionWatch {
    session: Arc<Mutex<Session>>,
    watcher: Watcher,
    unread: BTreeSet<usize>,
}

impl SessionWatch {
    /// The clock of the session.
    pub(super) fn clock(&self) -> &Arc<SessionClock> {
        &self.watcher.clock
    }

    /// From now on the session hears when the partition of a slot moves.
    pub(super) fn watch(&self, slot: usize, partition: &Arc<Partition>) {
        let line = &mut self.session.lock().line;
        line.watch(slot, partition, &self.watcher.waiter);
    }

    /// Waits until partitions are to be looked at; what is wanted of them.
    pub(super) async fn moved(&mut self) -> Vec<PartitionFetch> {
        let moved = self.watcher.waiter.moved().await;
        self.unread.extend(&moved);
        self.session.lock().line.of(moved)
    }

    /// The partition of a slot gives nothing more until it moves.
    pub(super) fn is_read(&mut self, slot: usize) {
        self.unread.remove(&slot);
    }
}

impl Drop for SessionWatch {
    fn drop(&mut self) {
        for slot in &self.unread {
            self.watcher.waiter.note(*slot);
        }
    }
}

/// A session in the cache.
struct CachedSession {
    session: Arc<Mutex<Session>>,
    used: Instant,
    bytes: usize,
    is_followers: bool,
}

/// A figure of the sessions of consumers, and of those of followers.
#[derive(Default)]
struct ByKind {
    consumers: usize,
    followers: usize,
}

impl ByKind {
    fn of(&self, is_followers: bool) -> usize {
        match is_followers {
            true => self.followers,
            false => self.consumers,
        }
    }

    fn of_mut(&mut self, is_followers: bool) -> &mut usize {
        match is_followers {
            true => &mut self.followers,
            false => &mut self.consumers,
        }
    }
}

#[derive(Default)]
struct Cache {
    slots: HashMap<i32, CachedSession>,
    /// Sums over the slots.
    bytes: ByKind,
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            *self.bytes.of_mut(slot.is_followers) -= slot.bytes;
        }
    }

    /// Notes how large a session is by now; false when that is too much.
    fn resize(&mut self, id: i32, bytes: usize, bytes_max: &ByKind) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else {
            return false;
        };
        let all = self.bytes.of_mut(slot.is_followers);
        *all = *all - slot.bytes + bytes;
        slot.bytes = bytes;
        *all <= bytes_max.of(slot.is_followers)
    }

    /// The session that gives way to another one: the one that was not used for longest, if that is long.
    fn evictable(&self, to_follower: bool) -> Option<i32> {
        let oldest = |only_consumers: bool| {
            let slots = self.slots.iter();
            let slots = slots.filter(|(_, slot)| !only_consumers || !slot.is_followers);
            slots.min_by_key(|(_, slot)| slot.used)
        };
        let unused = oldest(false).filter(|(_, slot)| slot.used.elapsed() >= EVICTION_AGE);
        let evictable = unused.or_else(|| oldest(true).filter(|_| to_follower));
        evictable.map(|(id, _)| *id)
    }
}

/// All sessions.
pub struct FetchSessions {
    slots: usize,
    bytes_max: ByKind,
    cache: Mutex<Cache>,
}

impl FetchSessions {
    /// At most `slots` sessions.
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            bytes_max: ByKind {
                consumers: BYTES_MAX,
                followers: FOLLOWERS_BYTES_MAX,
            },
            cache: Mutex::default(),
        }
    }

    /// Forgets a session of which nothing was told to anybody.
    pub(super) fn end(&self, id: i32) {
        self.cache.lock().remove(id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.cache.lock().slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a request's session; says what is to be read, each partition once.
    pub(super) fn begin(&self, request: SessionRequest<'_>) -> Result<Begun, SessionError> {
        // What no topic can be called is answered, but not remembered.
        let is_possible = |wanted: &PartitionFetch| wanted.key.topic.len() <= TOPIC_NAME_BYTES_MAX;
        let are_possible = request.named.iter().all(is_possible);
        if [EPOCH_INITIAL, EPOCH_FINAL].contains(&request.epoch) {
            let is_kept = request.epoch == EPOCH_INITIAL && are_possible;
            return Ok(self.begin_full(request, is_kept));
        }
        let id = request.id;
        if !are_possible {
            self.cache.lock().remove(id);
        }
        let session = self.find(id).ok_or(SessionError::NotFound)?;
        let (begun, bytes, changed) = go_on(&session, request)?;
        match bytes {
            0 => self.cache.lock().remove(id),
            _ if changed => {
                let mut cache = self.cache.lock();
                if !cache.resize(id, bytes, &self.bytes_max) {
                    // The client begins anew, without a session.
                    cache.remove(id);
                    return Err(SessionError::NotFound);
                }
            }
            _ => {}
        }
        Ok(begun)
    }

    fn begin_full(&self, request: SessionRequest<'_>, is_kept: bool) -> Begun {
        let line: Line = request.named.into_iter().collect();
        let wanted = line.all();
        let mut cache = self.cache.lock();
        cache.remove(request.id);
        let session = Session {
            epoch: 1,
            by_id: request.by_id,
            line,
            watcher: request.follower.map(Watcher::new),
        };
        let watcher = session.watcher.clone();
        let created = is_kept.then(|| self.create(&mut cache, session)).flatten();
        let Some((id, session)) = created else {
            return Begun {
                kind: FetchKind::Full(0),
                wanted,
                watch: None,
            };
        };
        let unread = wanted.iter().map(|wanted| wanted.slot).collect();
        let watcher = watcher.filter(|_| !wanted.is_empty());
        Begun {
            kind: FetchKind::Full(id),
            wanted,
            watch: watcher.map(|watcher| watcher.watch(&session, unread)),
        }
    }

    /// Remembers what an answer says; partitions with records go to the end of the line.
    pub(super) fn note_sent(&self, session_id: i32, answers: &[LastSent]) {
        let Some(session) = self.find(session_id) else {
            return;
        };
        let line = &mut session.lock().line;
        for LastSent { key, ends, records } in answers {
            line.note_sent(key, *ends, *records);
        }
    }

    fn find(&self, session_id: i32) -> Option<Arc<Mutex<Session>>> {
        let mut cache = self.cache.lock();
        let slot = cache.slots.get_mut(&session_id)?;
        slot.used = Instant::now();
        Some(slot.session.clone())
    }

    fn create(&self, cache: &mut Cache, session: Session) -> Option<(i32, Arc<Mutex<Session>>)> {
        let bytes = session.line.bytes();
        let is_followers = session.watcher.is_some();
        let has_room =
            |cache: &Cache| cache.bytes.of(is_followers) + bytes <= self.bytes_max.of(is_followers);
        if cache.slots.len() >= self.slots || !has_room(cache) {
            let evicted = cache.evictable(is_followers)?;
            cache.remove(evicted);
            if !has_room(cache) {
                return None;
            }
        }
        let id = loop {
            let id = (Uuid::new_v4().as_u128() as i32) & i32::MAX;
            if id != 0 && !cache.slots.contains_key(&id) {
                break id;
            }
        };
        let session = Arc::new(Mutex::new(session));
        let slot = CachedSession {
            session: session.clone(),
            used: Instant::now(),
            bytes,
            is_followers,
        };
        cache.slots.insert(id, slot);
        *cache.bytes.of_mut(is_followers) += bytes;
        Some((id, session))
    }
}

/// Goes on with a session; its bytes, 0 when nothing is wanted any more, and whether they changed.
fn go_on(
    shared: &Arc<Mutex<Session>>,
    request: SessionRequest<'_>,
) -> Result<(Begun, usize, bool), SessionError> {
    let mut session = shared.lock();
    if session.epoch != request.epoch {
        return Err(SessionError::WrongEpoch);
    }
    if session.by_id != request.by_id {
        return Err(SessionError::TopicIds);
    }
    session.epoch = next_epoch(request.epoch);
    let before = session.line.bytes();
    for key in request.forgotten {
        session.line.remove(key);
    }
    // What is named and forgotten in one request is forgotten (FetchSession.update).
    let forgotten: HashSet<&PartitionKey> = request.forgotten.iter().collect();
    let named = request.named.into_iter();
    let named = named.filter(|new| !forgotten.contains(&new.key));
    let named: Vec<usize> = named.map(|new| session.line.put(new)).collect();
    let kind = FetchKind::Incremental(request.id);
    let watcher = session.watcher.clone().filter(|watcher| {
        // Another one that goes on with a follower's session learns nothing of it that the follower must hear.
        Some(watcher.follower) == request.follower && !session.line.is_empty()
    });
    let begun = match watcher {
        Some(watcher) => {
            watcher.clock.fetched(tokio::time::Instant::now());
            let mut unread = watcher.waiter.take_moved();
            unread.extend(named);
            Begun {
                kind,
                wanted: session.line.of(unread.iter().copied()),
                watch: Some(watcher.watch(shared, unread)),
            }
        }
        None => Begun {
            kind,
            wanted: session.line.all(),
            watch: None,
        },
    };
    let bytes = session.line.bytes();
    Ok((begun, bytes, bytes != before))
}

/// Begins a session, and ends one (Kafka's FetchMetadata); all others go on with one.
const EPOCH_INITIAL: i32 = 0;
const EPOCH_FINAL: i32 = -1;

/// Epochs count from 1 and wrap there.
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests;
