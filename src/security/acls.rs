//! All access control lists, and what they say of one deed.
//!
//! A decision looks at the literal pattern of the resource's name, at that of every resource, and at the prefixes of the name;
//! it allocates nothing. Prefixes stand in order, each with the longest other one that it begins with: those that a name begins
//! with are the last one that is not after the name, or begin it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::binding::{Entry, Operation, Pattern, PatternKind, Permission, ResourceKind, WILDCARD};
use super::filter::Filter;
use super::host::HostPattern;
use crate::principal::Principal;

/// Whoever authenticates, or does not; the name first, because it tells principals apart sooner than the kind.
const EVERYBODY: (&str, &str) = (WILDCARD, "User");

/// What access control lists say of a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It is allowed, and nothing denies it.
    Allowed,
    /// It is denied.
    Denied,
    /// The resource has some, and they say nothing of it.
    NotNamed,
    /// The resource has none.
    NoAcls,
}

/// Who does something, and from where.
#[derive(Clone, Copy)]
struct Actor<'a> {
    principal: (&'a str, &'a str),
    host: IpAddr,
}

/// An entry as decisions need it.
#[derive(Debug)]
struct Rule {
    principal: (Box<str>, Box<str>),
    host: HostPattern,
    operation: Operation,
    permission: Permission,
}

impl Rule {
    fn new(entry: &Entry) -> Self {
        let (kind, name) = entry.principal.split_once(':').unwrap_or_default();
        Self {
            principal: (name.into(), kind.into()),
            host: HostPattern::parse(&entry.host).unwrap_or(HostPattern::None),
            operation: entry.operation,
            permission: entry.permission,
        }
    }

    fn principal(&self) -> (&str, &str) {
        (&self.principal.0, &self.principal.1)
    }

    /// Whether it is of an operation. One that is allowed implies others; one that is denied does not.
    fn is_of(&self, asked: Operation) -> bool {
        use Operation as Op;
        let own = self.operation;
        if own == Op::All || own == asked {
            return true;
        }
        self.permission == Permission::Allow
            && match asked {
                Op::Describe => matches!(own, Op::Read | Op::Write | Op::Delete | Op::Alter),
                Op::DescribeConfigs => own == Op::AlterConfigs,
                _ => false,
            }
    }
}

/// The entries of a pattern.
#[derive(Debug)]
struct Entries {
    /// As they are written, in order.
    written: Vec<Entry>,
    /// The same, by principal.
    rules: Vec<Rule>,
    /// Those of everybody.
    of_everybody: Range<usize>,
}

impl Entries {
    fn new(mut written: Vec<Entry>) -> Self {
        written.sort_unstable();
        written.dedup();
        let mut rules: Vec<Rule> = written.iter().map(Rule::new).collect();
        rules.sort_by(|a, b| a.principal().cmp(&b.principal()));
        let range = |principal: (&str, &str)| {
            let first = rules.partition_point(|rule| rule.principal() < principal);
            first..rules.partition_point(|rule| rule.principal() <= principal)
        };
        Self {
            of_everybody: range(EVERYBODY),
            written,
            rules,
        }
    }

    /// Those of a principal, or of everybody, from a host.
    fn of<'a>(&'a self, actor: Actor<'a>) -> impl Iterator<Item = &'a Rule> {
        let principal = actor.principal;
        let first = self
            .rules
            .partition_point(|rule| rule.principal() < principal);
        let own = self.rules[first..].iter();
        let own = own.take_while(move |rule| rule.principal() == principal);
        let both = own.chain(&self.rules[self.of_everybody.clone()]);
        both.filter(move |rule| rule.host.contains(actor.host))
    }

    /// What they say, where they say anything.
    fn say(&self, actor: Actor<'_>, operation: Operation) -> Option<Permission> {
        let of_operation = self.of(actor).filter(|rule| rule.is_of(operation));
        of_operation.map(|rule| rule.permission).min()
    }

    /// Whether one of this very operation, or of all, has this permission.
    fn has(&self, actor: Actor<'_>, operation: Operation, permission: Permission) -> bool {
        let mut of_actor = self.of(actor);
        of_actor.any(|rule| {
            rule.permission == permission
                && (rule.operation == operation || rule.operation == Operation::All)
        })
    }
}

#[derive(Debug, Clone)]
struct Prefix {
    name: Box<str>,
    /// The longest other prefix that it begins with.
    shorter: Option<usize>,
    entries: Arc<Entries>,
}

/// The patterns of resources of one kind.
#[derive(Debug, Clone, Default)]
struct OfKind {
    every: Option<Arc<Entries>>,
    literal: HashMap<Box<str>, Arc<Entries>>,
    /// In order of their names.
    prefixes: Vec<Prefix>,
}

impl OfKind {
    /// Patterns come in order.
    fn add(&mut self, pattern: &Pattern, entries: &Arc<Entries>) {
        match pattern.kind {
            PatternKind::Literal if pattern.name == WILDCARD => self.every = Some(entries.clone()),
            PatternKind::Literal => {
                self.literal
                    .insert(pattern.name.as_str().into(), entries.clone());
            }
            PatternKind::Prefixed => {
                let shorter = self.longest_prefix(&pattern.name, self.prefixes.len());
                self.prefixes.push(Prefix {
                    name: pattern.name.as_str().into(),
                    shorter,
                    entries: entries.clone(),
                });
            }
        }
    }

    /// The longest prefix among the first ones that a name begins with; none of them is after the name.
    fn longest_prefix(&self, name: &str, first: usize) -> Option<usize> {
        let mut at = first.checked_sub(1);
        while let Some(found) = at
            && !name.starts_with(&*self.prefixes[found].name)
        {
            at = self.prefixes[found].shorter;
        }
        at
    }

