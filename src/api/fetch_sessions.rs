//! Incremental fetch sessions (KIP-227; Kafka's FetchSessionCache and FetchManager): the broker remembers what a
//! client fetches, so that requests and answers name only what changed.
//!
//! Bounded by `max.incremental.fetch.session.cache.slots`. When it is full, a session that was not used for two
//! minutes gives way; otherwise the newcomer fetches without a session, unless it is a follower, to which any consumer's session
//! gives way (Kafka's privileged sessions). What all sessions together remember is bounded in bytes too. Each session has its own lock; the one over all of them is held for a look-up only.
//!
//! The session of a follower waits for its partitions through all of its fetches: a fetch looks only at those that moved since
//! they were read last, and at those of which more is due ([`SessionWatch`]).

use std::collections::{BTreeSet, HashMap};
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
    let named = request.named.into_iter();
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
mod tests {
    use super::super::fetch_line::PARTITION_BYTES;
    use super::*;
    use uuid::Uuid;

    fn key(partition: i32) -> PartitionKey {
        PartitionKey {
            topic: "t".into(),
            topic_id: Uuid::nil(),
            partition,
        }
    }

    fn wanted(partition: i32, fetch_offset: i64) -> PartitionFetch {
        PartitionFetch {
            key: key(partition),
            current_leader_epoch: -1,
            fetch_offset,
            log_start: -1,
            last_fetched_epoch: -1,
            bytes_max: 1,
            last_sent: None,
            slot: 0,
        }
    }

