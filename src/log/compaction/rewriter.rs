//! Writing segments anew without the records that newer ones supersede.
//!
//! Tests: log/compaction/tests.rs.

use std::iter::Peekable;

use metaq_protocol::batch::{BATCH_HEADER_BYTES, EndMarker, write_no_records, write_some_records};
use metaq_protocol::records::Record;

use super::super::LogError;
use super::super::aborted_batches::Aborted;
use super::super::segment::Segment;
use super::batch_reader::{BatchReader, WholeBatch, damaged};
use super::cleaned_segment::CleanedSegment;
use super::key_index::{Facts, KeyIndexEntries, add_to_crc};
use super::key_map::{KeyMap, KeyedOffset};
use super::retention::{Fate, Retention};
use super::scan::unpack;

/// Headers of batches that are read between two looks whether the pass goes on.
pub(super) const BATCHES_BETWEEN: u64 = 1000;

/// The records of a segment that stay by their keys, in the order of their offsets.
pub(super) enum Survivors<'a> {
    /// All of them are in a map.
    Sorted(Peekable<Box<dyn Iterator<Item = KeyedOffset> + 'a>>),
    /// Those of a key index that nothing in a map supersedes.
    Indexed {
        entries: KeyIndexEntries<'a>,
        map: &'a KeyMap,
        next: Option<KeyedOffset>,
    },
}

impl<'a> Survivors<'a> {
    /// Those of a sorted map from an offset on.
    pub(super) fn sorted(map: &'a KeyMap, from: i64) -> Self {
        let all: Box<dyn Iterator<Item = KeyedOffset>> = Box::new(map.sorted(from));
        Self::Sorted(all.peekable())
    }

    /// Those of an index.
    pub(super) fn indexed(entries: KeyIndexEntries<'a>, map: &'a KeyMap) -> Self {
        let next = None;
        Self::Indexed { entries, map, next }
    }

    /// Adds those up to an offset.
    fn take_until(&mut self, last: i64, taken: &mut Vec<KeyedOffset>) -> Result<(), LogError> {
        match self {
            Self::Sorted(all) => {
                while let Some(key) = all.next_if(|key| key.offset <= last) {
                    taken.push(key);
                }
            }
            Self::Indexed { entries, map, next } => loop {
                let found = match next.take() {
                    Some(found) => Some(found),
                    None => entries.next()?,
                };
                match found {
                    None => break,
                    Some(key) if key.offset > last => {
                        *next = Some(key);
                        break;
                    }
                    Some(key) if is_newest(map, &key) => taken.push(key),
                    Some(_) => {}
                }
            },
        }
        Ok(())
    }
}

/// Whether nothing newer of a record's key is in a map.
pub(super) fn is_newest(map: &KeyMap, key: &KeyedOffset) -> bool {
    map.get(&key.hash).is_none_or(|newest| newest <= key.offset)
}

/// What a segment is written anew by.
pub(super) struct Source<'a> {
    pub(super) segment: &'a Segment,
    pub(super) facts: Facts,
    pub(super) aborted: &'a Aborted,
    pub(super) survivors: Survivors<'a>,
    /// No segment after it goes into the same file.
    pub(super) is_last: bool,
}

/// How long tombstones and markers stay.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
    /// Tombstones between these offsets stay even when their time has come: older records of their keys may be there, and
    /// would be read again.
    pub(super) not_compared: (i64, i64),
}

impl Times {
    /// Whether a tombstone goes whose time is this, ms.
    fn is_due(&self, key: &KeyedOffset, horizon: i64) -> bool {
        let (from, to) = self.not_compared;
        horizon <= self.now_ms && !(from..to).contains(&key.offset)
    }

    fn horizon(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }
}

/// Adds what stays of a segment to another one; returns how many bytes were read. `throttle` hears of those that are read and
/// written.
pub(super) fn rewrite(
    mut source: Source<'_>,
    retention: &mut Retention,
    times: Times,
    to: &mut CleanedSegment,
    throttle: &mut dyn FnMut(u64) -> Result<(), LogError>,
) -> Result<u64, LogError> {
    let mut reader = BatchReader::new(source.segment, 0)?;
    let (mut staying, mut crc) = (Vec::new(), 0);
    let (mut all_read, mut written) = (0, to.written());
    loop {
        let mut read = 0;
        let Some(batch) = reader.next(&mut read)? else {
            break;
        };
        crc = add_to_crc(crc, &batch.header);
        staying.clear();
        source
            .survivors
            .take_until(batch.header.last_offset(), &mut staying)?;
        let end = batch.position + batch.bytes.len() as u64;
        let is_last = source.is_last && end == source.segment.bytes();
        let fate = fate_of(&batch, retention, source.aborted, is_last, Some(to))?;
        write(&source, &batch, fate, &mut staying, times, to)?;
        let moved = read + (to.written() - written);
        written = to.written();
        all_read += read;
        if moved > 0 {
            throttle(moved)?;
        }
    }
    // What is known of a segment's keys is of that segment.
    match crc == source.facts.batches_crc {
        true => Ok(all_read),
        false => Err(damaged(
            source.segment,
            0,
            "it is not what its key index was made from".to_owned(),
        )),
    }
}

