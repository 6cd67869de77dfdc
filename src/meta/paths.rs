//! Where everything is in the coordination tree, below the root. No other module spells a path.
//!
//! Names that clients choose (topics, groups, members) are escaped so that each is one path element that ZooKeeper takes:
//! `/`, `%`, control characters and those beyond the reach of ZooKeeper's check of paths as `%xx` for each of their bytes in
//! UTF-8, and the names `.` and `..` too.

use std::fmt::Write;

use data_encoding::HEXLOWER_PERMISSIVE;

/// What every broker watches, with everything below.
pub const WATCHED: &[&str] = &[
    "/brokers",
    "/controller",
    "/coordinators",
    "/config",
    ACLS,
    TOKENS,
];
/// One marker a session, by which a broker learns whether a change was made before its connection was lost.
pub const SESSIONS: &str = "/sessions";
/// Live brokers.
pub const BROKERS: &str = "/brokers/ids";
/// Which broker is the controller.
pub const CONTROLLER: &str = "/controller";
/// Counts controllers; every change that a controller makes checks its version.
pub const CONTROLLER_EPOCH: &str = "/controller_epoch";
/// Which broker coordinates which groups and transactional ids.
pub const COORDINATORS: &str = "/coordinators";
/// Who takes messages for a topic.
pub const TOPICS_PUB: &str = "/brokers/topics-pub";
/// The cluster's id, created once.
pub const CLUSTER_ID: &str = "/cluster/id";
/// What makes salts for users who are not known, created once.
pub const UNKNOWN_USERS: &str = "/cluster/unknown-users";
/// All topics.
pub const TOPICS: &str = "/brokers/topics";
/// The registrations that all partitions have leaders for.
pub const SETTLED: &str = "/brokers/settled";
/// Topics whose deletion is not complete.
pub const DELETED: &str = "/brokers/deleted";
/// All groups.
pub const GROUPS: &str = "/consumers";
/// All transactional ids.
pub const TRANSACTIONS: &str = "/transactions";
/// Producers of transactions that have offsets for groups, by slot.
pub const PRODUCERS: &str = "/producers";
/// What share groups have done with the records of partitions.
pub const SHARES: &str = "/shares";
/// The next block of producer ids.
pub const PRODUCER_IDS: &str = "/producer-ids";

