//! Share sessions (KIP-932): the partitions that a member fetches from a broker, so that its requests name only what changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

/// A partition of a topic.
pub type SharedPartition = (Uuid, i32);

/// Who has a session: group and member.
type Key = (Arc<str>, Arc<str>);

/// Epoch of a request that begins a session.
pub const INITIAL_EPOCH: i32 = 0;
/// Epoch of a request that ends a session.
pub const FINAL_EPOCH: i32 = -1;

/// Partitions that a session may have.
pub const PARTITIONS_MAX: usize = 10_000;
/// Partitions that all sessions together may have: 24 bytes each.
const PARTITIONS_OF_ALL_MAX: usize = 1_000_000;

/// Why a request does not fit its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareSessionError {
    /// There is none.
    #[error("the share session is not found")]
    NotFound,
    /// It has another epoch.
    #[error("the share session epoch is invalid")]
    InvalidEpoch,
    /// There are too many, or too many partitions in it.
    #[error("the limit of share sessions has been reached")]
    LimitReached,
    /// A first request acknowledges nothing.
    #[error("a first request of a share session acknowledges nothing")]
    InvalidRequest,
}

struct Session {
    /// That the next request has.
    epoch: i32,
    /// The client's connection.
    connection: u64,
    /// In the order in which they are looked at.
    partitions: Vec<SharedPartition>,
}

/// What a fetch is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareFetching {
    /// These partitions, in a new session.
    Begins {
        /// In the order in which they were named.
        partitions: Vec<SharedPartition>,
        /// Whether no other member of the group has a session here.
        is_first: bool,
    },
    /// These partitions.
    Partitions(Vec<SharedPartition>),
    /// Nothing: it is the last request of its session.
    Final,
}

/// See the module's documentation.
pub struct ShareSessions {
    all: Mutex<AllSessions>,
}

struct AllSessions {
    sessions: HashMap<Key, Session>,
    /// How many more partitions they may have.
    room: usize,
}

impl Default for ShareSessions {
    fn default() -> Self {
        Self::with_room(PARTITIONS_OF_ALL_MAX)
    }
}

/// A fetch's part that is about its session.
#[derive(Debug, Clone, Copy)]
pub struct ShareFetchSession<'a> {
    /// The request's.
    pub epoch: i32,
    /// The client's connection.
    pub connection: u64,
    /// Partitions that are named.
    pub named: &'a [SharedPartition],
    /// Partitions that are not fetched any more.
    pub forgotten: &'a [SharedPartition],
    /// Whether it acknowledges something.
    pub acknowledges: bool,
    /// Sessions that there may be.
    pub sessions_max: usize,
}

impl ShareSessions {
    fn with_room(room: usize) -> Self {
        let sessions = HashMap::new();
        Self {
            all: Mutex::new(AllSessions { sessions, room }),
        }
    }

    /// A member fetches (SharePartitionManager.newContext). A session whose client is there already is begun anew.
    pub fn fetch(
        &self,
        group_id: &str,
        member: &str,
        asked: &ShareFetchSession<'_>,
    ) -> Result<ShareFetching, ShareSessionError> {
        let key = (Arc::from(group_id), Arc::from(member));
        let mut all = self.all.lock();
        let AllSessions { sessions, room } = &mut *all;
        match asked.epoch {
            FINAL_EPOCH if !sessions.contains_key(&key) => Err(ShareSessionError::NotFound),
            // What it acknowledges may be of any partition, so those that are named do not count.
            FINAL_EPOCH => Ok(ShareFetching::Final),
            INITIAL_EPOCH if asked.acknowledges => Err(ShareSessionError::InvalidRequest),
            INITIAL_EPOCH => {
                let is_known = sessions.contains_key(&key);
                let is_other = |other: &Key| other.0 == key.0 && other.1 != key.1;
                let is_first = !sessions.keys().any(is_other);
                if !is_known && sessions.len() >= asked.sessions_max {
                    return Err(ShareSessionError::LimitReached);
                }
                let mut partitions = Vec::new();
                let before = sessions
                    .get(&key)
                    .map_or(0, |session| session.partitions.len());
                add(&mut partitions, asked.named, *room + before)?;
                *room = *room + before - partitions.len();
                let session = Session {
                    epoch: next(INITIAL_EPOCH),
                    connection: asked.connection,
                    partitions: partitions.clone(),
                };
                sessions.insert(key, session);
                Ok(ShareFetching::Begins {
                    partitions,
                    is_first,
                })
            }
            epoch => {
                let session = sessions.get_mut(&key).ok_or(ShareSessionError::NotFound)?;
                if session.epoch != epoch {
                    return Err(ShareSessionError::InvalidEpoch);
                }
                let before = session.partitions.len();
                add(&mut session.partitions, asked.named, *room + before)?;
                let forgotten: HashSet<&SharedPartition> = asked.forgotten.iter().collect();
                session.partitions.retain(|one| !forgotten.contains(one));
                *room = *room + before - session.partitions.len();
                session.epoch = next(epoch);
                // Each time another one is first.
                let mut partitions = session.partitions.clone();
                let first = epoch.unsigned_abs() as usize % partitions.len().max(1);
                partitions.rotate_left(first);
                Ok(ShareFetching::Partitions(partitions))
            }
        }
    }

