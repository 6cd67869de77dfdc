//! Incremental fetch sessions (KIP-227; Kafka's FetchSessionCache and FetchManager): the broker remembers what a
//! client fetches, so that requests and answers name only what changed.
//!
//! Bounded by `max.incremental.fetch.session.cache.slots`. When it is full, a session that was not used for two
//! minutes gives way; otherwise the newcomer fetches without a session. What all sessions together remember is bounded
//! in bytes too. Each session has its own lock; the one over all of them is held for a look-up only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::cluster::TOPIC_NAME_BYTES_MAX;

/// A session unused for this long may be evicted (Kafka's MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS).
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// What all sessions together remember, bytes; who would go beyond fetches without a session. About 60,000 partitions.
const BYTES_MAX: usize = 16 << 20;
/// A partition in a session, without the topic's name: its key twice, what is wanted of it, and what the maps add.
const PARTITION_BYTES: usize = 2 * size_of::<PartitionKey>() + size_of::<PartitionFetch>() + 48;

/// A partition as a fetch names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PartitionKey {
    pub(super) topic: Arc<str>,
    /// Nil where the client names topics.
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
}

/// What a client wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionFetch {
    pub(super) key: PartitionKey,
    pub(super) current_leader_epoch: i32,
    pub(super) fetch_offset: i64,
    /// Where a follower's log starts, -1 of a consumer.
    pub(super) log_start: i64,
    /// Of the record before `fetch_offset`; -1 where the client does not say.
    pub(super) last_fetched_epoch: i32,
    pub(super) bytes_max: i32,
    /// High watermark and log start that were sent last; a change of them is sent even without records.
    pub(super) last_sent: Option<(i64, i64)>,
}

/// What is wanted, each partition once, in the order in which they are served.
#[derive(Default)]
struct Line {
    next: u64,
    positions: HashMap<PartitionKey, u64>,
    wanted: BTreeMap<u64, PartitionFetch>,
    /// Sum over the partitions.
    name_bytes: usize,
}

impl Line {
    /// A known partition keeps its position and what was sent of it.
    fn put(&mut self, mut new: PartitionFetch) {
        if let Some(known) = self
            .positions
            .get(&new.key)
            .and_then(|at| self.wanted.get_mut(at))
        {
            new.last_sent = known.last_sent;
            *known = new;
            return;
        }
        self.name_bytes += new.key.topic.len();
        self.positions.insert(new.key.clone(), self.next);
        self.wanted.insert(self.next, new);
        self.next += 1;
    }

    fn remove(&mut self, key: &PartitionKey) -> Option<PartitionFetch> {
        let removed = self.wanted.remove(&self.positions.remove(key)?)?;
        self.name_bytes -= removed.key.topic.len();
        Some(removed)
    }

    /// What it takes in memory, roughly.
    fn bytes(&self) -> usize {
        self.wanted.len() * PARTITION_BYTES + self.name_bytes
    }

    fn all(&self) -> Vec<PartitionFetch> {
        self.wanted.values().cloned().collect()
    }
}

impl FromIterator<PartitionFetch> for Line {
    fn from_iter<I: IntoIterator<Item = PartitionFetch>>(named: I) -> Self {
        let mut line = Self::default();
        named.into_iter().for_each(|wanted| line.put(wanted));
        line
    }
}

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

struct Session {
    epoch: i32,
    by_id: bool,
    line: Line,
}

/// A session in the cache.
struct CachedSession {
    session: Arc<Mutex<Session>>,
    used: Instant,
    bytes: usize,
}

#[derive(Default)]
struct Cache {
    slots: HashMap<i32, CachedSession>,
    /// Sum over the slots.
    bytes: usize,
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.bytes -= slot.bytes;
        }
    }

    /// Notes how large a session is by now; false when that is too much.
    fn resize(&mut self, id: i32, bytes: usize, bytes_max: usize) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else {
            return false;
        };
        self.bytes = self.bytes - slot.bytes + bytes;
        slot.bytes = bytes;
        self.bytes <= bytes_max
    }
}

/// All sessions.
pub struct FetchSessions {
    slots: usize,
    bytes_max: usize,
    cache: Mutex<Cache>,
}

