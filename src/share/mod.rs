//! Share groups (KIP-932): records of a partition given to many members, each acknowledged by itself.
//!
//! - `partition`: what a group has done with the records of a partition, a machine beside the partition's leader
//! - `record_state`: states of records, and what is stored of them; `stored_batches`: a write laid over it
//! - `leading`: a share partition at the leader, with the task that writes; `share_partitions`: all of them; `sessions`: who fetches
//!   which
//! - `share_coordinator`: what the rest of the broker asks of what is stored; `share_states`: the machine of one slot of it;
//!   `stored_share`: one share partition of it, and its node in the coordination tree
//! - `shares`: all of it that a broker has
//! - `limits`: what a group is allowed; `ranges`: values of offsets in ranges; `share_key`: how a share partition is called

mod error;
mod leading;
mod limits;
mod partition;
mod ranges;
mod record_state;
mod sessions;
mod share_coordinator;
mod share_key;
mod share_partitions;
mod share_states;
mod shares;
mod stored_batches;
mod stored_share;

pub use error::ShareStateError;
pub use leading::{Acknowledged, Leading, LogBounds, ShareStore, Storing, Watching};
pub use limits::ShareLimits;
pub use partition::{
    AcknowledgeError, Acknowledgement, Acquire, AcquiredRecords, BatchSpan, DeadLetters, Death,
    Held, InFlight, SharePartition, StateWrite, StoredState, WriteNumber,
};
pub use record_state::{RecordState, StateBatch};
pub use sessions::{
    FINAL_EPOCH, INITIAL_EPOCH, PARTITIONS_MAX, ShareFetchSession, ShareFetching,
    ShareSessionError, ShareSessions, SharedPartition,
};
pub use share_coordinator::ShareCoordinator;
pub use share_key::ShareKey;
pub use share_partitions::SharePartitions;
pub use share_states::{Reading, ShareSummary};
pub use shares::Shares;
pub use stored_share::{NOT_SET, WriteOrder, WrittenState};
