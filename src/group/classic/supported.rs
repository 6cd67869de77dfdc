//! How many members of a classic group support each assignor (Kafka's ClassicGroup.supportedProtocols): what all of them support
//! is looked up, not searched for among the members.

use std::collections::{BTreeSet, HashMap};

use crate::group::member::Member;

/// See the module's documentation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Supported(HashMap<String, usize>);

impl Supported {
    /// By these members.
    pub(super) fn by<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        let mut supported = Self::default();
        members.for_each(|member| supported.add(member));
        supported
    }

    /// A member is in.
    pub(super) fn add(&mut self, member: &Member) {
        for name in names(member) {
            *self.0.entry(name.to_owned()).or_default() += 1;
        }
    }

    /// A member that was in is out.
    pub(super) fn remove(&mut self, member: &Member) {
        for name in names(member) {
            if let Some(count) = self.0.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(name);
                }
            }
        }
    }

    /// How many support an assignor.
    pub(super) fn count(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// The assignors of a member, which may name one twice.
fn names(member: &Member) -> BTreeSet<&str> {
    let names = member.protocols.iter();
    names.map(|(name, _)| name.as_str()).collect()
}
