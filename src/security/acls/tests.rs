use proptest::prelude::*;

use super::super::binding::Binding;
use super::*;

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn pattern(kind: PatternKind, name: &str) -> Pattern {
    Pattern {
        resource: ResourceKind::Topic,
        kind,
        name: name.to_owned(),
    }
}

fn entry(who: &str, host: &str, operation: Operation, permission: Permission) -> Entry {
    Entry {
        principal: who.to_owned(),
        host: host.to_owned(),
        operation,
        permission,
    }
}

fn allow(who: &str, operation: Operation) -> Entry {
    entry(who, "*", operation, Permission::Allow)
}

fn say(acls: &Acls, who: &str, operation: Operation, name: &str) -> Finding {
    let who = Principal::user(who);
    acls.say((&who, HOST), operation, (ResourceKind::Topic, name))
}

#[test]
fn reading_implies_describing_and_denying_to_read_does_not_deny_it() {
    let literal = pattern(PatternKind::Literal, "t");
    let acls = Acls::new([(literal.clone(), vec![allow("User:a", Operation::Read)])]);
    assert_eq!(say(&acls, "a", Operation::Describe, "t"), Finding::Allowed);
    assert_eq!(say(&acls, "a", Operation::Write, "t"), Finding::NotNamed);
    assert_eq!(say(&acls, "b", Operation::Read, "t"), Finding::NotNamed);
    assert_eq!(say(&acls, "a", Operation::Read, "u"), Finding::NoAcls);
    let deny = entry("User:*", "*", Operation::Read, Permission::Deny);
    let both = vec![allow("User:a", Operation::Write), deny];
    let acls = acls.with([(literal, both)]);
    assert_eq!(say(&acls, "a", Operation::Describe, "t"), Finding::Allowed);
    assert_eq!(say(&acls, "a", Operation::Read, "t"), Finding::Denied);
}

#[test]
fn all_prefixes_of_a_name_are_found() {
    let prefixed = |name: &str| pattern(PatternKind::Prefixed, name);
    let names = ["a", "ab", "abd", "b", "abcde", "aé"];
    let acls = Acls::new(names.map(|name| {
        let who = format!("User:{name}");
        (prefixed(name), vec![allow(&who, Operation::Read)])
    }));
    let allowed = |name: &str| {
        let is_allowed = |who: &&str| say(&acls, who, Operation::Read, name) == Finding::Allowed;
        names.into_iter().filter(is_allowed).collect::<Vec<_>>()
    };
    assert_eq!(allowed("abcd"), ["a", "ab"]);
    assert_eq!(allowed("abcdef"), ["a", "ab", "abcde"]);
    assert_eq!(allowed("aéx"), ["a", "aé"]);
    assert_eq!(allowed("c"), [""; 0]);
}

#[test]
fn a_change_counts_and_a_pattern_without_entries_goes() {
    let (a, b) = (
        pattern(PatternKind::Literal, "a"),
        pattern(PatternKind::Prefixed, "b"),
    );
    let two = vec![
        allow("User:x", Operation::Read),
        allow("User:y", Operation::Read),
    ];
    let acls = Acls::new([(a.clone(), two.clone()), (b.clone(), two.clone())]);
    assert_eq!((acls.count(), acls.patterns().count()), (4, 2));
    let doubled = [two.clone(), two.clone()].concat();
    let acls = acls.with([(a.clone(), Vec::new()), (b.clone(), doubled)]);
    assert_eq!((acls.count(), acls.entries(&b)), (2, &two[..]));
    assert!(acls.entries(&a).is_empty());
    assert_eq!(acls.find(&Filter::ALL).count(), 2);
}

/// The rules of Kafka's documentation, one binding after the other.
fn naive(bindings: &[Binding], who: &str, operation: Operation, name: &str) -> Finding {
    use Operation as Op;
    let has_resource = |binding: &&Binding| match binding.pattern.kind {
        PatternKind::Literal => binding.pattern.name == name || binding.pattern.name == "*",
        PatternKind::Prefixed => name.starts_with(&binding.pattern.name),
    };
    let of_resource: Vec<&Binding> = bindings.iter().filter(has_resource).collect();
    let who = format!("User:{who}");
    let of_who = of_resource
        .iter()
        .map(|binding| &binding.entry)
        .filter(|entry| {
            (entry.principal == who || entry.principal == "User:*")
                && (entry.host == "*" || entry.host == "10.0.0.1" || entry.host == "10.0.0.0/8")
        });
    let implied = |own: Op| {
        own == Op::All
            || own == operation
            || operation == Op::Describe
                && [Op::Read, Op::Write, Op::Delete, Op::Alter].contains(&own)
            || operation == Op::DescribeConfigs && own == Op::AlterConfigs
    };
    let denied = |entry: &&Entry| {
        entry.permission == Permission::Deny
            && (entry.operation == operation || entry.operation == Op::All)
    };
    let allowed =
        |entry: &&Entry| entry.permission == Permission::Allow && implied(entry.operation);
    if of_who.clone().any(|entry| denied(&entry)) {
        Finding::Denied
    } else if of_who.clone().any(|entry| allowed(&entry)) {
        Finding::Allowed
    } else if of_resource.is_empty() {
        Finding::NoAcls
    } else {
        Finding::NotNamed
    }
}