    /// A member acknowledges (SharePartitionManager.acknowledgeSessionUpdate).
    pub fn acknowledge(
        &self,
        group_id: &str,
        member: &str,
        epoch: i32,
    ) -> Result<(), ShareSessionError> {
        if epoch == INITIAL_EPOCH {
            return Err(ShareSessionError::InvalidEpoch);
        }
        let key = (Arc::from(group_id), Arc::from(member));
        let mut all = self.all.lock();
        let session = all.sessions.get_mut(&key);
        let session = session.ok_or(ShareSessionError::NotFound)?;
        if epoch != FINAL_EPOCH {
            if session.epoch != epoch {
                return Err(ShareSessionError::InvalidEpoch);
            }
            session.epoch = next(epoch);
        }
        Ok(())
    }

    /// Ends a session; its partitions.
    pub fn end(&self, group_id: &str, member: &str) -> Vec<SharedPartition> {
        let key = (Arc::from(group_id), Arc::from(member));
        let mut all = self.all.lock();
        let ended = all.sessions.remove(&key);
        let partitions = ended.map_or_else(Vec::new, |session| session.partitions);
        all.room += partitions.len();
        partitions
    }

    /// The sessions of a connection that is gone end; who had them, with their partitions.
    pub fn disconnected(&self, connection: u64) -> Vec<(Arc<str>, Arc<str>, Vec<SharedPartition>)> {
        let mut all = self.all.lock();
        let AllSessions { sessions, room } = &mut *all;
        let ended = sessions.extract_if(|_, session| session.connection == connection);
        ended
            .map(|((group_id, member), session)| {
                *room += session.partitions.len();
                (group_id, member, session.partitions)
            })
            .collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.lock().sessions.len()
    }
}

/// Adds those that are not there, if they are not too many, and with those that are there not more than `all_max`.
fn add(
    partitions: &mut Vec<SharedPartition>,
    named: &[SharedPartition],
    all_max: usize,
) -> Result<(), ShareSessionError> {
    if named.is_empty() {
        return Ok(());
    }
    let mut there: HashSet<SharedPartition> = partitions.iter().copied().collect();
    let new = named.iter().filter(|one| there.insert(**one));
    let new: Vec<SharedPartition> = new.copied().collect();
    if partitions.len() + new.len() > PARTITIONS_MAX.min(all_max) {
        return Err(ShareSessionError::LimitReached);
    }
    partitions.extend(new);
    Ok(())
}

