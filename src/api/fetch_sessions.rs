//! Incremental fetch sessions (KIP-227; Kafka's FetchSessionCache and FetchManager): the broker remembers what a
//! client fetches, so that requests and answers name only what changed.
//!
//! Bounded by `max.incremental.fetch.session.cache.slots`. When it is full, a session that was not used for two
//! minutes gives way; otherwise the newcomer fetches without a session.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

/// A session unused for this long may be evicted (Kafka's MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS).
const EVICTION_AGE: Duration = Duration::from_secs(120);

/// What a client wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) topic: String,
    /// Nil where the client names topics.
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    pub(super) current_leader_epoch: i32,
    pub(super) fetch_offset: i64,
    pub(super) bytes_max: i32,
    /// What the client was told last; a change is told even without records.
    pub(super) told: Option<(i64, i64)>,
}

impl Wanted {
    fn is_same_partition(&self, other: &Self) -> bool {
        self.partition == other.partition
            && self.topic_id == other.topic_id
            && self.topic == other.topic
    }
}

/// What a fetch request is.
pub(super) enum Turn {
    /// Everything is named, nothing is remembered; the answer names everything under this session id.
    Full(i32),
    /// Only changes are told.
    Incremental(i32),
}

/// Why a session cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionError {
    NotFound,
    WrongEpoch,
    TopicIds,
}

struct Session {
    epoch: i32,
    by_id: bool,
    wanted: Vec<Wanted>,
    used: Instant,
}

/// All sessions.
pub struct FetchSessions {
    slots: usize,
    sessions: Mutex<HashMap<i32, Session>>,
}

impl FetchSessions {
    /// At most `slots` sessions.
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            sessions: Mutex::default(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a request's session id, epoch and partitions; says what is to be fetched.
    pub(super) fn begin(
        &self,
        session_id: i32,
        epoch: i32,
        by_id: bool,
        named: Vec<Wanted>,
        forgotten: &[(String, Uuid, i32)],
    ) -> Result<(Turn, Vec<Wanted>), SessionError> {
        let mut sessions = self.sessions.lock();
        if epoch <= 0 {
            sessions.remove(&session_id);
            if epoch < 0 || named.is_empty() {
                return Ok((Turn::Full(0), named));
            }
            let id = self.create(&mut sessions, by_id, &named);
            return Ok((Turn::Full(id), named));
        }
        let session = sessions
            .get_mut(&session_id)
            .ok_or(SessionError::NotFound)?;
        if session.epoch != epoch {
            return Err(SessionError::WrongEpoch);
        }
        if session.by_id != by_id {
            return Err(SessionError::TopicIds);
        }
        session.epoch = next_epoch(epoch);
        session.used = Instant::now();
        for (topic, topic_id, partition) in forgotten {
            session.wanted.retain(|known| {
                !(known.partition == *partition
                    && known.topic_id == *topic_id
                    && known.topic == *topic)
            });
        }
        for mut new in named {
            match session
                .wanted
                .iter_mut()
                .find(|known| known.is_same_partition(&new))
            {
                Some(known) => {
                    new.told = known.told;
                    *known = new;
                }
                None => session.wanted.push(new),
            }
        }
        let wanted = session.wanted.clone();
        if wanted.is_empty() {
            sessions.remove(&session_id);
        }
        Ok((Turn::Incremental(session_id), wanted))
    }

    /// Remembers what the client is being told; who got records goes to the end of the line.
    pub(super) fn told(&self, session_id: i32, answers: &[(Wanted, (i64, i64), bool)]) {
        let mut sessions = self.sessions.lock();
        let Some(session) = sessions.get_mut(&session_id) else {
            return;
        };
        for (wanted, told, _) in answers {
            if let Some(known) = session
                .wanted
                .iter_mut()
                .find(|known| known.is_same_partition(wanted))
            {
                known.told = Some(*told);
            }
        }
        let (mut got, mut waiting): (Vec<Wanted>, Vec<Wanted>) =
            session.wanted.drain(..).partition(|known| {
                answers
                    .iter()
                    .any(|(wanted, _, records)| *records && known.is_same_partition(wanted))
            });
        waiting.append(&mut got);
        session.wanted = waiting;
    }

    fn create(&self, sessions: &mut HashMap<i32, Session>, by_id: bool, wanted: &[Wanted]) -> i32 {
        if sessions.len() >= self.slots {
            let oldest = sessions
                .iter()
                .min_by_key(|(_, session)| session.used)
                .map(|(id, session)| (*id, session.used));
            match oldest {
                Some((id, used)) if used.elapsed() >= EVICTION_AGE => sessions.remove(&id),
                _ => return 0,
            };
        }
        let id = loop {
            let id = (Uuid::new_v4().as_u128() as i32) & i32::MAX;
            if id != 0 && !sessions.contains_key(&id) {
                break id;
            }
        };
        sessions.insert(
            id,
            Session {
                epoch: 1,
                by_id,
                wanted: wanted.to_vec(),
                used: Instant::now(),
            },
        );
        id
    }
}

/// Epochs count from 1 and wrap there.
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partition: i32, fetch_offset: i64) -> Wanted {
        Wanted {
            topic: "t".into(),
            topic_id: Uuid::nil(),
            partition,
            current_leader_epoch: -1,
            fetch_offset,
            bytes_max: 1,
            told: None,
        }
    }

    #[test]
    fn a_session_remembers_and_forgets_partitions() {
        let sessions = FetchSessions::new(10);
        let (turn, _) = sessions
            .begin(0, 0, false, vec![wanted(0, 5), wanted(1, 5)], &[])
            .unwrap();
        let Turn::Full(id) = turn else { panic!() };
        let (_, all) = sessions
            .begin(id, 1, false, vec![wanted(1, 9)], &[])
            .unwrap();
        assert_eq!(all, [wanted(0, 5), wanted(1, 9)]);
        let (_, all) = sessions
            .begin(id, 2, false, vec![], &[("t".into(), Uuid::nil(), 0)])
            .unwrap();
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
            Ok((Turn::Full(1..), _))
        ));
        assert!(matches!(
            sessions.begin(0, 0, false, vec![wanted(0, 5)], &[]),
            Ok((Turn::Full(0), _))
        ));
    }

    #[test]
    fn who_got_records_goes_to_the_end_of_the_line() {
        let sessions = FetchSessions::new(1);
        let Ok((Turn::Full(id), _)) =
            sessions.begin(0, 0, false, vec![wanted(0, 5), wanted(1, 5)], &[])
        else {
            panic!()
        };
        sessions.told(id, &[(wanted(0, 5), (1, 0), true)]);
        let (_, all) = sessions.begin(id, 1, false, vec![], &[]).unwrap();
        assert_eq!(all.iter().map(|w| w.partition).collect::<Vec<_>>(), [1, 0]);
    }
}
