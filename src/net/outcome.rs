//! What became of a request: its answer, or why there is none.

use std::time::Duration;

use metaq_protocol::frame::{FrameError, api_name};

use super::send::JOIN_BYTES_MAX;
use crate::api::{Body, Caller, Piece, Response};
use crate::memory::Share;

/// An answered request, or why there is no answer.
pub(super) enum Outcome {
    Answered(Response),
    Failed(FrameError),
    Panicked,
}

/// A request that is done, and the memory that is reserved for its answer until it is sent.
pub(super) struct Ready {
    pub(super) outcome: Outcome,
    pub(super) share: Share,
}

impl Outcome {
    /// Bytes of the answer on the wire.
    pub(super) fn response_bytes(&self) -> usize {
        self.pieces().iter().map(Piece::bytes).sum()
    }

    /// Bytes of the answer in memory; small parts of files will be there too, some at a time.
    pub(super) fn memory_bytes(&self) -> usize {
        let (mut in_memory, mut from_files) = (0, 0);
        for piece in self.pieces() {
            match piece {
                Piece::Bytes(bytes) => in_memory += bytes.len(),
                Piece::File(slice) if slice.bytes <= JOIN_BYTES_MAX => from_files += slice.bytes,
                Piece::File(_) => {}
            }
        }
        in_memory + from_files.min(2 * JOIN_BYTES_MAX)
    }

    fn pieces(&self) -> &[Piece] {
        match self {
            Self::Answered(Response {
                body: Body::Send(pieces),
                ..
            }) => pieces,
            Self::Answered(Response {
                body: Body::Last(piece),
                ..
            }) => std::slice::from_ref(piece),
            _ => &[],
        }
    }

    /// Writes a line to the log of requests.
    pub(super) fn log(&self, caller: &Caller, request_bytes: usize, took: Duration) {
        let result = match self {
            Self::Answered(response) => match &response.body {
                Body::Send(_) => "answered",
                Body::Last(_) => "answered, and closed",
                Body::Silence => "not to be answered",
                Body::Close(why) => why,
            },
            Self::Failed(_) => "malformed",
            Self::Panicked => "panicked",
        };
        let session = &caller.session;
        tracing::info!(target: "metaq::requests", peer = %session.peer(), listener = session.listener().name,
            principal = %session.principal(), client_id = caller.client_id.as_deref(), api = %api_name(caller.key),
            version = caller.version, correlation_id = caller.correlation_id, request_bytes,
            response_bytes = self.response_bytes(), ms = took.as_secs_f64() * 1000.0, "{result}");
    }
}