/// Whether a path is a node or below it.
pub fn is_at_or_below(path: &str, node: &str) -> bool {
    let below = path.strip_prefix(node.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Partitions of a topic whose state stands in one node.
pub const PARTITIONS_A_NODE: i32 = 100;

/// A topic: id, configuration overrides, identities and replicas of its partitions.
pub fn topic(topic: &str) -> String {
    child(TOPICS, topic)
}

/// The topic that a node at or below [`TOPICS`] belongs to.
pub fn topic_of(path: &str) -> Option<String> {
    child_of(TOPICS, path)
}

/// The state of a topic's partitions, where it is another one than at the beginning.
pub fn partition_states(topic_name: &str) -> String {
    format!("{}/partitions", topic(topic_name))
}

/// The state of [`PARTITIONS_A_NODE`] partitions from this one on.
pub fn partition_states_from(topic_name: &str, first: i32) -> String {
    format!("{}/{first}", partition_states(topic_name))
}

/// The first partition whose state stands in the same node.
pub fn first_beside(partition: i32) -> i32 {
    partition - partition % PARTITIONS_A_NODE
}

/// Partitions of a large topic whose identities and replicas stand in one node.
pub const ASSIGNMENTS_A_NODE: i32 = 1000;

/// Identities and replicas of a topic's partitions, where they are too many for its own node.
pub fn assignments(topic_name: &str) -> String {
    format!("{}/assignments", topic(topic_name))
}

/// Those of [`ASSIGNMENTS_A_NODE`] partitions from this one on.
pub fn assignments_from(topic_name: &str, first: i32) -> String {
    format!("{}/{first}", assignments(topic_name))
}

/// The marker of a session.
pub fn session_marker(session_id: i64) -> String {
    format!("{SESSIONS}/{session_id:016x}")
}

/// A broker: how often it registered.
pub fn broker(id: i32) -> String {
    format!("{BROKERS}/{id}")
}

/// A live broker: where it is. Ephemeral.
pub fn broker_master(id: i32) -> String {
    format!("{BROKERS}/{id}/master")
}

/// A slot of groups and transactional ids: who coordinates them.
pub fn coordinator_slot(slot: usize) -> String {
    format!("{COORDINATORS}/{slot}")
}

/// A child of a node, for a slot.
pub fn child_for_slot(root: &str, slot: usize) -> String {
    format!("{root}/{slot}")
}

/// The slot that a node below the children of `root` belongs to.
pub fn slot_of_child(root: &str, path: &str) -> Option<usize> {
    let below = path.strip_prefix(root)?.strip_prefix('/')?;
    below.split('/').next()?.parse().ok()
}

/// The last marker of a producer for the groups of a slot.
pub fn slot_producer(slot: usize, producer_id: i64) -> String {
    format!("{}/{producer_id}", child_for_slot(PRODUCERS, slot))
}

/// The producer whose last marker a node is.
pub fn producer_of(path: &str) -> Option<i64> {
    let (_, producer_id) = path
        .strip_prefix(PRODUCERS)?
        .strip_prefix('/')?
        .split_once('/')?;
    producer_id.parse().ok()
}

/// A child of a node, by a name that a client chose.
pub fn child(root: &str, name: &str) -> String {
    format!("{root}/{}", escape(name))
}

/// The name of the child that a node below `root` is, or is below.
pub fn child_of(root: &str, path: &str) -> Option<String> {
    let below = path.strip_prefix(root)?.strip_prefix('/')?;
    unescape(below.split('/').next()?)
}

/// Who takes messages for a topic.
pub fn topic_pubs(topic: &str) -> String {
    format!("{TOPICS_PUB}/{}", escape(topic))
}

/// How many partitions of a topic a broker takes messages for. Ephemeral.
pub fn topic_pub(topic: &str, broker_id: i32) -> String {
    format!("{}/{broker_id}-m", topic_pubs(topic))
}

/// A topic whose files may still be there; named by its id, because its name may be in use again.
pub fn deleted_topic(topic_id: uuid::Uuid) -> String {
    format!("{DELETED}/{topic_id}")
}

/// A transactional id: its producer, and its transaction.
pub fn transaction(id: &str) -> String {
    child(TRANSACTIONS, id)
}

/// Whether a node belongs to transactions.
pub fn is_of_transactions(path: &str) -> bool {
    let rest = path.strip_prefix(TRANSACTIONS);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is stored of a share partition, by its key.
pub fn share(key: &str) -> String {
    child(SHARES, key)
}

/// Parts the id of a broadcast group from what stands for one of its members; no client's group id has it.
pub const SOLO: char = '\0';

/// A group: type, generation, protocol, leader, members. What stands for a member of a broadcast group is below that, at
/// `broadcast/<kind>/<name>`.
pub fn group(group: &str) -> String {
    let mut parts = group.splitn(3, SOLO);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(kind), Some(name)) => {
            format!("{}/broadcast/{kind}/{}", child(GROUPS, group), escape(name))
        }
        _ => child(GROUPS, group),
    }
}

/// What stands for a member of a broadcast group, by a node at or below its own.
pub fn solo_of(group_id: &str, path: &str) -> Option<String> {
    let below = path.strip_prefix(GROUPS)?.strip_prefix('/')?;
    let mut elements = below.split('/').skip(1);
    let is_solo = elements.next()? == "broadcast";
    let (kind, name) = (elements.next()?, unescape(elements.next()?)?);
    is_solo.then(|| format!("{group_id}{SOLO}{kind}{SOLO}{name}"))
}

/// Who owns what in a group.
pub fn group_owners(group_id: &str) -> String {
    format!("{}/owners", group(group_id))
}

/// The member that owns a partition `brokerId-n`.
pub fn group_owner(group_id: &str, topic: &str, identity: &str) -> String {
    format!("{}/{}/{identity}", group_owners(group_id), escape(topic))
}

/// The members of a group.
pub fn group_ids(group_id: &str) -> String {
    format!("{}/ids", group(group_id))
}

/// One member.
pub fn group_member(group_id: &str, member: &str) -> String {
    format!("{}/{}", group_ids(group_id), escape(member))
}

/// Members of a consumer group of KIP-848.
pub fn consumer_members(group_id: &str) -> String {
    format!("{}/members", group(group_id))
}

/// One of them.
pub fn consumer_member(group_id: &str, member: &str) -> String {
    format!("{}/{}", consumer_members(group_id), escape(member))
}

/// The offsets of a group.
pub fn group_offsets(group_id: &str) -> String {
    format!("{}/offsets", group(group_id))
}

/// The offsets of a group in a topic.
pub fn group_topic_offsets(group_id: &str, topic: &str) -> String {
    format!("{}/{}", group_offsets(group_id), escape(topic))
}

/// The offset of a partition `brokerId-n`.
pub fn group_offset(group_id: &str, topic: &str, identity: &str) -> String {
    format!("{}/{identity}", group_topic_offsets(group_id, topic))
}

/// The parts of the large record of a node that a write of this number put.
pub fn parts(node: &str, number: u64) -> String {
    format!("{node}/parts/{number}")
}

/// One of them.
pub fn part(node: &str, number: u64, n: usize) -> String {
    format!("{}/{n}", parts(node, number))
}

/// The number of the write that put a part of a node's record, and which of its parts it is.
pub fn part_of(node: &str, path: &str) -> Option<(u64, usize)> {
    let below = path.strip_prefix(node)?.strip_prefix("/parts/")?;
    let (number, n) = below.split_once('/')?;
    Some((number.parse().ok()?, n.parse().ok()?))
}

/// The offsets that a producer's open transaction has for a group.
pub fn group_pending(group_id: &str, producer_id: i64) -> String {
    format!("{}/pending/{producer_id}", group(group_id))
}

/// Some of them.
pub fn group_pending_part(group_id: &str, producer_id: i64, n: u64) -> String {
    format!("{}/{n}", group_pending(group_id, producer_id))
}

/// What a node below [`GROUPS`] keeps that is read again.
#[derive(Debug, PartialEq, Eq)]
pub enum GroupNode<'a> {
    /// See [`group`].
    Group,
    /// See [`group_pending_part`].
    Pending {
        /// The producer's.
        producer_id: i64,
        /// Which of its parts.
        n: u64,
    },
    /// See [`group_offset`].
    Offset {
        /// The topic.
        topic: String,
        /// `brokerId-n`.
        identity: &'a str,
    },
    /// See [`consumer_member`], or a part of it.
    Member(String),
}

