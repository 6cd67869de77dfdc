//! AlterClientQuotas (key 49, v0–v1; KIP-546, 599, 612): sets and removes quotas of users, client ids and addresses.
//!
//! - Each entity by itself, those that are right in one write; what is wrong of one refuses all of it.
//! - Of an entity that is named twice the first is done, and the answer says that it is there twice (Kafka's
//!   ClientQuotaControlManager).
//! - An address may be a host's name, where it can be resolved.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_client_quotas_request::{EntityData, OpData};
use metaq_protocol::messages::alter_client_quotas_response as response;
use metaq_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse, ApiKey};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::message;
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{Entity, EntityChange, EntityName};
use crate::quota::{check_limit, is_limit};

/// How long a host's name may take to be resolved.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

pub(super) const USER: &str = "user";
pub(super) const CLIENT_ID: &str = "client-id";
pub(super) const IP: &str = "ip";

pub(super) const API: Api = Api {
    key: ApiKey::AlterClientQuotas,
    order: Order::Alone,
    needs: &[(Operation::AlterConfigs, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

/// By type, `None` for the default.
type Named = BTreeMap<String, Option<String>>;
type Outcome = Result<(), (ResponseError, String)>;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let right = Operation::AlterConfigs;
    if let Err(denied) = authorize(&cx, &caller, right, Resource::Cluster) {
        let refused = (denied.wire(), denied.to_string());
        let entries = request.entries.into_iter();
        let entries = entries.map(|entry| (named(&entry.entity), Err(refused.clone())));
        return answer(&cx, &caller, entries.collect());
    }
    let mut outcomes: Vec<(Named, Outcome)> = Vec::with_capacity(request.entries.len());
    let mut places: HashMap<Named, usize> = HashMap::new();
    let mut changes = Vec::new();
    for entry in &request.entries {
        let entity = named(&entry.entity);
        if let Some(place) = places.get(&entity) {
            outcomes[*place].1 = Err(named_twice(&entity));
            continue;
        }
        let outcome = match change(&entity, &entry.ops).await {
            Ok(change) => {
                changes.push((outcomes.len(), change));
                Ok(())
            }
            Err(why) => Err((ResponseError::InvalidRequest, why)),
        };
        places.insert(entity.clone(), outcomes.len());
        outcomes.push((entity, outcome));
    }
    let (at, changes): (Vec<usize>, Vec<EntityChange>) = changes.into_iter().unzip();
    let controller = cx.cluster.controller();
    let made = match changes.is_empty() {
        true => Ok(Vec::new()),
        false => {
            controller
                .change_entities(&changes, request.validate_only)
                .await
        }
    };
    let made: Vec<Outcome> = match made {
        Ok(made) => made
            .into_iter()
            .map(|one| one.map_err(|error| (error.wire(), error.to_string())))
            .collect(),
        Err(error) => vec![Err((error.wire(), error.to_string())); at.len()],
    };
    for (place, made) in at.into_iter().zip(made) {
        if outcomes[place].1.is_ok() {
            outcomes[place].1 = made;
        }
    }
    answer(&cx, &caller, outcomes)
}

fn named(entity: &[EntityData]) -> Named {
    let text = |name: &EntityData| name.entity_name.as_ref().map(|name| name.to_string());
    let names = entity.iter();
    names
        .map(|name| (name.entity_type.to_string(), text(name)))
        .collect()
}

/// As Kafka says it, even where a key is what is there twice.
fn named_twice(entity: &Named) -> (ResponseError, String) {
    // As a HashMap of Java has them.
    let order = [CLIENT_ID, USER, IP];
    let known = order
        .into_iter()
        .filter_map(|kind| entity.get_key_value(kind));
    let others = entity
        .iter()
        .filter(|(kind, _)| !order.contains(&kind.as_str()));
    let shown: Vec<String> = known
        .chain(others)
        .map(|(kind, name)| format!("{kind}={}", name.as_deref().unwrap_or("null")))
        .collect();
    let why = format!(
        "Ignoring duplicate entity ClientQuotaEntity(entries={{{}}})",
        shown.join(", ")
    );
    (ResponseError::InvalidRequest, why)
}

/// What is to be done, or why it is refused.
async fn change(named: &Named, ops: &[OpData]) -> Result<EntityChange, String> {
    let mut values = BTreeMap::new();
    for op in ops {
        let value = (!op.remove).then_some(op.value);
        if values.insert(op.key.to_string(), value).is_some() {
            return Err(named_twice(named).1);
        }
    }
    let entity = entity_of(named)?;
    if let Entity::Ip(EntityName::Named(ip)) = &entity
        && !is_resolved(ip).await
    {
        return Err(format!("{ip} is not a valid IP or resolvable host."));
    }
    let mut limits = BTreeMap::new();
    for (key, value) in values {
        match value {
            Some(value) => check_limit(&entity, &key, value)?,
            // Nothing is removed by what is no quota's name; credentials, which the entity has too, have another API.
            None if !is_limit(&entity, &key) => continue,
            None => {}
        }
        limits.insert(key, value.map(|value| value.to_string()));
    }
    let values = limits;
    Ok(EntityChange { entity, values })
}

fn entity_of(named: &Named) -> Result<Entity, String> {
    if named.is_empty() {
        return Err("Invalid empty client quota entity".to_owned());
    }
    for (kind, name) in named {
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return Err(format!("Unhandled client quota entity type: {kind}"));
        }
        if name.as_deref() == Some("") {
            return Err(format!("Empty {kind} not supported"));
        }
    }
    let of = |kind: &str| {
        let name = named.get(kind)?;
        Some(EntityName::new(name.as_deref()))
    };
    match (of(USER), of(CLIENT_ID), of(IP)) {
        (None, None, Some(ip)) => Ok(Entity::Ip(ip)),
        (Some(user), None, None) => Ok(Entity::User(user)),
        (None, Some(client), None) => Ok(Entity::Client(client)),
        (Some(user), Some(client), None) => Ok(Entity::UserClient(user, client)),
        // As Kafka says it, without the space.
        _ => Err(
            "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId"
                .to_owned(),
        ),
    }
}

async fn is_resolved(host: &str) -> bool {
    let resolved = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host((host, 0)));
    match resolved.await {
        Ok(Ok(mut found)) => found.next().is_some(),
        _ => false,
    }
}

