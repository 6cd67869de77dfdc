//! Offline inspection of a data directory: `metaq log dump` and `metaq log verify`.
//!
//! Tests: log/tests.rs, tests/damage.rs.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use metaq_protocol::batch::{self, BATCH_HEADER_BYTES, BatchHeader, EndMarker, Outcome};
use metaq_protocol::compression;
use metaq_protocol::records::Records;

use super::checkpoint;
use super::disk::{Disk, ReadOnlyDisk};
use super::producer_snapshot;
use super::segment::{FileAge, Segment, base_offset_of};
use super::verify_transactions::TransactionsSeen;

/// A batch is unpacked to at most this many bytes while its records are checked.
const UNPACKED_BYTES_MAX: usize = 256 << 20;
/// Preallocated indexes are read whole whatever their limit was.
const INDEX_BYTES_MAX: usize = 1 << 30;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Byte position in it, where it has one.
    pub position: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What [`verify_dir`] saw.
#[derive(Debug, Default, serde::Serialize)]
pub struct Verified {
    /// Partition directories.
    pub partitions: usize,
    /// Segment files.
    pub segments: usize,
    /// Batches whose CRC and records were checked.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong; empty when all is well.
    pub findings: Vec<Finding>,
}

impl Verified {
    fn note(&mut self, file: &Path, position: Option<u64>, what: impl Into<String>) {
        self.findings.push(Finding {
            file: file.to_path_buf(),
            position,
            what: what.into(),
        });
    }
}

/// One record for a dump; keys and values are shown as text where they are, else in hexadecimal.
#[derive(Debug, serde::Serialize)]
pub struct DumpedRecord {
    /// Offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// `None` for a null key.
    pub key: Option<String>,
    /// `None` for a null value.
    pub value: Option<String>,
    /// In order, with duplicates.
    pub headers: Vec<(String, Option<String>)>,
}

/// What a control batch says that ends a transaction.
#[derive(Debug, serde::Serialize)]
pub struct DumpedMarker {
    /// `commit` or `abort`.
    pub outcome: &'static str,
    /// Epoch of the coordinator that decided.
    pub coordinator_epoch: i32,
}

impl DumpedMarker {
    fn of_batch(bytes: &[u8]) -> Option<Self> {
        let marker = EndMarker::of_batch(bytes)?;
        let outcome = match marker.outcome {
            Outcome::Abort => "abort",
            Outcome::Commit => "commit",
        };
        let coordinator_epoch = marker.coordinator_epoch;
        Some(Self {
            outcome,
            coordinator_epoch,
        })
    }
}

/// One batch for a dump.
#[derive(Debug, serde::Serialize)]
pub struct DumpedBatch {
    /// Byte position.
    pub position: u64,
    /// Bytes, header included.
    pub bytes: usize,
    /// First offset.
    pub base_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Records.
    pub count: i32,
    /// Leader epoch.
    pub leader_epoch: i32,
    /// Codec name.
    pub compression: String,
    /// Largest timestamp.
    pub max_timestamp: i64,
    /// -1 for none.
    pub producer_id: i64,
    /// -1 for none.
    pub producer_epoch: i16,
    /// -1 for none.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub transactional: bool,
    /// Not of a client's records.
    pub control: bool,
    /// What a control batch says, where it ends a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<DumpedMarker>,
    /// Whether the CRC is right.
    pub valid: bool,
    /// The records, when asked for.
    pub records: Vec<DumpedRecord>,
}

/// What a dump is to show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dump {
    /// Unpack batches and show records.
    pub records: bool,
}