impl FetchSessions {
    /// At most `slots` sessions.
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            bytes_max: BYTES_MAX,
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

    /// Takes a request's session id, epoch and partitions; says what is to be fetched, each partition once.
    pub(super) fn begin(
        &self,
        session_id: i32,
        epoch: i32,
        by_id: bool,
        named: Vec<PartitionFetch>,
        forgotten: &[PartitionKey],
    ) -> Result<(FetchKind, Vec<PartitionFetch>), SessionError> {
        // What no topic can be called is answered, but not remembered.
        let is_possible = |wanted: &PartitionFetch| wanted.key.topic.len() <= TOPIC_NAME_BYTES_MAX;
        let are_possible = named.iter().all(is_possible);
        if epoch == EPOCH_INITIAL || epoch == EPOCH_FINAL {
            let line: Line = named.into_iter().collect();
            let wanted = line.all();
            let mut cache = self.cache.lock();
            cache.remove(session_id);
            if epoch == EPOCH_FINAL || !are_possible {
                return Ok((FetchKind::Full(0), wanted));
            }
            let id = self.create(&mut cache, by_id, line);
            return Ok((FetchKind::Full(id), wanted));
        }
        if !are_possible {
            self.cache.lock().remove(session_id);
        }
        let session = self.find(session_id).ok_or(SessionError::NotFound)?;
        let (wanted, changed) = {
            let mut session = session.lock();
            if session.epoch != epoch {
                return Err(SessionError::WrongEpoch);
            }
            if session.by_id != by_id {
                return Err(SessionError::TopicIds);
            }
            session.epoch = next_epoch(epoch);
            let before = session.line.bytes();
            for key in forgotten {
                session.line.remove(key);
            }
            for new in named {
                session.line.put(new);
            }
            let bytes = session.line.bytes();
            (session.line.all(), (bytes != before).then_some(bytes))
        };
        if wanted.is_empty() {
            self.cache.lock().remove(session_id);
        } else if let Some(bytes) = changed {
            let mut cache = self.cache.lock();
            if !cache.resize(session_id, bytes, self.bytes_max) {
                // The client begins anew, without a session.
                cache.remove(session_id);
                return Err(SessionError::NotFound);
            }
        }
        Ok((FetchKind::Incremental(session_id), wanted))
    }

    /// Remembers what an answer says; partitions with records go to the end of the line.
    pub(super) fn note_sent(&self, session_id: i32, answers: &[LastSent]) {
        let Some(session) = self.find(session_id) else {
            return;
        };
        let line = &mut session.lock().line;
        for LastSent { key, ends, records } in answers {
            if *records && let Some(mut known) = line.remove(key) {
                known.last_sent = Some(*ends);
                line.put(known);
            } else if let Some(known) = line
                .positions
                .get(key)
                .and_then(|at| line.wanted.get_mut(at))
            {
                known.last_sent = Some(*ends);
            }
        }
    }

    fn find(&self, session_id: i32) -> Option<Arc<Mutex<Session>>> {
        let mut cache = self.cache.lock();
        let slot = cache.slots.get_mut(&session_id)?;
        slot.used = Instant::now();
        Some(slot.session.clone())
    }

    fn create(&self, cache: &mut Cache, by_id: bool, line: Line) -> i32 {
        let bytes = line.bytes();
        if cache.slots.len() >= self.slots || cache.bytes + bytes > self.bytes_max {
            let slots = cache.slots.iter();
            let oldest = slots
                .min_by_key(|(_, slot)| slot.used)
                .map(|(id, slot)| (*id, slot.used));
            match oldest {
                Some((id, used)) if used.elapsed() >= EVICTION_AGE => cache.remove(id),
                _ => return 0,
            };
            if cache.bytes + bytes > self.bytes_max {
                return 0;
            }
        }
        let id = loop {
            let id = (Uuid::new_v4().as_u128() as i32) & i32::MAX;
            if id != 0 && !cache.slots.contains_key(&id) {
                break id;
            }
        };
        let session = Session {
            epoch: 1,
            by_id,
            line,
        };
        let slot = CachedSession {
            session: Arc::new(Mutex::new(session)),
            used: Instant::now(),
            bytes,
        };
        cache.slots.insert(id, slot);
        cache.bytes += bytes;
        id
    }
}

