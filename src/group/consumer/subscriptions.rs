//! What the members of a consumer group read together: topics by name and by regular expression, and how those looked when the
//! group last looked.
//!
//! Regular expressions are RE2's language as the `regex` crate has it. They must match whole names. Each is resolved when a
//! member brings it, and all again when topics came or went, at most every [`REGEX_REFRESH_MIN_MS`], over the topics that the member
//! whose heartbeat it is may know of. They are compiled for that alone:
//! a short text can be a large machine.
//!
//! Tests: group/consumer/tests.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use regex::{Regex, RegexBuilder};
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use super::assignor::Counts;
use super::member::Reads;
use super::visible::VisibleTopics;
use crate::coordinator::Topics;

/// Expressions of a group are resolved anew after this at the earliest, ms (Kafka's REGEX_BATCH_REFRESH_MIN_INTERVAL_MS).
pub(super) const REGEX_REFRESH_MIN_MS: i64 = 10_000;
/// Longest expression, bytes: the names that it is to match have 249 characters at most, and each character of an expression can
/// take kilobytes until it is compiled, whatever is allowed for the outcome.
const PATTERN_BYTES_MAX: usize = 4096;
/// The memory that one expression may take while it is compiled, bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// An expression, and the topics that it matched.
#[derive(Debug, Default)]
struct Resolved {
    members: usize,
    topics: BTreeSet<String>,
    is_resolved: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// How many members name a topic.
    names: BTreeMap<String, usize>,
    regexes: BTreeMap<String, Resolved>,
    /// How many members prefer an assignor.
    assignors: BTreeMap<String, usize>,
    resolved_ms: i64,
    /// The topics that expressions were resolved over.
    resolved_version: u64,
    has_new_regex: bool,
    /// They were resolved without anybody's rights, as the group was read.
    are_unchecked: bool,
    /// The topics that were looked at last.
    seen_version: u64,
    /// What they looked like.
    pub(super) hash: u64,
}

/// Why an expression is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidPattern {
    /// Of so many bytes.
    #[error("SubscribedTopicRegex has {0} bytes, more than {PATTERN_BYTES_MAX}.")]
    TooLong(usize),
    #[error("SubscribedTopicRegex `{0}` is not a valid regular expression: {1}.")]
    Malformed(String, regex::Error),
}

/// Makes an expression of RE2's language, which must match whole names.
pub(super) fn compile(pattern: &str) -> Result<Regex, InvalidPattern> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(InvalidPattern::TooLong(pattern.len()));
    }
    let mut builder = RegexBuilder::new(&format!("^(?:{pattern})$"));
    builder.size_limit(REGEX_BYTES_MAX);
    builder.dfa_size_limit(REGEX_BYTES_MAX);
    let built = builder.build();
    built.map_err(|error| InvalidPattern::Malformed(pattern.to_owned(), error))
}

/// Names of the topics that an expression matches.
fn matches(regex: &Regex, topics: &dyn Topics, visible: &VisibleTopics) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    topics.for_each_name(&mut |name| {
        if regex.is_match(name) && visible.has(name) {
            found.insert(name.to_owned());
        }
    });
    found
}

/// One member less has to do with a name.
fn one_less(members: &mut BTreeMap<String, usize>, name: &str) {
    if let Some(count) = members.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            members.remove(name);
        }
    }
}

impl Subscriptions {
    /// Whether a pattern is a member's already; such a one is valid.
    pub(super) fn knows(&self, pattern: &str) -> bool {
        self.regexes.contains_key(pattern)
    }

    /// A member reads these from now on.
    pub(super) fn add(&mut self, what: &Reads) {
        for name in &what.topics {
            *self.names.entry(name.clone()).or_default() += 1;
        }
        if let Some(name) = &what.assignor {
            *self.assignors.entry(name.clone()).or_default() += 1;
        }
        let Some(pattern) = what.pattern() else {
            return;
        };
        match self.regexes.get_mut(pattern) {
            Some(known) => known.members += 1,
            None => {
                let resolved = Resolved {
                    members: 1,
                    ..Resolved::default()
                };
                self.regexes.insert(pattern.to_owned(), resolved);
                self.has_new_regex = true;
            }
        }
    }

    /// A member reads these no more.
    pub(super) fn remove(&mut self, what: &Reads) {
        for name in &what.topics {
            one_less(&mut self.names, name);
        }
        if let Some(name) = &what.assignor {
            one_less(&mut self.assignors, name);
        }
        if let Some(pattern) = what.pattern()
            && let Some(known) = self.regexes.get_mut(pattern)
        {
            known.members -= 1;
            if known.members == 0 {
                self.regexes.remove(pattern);
            }
        }
    }

