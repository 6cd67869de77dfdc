//! What this broker asks itself by the protocol that clients speak, so that it goes the same way as a client's request.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use metaq_protocol::frame;
use metaq_protocol::protocol::Request;

use super::{Body, Caller, Context, Piece, Stage, start};
use crate::observe::Client;
use crate::principal::Principal;
use crate::security::SUPER_KIND;
use crate::session::{ListenerInfo, SecurityProtocol, Session};

/// What it calls itself.
const NAME: &str = "metaq-broker";

static LISTENER: LazyLock<Arc<ListenerInfo>> =
    LazyLock::new(|| Arc::new(ListenerInfo::new("BROKER", SecurityProtocol::Plaintext)));

/// The answer; `None` where it cannot be asked.
pub(super) async fn ask_here<R: Request>(
    cx: &Arc<Context>,
    version: i16,
    request: &R,
) -> Option<R::Response> {
    let framed = frame::encode_request(version, 1, NAME, request).ok()?;
    let frame = frame::parse_request(framed.slice(LENGTH_BYTES..)).ok()?;
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = Arc::new(Client::without_connection(peer, NAME));
    // Whom it asks for may do it: that was looked at.
    let principal = Principal::new(SUPER_KIND, NAME);
    let session = Arc::new(Session::of_principal(LISTENER.clone(), client, principal));
    let caller = Caller::of(session, &frame);
    let answer = start(cx, caller, frame, Stage::free()).await.ok()?;
    let Body::Send(pieces) = answer.body else {
        return None;
    };
    let mut whole = BytesMut::new();
    for piece in pieces {
        if let Piece::Bytes(bytes) = piece {
            whole.extend_from_slice(&bytes);
        }
    }
    let whole = whole.freeze();
    let answer = whole.slice(whole.len().min(LENGTH_BYTES)..);
    Some(frame::decode_response::<R>(version, answer).ok()?.1)
}

/// The length that comes first in a frame.
const LENGTH_BYTES: usize = 4;