    /// The entries of prefixes that a name begins with.
    fn of_prefixes(&self, name: &str) -> impl Iterator<Item = &Entries> {
        let not_after = self
            .prefixes
            .partition_point(|prefix| *prefix.name <= *name);
        let longest = self.longest_prefix(name, not_after);
        let all = std::iter::successors(longest, |at| self.prefixes[*at].shorter);
        all.map(|at| &*self.prefixes[at].entries)
    }

    /// The entries of patterns that a resource has.
    fn of_name(&self, name: &str) -> impl Iterator<Item = &Entries> {
        let literal = self.literal.get(name).into_iter().chain(&self.every);
        literal
            .map(|entries| &**entries)
            .chain(self.of_prefixes(name))
    }
}

/// See the module's documentation. Never changed: a change makes another one.
#[derive(Debug, Clone, Default)]
pub struct Acls {
    by_pattern: BTreeMap<Pattern, Arc<Entries>>,
    /// By the code of the kind of resource, from the first on.
    by_kind: [OfKind; ResourceKind::ALL.len()],
    count: usize,
    version: u64,
}

/// Numbers the lists of this process that are not empty from the beginning.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

impl Acls {
    /// The entries of patterns.
    pub fn new(patterns: impl IntoIterator<Item = (Pattern, Vec<Entry>)>) -> Self {
        Self::default().with(patterns)
    }

    /// The same with other entries of some patterns; with none the pattern goes.
    pub fn with(&self, patterns: impl IntoIterator<Item = (Pattern, Vec<Entry>)>) -> Self {
        let mut by_pattern = self.by_pattern.clone();
        for (pattern, entries) in patterns {
            match entries.is_empty() {
                true => by_pattern.remove(&pattern),
                false => by_pattern.insert(pattern, Arc::new(Entries::new(entries))),
            };
        }
        let mut by_kind: [OfKind; ResourceKind::ALL.len()] = Default::default();
        for (pattern, entries) in &by_pattern {
            if let Some(of_kind) = by_kind.get_mut(position(pattern.resource)) {
                of_kind.add(pattern, entries);
            }
        }
        Self {
            count: by_pattern
                .values()
                .map(|entries| entries.written.len())
                .sum(),
            by_pattern,
            by_kind,
            version: NEXT_VERSION.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Another one after each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many bindings there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All patterns that have entries, in order.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.by_pattern.keys()
    }

    /// The entries of a pattern, in order.
    pub fn entries(&self, pattern: &Pattern) -> &[Entry] {
        let known = self.by_pattern.get(pattern);
        known.map_or(&[], |entries| &entries.written)
    }

    /// What a filter asks for, in order.
    pub fn find<'a>(
        &'a self,
        filter: &'a Filter,
    ) -> impl Iterator<Item = (&'a Pattern, &'a Entry)> {
        let patterns = self.by_pattern.iter();
        let patterns = patterns.filter(|(pattern, _)| filter.takes_pattern(pattern));
        patterns.flat_map(|(pattern, entries)| {
            let written = entries.written.iter();
            let wanted = written.filter(|entry| filter.takes_entry(entry));
            wanted.map(move |entry| (pattern, entry))
        })
    }

    /// What they say of a principal at a host that does something to a resource.
    pub fn say(
        &self,
        (principal, host): (&Principal, IpAddr),
        operation: Operation,
        (resource, name): (ResourceKind, &str),
    ) -> Finding {
        let actor = actor(principal, host);
        let mut finding = Finding::NoAcls;
        for entries in self.of_kind(resource).of_name(name) {
            match entries.say(actor, operation) {
                Some(Permission::Deny) => return Finding::Denied,
                Some(Permission::Allow) => finding = Finding::Allowed,
                None if finding == Finding::NoAcls => finding = Finding::NotNamed,
                None => {}
            }
        }
        finding
    }

    /// Whether a principal may do something to any resource of a kind, as far as they say it (Kafka's
    /// Authorizer.authorizeByResourceType): a pattern allows it that no other one denies whole. Operations imply no others.
    pub fn allow_some(
        &self,
        (principal, host): (&Principal, IpAddr),
        operation: Operation,
        resource: ResourceKind,
    ) -> bool {
        let actor = actor(principal, host);
        let of_kind = self.of_kind(resource);
        let has = |entries: &Entries, permission| entries.has(actor, operation, permission);
        if let Some(every) = &of_kind.every {
            if has(every, Permission::Deny) {
                return false;
            }
            if has(every, Permission::Allow) {
                return true;
            }
        }
        let is_denied = |name| {
            let mut prefixes = of_kind.of_prefixes(name);
            prefixes.any(|entries| has(entries, Permission::Deny))
        };
        let literal = of_kind.literal.iter();
        let mut literal = literal.filter(|(_, entries)| {
            has(entries, Permission::Allow) && !has(entries, Permission::Deny)
        });
        let prefixes = of_kind.prefixes.iter();
        let mut prefixes = prefixes.filter(|prefix| has(&prefix.entries, Permission::Allow));
        literal.any(|(name, _)| !is_denied(name)) || prefixes.any(|prefix| !is_denied(&prefix.name))
    }

    fn of_kind(&self, resource: ResourceKind) -> &OfKind {
        &self.by_kind[position(resource)]
    }
}

/// Kinds are numbered without a gap from the first on.
fn position(resource: ResourceKind) -> usize {
    (resource.code() - ResourceKind::ALL[0].code()) as usize
}

fn actor(principal: &Principal, host: IpAddr) -> Actor<'_> {
    Actor {
        principal: (principal.name(), principal.kind()),
        host,
    }
}

#[cfg(test)]
mod tests;