    /// The assignor that most members prefer, if any prefers one.
    pub(super) fn preferred_assignor(&self) -> Option<&str> {
        let votes = self.assignors.iter();
        let most = votes.max_by_key(|(_, members)| **members);
        most.map(|(name, _)| &**name)
    }

    /// Resolves expressions where that is due; whether any of them has other topics now.
    pub(super) fn resolve(
        &mut self,
        now_ms: i64,
        topics: &dyn Topics,
        visible: &VisibleTopics,
    ) -> bool {
        let version = topics.version();
        let is_due = version != self.resolved_version
            && now_ms >= self.resolved_ms.saturating_add(REGEX_REFRESH_MIN_MS);
        let is_old = is_due || std::mem::take(&mut self.are_unchecked);
        if self.regexes.is_empty() || !(self.has_new_regex || is_old) {
            return false;
        }
        // The first ones are resolved over the topics as they are now.
        if is_old || self.resolved_version == 0 {
            (self.resolved_ms, self.resolved_version) = (now_ms, version);
        }
        self.has_new_regex = false;
        let mut is_changed = false;
        for (pattern, known) in &mut self.regexes {
            if is_old || !known.is_resolved {
                // Patterns were checked when they came.
                let found = compile(pattern).map_or_else(
                    |_| BTreeSet::new(),
                    |regex| matches(&regex, topics, visible),
                );
                is_changed |= known.topics != found;
                (known.topics, known.is_resolved) = (found, true);
            }
        }
        is_changed
    }

    /// Resolves them as the group is read, when no member is there yet: by the next heartbeat again.
    pub(super) fn resolve_unchecked(&mut self, now_ms: i64, topics: &dyn Topics) {
        self.are_unchecked = true;
        self.resolve(now_ms, topics, &VisibleTopics::default());
        self.are_unchecked = !self.regexes.is_empty();
    }

    /// Whether topics changed since they were looked at, or expressions can be resolved over newer ones.
    pub(super) fn are_old(&self, now_ms: i64, topics: &dyn Topics) -> bool {
        let version = topics.version();
        let are_resolved = self.regexes.is_empty()
            || !self.are_unchecked
                && (version == self.resolved_version
                    || now_ms < self.resolved_ms.saturating_add(REGEX_REFRESH_MIN_MS));
        version != self.seen_version || !are_resolved
    }

    /// Names of topics that a member reads, whether they exist or not.
    pub(super) fn names_of<'a>(&'a self, what: &'a Reads) -> impl Iterator<Item = &'a String> {
        let matched = what.pattern().and_then(|pattern| self.regexes.get(pattern));
        let matched = matched.into_iter().flat_map(|known| &known.topics);
        what.topics.iter().chain(matched)
    }

    /// Ids of topics that a member reads, of those that exist.
    pub(super) fn ids_of(&self, what: &Reads, topics: &dyn Topics) -> BTreeSet<Uuid> {
        let ids = self.names_of(what);
        ids.filter_map(|name| topics.id_of(name)).collect()
    }

    /// Whether any member reads a topic.
    pub(super) fn has(&self, topic: &str) -> bool {
        self.names.contains_key(topic)
            || self
                .regexes
                .values()
                .any(|known| known.topics.contains(topic))
    }

    /// All topics that members read and that exist, with the number of their partitions.
    pub(super) fn counts(&self, topics: &dyn Topics) -> Counts {
        self.all_names()
            .filter_map(|name| topics.shape_of(name))
            .collect()
    }

    fn all_names(&self) -> impl Iterator<Item = &String> {
        let matched = self.regexes.values().flat_map(|known| &known.topics);
        self.names.keys().chain(matched)
    }

    /// Looks at the topics; whether they are others, or have other partitions, than when it last looked.
    pub(super) fn look(&mut self, topics: &dyn Topics) -> bool {
        self.seen_version = topics.version();
        let names: BTreeSet<&String> = self.all_names().collect();
        let mut hasher = SipHasher13::new();
        for name in names {
            if let Some((id, count)) = topics.shape_of(name) {
                (name, id.as_u128(), count).hash(&mut hasher);
            }
        }
        let hash = hasher.finish();
        std::mem::replace(&mut self.hash, hash) != hash
    }
}
