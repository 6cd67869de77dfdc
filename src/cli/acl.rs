//! `metaq acl list|add|remove`, in the words of kafka-acls.
//!
//! Tests: tests/advice.rs.

use clap::{Args, Subcommand};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_acls_request::AclCreation;
use metaq_protocol::messages::delete_acls_request::DeleteAclsFilter;
use metaq_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;

use super::Failure;
use super::acl_words::{Entries, Resources, WantedDeed};
use super::client::{Address, Client};
use super::output::print;
use super::words::in_words;
use crate::security::{Binding, Operation, PatternKind, Permission, ResourceKind, WantedKind};

/// Of all three APIs.
const VERSION: i16 = 3;
/// Kafka's code of anything in filters.
const ANY: i8 = 1;

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Acl {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List bindings: all, or those of resources or of a principal.
    #[command(
        after_help = "Examples:\n  metaq acl list\n  metaq acl list --topic orders --resource-pattern-type match\n  metaq acl list --principal User:billing --json"
    )]
    List {
        #[command(flatten)]
        resources: Resources,
        /// Only those of this principal, as it is written.
        #[arg(long, value_name = "PRINCIPAL")]
        principal: Vec<String>,
        #[command(flatten)]
        address: Address,
    },
    /// Add bindings; those that are there already stay.
    #[command(
        after_help = "Examples:\n  metaq acl add --allow-principal User:billing --producer --topic orders\n  metaq acl add --allow-principal User:audit --consumer --topic orders- --group audit --resource-pattern-type prefixed\n  metaq acl add --deny-principal User:* --operation Delete --topic '*'"
    )]
    Add {
        #[command(flatten)]
        resources: Resources,
        #[command(flatten)]
        entries: Entries,
        #[command(flatten)]
        address: Address,
    },
    /// Remove bindings: what is not named may be anything, so a principal alone means all that it has, and a topic alone
    /// what everybody has of it. The exit code is 1 where there is nothing of the kind.
    #[command(
        after_help = "Examples:\n  metaq acl remove --allow-principal User:billing\n  metaq acl remove --allow-principal User:billing --producer --topic orders\n  metaq acl remove --topic orders"
    )]
    Remove {
        #[command(flatten)]
        resources: Resources,
        #[command(flatten)]
        entries: Entries,
        #[command(flatten)]
        address: Address,
    },
}

/// A binding, as it is shown.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Shown {
    resource: String,
    name: String,
    pattern: String,
    principal: String,
    host: String,
    operation: String,
    permission: String,
}

impl Shown {
    fn cells(&self) -> Vec<String> {
        let cells = [
            &self.resource,
            &self.name,
            &self.pattern,
            &self.permission,
            &self.principal,
            &self.host,
            &self.operation,
        ];
        cells.map(Clone::clone).into()
    }

    /// From what an answer has; what a later version has is shown as its number.
    fn of_codes(
        (resource, name, pattern): (i8, &str, i8),
        (principal, host): (&str, &str),
        (operation, permission): (i8, i8),
    ) -> Self {
        let word = |known: Option<&str>, code: i8| known.map_or(code.to_string(), str::to_owned);
        Self {
            resource: word(
                ResourceKind::from_code(resource).map(ResourceKind::word),
                resource,
            ),
            name: name.to_owned(),
            pattern: word(
                PatternKind::from_code(pattern).map(PatternKind::word),
                pattern,
            ),
            principal: principal.to_owned(),
            host: host.to_owned(),
            operation: word(
                Operation::from_code(operation).map(Operation::word),
                operation,
            ),
            permission: word(
                Permission::from_code(permission).map(Permission::word),
                permission,
            ),
        }
    }
}

const HEADINGS: &[&str] = &[
    "RESOURCE",
    "NAME",
    "PATTERN",
    "PERMISSION",
    "PRINCIPAL",
    "HOST",
    "OPERATION",
];

impl Acl {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::List {
                resources,
                principal,
                address,
            } => list(&resources, &principal, &address),
            Action::Add {
                resources,
                entries,
                address,
            } => add(&entries.bindings(&resources)?, &entries, &address),
            Action::Remove {
                resources,
                entries,
                address,
            } => remove(&resources, &entries, &address),
        }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Fails with what the broker says, or with what the code means.
fn check(code: i16, why: Option<&StrBytes>) -> Result<(), Failure> {
    let Some(error) = ResponseError::try_from_code(code) else {
        return Ok(());
    };
    let why = why.map(|why| why.to_string()).filter(|why| !why.is_empty());
    let why = match error {
        ResponseError::SecurityDisabled => {
            "the broker has no authorizer: set authorizer.class.name (docs/security.md)".to_owned()
        }
        ResponseError::ClusterAuthorizationFailed => in_words(error),
        _ => why.unwrap_or_else(|| in_words(error)),
    };
    Err(why.into())
}

