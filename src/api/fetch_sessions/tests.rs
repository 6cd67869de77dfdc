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
fn what_is_named_and_forgotten_in_one_request_is_forgotten() {
    let sessions = FetchSessions::new(10);
    let id = full(sessions.begin(request((0, 0), vec![wanted(0, 5)], &[])));
    let named = vec![wanted(0, 7), wanted(1, 9), wanted(2, 3)];
    let begun = sessions.begin(request((id, 1), named, &[key(1), key(0)]));
    assert_eq!(read(&begun.unwrap()), [(2, 3)]);
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
