//! What a slot knows of producers, through failovers.

use proptest::prelude::*;

use super::transactions::version_1;
use super::*;
use crate::group::messages::{TransactionEnd, TransactionalCommit};

const PRODUCERS: i64 = 3;
const COORDINATORS: i32 = 3;
const EPOCHS: i16 = 3;

#[derive(Debug, Clone)]
enum Step {
    Add {
        producer_id: i64,
        epoch: i16,
    },
    End(TransactionEnd),
    /// The writes that are asked for are stored, or not.
    Store(bool),
    /// Another owner, who knows what is stored.
    Failover,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let add = (0..PRODUCERS, 0..EPOCHS);
    let end = (
        0..PRODUCERS,
        0..EPOCHS,
        1..=COORDINATORS,
        any::<bool>(),
        any::<bool>(),
    );
    let step = prop_oneof![
        4 => add.prop_map(|(producer_id, epoch)| Step::Add { producer_id, epoch }),
        4 => end.prop_map(|(producer_id, producer_epoch, coordinator_epoch, is_commit, bumps_epoch)| {
            Step::End(TransactionEnd {
                producer_id,
                producer_epoch,
                coordinator_epoch,
                is_commit,
                bumps_epoch,
            })
        }),
        8 => prop_oneof![9 => Just(true), 1 => Just(false)].prop_map(Step::Store),
        2 => Just(Step::Failover),
    ];
    proptest::collection::vec(step, 1..80)
}

/// What a partition of Kafka knows of a producer for as long as its log is there (ProducerStateEntry).
#[derive(Debug, Clone, Copy)]
struct Known {
    epoch: i16,
    coordinator_epoch: i32,
    is_open: bool,
}

impl Known {
    const NOTHING: Self = Self {
        epoch: -1,
        coordinator_epoch: -1,
        is_open: false,
    };

    /// ProducerAppendInfo.checkProducerEpoch and appendEndTxnMarker.
    fn check(self, end: &TransactionEnd) -> Result<(), GroupError> {
        let is_new = match end.bumps_epoch && self.is_open {
            true => end.producer_epoch > self.epoch,
            false => end.producer_epoch >= self.epoch,
        };
        match end.coordinator_epoch >= self.coordinator_epoch {
            _ if !is_new => Err(GroupError::InvalidProducerEpoch),
            false => Err(GroupError::TransactionCoordinatorFenced),
            true => Ok(()),
        }
    }
}

impl Bench {
    /// An offset of a producer's transaction, if its epoch is not too old.
    fn add_one(&mut self, producer_id: i64, epoch: i16) -> Option<oneshot::Receiver<Outcomes>> {
        let ask = |answer| Ask::VerifyTransaction {
            producer_id,
            producer_epoch: epoch,
            answer,
        };
        let guard = self.ask(ask).try_recv().unwrap().ok()?;
        let commit = TransactionalCommit {
            producer_id,
            producer_epoch: epoch,
            guard,
            member_id: String::new(),
            instance_id: None,
            generation: -1,
            offsets: vec![OffsetToCommit {
                topic: "t".to_owned(),
                partition: 0,
                offset: 1,
                leader_epoch: -1,
                metadata: String::new(),
            }],
        };
        Some(self.ask(|answer| Ask::CommitTransactional(commit, answer)))
    }

    fn end_one(&mut self, end: TransactionEnd) -> oneshot::Receiver<Result<(), GroupError>> {
        let (answer, receiver) = Answer::new();
        self.groups
            .handle_all(self.now_ms, AskAll::EndTransaction(end, answer));
        receiver
    }

    fn stored_producers(&self) -> Vec<i64> {
        self.tree
            .keys()
            .filter_map(|path| paths::producer_of(path))
            .collect()
    }
}

/// Takes each step to its end before the next, so that the model needs no writes in flight.
fn run(steps: Vec<Step>) {
    let mut bench = Bench::with_room(1 << 20);
    let mut model = [Known::NOTHING; PRODUCERS as usize];
    let mut outcome = Ok(());
    for step in steps {
        match step {
            Step::Add { producer_id, epoch } => {
                let known = &mut model[producer_id as usize];
                let added = bench.add_one(producer_id, epoch);
                assert_eq!(added.is_some(), epoch >= known.epoch, "{known:?} {epoch}");
                bench.store(outcome);
                let is_stored = added.is_some_and(|mut added| added.try_recv() == Ok(vec![Ok(())]));
                assert_eq!(is_stored, outcome.is_ok() && epoch >= known.epoch);
                match is_stored {
                    true => (known.epoch, known.is_open) = (epoch, true),
                    // Of what was refused the epoch counts already, as it may be stored; another owner knows that it is not.
                    false => bench.reload(),
                }
            }
            Step::End(end) => {
                let known = &mut model[end.producer_id as usize];
                let mut ended = bench.end_one(end);
                let asked = bench.store(outcome) > 0;
                let ended = ended.try_recv().unwrap();
                match known.check(&end) {
                    Err(error) => assert_eq!(ended, Err(error), "{known:?} {end:?}"),
                    Ok(()) => assert_eq!(ended.is_ok(), outcome.is_ok() || !asked),
                }
                if ended.is_ok() {
                    *known = Known {
                        epoch: end.producer_epoch,
                        coordinator_epoch: end.coordinator_epoch,
                        is_open: false,
                    };
                }
            }
            Step::Store(true) => outcome = Ok(()),
            Step::Store(false) => outcome = REFUSED,
            Step::Failover => bench.reload(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_slot_knows_of_producers_what_a_partition_would_whoever_owns_it(steps in steps()) {
        run(steps);
    }
}

#[test]
fn what_is_stored_of_a_producer_goes_when_it_was_silent_for_long_also_while_others_owned_the_slot()
{
    for fails_over in [false, true] {
        let mut bench = Bench::with_room(1 << 20);
        bench.end_one(version_1(0, 2));
        bench.store(Ok(()));
        assert_eq!(bench.stored_producers().len(), 1);
        bench.now_ms += PRODUCER_EXPIRATION_MS - 1;
        if fails_over {
            bench.reload();
        }
        bench.groups.tick(bench.now_ms);
        bench.store(Ok(()));
        assert_eq!(bench.stored_producers().len(), 1);
        let mut late = bench.end_one(version_1(0, 1));
        assert!(late.try_recv().unwrap().is_err());
        bench.now_ms += CHECK_INTERVAL_MS;
        bench.groups.tick(bench.now_ms);
        bench.store(Ok(()));
        assert!(bench.stored_producers().is_empty(), "{fails_over}");
    }
}

#[test]
fn a_marker_takes_one_write_and_the_same_one_again_none() {
    let mut bench = Bench::with_room(1 << 20);
    bench.add_one(7, 0);
    bench.store(Ok(()));
    bench.end_one(version_1(0, 2));
    assert_eq!(bench.store(Ok(())), 1);
    bench.end_one(version_1(0, 2));
    assert_eq!(bench.store(Ok(())), 0);
    bench.reload();
    bench.end_one(version_1(0, 2));
    bench.groups.tick(bench.now_ms);
    assert_eq!(bench.store(Ok(())), 0);
}