/// What a node at or below a group's keeps.
pub fn group_node(path: &str) -> Option<GroupNode<'_>> {
    let below = path.strip_prefix(GROUPS)?.strip_prefix('/')?;
    let elements: Vec<&str> = below.split('/').collect();
    let elements = match elements[..] {
        [_, "broadcast", _, _, ..] => &elements[3..],
        _ => &elements[..],
    };
    match *elements {
        [_] => Some(GroupNode::Group),
        [_, "pending", producer_id, n] => Some(GroupNode::Pending {
            producer_id: producer_id.parse().ok()?,
            n: n.parse().ok()?,
        }),
        [_, "members", member, ..] => Some(GroupNode::Member(unescape(member)?)),
        [_, "offsets", topic, identity] => Some(GroupNode::Offset {
            topic: unescape(topic)?,
            identity,
        }),
        _ => None,
    }
}

/// What is set at run time, below it by kind: see [`config`].
pub const CONFIG: &str = "/config";
/// The name under which a setting for all brokers is kept, as Kafka's in ZooKeeper.
pub const CONFIG_DEFAULT: &str = "<default>";

/// What was set at run time for a broker, a group, or a client metrics subscription: `/config/<kind>/<name>`, where the
/// kind is `brokers`, `groups` or `client-metrics`. Those of `users`, `clients` and `ips` are named by [`entity`]; a user's
/// client id has `/config/users/<user>/clients/<client id>`.
pub fn config(kind: &str, name: &str) -> String {
    format!("{CONFIG}/{kind}/{}", escape(name))
}