/// What is to become of the next batch; an aborted transaction that still has batches is noted in the new segment.
fn fate_of(
    batch: &WholeBatch<'_>,
    retention: &mut Retention,
    aborted: &Aborted,
    is_last: bool,
    to: Option<&CleanedSegment>,
) -> Result<Fate, LogError> {
    let header = &batch.header;
    if !header.is_control() {
        return Ok(retention.of_data(header, aborted.has(header), is_last));
    }
    let marker = EndMarker::of_batch(batch.bytes);
    let (fate, has_batches) = retention.of_control(header, marker, is_last);
    if has_batches && let (Some(to), Some(ended)) = (to, aborted.ended_by(header)) {
        to.add_aborted(ended)?;
    }
    Ok(fate)
}

/// Whether something of a segment goes, or is stamped, whatever the keys of its records say. To be asked of one segment after
/// the other.
pub(super) fn changes_by_batch(
    segment: &Segment,
    retention: &mut Retention,
    aborted: &Aborted,
    ends_file: bool,
    throttle: &mut dyn FnMut(u64) -> Result<(), LogError>,
) -> Result<bool, LogError> {
    let mut walk = segment.batches(0, segment.bytes())?;
    let (mut changes, mut walked) = (false, 0);
    while let Some(at) = walk.next()? {
        let header = at.header;
        walked += 1;
        if walked % BATCHES_BETWEEN == 0 {
            throttle(BATCHES_BETWEEN * BATCH_HEADER_BYTES as u64)?;
        }
        let is_last = ends_file && at.position + header.total_bytes() as u64 == segment.bytes();
        let bytes = match header.is_control() {
            true => segment.read_batch(&at)?,
            false => Vec::new(),
        };
        let batch = WholeBatch {
            header,
            position: at.position,
            bytes: &bytes,
        };
        let fate = fate_of(&batch, retention, aborted, is_last, None)?;
        changes |= matches!(fate, Fate::Emptied { .. } | Fate::Stamped);
    }
    Ok(changes)
}

fn write(
    source: &Source<'_>,
    batch: &WholeBatch<'_>,
    fate: Fate,
    staying: &mut Vec<KeyedOffset>,
    times: Times,
    to: &mut CleanedSegment,
) -> Result<(), LogError> {
    let header = &batch.header;
    let copy = |out: &mut Vec<u8>| {
        out.extend_from_slice(batch.bytes);
        Ok(())
    };
    let without_records = match fate {
        Fate::Stays => {
            to.add(copy)?;
            return Ok(());
        }
        Fate::Stamped => {
            let records = records_of(source.segment, batch)?;
            let horizon = Some(times.horizon());
            to.add(|out| write_filtered(source, batch, &records, horizon, &mut |_| true, out))?;
            return Ok(());
        }
        Fate::Emptied { without_records } => {
            staying.clear();
            without_records
        }
        Fate::ByKey { without_records } => {
            if header.has_delete_horizon() {
                let is_due = |key: &KeyedOffset| times.is_due(key, header.base_timestamp);
                staying.retain(|key| !(key.is_tombstone && is_due(key)));
            }
            let stamps = !header.has_delete_horizon() && staying.iter().any(|key| key.is_tombstone);
            let is_whole = staying.len() as i64 == i64::from(header.record_count);
            if is_whole && !stamps {
                return add_with_keys(to, staying, copy);
            }
            if !staying.is_empty() || source.facts.has_opaque {
                let Some(records) = unpack(source.segment, batch)? else {
                    // It is not looked into.
                    to.facts.has_opaque = true;
                    return add_with_keys(to, staying, copy);
                };
                if !staying.is_empty() {
                    return write_staying(source, batch, &records, stamps, staying, times, to);
                }
            }
            without_records
        }
    };
    if without_records {
        to.add(|out| {
            write_no_records(header, out).map_err(|error| not_written(source, batch, error))
        })?;
    }
    Ok(())
}

fn write_staying(
    source: &Source<'_>,
    batch: &WholeBatch<'_>,
    records: &[u8],
    stamps: bool,
    staying: &[KeyedOffset],
    times: Times,
    to: &mut CleanedSegment,
) -> Result<(), LogError> {
    let mut left = staying.iter().peekable();
    let mut keep = |record: &Record<'_>| left.next_if(|key| key.offset == record.offset).is_some();
    let horizon = stamps.then(|| times.horizon());
    add_with_keys(to, staying, |out| {
        write_filtered(source, batch, records, horizon, &mut keep, out)
    })?;
    match left.next() {
        None => Ok(()),
        // Never write less than is known to be there.
        Some(_) => Err(damaged(
            source.segment,
            batch.position,
            "records of the key index are not in the batch".to_owned(),
        )),
    }
}

fn add_with_keys(
    to: &mut CleanedSegment,
    staying: &[KeyedOffset],
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    if let Some(header) = to.add(write)? {
        for key in staying {
            to.add_key(key, &header)?;
        }
    }
    Ok(())
}

fn write_filtered(
    source: &Source<'_>,
    batch: &WholeBatch<'_>,
    records: &[u8],
    horizon: Option<i64>,
    keep: &mut dyn FnMut(&Record<'_>) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), LogError> {
    write_some_records(&batch.header, records, horizon, keep, out)
        .map(|_| ())
        .map_err(|error| not_written(source, batch, error))
}

/// The records of a marker.
fn records_of<'a>(
    segment: &Segment,
    batch: &'a WholeBatch<'_>,
) -> Result<std::borrow::Cow<'a, [u8]>, LogError> {
    unpack(segment, batch)?.ok_or_else(|| {
        damaged(
            segment,
            batch.position,
            "a marker that is too large".to_owned(),
        )
    })
}

fn not_written(source: &Source<'_>, batch: &WholeBatch<'_>, error: impl ToString) -> LogError {
    damaged(source.segment, batch.position, error.to_string())
}
