//! One pass over a log: keys into the map, groups of segments, what is written anew.
//!
//! Tests: log/compaction/tests.rs.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use metaq_protocol::batch::BATCH_HEADER_BYTES;

use super::super::LogError;
use super::super::aborted_batches::Aborted;
use super::super::partition_log::Log;
use super::super::reach::Reach;
use super::super::rewrite_lock::Rewriting;
use super::super::segment::{BatchAt, Segment, segment_of};
use super::cleaned_segment::CleanedSegment;
use super::groups::groups;
use super::key_index::{
    CHUNK_BYTES, CHUNK_ENTRIES, Facts, KeyIndex, KeyIndexWriter, NO_HORIZON, is_damaged,
};
use super::key_map::{KeyHasher, KeyMap, KeySeed, KeyedOffset};
use super::retention::Retention;
use super::rewriter::{
    BATCHES_BETWEEN, Source, Survivors, Times, changes_by_batch, is_newest, rewrite,
};
use super::scan::{ScanTarget, Scanned, scan};
use super::swap::{remove_unfinished, swap};
use super::{Compacted, CompactionPass};

/// So many keys are put into the map at a time.
const KEYS_AT_A_TIME: usize = 64;

/// Runs a pass; the caller forgets the keys.
pub(super) fn run(
    log: &Log,
    rewriting: &Rewriting<'_>,
    given: &mut CompactionPass<'_>,
) -> Result<Compacted, LogError> {
    let seed = seed_of(log)?;
    let mut pass = Pass {
        log,
        rewriting,
        segments: log.segments(),
        seed,
        hasher: KeyHasher::new(&seed),
        times: Times {
            now_ms: given.now_ms,
            delete_retention_ms: log.config().delete_retention_ms,
            not_compared: (0, 0),
        },
        throttle: given.throttle,
        facts: HashMap::new(),
        delete_horizon: NO_HORIZON,
        stale_indexes: 0,
        done: Compacted::default(),
    };
    let first_dirty = log.cleaned_until().max(log.ends().log_start);
    let (until, end) = match *log.compacting.lock() {
        Some((until, below, horizon)) if until <= given.until => {
            pass.delete_horizon = horizon;
            (until, below)
        }
        _ => (given.until, given.until),
    };
    given.keys.clear();
    let from = pass.map(first_dirty, end, given.keys)?;
    pass.done.keys = given.keys.len();
    pass.times.not_compared = (first_dirty, from);
    pass.apply(from, end, given.keys)?;
    let is_done = from <= first_dirty || from >= end;
    let left = (until, from, pass.delete_horizon);
    *log.compacting.lock() = (!is_done).then_some(left);
    if is_done {
        log.cleaned_until.fetch_max(until, Ordering::AcqRel);
        let horizon = pass.delete_horizon;
        log.delete_horizon.store(horizon, Ordering::Release);
    }
    pass.done.cleaned_until = log.cleaned_until();
    Ok(pass.done)
}

struct Pass<'a> {
    log: &'a Log,
    rewriting: &'a Rewriting<'a>,
    /// As they were when the pass began.
    segments: Arc<Vec<Arc<Segment>>>,
    seed: KeySeed,
    hasher: KeyHasher,
    times: Times,
    throttle: &'a mut dyn FnMut(u64) -> bool,
    /// Of segments of which every key is in the map, by base offset.
    facts: HashMap<i64, Facts>,
    /// When the first tombstone that is left may go, ms.
    delete_horizon: i64,
    /// Key indexes that were removed because they do not fit their segments.
    stale_indexes: usize,
    done: Compacted,
}

/// What is known of a segment whose keys are to be compared.
enum Known {
    /// All its keys are in the map.
    Mapped(Facts),
    /// They are in an index.
    Indexed(KeyIndex),
}

impl Known {
    fn facts(&self) -> Facts {
        match self {
            Self::Mapped(facts) => *facts,
            Self::Indexed(index) => index.facts,
        }
    }
}