/// As Kafka's ShareRequestMetadata.nextEpoch.
fn next(epoch: i32) -> i32 {
    match epoch {
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(partition: i32) -> SharedPartition {
        (Uuid::from_u128(1), partition)
    }

    fn fetch(
        sessions: &ShareSessions,
        epoch: i32,
        named: &[SharedPartition],
        forgotten: &[SharedPartition],
    ) -> Result<ShareFetching, ShareSessionError> {
        let asked = ShareFetchSession {
            epoch,
            connection: 7,
            named,
            forgotten,
            acknowledges: false,
            sessions_max: 1,
        };
        sessions.fetch("g", "m", &asked)
    }

    #[test]
    fn a_session_remembers_partitions_and_begins_with_another_one_each_time() {
        let sessions = ShareSessions::default();
        let all = [one(0), one(1)];
        let partitions = |all: &[SharedPartition]| Ok(ShareFetching::Partitions(all.to_vec()));
        let begins = ShareFetching::Begins {
            partitions: all.to_vec(),
            is_first: true,
        };
        assert_eq!(fetch(&sessions, 0, &all, &[]), Ok(begins));
        let turned = [one(1), one(0)];
        assert_eq!(fetch(&sessions, 1, &[], &[]), partitions(&turned));
        let added = [one(2), one(0)];
        assert_eq!(
            fetch(&sessions, 2, &[one(2)], &[one(1)]),
            partitions(&[one(0), one(2)])
        );
        assert_eq!(fetch(&sessions, 3, &[one(0)], &[]), partitions(&added));
        assert_eq!(sessions.end("g", "m"), [one(0), one(2)]);
        assert_eq!(sessions.end("g", "m"), []);
    }

    #[test]
    fn a_request_that_does_not_fit_its_session_is_refused() {
        let sessions = ShareSessions::default();
        assert_eq!(
            fetch(&sessions, 5, &[], &[]),
            Err(ShareSessionError::NotFound)
        );
        assert_eq!(
            fetch(&sessions, -1, &[], &[]),
            Err(ShareSessionError::NotFound)
        );
        assert_eq!(
            sessions.acknowledge("g", "m", 1),
            Err(ShareSessionError::NotFound)
        );
        assert!(fetch(&sessions, 0, &[one(0)], &[]).is_ok());
        assert_eq!(
            fetch(&sessions, 2, &[], &[]),
            Err(ShareSessionError::InvalidEpoch)
        );
        assert_eq!(
            sessions.acknowledge("g", "m", 0),
            Err(ShareSessionError::InvalidEpoch)
        );
        assert_eq!(sessions.acknowledge("g", "m", 1), Ok(()));
        assert!(fetch(&sessions, 2, &[], &[]).is_ok());
        assert_eq!(sessions.acknowledge("g", "m", -1), Ok(()));
        assert_eq!(fetch(&sessions, -1, &[], &[]), Ok(ShareFetching::Final));
        // The member is known: its session begins anew. Another one is one too many.
        assert!(fetch(&sessions, 0, &[one(0)], &[]).is_ok());
        let asked = ShareFetchSession {
            epoch: 0,
            connection: 7,
            named: &[],
            forgotten: &[],
            acknowledges: false,
            sessions_max: 1,
        };
        let other = sessions.fetch("g", "n", &asked);
        assert_eq!(other, Err(ShareSessionError::LimitReached));
    }

    #[test]
    fn a_session_has_each_partition_once_and_not_too_many() {
        let sessions = ShareSessions::default();
        let most: Vec<SharedPartition> = (0..PARTITIONS_MAX as i32).map(one).collect();
        assert!(fetch(&sessions, 0, &[one(0), one(0)], &[]).is_ok());
        let fetching = fetch(&sessions, 1, &most, &[]).unwrap();
        let ShareFetching::Partitions(partitions) = fetching else {
            panic!("{fetching:?}");
        };
        assert_eq!(partitions.len(), PARTITIONS_MAX);
        let beyond = fetch(&sessions, 2, &[one(-1)], &[]);
        assert_eq!(beyond, Err(ShareSessionError::LimitReached));
        let others: Vec<SharedPartition> = most[1..].to_vec();
        assert!(fetch(&sessions, 2, &[], &others).is_ok());
        assert_eq!(sessions.end("g", "m"), [one(0)]);
    }

    #[test]
    fn all_sessions_together_have_not_too_many_partitions() {
        let sessions = ShareSessions::with_room(3);
        let fetch = |member: &str, epoch, named: &[SharedPartition], forgotten: &[_]| {
            let asked = ShareFetchSession {
                epoch,
                connection: 7,
                named,
                forgotten,
                acknowledges: false,
                sessions_max: 10,
            };
            sessions.fetch("g", member, &asked).is_ok()
        };
        assert!(fetch("a", 0, &[one(0), one(1)], &[]));
        assert!(fetch("a", 0, &[one(0), one(1)], &[]), "it begins anew");
        assert!(!fetch("b", 0, &[one(0), one(1)], &[]));
        assert!(fetch("b", 0, &[one(0)], &[]));
        assert!(!fetch("b", 1, &[one(1)], &[]));
        assert!(fetch("a", 1, &[], &[one(1)]));
        assert!(fetch("b", 1, &[one(1)], &[]));
        sessions.end("g", "b");
        assert!(fetch("a", 2, &[one(1), one(2)], &[]));
        assert_eq!(sessions.disconnected(7).len(), 1);
        assert!(fetch("c", 0, &[one(0), one(1), one(2)], &[]));
    }

    #[test]
    fn sessions_end_with_their_connection() {
        let sessions = ShareSessions::default();
        assert!(fetch(&sessions, 0, &[one(0)], &[]).is_ok());
        assert!(sessions.disconnected(8).is_empty());
        let ended = sessions.disconnected(7);
        assert_eq!(ended, [("g".into(), "m".into(), vec![one(0)])]);
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn epochs_begin_again_at_one() {
        assert_eq!(next(1), 2);
        assert_eq!(next(i32::MAX), 1);
    }
}