fn list(resources: &Resources, principals: &[String], address: &Address) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let every = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let named = resources.named();
    let mut filters: Vec<DescribeAclsRequest> = named
        .iter()
        .map(|(kind, name)| {
            every
                .clone()
                .with_resource_type_filter(kind.code())
                .with_resource_name_filter(Some(text(name)))
                .with_pattern_type_filter(resources.wanted_kind().code())
        })
        .collect();
    if filters.is_empty() {
        filters.push(every);
    }
    let mut shown = Vec::new();
    for filter in filters {
        let answer = client.ask(VERSION, &filter)?;
        check(answer.error_code, answer.error_message.as_ref())?;
        for resource in &answer.resources {
            let of = (
                resource.resource_type,
                &*resource.resource_name,
                resource.pattern_type,
            );
            shown.extend(resource.acls.iter().map(|acl| {
                let who = (&*acl.principal, &*acl.host);
                Shown::of_codes(of, who, (acl.operation, acl.permission_type))
            }));
        }
    }
    shown.retain(|one| principals.is_empty() || principals.contains(&one.principal));
    shown.sort();
    shown.dedup();
    print(address.json, HEADINGS, &shown, Shown::cells)
}

fn add(bindings: &[Binding], entries: &Entries, address: &Address) -> Result<(), Failure> {
    if entries.is_of_nobody() {
        return Err("name principals: --allow-principal or --deny-principal".into());
    }
    let creations = bindings.iter().map(|Binding { pattern, entry }| {
        AclCreation::default()
            .with_resource_type(pattern.resource.code())
            .with_resource_name(text(&pattern.name))
            .with_resource_pattern_type(pattern.kind.code())
            .with_principal(text(&entry.principal))
            .with_host(text(&entry.host))
            .with_operation(entry.operation.code())
            .with_permission_type(entry.permission.code())
    });
    let request = CreateAclsRequest::default().with_creations(creations.collect());
    let answer = Client::connect(address)?.ask(VERSION, &request)?;
    for (binding, result) in bindings.iter().zip(&answer.results) {
        check(result.error_code, result.error_message.as_ref()).map_err(|error| {
            let Binding { pattern, entry } = binding;
            let (kind, name) = (pattern.resource.word(), &pattern.name);
            format!("{} of {kind} {name}: {error}", entry.principal)
        })?;
    }
    let added: Vec<Shown> = bindings.iter().map(shown).collect();
    print(address.json, HEADINGS, &added, Shown::cells)
}

fn shown(Binding { pattern, entry }: &Binding) -> Shown {
    Shown::of_codes(
        (pattern.resource.code(), &pattern.name, pattern.kind.code()),
        (&entry.principal, &entry.host),
        (entry.operation.code(), entry.permission.code()),
    )
}

/// What is to be removed: what the options leave open may be anything.
fn filters(resources: &Resources, entries: &Entries) -> Result<Vec<DeleteAclsFilter>, Failure> {
    let (wanted, who) = (entries.deeds_wanted(resources)?, entries.who_wanted());
    if wanted == [WantedDeed::default()] && entries.is_of_nobody() {
        let why = "name resources or principals: all bindings are not removed at once";
        return Err(why.into());
    }
    let mut filters = Vec::new();
    for deed in &wanted {
        let (kind, name) = match &deed.resource {
            Some((kind, name)) => (kind.code(), Some(text(name))),
            None => (ANY, None),
        };
        // The cluster has one name.
        let pattern = match &deed.resource {
            Some((ResourceKind::Cluster, _)) => WantedKind::Any,
            Some(_) => resources.wanted_kind(),
            None => resources.wanted_kind_of_all(),
        };
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(kind)
            .with_resource_name_filter(name)
            .with_pattern_type_filter(pattern.code())
            .with_operation(deed.operation.map_or(ANY, Operation::code));
        filters.extend(who.iter().map(|who| {
            filter
                .clone()
                .with_principal_filter(who.principal.map(text))
                .with_host_filter(who.host.map(text))
                .with_permission_type(who.permission.map_or(ANY, Permission::code))
        }));
    }
    Ok(filters)
}

fn remove(resources: &Resources, entries: &Entries, address: &Address) -> Result<(), Failure> {
    let request = DeleteAclsRequest::default().with_filters(filters(resources, entries)?);
    let answer = Client::connect(address)?.ask(VERSION, &request)?;
    let mut removed = Vec::new();
    for result in &answer.filter_results {
        check(result.error_code, result.error_message.as_ref())?;
        for acl in &result.matching_acls {
            check(acl.error_code, acl.error_message.as_ref())?;
            removed.push(Shown::of_codes(
                (acl.resource_type, &acl.resource_name, acl.pattern_type),
                (&acl.principal, &acl.host),
                (acl.operation, acl.permission_type),
            ));
        }
    }
    removed.sort();
    removed.dedup();
    if removed.is_empty() {
        return Err("nothing is removed: there is no such binding (metaq acl list)".into());
    }
    print(address.json, HEADINGS, &removed, Shown::cells)
}