impl Pass<'_> {
    fn throttled(&mut self, bytes: u64) -> Result<(), LogError> {
        throttle(self.throttle, self.rewriting, bytes)
    }

    /// How many segments begin before an offset.
    fn before(&self, offset: i64) -> usize {
        self.segments
            .partition_point(|segment| segment.base_offset < offset)
    }

    fn aborted_in(&self, at: usize) -> Result<Aborted, LogError> {
        let from = self.segments[at].base_offset;
        let next = self.segments.get(at + 1);
        let to = next.map_or(i64::MAX, |next| next.base_offset);
        let all = self.log.aborted_between(from, to, Reach::Disk)?;
        Ok(Aborted::new(all))
    }

    /// Puts the keys of records from `first_dirty` on and before `end` into the map, the newest segment first, as far as there
    /// is room; returns the offset from which on all of them are in it.
    fn map(&mut self, first_dirty: i64, end: i64, keys: &mut KeyMap) -> Result<i64, LogError> {
        let mut from = end;
        let dirty = segment_of(&self.segments, first_dirty)..self.before(end);
        if first_dirty >= end {
            return Ok(end);
        }
        let newest = dirty.end - 1;
        for at in dirty.rev() {
            if let Some(facts) = self.map_segment(at, 0, end, keys)? {
                from = self.segments[at].base_offset;
                // Of one that holds the end, later records are not in the map.
                let next = self.segments.get(at + 1);
                if next.is_some_and(|next| next.base_offset <= end) {
                    self.facts.insert(from, facts);
                }
            } else if at == newest {
                return self.map_end_of(at, end, keys);
            } else {
                break;
            }
        }
        Ok(from)
    }

    /// Puts a segment's keys into the map; `None` where it is full. What is in it then is true all the same: a record that is
    /// older than one of these goes.
    fn map_segment(
        &mut self,
        at: usize,
        position: u64,
        end: i64,
        keys: &mut KeyMap,
    ) -> Result<Option<Facts>, LogError> {
        let mut target = Mapping {
            keys,
            end,
            waiting: Vec::with_capacity(KEYS_AT_A_TIME),
        };
        Ok(match self.scan(at, position, &mut target)? {
            Scanned::Whole(facts) => Some(facts),
            Scanned::Stopped => None,
        })
    }

    /// Goes through the records of a segment from a batch's position on.
    fn scan(
        &mut self,
        at: usize,
        position: u64,
        target: &mut dyn ScanTarget,
    ) -> Result<Scanned, LogError> {
        let aborted = self.aborted_in(at)?;
        let read_bytes = &mut self.done.read_bytes;
        let mut hear = |bytes| {
            *read_bytes += bytes;
            throttle(self.throttle, self.rewriting, bytes)
        };
        let segment = &self.segments[at];
        scan(segment, position, &self.hasher, &aborted, target, &mut hear)
    }

    /// Goes through the headers of a segment's batches before `end`, with how many records they have, until it is to stop.
    fn walk(
        &mut self,
        at: usize,
        end: i64,
        hear: &mut dyn FnMut(&BatchAt, u64) -> bool,
    ) -> Result<(), LogError> {
        let segment = self.segments[at].clone();
        let (mut walk, mut walked) = (segment.batches(0, segment.bytes())?, 0);
        while let Some(batch) = walk.next()? {
            let records = u64::try_from(batch.header.record_count).unwrap_or(0);
            if batch.header.base_offset >= end || !hear(&batch, records) {
                break;
            }
            walked += 1;
            if walked % BATCHES_BETWEEN == 0 {
                self.throttled(BATCHES_BETWEEN * BATCH_HEADER_BYTES as u64)?;
            }
        }
        Ok(())
    }

    /// As many of the last batches of a segment before `end` as have room in the map.
    fn map_end_of(&mut self, at: usize, end: i64, keys: &mut KeyMap) -> Result<i64, LogError> {
        let capacity = keys.capacity() as u64;
        let mut all = 0;
        self.walk(at, end, &mut |_, records| {
            all += records;
            true
        })?;
        // Those before it do not fit beside those after it.
        let (mut passed, mut first, mut last) = (0, None, 0);
        self.walk(at, end, &mut |batch, records| {
            if all - passed <= capacity {
                first = Some((batch.header.base_offset, batch.position));
            }
            (passed, last) = (passed + records, records);
            first.is_none()
        })?;
        let Some((from, position)) = first else {
            return Err(LogError::TooManyKeys {
                records: last as usize,
                capacity: keys.capacity(),
            });
        };
        keys.clear();
        match self.map_segment(at, position, end, keys)? {
            Some(_) => Ok(from),
            None => Err(LogError::TooManyKeys {
                records: keys.len(),
                capacity: keys.capacity(),
            }),
        }
    }

    /// Drops what the map supersedes, of all segments before `end`. All keys from `from` on are in the map.
    fn apply(&mut self, from: i64, end: i64, keys: &mut KeyMap) -> Result<(), LogError> {
        let mut retention = self
            .log
            .with_producers(|producers| Retention::new(producers, self.times.now_ms));
        let (first_mapped, after) = (self.before(from), self.before(end));
        // Where the range begins or ends within a segment, that one's keys are looked up like those of older ones.
        let is_whole =
            (first_mapped..after).all(|at| self.facts.contains_key(&self.segments[at].base_offset));
        let mapped_from = if is_whole { first_mapped } else { after };
        if !is_whole {
            self.facts.clear();
        }
        for group in groups(&self.segments, &self.log.config(), 0..mapped_from, end) {
            self.apply_to(group, &mut retention, keys)?;
        }
        if mapped_from < after {
            keys.sort();
            for group in groups(&self.segments, &self.log.config(), mapped_from..after, end) {
                self.apply_to(group, &mut retention, keys)?;
            }
        }
        Ok(())
    }

    /// Applies the keys to a group. A key index that does not fit its segment is made again.
    fn apply_to(
        &mut self,
        group: Range<usize>,
        retention: &mut Retention,
        keys: &KeyMap,
    ) -> Result<(), LogError> {
        for _ in group.clone() {
            let (before, stale) = (retention.clone(), self.stale_indexes);
            match self.apply_once(group.clone(), retention, keys) {
                Err(_) if self.stale_indexes > stale => *retention = before,
                applied => return applied,
            }
        }
        self.apply_once(group, retention, keys)
    }

    /// Writes a group anew where something of it goes, or where it is more than one segment.
    fn apply_once(
        &mut self,
        group: Range<usize>,
        retention: &mut Retention,
        keys: &KeyMap,
    ) -> Result<(), LogError> {
        let mut known = Vec::new();
        let mut changes = group.len() > 1;
        let mut walked = retention.clone();
        for at in group.clone() {
            let segment = self.segments[at].clone();
            let of_segment = match self.facts.get(&segment.base_offset) {
                Some(facts) => Known::Mapped(*facts),
                None => Known::Indexed(self.index_of(at)?),
            };
            let facts = of_segment.facts();
            if facts.needs_walk {
                let aborted = self.aborted_in(at)?;
                let ends_file = at + 1 == group.end;
                let read_bytes = &mut self.done.read_bytes;
                let mut hear = |bytes| {
                    *read_bytes += bytes;
                    throttle(self.throttle, self.rewriting, bytes)
                };
                changes |= changes_by_batch(&segment, &mut walked, &aborted, ends_file, &mut hear)?;
            }
            changes |= self.supersedes(&segment, &of_segment, keys)?;
            known.push(of_segment);
            self.throttled(0)?;
        }
        if changes {
            return self.rewrite_group(group, known, retention, keys);
        }
        *retention = walked;
        for (at, known) in group.zip(known) {
            let segment = self.segments[at].clone();
            self.keep(&segment, &known, keys)?;
        }
        Ok(())
    }

    /// The index of a segment's keys; made where there is none that fits.
    fn index_of(&mut self, at: usize) -> Result<KeyIndex, LogError> {
        let segment = self.segments[at].clone();
        let disk = &*self.log.disk;
        if let Some(index) = KeyIndex::open(disk, &segment)?
            && index.seed == self.seed
        {
            return Ok(index);
        }
        let path = segment.keys_path();
        let mut writer = KeyIndexWriter::create(disk, &path, segment.base_offset, &self.seed)?;
        let scanned = self.scan(at, 0, &mut Indexing(&mut writer))?;
        if let Scanned::Whole(facts) = scanned {
            writer.finish(segment.bytes(), &facts)?;
        }
        let index = KeyIndex::open(disk, &segment)?;
        index.ok_or_else(|| {
            io::Error::other(format!("{} is not what was written", path.display())).into()
        })
    }

    /// Whether a record of a segment goes.
    fn supersedes(
        &mut self,
        segment: &Segment,
        known: &Known,
        keys: &KeyMap,
    ) -> Result<bool, LogError> {
        let facts = known.facts();
        let (first_dirty, from) = self.times.not_compared;
        let is_compared = segment.base_offset < first_dirty || self.end_of(segment) > from;
        let is_due = facts.delete_horizon <= self.times.now_ms && is_compared;
        if facts.has_unkeyed || facts.has_unstamped_tombstones || is_due {
            return Ok(true);
        }
        match known {
            Known::Mapped(facts) => {
                let staying = self.mapped(segment, keys).count();
                Ok((staying as u64) < facts.records)
            }
            Known::Indexed(index) => {
                let mut entries = index.entries();
                let mut supersedes = false;
                for read in 1.. {
                    if read % CHUNK_ENTRIES == 0 {
                        self.throttled(CHUNK_BYTES)?;
                    }
                    match entries.next() {
                        Ok(Some(key)) => supersedes |= !is_newest(keys, &key),
                        Ok(None) => return Ok(supersedes),
                        Err(error) => return Err(self.note_stale(segment, error.into())),
                    }
                }
                Ok(supersedes)
            }
        }
    }

    /// Where an error may come from a segment's key index, that is removed; with what is wrong with the segment itself the next
    /// one cannot be made.
    fn note_stale(&mut self, segment: &Segment, error: LogError) -> LogError {
        let is_stale = match &error {
            LogError::Damaged { .. } => true,
            LogError::Io(error) => is_damaged(error),
            _ => false,
        };
        if is_stale {
            tracing::warn!(file = %segment.keys_path().display(), %error, "a key index is made again");
            match segment.remove_keys() {
                Ok(()) => self.stale_indexes += 1,
                Err(error) => return error.into(),
            }
        }
        error
    }

    /// The records of a segment that are in the sorted map.
    fn mapped<'k>(
        &self,
        segment: &Segment,
        keys: &'k KeyMap,
    ) -> impl Iterator<Item = KeyedOffset> + use<'k> {
        let end = self.end_of(segment);
        let from = keys.sorted(segment.base_offset);
        from.take_while(move |key| key.offset < end)
    }

    /// The offset at which the segment after one begins.
    fn end_of(&self, segment: &Segment) -> i64 {
        let next = self.segments.get(self.before(segment.base_offset + 1));
        next.map_or(i64::MAX, |next| next.base_offset)
    }

    /// A segment stays as it is: its keys are noted beside it, so that it need not be read again.
    fn keep(&mut self, segment: &Segment, known: &Known, keys: &KeyMap) -> Result<(), LogError> {
        let facts = known.facts();
        self.delete_horizon = self.delete_horizon.min(facts.delete_horizon);
        if let Known::Mapped(facts) = known {
            let (path, base) = (segment.keys_path(), segment.base_offset);
            let mut writer = KeyIndexWriter::create(&*self.log.disk, &path, base, &self.seed)?;
            for (at, key) in self.mapped(segment, keys).enumerate() {
                writer.add(&key)?;
                if at % CHUNK_ENTRIES == CHUNK_ENTRIES - 1 {
                    self.throttled(CHUNK_BYTES)?;
                }
            }
            writer.finish(segment.bytes(), facts)?;
        }
        Ok(())
    }

    fn rewrite_group(
        &mut self,
        group: Range<usize>,
        known: Vec<Known>,
        retention: &mut Retention,
        keys: &KeyMap,
    ) -> Result<(), LogError> {
        let replaced = self.segments[group.clone()].to_vec();
        let base = replaced[0].base_offset;
        // A pass that failed may have left them.
        remove_unfinished(self.log, base);
        let written = self.write_group(&group, &known, retention, keys);
        let swapped = written.and_then(|cleaned| {
            self.rewriting.begin();
            cleaned.note_compacted();
            let swapped = swap(self.log, &cleaned, &replaced);
            // Again for who began to copy in the middle of it.
            self.rewriting.begin();
            swapped.map(|()| cleaned)
        });
        let cleaned = match swapped {
            Ok(cleaned) => cleaned,
            Err(error) => {
                if !self.log.is_offline() {
                    remove_unfinished(self.log, base);
                }
                return Err(error);
            }
        };
        let before: u64 = replaced.iter().map(|segment| segment.bytes()).sum();
        self.done.before_bytes += before;
        self.done.after_bytes += cleaned.bytes();
        self.log.replaced.lock().extend(replaced);
        Ok(())
    }

    fn write_group(
        &mut self,
        group: &Range<usize>,
        known: &[Known],
        retention: &mut Retention,
        keys: &KeyMap,
    ) -> Result<Arc<Segment>, LogError> {
        let first = self.segments[group.start].clone();
        let mut to = CleanedSegment::create(self.log, &first, &self.seed)?;
        for (at, known) in group.clone().zip(known) {
            let segment = self.segments[at].clone();
            let aborted = self.aborted_in(at)?;
            let survivors = match known {
                Known::Mapped(_) => Survivors::sorted(keys, segment.base_offset),
                Known::Indexed(index) => Survivors::indexed(index.entries(), keys),
            };
            let source = Source {
                segment: &segment,
                facts: known.facts(),
                aborted: &aborted,
                survivors,
                is_last: at + 1 == group.end,
            };
            let rewriting = self.rewriting;
            let mut hear = |bytes| throttle(self.throttle, rewriting, bytes);
            let read = rewrite(source, retention, self.times, &mut to, &mut hear);
            self.done.read_bytes += read.map_err(|error| match known {
                Known::Indexed(_) => self.note_stale(&segment, error),
                Known::Mapped(_) => error,
            })?;
        }
        self.delete_horizon = self.delete_horizon.min(to.facts.delete_horizon);
        let cleaned = to.finish()?;
        self.done.written_bytes += cleaned.bytes();
        Ok(cleaned)
    }
}

