//! DescribeDelegationToken (key 41, v1–v3; KIP-48, KIP-373): the tokens that a client may see, as Kafka's
//! DelegationTokenManager.filterToken chooses them, by id: those that it has to do with, those that it may Describe, and those of
//! users whose tokens it may see (DescribeTokens).
//!
//! - With no owners at all (an empty list) there are none; null asks for all.
//! - Those that have expired are among them until they are removed.

use std::collections::HashSet;
use std::sync::Arc;

use metaq_protocol::ResponseError;
use metaq_protocol::messages::describe_delegation_token_response::{
    DescribedDelegationToken, DescribedDelegationTokenRenewer,
};
use metaq_protocol::messages::{
    ApiKey, DescribeDelegationTokenRequest, DescribeDelegationTokenResponse,
};

use super::authorize::{Operation, Resource, ResourceKind, is_permitted};
use super::delegation_tokens::is_allowed;
use super::shared::text;
use super::{Api, Caller, Context, Order, serve};
use crate::cluster::Token;
use crate::principal::Principal;

pub(super) const API: Api = Api {
    key: ApiKey::DescribeDelegationToken,
    order: Order::Alone,
    needs: &[
        (Operation::Describe, ResourceKind::DelegationToken),
        (Operation::DescribeTokens, ResourceKind::User),
    ],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// The answer says from this version on who asked for a token (KIP-373).
const REQUESTER_VERSION_MIN: i16 = 3;

async fn handle(
    cx: Arc<Context>,
    caller: Caller,
    request: DescribeDelegationTokenRequest,
) -> DescribeDelegationTokenResponse {
    let answer = DescribeDelegationTokenResponse::default();
    let refused = match () {
        () if !is_allowed(&caller) => Some(ResponseError::DelegationTokenRequestNotAllowed),
        () if !cx.tokens.is_enabled() => Some(ResponseError::DelegationTokenAuthDisabled),
        () => None,
    };
    if let Some(error) = refused {
        cx.note(&caller, "delegation tokens", error.code(), "");
        return answer.with_error_code(error.code());
    }
    let owners: Option<HashSet<Principal>> = request.owners.map(|owners| {
        let owners = owners.iter();
        owners
            .map(|owner| Principal::new(&owner.principal_type, &owner.principal_name))
            .collect()
    });
    let image = cx.cluster.image();
    let tokens = image.tokens.all();
    let shown =
        tokens.filter(|token| is_asked_for(token, owners.as_ref()) && may_see(&cx, &caller, token));
    let described = shown.map(|token| describe(&cx, caller.version, token));
    answer.with_tokens(described.collect())
}

/// Whether one of those who are named has to do with a token.
fn is_asked_for(token: &Token, owners: Option<&HashSet<Principal>>) -> bool {
    owners.is_none_or(|owners| {
        let named = [&token.owner, &token.requester].into_iter();
        named.chain(&token.renewers).any(|who| owners.contains(who))
    })
}

fn may_see(cx: &Context, caller: &Caller, token: &Token) -> bool {
    let may = |operation, resource| is_permitted(cx, caller, operation, resource);
    token.is_of(caller.session.principal())
        || may(Operation::Describe, Resource::DelegationToken(&token.id))
        || may(
            Operation::DescribeTokens,
            Resource::User(&token.owner.to_string()),
        )
}

fn describe(cx: &Context, version: i16, token: &Token) -> DescribedDelegationToken {
    let renewer = |renewer: &Principal| {
        DescribedDelegationTokenRenewer::default()
            .with_principal_type(text(renewer.kind()))
            .with_principal_name(text(renewer.name()))
    };
    let described = DescribedDelegationToken::default()
        .with_principal_type(text(token.owner.kind()))
        .with_principal_name(text(token.owner.name()))
        .with_issue_timestamp(token.issued_ms)
        .with_expiry_timestamp(token.expires_ms)
        .with_max_timestamp(token.max_ms)
        .with_token_id(text(token.id.as_str()))
        .with_hmac(cx.tokens.hmac(&token.id).unwrap_or_default().into())
        .with_renewers(token.renewers.iter().map(renewer).collect());
    match version {
        REQUESTER_VERSION_MIN.. => described
            .with_token_requester_principal_type(text(token.requester.kind()))
            .with_token_requester_principal_name(text(token.requester.name())),
        _ => described,
    }
}
