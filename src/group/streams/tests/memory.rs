//! What members and tasks of streams groups take of `group.members.max.bytes`.

use std::sync::Arc;

use super::*;

/// A join with its share of a memory.
fn joining_within(memory: &Arc<GroupMemory>, bytes: usize) -> StreamsHeartbeat {
    let mut beat = joining("a", "p", counting());
    beat.reserved.member = Some(memory.reserve_anyway(bytes));
    beat
}

#[test]
fn tasks_are_given_where_there_is_memory_for_them_and_give_it_back() {
    let memory = GroupMemory::new(10_000);
    let mut bench = Bench::ready();
    let others = memory.reserve(9_000).unwrap();
    let told = bench.ask(joining_within(&memory, 500)).unwrap();
    assert_eq!(codes(&told), [StatusCode::AssignmentDelayed]);
    let why = &told.statuses[0].detail;
    assert!(why.contains("group.members.max.bytes"), "{why}");
    assert!(active(&told).is_empty());
    // Not at once again.
    assert_eq!(bench.group.next_deadline(), Some(bench.now_ms + 1000));
    drop(others);
    bench.now_ms += 1000;
    let told = bench.ask(plain("a", told.member_epoch)).unwrap();
    assert!(!active(&told).is_empty());
    let taken = memory.taken();
    assert!(taken > 500 + 3 * 300, "{taken}");
    // What was stored counts as it is when it is read.
    read_back(&bench.group, &bench.settings, bench.now_ms);
    bench.ask(plain("a", -1)).unwrap();
    assert_eq!(memory.taken(), 0);
}

#[test]
fn a_member_that_brings_no_more_than_before_goes_on_when_all_memory_is_taken() {
    let memory = GroupMemory::new(10_000);
    let mut bench = Bench::ready();
    let told = bench.ask(joining_within(&memory, 500)).unwrap();
    let offsets = |n: i64| Some(BTreeMap::from([(("x".to_owned(), 0), n)]));
    let with = |n: i64, (bytes, of_offsets): (usize, usize)| {
        let mut beat = StreamsHeartbeat {
            offsets: offsets(n),
            ..plain("a", told.member_epoch)
        };
        beat.reserved.member = Some(memory.reserve_anyway(bytes));
        beat.reserved.offsets = Some(memory.reserve_anyway(of_offsets));
        beat
    };
    bench.ask(with(1, (500, 100))).unwrap();
    let _others = memory.reserve_anyway(10_000);
    bench.ask(with(2, (500, 100))).unwrap();
    let known = |bench: &Bench| Some(bench.group.members["a"].offsets.clone());
    assert_eq!(known(&bench), offsets(2));
    // There is no room for more offsets, and no error.
    bench.ask(with(3, (500, 101))).unwrap();
    assert_eq!(known(&bench), offsets(2));
    let (refused, _) = bench.ask(with(4, (501, 100))).unwrap_err();
    assert_eq!(refused, GroupError::GroupMaxSizeReached);
}
