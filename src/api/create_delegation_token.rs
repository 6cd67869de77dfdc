//! CreateDelegationToken (key 38, v1–v3; KIP-48, KIP-373): makes a token for who asks, or for another user where the right to
//! CreateTokens for it is there, by the controller (Kafka's ControllerApis and DelegationTokenControlManager).
//!
//! - What is refused before the controller looks at it has the times -1, what it refuses the times 0.
//! - Beyond the limits of tokens, which Kafka has not, POLICY_VIOLATION.
//!
//! Tests: tests/delegation_tokens.rs.

use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::{
    ApiKey, CreateDelegationTokenRequest, CreateDelegationTokenResponse,
};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::delegation_tokens::{NO_TIME, is_allowed};
use super::errors::WireError;
use super::shared::text;
use super::{Api, Caller, Context, Order, serve, serve_by_controller};
use crate::cluster::Token;
use crate::principal::{ANONYMOUS, Principal};

pub(super) const API: Api = Api {
    key: ApiKey::CreateDelegationToken,
    order: Order::Alone,
    needs: &[(Operation::CreateTokens, ResourceKind::User)],
    start: |cx, caller, frame, stage| match is_allowed(&caller) {
        true => serve_by_controller(cx, caller, frame, stage, handle),
        false => serve(cx, caller, frame, stage, handle),
    },
};

/// The answer says from this version on who asked for the token (KIP-373).
const REQUESTER_VERSION_MIN: i16 = 3;

/// Who logs in with the token, and who asks for it.
struct Whose {
    owner: Principal,
    requester: Principal,
}

/// Why there is no token.
struct Refused {
    code: i16,
    why: String,
    /// In the answer's times.
    time_ms: i64,
}

impl Refused {
    fn new(error: ResponseError, why: &str, time_ms: i64) -> Self {
        Self {
            code: error.code(),
            why: why.to_owned(),
            time_ms,
        }
    }

    fn of(error: &(impl WireError + ToString)) -> Self {
        Self::new(error.wire(), &error.to_string(), NO_TIME)
    }
}

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: CreateDelegationTokenRequest,
) -> CreateDelegationTokenResponse {
    let requester = caller.session.principal().clone();
    let named = request.owner_principal_name.as_deref().unwrap_or_default();
    let kind = request.owner_principal_type.as_deref();
    let (whose, made) = match (named, kind) {
        // An owner without a kind, which Kafka's handler does not survive.
        (name, None) if !name.is_empty() => {
            let why = "the owner has no type";
            let refused = Refused::new(ResponseError::UnknownServerError, why, NO_TIME);
            let [owner, requester] = [ANONYMOUS.clone(), ANONYMOUS.clone()];
            (Whose { owner, requester }, Err(refused))
        }
        (name, kind) => {
            let owner = match name {
                "" => requester.clone(),
                name => Principal::new(kind.unwrap_or_default(), name),
            };
            let whose = Whose { owner, requester };
            let made = create(&cx, &caller, &whose, &request).await;
            (whose, made)
        }
    };
    if let Err(refused) = &made {
        cx.note(&caller, "delegation token", refused.code, &refused.why);
    }
    answer(&cx, caller.version, &whose, made)
}

async fn create(
    cx: &Context,
    caller: &Caller,
    whose: &Whose,
    request: &CreateDelegationTokenRequest,
) -> Result<Token, Refused> {
    let Whose { owner, requester } = whose;
    let refuse = |error, time_ms| Err(Refused::new(error, "", time_ms));
    if !is_allowed(caller) {
        return refuse(ResponseError::DelegationTokenRequestNotAllowed, NO_TIME);
    }
    if owner != requester {
        let user = owner.to_string();
        authorize(cx, caller, Operation::CreateTokens, Resource::User(&user))
            .map_err(|denied| Refused::of(&denied))?;
    }
    let mut renewers = request.renewers.iter();
    if renewers.any(|renewer| *renewer.principal_type != *Principal::USER) {
        return refuse(ResponseError::InvalidPrincipalType, NO_TIME);
    }
    if !cx.tokens.is_enabled() {
        return refuse(ResponseError::DelegationTokenAuthDisabled, 0);
    }
    let renewers = request.renewers.iter();
    let renewers = renewers.map(|renewer| Principal::user(&renewer.principal_name));
    let whose = (owner.clone(), requester.clone());
    let asked_ms = request.max_lifetime_ms;
    let token = cx.tokens.new_token(whose, renewers.collect(), asked_ms);
    let made = cx.cluster.controller().create_token(token.clone()).await;
    made.map_err(|error| Refused::of(&error))?
        .map_err(|refusal| Refused::of(&refusal))?;
    Ok(token)
}

fn answer(
    cx: &Context,
    version: i16,
    whose: &Whose,
    made: Result<Token, Refused>,
) -> CreateDelegationTokenResponse {
    let Whose { owner, requester } = whose;
    let mut answer = CreateDelegationTokenResponse::default()
        .with_principal_type(text(owner.kind()))
        .with_principal_name(text(owner.name()));
    if version >= REQUESTER_VERSION_MIN {
        answer = answer
            .with_token_requester_principal_type(text(requester.kind()))
            .with_token_requester_principal_name(text(requester.name()));
    }
    match made {
        Ok(token) => answer
            .with_issue_timestamp_ms(token.issued_ms)
            .with_expiry_timestamp_ms(token.expires_ms)
            .with_max_timestamp_ms(token.max_ms)
            .with_hmac(cx.tokens.hmac(&token.id).unwrap_or_default().into())
            .with_token_id(text(token.id)),
        Err(Refused { code, time_ms, .. }) => answer
            .with_error_code(code)
            .with_issue_timestamp_ms(time_ms)
            .with_expiry_timestamp_ms(time_ms)
            .with_max_timestamp_ms(time_ms),
    }
}
