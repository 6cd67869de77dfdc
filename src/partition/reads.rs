//! What readers and tools ask a replica: records within its limits, offsets, epochs.

use super::progress::{Role, shows};
use super::replica::{ListedOffset, OffsetSpec, ReadError, Replica};
use super::watermarks::{Isolation, ReadLimits};
use crate::log::{AbortedTransaction, FoundTimestamp, LogError, Reach, ReadWanted, Slice};

impl Replica {
    /// What readers may see at this moment.
    pub fn read_limits(&self) -> ReadLimits {
        *self.limits.read()
    }

    /// Readers may see what lies before this offset.
    pub fn high_watermark(&self) -> i64 {
        self.read_limits().high_watermark()
    }

    /// What lies before this offset survives a power failure, in the log's files or in the journal.
    pub fn durable_offset(&self) -> i64 {
        self.progress.lock().watermarks.durable().offset
    }

    /// Whether all that is written is as safe as the topic promises: synced, where it syncs each message.
    pub fn has_all_as_promised(&self) -> bool {
        let watermarks = &self.progress.lock().watermarks;
        watermarks.own_end(shows(self.log())).offset == watermarks.log_end().offset
    }

    /// How many messages a follower lacks of what its leader said is committed; `None` where it does not follow.
    pub fn follower_lag(&self) -> Option<i64> {
        let progress = self.progress.lock();
        match &progress.role {
            Role::Follower { high_watermark } => {
                Some((high_watermark - progress.watermarks.log_end().offset).max(0))
            }
            Role::Alone | Role::Leader(_) => None,
        }
    }

    /// Every transaction before this offset is decided. Without open transactions, the high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        self.read_limits().last_stable_offset()
    }

    /// The end that readers of an isolation level see.
    pub fn readable_end(&self, isolation: Isolation) -> i64 {
        self.read_limits().readable_end(isolation)
    }

    /// The slice for a fetch; see [`Log::read_within`].
    pub fn read(
        &self,
        wanted: &ReadWanted,
        isolation: Isolation,
        reach: Reach,
    ) -> Result<Option<Slice>, ReadError> {
        let limit = self.read_limits().of(isolation);
        Ok(self.log().read_within(wanted, limit, reach)?)
    }

    /// As [`Self::read`], up to limits that were looked at before; with the aborted transactions in it where only committed
    /// records are wanted.
    pub fn read_below(
        &self,
        wanted: &ReadWanted,
        limits: &ReadLimits,
        isolation: Isolation,
        reach: Reach,
    ) -> Result<Option<(Slice, Vec<AbortedTransaction>)>, ReadError> {
        let limit = limits.of(isolation);
        Ok(match isolation {
            Isolation::ReadUncommitted => {
                let read = self.log().read_within(wanted, limit, reach)?;
                read.map(|slice| (slice, Vec::new()))
            }
            Isolation::ReadCommitted => {
                let read = self.log().read_committed_within(wanted, limit, reach)?;
                read.map(|committed| (committed.slice, committed.aborted))
            }
        })
    }

    /// Answers ListOffsets.
    pub fn list_offset(
        &self,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<ListedOffset, LogError> {
        let limit = self.readable_end(isolation);
        let log_start = self.log().ends().log_start;
        let at = |offset| ListedOffset {
            offset,
            timestamp: -1,
            leader_epoch: self.epoch_of(offset),
        };
        let found = |found: Option<FoundTimestamp>| match found {
            Some(found) => ListedOffset {
                offset: found.offset,
                timestamp: found.timestamp,
                leader_epoch: found.leader_epoch,
            },
            None => ListedOffset {
                offset: -1,
                timestamp: -1,
                leader_epoch: -1,
            },
        };
        Ok(match spec {
            OffsetSpec::Earliest | OffsetSpec::EarliestLocal => at(log_start),
            OffsetSpec::Latest => at(limit),
            OffsetSpec::MaxTimestamp => found(self.log().find_max_timestamp(limit)?),
            OffsetSpec::Timestamp(timestamp) => found(self.log().find_timestamp(timestamp, limit)?),
        })
    }

    fn epoch_of(&self, offset: i64) -> i32 {
        let epochs = self.log().epochs();
        epochs
            .epoch_of(offset)
            .unwrap_or_else(|| self.leader_epoch())
    }

    /// The epoch at most `epoch` and where it ended, for OffsetForLeaderEpoch.
    pub fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        let end = self.log().ends().log_end.offset;
        if epoch == self.leader_epoch() {
            return Some((epoch, end));
        }
        self.log().epochs().end_offset_for(epoch, end)
    }
}