/// Walks a `.log` file and hands every batch to `show`; stops at the first thing that is no batch and says so.
pub fn dump_segment(
    path: &Path,
    what: Dump,
    mut show: impl FnMut(DumpedBatch) -> io::Result<()>,
) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = ReadOnlyDisk.open(path).map_err(named)?;
    let end = file.size()?;
    let mut position = 0;
    while position < end {
        let bytes = match read_batch(&*file, position, end)? {
            Ok(bytes) => bytes,
            Err(problem) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("at byte {position}: {problem}"),
                ));
            }
        };
        let header = BatchHeader::parse(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let records = if what.records {
            dump_records(&header, &bytes).unwrap_or_default()
        } else {
            Vec::new()
        };
        show(DumpedBatch {
            position,
            bytes: bytes.len(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            count: header.record_count,
            leader_epoch: header.leader_epoch,
            compression: header
                .compression()
                .map_or("unknown".to_owned(), |codec| codec.name().to_owned()),
            max_timestamp: header.max_timestamp,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            transactional: header.is_transactional(),
            control: header.is_control(),
            marker: DumpedMarker::of_batch(&bytes),
            valid: batch::verify_crc(&bytes),
            records,
        })?;
        position += bytes.len() as u64;
    }
    Ok(())
}

/// Checks every partition directory below `path`, or `path` itself when it is one.
pub fn verify_dir(path: &Path) -> io::Result<Verified> {
    verify_dir_reporting(path, |_, _| {})
}

/// The same, telling before each partition how many are done, and of how many.
pub fn verify_dir_reporting(
    path: &Path,
    mut report: impl FnMut(usize, usize),
) -> io::Result<Verified> {
    let mut seen = Verified::default();
    let mut dirs = Vec::new();
    let is_partition = |dir: &Path| -> io::Result<bool> {
        let mut logs = std::fs::read_dir(dir)?.filter_map(Result::ok);
        Ok(logs.any(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| base_offset_of(name, "log").is_some())
        }))
    };
    if is_partition(path)? {
        dirs.push(path.to_path_buf());
    } else {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && is_partition(&entry.path())? {
                dirs.push(entry.path());
            }
        }
    }
    dirs.sort();
    for (n, dir) in dirs.iter().enumerate() {
        report(n, dirs.len());
        verify_partition(dir, &mut seen)?;
    }
    Ok(seen)
}

/// What a compaction has put in the place of segments, of which some may be gone already.
pub(super) const SWAPPED_LOG: &str = "log.swap";
pub(super) const INTERRUPTED: &str =
    "a compaction was interrupted: start the broker once, which completes it, and look again";

fn verify_partition(dir: &Path, seen: &mut Verified) -> io::Result<()> {
    seen.partitions += 1;
    let (mut bases, mut aborted, mut interrupted) = (Vec::new(), HashMap::new(), None);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if base_offset_of(&name, SWAPPED_LOG).is_some() {
            interrupted = Some(entry.path());
        } else if let Some(base) = base_offset_of(&name, "log") {
            bases.push((base, entry.metadata()?.len()));
        } else if let Some(base) = base_offset_of(&name, "txnindex") {
            aborted.insert(base, entry.metadata()?.len());
        } else if base_offset_of(&name, "snapshot").is_some()
            && producer_snapshot::decode(&std::fs::read(entry.path())?).is_none()
        {
            seen.note(&entry.path(), None, "not a valid producer snapshot");
        }
    }
    if let Some(left) = interrupted {
        seen.note(&left, None, INTERRUPTED);
        return Ok(());
    }
    bases.sort_unstable();
    let cleaned_until = cleaned_until(dir);
    let last = bases.last().map(|(base, _)| *base);
    let mut before: Option<i64> = None;
    let mut transactions = TransactionsSeen::default();
    for (base, bytes) in bases {
        let segment = Segment::new(
            Arc::new(ReadOnlyDisk),
            dir,
            base,
            bytes,
            FileAge::new(0),
            INDEX_BYTES_MAX,
        );
        segment
            .aborted
            .found(aborted.get(&base).copied().unwrap_or(0));
        seen.segments += 1;
        match before {
            Some(end) if base < end => {
                let what = format!("begins at {base}, but the segment before ends at {end}");
                seen.note(&segment.path(), None, what);
            }
            Some(end) if base > end && end >= cleaned_until => {
                let what = format!(
                    "records {end}..{base} are missing: a segment was lost, or the one before is cut"
                );
                seen.note(&segment.path(), None, what);
            }
            _ => {}
        }
        let checked = Checked {
            segment: &segment,
            is_sealed: last != Some(base),
            // One with a key index was gone through, perhaps by a pass that did not come to its end.
            cleaned_until: match segment.keys_path().exists() {
                true => i64::MAX,
                false => cleaned_until,
            },
        };
        let end = checked.verify(&mut transactions, seen)?;
        before = Some(end.max(base));
    }
    Ok(())
}

