//! One partition's log over a disk that forgets: appends, syncs, rolls, deletions, crashes, lost power, failing calls.
//! After each of them what can be read is held against what was appended and what was acknowledged: all of it, and what
//! readers of committed records make of it (`transactions.rs`).

use std::path::Path;
use std::sync::Arc;

use metaq::log::{
    AppendRequest, Appended, LeftAs, Log, LogConfig, LogError, OffsetPosition, OpenMode,
    ProducedBatch, unlink_all,
};
use metaq_protocol::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, header_for_append, next_sequence,
};
use metaq_protocol::records::Records;
use parking_lot::Mutex;

use super::disk::{Disk, damage_indexes, directory};
use super::random::Random;
use super::transactions::{self, Part, Sender};

pub const NOW: i64 = 1_700_000_000_000;
const PRODUCERS: usize = 3;

/// Besides, so many send in transactions.
const SENDERS: usize = 2;

/// A batch that the log answered for.
#[derive(Clone)]
pub struct Kept {
    pub base: i64,
    pub count: i64,
    /// What its records say.
    pub number: u64,
    pub producer: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub part: Part,
}

/// What producers send at once.
struct Sent {
    batches: Vec<Kept>,
    asked: Vec<AppendRequest>,
    /// Theirs, after it.
    sequences: [i32; PRODUCERS],
    senders: [Sender; SENDERS],
}

/// What was written down outside the log, as the data directory's checkpoints are.
#[derive(Clone, Copy, Default)]
struct Checkpoint {
    recovery_point: i64,
    log_start: i64,
}

struct World<'a> {
    dir: &'a Path,
    disk: Disk,
    random: Random,
    faults: Faults,
    config: LogConfig,
    log: Option<Arc<Log>>,
    kept: Vec<Kept>,
    /// Something was appended while the disk failed: perhaps it is there.
    uncertain: bool,
    /// The same after a restart that did not find it: the power may still bring it back, until it is written over.
    ghosts: Vec<Kept>,
    /// Everything before it was acknowledged under a policy that syncs, or synced.
    synced_end: i64,
    /// Ids of the producers there are now.
    producers: [i64; PRODUCERS],
    sequences: [i32; PRODUCERS],
    /// Producers of transactions.
    senders: [Sender; SENDERS],
    number: u64,
    checkpoint: Checkpoint,
    /// The leader's.
    epoch: i32,
    /// Where the log was to be cut off when the disk failed: less than that may not be found.
    failed_cut: Option<i64>,
    now: i64,
    trace: Vec<String>,
}

/// What a disk does to a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// It forgets, tears, and lets calls fail.
    Calls,
    /// Besides, syncs take time, in which producers append, and writebacks fail.
    Syncs,
    /// As [`Self::Calls`], of a log that follows a leader now and then, and is cut off where that says so.
    Rewrites,
}

/// Runs one seed: what is wrong, and the trace that led there, when something is.
pub fn run(seed: u64, steps: usize, faults: Faults) -> Result<(), String> {
    let dir = directory().map_err(|error| error.to_string())?;
    let partition = dir.path().join("t-0");
    let mut random = Random::new(seed);
    let config = LogConfig {
        segment_bytes: random.between(1500, 6000) as u64,
        index_interval_bytes: random.between(50, 1000) as u64,
        flush_messages: [1, 1, 7, i64::MAX][random.below(4) as usize],
        retention_bytes: if random.one_in(3) { 3000 } else { -1 },
        ..LogConfig::default()
    };
    let mut world = World {
        dir: &partition,
        disk: Disk::default(),
        random,
        faults,
        config,
        log: None,
        kept: Vec::new(),
        uncertain: false,
        ghosts: Vec::new(),
        synced_end: 0,
        producers: [1000, 1001, 1002],
        sequences: [0; PRODUCERS],
        senders: [Sender::new(2000), Sender::new(2001)],
        number: 0,
        checkpoint: Checkpoint::default(),
        epoch: 0,
        failed_cut: None,
        now: NOW,
        trace: Vec::new(),
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.open(OpenMode::Clean)?;
        for _ in 0..steps {
            world.step()?;
        }
        world.check()
    }));
    let failure = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(what)) => what,
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) => format!("panicked: {text}"),
            None => "panicked".to_owned(),
        },
    };
    let trace = world.trace.join("\n  ");
    Err(format!("seed {seed}: {failure}\n  {trace}"))
}

