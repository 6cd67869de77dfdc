//! Members, leaders that come and go, and a store that may refuse, against a list of what was done with each record.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::share::limits::ShareLimits;
use crate::share::stored_batches::merge;

const LOG_END: i64 = 60;
const LIMITS: ShareLimits = ShareLimits {
    lock_ms: 100,
    delivery_count_max: 3,
    retry_backoff_ms: 0,
    locks_max: 25,
    has_dead_letters: false,
    may_renew: true,
};

#[derive(Debug, Clone)]
enum Step {
    Acquire {
        member: usize,
        records_max: i64,
        is_strict: bool,
    },
    /// Says something of some of what a member has, by position in it.
    Acknowledge {
        member: usize,
        skip: usize,
        count: usize,
        kind: i8,
    },
    Release(usize),
    Time(i64),
    Write,
    /// What is on its way is stored, and answered or not; or is not stored.
    Stored {
        reaches_store: bool,
        is_answered: bool,
    },
    LogBegins(i64),
    /// Another leader goes on.
    LeaderGone {
        reaches_store: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..3_usize;
    prop_oneof![
        4 => (member.clone(), 1..20_i64, any::<bool>()).prop_map(|(member, records_max, is_strict)| {
            Step::Acquire { member, records_max, is_strict }
        }),
        4 => (member.clone(), 0..10_usize, 1..10_usize, 0..=4_i8).prop_map(
            |(member, skip, count, kind)| Step::Acknowledge { member, skip, count, kind }
        ),
        1 => member.prop_map(Step::Release),
        1 => (1..80_i64).prop_map(Step::Time),
        4 => Just(Step::Write),
        4 => any::<(bool, bool)>().prop_map(|(reaches_store, is_answered)| {
            Step::Stored { reaches_store, is_answered }
        }),
        1 => (0..10_i64).prop_map(Step::LogBegins),
        1 => any::<bool>().prop_map(|reaches_store| Step::LeaderGone { reaches_store }),
    ]
}

/// What is known of one record.
#[derive(Debug, Clone, Default)]
struct Record {
    /// The member that has it, and until when.
    held: Option<(usize, i64)>,
    /// What its member said last, and the write with which that counts.
    said: Option<(i8, WriteNumber)>,
    /// How often it was given out that the leader knows of.
    count: i16,
    /// A member was told that it counts as accepted, rejected or missing.
    told_done: bool,
    /// It may be done without its member having been told.
    may_be_done: bool,
}

struct World {
    partition: SharePartition,
    store: StoredState,
    on_its_way: Option<StateWrite>,
    records: BTreeMap<i64, Record>,
    log_start: i64,
    now_ms: i64,
    leaders_gone: i16,
}

fn name(member: usize) -> Arc<str> {
    Arc::from(format!("m{member}"))
}

/// Batches of four records.
fn log() -> Vec<BatchSpan> {
    let firsts = (0..LOG_END).step_by(4);
    firsts
        .map(|first| BatchSpan {
            first,
            last: first + 3,
        })
        .collect()
}

impl World {
    fn new() -> Self {
        let store = StoredState {
            reading: 1,
            start: 0,
            state_epoch: 0,
            batches: Vec::new(),
        };
        Self {
            partition: SharePartition::new(&store),
            store,
            on_its_way: None,
            records: (0..LOG_END).map(|at| (at, Record::default())).collect(),
            log_start: 0,
            now_ms: 0,
            leaders_gone: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Acquire {
                member,
                records_max,
                is_strict,
            } => drop(self.acquire(*member, *records_max, *is_strict)?),
            Step::Acknowledge {
                member,
                skip,
                count,
                kind,
            } => self.acknowledge(*member, *skip, *count, *kind)?,
            Step::Release(member) => {
                let number = self.partition.release(self.now_ms, &LIMITS, &name(*member));
                self.given_back(number, |held, _| held == *member);
            }
            Step::Time(ms) => {
                self.now_ms += ms;
                self.expire();
            }
            Step::Write => self.write(),
            Step::Stored {
                reaches_store,
                is_answered,
            } => self.stored(*reaches_store, *is_answered),
            Step::LogBegins(ahead) => {
                self.log_start = (self.log_start + ahead).min(LOG_END);
                self.partition.log_begins_at(self.log_start);
                self.records = self.records.split_off(&self.log_start);
            }
            Step::LeaderGone { reaches_store } => self.leader_gone(*reaches_store),
        }
        self.check()
    }

