//! What no application may do, and what must not go on for ever.

use super::*;

#[test]
fn a_topology_that_can_never_run_is_refused_before_its_topics_are_there() {
    let mut bench = Bench::new(&[]);
    let part = Subtopology {
        source_topics: names(&["in"]),
        copartition_groups: vec![CopartitionGroup {
            source_topics: vec![1],
            ..CopartitionGroup::default()
        }],
        ..Subtopology::default()
    };
    let negative = Subtopology {
        source_topics: names(&["in"]),
        changelog_topics: vec![internal("counts", -1)],
        ..Subtopology::default()
    };
    for part in [part, negative] {
        let refused = bench.ask(joining("a", "p", topology([part]))).unwrap_err();
        assert_eq!(refused.0, GroupError::StreamsInvalidTopology);
    }
    assert!(bench.group.topology.is_none());
}

#[test]
fn an_application_of_too_many_tasks_is_told_so_and_given_none() {
    let mut bench = Bench::new(&[("in", 1000)]);
    let part = || Subtopology {
        source_topics: names(&["in"]),
        ..Subtopology::default()
    };
    let told = bench
        .ask(joining("a", "p", topology((0..101).map(|_| part()))))
        .unwrap();
    assert_eq!(codes(&told), [StatusCode::IncorrectlyPartitionedTopics]);
    assert_eq!(
        told.statuses[0].detail,
        "The application has more than 100000 tasks"
    );
    assert_eq!(active(&told), []);
    let mut bench = Bench::new(&[("in", 1000)]);
    let told = bench
        .ask(joining("a", "p", topology((0..100).map(|_| part()))))
        .unwrap();
    assert_eq!(active(&told).len(), 100);
}

#[test]
fn a_long_chain_of_repartition_topics_is_followed() {
    let parts = (0..3000).map(|n| Subtopology {
        source_topics: names(&["in"]),
        repartition_sink_topics: names(&[&format!("r{}", n + 1)]),
        repartition_source_topics: vec![internal(&format!("r{n}"), i32::from(n % 2 == 0))],
        copartition_groups: vec![
            CopartitionGroup {
                repartition_source_topics: vec![0],
                ..CopartitionGroup::default()
            };
            3
        ],
        ..Subtopology::default()
    });
    let topics = SomeTopics::new(&[("in", 1)]);
    let found = Readiness::of(&topology(parts), &topics).unwrap();
    assert_eq!(found.to_create.len(), 3000);
}

#[test]
fn missing_topics_are_made_by_one_member_at_a_time() {
    let mut bench = Bench::new(&[("in", 2)]);
    let told = bench.join("a", "p");
    assert_eq!(told.to_create.len(), 2);
    let other = bench.join("b", "q");
    assert_eq!(other.to_create, [], "a is at it");
    bench.now_ms += 5000;
    let other = bench.ask(plain("b", other.member_epoch)).unwrap();
    assert_eq!(other.to_create.len(), 2, "a did not get them");
}

#[test]
fn offsets_of_any_size_rank_copies_and_a_refused_leave_ends_nothing() {
    let mut bench = Bench::ready();
    let offsets = BTreeMap::from([(("1".to_owned(), 0), i64::MIN)]);
    let beat = StreamsHeartbeat {
        offsets: Some(offsets),
        ..joining("a", "p", counting())
    };
    let a = bench.ask(beat).unwrap();
    let leave = StreamsHeartbeat {
        shuts_down: true,
        ..plain("nobody", -1)
    };
    assert!(bench.ask(leave).is_err());
    let told = bench.ask(plain("a", a.member_epoch)).unwrap();
    assert_eq!(codes(&told), []);
}

#[test]
fn a_clock_that_went_back_does_not_delay_the_first_target_for_as_long() {
    let mut bench = Bench::ready();
    bench.settings.initial_rebalance_delay_ms = 3000;
    bench.now_ms = 4_000_000;
    let a = bench.join("a", "p");
    bench.now_ms = 400_000;
    let told = bench.ask(plain("a", a.member_epoch)).unwrap();
    assert_eq!(codes(&told), []);
    assert_eq!(active(&told).len(), 2);
}
