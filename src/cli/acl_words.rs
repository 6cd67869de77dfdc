//! The options of `metaq acl`, as kafka-acls has them, and the bindings that they mean.

use clap::{Args, ValueEnum};

use super::Failure;
use crate::security::{
    Binding, CLUSTER_NAME, Entry, Operation, Pattern, PatternKind, Permission, ResourceKind,
    WILDCARD, WantedKind,
};

/// Which resources.
#[derive(Debug, Args)]
pub(super) struct Resources {
    /// A topic, or `*` for all; may be given several times, as the others.
    #[arg(long, value_name = "NAME")]
    topic: Vec<String>,
    /// A group of any kind, or `*`.
    #[arg(long, value_name = "ID")]
    group: Vec<String>,
    /// A transactional id, or `*`.
    #[arg(long, value_name = "ID")]
    transactional_id: Vec<String>,
    /// The cluster.
    #[arg(long)]
    cluster: bool,
    /// A delegation token, or `*`.
    #[arg(long, value_name = "ID")]
    delegation_token: Vec<String>,
    /// A user whose delegation tokens are meant, as User:NAME.
    #[arg(long, value_name = "USER")]
    user_principal: Vec<String>,
    /// How names are meant; literal where it is not given.
    #[arg(long, visible_alias = "pattern", value_name = "TYPE")]
    resource_pattern_type: Option<PatternType>,
}

/// How names are meant (Kafka's PatternType).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PatternType {
    /// The resource of this name.
    Literal,
    /// Resources whose names begin so.
    Prefixed,
    /// Patterns of either kind with this name; for list and remove.
    Any,
    /// Patterns that a resource of this name has; for list and remove.
    Match,
}

impl Resources {
    /// By kind and name.
    pub(super) fn named(&self) -> Vec<(ResourceKind, &str)> {
        fn of(kind: ResourceKind, names: &[String]) -> Vec<(ResourceKind, &str)> {
            names.iter().map(|name| (kind, name.as_str())).collect()
        }
        let cluster = self
            .cluster
            .then_some((ResourceKind::Cluster, CLUSTER_NAME));
        let all = [
            of(ResourceKind::Topic, &self.topic),
            of(ResourceKind::Group, &self.group),
            of(ResourceKind::TransactionalId, &self.transactional_id),
            of(ResourceKind::DelegationToken, &self.delegation_token),
            of(ResourceKind::User, &self.user_principal),
            cluster.into_iter().collect(),
        ];
        all.concat()
    }

    /// Of patterns whose names may be anything.
    pub(super) fn wanted_kind_of_all(&self) -> WantedKind {
        match self.resource_pattern_type {
            Some(_) => self.wanted_kind(),
            None => WantedKind::Any,
        }
    }

    pub(super) fn wanted_kind(&self) -> WantedKind {
        match self.resource_pattern_type.unwrap_or(PatternType::Literal) {
            PatternType::Literal => WantedKind::Only(PatternKind::Literal),
            PatternType::Prefixed => WantedKind::Only(PatternKind::Prefixed),
            PatternType::Any => WantedKind::Any,
            PatternType::Match => WantedKind::Match,
        }
    }
}

/// Who may or may not do what.
#[derive(Debug, Args)]
pub(super) struct Entries {
    /// Who may, as User:NAME; User:* is everybody.
    #[arg(long, value_name = "PRINCIPAL")]
    allow_principal: Vec<String>,
    /// Who may not, whatever else allows it.
    #[arg(long, value_name = "PRINCIPAL")]
    deny_principal: Vec<String>,
    /// From where, an address or a range such as 10.0.0.0/8; to add, everywhere by default.
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// From where those of --allow-principal may; instead of --host.
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// From where those of --deny-principal may not; instead of --host.
    #[arg(long, value_name = "HOST")]
    deny_host: Vec<String>,
    /// What, such as Read or DescribeConfigs; to add, All by default.
    #[arg(long, value_name = "OPERATION", value_parser = operation)]
    operation: Vec<Operation>,
    /// What a producer needs of the topics and transactional ids: Write, Describe, Create.
    #[arg(long)]
    producer: bool,
    /// What a consumer needs of the topics and groups: Read, Describe.
    #[arg(long)]
    consumer: bool,
    /// With --producer: IdempotentWrite to the cluster too.
    #[arg(long)]
    idempotent: bool,
}

/// What is done to what, of bindings that are looked for; `None` for anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WantedDeed {
    pub(super) resource: Option<(ResourceKind, String)>,
    pub(super) operation: Option<Operation>,
}