/// Epochs count from 1 and wrap there.
/// Begins a session, and ends one (Kafka's FetchMetadata); all others go on with one.
const EPOCH_INITIAL: i32 = 0;
const EPOCH_FINAL: i32 = -1;

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        }
    }

    #[test]
    fn a_session_remembers_and_forgets_partitions() {
        let sessions = FetchSessions::new(10);
        let (kind, _) = sessions
            .begin(0, 0, false, vec![wanted(0, 5), wanted(1, 5)], &[])
            .unwrap();
        let FetchKind::Full(id) = kind else { panic!() };
        let (_, all) = sessions
            .begin(id, 1, false, vec![wanted(1, 9)], &[])
            .unwrap();
        assert_eq!(all, [wanted(0, 5), wanted(1, 9)]);
        let (_, all) = sessions.begin(id, 2, false, vec![], &[key(0)]).unwrap();
        assert_eq!(all, [wanted(1, 9)]);
        assert_eq!(
            sessions.begin(id, 9, false, vec![], &[]).err(),
            Some(SessionError::WrongEpoch)
        );
        assert_eq!(
            sessions.begin(id, 3, true, vec![], &[]).err(),
            Some(SessionError::TopicIds)
        );
        assert_eq!(
            sessions.begin(id + 1, 3, true, vec![], &[]).err(),
            Some(SessionError::NotFound)
        );
        sessions.begin(id, -1, false, vec![], &[]).unwrap();
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_full_cache_makes_newcomers_fetch_without_a_session() {
        let sessions = FetchSessions::new(1);
        assert!(matches!(
            sessions.begin(0, 0, false, vec![wanted(0, 5)], &[]),
            Ok((FetchKind::Full(1..), _))
        ));
        assert!(matches!(
            sessions.begin(0, 0, false, vec![wanted(0, 5)], &[]),
            Ok((FetchKind::Full(0), _))
        ));
    }

    #[test]
    fn who_got_records_goes_to_the_end_of_the_line() {
        let sessions = FetchSessions::new(1);
        let Ok((FetchKind::Full(id), _)) =
            sessions.begin(0, 0, false, vec![wanted(0, 5), wanted(1, 5)], &[])
        else {
            panic!()
        };
        let sent = LastSent {
            key: key(0),
            ends: (1, 0),
            records: true,
        };
        sessions.note_sent(id, &[sent]);
        let (_, all) = sessions.begin(id, 1, false, vec![], &[]).unwrap();
        assert_eq!(
            all.iter().map(|w| w.key.partition).collect::<Vec<_>>(),
            [1, 0]
        );
    }

    #[test]
    fn a_partition_that_is_named_twice_is_fetched_once() {
        let sessions = FetchSessions::new(1);
        let named = vec![wanted(0, 5), wanted(1, 5), wanted(0, 7)];
        let (_, all) = sessions.begin(0, -1, false, named, &[]).unwrap();
        assert_eq!(all, [wanted(0, 7), wanted(1, 5)]);
    }

    #[test]
    fn sessions_together_remember_a_bounded_number_of_bytes() {
        let sessions = FetchSessions {
            bytes_max: 100 * (PARTITION_BYTES + 1),
            ..FetchSessions::new(10)
        };
        let many = |from: i32, count: i32| (from..from + count).map(|n| wanted(n, 0)).collect();
        let first = sessions.begin(0, 0, false, many(0, 50), &[]);
        let Ok((FetchKind::Full(first @ 1..), _)) = first else {
            panic!()
        };
        assert!(matches!(
            sessions.begin(0, 0, false, many(0, 51), &[]),
            Ok((FetchKind::Full(0), _))
        ));
        assert_eq!(
            sessions.begin(first, 1, false, many(50, 51), &[]).err(),
            Some(SessionError::NotFound)
        );
        assert!(sessions.is_empty() && sessions.cache.lock().bytes == 0);
    }
}