/// Up to where compaction may have left gaps, by the checkpoint in the data directory.
fn cleaned_until(dir: &Path) -> i64 {
    let row = || {
        let (topic, partition) = dir.file_name()?.to_str()?.rsplit_once('-')?;
        let key = (topic.to_owned(), partition.parse().ok()?);
        let checkpoint = dir.parent()?.join(checkpoint::CLEANED);
        let rows = checkpoint::read_offsets(&ReadOnlyDisk, &checkpoint).ok()?;
        rows.get(&key).copied()
    };
    row().unwrap_or(0)
}

/// A segment to be checked.
struct Checked<'a> {
    segment: &'a Segment,
    is_sealed: bool,
    cleaned_until: i64,
}

impl Checked<'_> {
    /// Checks it and what stands beside it; returns the offset after it.
    fn verify(&self, transactions: &mut TransactionsSeen, seen: &mut Verified) -> io::Result<i64> {
        let segment = self.segment;
        let walked = walk(segment, self.cleaned_until, transactions, seen)?;
        verify_indexes(segment, &walked.starts, seen)?;
        if self.is_sealed {
            verify_sealed(segment, walked.newest, seen)?;
        }
        let is_cleaned = segment.base_offset < self.cleaned_until;
        for what in transactions.wrong_in(segment, is_cleaned) {
            seen.note(&segment.aborted.path(), None, what);
        }
        segment.close_files();
        Ok(walked.end)
    }
}

/// What the batches of a segment say.
struct Walked {
    /// The last offset of each, by its position.
    starts: BTreeMap<u64, i64>,
    /// The largest timestamp.
    newest: i64,
    /// The offset after the last one.
    end: i64,
}

/// Checks the batches of a segment.
fn walk(
    segment: &Segment,
    cleaned_until: i64,
    transactions: &mut TransactionsSeen,
    seen: &mut Verified,
) -> io::Result<Walked> {
    let path = segment.path();
    let file = segment.file()?;
    let end = segment.bytes();
    let (mut position, mut next_offset) = (0, segment.base_offset);
    let mut starts = BTreeMap::new();
    let mut newest = -1;
    while position < end {
        let bytes = match read_batch(&*file, position, end)? {
            Ok(bytes) => bytes,
            Err(problem) => {
                seen.note(&path, Some(position), problem);
                break;
            }
        };
        let Ok(header) = BatchHeader::parse(&bytes) else {
            break;
        };
        if !batch::verify_crc(&bytes) {
            seen.note(&path, Some(position), "the CRC does not match");
        } else if let Err(problem) = dump_records(&header, &bytes) {
            seen.note(&path, Some(position), problem);
        }
        if header.base_offset < next_offset {
            seen.note(
                &path,
                Some(position),
                format!("offset {} after {}", header.base_offset, next_offset - 1),
            );
        }
        // The offset stands outside of the CRC.
        if header.base_offset > next_offset && next_offset >= cleaned_until {
            let what = format!("offset {} where {next_offset} follows", header.base_offset);
            seen.note(&path, Some(position), what);
        }
        transactions.batch(&header, &bytes);
        starts.insert(position, header.last_offset());
        newest = newest.max(header.max_timestamp);
        seen.batches += 1;
        seen.records += u64::try_from(header.record_count).unwrap_or(0);
        next_offset = header.last_offset() + 1;
        position += bytes.len() as u64;
    }
    seen.bytes += position;
    Ok(Walked {
        starts,
        newest,
        end: next_offset,
    })
}

