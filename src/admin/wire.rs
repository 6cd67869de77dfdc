//! Asks this broker, or another one, by the protocol that clients speak: what changes something goes the same way as a
//! client's request, to the controller or the coordinator.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use metaq_protocol::frame;
use metaq_protocol::protocol::Request;

use super::errors::ApiError;
use crate::api::{self, Body, Caller, Context, Piece, Stage};
use crate::observe::Client;
use crate::principal::Principal;
use crate::security::SUPER_KIND;
use crate::session::{ListenerInfo, SecurityProtocol, Session};

/// What the dashboard calls itself.
const NAME: &str = "metaq-dashboard";

/// How long another broker may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The listener of those who ask by the dashboard.
static LISTENER: LazyLock<Arc<ListenerInfo>> =
    LazyLock::new(|| Arc::new(ListenerInfo::new("DASHBOARD", SecurityProtocol::Plaintext)));

/// The dashboard asks for its own permission, its token, and is above access control lists.
fn session_of(peer: SocketAddr) -> Arc<Session> {
    let client = Arc::new(Client::without_connection(peer, NAME));
    let principal = Principal::new(SUPER_KIND, NAME);
    Arc::new(Session::of_principal(LISTENER.clone(), client, principal))
}

/// Asks this broker for a visitor.
pub(super) async fn ask<R: Request>(
    cx: &Arc<Context>,
    peer: SocketAddr,
    version: i16,
    request: &R,
) -> Result<R::Response, ApiError> {
    let framed = frame::encode_request(version, 1, NAME, request).map_err(ApiError::failed)?;
    let frame = frame::parse_request(framed.slice(4..)).map_err(ApiError::failed)?;
    let caller = Caller::of(session_of(peer), &frame);
    let answer = api::start(cx, caller, frame, Stage::free())
        .await
        .map_err(ApiError::failed)?;
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

/// Asks the broker of that number, which may be this one.
pub(super) async fn ask_broker<R: Request>(
    cx: &Arc<Context>,
    peer: SocketAddr,
    broker: i32,
    version: i16,
    request: &R,
) -> Result<R::Response, ApiError> {
    if broker == cx.cluster.broker_id() {
        return ask(cx, peer, version, request).await;
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
