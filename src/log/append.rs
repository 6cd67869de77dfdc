//! Appending to a log: what several requests brought is admitted, given offsets and written with as few writes as possible.
//!
//! Who appends decides what is done ([`Origin`]): a client's batches, and a coordinator's markers, are checked against what
//! the producer sent before and get offsets and the leader epoch; a follower takes its leader's as they are.
//!
//! Tests: log/tests.rs, log/transaction_tests.rs.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use metaq_protocol::batch::{
    self, BATCH_HEADER_BYTES, BatchError, BatchHeader, Batches, EndMarker, Outcome,
};

use super::LogError;
use super::config::LogConfig;
use super::journal::WrittenBatch;
use super::offset_position::OffsetPosition;
use super::partition_log::{Log, Tail};
use super::producers::Admission;
use super::transactions::{AbortedTransaction, TransactionMarker, TransactionVersion};
use super::verifications::Verification;

/// Batches that [`Log::is_on_fast_path`] expects at a time, at most.
pub const FAST_PATH_BATCHES_MAX: usize = 64;

/// A batch as it came from a client, validated.
#[derive(Clone, Debug)]
pub struct ProducedBatch {
    /// Its header.
    pub header: BatchHeader,
    /// All its bytes, header included.
    pub bytes: Bytes,
}

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer: sequences and transactions are checked; the batches get offsets and the leader epoch.
    Client(Verification),
    /// The coordinator of transactions: its markers get offsets and the leader epoch.
    Coordinator(TransactionVersion),
    /// The leader, whose records a follower copies: offsets and epochs are as they came, and go on where the log ends.
    Replication {
        /// The epoch in which it was asked.
        leader_epoch: i32,
    },
}

impl Origin {
    /// Whether what it brings gets its offsets here.
    fn is_leaders(self) -> bool {
        !matches!(self, Self::Replication { .. })
    }
}

/// What one request brings to one log.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// Who appends.
    pub origin: Origin,
    /// Stored all or none.
    pub batches: Vec<ProducedBatch>,
}

impl AppendRequest {
    /// Of a producer, outside of transactions or within one that goes on.
    pub fn of_client(batches: Vec<ProducedBatch>) -> Self {
        Self::verified(batches, Verification::NotNeeded)
    }

    /// Of a producer, verified.
    pub fn verified(batches: Vec<ProducedBatch>, verification: Verification) -> Self {
        let origin = Origin::Client(verification);
        Self { origin, batches }
    }

    /// Whether all that it writes is records and the usual indexes: an abort has an entry in an index of its own, which may
    /// have to be made.
    pub fn is_records_alone(&self) -> bool {
        let aborts = |batch: &ProducedBatch| {
            let marker = EndMarker::of_batch(&batch.bytes);
            marker.is_some_and(|marker| marker.outcome == Outcome::Abort)
        };
        !matches!(self.origin, Origin::Coordinator(_)) || !self.batches.iter().any(aborts)
    }

    /// What a follower fetched from its leader in an epoch: whole batches one after the other. The last one may be cut off where
    /// the leader gives no more bytes; it comes with the next fetch.
    pub fn of_fetched(records: &Bytes, leader_epoch: i32) -> Result<Self, LogError> {
        let (mut batches, mut at) = (Vec::new(), 0);
        for found in Batches::new(records) {
            let (header, slice) = match found {
                Err(BatchError::Truncated { .. }) if !batches.is_empty() => break,
                found => found.map_err(|error| LogError::FetchedDamaged(error.to_string()))?,
            };
            if !batch::verify_crc(slice) {
                let what = format!("the CRC of the batch at {} is wrong", header.base_offset);
                return Err(LogError::FetchedDamaged(what));
            }
            let bytes = records.slice(at..at + slice.len());
            at += slice.len();
            batches.push(ProducedBatch { header, bytes });
        }
        let origin = Origin::Replication { leader_epoch };
        Ok(Self { origin, batches })
    }

