//! What an access control list says: somebody, from somewhere, may or may not do something to what a pattern names.

/// Stands for every resource of a kind as the name of a literal pattern, for every user, and for every host.
pub const WILDCARD: &str = "*";
/// The one name of the cluster as a resource (Kafka's Resource.CLUSTER_NAME).
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// An enumeration with Kafka's codes, and the words that its tools write.
macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl $name {
            /// All of them, by code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Kafka's number for it.
            pub const fn code(self) -> i8 {
                self as i8
            }

            /// The one with a number; `None` for those that are not known, and for what stands for all in filters.
            pub fn from_code(code: i8) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.code() == code)
            }

            /// As Kafka's tools write it, such as `DescribeConfigs`.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                }
            }

            /// The one with a word, in any case.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.word().eq_ignore_ascii_case(word))
            }
        }
    };
}

coded! {
    /// What is done to a resource (Kafka's AclOperation).
    Operation {
        /// Anything.
        All = 2,
        /// Reads records, or takes part in a group.
        Read = 3,
        /// Writes records, or produces under a transactional id.
        Write = 4,
        /// Creates topics.
        Create = 5,
        /// Deletes topics, records, groups.
        Delete = 6,
        /// Changes partitions, ACLs, quotas.
        Alter = 7,
        /// Sees that it is there.
        Describe = 8,
        /// What brokers ask each other.
        ClusterAction = 9,
        /// Sees configurations.
        DescribeConfigs = 10,
        /// Changes configurations.
        AlterConfigs = 11,
        /// Gets a producer id without a transactional one.
        IdempotentWrite = 12,
        /// Makes delegation tokens for a user.
        CreateTokens = 13,
        /// Sees a user's delegation tokens.
        DescribeTokens = 14,
        /// Prepares transactions for an outside coordinator (KIP-939).
        TwoPhaseCommit = 15,
    }
}

coded! {
    /// Of what kind a resource is (Kafka's ResourceType).
    ResourceKind {
        /// A topic.
        Topic = 2,
        /// A group of any protocol.
        Group = 3,
        /// The cluster.
        Cluster = 4,
        /// A transactional id.
        TransactionalId = 5,
        /// A delegation token, by its id.
        DelegationToken = 6,
        /// A user, as `User:name`.
        User = 7,
    }
}

coded! {
    /// How a pattern's name is read (Kafka's PatternType).
    PatternKind {
        /// The resource of this name, or every one where it is [`WILDCARD`].
        Literal = 3,
        /// Every resource whose name begins so.
        Prefixed = 4,
    }
}

coded! {
    /// What an entry does (Kafka's AclPermissionType).
    Permission {
        /// Forbids, whatever else allows.
        Deny = 2,
        /// Allows, where nothing denies.
        Allow = 3,
    }
}

impl ResourceKind {
    /// What can be done to resources of this kind (Kafka's AclEntry.supportedOperations).
    pub const fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            Self::Topic => &[
                Read,
                Write,
                Create,
                Delete,
                Alter,
                Describe,
                DescribeConfigs,
                AlterConfigs,
            ],
            Self::Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            Self::TransactionalId => &[Describe, Write, TwoPhaseCommit],
            Self::Cluster => &[
                Create,
                Alter,
                Describe,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
            ],
            Self::DelegationToken => &[Describe],
            Self::User => &[CreateTokens, DescribeTokens],
        }
    }
}

/// Which resources an entry is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    /// Of what kind they are.
    pub resource: ResourceKind,
    /// How the name is read.
    pub kind: PatternKind,
    /// The name.
    pub name: String,
}

/// Who may or may not do what to the resources of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Kind and name, parted by the first colon; `User:*` for everybody.
    pub principal: String,
    /// An address, a range of them in CIDR notation, or [`WILDCARD`].
    pub host: String,
    /// What.
    pub operation: Operation,
    /// Whether it is allowed.
    pub permission: Permission,
}

/// An entry of a pattern (Kafka's AclBinding).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    /// Which resources.
    pub pattern: Pattern,
    /// Who may do what.
    pub entry: Entry,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_are_kafkas() {
        assert_eq!(Operation::TwoPhaseCommit.code(), 15);
        assert_eq!(Operation::from_code(12), Some(Operation::IdempotentWrite));
        assert_eq!(Operation::from_code(1), None);
        assert_eq!(ResourceKind::from_code(7), Some(ResourceKind::User));
        assert_eq!(PatternKind::from_code(2), None);
        assert_eq!(Permission::from_code(2), Some(Permission::Deny));
        assert_eq!(ResourceKind::TransactionalId.word(), "TransactionalId");
        assert_eq!(
            Operation::from_word("describeconfigs"),
            Some(Operation::DescribeConfigs)
        );
        assert_eq!(Operation::ALL.len(), 14);
    }

    #[test]
    fn operations_of_a_kind_have_kafkas_bits() {
        let bits = |kind: ResourceKind| {
            let all = kind.operations().iter();
            all.fold(0, |bits, operation| bits | 1 << operation.code())
        };
        // As Kafka 4.4 answers without an authorizer.
        assert_eq!(bits(ResourceKind::Topic), 0b1101_1111_1000);
        assert_eq!(bits(ResourceKind::Group), 0b1101_0100_1000);
        assert_eq!(bits(ResourceKind::Cluster), 0b1_1111_1010_0000);
    }
}
