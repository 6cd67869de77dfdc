//! The fetch session of a connection to a leader (KIP-227): a request names what changed since the one before. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use metaq_protocol::messages::FetchRequest;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use uuid::Uuid;

use super::followed::{Key, Position};

/// The epoch of a request that begins a session.
const FIRST: i32 = 0;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Session {
    id: i32,
    epoch: i32,
    /// What the leader has been told.
    known: BTreeMap<Key, Position>,
    /// What it has to be told.
    wanted: BTreeMap<Key, Position>,
    forgotten: BTreeSet<Key>,
}

impl Session {
    /// A partition is to be fetched from there on.
    pub(super) fn want(&mut self, key: Key, position: Position) {
        self.forgotten.remove(&key);
        match self.known.get(&key) == Some(&position) && self.epoch != FIRST {
            true => drop(self.wanted.remove(&key)),
            false => drop(self.wanted.insert(key, position)),
        }
    }

    /// A partition is not to be fetched.
    pub(super) fn forget(&mut self, key: Key) {
        self.wanted.remove(&key);
        if self.known.remove(&key).is_some() {
            self.forgotten.insert(key);
        }
    }

    /// The position that the latest request asked for a partition from.
    pub(super) fn asked(&self, key: &Key) -> Option<Position> {
        self.known.get(key).copied()
    }

    /// Whether anything is fetched.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.wanted.is_empty()
    }

    /// The next request's session and partitions.
    pub(super) fn next(&mut self, partition_bytes_max: i32) -> FetchRequest {
        let changed = std::mem::take(&mut self.wanted);
        let forgotten = std::mem::take(&mut self.forgotten);
        let mut request = FetchRequest::default()
            .with_session_id(self.id)
            .with_session_epoch(self.epoch);
        let named = match self.epoch == FIRST {
            true => {
                self.known.extend(changed);
                &self.known
            }
            false => {
                request.forgotten_topics_data = by_topic(forgotten.iter())
                    .map(|(topic_id, partitions)| {
                        let partitions = partitions.iter().map(|(_, index)| *index).collect();
                        ForgottenTopic::default()
                            .with_topic_id(topic_id)
                            .with_partitions(partitions)
                    })
                    .collect();
                self.known
                    .extend(changed.iter().map(|(key, at)| (*key, *at)));
                &changed
            }
        };
        let partition = |key: &Key| {
            let at = named.get(key)?;
            let wanted = FetchPartition::default()
                .with_partition(key.1)
                .with_current_leader_epoch(at.leader_epoch)
                .with_fetch_offset(at.offset)
                .with_last_fetched_epoch(at.last_epoch)
                .with_log_start_offset(at.log_start)
                .with_partition_max_bytes(partition_bytes_max);
            Some(wanted)
        };
        request.topics = by_topic(named.keys())
            .map(|(topic_id, keys)| {
                FetchTopic::default()
                    .with_topic_id(topic_id)
                    .with_partitions(keys.into_iter().filter_map(partition).collect())
            })
            .collect();
        request
    }

    /// The leader answered in a session, 0 where it keeps none.
    pub(super) fn answered(&mut self, id: i32) {
        match id {
            0 => {
                self.begin_anew();
                self.id = 0;
            }
            _ => {
                self.id = id;
                self.epoch = match self.epoch {
                    i32::MAX => 1,
                    epoch => epoch + 1,
                };
            }
        }
    }

    /// Everything is told again. A session that the leader may have ends with the next request, which names it.
    pub(super) fn begin_anew(&mut self) {
        let known = std::mem::take(&mut self.known);
        for (key, position) in known {
            self.wanted.entry(key).or_insert(position);
        }
        self.forgotten.clear();
        self.epoch = FIRST;
    }
}

/// Keys in their order, by topic.
fn by_topic<'a>(keys: impl Iterator<Item = &'a Key>) -> impl Iterator<Item = (Uuid, Vec<&'a Key>)> {
    let mut topics: Vec<(Uuid, Vec<&Key>)> = Vec::new();
    for key in keys {
        match topics.last_mut() {
            Some((topic_id, keys)) if *topic_id == key.0 => keys.push(key),
            _ => topics.push((key.0, vec![key])),
        }
    }
    topics.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Position {
        Position {
            leader_epoch: 3,
            offset,
            last_epoch: 2,
            log_start: 0,
        }
    }

    fn key(topic: u128, index: i32) -> Key {
        (Uuid::from_u128(topic), index)
    }

    /// Session id and epoch, topic, partition and offset of what is named, and what is forgotten.
    type Told = ((i32, i32), Vec<(Key, i64)>, Vec<Key>);

    fn told(session: &mut Session) -> Told {
        let request = session.next(100);
        let named = request.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|wanted| ((topic.topic_id, wanted.partition), wanted.fetch_offset))
        });
        let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|index| (topic.topic_id, *index))
        });
        let session = (request.session_id, request.session_epoch);
        (session, named.collect(), forgotten.collect())
    }

    #[test]
    fn a_request_names_what_changed_since_the_one_before() {
        let mut session = Session::default();
        session.want(key(1, 0), at(5));
        session.want(key(1, 1), at(6));
        session.want(key(2, 0), at(7));
        let all = vec![(key(1, 0), 5), (key(1, 1), 6), (key(2, 0), 7)];
        assert_eq!(told(&mut session), ((0, 0), all, vec![]));
        session.answered(9);
        assert_eq!(told(&mut session), ((9, 1), vec![], vec![]));
        session.answered(9);
        session.want(key(1, 1), at(8));
        session.want(key(1, 0), at(5));
        session.forget(key(2, 0));
        let changed = vec![(key(1, 1), 8)];
        assert_eq!(told(&mut session), ((9, 2), changed, vec![key(2, 0)]));
        assert_eq!(session.asked(&key(1, 1)), Some(at(8)));
        assert_eq!(session.asked(&key(2, 0)), None);
    }

    #[test]
    fn where_the_leader_keeps_no_session_everything_is_told_again() {
        let mut session = Session::default();
        session.want(key(1, 0), at(5));
        session.next(100);
        session.answered(9);
        session.want(key(1, 1), at(6));
        session.begin_anew();
        let all = vec![(key(1, 0), 5), (key(1, 1), 6)];
        assert_eq!(told(&mut session), ((9, 0), all.clone(), vec![]));
        session.answered(0);
        assert_eq!(told(&mut session), ((0, 0), all.clone(), vec![]));
        session.answered(0);
        session.want(key(1, 0), at(5));
        assert_eq!(told(&mut session), ((0, 0), all, vec![]));
        session.forget(key(1, 0));
        session.forget(key(1, 1));
        assert!(session.is_empty());
    }
}