    /// What ends a transaction.
    pub fn of_marker(marker: &TransactionMarker, now_ms: i64) -> Result<Self, LogError> {
        let record = marker.record();
        let bytes = record.batch(marker.producer_id, marker.producer_epoch, now_ms);
        let header = BatchHeader::parse(&bytes).map_err(io::Error::other)?;
        Ok(Self {
            origin: Origin::Coordinator(marker.version),
            batches: vec![ProducedBatch { header, bytes }],
        })
    }
}

/// What one produce request did to one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The broker's time for LogAppendTime topics, else -1.
    pub log_append_time_ms: i64,
    /// The log's start, which clients want in the answer.
    pub log_start: i64,
    /// Acknowledge only once the log is synced up to `last_offset`.
    pub needs_sync: bool,
}

impl Log {
    /// Appends the batches of several producers with as few writes as possible. The answers stand in the order
    /// of the requests; one that is refused leaves the others alone. After a disk error the log is offline and
    /// every request of the call is answered with it.
    pub fn append(
        &self,
        requests: &[Vec<ProducedBatch>],
        leader_epoch: i32,
        now_ms: i64,
    ) -> Vec<Result<Appended, LogError>> {
        let requests = requests.iter().cloned().map(AppendRequest::of_client);
        let requests: Vec<_> = requests.collect();
        self.append_with(&requests, leader_epoch, now_ms, |_| {})
    }

    /// Appends what a follower fetched from its leader, whole batches one after the other, with one write (Kafka's
    /// appendAsFollower). They go on at the log's end, or after it where compaction took records; none is of a later epoch
    /// than the one that the leader leads in.
    pub fn append_as_follower(
        &self,
        records: &Bytes,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, LogError> {
        let request = AppendRequest::of_fetched(records, leader_epoch)?;
        let mut answers = self.append_with(&[request], leader_epoch, now_ms, |_| {});
        let closed = || Err(LogError::Offline("nothing was appended".to_owned()));
        answers.pop().unwrap_or_else(closed)
    }

    /// As [`Self::append`], for requests of any origin, handing out each batch as it was written.
    pub fn append_with(
        &self,
        requests: &[AppendRequest],
        leader_epoch: i32,
        now_ms: i64,
        mut on_written: impl FnMut(WrittenBatch),
    ) -> Vec<Result<Appended, LogError>> {
        let mut tail = self.tail.lock();
        if let Some(reason) = self.offline_reason() {
            let refusal = || Err(LogError::Offline(reason.clone()));
            return requests.iter().map(|_| refusal()).collect();
        }
        let config = self.config();
        let mut group = AppendGroup::new(
            self,
            &mut tail,
            &config,
            leader_epoch,
            now_ms,
            &mut on_written,
        );
        let mut answers: Vec<_> = requests.iter().map(|request| group.take(request)).collect();
        let written = match group.failed.take() {
            None => group.write_out(),
            Some(error) => Err(error),
        };
        if let Err(error) = written {
            let reason = self.take_offline(&mut tail, &error);
            for answer in &mut answers {
                if answer.is_ok() {
                    *answer = Err(LogError::Offline(reason.clone()));
                }
            }
        }
        self.note_fast_path(&tail, &config);
        answers
    }

    /// Whether appending these batches, among `queued_bytes` that may all be for this log, will be a write to the page
    /// cache and nothing else: no new segment, no small file that is replaced and synced, no index that grows. A segment
    /// of 2³¹ offsets is left out of account.
    pub fn is_on_fast_path(
        &self,
        leader_epoch: i32,
        batches: &[ProducedBatch],
        queued_bytes: u64,
        now_ms: i64,
    ) -> bool {
        let until_ms = self.fast_path_until_ms.load(Ordering::Relaxed);
        let is_young = |batch: &ProducedBatch| batch.header.max_timestamp <= until_ms;
        self.fast_path_epoch.load(Ordering::Relaxed) == leader_epoch
            && queued_bytes <= self.fast_path_bytes.load(Ordering::Relaxed)
            && match self.config.load().log_append_time {
                true => now_ms <= until_ms,
                false => batches.iter().all(is_young),
            }
    }

    fn note_fast_path(&self, tail: &Tail, config: &LogConfig) {
        let segments = self.segments.load();
        let active = segments.last().filter(|active| {
            // An entry a batch at most.
            let (offsets, times) = (&active.offsets.file, &active.times.file);
            offsets.has_room(FAST_PATH_BATCHES_MAX) && times.has_room(FAST_PATH_BATCHES_MAX)
        });
        let epoch = match (self.is_offline(), active) {
            (false, Some(_)) => self.epochs.load().latest().unwrap_or(-1),
            _ => -1,
        };
        if let Some(active) = active {
            let left = config.segment_bytes.saturating_sub(active.bytes());
            let age_max_ms = config.segment_ms.saturating_sub(tail.jitter_ms);
            let until_ms = active.rolls_after_ms(age_max_ms);
            self.fast_path_bytes.store(left, Ordering::Relaxed);
            self.fast_path_until_ms.store(until_ms, Ordering::Relaxed);
        }
        self.fast_path_epoch.store(epoch, Ordering::Relaxed);
        if !std::ptr::eq(config, Arc::as_ptr(&self.config())) {
            // It changed meanwhile.
            self.fast_path_epoch.store(-1, Ordering::Relaxed);
        }
    }
}

/// Appends that are written in one go: batches are collected and written together, between rolls.
struct AppendGroup<'a> {
    log: &'a Log,
    tail: &'a mut Tail,
    config: &'a LogConfig,
    leader_epoch: i32,
    now_ms: i64,
    on_written: &'a mut dyn FnMut(WrittenBatch),
    next_offset: i64,
    pending: Vec<Pending>,
    pending_bytes: u64,
    failed: Option<io::Error>,
}

