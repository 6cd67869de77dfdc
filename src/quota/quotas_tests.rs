//! Whom quotas hold, for how long, and who is known to be throttled.

use super::*;
use crate::cluster::{Entity, EntityName};

const SAMPLES: Samples = Samples {
    count: 11,
    ms: 1000,
};
const OPTIONS: Options = Options {
    samples: SAMPLES,
    controller_samples: SAMPLES,
};
const ALICE: Who<'static> = Who {
    user: "alice",
    client_id: "a",
};
const BOB: Who<'static> = Who {
    user: "bob",
    client_id: "a",
};

fn with(kind: QuotaKind, limits: &[(Entity, f64)]) -> (Quotas, Instant) {
    let quotas = Quotas::new(OPTIONS);
    quotas.set_rules(Rules::of_kind(kind, limits));
    let began = quotas.began;
    (quotas, began)
}

fn client(name: &str) -> Entity {
    Entity::Client(EntityName::new(Some(name)))
}

#[test]
fn a_client_waits_for_what_it_did_and_another_one_does_not() {
    let limits = [(Entity::user("alice"), 100.0), (Entity::user("bob"), 100.0)];
    let (quotas, now) = with(QuotaKind::Produce, &limits);
    let charge = |who, amount| quotas.charge(QuotaKind::Produce, who, amount, now);
    assert_eq!(charge(ALICE, 1010.0), Duration::from_millis(100));
    let other_client = Who {
        client_id: "b",
        ..ALICE
    };
    assert_eq!(charge(other_client, 1.0), Duration::from_millis(110));
    assert_eq!(charge(BOB, 1000.0), Duration::ZERO);
    let nobody = Who {
        user: "carol",
        client_id: "a",
    };
    assert_eq!(charge(nobody, 1e9), Duration::ZERO);
    assert!(!quotas.has(QuotaKind::Fetch) && quotas.has_any());
    assert_eq!(quotas.counts(now).len(), 2);
}

#[test]
fn of_a_client_id_all_users_count_together_and_of_both_none() {
    let kind = QuotaKind::Fetch;
    let (quotas, now) = with(kind, &[(client("a"), 10.0)]);
    quotas.charge(kind, ALICE, 60.0, now);
    assert!(quotas.charge(kind, BOB, 60.0, now) > Duration::ZERO);
    let all = Entity::UserClient(EntityName::Default, EntityName::Default);
    quotas.set_rules(Rules::of_kind(kind, &[(all, 10.0)]));
    // They are counted otherwise now, and begin anew.
    quotas.charge(kind, ALICE, 60.0, now);
    assert_eq!(quotas.charge(kind, BOB, 60.0, now), Duration::ZERO);
}

#[test]
fn a_limit_that_is_changed_is_held_against_what_was_done_before() {
    let kind = QuotaKind::Produce;
    let (quotas, now) = with(kind, &[(client("a"), 100.0)]);
    assert_eq!(quotas.charge(kind, ALICE, 1000.0, now), Duration::ZERO);
    quotas.set_rules(Rules::of_kind(kind, &[(client("a"), 50.0)]));
    assert_eq!(
        quotas.charge(kind, ALICE, 0.0, now),
        Duration::from_millis(10_100)
    );
    assert_eq!(quotas.left(kind, ALICE, now), Some(-500.0));
    quotas.set_rules(Rules::default());
    assert_eq!(quotas.charge(kind, ALICE, 1e9, now), Duration::ZERO);
    assert_eq!(quotas.left(kind, ALICE, now), None);
    assert!(quotas.counts(now).is_empty());
}

#[test]
fn what_is_more_than_is_left_is_not_given_but_to_who_had_nothing() {
    let (quotas, now) = with(QuotaKind::Fetch, &[(client("a"), 100.0)]);
    let give = |amount| quotas.charge_fetch(ALICE, amount, now);
    let given = |is_given, ms| Given {
        is_given,
        throttle: Duration::from_millis(ms),
    };
    assert_eq!(give(900.0), given(true, 0));
    assert_eq!(give(150.0), given(false, 500));
    assert_eq!(quotas.left(QuotaKind::Fetch, ALICE, now), Some(100.0));
    assert_eq!(give(100.0), given(true, 0));
    let later = now + Duration::from_secs(20);
    let large = quotas.charge_fetch(ALICE, 3000.0, later);
    assert_eq!(large, given(true, 20_000));
    let nobody = Who {
        user: "u",
        client_id: "",
    };
    assert_eq!(quotas.charge_fetch(nobody, 1e9, now), given(true, 0));
}

