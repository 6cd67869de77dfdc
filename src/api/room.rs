//! Memory for answers that may be much larger than what was asked: it is taken while they are put together, so that many
//! such requests at a time do not take more than there is, and no single one is larger than a frame should be.

use metaq_protocol::ResponseError;

use super::context::Context;
use crate::memory::Share;

/// The largest answer of an API that tells much about each thing that is named, bytes. Who needs more asks for less at a
/// time.
pub(super) const ANSWER_BYTES_MAX: usize = 32 << 20;

/// What an answer may hold; given back when dropped; from then on the answer is counted by itself.
pub(super) struct Room {
    share: Share,
    bytes: usize,
    refused: Option<NoRoom>,
}

/// Why an answer may not become larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoom {
    #[error("The answer would be larger than {} MiB; ask for less at a time.", ANSWER_BYTES_MAX >> 20)]
    TooLarge,
    #[error("The broker has no memory for the answer now.")]
    NotNow,
}

impl NoRoom {
    /// `later` is the API's way to say that the client shall come again.
    pub(super) fn wire(self, later: ResponseError) -> ResponseError {
        match self {
            Self::TooLarge => ResponseError::InvalidRequest,
            Self::NotNow => later,
        }
    }

    /// The same with the text, for APIs that have one.
    pub(super) fn told(self, later: ResponseError) -> (ResponseError, String) {
        (self.wire(later), self.to_string())
    }
}

impl Room {
    pub(super) fn new(cx: &Context) -> Self {
        Self {
            share: cx.memory.empty_share(),
            bytes: 0,
            refused: None,
        }
    }

    /// Whether there may be room for more: not once something was refused. Asked before what is to be told is put together,
    /// which may cost more than to tell it.
    pub(super) fn check(&self) -> Result<(), NoRoom> {
        self.refused.map_or(Ok(()), Err)
    }

    /// Makes room for so much more.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), NoRoom> {
        self.check()?;
        let bytes = self.bytes.saturating_add(more);
        let refused = if bytes > ANSWER_BYTES_MAX {
            NoRoom::TooLarge
        } else if !self.share.try_grow(bytes) {
            NoRoom::NotNow
        } else {
            self.bytes = bytes;
            return Ok(());
        };
        self.refused = Some(refused);
        Err(refused)
    }
}
