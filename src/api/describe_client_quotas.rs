//! DescribeClientQuotas (key 48, v0–v1; KIP-546): the quotas of the entities that a filter matches.
//!
//! - Each part of the filter is a type, with a name, the default, or any of the two; of each type there is one at most.
//! - Strict: no entity that has a type which the filter has not.
//! - Credentials of users are no quotas, and not shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_client_quotas_request::ComponentData;
use metaq_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use metaq_protocol::messages::{ApiKey, DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::alter_client_quotas::{CLIENT_ID, IP, USER};
use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{message, text, told};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{Entity, EntityName};
use crate::quota::limits_of;

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeClientQuotas,
    order: Order::Alone,
    needs: &[(Operation::DescribeConfigs, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// What an entity's name of a type is to be; `None` for any.
type Filter = BTreeMap<&'static str, Option<EntityName>>;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let refuse = |error: ResponseError, why: &str| {
        cx.note(&caller, "", error.code(), why);
        DescribeClientQuotasResponse::default()
            .with_error_code(error.code())
            .with_error_message(told(why.to_owned()))
            .with_entries(None)
    };
    let right = Operation::DescribeConfigs;
    if let Err(denied) = authorize(&cx, &caller, right, Resource::Cluster) {
        // Kafka says nothing that the code does not say (ApiError).
        return refuse(denied.wire(), "");
    }
    let filter = match filter(&request.components) {
        Ok(filter) => filter,
        Err((error, why)) => return refuse(error, &why),
    };
    let image = cx.cluster.image();
    let mut entries = Vec::new();
    for (entity, set) in image.configs.entities() {
        let parts = parts(&entity);
        let is_empty_and_strict = filter.is_empty() && request.strict;
        if is_empty_and_strict || !matches(&filter, &parts, request.strict) {
            continue;
        }
        let value = |(key, value): (&str, f64)| {
            let key = text(key.to_owned());
            ValueData::default().with_key(key).with_value(value)
        };
        let values: Vec<ValueData> = limits_of(&entity, set).map(value).collect();
        if values.is_empty() {
            continue;
        }
        let part = |(kind, name): (&'static str, &EntityName)| {
            EntityData::default()
                .with_entity_type(text(kind.to_owned()))
                .with_entity_name(name.name().map(|name| text(name.to_owned())))
        };
        entries.push(
            EntryData::default()
                .with_entity(parts.into_iter().map(part).collect())
                .with_values(values),
        );
    }
    // A success has the empty message, which is Kafka's default.
    DescribeClientQuotasResponse::default()
        .with_error_message(message(&""))
        .with_entries(Some(entries))
}

/// The filter, or why it makes no sense, as Kafka's ClientQuotasImage says it.
fn filter(components: &[ComponentData]) -> Result<Filter, (ResponseError, String)> {
    let invalid = |why: String| Err((ResponseError::InvalidRequest, why));
    let mut filter = Filter::new();
    for component in components {
        let asked = component.entity_type.as_str();
        if asked.is_empty() {
            return invalid("Invalid empty entity type.".to_owned());
        }
        if filter.contains_key(asked) {
            return invalid(format!(
                "Entity type {asked} cannot appear more than once in the filter."
            ));
        }
        let Some(kind) = [IP, USER, CLIENT_ID]
            .into_iter()
            .find(|kind| *kind == asked)
        else {
            let why = format!("Unsupported entity type {asked}");
            return Err((ResponseError::UnsupportedVersion, why));
        };
        let name = component._match.as_deref();
        let matched = match (component.match_type, name) {
            (EXACT, Some(name)) => Some(EntityName::new(Some(name))),
            (EXACT, None) => {
                return invalid(
                    "Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned(),
                );
            }
            (DEFAULT, None) => Some(EntityName::Default),
            (SPECIFIED, None) => None,
            (DEFAULT, Some(_)) => return invalid(also_specified("MATCH_TYPE_DEFAULT")),
            (SPECIFIED, Some(_)) => return invalid(also_specified("MATCH_TYPE_SPECIFIED")),
            (other, _) => return invalid(format!("Unknown match type {other}")),
        };
        filter.insert(kind, matched);
    }
    if filter.contains_key(IP) && filter.len() > 1 {
        return invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component."
                .to_owned(),
        );
    }
    Ok(filter)
}