#[test]
fn a_request_waits_for_one_window_at_most() {
    let kind = QuotaKind::Request;
    let (quotas, now) = with(kind, &[(client("a"), 1.0)]);
    let throttle = quotas.charge(kind, ALICE, 1000.0, now);
    assert_eq!(throttle, Duration::from_secs(1));
}

#[test]
fn partitions_are_made_while_there_are_tokens_and_refused_then() {
    let kind = QuotaKind::ControllerMutation;
    let (quotas, now) = with(kind, &[(Entity::user("alice"), 1.0)]);
    // There are eleven at first.
    assert_eq!(quotas.charge_strictly(ALICE, 10.0, now), Ok(()));
    assert_eq!(quotas.charge_strictly(ALICE, 5.0, now), Ok(()));
    let wait = Duration::from_secs(4);
    assert_eq!(quotas.charge_strictly(ALICE, 1.0, now), Err(wait));
    // What is refused does not count; what is not refused does whatever there is.
    assert_eq!(quotas.charge_strictly(ALICE, 1.0, now), Err(wait));
    let throttle = quotas.charge(kind, ALICE, 1.0, now);
    assert_eq!(throttle, wait + Duration::from_secs(1));
    assert_eq!(quotas.charge_strictly(BOB, 1e9, now), Ok(()));
    assert_eq!(quotas.counts(now)[0].tokens, Some(-5.0));
}

#[test]
fn who_is_throttled_is_known_with_the_rule_and_since_when() {
    let kind = QuotaKind::Produce;
    let (quotas, now) = with(kind, &[(client("a"), 100.0)]);
    let after = |ms| now + Duration::from_millis(ms);
    let second = Duration::from_secs(1);
    quotas.note_throttled(kind, ALICE, second, now);
    quotas.note_throttled(kind, BOB, second, after(2500));
    let counts = quotas.counts(after(3000));
    assert_eq!(counts.len(), 1);
    let shown = &counts[0];
    assert_eq!((&*shown.user, &*shown.client_id), ("", "a"));
    assert_eq!(*shown.rule.entity, client("a"));
    let throttling = shown.throttling.unwrap();
    assert_eq!(throttling.since, Duration::from_secs(3));
    assert_eq!(throttling.last, second);
    assert_eq!((shown.throttles, shown.throttled_for), (2, 2 * second));
    assert_eq!(quotas.counts(after(5500))[0].throttling, None);
}

#[test]
fn an_address_makes_its_connections_a_second_and_what_is_refused_does_not_count() {
    let quotas = Quotas::new(OPTIONS);
    let now = quotas.began;
    let [one, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
    assert_eq!(quotas.connect(one, now), Duration::ZERO);
    quotas.set_rules(Rules::of_ips(&[(one, 2.0)], None));
    for _ in 0..20 {
        assert_eq!(quotas.connect(one, now), Duration::ZERO);
    }
    // One more would be 0.1 a second too much over ten.
    for _ in 0..3 {
        assert_eq!(quotas.connect(one, now), Duration::from_millis(500));
    }
    assert_eq!(quotas.connect(other, now), Duration::ZERO);
    for _ in 0..1000 {
        assert_eq!(quotas.connect_any(100.0, now), Duration::ZERO);
    }
    assert_eq!(quotas.connect_any(100.0, now), Duration::from_millis(10));
}

#[test]
fn counts_that_are_as_new_make_room_for_others() {
    let kind = QuotaKind::Fetch;
    let all = Entity::Client(EntityName::Default);
    let (quotas, now) = with(kind, &[(all, 100.0)]);
    let rounds = 20;
    for round in 0..rounds {
        let now = now + Duration::from_secs(20 * round);
        for n in 0..2 * SHARDS * SHARD_COUNTS_MIN {
            let client_id = &format!("{round}-{n}");
            let who = Who { client_id, ..ALICE };
            quotas.charge(kind, who, 1.0, now);
        }
    }
    let held: usize = quotas.shards.iter().map(|shard| shard.lock().len()).sum();
    let all = rounds as usize * 2 * SHARDS * SHARD_COUNTS_MIN;
    assert!(held < all / 3, "{held} of {all}");
}

#[test]
fn many_threads_are_counted_to_the_last_one() {
    let kind = QuotaKind::Produce;
    let (quotas, now) = with(kind, &[(Entity::user("alice"), 1e12)]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    quotas.charge(kind, ALICE, 10.0, now);
                }
            });
        }
    });
    assert_eq!(quotas.counts(now)[0].rate, 4000.0);
}
