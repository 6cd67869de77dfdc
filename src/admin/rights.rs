//! What each page and each operation of the API needs, in one table: what Kafka asks for where one of its APIs does the same
//! (KIP-11). Cluster-wide pages need Describe on the cluster; lists leave out what the visitor may not describe.

use axum::extract::RawPathParams;
use axum::http::StatusCode;

use super::errors::ApiError;
use super::visitor::Visitor;
use crate::api::{Context, Resource};
use crate::security::Operation::{
    Alter, AlterConfigs, Create, Delete, Describe, DescribeConfigs, Read,
};
use crate::security::{Operation, ResourceKind};

/// What a visitor needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A right to the cluster, or to the topic, group or transactional id that the path names.
    Right(Operation, ResourceKind),
    /// A right to what the body names: whoever does it asks for it.
    OfBody(Operation, ResourceKind),
    /// Everything: super users and who has the token.
    All,
}

use Need::{All, OfBody, Right};
use ResourceKind::{Cluster, Group, Topic, TransactionalId};

/// Method, path and what it needs: all of it.
pub(super) type Row = (&'static str, &'static str, &'static [Need]);

/// It is enough to be known; a list has what the visitor may see.
const KNOWN: &[Need] = &[];
const CLUSTER: &[Need] = &[Right(Describe, Cluster)];
const OPERATOR: &[Need] = &[Right(Alter, Cluster)];
const TOPIC: &[Need] = &[Right(Describe, Topic)];
const GROUP: &[Need] = &[Right(Describe, Group)];
const TRANSACTION: &[Need] = &[Right(Describe, TransactionalId)];
/// Fetch.
const READ: &[Need] = &[Right(Read, Topic)];
/// DescribeConfigs of the broker.
const CONFIGS: &[Need] = &[Right(DescribeConfigs, Cluster)];
/// IncrementalAlterConfigs of the broker.
const RELOAD: &[Need] = &[Right(AlterConfigs, Cluster)];
/// CreateTopics, which is satisfied with the right to the cluster too.
const CREATE: &[Need] = &[OfBody(Create, Topic)];
/// DeleteTopics.
const DELETE: &[Need] = &[Right(Delete, Topic)];
/// IncrementalAlterConfigs of the topic.
const CONFIGURE: &[Need] = &[Right(AlterConfigs, Topic)];
/// CreatePartitions.
const EXTEND: &[Need] = &[Right(Alter, Topic)];
/// OffsetCommit.
const RESET: &[Need] = &[Right(Read, Group), OfBody(Read, Topic)];
/// DeleteGroups.
const DELETE_GROUP: &[Need] = &[Right(Delete, Group)];
/// The tree holds what SCRAM keeps of passwords.
const TREE: &[Need] = &[All];

/// See the module's documentation.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    ("get", "/", CLUSTER),
    ("get", "/topics", KNOWN),
    ("post", "/topics", CREATE),
    ("get", "/topics/{topic}", TOPIC),
    ("post", "/topics/{topic}/alter", CONFIGURE),
    ("post", "/topics/{topic}/extend", EXTEND),
    ("post", "/topics/{topic}/delete", DELETE),
    ("get", "/topics/{topic}/partitions/{partition}", TOPIC),
    ("get", "/topics/{topic}/partitions/{partition}/messages", READ),
    ("post", "/topics/{topic}/partitions/{partition}/close", CONFIGURE),
    ("post", "/topics/{topic}/partitions/{partition}/open", CONFIGURE),
    ("get", "/groups", KNOWN),
    ("get", "/groups/{group}", GROUP),
    ("post", "/groups/{group}/reset", RESET),
    ("post", "/groups/{group}/delete", DELETE_GROUP),
    ("get", "/transactions", KNOWN),
    ("get", "/transactions/{id}", TRANSACTION),
    ("post", "/transactions/{id}/commit", OPERATOR),
    ("post", "/transactions/{id}/abort", OPERATOR),
    ("post", "/transactions/{id}/forget", OPERATOR),
    ("get", "/clients", CLUSTER),
    ("get", "/clients/{number}", CLUSTER),
    ("get", "/cluster", CLUSTER),
    ("get", "/events", CLUSTER),
    ("get", "/configuration", CONFIGS),
    ("post", "/configuration/reload", RELOAD),
    ("get", "/log", CLUSTER),
    ("get", "/process", CLUSTER),
    ("get", "/api/openapi.json", KNOWN),
    ("get", "/api/{*rest}", KNOWN),
    ("get", "/api/broker", CLUSTER),
    ("get", "/api/cluster", CLUSTER),
    ("get", "/api/topics", KNOWN),
    ("get", "/api/topics/{topic}", TOPIC),
    ("get", "/api/topics/{topic}/partitions/{partition}", TOPIC),
    ("get", "/api/topics/{topic}/partitions/{partition}/messages", READ),
    ("get", "/api/groups", KNOWN),
    ("get", "/api/groups/{group}", GROUP),
    ("get", "/api/transactions", KNOWN),
    ("get", "/api/transactions/{id}", TRANSACTION),
    ("get", "/api/clients", CLUSTER),
    ("get", "/api/clients/{number}", CLUSTER),
    ("get", "/api/events", CLUSTER),
    ("get", "/api/history", CLUSTER),
    ("get", "/api/configuration", CONFIGS),
    ("get", "/api/log", CLUSTER),
    ("get", "/api/process", CLUSTER),
    ("get", "/api/live", CLUSTER),
    ("get", "/api/meta/{what}", TREE),
    ("post", "/api/topics", CREATE),
    ("delete", "/api/topics/{topic}", DELETE),
    ("patch", "/api/topics/{topic}", CONFIGURE),
    ("post", "/api/topics/{topic}/partitions", EXTEND),
    ("post", "/api/topics/{topic}/partitions/{partition}/close", CONFIGURE),
    ("post", "/api/topics/{topic}/partitions/{partition}/open", CONFIGURE),
    ("post", "/api/configuration/reload", RELOAD),
    ("post", "/api/groups/{group}/offsets", RESET),
    ("post", "/api/transactions/{id}/commit", OPERATOR),
    ("post", "/api/transactions/{id}/abort", OPERATOR),
    ("post", "/api/transactions/{id}/forget", OPERATOR),
    ("delete", "/api/groups/{group}", DELETE_GROUP),
];

