//! DescribeUserScramCredentials (key 50, v0; KIP-554): which mechanisms users have credentials for, as Kafka's ScramImage
//! answers. Users of the configuration are not among them.

use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use metaq_protocol::messages::{
    ApiKey, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{message, text};
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::{Entity, EntityName};
use crate::config::Overrides;
use crate::security::{Credential, ScramMechanism};

pub(super) const API: Api = Api {
    key: ApiKey::DescribeUserScramCredentials,
    order: Order::Alone,
    needs: &[(Operation::Describe, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

// As Kafka's ScramImage says it. A success has the empty message.
const TWICE: &str =
    "Cannot describe SCRAM credentials for the same user twice in a single request: ";
const UNKNOWN: &str = "Attempt to describe a user credential that does not exist: ";

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let answer = DescribeUserScramCredentialsResponse::default();
    if let Err(denied) = authorize(&cx, &caller, Operation::Describe, Resource::Cluster) {
        return answer
            .with_error_code(denied.code())
            .with_error_message(None);
    }
    let image = cx.cluster.image();
    let mut asked: BTreeMap<String, bool> = BTreeMap::new();
    let users = request.users.unwrap_or_default();
    for user in &users {
        let is_twice = asked.contains_key(&*user.name);
        asked.insert(user.name.to_string(), is_twice);
    }
    if users.is_empty() {
        let all = image.configs.entities().filter_map(|(entity, set)| {
            let name = match entity {
                Entity::User(EntityName::Named(name)) => name,
                _ => return None,
            };
            (!infos(set).is_empty()).then_some((name, false))
        });
        asked.extend(all);
    }
    let results = asked.into_iter().map(|(user, is_twice)| {
        let result = DescribeUserScramCredentialsResult::default().with_user(text(&user));
        let refused = |error: ResponseError, why: &str| {
            let result = result.clone().with_error_code(error.code());
            result.with_error_message(message(&format!("{why}{user}")))
        };
        let set = image.configs.of_entity(&Entity::user(&user));
        let infos = set.map(infos).unwrap_or_default();
        match () {
            () if is_twice => refused(ResponseError::DuplicateResource, TWICE),
            () if infos.is_empty() => refused(ResponseError::ResourceNotFound, UNKNOWN),
            () => result
                .clone()
                .with_error_message(message(&""))
                .with_credential_infos(infos),
        }
    });
    answer
        .with_error_message(message(&""))
        .with_results(results.collect())
}

fn infos(set: &Overrides) -> Vec<CredentialInfo> {
    let infos = ScramMechanism::ALL.into_iter().filter_map(|mechanism| {
        let credential = Credential::from_text(set.get(mechanism.name())?)?;
        let info = CredentialInfo::default().with_mechanism(mechanism.code());
        Some(info.with_iterations(credential.iterations as i32))
    });
    infos.collect()
}