/// Who may or may not do it from where, of bindings that are looked for; `None` for anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantedWho<'a> {
    pub(super) principal: Option<&'a str>,
    pub(super) host: Option<&'a str>,
    pub(super) permission: Option<Permission>,
}

/// Each of these, or anything where there are none.
fn any_of(named: &[String]) -> impl Iterator<Item = Option<&str>> {
    let anything = named.is_empty().then_some(None);
    named.iter().map(|one| Some(one.as_str())).chain(anything)
}

fn operation(text: &str) -> Result<Operation, String> {
    let word: String = text.chars().filter(|c| !matches!(c, '-' | '_')).collect();
    Operation::from_word(&word).ok_or_else(|| {
        let all: Vec<&str> = Operation::ALL.iter().map(|known| known.word()).collect();
        format!("one of {}", all.join(", "))
    })
}

impl Entries {
    /// Whether nobody is named.
    pub(super) fn is_of_nobody(&self) -> bool {
        self.allow_principal.is_empty() && self.deny_principal.is_empty()
    }

    /// What is to be done to which resources; those that were not asked for are the cluster of --idempotent.
    fn deeds(
        &self,
        resources: &Resources,
    ) -> Result<Vec<(ResourceKind, String, Operation)>, Failure> {
        let named = resources.named();
        let has = |kind| named.iter().any(|(known, _)| *known == kind);
        if self.producer && !has(ResourceKind::Topic) {
            return Err("--producer needs a --topic".into());
        }
        if self.consumer && !(has(ResourceKind::Topic) && has(ResourceKind::Group)) {
            return Err("--consumer needs a --topic and a --group".into());
        }
        if self.idempotent && !self.producer {
            return Err("--idempotent goes with --producer".into());
        }
        if named.is_empty() {
            return Err("name resources: --topic, --group, --cluster, --transactional-id, --delegation-token or --user-principal".into());
        }
        let mut deeds = Vec::new();
        for (kind, name) in named {
            for operation in self.operations(kind)? {
                deeds.push((kind, name.to_owned(), operation));
            }
        }
        if self.idempotent {
            let cluster = CLUSTER_NAME.to_owned();
            deeds.push((ResourceKind::Cluster, cluster, Operation::IdempotentWrite));
        }
        Ok(deeds)
    }

    /// What is done to what, of bindings that are looked for.
    pub(super) fn deeds_wanted(&self, resources: &Resources) -> Result<Vec<WantedDeed>, Failure> {
        self.check_pairs()?;
        let names_deeds = self.producer || self.consumer || !self.operation.is_empty();
        if names_deeds {
            let wanted = |(kind, name, operation)| WantedDeed {
                resource: Some((kind, name)),
                operation: Some(operation),
            };
            return Ok(self.deeds(resources)?.into_iter().map(wanted).collect());
        }
        let named = resources.named();
        let wanted = |(kind, name): (ResourceKind, &str)| WantedDeed {
            resource: Some((kind, name.to_owned())),
            operation: None,
        };
        Ok(match named.is_empty() {
            true => vec![WantedDeed::default()],
            false => named.into_iter().map(wanted).collect(),
        })
    }