fn answer(
    cx: &Context,
    caller: &Caller,
    outcomes: Vec<(Named, Outcome)>,
) -> AlterClientQuotasResponse {
    let mut entries = Vec::with_capacity(outcomes.len());
    for (named, outcome) in outcomes {
        let subject: Vec<String> = named
            .iter()
            .map(|(kind, name)| format!("{kind} {}", name.as_deref().unwrap_or("default")))
            .collect();
        let entity = named.into_iter().map(|(kind, name)| {
            response::EntityData::default()
                .with_entity_type(super::shared::text(kind))
                .with_entity_name(name.map(super::shared::text))
        });
        let entry = response::EntryData::default()
            .with_entity(entity.collect())
            .with_error_message(None);
        entries.push(match outcome {
            Ok(()) => entry,
            Err((error, why)) => {
                cx.note(caller, &subject.join(" "), error.code(), &why);
                entry
                    .with_error_code(error.code())
                    .with_error_message(message(&why))
            }
        });
    }
    AlterClientQuotasResponse::default().with_entries(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[(&str, Option<&str>)]) -> Named {
        let names = names.iter();
        names
            .map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned)))
            .collect()
    }

    #[tokio::test]
    async fn what_is_no_quota_is_not_removed_least_of_all_credentials() {
        let op = |key: &'static str| {
            let key = metaq_protocol::protocol::StrBytes::from_static_str(key);
            OpData::default().with_key(key).with_remove(true)
        };
        let keys = ["SCRAM-SHA-256", "SCRAM-SHA-512", "x", "consumer_byte_rate"];
        let named = of(&[(USER, Some("u"))]);
        let change = change(&named, &keys.map(op)).await.unwrap();
        assert_eq!(
            change.values,
            [("consumer_byte_rate".to_owned(), None)].into()
        );
    }

    #[test]
    fn an_entity_is_a_user_a_client_id_both_or_an_address() {
        let user = of(&[(USER, Some("u")), (CLIENT_ID, None)]);
        let named = EntityName::Named("u".to_owned());
        let expected = Entity::UserClient(named, EntityName::Default);
        assert_eq!(entity_of(&user), Ok(expected));
        let refused = |names: &[(&str, Option<&str>)]| entity_of(&of(names)).unwrap_err();
        assert_eq!(refused(&[]), "Invalid empty client quota entity");
        assert_eq!(refused(&[(USER, Some(""))]), "Empty user not supported");
        assert_eq!(
            refused(&[("group", None)]),
            "Unhandled client quota entity type: group"
        );
        let mixed = refused(&[(IP, None), (USER, None)]);
        assert!(mixed.contains("IP entity shouldnot be combined"), "{mixed}");
    }

    #[test]
    fn an_entity_that_is_there_twice_is_shown_as_by_kafka() {
        let (_, why) = named_twice(&of(&[(CLIENT_ID, None), (USER, Some("u"))]));
        let shown = "ClientQuotaEntity(entries={client-id=null, user=u})";
        assert_eq!(why, format!("Ignoring duplicate entity {shown}"));
    }
}
