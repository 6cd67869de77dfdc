//! `%020d.snapshot`: the producers of a partition up to the offset in the name (Kafka's ProducerSnapshot).
//!
//! | bytes | field      | meaning                                         |
//! |-------|------------|-------------------------------------------------|
//! | 0..2  | version    | 1                                               |
//! | 2..6  | crc        | CRC-32C of everything after it                 |
//! | 6..10 | count      | number of entries                               |
//!
//! One entry, 46 bytes: producer id i64, epoch i16, last sequence i32, last offset i64, offset delta i32,
//! timestamp i64, coordinator epoch i32, first offset of the open transaction i64 (-1 for none).
//!
//! Kafka writes one entry a producer, about its last batch; where it reads several, the last one counts. Here each
//! remembered batch has its entry, the last one last: a batch that is sent again after a restart is known although others
//! followed it.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};

use super::disk::Disk;
use super::producers::{NO_SEQUENCE, Producer, Producers, StoredBatch};
use super::segment::{base_offset_of, file_name};

const VERSION: i16 = 1;
const HEADER_BYTES: usize = 10;
const ENTRY_BYTES: usize = 46;

/// Writes the snapshot of all that lies before `offset`.
pub fn store(disk: &dyn Disk, dir: &Path, offset: i64, producers: &Producers) -> io::Result<()> {
    disk.replace(&dir.join(file_name(offset, "snapshot")), &encode(producers))
}

/// Loads the newest readable snapshot of a range of offsets; returns its offset.
pub fn load_newest(
    disk: &dyn Disk,
    dir: &Path,
    range: RangeInclusive<i64>,
) -> io::Result<Option<(i64, Producers)>> {
    let mut found = list(dir)?;
    found.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (at, path) in found.into_iter().filter(|(at, _)| range.contains(at)) {
        // One that cannot be read now may be whole: only what is read and wrong goes.
        match decode(&disk.read(&path)?) {
            Some(producers) => return Ok(Some((at, producers))),
            None => {
                tracing::warn!(snapshot = %path.display(), "producer snapshot is damaged; using an older one");
                disk.remove(&path)?;
            }
        }
    }
    Ok(None)
}

/// Removes snapshots whose offset `drop` names.
pub fn remove(disk: &dyn Disk, dir: &Path, drop: impl Fn(i64) -> bool) -> io::Result<()> {
    for (offset, path) in list(dir)? {
        if drop(offset) {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

fn list(dir: &Path) -> io::Result<Vec<(i64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(offset) = entry
            .file_name()
            .to_str()
            .and_then(|name| base_offset_of(name, "snapshot"))
        {
            found.push((offset, entry.path()));
        }
    }
    Ok(found)
}

fn encode(producers: &Producers) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + producers.len() * ENTRY_BYTES);
    body.put_i32(0);
    let mut count = 0;
    for (id, producer) in producers.iter() {
        let earlier = producer.batches.len().saturating_sub(1);
        for batch in producer.batches.iter().take(earlier) {
            put_entry(&mut body, id, producer, Some(batch), batch.timestamp, -1);
        }
        let last = producer.batches.back();
        let first_offset = producer.transaction_first_offset;
        let timestamp = producer.last_timestamp;
        put_entry(&mut body, id, producer, last, timestamp, first_offset);
        count += earlier as i32 + 1;
    }
    body[..4].copy_from_slice(&count.to_be_bytes());
    let mut content = Vec::with_capacity(6 + body.len());
    content.put_i16(VERSION);
    content.put_u32(crc32c::crc32c(&body));
    content.put_slice(&body);
    content
}

fn put_entry(
    body: &mut Vec<u8>,
    id: i64,
    producer: &Producer,
    batch: Option<&StoredBatch>,
    timestamp: i64,
    transaction_first_offset: i64,
) {
    body.put_i64(id);
    body.put_i16(producer.epoch);
    body.put_i32(batch.map_or(NO_SEQUENCE, |batch| batch.last_sequence));
    body.put_i64(batch.map_or(-1, |batch| batch.last_offset));
    body.put_i32(batch.map_or(0, |batch| batch.offset_delta));
    body.put_i64(timestamp);
    body.put_i32(producer.coordinator_epoch);
    body.put_i64(transaction_first_offset);
}

/// The producers in a snapshot's bytes, or `None` when they are not a valid snapshot.
pub fn decode(mut content: &[u8]) -> Option<Producers> {
    if content.len() < HEADER_BYTES || content.get_i16() != VERSION {
        return None;
    }
    if content.get_u32() != crc32c::crc32c(content) {
        return None;
    }
    let count = usize::try_from(content.get_i32()).ok()?;
    if content.len() != count.checked_mul(ENTRY_BYTES)? {
        return None;
    }
    let mut producers = Producers::default();
    for _ in 0..count {
        let (id, epoch, last_sequence) = (content.get_i64(), content.get_i16(), content.get_i32());
        let (last_offset, offset_delta) = (content.get_i64(), content.get_i32());
        let (timestamp, coordinator_epoch, transaction_first_offset) =
            (content.get_i64(), content.get_i32(), content.get_i64());
        let mut producer = Producer {
            epoch,
            batches: VecDeque::new(),
            coordinator_epoch,
            last_timestamp: timestamp,
            transaction_first_offset,
        };
        if last_sequence >= 0 {
            producer.batches.push_back(StoredBatch {
                last_sequence,
                last_offset,
                offset_delta,
                timestamp,
            });
        }
        producers.restore(id, producer);
    }
    Some(producers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    fn one_producer() -> Producers {
        let mut producers = Producers::default();
        let batch = |last_sequence, last_offset| StoredBatch {
            last_sequence,
            last_offset,
            offset_delta: 2,
            timestamp: 5,
        };
        let batches = VecDeque::from([batch(3, 12), batch(6, 41)]);
        producers.restore(
            77,
            Producer {
                epoch: 2,
                batches,
                coordinator_epoch: -1,
                last_timestamp: 5,
                transaction_first_offset: -1,
            },
        );
        producers
    }

    #[test]
    fn a_snapshot_is_read_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        store(&RealDisk, dir.path(), 42, &one_producer()).unwrap();
        let (offset, read) = load_newest(&RealDisk, dir.path(), 0..=100)
            .unwrap()
            .unwrap();
        assert_eq!(offset, 42);
        assert_eq!(
            read.iter().next().unwrap(),
            one_producer().iter().next().unwrap()
        );
    }

    #[test]
    fn a_damaged_snapshot_gives_way_to_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        store(&RealDisk, dir.path(), 42, &one_producer()).unwrap();
        std::fs::write(dir.path().join(file_name(50, "snapshot")), b"garbage").unwrap();
        assert_eq!(
            load_newest(&RealDisk, dir.path(), 0..=100)
                .unwrap()
                .unwrap()
                .0,
            42
        );
        assert!(
            load_newest(&RealDisk, dir.path(), 0..=41)
                .unwrap()
                .is_none()
        );
        let later = load_newest(&RealDisk, dir.path(), 43..=100);
        assert!(later.unwrap().is_none());
    }
}