fn verify_indexes(
    segment: &Segment,
    starts: &BTreeMap<u64, i64>,
    seen: &mut Verified,
) -> io::Result<()> {
    let index = segment.offsets.file.path();
    if index.exists() {
        // One entry may stand for several batches that came together, as followers of Kafka before 4.0 wrote it.
        let ends: Vec<i64> = starts.values().copied().collect();
        for (offset, position) in segment.offsets.all()? {
            let first = starts.get(&u64::from(position));
            let is_right = first.is_some_and(|last| *last <= offset);
            if !is_right || ends.binary_search(&offset).is_err() {
                let what =
                    format!("entry (offset {offset}, position {position}) points at no such batch");
                seen.note(&index, None, what);
            }
        }
    }
    let index = segment.times.file.path();
    if index.exists() {
        let all = segment.times.all()?;
        if all
            .windows(2)
            .any(|pair| pair[0].timestamp >= pair[1].timestamp || pair[0].offset > pair[1].offset)
        {
            seen.note(&index, None, "entries are not in order");
        }
    }
    Ok(())
}

/// A sealed segment has both indexes, and the one by time goes up to its newest record.
fn verify_sealed(segment: &Segment, newest: i64, seen: &mut Verified) -> io::Result<()> {
    for index in [segment.offsets.file.path(), segment.times.file.path()] {
        if !index.exists() {
            seen.note(&index, None, "the index is missing");
        }
    }
    let last = segment.times.last()?.map_or(-1, |last| last.timestamp);
    if segment.times.file.path().exists() && last < newest {
        let what = format!("ends with timestamp {last}, but the segment goes up to {newest}");
        seen.note(&segment.times.file.path(), None, what);
    }
    Ok(())
}

/// The batch at `position`, or why there is none.
fn read_batch(
    file: &dyn super::disk::DiskFile,
    position: u64,
    end: u64,
) -> io::Result<Result<Vec<u8>, String>> {
    let mut head = [0; BATCH_HEADER_BYTES];
    if position + head.len() as u64 > end || file.read_at(&mut head, position)? < head.len() {
        return Ok(Err(format!(
            "{} bytes are too few for a batch",
            end - position
        )));
    }
    let header = match BatchHeader::parse(&head) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if header.total_bytes() as u64 > end - position {
        return Ok(Err(format!(
            "the batch has {} bytes, the file {} more",
            header.total_bytes(),
            end - position
        )));
    }
    let mut bytes = vec![0; header.total_bytes()];
    file.read_at(&mut bytes, position)?;
    Ok(Ok(bytes))
}

fn dump_records(header: &BatchHeader, bytes: &[u8]) -> Result<Vec<DumpedRecord>, String> {
    let codec = header.compression().map_err(|error| error.to_string())?;
    let unpacked = compression::decompress(codec, &bytes[BATCH_HEADER_BYTES..], UNPACKED_BYTES_MAX)
        .map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    for record in Records::new(header, &unpacked) {
        let record = record.map_err(|error| error.to_string())?;
        let headers = record
            .headers()
            .map(|(key, value)| (show(key), value.map(show)))
            .collect();
        records.push(DumpedRecord {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(show),
            value: record.value.map(show),
            headers,
        });
    }
    if records.len() != usize::try_from(header.record_count).unwrap_or(usize::MAX) {
        return Err(format!(
            "the header says {} records, there are {}",
            header.record_count,
            records.len()
        ));
    }
    Ok(records)
}

fn show(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => HEXLOWER.encode(bytes),
    }
}
