//! Consumer groups of KIP-848, and when they are stored.

use super::*;
use crate::group::consumer::{ConsumerHeartbeat, ConsumerReply};
use crate::group::limits::MEMBER_OVERHEAD_BYTES;
use crate::group::messages::{JoinRequest, Refusal};

type Replied = oneshot::Receiver<Result<ConsumerReply, Refusal>>;

fn beat(bench: &mut Bench, id: &str, epoch: i32) -> Replied {
    let joins = epoch == 0;
    let beat = ConsumerHeartbeat {
        member_id: id.to_owned(),
        member_epoch: epoch,
        rebalance_timeout_ms: joins.then_some(60_000),
        topics: joins.then(|| vec!["t".to_owned()]),
        owned: joins.then(Vec::new),
        ..ConsumerHeartbeat::default()
    };
    bench.ask(|answer| Ask::ConsumerHeartbeat(Box::new(beat), answer))
}

fn store_all(bench: &mut Bench) {
    while bench.store(Ok(())) > 0 {}
}

#[test]
fn an_answer_waits_until_what_it_says_is_stored_and_the_same_comes_after_a_takeover() {
    let mut bench = Bench::new();
    let mut answer = beat(&mut bench, "a", 0);
    assert!(answer.try_recv().is_err(), "nothing is stored");
    store_all(&mut bench);
    let reply = answer.try_recv().unwrap().unwrap();
    assert_eq!(reply.member_epoch, 2);
    let assignment = reply.assignment.unwrap();
    assert_eq!(assignment[0].1, [0, 1, 2, 3]);
    assert_eq!(bench.store(Ok(())), 0);
    bench.reload();
    let mut again = beat(&mut bench, "a", 2);
    let reply = again.try_recv().unwrap().unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (2, None));
    assert_eq!(bench.store(Ok(())), 0, "a heartbeat that changes nothing");
}

/// Java's consumer ends when it is told that there is no such group, and joins again when it is told that it is no member.
#[test]
fn a_group_whose_members_were_thrown_out_is_there_for_a_while_after_a_takeover() {
    let mut bench = Bench::new();
    let _joined = beat(&mut bench, "a", 0);
    store_all(&mut bench);
    bench.now_ms += 50_000;
    bench.groups.tick(bench.now_ms);
    store_all(&mut bench);
    bench.reload();
    bench.groups.tick(bench.now_ms);
    store_all(&mut bench);
    let late = beat(&mut bench, "a", 2).try_recv().unwrap().unwrap_err();
    assert_eq!(late.error, GroupError::UnknownMemberId);
    bench.now_ms += CHECK_INTERVAL_MS;
    bench.groups.tick(bench.now_ms);
    store_all(&mut bench);
    assert!(!bench.exists());
}

#[test]
fn an_empty_group_that_becomes_classic_is_one_after_a_takeover_and_goes() {
    let mut bench = Bench::new();
    let _joined = beat(&mut bench, "a", 0);
    store_all(&mut bench);
    let _left = beat(&mut bench, "a", -1);
    store_all(&mut bench);
    let join = JoinRequest {
        member_id: String::new(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::new())],
        member_id_required: true,
        can_skip_assignment: false,
        reason: String::new(),
        connection: None,
        reserved: None,
    };
    let given_id = bench.ask(|answer| Ask::Join(Box::new(join), answer));
    store_all(&mut bench);
    assert_eq!(given_id.blocking_recv().unwrap().unwrap().generation, -1);
    bench.reload();
    let described = bench.ask(Ask::Describe).try_recv().unwrap();
    assert!(matches!(described, Some(Described::Classic(_))));
    bench.expire();
    store_all(&mut bench);
    assert!(!bench.exists() && bench.tree.is_empty(), "{:?}", bench.tree);
}

#[test]
fn members_that_are_loaded_take_of_the_memory_until_they_are_gone() {
    let mut bench = Bench::new();
    let _joined = beat(&mut bench, "a", 0);
    store_all(&mut bench);
    bench.reload();
    let is_free = |bench: &Bench| bench.context.members.taken() < MEMBER_OVERHEAD_BYTES;
    assert!(!is_free(&bench));
    let _left = beat(&mut bench, "a", -1);
    store_all(&mut bench);
    assert!(is_free(&bench));
}

#[test]
fn what_could_not_be_stored_is_an_error_and_is_stored_again() {
    let mut bench = Bench::new();
    let mut answer = beat(&mut bench, "a", 0);
    bench.store(REFUSED);
    let refused = answer.try_recv().unwrap().unwrap_err();
    assert_eq!(refused.error, GroupError::CoordinatorNotAvailable);
    assert_eq!(bench.store(Ok(())), 0, "not at once");
    bench.now_ms += 1_000;
    bench.groups.tick(bench.now_ms);
    store_all(&mut bench);
    let mut answer = beat(&mut bench, "a", 0);
    assert_eq!(answer.try_recv().unwrap().unwrap().member_epoch, 2);
    assert!(bench.tree.contains_key(&paths::consumer_member("g", "a")));
}

#[test]
fn nothing_of_a_group_is_stored_after_its_removal() {
    let mut bench = Bench::new();
    let mut joined = beat(&mut bench, "a", 0);
    // The first write is under way; what the member leaves is to be stored after it.
    let mut left = beat(&mut bench, "a", -1);
    let mut deleted = bench.ask(Ask::Delete);
    store_all(&mut bench);
    assert!(joined.try_recv().unwrap().is_ok());
    assert!(left.try_recv().unwrap().is_ok());
    assert_eq!(deleted.try_recv(), Ok(Ok(())));
    assert!(bench.tree.is_empty(), "{:?}", bench.tree.keys());
    assert!(!bench.exists());
}

#[test]
fn a_removal_that_is_refused_leaves_the_group_as_its_members_left_it() {
    let mut bench = Bench::new();
    let _joined = beat(&mut bench, "a", 0);
    let mut left = beat(&mut bench, "a", -1);
    let mut deleted = bench.ask(Ask::Delete);
    for (n, write) in bench.groups.take_writes().into_iter().enumerate() {
        let outcome = match n {
            0 => Ok(()),
            _ => REFUSED,
        };
        for op in write.ops.into_iter().filter(|_| outcome.is_ok()) {
            bench.apply(op);
        }
        bench.groups.stored(bench.now_ms, write.then, outcome);
    }
    assert!(deleted.try_recv().unwrap().is_err());
    store_all(&mut bench);
    assert!(left.try_recv().unwrap().is_ok());
    bench.reload();
    assert!(bench.exists());
    let mut deleted = bench.ask(Ask::Delete);
    store_all(&mut bench);
    assert_eq!(deleted.try_recv(), Ok(Ok(())));
    assert!(bench.tree.is_empty(), "{:?}", bench.tree.keys());
}