struct Pending {
    head: [u8; BATCH_HEADER_BYTES],
    body: Bytes,
    header: BatchHeader,
    /// The transaction that it aborts.
    aborted: Option<AbortedTransaction>,
}

impl<'a> AppendGroup<'a> {
    fn new(
        log: &'a Log,
        tail: &'a mut Tail,
        config: &'a LogConfig,
        leader_epoch: i32,
        now_ms: i64,
        on_written: &'a mut dyn FnMut(WrittenBatch),
    ) -> Self {
        let next_offset = log.ends().log_end.offset;
        Self {
            log,
            tail,
            config,
            leader_epoch,
            now_ms,
            on_written,
            next_offset,
            pending: Vec::new(),
            pending_bytes: 0,
            failed: None,
        }
    }

    /// Admits one request's batches; they are stored all or none.
    fn take(&mut self, request: &AppendRequest) -> Result<Appended, LogError> {
        if self.failed.is_some() {
            return Err(LogError::Offline("disk error".to_owned()));
        }
        let stored = match request.origin {
            Origin::Client(verification) => self.admit(&request.batches, verification)?,
            Origin::Coordinator(version) => self.admit_markers(&request.batches, version)?,
            Origin::Replication { .. } => self.admit_fetched(&request.batches)?,
        };
        if let Some(stored) = stored {
            return Ok(stored);
        }
        let first = match request.origin.is_leaders() {
            true => None,
            false => request.batches.first(),
        };
        let base_offset = first.map_or(self.next_offset, |batch| batch.header.base_offset);
        for produced in &request.batches {
            if let Err(error) = self.place(produced, request.origin) {
                self.failed = Some(error);
                return Err(LogError::Offline("disk error".to_owned()));
            }
        }
        Ok(Appended {
            base_offset,
            last_offset: self.next_offset - 1,
            log_append_time_ms: self.append_time_of(self.now_ms),
            log_start: self.log.ends().log_start,
            needs_sync: self.next_offset - self.log.ends().synced_end >= self.config.flush_messages,
        })
    }