    fn acquire(
        &mut self,
        member: usize,
        records_max: i64,
        is_strict: bool,
    ) -> Result<i64, TestCaseError> {
        let from = self.partition.next_offset();
        let batches: Vec<BatchSpan> = log()
            .into_iter()
            .filter(|batch| batch.last >= from)
            .collect();
        let wanted = Acquire {
            member: &name(member),
            records_max,
            is_strict,
            batch_size: 5,
            from,
            batches: &batches,
            aborted: &[],
        };
        let acquired = self.partition.acquire(self.now_ms, &LIMITS, &wanted);
        let all: i64 = acquired.iter().map(AcquiredRecords::count).sum();
        let most = match is_strict {
            true => records_max,
            false => records_max + 3,
        };
        prop_assert!(all <= most, "{} of {}", all, records_max);
        for part in acquired {
            for offset in part.first..=part.last {
                let record = self.records.get_mut(&offset).expect("it is in the log");
                prop_assert!(record.held.is_none(), "{} is held: {:?}", offset, record);
                prop_assert!(!record.told_done, "{} is done: {:?}", offset, record);
                prop_assert_eq!(part.delivery_count, record.count + 1, "{}", offset);
                let most = LIMITS.delivery_count_max + self.leaders_gone;
                prop_assert!(part.delivery_count <= most);
                record.count += 1;
                record.held = Some((member, self.now_ms + LIMITS.lock_ms));
                record.said = None;
            }
        }
        Ok(all)
    }

    fn acknowledge(
        &mut self,
        member: usize,
        skip: usize,
        count: usize,
        kind: i8,
    ) -> Result<(), TestCaseError> {
        let has = self.records.iter();
        let has = has.filter(|(_, record)| {
            record.held.is_some_and(|(held, _)| held == member) && record.said.is_none()
        });
        let some: Vec<i64> = has.map(|(at, _)| *at).skip(skip).take(count).collect();
        let said: Vec<Acknowledgement> = some
            .iter()
            .map(|at| Acknowledgement {
                first: *at,
                last: *at,
                types: vec![kind],
            })
            .collect();
        let answer = self
            .partition
            .acknowledge(self.now_ms, &LIMITS, &name(member), &said);
        let number = answer.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(number.is_some(), !some.is_empty() && kind != 4);
        for at in some {
            let record = self.records.get_mut(&at).expect("it is in the log");
            match number {
                Some(number) => record.said = Some((kind, number)),
                None => record.held = Some((member, self.now_ms + LIMITS.lock_ms)),
            }
        }
        Ok(())
    }

    fn given_back(&mut self, number: Option<WriteNumber>, is_it: impl Fn(usize, i64) -> bool) {
        for record in self.records.values_mut() {
            if let Some((held, until_ms)) = record.held
                && record.said.is_none()
                && is_it(held, until_ms)
            {
                record.said = Some((2, number.expect("something is given back")));
            }
        }
    }

    fn expire(&mut self) {
        self.partition.tick(self.now_ms, &LIMITS);
        let now_ms = self.now_ms;
        let number = self.partition.next_write;
        self.given_back(Some(number), |_, until_ms| until_ms <= now_ms);
    }

    fn write(&mut self) {
        if let Some(write) = self.partition.take_write() {
            assert!(self.on_its_way.is_none());
            self.on_its_way = Some(write);
        }
    }

    /// What the coordinator of the share partition does.
    fn store(&mut self, write: &StateWrite) {
        self.store.start = self.store.start.max(write.start);
        self.store.batches = merge(self.store.start, &self.store.batches, &write.batches);
    }