/// The element of a user, a client id or an address in [`CONFIG`], `None` for the default of its kind, whose element no name has.
pub fn entity(name: Option<&str>) -> String {
    match name.map(escape) {
        None => CONFIG_DEFAULT.to_owned(),
        Some(element) if element == CONFIG_DEFAULT => element.replace('<', "%3c"),
        Some(element) => element,
    }
}

/// Access control lists, below it by pattern: see [`acl`].
pub const ACLS: &str = "/acl";

/// Who may do what to the resources of a pattern: `/acl/<kind of pattern>/<kind of resource>/<name>`, both kinds in small
/// letters.
pub fn acl(kind: &str, resource: &str, name: &str) -> String {
    let (kind, resource) = (kind.to_ascii_lowercase(), resource.to_ascii_lowercase());
    format!("{ACLS}/{kind}/{resource}/{}", escape(name))
}

/// The two kinds and the name of the pattern whose node it is.
pub fn acl_of(path: &str) -> Option<(&str, &str, String)> {
    let below = path.strip_prefix(ACLS)?.strip_prefix('/')?;
    let (kind, below) = below.split_once('/')?;
    let (resource, name) = below.split_once('/')?;
    Some((kind, resource, unescape(name)?))
}

/// Delegation tokens.
pub const TOKENS: &str = "/tokens";

/// A delegation token, by its id: `/tokens/<id>`.
pub fn token(id: &str) -> String {
    format!("{TOKENS}/{}", escape(id))
}

/// The id of the delegation token whose node it is.
pub fn token_of(path: &str) -> Option<String> {
    let element = path.strip_prefix(TOKENS)?.strip_prefix('/')?;
    (!element.contains('/')).then(|| unescape(element))?
}

/// Makes a name one path element.
pub fn escape(name: &str) -> String {
    if name == "." || name == ".." {
        return name.replace('.', "%2e");
    }
    let mut escaped = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter == '/' || letter == '%' || !is_taken_by_zookeeper(letter) {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                let _ = write!(escaped, "%{byte:02x}");
            }
        } else {
            escaped.push(letter);
        }
    }
    if escaped.is_empty() {
        "%".to_owned()
    } else {
        escaped
    }
}