/// The row of a route; HEAD is as GET.
pub(super) fn row_of(method: &str, path: &str) -> Option<&'static Row> {
    let method = match method.to_ascii_lowercase().as_str() {
        "head" => "get".to_owned(),
        method => method.to_owned(),
    };
    TABLE
        .iter()
        .find(|(known, of, _)| *known == method && *of == path)
}

/// The methods that a path takes, as a header says it; empty where there is no such path.
pub(super) fn methods_of(path: &str) -> String {
    let rows = TABLE.iter().filter(|(_, of, _)| *of == path);
    let methods = rows.map(|(method, ..)| match *method {
        "get" => "GET,HEAD".to_owned(),
        method => method.to_ascii_uppercase(),
    });
    methods.collect::<Vec<_>>().join(",")
}

fn denied(visitor: &Visitor, operation: Operation, resource: Resource<'_>) -> ApiError {
    let word = operation.word();
    let what = match visitor.name() {
        Some(name) => format!("{word} on {resource} is not allowed to {name}."),
        None => format!("{word} on {resource} is not allowed."),
    };
    ApiError::new(StatusCode::FORBIDDEN, "not_allowed", what)
}

/// Whether a visitor has a right.
pub(super) fn require(
    cx: &Context,
    visitor: &Visitor,
    operation: Operation,
    resource: Resource<'_>,
) -> Result<(), ApiError> {
    match visitor.may(cx, operation, resource) {
        true => Ok(()),
        false => Err(denied(visitor, operation, resource)),
    }
}

/// Whether a visitor has all rights that a row needs.
pub(super) fn check(
    cx: &Context,
    visitor: &Visitor,
    (_, _, needs): &Row,
    named: &RawPathParams,
) -> Result<(), ApiError> {
    let name_of = |wanted: &str| {
        let found = named.iter().find(|(name, _)| *name == wanted);
        found.map_or("", |(_, value)| value)
    };
    for need in *needs {
        match need {
            Right(operation, kind) => {
                let resource = match kind {
                    Topic => Resource::Topic(name_of("topic")),
                    Group => Resource::Group(name_of("group")),
                    TransactionalId => Resource::TransactionalId(name_of("id")),
                    _ => Resource::Cluster,
                };
                require(cx, visitor, *operation, resource)?;
            }
            OfBody(..) => {}
            All if visitor.may_all(cx) => {}
            All => {
                let what = "This is for super users and for who has the dashboard's token.";
                return Err(ApiError::new(StatusCode::FORBIDDEN, "not_allowed", what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::{api, pages};

    #[test]
    fn every_route_has_one_row_and_no_row_is_without_a_route() {
        let of_api = api::operations();
        let of_api = of_api.iter().map(|one| (one.method, one.path));
        let of_pages = pages::routes();
        let of_pages = of_pages.iter().map(|page| (page.method, page.path));
        let more = [("get", "/api/openapi.json"), ("get", "/api/{*rest}")];
        let routes = of_api.chain(of_pages).chain(more);
        let routes: BTreeSet<_> = routes.filter(|(_, path)| !pages::is_open(path)).collect();
        let rows: BTreeSet<_> = TABLE
            .iter()
            .map(|(method, path, _)| (*method, *path))
            .collect();
        assert_eq!(routes, rows);
        assert_eq!(rows.len(), TABLE.len(), "a row twice");
    }

    #[test]
    fn what_changes_something_needs_more_than_to_be_known() {
        for (method, path, needs) in TABLE {
            let only_shows = |need: &Need| matches!(need, Right(Describe | DescribeConfigs, _));
            let changes = *method != "get";
            assert!(
                !changes || !needs.is_empty() && !needs.iter().any(only_shows),
                "{path}"
            );
        }
    }

    #[test]
    fn a_path_in_a_row_names_what_its_rights_are_to() {
        for (_, path, needs) in TABLE {
            for need in *needs {
                let name = match need {
                    Right(_, Topic) => "{topic}",
                    Right(_, Group) => "{group}",
                    Right(_, TransactionalId) => "{id}",
                    _ => "",
                };
                assert!(path.contains(name), "{path}: {need:?}");
            }
        }
    }
}
