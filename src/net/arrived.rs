//! A request that was read, and whether it may begin.

use std::future::poll_fn;
use std::task::Poll;

use metaq_protocol::frame::RequestFrame;
use metaq_protocol::messages::ApiKey;
use tokio::time::Instant;

use crate::api::{FORWARDED, Gate, TRANSACTIONS};
use crate::memory::Share;
use crate::session::Session;

/// A request that was read.
pub(super) struct Arrived {
    pub(super) frame: RequestFrame,
    /// Its share of the request memory.
    pub(super) share: Share,
    pub(super) at: Instant,
    pub(super) bytes: usize,
}

/// What other brokers send on comes from many clients, each of which waits for its own answer.
pub(super) fn is_of_peer(session: &Session, frame: &RequestFrame) -> bool {
    let client_id = frame.client_id.as_deref();
    let is_said = frame.api_key == ApiKey::Envelope as i16
        || client_id == Some(FORWARDED)
        || client_id == Some(TRANSACTIONS);
    is_said && session.may_be_broker()
}

pub(super) fn is_admitted(session: &Session, gate: &Gate, held: &Option<Arrived>) -> bool {
    let admits = |arrived: &Arrived| {
        is_of_peer(session, &arrived.frame) || gate.admits(arrived.frame.api_key)
    };
    held.as_ref().is_some_and(admits)
}

/// Waits until the held request may begin. Only requests in flight change that, and the connection is polled when they are.
pub(super) async fn admitted(session: &Session, gate: &Gate, held: &Option<Arrived>) {
    poll_fn(|_| match is_admitted(session, gate, held) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await
}
