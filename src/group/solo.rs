//! The groups that a broadcast group is made of. Each is an ordinary group of one slot, of one member at most, so that one
//! member's joining, leaving and committing is nobody else's business:
//!
//! | kind        | for                                                       | has                                         |
//! |-------------|-----------------------------------------------------------|---------------------------------------------|
//! | `instances` | each `group.instance.id`                                  | the member, and its offsets                 |
//! | `members`   | each other member                                         | the member; offsets if it has no client id  |
//! | `clients`   | each client id of such members                            | the offsets of all members with that name   |
//!
//! Their ids hold a NUL, which no client's group id may.

use std::collections::BTreeMap;

use crate::coordinator::StoredId;
use crate::meta::Node;
use crate::meta::paths::{self, SOLO};

/// What is shown as the assignor of a broadcast group.
pub const BROADCAST_PROTOCOL: &str = "broadcast";

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Solo<'a> {
    /// A static member, by its `group.instance.id`.
    Instance(&'a str),
    /// Another member, by its id.
    Member(&'a str),
    /// Offsets of members by their client id.
    Client(&'a str),
}

impl<'a> Solo<'a> {
    /// Its id within a broadcast group.
    pub(super) fn id_in(self, group_id: &str) -> String {
        let (kind, name) = match self {
            Self::Instance(name) => ("instances", name),
            Self::Member(name) => ("members", name),
            Self::Client(name) => ("clients", name),
        };
        format!("{group_id}{SOLO}{kind}{SOLO}{name}")
    }

    /// What an id names, if it is that of a solo group.
    pub(super) fn of(id: &'a str) -> Option<Self> {
        let mut parts = id.splitn(3, SOLO).skip(1);
        let (kind, name) = (parts.next()?, parts.next()?);
        match kind {
            "instances" => Some(Self::Instance(name)),
            "members" => Some(Self::Member(name)),
            "clients" => Some(Self::Client(name)),
            _ => None,
        }
    }
}

/// The broadcast group that a solo group belongs to.
pub(super) fn group_of(id: &str) -> Option<&str> {
    Some(id.split_once(SOLO)?.0)
}

/// What is stored of a group and of each of its solo groups; `None` where it has none.
pub(super) fn stored_apart(stored: &StoredId) -> Option<Vec<StoredId>> {
    let solo_of = |path: &str| paths::solo_of(&stored.id, path);
    if !stored.nodes.iter().any(|(path, _)| solo_of(path).is_some()) {
        return None;
    }
    let mut apart: BTreeMap<String, Vec<(String, Node)>> = BTreeMap::new();
    for (path, node) in &stored.nodes {
        let id = solo_of(path).unwrap_or_else(|| stored.id.clone());
        let nodes = apart.entry(id).or_default();
        nodes.push((path.clone(), node.clone()));
    }
    let apart = apart.into_iter();
    Some(apart.map(|(id, nodes)| StoredId { id, nodes }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_member_comes_back_from_the_id_of_its_solo_group() {
        for name in ["node-1", "", "a/b", "a\0b"] {
            for solo in [Solo::Instance(name), Solo::Member(name), Solo::Client(name)] {
                let id = solo.id_in("g");
                assert_eq!(Solo::of(&id), Some(solo));
                assert_eq!(group_of(&id), Some("g"));
            }
        }
        assert_eq!((Solo::of("g"), group_of("g")), (None, None));
    }
}
