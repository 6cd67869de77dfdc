//! Partitions whose order is strict: the home broker leads, or nobody.

use super::*;

/// What becomes of it where its order is strict, any replica might lead by its settings, and some brokers are in other registrations.
fn strictly(
    before: &PartitionInfo,
    live: &BTreeMap<i32, Broker>,
    returned: &Returned,
) -> PartitionInfo {
    let after = settled(before, strict(live), returned);
    after.unwrap_or_else(|| before.clone())
}

fn strict(live: &BTreeMap<i32, Broker>) -> Rules<'_> {
    Rules {
        unclean: true,
        strict: true,
        ..rules(live, 1)
    }
}

#[test]
fn in_strict_order_the_home_broker_is_waited_for_and_leads_when_it_is_back() {
    let led = partition(&[1, 2, 3]);
    let none = returned(&[], &[]);
    let waits = strictly(&led, &brokers(&[2, 3]), &none);
    assert_eq!(
        (state(&waits), epochs(&waits)),
        ((-1, vec![1, 2, 3], vec![]), (1, 1))
    );
    // Nothing is added meanwhile: who restarts is in sync all the same, and who has less is not.
    let waits = strictly(&waits, &brokers(&[2, 3]), &returned(&[2, 3], &[3]));
    assert_eq!(state(&waits), (-1, vec![1, 2], vec![]));
    let back = strictly(&waits, &brokers(&[1, 2, 3]), &returned(&[1], &[]));
    assert_eq!(
        (state(&back), epochs(&back)),
        ((1, vec![1, 2], vec![]), (2, 3))
    );
    // A restart that nobody saw, and one of all.
    let again = strictly(&led, &brokers(&[1, 2, 3]), &returned(&[1], &[]));
    assert_eq!(
        (state(&again), epochs(&again)),
        ((1, vec![1, 2, 3], vec![]), (1, 1))
    );
    let again = strictly(&led, &brokers(&[1, 2, 3]), &returned(&[1, 2, 3], &[]));
    assert_eq!(state(&again), (1, vec![1], vec![]));
    // Followers come and go as in any order.
    let alone = strictly(&led, &brokers(&[1]), &none);
    assert_eq!(
        (state(&alone), epochs(&alone)),
        ((1, vec![1], vec![]), (0, 1))
    );
}

#[test]
fn in_strict_order_a_broker_that_stops_or_is_drained_leads_until_it_is_gone() {
    let led = partition(&[1, 2]);
    let mut live = brokers(&[1, 2]);
    let drained = BTreeSet::from([1]);
    let drained = Rules {
        drained: &drained,
        ..strict(&live)
    };
    assert_eq!(settled(&led, drained, &Returned::default()), None);
    live.get_mut(&1).unwrap().shutting_down = true;
    assert_eq!(settled(&led, strict(&live), &Returned::default()), None);
    // So is a follower that stops out of sync, as in any order.
    live.get_mut(&1).unwrap().shutting_down = false;
    live.get_mut(&2).unwrap().shutting_down = true;
    let after = strictly(&led, &live, &Returned::default());
    assert_eq!(state(&after), (1, vec![1], vec![]));
}

#[test]
fn in_strict_order_a_home_broker_that_lost_something_leads_no_more_until_it_has_all() {
    let led = partition(&[1, 2, 3]);
    let all = brokers(&[1, 2, 3]);
    let waits = strictly(&led, &all, &returned(&[1], &[1]));
    assert_eq!(state(&waits), (-1, vec![2, 3], vec![]));
    assert_eq!(strictly(&waits, &all, &returned(&[1, 2, 3], &[])), waits);
    // The operator has another one lead; the home broker copies, and leads once it has all.
    let fails_over = |info: &PartitionInfo| {
        let mut change = Change::of(info, strict(&all));
        change.preference = Preference::AnyInSync;
        change.made().unwrap()
    };
    let second = fails_over(&waits);
    assert_eq!(state(&second), (2, vec![2, 3], vec![]));
    // That one is waited for like the home broker, as long as the latter has less.
    let gone = strictly(&second, &brokers(&[1, 3]), &Returned::default());
    assert_eq!(state(&gone), (-1, vec![2, 3], vec![]));
    assert_eq!(strictly(&gone, &all, &returned(&[2], &[])).leader, 2);
    let mut change = Change::of(&second, strict(&all));
    change.isr = vec![1, 2, 3];
    let home = change.made().unwrap();
    assert_eq!(state(&home), (1, vec![1, 2, 3], vec![]));
    assert_eq!(home.leader_epoch, second.leader_epoch + 1);
    // Alone, it leads with what it has.
    let alone = strictly(&led, &brokers(&[1]), &Returned::default());
    let back = strictly(&alone, &brokers(&[1]), &returned(&[1], &[1]));
    assert_eq!(state(&back), (1, vec![1], vec![]));
}

#[test]
fn in_strict_order_a_reassignment_gives_the_lead_to_the_new_home_when_it_is_over() {
    let live = brokers(&[1, 2, 3, 4]);
    let mut moving = partition(&[3, 4, 1, 2]);
    (moving.isr, moving.leader) = (vec![1, 2], 1);
    (moving.adding, moving.removing) = (vec![3, 4], vec![1, 2]);
    let propose = |info: &PartitionInfo, isr: &[i32]| {
        let mut change = Change::of(info, strict(&live));
        change.isr = isr.to_vec();
        change.made().unwrap()
    };
    let on_the_way = propose(&moving, &[1, 2, 3]);
    assert_eq!(state(&on_the_way), (1, vec![3, 1, 2], vec![]));
    // The old home broker is waited for meanwhile.
    let waits = strictly(&on_the_way, &brokers(&[2, 3, 4]), &Returned::default());
    assert_eq!(state(&waits), (-1, vec![3, 1, 2], vec![]));
    assert_eq!(strictly(&waits, &live, &returned(&[1], &[])).leader, 1);
    let done = propose(&on_the_way, &[1, 2, 3, 4]);
    assert_eq!(
        (state(&done), done.replicas),
        ((3, vec![3, 4], vec![]), vec![3, 4])
    );
}

#[test]
fn in_strict_order_a_reassignment_is_over_when_those_that_stay_are_in_sync_too() {
    let mut moving = partition(&[2, 3, 1]);
    (moving.isr, moving.leader) = (vec![1], 1);
    (moving.adding, moving.removing) = (vec![3], vec![1]);
    for live in [brokers(&[1, 2, 3]), brokers(&[1, 3])] {
        let mut change = Change::of(&moving, strict(&live));
        change.isr = vec![1, 3];
        let after = change.made().unwrap();
        assert_eq!(
            (state(&after), &after.replicas),
            ((1, vec![3, 1], vec![]), &vec![2, 3, 1])
        );
        // The one that stays is back, with less than is committed.
        let all = brokers(&[1, 2, 3]);
        let back = strictly(&after, &all, &returned(&[2], &[]));
        assert_eq!(state(&back), (1, vec![3, 1], vec![]));
        let mut change = Change::of(&back, strict(&all));
        change.isr = vec![1, 2, 3];
        let done = change.made().unwrap();
        assert_eq!(
            (state(&done), done.replicas),
            ((2, vec![2, 3], vec![]), vec![2, 3])
        );
    }
}
