//! Asks this broker, or another one, by the protocol that clients speak: what changes something goes the same way as a
//! client's request, to the controller or the coordinator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use metaq_protocol::frame;
use metaq_protocol::protocol::Request;

use super::errors::ApiError;
use crate::api::{self, Body, Caller, Context, Piece, Stage};
use crate::observe::Client;
use crate::principal::Principal;
use crate::security::SUPER_KIND;
use crate::session::{ListenerInfo, Session};

/// What the dashboard calls itself.
pub(super) const NAME: &str = "metaq-dashboard";

/// How long another broker may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The dashboard itself, for what it shows to everybody and for who has its token: it is above access control lists.
pub(super) fn own_session(listener: Arc<ListenerInfo>, peer: SocketAddr) -> Arc<Session> {
    let client = Arc::new(Client::without_connection(peer, NAME));
    let principal = Principal::new(SUPER_KIND, NAME);
    Arc::new(Session::of_principal(listener, client, principal))
}

/// Asks this broker for a visitor, who is asked for its rights as a client is.
pub(super) async fn ask<R: Request>(
    cx: &Arc<Context>,
    session: &Arc<Session>,
    version: i16,
    request: &R,
) -> Result<R::Response, ApiError> {
    let framed = frame::encode_request(version, 1, NAME, request).map_err(ApiError::failed)?;
    let frame = frame::parse_request(framed.slice(4..)).map_err(ApiError::failed)?;
    let caller = Caller::of(session.clone(), &frame);
    let key = frame.api_key;
    let work = api::start(cx, caller, frame, Stage::free());
    let answer = api::detached(key, work).await.map_err(ApiError::failed)?;
    let Body::Send(pieces) = answer.body else {
        return Err(ApiError::failed("the broker did not answer"));
    };
    let mut whole = BytesMut::new();
    for piece in pieces {
        if let Piece::Bytes(bytes) = piece {
            whole.extend_from_slice(&bytes);
        }
    }
    decode::<R>(version, whole.freeze())
}

/// Asks the broker of that number, which may be this one. Another one is asked by this broker itself: what the visitor may do
/// has to be known before.
pub(super) async fn ask_broker<R: Request>(
    cx: &Arc<Context>,
    session: &Arc<Session>,
    broker: i32,
    version: i16,
    request: &R,
) -> Result<R::Response, ApiError> {
    if broker == cx.cluster.broker_id() {
        return ask(cx, session, version, request).await;
    }
    let image = cx.cluster.image();
    let Some(other) = image.brokers.get(&broker) else {
        return Err(ApiError::failed(format!("broker {broker} is away")));
    };
    let framed = frame::encode_request(version, 1, NAME, request).map_err(ApiError::failed)?;
    let answer = cx.ask_broker(other, framed, ANSWER_MAX).await;
    let answer = answer.map_err(ApiError::failed)?;
    decode::<R>(version, answer)
}

fn decode<R: Request>(version: i16, answer: Bytes) -> Result<R::Response, ApiError> {
    if answer.len() < 4 {
        return Err(ApiError::failed("the answer is cut off"));
    }
    let decoded = frame::decode_response::<R>(version, answer.slice(4..));
    Ok(decoded.map_err(ApiError::failed)?.1)
}