/// Kafka's Authorizer.authorizeByResourceType, after its first question.
fn naive_some(bindings: &[Binding], who: &str, operation: Operation) -> bool {
    let who = format!("User:{who}");
    let of_who = |permission| {
        let who = who.clone();
        let entries = bindings.iter().filter(move |binding| {
            let entry = &binding.entry;
            (entry.principal == who || entry.principal == "User:*")
                && entry.host != "10.0.0.2"
                && (entry.operation == operation || entry.operation == Operation::All)
                && entry.permission == permission
        });
        entries.map(|binding| &binding.pattern).collect::<Vec<_>>()
    };
    let (denied, allowed) = (of_who(Permission::Deny), of_who(Permission::Allow));
    let every = pattern(PatternKind::Literal, "*");
    if denied.contains(&&every) {
        return false;
    }
    let is_free = |pattern: &&Pattern| {
        let is_same = pattern.kind == PatternKind::Literal && denied.contains(pattern);
        let is_below = denied.iter().any(|denied| {
            denied.kind == PatternKind::Prefixed && pattern.name.starts_with(&denied.name)
        });
        !is_same && !is_below
    };
    allowed.contains(&&every) || allowed.iter().any(is_free)
}

fn any_binding() -> impl Strategy<Value = Binding> {
    let kinds = prop::sample::select(PatternKind::ALL);
    let names = prop_oneof![3 => "[ab]{1,4}", 1 => Just("*".to_owned())];
    let who = prop::sample::select(vec!["User:a", "User:b", "User:*"]);
    let hosts = prop::sample::select(vec!["*", "10.0.0.1", "10.0.0.2", "10.0.0.0/8"]);
    let operations = prop::sample::select(vec![
        Operation::All,
        Operation::Read,
        Operation::Write,
        Operation::Describe,
        Operation::AlterConfigs,
        Operation::DescribeConfigs,
    ]);
    let permissions = prop::sample::select(Permission::ALL);
    (kinds, names, who, hosts, operations, permissions).prop_map(
        |(kind, name, who, host, operation, permission)| Binding {
            pattern: pattern(kind, &name),
            entry: entry(who, host, operation, permission),
        },
    )
}

fn gathered(bindings: &[Binding]) -> Acls {
    let mut patterns: BTreeMap<Pattern, Vec<Entry>> = BTreeMap::new();
    for binding in bindings {
        let entries = patterns.entry(binding.pattern.clone()).or_default();
        entries.push(binding.entry.clone());
    }
    Acls::new(patterns)
}

proptest! {
    #[test]
    fn decisions_are_those_of_looking_at_every_binding(
        bindings in prop::collection::vec(any_binding(), 0..12),
        name in "[ab]{1,5}",
        who in "[abc]",
    ) {
        let acls = gathered(&bindings);
        for operation in Operation::ALL {
            prop_assert_eq!(
                say(&acls, &who, *operation, &name),
                naive(&bindings, &who, *operation, &name)
            );
            let principal = Principal::user(&who);
            prop_assert_eq!(
                acls.allow_some((&principal, HOST), *operation, ResourceKind::Topic),
                naive_some(&bindings, &who, *operation)
            );
        }
    }

    #[test]
    fn a_filter_that_matches_a_name_finds_what_is_decided_by(
        bindings in prop::collection::vec(any_binding(), 0..12),
        name in "[ab]{1,5}",
    ) {
        use super::super::filter::WantedKind;
        let acls = gathered(&bindings);
        let filter = Filter { kind: WantedKind::Match, name: Some(name.clone()), ..Filter::ALL };
        let found = acls.find(&filter).count();
        let expected = say(&acls, "nobody", Operation::Create, &name) != Finding::NoAcls;
        prop_assert_eq!(found > 0, expected);
    }
}