fn also_specified(kind: &str) -> String {
    format!("Request specified {kind}, but also specified a match string.")
}

/// Types and names of an entity.
fn parts(entity: &Entity) -> Vec<(&'static str, &EntityName)> {
    match entity {
        Entity::User(user) => vec![(USER, user)],
        Entity::Client(client) => vec![(CLIENT_ID, client)],
        Entity::UserClient(user, client) => vec![(CLIENT_ID, client), (USER, user)],
        Entity::Ip(ip) => vec![(IP, ip)],
    }
}

fn matches(filter: &Filter, parts: &[(&'static str, &EntityName)], strict: bool) -> bool {
    let is_met = |(kind, wanted): (&&'static str, &Option<EntityName>)| {
        let part = parts.iter().find(|(of, _)| of == kind);
        part.is_some_and(|(_, name)| wanted.as_ref().is_none_or(|wanted| wanted == *name))
    };
    filter.iter().all(is_met) && (!strict || parts.len() == filter.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(kind: &str, match_type: i8, name: Option<&str>) -> ComponentData {
        ComponentData::default()
            .with_entity_type(text(kind.to_owned()))
            .with_match_type(match_type)
            .with_match(name.map(|name| text(name.to_owned())))
    }

    #[test]
    fn a_filter_matches_by_name_default_or_type_and_strictly_nothing_more() {
        let named = |name: &str| EntityName::Named(name.to_owned());
        let entities = [
            Entity::user("u"),
            Entity::User(EntityName::Default),
            Entity::Client(named("c")),
            Entity::UserClient(named("u"), named("c")),
            Entity::UserClient(named("u"), EntityName::Default),
            Entity::Ip(named("10.0.0.1")),
        ];
        let matched = |components: &[ComponentData], strict: bool| -> Vec<usize> {
            let filter = filter(components).unwrap();
            let all = entities.iter().enumerate();
            let those = all.filter(|(_, entity)| matches(&filter, &parts(entity), strict));
            those.map(|(n, _)| n).collect()
        };
        let user = || component(USER, EXACT, Some("u"));
        assert_eq!(matched(&[user()], false), [0, 3, 4]);
        assert_eq!(matched(&[user()], true), [0]);
        assert_eq!(matched(&[component(USER, DEFAULT, None)], false), [1]);
        assert_eq!(matched(&[component(USER, SPECIFIED, None)], true), [0, 1]);
        let both = [user(), component(CLIENT_ID, SPECIFIED, None)];
        assert_eq!(matched(&both, true), [3, 4]);
        assert_eq!(matched(&[component(IP, SPECIFIED, None)], true), [5]);
        assert_eq!(matched(&[], false), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_in_kafkas_words() {
        let refused = |components: &[ComponentData]| filter(components).unwrap_err();
        let invalid = ResponseError::InvalidRequest;
        let twice = [
            component(USER, DEFAULT, None),
            component(USER, EXACT, Some("u")),
        ];
        let why = "Entity type user cannot appear more than once in the filter.";
        assert_eq!(refused(&twice), (invalid, why.to_owned()));
        let why = "Unsupported entity type group";
        let unknown = [component("group", DEFAULT, None)];
        assert_eq!(
            refused(&unknown),
            (ResponseError::UnsupportedVersion, why.to_owned())
        );
        assert_eq!(
            refused(&[component(USER, 3, None)]).1,
            "Unknown match type 3"
        );
        assert!(refused(&[component(USER, EXACT, None)]).1.contains("null"));
        assert!(
            refused(&[component(USER, DEFAULT, Some("u"))])
                .1
                .contains("also")
        );
        let mixed = [component(IP, DEFAULT, None), component(USER, DEFAULT, None)];
        assert!(refused(&mixed).1.contains("IP filter component"));
        assert!(refused(&[component("", DEFAULT, None)]).1.contains("empty"));
    }
}
