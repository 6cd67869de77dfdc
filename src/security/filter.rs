//! Which bindings are asked for (Kafka's AclBindingFilter).

use super::binding::{
    Binding, Entry, Operation, Pattern, PatternKind, Permission, ResourceKind, WILDCARD,
};

/// What a field of a filter asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<T> {
    /// Anything.
    Any,
    /// This.
    Only(T),
    /// What this version does not know: no binding has it.
    Unknown,
}

/// Kafka's code of anything, in all of its enumerations of filters.
const ANY: i8 = 1;
/// Kafka's code of [`WantedKind::Match`].
const MATCH: i8 = 2;

impl<T: PartialEq> Wanted<T> {
    /// From a code; `known` has the codes but the one of anything.
    pub fn from_code(code: i8, known: impl FnOnce(i8) -> Option<T>) -> Self {
        match code {
            ANY => Self::Any,
            code => known(code).map_or(Self::Unknown, Self::Only),
        }
    }

    fn takes(&self, value: T) -> bool {
        match self {
            Self::Any => true,
            Self::Only(wanted) => *wanted == value,
            Self::Unknown => false,
        }
    }
}

/// Which kinds of patterns are asked for, and how the filter's name is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedKind {
    /// Patterns of every kind that have this name.
    Any,
    /// Patterns that a resource of this name has.
    Match,
    /// Patterns of this kind that have this name.
    Only(PatternKind),
    /// What this version does not know.
    Unknown,
}

impl WantedKind {
    /// From Kafka's code.
    pub fn from_code(code: i8) -> Self {
        match code {
            ANY => Self::Any,
            MATCH => Self::Match,
            code => PatternKind::from_code(code).map_or(Self::Unknown, Self::Only),
        }
    }

    /// Kafka's code.
    pub fn code(self) -> i8 {
        match self {
            Self::Unknown => 0,
            Self::Any => ANY,
            Self::Match => MATCH,
            Self::Only(kind) => kind.code(),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of what kind the resources are.
    pub resource: Wanted<ResourceKind>,
    /// The pattern's name, or that of a resource; `None` for all.
    pub name: Option<String>,
    /// How the name is meant.
    pub kind: WantedKind,
    /// Who, as it is written; `None` for all.
    pub principal: Option<String>,
    /// From where, as it is written; `None` for all.
    pub host: Option<String>,
    /// What.
    pub operation: Wanted<Operation>,
    /// Whether it is allowed.
    pub permission: Wanted<Permission>,
}

impl Filter {
    /// Asks for all bindings.
    pub const ALL: Self = Self {
        resource: Wanted::Any,
        name: None,
        kind: WantedKind::Any,
        principal: None,
        host: None,
        operation: Wanted::Any,
        permission: Wanted::Any,
    };

    /// Whether a resource or a kind of pattern is asked for that this version does not know.
    pub fn is_pattern_unknown(&self) -> bool {
        self.resource == Wanted::Unknown || self.kind == WantedKind::Unknown
    }

    /// Whether an operation or a permission is.
    pub fn is_entry_unknown(&self) -> bool {
        self.operation == Wanted::Unknown || self.permission == Wanted::Unknown
    }

    /// Whether bindings of a pattern are asked for (Kafka's ResourcePatternFilter).
    pub fn takes_pattern(&self, pattern: &Pattern) -> bool {
        if !self.resource.takes(pattern.resource) {
            return false;
        }
        let name = self.name.as_deref();
        let is_name = |wanted: &str| wanted == pattern.name;
        match self.kind {
            WantedKind::Unknown => false,
            WantedKind::Any => name.is_none_or(is_name),
            WantedKind::Only(kind) => kind == pattern.kind && name.is_none_or(is_name),
            WantedKind::Match => name.is_none_or(|name| match pattern.kind {
                PatternKind::Literal => is_name(name) || pattern.name == WILDCARD,
                PatternKind::Prefixed => name.starts_with(&pattern.name),
            }),
        }
    }

    /// Whether an entry of such a pattern is (Kafka's AccessControlEntryFilter).
    pub fn takes_entry(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == text)
        };
        is(&self.principal, &entry.principal)
            && is(&self.host, &entry.host)
            && self.operation.takes(entry.operation)
            && self.permission.takes(entry.permission)
    }

    /// Whether a binding is asked for.
    pub fn takes(&self, binding: &Binding) -> bool {
        self.takes_pattern(&binding.pattern) && self.takes_entry(&binding.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(kind: PatternKind, name: &str) -> Pattern {
        Pattern {
            resource: ResourceKind::Topic,
            kind,
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_name_is_that_of_a_pattern_or_of_a_resource_that_has_it() {
        let named = |kind, name: &str| Filter {
            kind,
            name: Some(name.to_owned()),
            ..Filter::ALL
        };
        let any = named(WantedKind::Any, "ab");
        let matching = named(WantedKind::Match, "ab");
        let prefixed = named(WantedKind::Only(PatternKind::Prefixed), "ab");
        let takes = |filter: &Filter| {
            [
                pattern(PatternKind::Literal, "ab"),
                pattern(PatternKind::Literal, "*"),
                pattern(PatternKind::Prefixed, "a"),
                pattern(PatternKind::Prefixed, "ab"),
                pattern(PatternKind::Prefixed, "abc"),
            ]
            .map(|pattern| filter.takes_pattern(&pattern))
        };
        assert_eq!(takes(&any), [true, false, false, true, false]);
        assert_eq!(takes(&matching), [true, true, true, true, false]);
        assert_eq!(takes(&prefixed), [false, false, false, true, false]);
        assert_eq!(takes(&named(WantedKind::Unknown, "ab")), [false; 5]);
        assert_eq!(takes(&Filter::ALL), [true; 5]);
    }

    #[test]
    fn an_entry_is_compared_as_it_is_written_and_what_is_unknown_is_nowhere() {
        let entry = Entry {
            principal: "User:a".to_owned(),
            host: "*".to_owned(),
            operation: Operation::Read,
            permission: Permission::Allow,
        };
        assert!(Filter::ALL.takes_entry(&entry));
        let of = |principal: &str| Filter {
            principal: Some(principal.to_owned()),
            ..Filter::ALL
        };
        assert!(of("User:a").takes_entry(&entry) && !of("User:*").takes_entry(&entry));
        let unknown = Filter {
            operation: Wanted::from_code(99, Operation::from_code),
            ..Filter::ALL
        };
        assert!(unknown.is_entry_unknown() && !unknown.takes_entry(&entry));
        let deny = Filter {
            permission: Wanted::from_code(2, Permission::from_code),
            ..Filter::ALL
        };
        assert!(!deny.takes_entry(&entry));
    }
}