impl World<'_> {
    fn log(&self) -> &Arc<Log> {
        self.log.as_ref().expect("it is open")
    }

    fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += self.random.between(0, 50);
        if self.faults == Faults::Rewrites && self.random.one_in(6) {
            return match self.random.below(3) {
                0 => self.truncate(),
                _ => self.follow(),
            };
        }
        match self.random.below(100) {
            0..55 => self.append(),
            55..67 => self.sync(),
            67..74 => self.read_somewhere(),
            74..78 => self.again(),
            78..82 => self.delete_records(),
            82..84 => self.retain(),
            84..88 => self.checkpoint(),
            88..90 => self.fail_soon(),
            90..92 => self.restart(),
            92..96 => self.kill(),
            _ => self.lose_power(),
        }
    }

    fn batch(&self, kept: &Kept) -> Vec<ProducedBatch> {
        if let Part::Marker(outcome) = kept.part {
            return transactions::marker(kept, outcome).batches;
        }
        let mut builder = BatchBuilder::new().producer(kept.producer, kept.epoch, kept.sequence);
        if kept.part == Part::Transaction {
            builder = builder.transactional();
        }
        for n in 0..kept.count {
            let value = format!(
                "{} {n} {}",
                kept.number,
                "x".repeat((kept.number % 90) as usize)
            );
            builder = builder.push(None, Some(value.as_bytes()), &[], NOW);
        }
        let bytes = builder.finish().expect("plain batches always encode");
        let header = BatchHeader::parse(&bytes).expect("it was just built");
        vec![ProducedBatch { header, bytes }]
    }

    /// What producers send next.
    fn next_batches(&mut self) -> Sent {
        let requests = self.random.between(1, 3);
        let mut base = self.log().ends().log_end.offset;
        let (mut batches, mut sequences) = (Vec::new(), self.sequences);
        let (mut asked, mut senders) = (Vec::new(), self.senders);
        for _ in 0..requests {
            let at = self.random.below(2 * SENDERS as u64) as usize;
            // One request of each at a time: the next one is verified when it is through.
            if at < SENDERS && senders[at] == self.senders[at] {
                self.number += 1;
                let kept = senders[at].next(base, self.number, &mut self.random);
                asked.push(self.transactional(&kept));
                base += kept.count;
                batches.push(kept);
                continue;
            }
            let producer = self.random.below(PRODUCERS as u64) as usize;
            let count = self.random.between(1, 5);
            self.number += 1;
            let kept = Kept {
                base,
                count,
                number: self.number,
                producer: self.producers[producer],
                epoch: 0,
                sequence: sequences[producer],
                part: Part::Plain,
            };
            asked.push(AppendRequest::of_client(self.batch(&kept)));
            batches.push(kept);
            sequences[producer] = next_sequence(sequences[producer], count as i32);
            base += count;
        }
        Sent {
            batches,
            asked,
            sequences,
            senders,
        }
    }

    /// What a producer of transactions sends, verified where it needs to be.
    fn transactional(&self, kept: &Kept) -> AppendRequest {
        match kept.part {
            Part::Marker(outcome) => transactions::marker(kept, outcome),
            _ => {
                let verification = transactions::verification(self.log(), kept, self.now);
                AppendRequest::verified(self.batch(kept), verification)
            }
        }
    }

    fn append(&mut self) -> Result<(), String> {
        let sent = self.next_batches();
        let answers = self
            .log()
            .append_with(&sent.asked, self.epoch, self.now, |_| {});
        if !self.appended(sent, answers)? {
            return self.died();
        }
        if self.config.syncs_every_append() {
            self.sync()
        } else {
            Ok(())
        }
    }

    /// Holds the answers against what was expected; `false` when the disk failed.
    fn appended(
        &mut self,
        sent: Sent,
        answers: Vec<Result<Appended, LogError>>,
    ) -> Result<bool, String> {
        let end = self.log().ends().log_end.offset;
        let transactional = transactions::noted(&sent.batches);
        self.note(format!(
            "append {}: {end}{transactional}",
            sent.batches.len()
        ));
        for (kept, answer) in sent.batches.iter().zip(answers) {
            match answer {
                Ok(appended) if appended.base_offset == kept.base => {}
                Ok(appended) => {
                    let (found, expected) = (appended.base_offset, kept.base);
                    return Err(format!("appended at {found}, expected {expected}"));
                }
                Err(LogError::Offline(_)) => {
                    // Nobody was told, but it may be there.
                    self.kept.extend(sent.batches);
                    return Ok(false);
                }
                Err(error) => return Err(format!("append: {error}")),
            }
        }
        self.kept.extend(sent.batches);
        (self.sequences, self.senders) = (sent.sequences, sent.senders);
        Ok(true)
    }

    /// Syncs; sometimes producers append in the middle of it.
    fn sync(&mut self) -> Result<(), String> {
        if self.faults != Faults::Syncs || !self.random.one_in(3) {
            let synced = self.log().sync(self.now);
            return self.synced(synced);
        }
        let (log, sent, now) = (self.log().clone(), self.next_batches(), self.now);
        let epoch = self.epoch;
        let (asked, answers) = (sent.asked.clone(), Arc::new(Mutex::new(None)));
        let answered = answers.clone();
        self.disk.during_syncs(Some(Arc::new(move |_| {
            let mut answered = answered.lock();
            if answered.is_none() {
                *answered = Some(log.append_with(&asked, epoch, now, |_| {}));
            }
        })));
        let synced = self.log().sync(now);
        self.disk.during_syncs(None);
        let answers = answers.lock().take();
        let goes_on = match answers {
            Some(answers) => self.appended(sent, answers)?,
            None => true,
        };
        if !goes_on && synced.is_ok() {
            return Err("a sync is acknowledged of a log that went offline in it".to_owned());
        }
        self.synced(synced)
    }

    fn synced(&mut self, synced: Result<OffsetPosition, LogError>) -> Result<(), String> {
        match synced {
            Ok(end) => {
                self.synced_end = end.offset;
                self.ghosts.clear();
                self.note(format!("sync: {}", end.offset));
                Ok(())
            }
            Err(LogError::Offline(_)) => self.died(),
            Err(error) => Err(format!("sync: {error}")),
        }
    }

    /// The disk failed: the log takes nothing more, and the broker is started again.
    fn died(&mut self) -> Result<(), String> {
        self.note("the disk failed".to_owned());
        self.uncertain = true;
        self.disk.stop_failing();
        match self.random.one_in(2) {
            true => self.kill(),
            false => self.lose_power(),
        }
    }

    /// A client that heard nothing sends its last batch again.
    fn again(&mut self) -> Result<(), String> {
        let producer = self.producers[self.random.below(PRODUCERS as u64) as usize];
        let Some(last) = self
            .kept
            .iter()
            .rev()
            .find(|kept| kept.producer == producer)
            .cloned()
        else {
            return Ok(());
        };
        let ends = self.log().ends();
        let answer = self
            .log()
            .append(&[self.batch(&last)], self.epoch, self.now)
            .remove(0);
        match answer {
            Ok(appended) if appended.base_offset == last.base => {
                match self.log().ends().log_end.offset == ends.log_end.offset {
                    true => Ok(()),
                    false => Err(format!("a batch of {} was stored twice", last.base)),
                }
            }
            // Where its records are deleted the log may have forgotten it.
            Ok(appended) if last.base < ends.log_start => {
                self.kept.push(Kept {
                    base: appended.base_offset,
                    ..last
                });
                Ok(())
            }
            Err(LogError::Offline(_)) => self.died(),
            answer => Err(format!("a batch of {} sent again: {answer:?}", last.base)),
        }
    }

    fn delete_records(&mut self) -> Result<(), String> {
        let ends = self.log().ends();
        let to = self.random.between(ends.log_start, ends.log_end.offset);
        match self.log().advance_log_start(to, self.now) {
            Ok(dropped) => unlink_all(&dropped),
            Err(LogError::Offline(_)) => return self.died(),
            Err(LogError::Io(_)) => self.note("it failed".to_owned()),
            Err(error) => return Err(format!("deleting to {to}: {error}")),
        }
        self.note(format!("delete records before {to}"));
        // Answered when it is in the checkpoint.
        self.checkpoint.log_start = self.log().ends().log_start;
        Ok(())
    }

    fn retain(&mut self) -> Result<(), String> {
        let end = self.log().ends().log_end.offset;
        match self.log().retain(self.now, end) {
            Ok(dropped) => unlink_all(&dropped),
            Err(LogError::Offline(_)) => return self.died(),
            Err(LogError::Io(_)) => self.note("it failed".to_owned()),
            Err(error) => return Err(format!("retention: {error}")),
        }
        self.note(format!("retain from {}", self.log().ends().log_start));
        Ok(())
    }

    /// The leader says that the log went another way from an offset on: what lies there goes, and is never found again.
    fn truncate(&mut self) -> Result<(), String> {
        let ends = self.log().ends();
        let (start, end) = (ends.log_start, ends.log_end.offset);
        self.epoch += 1;
        if self.random.one_in(6) {
            return {
                let at = self.random.between(start, end + 10);
                self.start_anew(at)
            };
        }
        let wanted = self.random.between(start, end);
        // Where a batch begins, as the ends of epochs are.
        let inside = |kept: &&Kept| kept.base < wanted && wanted < kept.base + kept.count;
        let begin = |kept: &Kept| match kept.base >= start {
            true => kept.base,
            false => kept.base + kept.count,
        };
        let to = self.kept.iter().find(inside).map_or(wanted, begin);
        // As whoever truncates has to.
        self.checkpoint.recovery_point = self.checkpoint.recovery_point.min(to);
        self.ghosts.clear();
        match self.log().truncate_to(to, self.now) {
            Ok(cut) if cut == (to < end) => {}
            Ok(cut) => return Err(format!("truncated to {to} of {end}: {cut}")),
            Err(LogError::Offline(_)) => return self.died_truncating(to),
            Err(error) => return Err(format!("truncating to {to}: {error}")),
        }
        self.note(format!("truncate to {to}"));
        let found = self.log().ends().log_end.offset;
        match found == to {
            true => self.survive(found),
            false => Err(format!("truncated to {to}, and the end is {found}")),
        }
    }

    /// The leader begins elsewhere.
    fn start_anew(&mut self, at: i64) -> Result<(), String> {
        let start = self.log().ends().log_start;
        self.checkpoint = Checkpoint {
            recovery_point: self.checkpoint.recovery_point.min(at),
            log_start: at,
        };
        self.ghosts.clear();
        match self.log().start_anew_at(at, self.now) {
            Ok(()) => {}
            Err(LogError::Offline(_)) => return self.died_truncating(at.min(start)),
            Err(error) => return Err(format!("beginning anew at {at}: {error}")),
        }
        self.note(format!("begin anew at {at}"));
        self.kept.clear();
        self.synced_end = at;
        match (
            self.log().ends().log_start,
            self.log().ends().log_end.offset,
        ) {
            (start, end) if start == at && end == at => self.survive(at),
            ends => Err(format!("begun anew at {at}: {ends:?}")),
        }
    }

    /// Whatever of what was to be cut is still there may be found.
    fn died_truncating(&mut self, to: i64) -> Result<(), String> {
        self.synced_end = self.synced_end.min(to);
        self.failed_cut = Some(to);
        self.died()
    }

    /// What the leader has after the log's end is appended as it is.
    fn follow(&mut self) -> Result<(), String> {
        let sent = self.next_batches();
        let mut fetched = Vec::new();
        for (kept, request) in sent.batches.iter().zip(&sent.asked) {
            let bytes = &request.batches[0].bytes;
            let head = header_for_append(bytes, kept.base, self.epoch, None);
            fetched.extend_from_slice(&head);
            fetched.extend_from_slice(&bytes[BATCH_HEADER_BYTES..]);
        }
        let appended = self
            .log()
            .append_as_follower(&fetched.into(), self.epoch, self.now);
        let base = sent.batches[0].base;
        match appended {
            Ok(appended) if appended.base_offset == base => {}
            Ok(appended) => return Err(format!("followed at {appended:?}, expected {base}")),
            Err(LogError::Offline(_)) => {
                self.kept.extend(sent.batches);
                return self.died();
            }
            Err(error) => return Err(format!("following at {base}: {error}")),
        }
        self.note(format!(
            "follow {}: {}",
            sent.batches.len(),
            self.log().ends().log_end.offset
        ));
        self.kept.extend(sent.batches);
        (self.sequences, self.senders) = (sent.sequences, sent.senders);
        match self.log().epochs().latest() == Some(self.epoch) {
            true => Ok(()),
            false => Err(format!(
                "followed epoch {}, knows {:?}",
                self.epoch,
                self.log().epochs()
            )),
        }
    }

    fn checkpoint(&mut self) -> Result<(), String> {
        let ends = self.log().ends();
        self.checkpoint = Checkpoint {
            recovery_point: ends.synced_end,
            log_start: ends.log_start,
        };
        self.note(format!("checkpoint {} {}", ends.synced_end, ends.log_start));
        Ok(())
    }

    fn fail_soon(&mut self) -> Result<(), String> {
        let calls = self.random.below(6);
        match self.faults == Faults::Syncs && self.random.one_in(3) {
            true => {
                self.disk.fail_writeback_in(calls / 2);
                self.note(format!("fail a writeback in {} syncs", calls / 2));
            }
            false => {
                self.disk.fail_in(calls);
                self.note(format!("fail in {calls} calls"));
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
        match self.log().close(self.now) {
            Ok(_) => {}
            Err(LogError::Offline(_) | LogError::Io(_)) => return self.died(),
            Err(error) => return Err(format!("close: {error}")),
        }
        self.disk.stop_failing();
        self.checkpoint()?;
        let end = self.log().ends().log_end.offset;
        self.synced_end = end;
        self.note("restart".to_owned());
        self.log = None;
        self.open(OpenMode::Clean)?;
        match self.log().ends().log_end.offset == end {
            true => self.check(),
            false => Err(format!(
                "closed at {end}, opened at {}",
                self.log().ends().log_end.offset
            )),
        }
    }

    fn kill(&mut self) -> Result<(), String> {
        let end = self.log().ends().log_end.offset;
        self.disk.stop_failing();
        self.log = None;
        // The broker may know that the system has run on, or not.
        let recovery_point = self.checkpoint.recovery_point;
        let mode = match self.kept.len() % 2 {
            0 => OpenMode::AfterKill { recovery_point },
            _ => self.after_crash(),
        };
        self.note("kill".to_owned());
        self.open(mode)?;
        let found = self.log().ends().log_end.offset;
        if found < self.failed_cut.take().unwrap_or(end) {
            return Err(format!("killed at {end}, opened at {found}"));
        }
        if found > end && !self.uncertain {
            return Err(format!(
                "killed at {end}, opened at {found}, which nobody wrote"
            ));
        }
        if self.uncertain {
            let lost = self.kept.iter().filter(|kept| kept.base >= found);
            self.ghosts = lost.cloned().collect();
        }
        self.uncertain = false;
        self.survive(found)
    }

    fn lose_power(&mut self) -> Result<(), String> {
        self.note("power lost".to_owned());
        self.failed_cut = None;
        self.disk.stop_failing();
        let segments = self.log().segments();
        let trusted = segments
            .iter()
            .map(|segment| segment.base_offset())
            .filter(|base| *base <= self.checkpoint.recovery_point)
            .max();
        self.log = None;
        drop(segments);
        self.disk.lose_power(&mut self.random);
        damage_indexes(self.dir, trusted.unwrap_or(0), &mut self.random);
        self.open(self.after_crash())?;
        self.uncertain = false;
        for ghost in std::mem::take(&mut self.ghosts) {
            if self.holds(&ghost) {
                // Not written over on the device, whatever was appended in its place.
                let end = ghost.base + ghost.count;
                let apart = |kept: &Kept| kept.base + kept.count <= ghost.base || kept.base >= end;
                self.kept.retain(apart);
                self.kept.push(ghost);
                self.kept.sort_by_key(|kept| kept.base);
            }
        }
        let found = self.log().ends().log_end.offset;
        if found < self.synced_end {
            return Err(format!("synced to {}, opened at {found}", self.synced_end));
        }
        self.survive(found)
    }

    fn after_crash(&self) -> OpenMode {
        OpenMode::AfterCrash {
            recovery_point: self.checkpoint.recovery_point,
        }
    }

    /// What is beyond the end is gone; the producers go on behind what is left.
    fn survive(&mut self, end: i64) -> Result<(), String> {
        self.kept.retain(|kept| kept.base + kept.count <= end);
        self.synced_end = self.synced_end.min(end);
        let anew = self.log().ends().log_start == end;
        for n in 0..PRODUCERS {
            if anew {
                // All is deleted, and of what was lost behind the deletion the log knows nothing: clients begin anew.
                self.producers[n] += PRODUCERS as i64;
            }
            let id = self.producers[n];
            let last = self.kept.iter().rev().find(|kept| kept.producer == id);
            self.sequences[n] =
                last.map_or(0, |kept| next_sequence(kept.sequence, kept.count as i32));
        }
        for sender in &mut self.senders {
            sender.go_on(&self.kept, anew);
        }
        self.check()
    }

    fn open(&mut self, mode: OpenMode) -> Result<(), String> {
        let left = LeftAs {
            log_start: self.checkpoint.log_start,
            ..LeftAs::new(mode)
        };
        let opened = Log::open(
            Arc::new(self.disk.clone()),
            self.dir,
            self.config.clone(),
            left,
            self.now,
        );
        let opened = opened.map_err(|error| format!("opening: {error}"))?;
        let ends = opened.log.ends();
        self.note(format!(
            "opened {mode:?}: {}..{}",
            ends.log_start, ends.log_end.offset
        ));
        self.log = Some(Arc::new(opened.log));
        Ok(())
    }

    fn read_somewhere(&mut self) -> Result<(), String> {
        let ends = self.log().ends();
        if ends.log_start == ends.log_end.offset {
            return Ok(());
        }
        let offset = self.random.between(ends.log_start, ends.log_end.offset - 1);
        self.read(offset)?;
        let bytes_max = self.random.between(1, 4000) as usize;
        transactions::check(self.log(), &self.kept, offset, bytes_max)
    }

    /// Whether this very batch is in the log.
    fn holds(&self, kept: &Kept) -> bool {
        let log = self.log();
        let Ok(Some(slice)) = log.read(kept.base, 1, true, log.ends().log_end) else {
            return false;
        };
        let mut bytes = vec![0; slice.bytes];
        let read = slice.file.read_at(&mut bytes, slice.position);
        // Markers differ by their producers alone.
        let of =
            BatchHeader::parse(&bytes).map(|header| (header.producer_id, header.producer_epoch));
        read.is_ok()
            && of == Ok((kept.producer, kept.epoch))
            && bytes.get(BATCH_HEADER_BYTES..)
                == self.batch(kept)[0].bytes.get(BATCH_HEADER_BYTES..)
    }

    /// Reads the batch at an offset and holds it against what was kept; where the next one begins.
    fn read(&self, offset: i64) -> Result<i64, String> {
        let log = self.log();
        let slice = log
            .read(offset, 1, true, log.ends().log_end)
            .map_err(|error| format!("reading {offset}: {error}"))?
            .ok_or_else(|| format!("nothing at {offset}"))?;
        let mut bytes = vec![0; slice.bytes];
        slice
            .file
            .read_at(&mut bytes, slice.position)
            .map_err(|error| error.to_string())?;
        let header = BatchHeader::parse(&bytes).map_err(|error| format!("at {offset}: {error}"))?;
        let kept = self
            .kept
            .iter()
            .find(|kept| (kept.base..kept.base + kept.count).contains(&offset));
        let kept = kept.ok_or_else(|| format!("{offset} holds what nobody was told of"))?;
        if (header.base_offset, i64::from(header.record_count)) != (kept.base, kept.count) {
            return Err(format!(
                "at {offset}: batch {} of {}, expected {} of {}",
                header.base_offset, header.record_count, kept.base, kept.count
            ));
        }
        if matches!(kept.part, Part::Marker(_)) {
            return Ok(kept.base + kept.count);
        }
        for (n, record) in Records::new(&header, &bytes[BATCH_HEADER_BYTES..]).enumerate() {
            let record = record.map_err(|error| format!("at {offset}: {error}"))?;
            let expected = format!("{} {n} ", kept.number);
            if !record
                .value
                .is_some_and(|value| value.starts_with(expected.as_bytes()))
            {
                return Err(format!("at {offset}: another record than the one appended"));
            }
        }
        Ok(kept.base + kept.count)
    }

    /// Reads everything.
    fn check(&mut self) -> Result<(), String> {
        let ends = self.log().ends();
        let mut offset = ends.log_start;
        while offset < ends.log_end.offset {
            let next = self.read(offset)?;
            let bytes_max = self.random.between(1, 4000) as usize;
            transactions::check(self.log(), &self.kept, offset, bytes_max)?;
            offset = next;
        }
        transactions::check(self.log(), &self.kept, ends.log_end.offset, 1)
    }
}