/// Puts keys into a map.
struct Mapping<'a> {
    keys: &'a mut KeyMap,
    /// Records from here on are older than nothing in it.
    end: i64,
    waiting: Vec<KeyedOffset>,
}

impl ScanTarget for Mapping<'_> {
    fn keyed(&mut self, key: &KeyedOffset) -> Result<bool, LogError> {
        if key.offset < self.end {
            self.waiting.push(*key);
        }
        match self.waiting.len() < KEYS_AT_A_TIME {
            true => Ok(true),
            false => self.batch_ended(),
        }
    }

    fn batch_ended(&mut self) -> Result<bool, LogError> {
        let fit = self.keys.insert_all(&self.waiting);
        self.waiting.clear();
        Ok(fit)
    }
}

/// Writes keys to an index.
struct Indexing<'a>(&'a mut KeyIndexWriter);

impl ScanTarget for Indexing<'_> {
    fn keyed(&mut self, key: &KeyedOffset) -> Result<bool, LogError> {
        self.0.add(key)?;
        Ok(true)
    }
}

fn throttle(
    given: &mut dyn FnMut(u64) -> bool,
    rewriting: &Rewriting<'_>,
    bytes: u64,
) -> Result<(), LogError> {
    match !rewriting.is_wanted() && given(bytes) {
        true => Ok(()),
        false => Err(LogError::Stopped),
    }
}

/// The secret that a log's keys are hashed with: that of an index that is there, or a new one.
fn seed_of(log: &Log) -> Result<KeySeed, LogError> {
    let mut known = log.key_seed.lock();
    if let Some(seed) = *known {
        return Ok(seed);
    }
    let mut seed = *uuid::Uuid::new_v4().as_bytes();
    for segment in log.segments().iter() {
        if let Some(index) = KeyIndex::open(&*log.disk, segment)? {
            seed = index.seed;
            break;
        }
    }
    *known = Some(seed);
    Ok(seed)
}