    fn stored(&mut self, reaches_store: bool, is_answered: bool) {
        let Some(write) = self.on_its_way.take() else {
            return;
        };
        if reaches_store {
            self.store(&write);
        }
        let is_stored = reaches_store && is_answered;
        self.partition.stored(write.number, is_stored);
        for record in self.records.values_mut() {
            let Some((kind, number)) = record.said else {
                continue;
            };
            if number != write.number {
                continue;
            }
            record.said = None;
            if is_stored {
                record.held = None;
                record.told_done |= kind != 2 || record.count >= LIMITS.delivery_count_max;
            } else if reaches_store {
                record.may_be_done |= kind != 2 || record.count >= LIMITS.delivery_count_max;
            }
        }
        // A lock that ended while its end could not be stored.
        self.expire();
    }

    fn leader_gone(&mut self, reaches_store: bool) {
        self.leaders_gone += 1;
        if let Some(write) = self.on_its_way.take()
            && reaches_store
        {
            self.store(&write);
            for record in self.records.values_mut() {
                if let Some((kind, number)) = record.said
                    && number == write.number
                {
                    record.may_be_done |= kind != 2 || record.count >= LIMITS.delivery_count_max;
                }
            }
        }
        self.partition = SharePartition::new(&self.store);
        self.partition.log_begins_at(self.log_start);
        let counts: BTreeMap<i64, i16> = self
            .partition
            .in_flight()
            .iter()
            .flat_map(|part| (part.first..=part.last).map(|at| (at, part.delivery_count)))
            .collect();
        let start = self.partition.start();
        for (at, record) in &mut self.records {
            record.held = None;
            record.said = None;
            if *at >= start {
                record.count = counts.get(at).copied().unwrap_or_default();
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let start = self.partition.start();
        prop_assert!(self.partition.end() - start <= LIMITS.locks_max + 3);
        for (at, record) in self.records.range(..start) {
            let is_done = record.told_done || record.may_be_done;
            prop_assert!(is_done, "{} is lost: {:?}", at, record);
        }
        for part in self.partition.in_flight() {
            for at in part.first..=part.last {
                let record = &self.records[&at];
                let held = part
                    .held
                    .as_ref()
                    .map(|held| (held.member.to_string(), held.until_ms));
                let expected = record.held.map(|(who, until)| (format!("m{who}"), until));
                prop_assert_eq!(held, expected, "{}", at);
                prop_assert_eq!(part.delivery_count, record.count, "{}", at);
            }
        }
        for batch in &self.store.batches {
            for at in batch.first..=batch.last {
                if let Some(record) = self.records.get(&at) {
                    prop_assert!(batch.delivery_count <= record.count, "{} fell", at);
                }
            }
        }
        Ok(())
    }

    /// Everything that is left is accepted.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..1000 {
            if self.partition.start() == LOG_END {
                return Ok(());
            }
            self.now_ms += LIMITS.lock_ms;
            self.expire();
            self.write();
            self.stored(true, true);
            self.acquire(0, 10, false)?;
            self.acknowledge(0, 0, 1000, 1)?;
            self.write();
            self.stored(true, true);
            self.check()?;
        }
        Err(TestCaseError::fail(format!("stuck: {:?}", self.partition)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_record_is_lost_or_given_out_when_it_is_done_or_held_and_counts_never_fall(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step)?;
        }
        world.finish()?;
    }

    #[test]
    fn what_is_stored_reads_back_as_it_was(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            // What is stored without the leader's knowing may be ahead of it.
            let is_known = |step: &Step| match *step {
                Step::Stored { reaches_store, .. } => Step::Stored {
                    reaches_store,
                    is_answered: true,
                },
                ref step => step.clone(),
            };
            world.step(&is_known(step))?;
        }
        // Nothing is held any more, all is stored.
        for _ in 0..2 {
            world.stored(true, true);
            world.now_ms += LIMITS.lock_ms;
            world.expire();
            world.write();
        }
        world.stored(true, true);
        let read = SharePartition::new(&world.store);
        prop_assert_eq!(read.end().max(world.log_start), world.partition.end());
        let mut read = read;
        read.log_begins_at(world.log_start);
        prop_assert_eq!(read.in_flight(), world.partition.in_flight());
    }
}
