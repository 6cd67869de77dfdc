//! The machine against a small model: producers that begin, add, end and repeat themselves, crashes, lost and doubled answers
//! of markers, refused writes, timeouts, fencing, and epochs that are used up.
//!
//! The model knows what the partitions would: which markers were written, and that none contradicts another. It knows what
//! each client was answered, and that nothing answered is taken back.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::transaction::asks::Markers;
use crate::transaction::messages::{End, Init, Initialized, TWO_PHASE_TIMEOUT_MS};
use crate::transaction::state::{Outcome, Producer, TransactionVersion};
use crate::transaction::testing::*;

/// Clients that use the same transactional id, one fencing the other.
const CLIENTS: usize = 2;
/// The epoch at which a case begins: exhaustion is near.
const EPOCH_FIRST: i16 = 32_764;

#[derive(Debug, Clone)]
enum Step {
    Init {
        client: usize,
        expects: bool,
    },
    Add {
        client: usize,
        index: i32,
    },
    End {
        client: usize,
        commit: bool,
    },
    /// Begins with transactions of two phases, and takes over an open one or not.
    TwoPhase {
        client: usize,
        keeps: bool,
    },
    Decide {
        commit: bool,
    },
    Store,
    Refuse,
    Mark {
        at: usize,
        keep: bool,
    },
    LoseMarkers,
    Crash {
        stored: usize,
    },
    Wait {
        ms: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..CLIENTS, any::<bool>()).prop_map(|(client, expects)| Step::Init { client, expects }),
        6 => (0..CLIENTS, 0..3).prop_map(|(client, index)| Step::Add { client, index }),
        5 => (0..CLIENTS, any::<bool>()).prop_map(|(client, commit)| Step::End { client, commit }),
        2 => (0..CLIENTS, any::<bool>()).prop_map(|(client, keeps)| Step::TwoPhase { client, keeps }),
        1 => any::<bool>().prop_map(|commit| Step::Decide { commit }),
        12 => Just(Step::Store),
        1 => Just(Step::Refuse),
        6 => (0..4_usize, any::<bool>()).prop_map(|(at, keep)| Step::Mark { at, keep }),
        1 => Just(Step::LoseMarkers),
        1 => (0..3_usize).prop_map(|stored| Step::Crash { stored }),
        2 => prop_oneof![Just(10_i64), Just(1100), Just(31_000), Just(61_000)]
            .prop_map(|ms| Step::Wait { ms }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What a client waits for.
enum Asked {
    Init(Got<Initialized>),
    Add(Got<()>, Producer, i32),
    End(Got<Producer>, End),
}

#[derive(Default)]
struct Client {
    producer: Option<Producer>,
    /// The transaction of an earlier producer that it is to end.
    kept: Option<Producer>,
    /// What it was answered to be part of its transaction.
    added: BTreeSet<i32>,
    asked: Option<Asked>,
    /// Its last end, until it is answered.
    unanswered: Option<End>,
    /// Its last end that was answered, and the answer.
    ended: Option<(End, Producer)>,
}

struct Case {
    bench: Bench,
    clients: [Client; CLIENTS],
    /// Markers that were written, by partition and epoch of the producer: how the transaction ended there.
    written: BTreeMap<(i32, Producer), Outcome>,
    /// What clients were answered for the transactions of a producer.
    answered: BTreeMap<Producer, Outcome>,
    /// Partitions of them, as their clients were answered.
    parts: BTreeMap<Producer, BTreeSet<i32>>,
    /// Of all clients.
    version: TransactionVersion,
}

impl Case {
    fn new(version: TransactionVersion) -> Self {
        let mut bench = Bench::new();
        bench.init();
        let path = paths::transaction(ID);
        let stored = String::from_utf8(bench.tree[&path].to_vec()).unwrap();
        let epoch = format!("\"epoch\":{EPOCH_FIRST}");
        bench
            .tree
            .insert(path, stored.replace("\"epoch\":0", &epoch).into());
        bench.crash(0);
        Self {
            bench,
            clients: Default::default(),
            written: BTreeMap::new(),
            answered: BTreeMap::new(),
            parts: BTreeMap::new(),
            version,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Init { client, expects } => self.init(client, expects),
            Step::Add { client, index } => self.add(client, index),
            Step::End { client, commit } => self.end(client, commit),
            Step::TwoPhase { client, keeps } => self.init_two_phase(client, keeps),
            Step::Decide { commit } => self.bench.begin_decide(outcome(commit)),
            Step::Store => drop(self.bench.store_one()),
            Step::Refuse => drop(self.bench.refuse_one()),
            Step::Mark { at, keep } => self.mark(at, keep),
            Step::LoseMarkers => self.bench.markers.clear(),
            Step::Crash { stored } => self.bench.crash(stored),
            Step::Wait { ms } => self.bench.wait(ms),
        }
        self.hear();
    }

    fn init(&mut self, client: usize, expects: bool) {
        let known = self.clients[client].producer;
        let request = match known.filter(|_| expects) {
            Some(producer) => expecting(producer),
            None => init(),
        };
        let got = self.bench.begin(ID, request);
        self.clients[client].asked = Some(Asked::Init(got));
    }

    fn init_two_phase(&mut self, client: usize, keeps: bool) {
        let request = Init {
            timeout_ms: TWO_PHASE_TIMEOUT_MS,
            keep_prepared: keeps,
            ..init()
        };
        let got = self.bench.begin(ID, request);
        self.clients[client].asked = Some(Asked::Init(got));
    }

    fn add(&mut self, client: usize, index: i32) {
        // A client does not go on while it does not know how its transaction ended.
        let state = &self.clients[client];
        let may_add = state.unanswered.is_none() && state.kept.is_none();
        let Some(producer) = state.producer.filter(|_| may_add) else {
            return;
        };
        let got = self.bench.begin_add(ID, add(producer, &[("t", index)]));
        self.clients[client].asked = Some(Asked::Add(got, producer, index));
    }

    fn end(&mut self, client: usize, commit: bool) {
        let state = &mut self.clients[client];
        let Some(producer) = state.producer else {
            return;
        };
        let new = End {
            producer,
            outcome: outcome(commit),
            version: self.version,
        };
        // Until it is answered, it asks the same.
        let end = *state.unanswered.get_or_insert(new);
        let got = self.bench.begin_end(ID, end);
        self.clients[client].asked = Some(Asked::End(got, end));
    }

    /// One of the markers that were asked for is written; whether it is heard, or comes again later too.
    fn mark(&mut self, at: usize, keep: bool) {
        if self.bench.markers.is_empty() {
            return;
        }
        let at = at % self.bench.markers.len();
        let markers = self.bench.markers[at].clone();
        self.write(&markers);
        self.bench.mark_one(&markers);
        if !keep {
            self.bench.markers.remove(at);
        }
    }

    fn write(&mut self, markers: &Markers) {
        for (_, index) in markers.partitions.iter() {
            let before = self
                .written
                .insert((index, markers.producer), markers.outcome);
            // Before version 2 several transactions have the same epoch.
            if self.version == TransactionVersion::V2 {
                let is_same = before.is_none_or(|before| before == markers.outcome);
                assert!(is_same, "{markers:?}");
            }
        }
    }

    /// Clients take their answers.
    fn hear(&mut self) {
        for client in 0..CLIENTS {
            let Some(asked) = self.clients[client].asked.take() else {
                continue;
            };
            match asked {
                Asked::Init(mut got) => match got.try_recv() {
                    Ok(Ok(answer)) => self.began(client, answer),
                    Ok(Err(TransactionError::ProducerFenced)) => self.lost(client),
                    Ok(Err(_)) => {}
                    Err(error) => self.still(client, error, Asked::Init(got)),
                },
                Asked::Add(mut got, producer, index) => match got.try_recv() {
                    Ok(Ok(())) => {
                        self.clients[client].added.insert(index);
                        self.parts.entry(producer).or_default().insert(index);
                    }
                    Ok(Err(error)) => self.refused(client, error),
                    Err(error) => self.still(client, error, Asked::Add(got, producer, index)),
                },
                Asked::End(mut got, end) => match got.try_recv() {
                    Ok(Ok(answer)) => self.ended(client, end, answer),
                    Ok(Err(error)) => self.refused(client, error),
                    Err(error) => self.still(client, error, Asked::End(got, end)),
                },
            }
        }
    }

    /// No answer yet, or none at all because the broker died.
    fn still(
        &mut self,
        client: usize,
        error: tokio::sync::oneshot::error::TryRecvError,
        asked: Asked,
    ) {
        if error == tokio::sync::oneshot::error::TryRecvError::Empty {
            self.clients[client].asked = Some(asked);
        }
    }

    fn began(&mut self, client: usize, answer: Initialized) {
        let producer = answer.producer;
        for (other, state) in self.clients.iter().enumerate() {
            let is_shared = other != client && state.producer == Some(producer);
            assert!(!is_shared, "two clients have {producer:?}");
        }
        assert!(producer.epoch < i16::MAX, "the last epoch is for fencing");
        self.clients[client] = Client {
            producer: Some(producer),
            kept: answer.ongoing,
            ..Client::default()
        };
    }

    fn ended(&mut self, client: usize, end: End, answer: Producer) {
        let state = &mut self.clients[client];
        if end.version == TransactionVersion::V2 {
            if let Some((before, answered)) = state.ended
                && before == end
            {
                assert_eq!(answered, answer, "the same end, the same answer");
            }
            assert_ne!(answer, end.producer, "each end begins an epoch");
            state.ended = Some((end, answer));
            let added = std::mem::take(&mut state.added);
            state.producer = Some(answer);
            let kept = state.kept.take();
            if !added.is_empty() || kept.is_some() {
                let of = kept.unwrap_or(end.producer);
                let before = self.answered.insert(of, end.outcome);
                assert!(before.is_none_or(|before| before == end.outcome));
            }
        } else {
            state.added.clear();
            state.kept = None;
        }
        state.unanswered = None;
    }

    fn refused(&mut self, client: usize, error: TransactionError) {
        match error {
            TransactionError::ConcurrentTransactions
            | TransactionError::CoordinatorNotAvailable => {}
            // Aborted meanwhile, or fenced.
            _ => self.lost(client),
        }
    }

    fn lost(&mut self, client: usize) {
        self.clients[client] = Client::default();
    }

    /// All writes are stored and all markers written: everything comes to an end, and what was answered holds.
    fn finish(mut self) {
        for _ in 0..20 {
            while self.bench.store_one() {
                self.hear();
            }
            for markers in std::mem::take(&mut self.bench.markers) {
                self.write(&markers);
                self.bench.mark_one(&markers);
            }
            self.hear();
            self.bench.wait(31_000);
            // What waits for a decision gets one.
            if self.bench.writes.is_empty() && self.bench.markers.is_empty() {
                self.bench.begin_decide(Outcome::Abort);
            }
        }
        self.hear();
        let state = self.bench.state();
        assert!(
            !state.starts_with("Prepare") && state != "Ongoing",
            "{state}"
        );
        assert_eq!(self.bench.open_timers(), 0);
        let bytes = self.bench.bytes();
        self.bench.crash(0);
        assert_eq!(self.bench.bytes(), bytes);
        for (producer, outcome) in &self.answered {
            for index in self.parts.get(producer).into_iter().flatten() {
                // The first one after its records.
                let after = (*index, bumped(*producer))..=(*index, last(producer.id));
                let written = self.written.range(after).next();
                let written = written.map(|(_, outcome)| outcome);
                assert_eq!(written, Some(outcome), "{producer:?} in {index}");
            }
        }
    }
}

fn outcome(commit: bool) -> Outcome {
    match commit {
        true => Outcome::Commit,
        false => Outcome::Abort,
    }
}

fn last(id: i64) -> Producer {
    Producer {
        id,
        epoch: i16::MAX,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn what_was_answered_holds_through_crashes_and_every_transaction_comes_to_an_end(
        steps in steps(),
        is_of_version_2 in any::<bool>(),
    ) {
        let version = if is_of_version_2 { TransactionVersion::V2 } else { TransactionVersion::V0 };
        let mut case = Case::new(version);
        for step in &steps {
            case.step(step);
        }
        case.finish();
    }
}
