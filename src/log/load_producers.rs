//! The producers of a log that is opened or was cut off: the newest snapshot, and the batches after it. What these say of
//! aborted transactions is written to the segments' indexes, where they do not say it already.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use metaq_protocol::batch::EndMarker;

use super::LogError;
use super::disk::Disk;
use super::offset_position::OffsetPosition;
use super::producer_snapshot;
use super::producers::Producers;
use super::segment::{BatchAt, Segment, segment_of};
use super::transactions::AbortedTransaction;

/// Producer state at the log's end. `log` is from its start to there; the indexes of aborted transactions are not believed
/// from `believed_until` on, and so no snapshot after it is.
pub(super) fn load_producers(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    segments: &[Arc<Segment>],
    log: Range<i64>,
    believed_until: i64,
) -> Result<Producers, LogError> {
    // What is gone before the first segment may have ended what an older snapshot tells of.
    let readable = segments[0].base_offset..=believed_until;
    let (from, mut producers) = producer_snapshot::load_newest(&**disk, dir, readable)?
        .unwrap_or((log.start, Producers::default()));
    // Also where no batch is left: an index may tell of markers that the power took.
    for segment in &segments[segment_of(segments, from)..] {
        match replay(segment, from, &mut producers) {
            Ok(aborted) => {
                // Of a segment that was gone through whole, nothing is believed that is not in it.
                let believed = match segment.base_offset >= from {
                    true => i64::MIN,
                    false => from,
                };
                let is_news = segment.aborted.replace_from(believed, &aborted)?;
                // Those of what is appended to are synced when it is sealed, or scanned once more.
                if is_news && segment.indexes_are_synced() {
                    segment.aborted.sync()?;
                }
            }
            // Reads of that part say so; what was written after it is known.
            Err(LogError::Damaged {
                file,
                position,
                what,
            }) => {
                tracing::warn!(
                    file,
                    position,
                    what,
                    "producers after a damaged batch are not known"
                );
            }
            Err(error) => return Err(error),
        }
    }
    producers
        .undecided
        .locate(|offset| locate(segments, offset));
    // All that is there stays.
    producers.undecided.first_unstable(log.end);
    Ok(producers)
}

/// Goes through the batches of a segment from the one that holds an offset on, as Kafka does: the log's start may lie within a
/// batch, whose later records can be read. Returns the transactions that they abort.
fn replay(
    segment: &Segment,
    from: i64,
    producers: &mut Producers,
) -> Result<Vec<AbortedTransaction>, LogError> {
    let mut aborted = Vec::new();
    let Some(start) = segment.batch_holding(from.max(segment.base_offset), segment.bytes())? else {
        return Ok(aborted);
    };
    let mut walk = segment.batches(start.position, segment.bytes())?;
    while let Some(batch) = walk.next()? {
        let BatchAt { header, position } = batch;
        let marker = match header.is_control() {
            true => EndMarker::of_batch(&segment.read_batch(&batch)?),
            false => None,
        };
        let at = || OffsetPosition {
            offset: header.base_offset,
            segment_base: segment.base_offset,
            position,
        };
        aborted.extend(producers.stored(&header, marker, at));
    }
    Ok(aborted)
}

/// Where a transaction begins that a snapshot tells of. Where that cannot be found out, nothing of its segment is shown to
/// readers of committed records.
fn locate(segments: &[Arc<Segment>], offset: i64) -> OffsetPosition {
    let segment = &segments[segment_of(segments, offset)];
    let found = segment.batch_holding(offset, segment.bytes());
    let position = found.ok().flatten().map_or(0, |batch| batch.position);
    OffsetPosition {
        offset,
        segment_base: segment.base_offset,
        position,
    }
}