    /// Who, from where, of bindings that are looked for.
    pub(super) fn who_wanted(&self) -> Vec<WantedWho<'_>> {
        let allowed = (
            Some(Permission::Allow),
            &self.allow_principal,
            &self.allow_host,
        );
        let denied = (
            Some(Permission::Deny),
            &self.deny_principal,
            &self.deny_host,
        );
        let mut wanted = Vec::new();
        for (permission, principals, own_hosts) in [allowed, denied] {
            let hosts = if own_hosts.is_empty() {
                &self.host
            } else {
                own_hosts
            };
            for principal in principals {
                wanted.extend(any_of(hosts).map(|host| WantedWho {
                    principal: Some(principal),
                    host,
                    permission,
                }));
            }
        }
        if self.is_of_nobody() {
            let of_anybody = |permission| {
                move |host| WantedWho {
                    principal: None,
                    host,
                    permission,
                }
            };
            let own = [
                (Permission::Allow, &self.allow_host),
                (Permission::Deny, &self.deny_host),
            ];
            for (permission, hosts) in own {
                let hosts = hosts.iter().map(|host| Some(host.as_str()));
                wanted.extend(hosts.map(of_anybody(Some(permission))));
            }
            if wanted.is_empty() {
                wanted.extend(any_of(&self.host).map(of_anybody(None)));
            }
        }
        wanted
    }

    /// An option that would say nothing is a mistake: what is removed is not more than what was meant.
    fn check_pairs(&self) -> Result<(), Failure> {
        if self.idempotent && !self.producer {
            return Err("--idempotent goes with --producer".into());
        }
        if self.is_of_nobody() {
            return Ok(());
        }
        if !self.allow_host.is_empty() && self.allow_principal.is_empty() {
            return Err("--allow-host goes with --allow-principal".into());
        }
        if !self.deny_host.is_empty() && self.deny_principal.is_empty() {
            return Err("--deny-host goes with --deny-principal".into());
        }
        Ok(())
    }

    fn operations(&self, kind: ResourceKind) -> Result<Vec<Operation>, Failure> {
        use Operation as Op;
        let mut all = Vec::new();
        match kind {
            ResourceKind::Topic if self.producer => {
                all.extend([Op::Write, Op::Describe, Op::Create])
            }
            ResourceKind::TransactionalId if self.producer => all.extend([Op::Write, Op::Describe]),
            _ => {}
        }
        match kind {
            ResourceKind::Topic if self.consumer => all.extend([Op::Read, Op::Describe]),
            ResourceKind::Group if self.consumer => all.push(Op::Read),
            _ => {}
        }
        let is_possible =
            |operation: &&Op| **operation == Op::All || kind.operations().contains(operation);
        if let Some(other) = self
            .operation
            .iter()
            .find(|operation| !is_possible(operation))
        {
            let possible: Vec<&str> = kind.operations().iter().map(|known| known.word()).collect();
            return Err(format!(
                "{} is not done to a {}: All, {} are",
                other.word(),
                kind.word(),
                possible.join(", ")
            )
            .into());
        }
        all.extend(&self.operation);
        if all.is_empty() && (self.producer || self.consumer) {
            let words = match (self.producer, self.consumer) {
                (true, true) => "--producer and --consumer mean",
                (true, false) => "--producer means",
                _ => "--consumer means",
            };
            let why = format!("{words} nothing of a {}: give its --operation", kind.word());
            return Err(why.into());
        }
        if all.is_empty() {
            all.push(Op::All);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// The bindings that are meant.
    pub(super) fn bindings(&self, resources: &Resources) -> Result<Vec<Binding>, Failure> {
        let WantedKind::Only(pattern_kind) = resources.wanted_kind() else {
            return Err("what is added has the pattern type literal or prefixed".into());
        };
        let hosts = |own: &[String]| -> Vec<String> {
            let hosts = if own.is_empty() { &self.host } else { own };
            match hosts.is_empty() {
                true => vec![WILDCARD.to_owned()],
                false => hosts.to_vec(),
            }
        };
        let who = [
            (
                Permission::Allow,
                &self.allow_principal,
                hosts(&self.allow_host),
            ),
            (
                Permission::Deny,
                &self.deny_principal,
                hosts(&self.deny_host),
            ),
        ];
        let mut bindings = Vec::new();
        for (resource, name, operation) in self.deeds(resources)? {
            let pattern = Pattern {
                resource,
                // The cluster has one name.
                kind: match resource {
                    ResourceKind::Cluster => PatternKind::Literal,
                    _ => pattern_kind,
                },
                name,
            };
            for (permission, principals, hosts) in &who {
                for principal in *principals {
                    bindings.extend(hosts.iter().map(|host| Binding {
                        pattern: pattern.clone(),
                        entry: Entry {
                            principal: principal.clone(),
                            host: host.clone(),
                            operation,
                            permission: *permission,
                        },
                    }));
                }
            }
        }
        Ok(bindings)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        resources: Resources,
        #[command(flatten)]
        entries: Entries,
    }

    fn meant(line: &str) -> Result<Vec<String>, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let bindings = line.entries.bindings(&line.resources);
        let bindings = bindings.map_err(|error| error.to_string())?;
        let told = bindings.iter().map(|Binding { pattern, entry }| {
            format!(
                "{} {} {} {} {} {}",
                entry.permission.word(),
                entry.principal,
                entry.host,
                entry.operation.word(),
                pattern.kind.word(),
                pattern.name
            )
        });
        Ok(told.collect())
    }

    #[test]
    fn what_a_producer_or_a_consumer_does_not_use_is_not_given_whole() {
        for (words, kind) in [
            ("--producer --topic t --cluster", "Cluster"),
            ("--producer --topic t --group g", "Group"),
            (
                "--consumer --topic t --group g --transactional-id x",
                "TransactionalId",
            ),
        ] {
            let refused = meant(&format!("{words} --allow-principal User:a")).unwrap_err();
            assert!(refused.contains(kind), "{words}: {refused}");
        }
        let given = "--producer --topic t --group g --operation Read --allow-principal User:a";
        assert!(meant(given).is_ok());
    }

    #[test]
    fn a_producer_and_a_consumer_get_what_they_need() {
        let producer = meant(
            "--producer --idempotent --allow-principal User:a --topic t --transactional-id x --resource-pattern-type prefixed",
        );
        assert_eq!(
            producer.unwrap(),
            [
                "Allow User:a * Write Prefixed t",
                "Allow User:a * Create Prefixed t",
                "Allow User:a * Describe Prefixed t",
                "Allow User:a * Write Prefixed x",
                "Allow User:a * Describe Prefixed x",
                "Allow User:a * IdempotentWrite Literal kafka-cluster",
            ]
        );
        let consumer = meant("--consumer --allow-principal User:a --topic t --group g");
        assert_eq!(
            consumer.unwrap(),
            [
                "Allow User:a * Read Literal t",
                "Allow User:a * Describe Literal t",
                "Allow User:a * Read Literal g",
            ]
        );
        assert!(meant("--consumer --allow-principal User:a --topic t").is_err());
    }

    #[test]
    fn what_is_not_named_may_be_anything_of_what_is_removed() {
        let wanted = |line: &str| {
            let words = std::iter::once("x").chain(line.split_whitespace());
            let line = Line::try_parse_from(words).unwrap();
            let deeds = line.entries.deeds_wanted(&line.resources).unwrap();
            let deeds = deeds.iter().map(|deed| {
                let resource = deed.resource.as_ref().map(|(_, name)| name.clone());
                (resource, deed.operation.map(Operation::word))
            });
            let who = line.entries.who_wanted().into_iter().map(|who| {
                let permission = who.permission.map(Permission::word);
                let text = |part: Option<&str>| part.map(str::to_owned);
                (text(who.principal), text(who.host), permission)
            });
            (deeds.collect::<Vec<_>>(), who.collect::<Vec<_>>())
        };
        let some = |text: &str| Some(text.to_owned());
        let (deeds, who) = wanted("--allow-principal User:a");
        assert_eq!(deeds, [(None, None)]);
        assert_eq!(who, [(some("User:a"), None, Some("Allow"))]);
        let (deeds, who) = wanted("--topic t --topic u");
        assert_eq!(deeds, [(some("t"), None), (some("u"), None)]);
        assert_eq!(who, [(None, None, None)]);
        let (deeds, who) =
            wanted("--deny-principal User:a --host h --host i --topic t --operation Read");
        assert_eq!(deeds, [(some("t"), Some("Read"))]);
        let denied = |host| (some("User:a"), some(host), Some("Deny"));
        assert_eq!(who, [denied("h"), denied("i")]);
        let (_, who) = wanted("--topic t --allow-host h");
        assert_eq!(who, [(None, some("h"), Some("Allow"))]);
        for mistaken in [
            "--allow-principal User:a --deny-host h",
            "--deny-principal User:a --allow-host h",
            "--allow-principal User:a --idempotent",
        ] {
            let words = std::iter::once("x").chain(mistaken.split_whitespace());
            let line = Line::try_parse_from(words).unwrap();
            assert!(
                line.entries.deeds_wanted(&line.resources).is_err(),
                "{mistaken}"
            );
        }
    }

    #[test]
    fn operations_and_hosts_are_of_those_that_are_named() {
        let line = "--allow-principal User:a --deny-principal User:b --deny-host 10.0.0.0/8 --host 10.1.1.1 --operation describe-configs --cluster";
        assert_eq!(
            meant(line).unwrap(),
            [
                "Allow User:a 10.1.1.1 DescribeConfigs Literal kafka-cluster",
                "Deny User:b 10.0.0.0/8 DescribeConfigs Literal kafka-cluster",
            ]
        );
        let of_no_group = meant("--allow-principal User:a --operation Write --group g");
        assert!(
            of_no_group
                .unwrap_err()
                .starts_with("Write is not done to a Group")
        );
        assert!(meant("--allow-principal User:a --operation Fly --topic t").is_err());
        assert!(meant("--allow-principal User:a").is_err());
    }
}
