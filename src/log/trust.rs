//! What opening a log does not read, it trusts: sealed segments before the recovery point, and all of them after a
//! clean close. A look at each segment's end, a few KiB, keeps that trust honest: segments must follow each other,
//! and indexes that are missing, short or damaged are rebuilt from batch headers.
//!
//! Tests: log/tests.rs, tests/damage.rs.

use std::sync::Arc;

use super::LogError;
use super::config::LogConfig;
use super::left_as::LeftAs;
use super::segment::{BatchAt, Segment};

/// How far after an index's last entry a segment may go on, beyond `index.interval.bytes`: Kafka's followers write
/// one entry for all that came in one fetch, up to `replica.fetch.max.bytes`.
const INDEX_SLACK_BYTES: u64 = 2 << 20;

/// Writes the index entries of batches that are walked in order, as an append would have.
#[derive(Default)]
pub(super) struct Indexer {
    since_entry: u64,
}

impl Indexer {
    pub(super) fn add(
        &mut self,
        segment: &Segment,
        batch: &BatchAt,
        config: &LogConfig,
    ) -> std::io::Result<()> {
        if self.since_entry > config.index_interval_bytes {
            segment
                .offsets
                .append(batch.header.last_offset(), batch.position as u32)?;
            segment
                .times
                .append_if_later(segment.largest_timestamp()?)?;
            self.since_entry = 0;
        }
        segment.note_timestamp(&batch.header);
        self.since_entry += batch.header.total_bytes() as u64;
        Ok(())
    }
}

/// Checks trusted segments, oldest first, up to the offset at which the next segment begins, if there is one.
/// Gaps before `cleaned_until` are compaction's; those before the log's start do not matter.
pub(super) fn check_trusted(
    segments: &[Arc<Segment>],
    next_base: Option<i64>,
    config: &LogConfig,
    left: LeftAs,
) -> Result<(), LogError> {
    for (n, segment) in segments.iter().enumerate() {
        let Some(next) = segments
            .get(n + 1)
            .map(|next| next.base_offset)
            .or(next_base)
        else {
            return Ok(());
        };
        let end = match end_of(segment, config) {
            Ok(end) => end,
            Err(LogError::Damaged {
                file,
                position,
                what,
            }) => {
                // Reads of that part say so; the rest is served.
                tracing::warn!(file, position, what, "a damaged batch");
                next
            }
            Err(error) => return Err(error),
        };
        segment.close_files();
        if next > left.log_start && is_hole(end, next, config, left.cleaned_until) {
            return Err(LogError::Hole {
                after: segment.path().display().to_string(),
                from: end,
                to: next,
            });
        }
    }
    Ok(())
}

/// Whether records are missing where one segment ends and the next begins.
pub(super) fn is_hole(end: i64, next: i64, config: &LogConfig, cleaned_until: i64) -> bool {
    next != end && (next < end || (!config.compact && end >= cleaned_until))
}

/// Whether a crash took what is missing where one segment ends and the next begins, also of a compacted log: only what is synced
/// is compacted.
pub(super) fn is_lost(end: i64, next: i64, left: LeftAs) -> bool {
    next > end && end >= left.mode.recovery_point() && end >= left.cleaned_until
}

/// The offset after a segment that was closed; its indexes are whole when this returns.
pub(super) fn end_of(segment: &Segment, config: &LogConfig) -> Result<i64, LogError> {
    match look_at_end(segment, config)? {
        Some(end) => Ok(end),
        None => rebuild_indexes(segment, config),
    }
}

/// The offset after a segment, or `None` where its indexes are not as an append would have left them.
fn look_at_end(segment: &Segment, config: &LogConfig) -> Result<Option<i64>, LogError> {
    let bytes = segment.bytes();
    if bytes == 0 {
        return Ok(Some(segment.base_offset));
    }
    let last_entry = segment.offsets.last()?;
    let (from, slack) = match last_entry {
        None => (0, 0),
        Some((offset, position)) => {
            let position = u64::from(position);
            let batch = match position < bytes {
                true => segment.batches(position, bytes)?.next().ok().flatten(),
                false => None,
            };
            let points_at = |batch: &BatchAt| {
                (segment.base_offset..=offset).contains(&batch.header.base_offset)
            };
            if !batch.as_ref().is_some_and(points_at) {
                return Ok(None);
            }
            (position, INDEX_SLACK_BYTES)
        }
    };
    let mut walk = segment.batches(from, bytes)?;
    let (mut end, mut newest) = (segment.base_offset, -1);
    // An entry is of the last record of a batch; what a power failure left of one may not be.
    let mut is_of_batch = last_entry.is_none();
    while let Some(BatchAt { header, position }) = walk.next()? {
        if position - from > config.index_interval_bytes + slack {
            return Ok(None);
        }
        end = header.last_offset() + 1;
        newest = newest.max(header.max_timestamp);
        is_of_batch |= last_entry.is_some_and(|(offset, _)| offset == header.last_offset());
    }
    let times_are_whole = match segment.times.last()? {
        None => newest < 0,
        Some(last) => newest <= last.timestamp && (segment.base_offset..end).contains(&last.offset),
    };
    Ok((is_of_batch && times_are_whole).then_some(end))
}

/// The batch that a segment's last index entry points at, where both indexes are as appends leave them and the batch
/// is whole.
pub(super) fn last_indexed(segment: &Segment) -> Result<Option<BatchAt>, LogError> {
    let bytes = segment.bytes();
    let Some((offset, position)) = segment.offsets.last()? else {
        return Ok(None);
    };
    let position = u64::from(position);
    if position >= bytes {
        return Ok(None);
    }
    let Ok(Some(batch)) = segment.batches(position, bytes)?.next() else {
        return Ok(None);
    };
    let indexed = (segment.base_offset..=offset).contains(&batch.header.base_offset);
    // An entry is written after batches, so that there is a time for them, unless they carry none.
    let timed = match segment.times.last()? {
        Some(last) => (segment.base_offset..=offset).contains(&last.offset),
        None => segment
            .batches(0, bytes)?
            .next()?
            .is_some_and(|first| first.header.max_timestamp < 0),
    };
    Ok((indexed && timed).then_some(batch))
}

fn rebuild_indexes(segment: &Segment, config: &LogConfig) -> Result<i64, LogError> {
    tracing::warn!(segment = %segment.path().display(), "rebuilding the indexes");
    segment.offsets.file.truncate(0)?;
    segment.times.file.truncate(0)?;
    segment.forget_timestamps();
    let mut indexer = Indexer::default();
    let mut end = segment.base_offset;
    let mut walk = segment.batches(0, segment.bytes())?;
    while let Some(batch) = walk.next()? {
        indexer.add(segment, &batch, config)?;
        end = batch.header.last_offset() + 1;
    }
    segment.seal()?;
    segment.sync_indexes()?;
    Ok(end)
}
