//! Finding offsets by time (ListOffsets; Kafka's UnifiedLog.fetchOffsetByTimestamp).

use metaq_protocol::record_stream::RecordStream;

use super::LogError;
use super::partition_log::Log;
use super::segment::{BatchAt, Segment};

/// A batch is unpacked to at most this many bytes while looking for a timestamp.
const UNPACKED_BYTES_MAX: usize = 256 << 20;

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundTimestamp {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, ms.
    pub timestamp: i64,
    /// Leader epoch of its batch.
    pub leader_epoch: i32,
}

impl Log {
    /// The first record at or after `timestamp`, below `limit`.
    pub fn find_timestamp(
        &self,
        timestamp: i64,
        limit: i64,
    ) -> Result<Option<FoundTimestamp>, LogError> {
        let log_start = self.ends().log_start;
        for segment in self.segments().iter() {
            if segment.bytes() == 0 || segment.largest_timestamp()?.timestamp < timestamp {
                continue;
            }
            let from = segment
                .times
                .offset_before(timestamp)?
                .max(log_start)
                .max(segment.base_offset());
            let Some(start) = segment.batch_holding(from, segment.bytes())? else {
                continue;
            };
            let mut walk = segment.batches(start.position, segment.bytes())?;
            while let Some(at) = walk.next()? {
                if at.header.base_offset >= limit {
                    return Ok(None);
                }
                if at.header.max_timestamp < timestamp {
                    continue;
                }
                let fits = |found: &FoundTimestamp| {
                    found.timestamp >= timestamp && found.offset >= log_start
                };
                if let Some(found) = first_record(segment, &at, fits)? {
                    return Ok((found.offset < limit).then_some(found));
                }
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp (KIP-734), the earliest of several.
    pub fn find_max_timestamp(&self, limit: i64) -> Result<Option<FoundTimestamp>, LogError> {
        let log_start = self.ends().log_start;
        let mut best: Option<(i64, std::sync::Arc<Segment>)> = None;
        for segment in self.segments().iter().filter(|segment| segment.bytes() > 0) {
            let largest = segment.largest_timestamp()?.timestamp;
            if best
                .as_ref()
                .is_none_or(|(timestamp, _)| largest > *timestamp)
            {
                best = Some((largest, segment.clone()));
            }
        }
        let Some((largest, segment)) = best else {
            return Ok(None);
        };
        let from = segment
            .times
            .offset_before(largest)?
            .max(log_start)
            .max(segment.base_offset());
        let Some(start) = segment.batch_holding(from, segment.bytes())? else {
            return Ok(None);
        };
        let mut walk = segment.batches(start.position, segment.bytes())?;
        while let Some(at) = walk.next()? {
            if at.header.max_timestamp == largest && at.header.base_offset < limit {
                let found = first_record(&segment, &at, |found| found.timestamp == largest)?;
                return Ok(found.filter(|found| found.offset >= log_start));
            }
        }
        Ok(None)
    }
}

/// The first record of a batch that `fits`.
fn first_record(
    segment: &Segment,
    at: &BatchAt,
    fits: impl Fn(&FoundTimestamp) -> bool,
) -> Result<Option<FoundTimestamp>, LogError> {
    let header = &at.header;
    let damaged = |what: String| LogError::Damaged {
        file: segment.path().display().to_string(),
        position: at.position,
        what,
    };
    let in_batch = |offset, timestamp| FoundTimestamp {
        offset,
        timestamp,
        leader_epoch: header.leader_epoch,
    };
    let bytes = segment.read_batch(at)?;
    let stored = &bytes[metaq_protocol::batch::BATCH_HEADER_BYTES..];
    // Nothing is kept of what it unpacks to, which may be much.
    let records = RecordStream::new(header, stored, UNPACKED_BYTES_MAX);
    for record in records.map_err(|error| damaged(error.to_string()))? {
        let record = record.map_err(|error| damaged(error.to_string()))?;
        let offset = header.base_offset + record.offset_delta;
        let found = in_batch(offset, record.timestamp);
        if fits(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
