//! AlterUserScramCredentials (key 51, v0; KIP-554): sets and removes what SCRAM keeps of users' passwords, in the order and the
//! words of Kafka's ScramControlManager. A request names a user once, whatever the mechanism. A password of a user whom the
//! configuration names (admin.user, inter.broker.user) would have no effect, and is refused.
//!
//! Tests: tests/authentication.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use metaq_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use metaq_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, ApiKey,
};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::shared::{message, text};
use super::{Api, Caller, Context, Order, serve_by_controller};
use crate::cluster::{ClusterError, Entity, EntityChange};
use crate::security::{Credential, ITERATIONS_MAX, ITERATIONS_MIN, ScramMechanism};

pub(super) const API: Api = Api {
    key: ApiKey::AlterUserScramCredentials,
    order: Order::Alone,
    needs: &[(Operation::Alter, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve_by_controller(cx, caller, frame, stage, handle),
};

type Refusal = (i16, String);

fn refusal(error: ResponseError, why: &str) -> Refusal {
    (error.code(), why.to_owned())
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let mut results: Vec<(String, Option<Refusal>)> = Vec::new();
    match authorize(&cx, &caller, Operation::Alter, Resource::Cluster) {
        Ok(()) => {
            let asked = Asked::of(&cx, &request);
            results = asked.make(&cx).await;
        }
        Err(denied) => {
            let deletions = request.deletions.iter().map(|one| one.name.to_string());
            let upsertions = request.upsertions.iter().map(|one| one.name.to_string());
            let users: BTreeSet<String> = deletions.chain(upsertions).collect();
            let refusal = (denied.code(), denied.to_string());
            results.extend(users.into_iter().map(|user| (user, Some(refusal.clone()))));
        }
    }
    let refused = results.iter().filter_map(|(user, refusal)| {
        let (code, why) = refusal.as_ref()?;
        Some((user.as_str(), *code, why.as_str()))
    });
    cx.note_all(&caller, refused);
    let results = results.into_iter().map(|(user, refusal)| {
        let result = AlterUserScramCredentialsResult::default().with_user(text(&user));
        match refusal {
            None => result.with_error_message(None),
            Some((code, why)) => result
                .with_error_code(code)
                .with_error_message(message(&why)),
        }
    });
    AlterUserScramCredentialsResponse::default().with_results(results.collect())
}

/// What is asked for, one thing a user.
#[derive(Default)]
struct Asked {
    deletions: BTreeMap<String, ScramMechanism>,
    upsertions: BTreeMap<String, (ScramMechanism, Credential)>,
    refused: BTreeMap<String, Refusal>,
}

impl Asked {
    fn of(cx: &Context, request: &AlterUserScramCredentialsRequest) -> Self {
        let mut asked = Self::default();
        for deletion in &request.deletions {
            asked.delete(cx, deletion);
        }
        for upsertion in &request.upsertions {
            asked.upsert(cx, upsertion);
        }
        asked
    }

    /// Whether a user is named for the first time.
    fn is_first(&mut self, user: &str) -> bool {
        if self.refused.contains_key(user) {
            return false;
        }
        let is_twice =
            self.deletions.remove(user).is_some() || self.upsertions.remove(user).is_some();
        if is_twice {
            let why = "A user credential cannot be altered twice in the same request";
            let refusal = refusal(ResponseError::DuplicateResource, why);
            self.refused.insert(user.to_owned(), refusal);
        }
        !is_twice
    }

    fn delete(&mut self, cx: &Context, deletion: &ScramCredentialDeletion) {
        let user = deletion.name.to_string();
        if !self.is_first(&user) {
            return;
        }
        match checked(&user, deletion.mechanism) {
            Ok(mechanism) if has(cx, &user, mechanism) => {
                self.deletions.insert(user, mechanism);
            }
            Ok(_) => {
                let why = "Attempt to delete a user credential that does not exist";
                let refusal = refusal(ResponseError::ResourceNotFound, why);
                self.refused.insert(user, refusal);
            }
            Err(refusal) => {
                self.refused.insert(user, refusal);
            }
        }
    }

    fn upsert(&mut self, cx: &Context, upsertion: &ScramCredentialUpsertion) {
        let user = upsertion.name.to_string();
        if !self.is_first(&user) {
            return;
        }
        let found = credential(&user, upsertion);
        let found = found.and_then(|credential| match cx.users.why_fixed(&user) {
            None => Ok(credential),
            Some(why) => Err(refusal(ResponseError::UnacceptableCredential, &why)),
        });
        match found {
            Ok(credential) => {
                self.upsertions.insert(user, credential);
            }
            Err(refusal) => {
                self.refused.insert(user, refusal);
            }
        }
    }

    /// Makes the changes; what became of each.
    async fn make(self, cx: &Context) -> Vec<(String, Option<Refusal>)> {
        let change = |user: &str, mechanism: ScramMechanism, value: Option<String>| EntityChange {
            entity: Entity::user(user),
            values: BTreeMap::from([(mechanism.name().to_owned(), value)]),
        };
        let deletions = self.deletions.iter();
        let mut users: Vec<&String> = self.deletions.keys().collect();
        users.extend(self.upsertions.keys());
        let mut changes: Vec<EntityChange> = deletions
            .map(|(user, mechanism)| change(user, *mechanism, None))
            .collect();
        changes.extend(
            self.upsertions
                .iter()
                .map(|(user, (mechanism, credential))| {
                    change(user, *mechanism, Some(credential.to_text()))
                }),
        );
        let of_error = |error: ClusterError| (error.code(), error.to_string());
        let made = cx
            .cluster
            .controller()
            .change_entities(&changes, false)
            .await;
        let made: Vec<Option<Refusal>> = match made {
            Ok(made) => made
                .into_iter()
                .map(|made| made.err().map(of_error))
                .collect(),
            Err(error) => vec![Some(of_error(error)); users.len()],
        };
        let results = users.into_iter().cloned().zip(made);
        let refused = self.refused.clone();
        let refused = refused
            .into_iter()
            .map(|(user, refusal)| (user, Some(refusal)));
        results.chain(refused).collect()
    }
}

fn has(cx: &Context, user: &str, mechanism: ScramMechanism) -> bool {
    let image = cx.cluster.image();
    let set = image.configs.of_entity(&Entity::user(user));
    set.is_some_and(|set| set.contains_key(mechanism.name()))
}

fn checked(user: &str, mechanism: i8) -> Result<ScramMechanism, Refusal> {
    if user.is_empty() {
        let why = "Username must not be empty";
        return Err(refusal(ResponseError::UnacceptableCredential, why));
    }
    let unknown = || {
        refusal(
            ResponseError::UnsupportedSaslMechanism,
            "Unknown SCRAM mechanism",
        )
    };
    ScramMechanism::by_code(mechanism).ok_or_else(unknown)
}

fn credential(
    user: &str,
    upsertion: &ScramCredentialUpsertion,
) -> Result<(ScramMechanism, Credential), Refusal> {
    let mechanism = checked(user, upsertion.mechanism)?;
    let unacceptable = |why| refusal(ResponseError::UnacceptableCredential, why);
    let iterations = u32::try_from(upsertion.iterations).unwrap_or(0);
    if iterations < ITERATIONS_MIN {
        return Err(unacceptable("Too few iterations"));
    }
    if iterations > ITERATIONS_MAX {
        return Err(unacceptable("Too many iterations"));
    }
    let (salt, salted) = (upsertion.salt.to_vec(), &upsertion.salted_password);
    let credential = Credential::of_salted(mechanism, salt, salted, iterations);
    Ok((mechanism, credential))
}
