//! Envelope (key 58, v0; KIP-590): a client's request that another broker sends on, with who the client is and where. It is taken
//! by the listener between brokers alone, from those who may do cluster actions: what is inside is done with the client's
//! rights, not with the broker's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use metaq_protocol::ResponseError;
use metaq_protocol::frame::{self, RequestFrame};
use metaq_protocol::messages::{ApiKey, DefaultPrincipalData, EnvelopeRequest, EnvelopeResponse};
use metaq_protocol::protocol::{Decodable, Encodable};

use super::authorize::{Operation, Resource, ResourceKind, authorize};
use super::errors::WireError;
use super::order::Stage;
use super::shared::text;
use super::{Api, Body, Caller, Context, Order, Piece, serve};
use crate::observe::Client;
use crate::principal::Principal;
use crate::session::Session;

pub(super) const API: Api = Api {
    key: ApiKey::Envelope,
    order: Order::Alone,
    needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
    start: |cx, caller, frame, stage| serve(cx, caller, frame, stage, handle),
};

/// Of what says who a client is (DefaultPrincipalData).
const PRINCIPAL_VERSION: i16 = 0;
const LENGTH_BYTES: usize = 4;

/// A client's request in an envelope; `None` where it cannot be put into one.
pub(super) fn around(caller: &Caller, frame: &RequestFrame) -> Option<EnvelopeRequest> {
    let principal = caller.session.principal();
    let data = DefaultPrincipalData::default()
        .with_type(text(principal.kind()))
        .with_name(text(principal.name()))
        .with_token_authenticated(caller.session.token().is_some());
    let mut encoded = BytesMut::new();
    encoded.put_i16(PRINCIPAL_VERSION);
    data.encode(&mut encoded, PRINCIPAL_VERSION).ok()?;
    let host = match caller.session.peer_ip() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    };
    let request = frame::forward_request(frame).ok()?;
    let envelope = EnvelopeRequest::default()
        .with_request_data(request.slice(LENGTH_BYTES..))
        .with_request_principal(Some(encoded.freeze()))
        .with_client_host_address(host);
    Some(envelope)
}

/// The answer in an envelope, length and all, or the error's code.
pub(super) fn content(envelope: EnvelopeResponse) -> Result<Bytes, i16> {
    match (envelope.error_code, envelope.response_data) {
        (0, Some(answer)) => {
            let mut framed = BytesMut::with_capacity(LENGTH_BYTES + answer.len());
            framed.put_u32(answer.len() as u32);
            framed.put_slice(&answer);
            Ok(framed.freeze())
        }
        (code, _) => Err(code),
    }
}

async fn handle(cx: Arc<Context>, caller: Caller, request: EnvelopeRequest) -> EnvelopeResponse {
    let refused = |error: ResponseError| {
        let answer = EnvelopeResponse::default().with_error_code(error.code());
        answer.with_response_data(None)
    };
    if let Err(denied) = authorize(&cx, &caller, Operation::ClusterAction, Resource::Cluster) {
        return refused(denied.wire());
    }
    if !caller.session.may_be_broker() {
        return refused(ResponseError::ClusterAuthorizationFailed);
    }
    let Some((client, frame)) = opened(&caller, request) else {
        return refused(ResponseError::InvalidRequest);
    };
    // It calls `start`, which calls it.
    let answer = Box::pin(super::start(&cx, client, frame, Stage::free())).await;
    match answer.map(|answer| answer.body) {
        Ok(Body::Send(pieces)) => match joined(pieces) {
            Some(answer) => EnvelopeResponse::default().with_response_data(Some(answer)),
            None => refused(ResponseError::UnknownServerError),
        },
        Ok(_) | Err(_) => refused(ResponseError::InvalidRequest),
    }
}

/// The client and its request.
fn opened(caller: &Caller, envelope: EnvelopeRequest) -> Option<(Caller, RequestFrame)> {
    let mut principal = envelope.request_principal?;
    if principal.remaining() < 2 || principal.get_i16() != PRINCIPAL_VERSION {
        return None;
    }
    let principal = DefaultPrincipalData::decode(&mut principal, PRINCIPAL_VERSION).ok()?;
    let ip = match envelope.client_host_address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(&envelope.client_host_address[..]).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(&envelope.client_host_address[..]).ok()?),
        _ => return None,
    };
    let frame = frame::parse_request(envelope.request_data).ok()?;
    if !super::is_sent_on(frame.api_key) {
        return None;
    }
    let name = frame.client_id.as_deref().unwrap_or_default();
    let client = Arc::new(Client::without_connection(SocketAddr::new(ip, 0), name));
    let is_by_token = principal.token_authenticated;
    let principal = Principal::new(&principal._type, &principal.name);
    let listener = Arc::new(caller.session.listener().clone());
    let session = Session::of_principal(listener, client, principal);
    let session = Arc::new(match is_by_token {
        true => session.with_some_token(),
        false => session,
    });
    let client = Caller {
        is_forwarded: true,
        ..Caller::of(session, &frame)
    };
    Some((client, frame))
}

/// An answer without its length; `None` where a part of it is in a file.
fn joined(pieces: Vec<Piece>) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => whole.extend_from_slice(&bytes),
            Piece::File(_) => return None,
        }
    }
    let whole = whole.freeze();
    (whole.len() >= LENGTH_BYTES).then(|| whole.slice(LENGTH_BYTES..))
}