/// ZooKeeper's PathUtils.validatePath, which looks at UTF-16: no control characters, surrogates, private use, or specials.
fn is_taken_by_zookeeper(letter: char) -> bool {
    !letter.is_control() && !matches!(letter, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

/// Reverses [`escape`]; `None` when it is no escaped name.
pub fn unescape(element: &str) -> Option<String> {
    if element == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(element.len());
    let mut rest = element.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            bytes.extend(HEXLOWER_PERMISSIVE.decode(after.get(..2)?).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// A path of names as [`escape`] spells them now, where an earlier version spelt one otherwise.
pub fn respelt(path: &str) -> Option<String> {
    if path.is_ascii() {
        return None;
    }
    let respell =
        |element: &str| unescape(element).map_or_else(|| element.to_owned(), |name| escape(&name));
    let elements: Vec<String> = path.split('/').skip(1).map(respell).collect();
    let respelt = format!("/{}", elements.join("/"));
    (respelt != path).then_some(respelt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_above_its_own_and_not_above_what_begins_alike() {
        assert!(is_at_or_below("/a/b", "/a") && is_at_or_below("/a", "/a"));
        assert!(is_at_or_below("/a", "/") && is_at_or_below("/a/b", "/a/"));
        assert!(!is_at_or_below("/ab", "/a") && !is_at_or_below("/a", "/a/b"));
    }

    #[test]
    fn a_topic_is_known_by_its_node_and_by_those_of_its_partitions() {
        for name in ["orders", "a/b", "."] {
            assert_eq!(topic_of(&topic(name)).as_deref(), Some(name));
            let states = partition_states_from(name, first_beside(345));
            assert!(states.ends_with("/partitions/300"), "{states}");
            assert_eq!(topic_of(&states).as_deref(), Some(name));
            let assignments = assignments_from(name, 2000);
            assert_eq!(topic_of(&assignments).as_deref(), Some(name));
        }
        assert_eq!(topic_of(TOPICS), None);
        assert_eq!(topic_of("/brokers/topics-pub/t"), None);
    }

    #[test]
    fn a_pattern_is_known_by_its_node() {
        for name in ["orders", "*", "a/b", "."] {
            let path = acl("Prefixed", "TransactionalId", name);
            let of = ("prefixed", "transactionalid", name.to_owned());
            assert_eq!(acl_of(&path), Some(of));
        }
        assert_eq!(acl("Literal", "Topic", "a/b"), "/acl/literal/topic/a%2fb");
        assert!(acl_of("/acl/literal/topic").is_none() && acl_of("/acl").is_none());
    }

    #[test]
    fn what_a_node_of_a_group_keeps_follows_from_its_path() {
        assert_eq!(group_node(&group("a/b")), Some(GroupNode::Group));
        let topic = "t/u".to_owned();
        let path = group_offset("g", &topic, "1-2");
        let identity = "1-2";
        assert_eq!(
            group_node(&path),
            Some(GroupNode::Offset { topic, identity })
        );
        assert_eq!(
            group_node(&group_pending_part("a/b", 7, 2)),
            Some(GroupNode::Pending {
                producer_id: 7,
                n: 2
            })
        );
        let solo = format!("g{SOLO}clients{SOLO}a/b");
        let path = group_offset(&solo, "t", "1-2");
        assert_eq!(path, "/consumers/g/broadcast/clients/a%2fb/offsets/t/1-2");
        assert!(matches!(group_node(&path), Some(GroupNode::Offset { .. })));
        assert_eq!(solo_of("g", &path), Some(solo));
        assert_eq!(solo_of("g", &group_offset("g", "t", "1-2")), None);
        let node = group("a/b");
        assert_eq!(part_of(&node, &part(&node, 7, 2)), Some((7, 2)));
        assert_eq!(part_of(&node, &group_member("a/b", "m")), None);
        for other in [
            GROUPS,
            &group_owner("g", "t", "1-2"),
            &group_member("g", "m"),
        ] {
            assert_eq!(group_node(other), None, "{other}");
        }
    }

    #[test]
    fn a_node_of_a_slot_says_which_slot_and_which_producer() {
        let path = slot_producer(24, 1007);
        assert_eq!(path, "/producers/24/1007");
        assert_eq!(slot_of_child(PRODUCERS, &path), Some(24));
        assert_eq!(producer_of(&path), Some(1007));
        for other in [
            "/producers",
            "/producers/24",
            "/producers/24/x",
            PRODUCER_IDS,
        ] {
            assert_eq!(producer_of(other), None, "{other}");
        }
    }

    #[test]
    fn any_name_becomes_one_element_and_comes_back() {
        let names = [
            "orders", "a/b", "100%", ".", "..", "", "ü\n", "%2f", "x y", "app-🚀",
        ];
        let specials = ["\u{e000}", "\u{f8ff}", "\u{fff0}", "\u{ffff}", "\u{85}"];
        for name in names.into_iter().chain(specials) {
            let element = escape(name);
            // As ZooKeeper looks at it.
            let refused =
                |unit: &u16| matches!(unit, 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..);
            assert_eq!(element.encode_utf16().find(refused), None, "{name:?}");
            assert!(
                !element.contains('/') && !element.is_empty() && element != ".." && element != "."
            );
            assert_eq!(unescape(&element).as_deref(), Some(name));
        }
        for wrong in ["%2", "%+f", "%gg", "a%"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
        assert_eq!(unescape("%2F").as_deref(), Some("/"));
    }
}