    /// A request of a client that names topics.
    fn request(
        (id, epoch): (i32, i32),
        named: Vec<PartitionFetch>,
        forgotten: &[PartitionKey],
    ) -> SessionRequest<'_> {
        SessionRequest {
            id,
            epoch,
            by_id: false,
            named,
            forgotten,
            follower: None,
        }
    }

    /// The session of an answer that names everything; 0 where there is none.
    fn full(begun: Result<Begun, SessionError>) -> i32 {
        match begun.ok().map(|begun| begun.kind) {
            Some(FetchKind::Full(id)) => id,
            _ => panic!("not a full answer"),
        }
    }

    /// Partitions and offsets that are to be read.
    fn read(begun: &Begun) -> Vec<(i32, i64)> {
        let wanted = begun.wanted.iter();
        wanted
            .map(|wanted| (wanted.key.partition, wanted.fetch_offset))
            .collect()
    }

    #[test]
    fn a_session_remembers_and_forgets_partitions() {
        let sessions = FetchSessions::new(10);
        let named = vec![wanted(0, 5), wanted(1, 5)];
        let id = full(sessions.begin(request((0, 0), named, &[])));
        let begun = sessions.begin(request((id, 1), vec![wanted(1, 9)], &[]));
        assert_eq!(read(&begun.unwrap()), [(0, 5), (1, 9)]);
        let begun = sessions.begin(request((id, 2), vec![], &[key(0)]));
        assert_eq!(read(&begun.unwrap()), [(1, 9)]);
        let refused = |request: SessionRequest<'_>| sessions.begin(request).err();
        assert_eq!(
            refused(request((id, 9), vec![], &[])),
            Some(SessionError::WrongEpoch)
        );
        let by_id = SessionRequest {
            by_id: true,
            ..request((id, 3), vec![], &[])
        };
        assert_eq!(refused(by_id), Some(SessionError::TopicIds));
        assert_eq!(
            refused(request((id + 1, 3), vec![], &[])),
            Some(SessionError::NotFound)
        );
        sessions.begin(request((id, -1), vec![], &[])).unwrap();
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_full_cache_makes_newcomers_fetch_without_a_session() {
        let sessions = FetchSessions::new(1);
        let begin = || full(sessions.begin(request((0, 0), vec![wanted(0, 5)], &[])));
        assert!(begin() > 0);
        assert_eq!(begin(), 0);
    }

    #[test]
    fn a_consumers_session_gives_way_to_a_followers_and_not_the_other_way_round() {
        let sessions = FetchSessions::new(2);
        let begin = |follower| {
            let request = SessionRequest {
                follower,
                ..request((0, 0), vec![wanted(0, 5)], &[])
            };
            full(sessions.begin(request))
        };
        let consumer = begin(None);
        assert!(consumer > 0 && begin(Some((7, 1))) > 0);
        assert!(begin(Some((8, 1))) > 0);
        let gone = sessions.begin(request((consumer, 1), vec![], &[]));
        assert_eq!(gone.err(), Some(SessionError::NotFound));
        assert_eq!((begin(None), begin(Some((9, 1)))), (0, 0));
        assert_eq!(sessions.cache.lock().bytes.consumers, 0);
    }

    #[test]
    fn who_got_records_goes_to_the_end_of_the_line() {
        let sessions = FetchSessions::new(1);
        let named = vec![wanted(0, 5), wanted(1, 5)];
        let id = full(sessions.begin(request((0, 0), named, &[])));
        let sent = LastSent {
            key: key(0),
            ends: (1, 0),
            records: true,
        };
        sessions.note_sent(id, &[sent]);
        let begun = sessions.begin(request((id, 1), vec![], &[])).unwrap();
        assert_eq!(read(&begun), [(1, 5), (0, 5)]);
        assert_eq!(begun.wanted[1].last_sent, Some((1, 0)));
    }

    #[test]
    fn a_partition_that_is_named_twice_is_fetched_once() {
        let sessions = FetchSessions::new(1);
        let named = vec![wanted(0, 5), wanted(1, 5), wanted(0, 7)];
        let begun = sessions.begin(request((0, -1), named, &[])).unwrap();
        assert_eq!(read(&begun), [(0, 7), (1, 5)]);
    }

    #[test]
    fn a_followers_fetch_looks_at_what_it_names_and_at_what_is_due() {
        let sessions = FetchSessions::new(1);
        let follow = |(id, epoch), named, follower| {
            let request = SessionRequest {
                follower: Some(follower),
                ..request((id, epoch), named, &[])
            };
            sessions.begin(request).unwrap()
        };
        let named = (0..4).map(|n| wanted(n, 5)).collect();
        let begun = follow((0, 0), named, (7, 1));
        let FetchKind::Full(id) = begun.kind else {
            panic!()
        };
        assert_eq!(begun.wanted.len(), 4);
        let mut watch = begun.watch.unwrap();
        for slot in [0, 2, 3] {
            watch.is_read(slot);
        }
        let waiter = watch.watcher.waiter.clone();
        drop(watch);
        // One of which more is due, one that moved and one that is named.
        waiter.note_moved(3);
        let begun = follow((id, 1), vec![wanted(0, 6)], (7, 1));
        assert_eq!(read(&begun), [(0, 6), (1, 5), (3, 5)]);
        // The answer was not made: they are looked at again.
        drop(begun);
        let begun = follow((id, 2), vec![], (7, 1));
        assert_eq!(read(&begun), [(0, 6), (1, 5), (3, 5)]);
        let mut watch = begun.watch.unwrap();
        begun
            .wanted
            .iter()
            .for_each(|wanted| watch.is_read(wanted.slot));
        drop(watch);
        // Somebody else is given everything.
        assert_eq!(follow((id, 3), vec![], (7, 2)).wanted.len(), 4);
        assert_eq!(follow((id, 4), vec![], (7, 1)).wanted.len(), 0);
    }

    #[test]
    fn sessions_together_remember_a_bounded_number_of_bytes() {
        let sessions = FetchSessions {
            bytes_max: ByKind {
                consumers: 100 * (PARTITION_BYTES + 1),
                followers: 0,
            },
            ..FetchSessions::new(10)
        };
        let many = |from: i32, count: i32| (from..from + count).map(|n| wanted(n, 0)).collect();
        let first = full(sessions.begin(request((0, 0), many(0, 50), &[])));
        assert!(first > 0);
        assert_eq!(full(sessions.begin(request((0, 0), many(0, 51), &[]))), 0);
        assert_eq!(
            sessions.begin(request((first, 1), many(50, 51), &[])).err(),
            Some(SessionError::NotFound)
        );
        assert!(sessions.is_empty() && sessions.cache.lock().bytes.consumers == 0);
    }
}