    /// Checks every batch before any is stored; a duplicate's place when the request was stored before.
    fn admit(
        &self,
        batches: &[ProducedBatch],
        verification: Verification,
    ) -> Result<Option<Appended>, LogError> {
        for produced in batches {
            self.check_size(produced)?;
            let producers = self.log.producers.lock();
            match producers.admit(&produced.header, verification) {
                Ok(Admission::Append) => {}
                Ok(Admission::Duplicate(stored)) => {
                    return Ok(Some(Appended {
                        base_offset: stored.first_offset(),
                        last_offset: stored.last_offset,
                        log_append_time_ms: self.append_time_of(stored.timestamp),
                        log_start: self.log.ends().log_start,
                        // The first try may still be waiting for its sync.
                        needs_sync: self.config.syncs_every_append(),
                    }));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn check_size(&self, batch: &ProducedBatch) -> Result<(), LogError> {
        let bytes = batch.bytes.len();
        match bytes as u64 > self.config.segment_bytes {
            true => Err(LogError::BatchLargerThanSegment(bytes)),
            false => Ok(()),
        }
    }

    /// Checks that markers may end what they are to end.
    fn admit_markers(
        &self,
        batches: &[ProducedBatch],
        version: TransactionVersion,
    ) -> Result<Option<Appended>, LogError> {
        for produced in batches {
            self.check_size(produced)?;
            let marker = EndMarker::of_batch(&produced.bytes);
            let marker = marker.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            let producers = self.log.producers.lock();
            producers.admit_marker(&produced.header, &marker, version)?;
        }
        Ok(None)
    }

    /// Checks that what a follower fetched goes on where the log ends, in order and within its leader's epoch.
    fn admit_fetched(&self, batches: &[ProducedBatch]) -> Result<Option<Appended>, LogError> {
        let mut expected = self.next_offset;
        for produced in batches {
            // Of any size: the leader took it, perhaps when segments were larger.
            let header = &produced.header;
            let offset = header.base_offset;
            let gap = offset.saturating_sub(expected);
            if !(0..=i64::from(i32::MAX)).contains(&gap) || header.last_offset_delta < 0 {
                return Err(LogError::UnexpectedOffset { offset, expected });
            }
            if header.leader_epoch > self.leader_epoch {
                let (got, current) = (header.leader_epoch, self.leader_epoch);
                return Err(LogError::LaterEpoch { got, current });
            }
            expected = header.last_offset() + 1;
        }
        Ok(None)
    }

    /// What is reported of the time at which something was appended.
    fn append_time_of(&self, time_ms: i64) -> i64 {
        match self.config.log_append_time {
            true => time_ms,
            false => -1,
        }
    }

    fn place(&mut self, produced: &ProducedBatch, origin: Origin) -> io::Result<()> {
        let bytes = produced.bytes.len() as u64;
        let (time, first_offset) = match origin.is_leaders() {
            true => {
                let time = self.config.log_append_time.then_some(self.now_ms);
                (time, self.next_offset)
            }
            false => (None, produced.header.base_offset),
        };
        if self.must_roll(bytes, &produced.header, first_offset, time) {
            self.write_out()?;
            self.log.roll(self.tail, self.now_ms)?;
        }
        let (head, header) = match origin.is_leaders() {
            true => {
                let epoch = self.leader_epoch;
                let head = batch::header_for_append(&produced.bytes, first_offset, epoch, time);
                (head, BatchHeader::parse(&head).map_err(io::Error::other)?)
            }
            false => {
                let head = produced
                    .bytes
                    .first_chunk()
                    .ok_or(io::ErrorKind::InvalidData)?;
                (*head, produced.header)
            }
        };
        let (epoch, at) = (header.leader_epoch, first_offset);
        let begins = |latest: i32| latest < epoch;
        if self.log.epochs.load().latest().is_none_or(begins) {
            self.log.change_epochs(|epochs| epochs.assign(epoch, at));
            self.log.store_epochs()?;
        }
        let aborted = self.note_stored(&header, &produced.bytes);
        self.next_offset = header.last_offset() + 1;
        self.pending.push(Pending {
            head,
            body: produced.bytes.slice(BATCH_HEADER_BYTES..),
            header,
            aborted,
        });
        self.pending_bytes += bytes;
        Ok(())
    }

    fn note_stored(&self, header: &BatchHeader, bytes: &[u8]) -> Option<AbortedTransaction> {
        let marker = match header.is_control() {
            true => EndMarker::of_batch(bytes),
            false => None,
        };
        let at = || self.next_position(header.base_offset);
        self.log.note_stored(header, marker, at)
    }

    /// Where the next batch comes to be.
    fn next_position(&self, offset: i64) -> OffsetPosition {
        let segments = self.log.segments.load();
        let active = segments.last();
        OffsetPosition {
            offset,
            segment_base: active.map_or(offset, |active| active.base_offset),
            position: active.map_or(0, |active| active.bytes()) + self.pending_bytes,
        }
    }

    fn must_roll(
        &self,
        bytes: u64,
        header: &BatchHeader,
        first_offset: i64,
        append_time_ms: Option<i64>,
    ) -> bool {
        let segments = self.log.segments.load();
        let Some(active) = segments.last() else {
            return true;
        };
        let size = active.bytes() + self.pending_bytes;
        if size == 0 {
            return false;
        }
        let last_offset = first_offset + i64::from(header.last_offset_delta);
        let time = append_time_ms.unwrap_or(header.max_timestamp);
        let age = active.waited_for_roll_ms(self.now_ms, time);
        size + bytes > self.config.segment_bytes
            || age > self.config.segment_ms.saturating_sub(self.tail.jitter_ms)
            || last_offset - active.base_offset > i64::from(i32::MAX)
            || active.offsets.file.is_full()
            || active.times.file.is_full()
    }

    /// How many index entries what is pending brings.
    fn entries_due(&self) -> usize {
        let mut since = self.tail.bytes_since_index_entry;
        let is_due = move |pending: &&Pending| {
            let due = since > self.config.index_interval_bytes;
            since = pending.header.total_bytes() as u64 + if due { 0 } else { since };
            due
        };
        self.pending.iter().filter(is_due).count()
    }

    /// Writes what is pending to the active segment, indexes it and publishes the new end.
    fn write_out(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let segments = self.log.segments.load();
        let Some(active) = segments.last() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // Room for the entries first: once the records are in the file, nothing must fail for want of space.
        let entries = self.entries_due();
        if entries > 0 {
            active.offsets.file.reserve(entries)?;
            active.times.file.reserve(entries)?;
        }
        let mut position = active.bytes();
        let mut buffers = Vec::with_capacity(self.pending.len() * 2);
        for pending in &self.pending {
            buffers.push(IoSlice::new(&pending.head));
            buffers.push(IoSlice::new(&pending.body));
        }
        active.append(&mut buffers, self.pending_bytes)?;
        drop(buffers);
        active.touch(self.now_ms);
        for pending in self.pending.drain(..) {
            let bytes = pending.header.total_bytes() as u64;
            if self.tail.bytes_since_index_entry > self.config.index_interval_bytes {
                active
                    .offsets
                    .append(pending.header.last_offset(), position as u32)?;
                active.times.append_if_later(active.largest_timestamp()?)?;
                self.tail.bytes_since_index_entry = 0;
            }
            active.note_timestamp(&pending.header);
            if let Some(aborted) = &pending.aborted {
                // Before anybody may see that the transaction is decided.
                active.aborted.append(aborted)?;
                self.log.has_aborted.store(true, Ordering::Release);
            }
            self.tail.bytes_since_index_entry += bytes;
            position += bytes;
            (self.on_written)(WrittenBatch {
                head: pending.head,
                body: pending.body,
            });
        }
        self.pending_bytes = 0;
        if self.log.unsynced_since_ms.load(Ordering::Relaxed) == 0 {
            let since_ms = &self.log.unsynced_since_ms;
            since_ms.store(self.now_ms, Ordering::Relaxed);
        }
        let mut ends = self.log.ends.write();
        ends.log_end = OffsetPosition {
            offset: self.next_offset,
            segment_base: active.base_offset,
            position: active.bytes(),
        };
        Ok(())
    }
}
