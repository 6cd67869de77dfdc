//! Members of the classic protocol, and groups that change between the protocols.

use super::*;

#[test]
fn a_classic_member_beside_a_new_one_gives_up_and_joins_again() {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.join("a", &["t"]);
    let given = bench.join_classic(&classic("", &[])).unwrap();
    assert_eq!((given.generation, &*given.member_id), (-1, "new-c"));
    let b = bench.join_classic(&classic("new-c", &[])).unwrap();
    assert_eq!((b.generation, b.protocol.as_deref()), (3, Some("range")));
    assert_eq!((&*b.leader, b.members.len()), ("", 0), "nobody leads");
    assert_eq!(bench.sync_classic("new-c", 3), Ok(Has::new()));
    assert_eq!(
        bench.heartbeat_classic("new-c", 3),
        Ok(()),
        "others still have its part"
    );
    bench.beat(plain("a", 2)).unwrap();
    bench.has("a", 2, &has("t", &[0, 1]));
    let rejoin = Err(GroupError::RebalanceInProgress);
    assert_eq!(bench.heartbeat_classic("new-c", 3), rejoin);
    let b = bench.join_classic(&classic("new-c", &[])).unwrap();
    assert_eq!(
        bench.sync_classic("new-c", b.generation),
        Ok(has("t", &[2, 3]))
    );
    // A third one: the classic member has to give something up, and says so by joining.
    bench.join("d", &["t"]);
    bench.join("e", &["t"]);
    assert_eq!(bench.heartbeat_classic("new-c", b.generation), rejoin);
    let b = bench.join_classic(&classic("new-c", &[2, 3])).unwrap();
    let kept = bench.sync_classic("new-c", b.generation).unwrap();
    assert_eq!(kept["t"].len(), 1);
    assert_eq!(bench.heartbeat_classic("new-c", b.generation), rejoin);
    let b = bench.join_classic(&classic("new-c", &kept["t"])).unwrap();
    assert_eq!(bench.sync_classic("new-c", b.generation), Ok(kept));
    assert_eq!(bench.heartbeat_classic("new-c", b.generation), Ok(()));
    let wrong = bench.heartbeat_classic("new-c", 2);
    assert_eq!(wrong, Err(GroupError::IllegalGeneration));
    assert_eq!(
        bench.heartbeat_classic("a", 3),
        Err(GroupError::UnknownMemberId)
    );
    bench.settings.migration = MigrationPolicy::Disabled;
    let refused = bench.join_classic(&classic("new-c", &[]));
    assert_eq!(refused, Err(GroupError::InconsistentGroupProtocol));
}

#[test]
fn when_the_last_new_member_leaves_the_group_is_classic_again_with_the_same_partitions() {
    let mut bench = Bench::new(&[("t", 4)]);
    bench.join("a", &["t"]);
    bench.join_classic(&classic("b", &[])).unwrap();
    bench.beat(plain("a", 2)).unwrap();
    bench.has("a", 2, &has("t", &[0, 1]));
    let b = bench.join_classic(&classic("b", &[])).unwrap();
    assert_eq!(bench.sync_classic("b", b.generation), Ok(has("t", &[2, 3])));
    assert!(!bench.group.is_to_be_classic(&bench.settings));
    bench.beat(plain("a", -1)).unwrap();
    assert!(bench.group.is_to_be_classic(&bench.settings));
    let (mut classic_group, rebalances) = bench.group.to_classic(9_000, &bench.topics);
    assert!(rebalances, "what the other had is nobody's");
    assert_eq!(
        classic_group.generation, b.generation,
        "it commits in its epoch"
    );
    assert_eq!(classic_group.members.len(), 1);
    let has_now = assigned_partitions(&classic_group.members["b"].assignment).unwrap();
    assert_eq!(has_now, [("t".to_owned(), vec![2, 3])]);
    // And to a consumer group again: the member keeps what it has.
    let limits = Limits {
        initial_rebalance_delay_ms: 0,
        members_max: 10,
        alone: false,
    };
    classic_group.rebalance_because(9_000, "a test", &limits);
    let with = (&bench.settings, &bench.topics as &dyn Topics);
    let again = ConsumerGroup::of_classic(9_001, "g", &classic_group, with).unwrap();
    let member = &again.members["b"];
    assert_eq!(
        (member.epoch, again.epoch),
        (classic_group.generation, classic_group.generation)
    );
    assert_eq!(member.assigned.iter().count(), 2);
    bench.settings.migration = MigrationPolicy::Downgrade;
    let with = (&bench.settings, &bench.topics as &dyn Topics);
    let refused = ConsumerGroup::of_classic(9_001, "g", &classic_group, with).unwrap_err();
    assert_eq!(refused.error, GroupError::GroupIdNotFound);
}

#[test]
fn a_group_on_its_way_rebalances_when_it_becomes_classic() {
    let mut bench = Bench::new(&[("t", 4)]);
    let static_new = ConsumerHeartbeat {
        instance_id: Some("i".to_owned()),
        ..joining("a", &["t"])
    };
    bench.beat(static_new).unwrap();
    bench.join_classic(&classic("b", &[])).unwrap();
    // The static member comes back as a classic one before it has given anything up.
    let request = JoinRequest {
        instance_id: Some("i".to_owned()),
        member_id: String::new(),
        ..classic("", &[0, 1, 2, 3])
    };
    bench.join_classic(&request).unwrap();
    assert!(bench.group.is_to_be_classic(&bench.settings));
    let (classic_group, rebalances) = bench.group.to_classic(9_000, &bench.topics);
    assert!(rebalances);
    let mut all = Vec::new();
    for member in classic_group.members.values() {
        for (_, partitions) in assigned_partitions(&member.assignment).unwrap() {
            all.extend(partitions);
        }
    }
    let distinct: std::collections::BTreeSet<i32> = all.iter().copied().collect();
    assert_eq!(
        all.len(),
        distinct.len(),
        "nobody is given what another one has: {all:?}"
    );
}
