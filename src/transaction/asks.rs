//! What is asked of transactional ids, each with where it is answered; and what their machine asks of others.

use std::sync::Arc;

use uuid::Uuid;

use super::error::TransactionError;
use super::limits::{LEADERS_WAIT_MS_MAX, WAIT_MS_MAX};
use super::messages::{
    AddPartitions, End, Init, Initialized, TransactionCounts, TransactionDescription,
};
use super::partitions::Partitions;
use super::state::{Outcome, Producer, TransactionVersion};
use crate::coordinator::{Answer, Slot};

/// An answer, or why there is none.
pub(super) type Asked<T> = Answer<Result<T, TransactionError>>;

/// Asked of one transactional id.
pub(super) enum Ask {
    Init(Init, Asked<Initialized>),
    Add(AddPartitions, Asked<()>),
    Verify(AddPartitions, Asked<Vec<Result<(), TransactionError>>>),
    End(End, Asked<Producer>),
    Describe(Answer<Option<TransactionDescription>>),
    /// An operator ends it.
    Decide(Outcome, Asked<()>),
    /// An operator does not need its recorded decision any more.
    ForgetDecision(Asked<()>),
    /// Its time is over.
    TimedOut,
    /// Markers of this number are written, or are not needed any more: of these topics and indices.
    Marked(u64, Vec<(Arc<str>, i32)>),
}

impl Ask {
    /// How long it waits at most for the change that it needs, ms.
    pub(super) fn wait_ms_max(&self) -> i64 {
        match self {
            Self::Add(request, _) if request.version >= TransactionVersion::V2 => {
                LEADERS_WAIT_MS_MAX
            }
            Self::Verify(..) => LEADERS_WAIT_MS_MAX,
            _ => WAIT_MS_MAX,
        }
    }

    /// Waited too long, or may not wait.
    pub(super) fn refuse(self, error: TransactionError) {
        match self {
            Self::Init(_, answer) => answer.send(Err(error)),
            Self::Add(_, answer) | Self::Decide(_, answer) | Self::ForgetDecision(answer) => {
                answer.send(Err(error));
            }
            Self::Verify(_, answer) => answer.send(Err(error)),
            Self::End(_, answer) => answer.send(Err(error)),
            Self::Describe(answer) => answer.send(None),
            Self::TimedOut | Self::Marked(..) => {}
        }
    }
}

/// Asked of all transactional ids of a slot.
pub(super) enum AskAll {
    List(Answer<Vec<TransactionDescription>>),
    Count(Answer<TransactionCounts>),
    /// A topic was deleted: name and id.
    TopicDeleted(String, Uuid),
    /// A producer id that nobody has, or none could be had.
    ProducerId(Option<i64>),
}

/// What a machine asks of the tasks beside it.
#[derive(Debug, PartialEq, Eq)]
pub enum Errand {
    /// [`AskAll::ProducerId`] for this slot.
    ProducerId(Slot),
    /// Markers are to be written.
    Markers(Markers),
}

/// The markers that end a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// Of no other transaction of this broker, but of this one each time.
    pub number: u64,
    /// Whose transaction it is.
    pub transactional_id: Arc<str>,
    /// The slot of the id.
    pub slot: Slot,
    /// Its owner's epoch.
    pub coordinator_epoch: i32,
    /// Whose records they end.
    pub producer: Producer,
    /// How.
    pub outcome: Outcome,
    /// By which version of the protocol.
    pub version: TransactionVersion,
    /// Where.
    pub partitions: Partitions,
}
