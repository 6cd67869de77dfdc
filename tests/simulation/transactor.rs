//! A transactional producer: each of its transactions writes a record to two partitions and an offset for a group, and is
//! committed or aborted. What is not answered is asked again; where that does not help it begins anew, as a new process would.
//! Half of them speak version 2 of transactions (KIP-890).
//!
//! A reader of committed records reads along. The ledger knows what was asked and answered, and says what must not be:
//!
//! - a record that is shown of a transaction whose commit was never asked for, or whose abort was answered
//! - a record that is shown twice, or before an earlier one of its producer
//! - at the end, a committed transaction without one of its records, or one that was torn
//! - a group's offset that is not that of the last committed transaction

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, Batches, EndMarker, Outcome};
use metaq_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use metaq_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use metaq_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FetchRequest, GroupId,
    InitProducerIdRequest, OffsetFetchRequest, ProduceRequest, ProducerId, TransactionalId,
    TxnOffsetCommitRequest,
};
use metaq_protocol::records::Records;
use parking_lot::Mutex;

use super::client::{NoAnswer, name, text};
use super::history::{History, PAID, PAID_PLACES};
use super::random::Random;
use super::router::{Brokers, Router};
use super::world::Phase;

/// The group that the transactions' offsets are of.
pub const BANK: &str = "bank";
const ANSWER_MAX: Duration = Duration::from_millis(1500);
const TIMEOUT_MS: i32 = 3000;
/// How often one step of a transaction is tried.
const TRIES: usize = 6;
/// How long the last answers may take when all is healed.
const END_TRIES: usize = 400;

/// Of which transactor, and the how manieth.
type Transaction = (usize, i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its commit was not asked for.
    Running,
    /// It was, and not answered.
    Asked,
    Committed,
    Aborted,
}

#[derive(Default)]
struct Book {
    fates: BTreeMap<Transaction, Fate>,
    /// By partition, what was shown, in order.
    shown: BTreeMap<i32, Vec<Transaction>>,
}

/// What became of the transactions; clones share it.
#[derive(Clone, Default)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
}

impl Ledger {
    fn is(&self, transaction: Transaction, fate: Fate) {
        self.book.lock().fates.insert(transaction, fate);
    }

    fn show(&self, history: &History, partition: i32, transaction: Transaction) {
        let mut book = self.book.lock();
        let fate = book.fates.get(&transaction).copied();
        if !matches!(fate, Some(Fate::Asked | Fate::Committed)) {
            history.fail(format!(
                "{PAID}-{partition}: {transaction:?} is shown and {fate:?}"
            ));
        }
        let shown = book.shown.entry(partition).or_default();
        let before = shown.iter().rev().find(|(who, _)| *who == transaction.0);
        if let Some(before) = before.filter(|before| before.1 >= transaction.1) {
            history.fail(format!(
                "{PAID}-{partition}: {transaction:?} is shown after {before:?}"
            ));
        }
        shown.push(transaction);
    }

    /// Holds all that was shown, to the end, against what was answered.
    fn check(&self, history: &History) {
        let book = self.book.lock();
        let shown = |partition| {
            let shown = book.shown.get(&partition).into_iter().flatten();
            shown.copied().collect::<BTreeSet<Transaction>>()
        };
        let (first, second) = (shown(0), shown(1));
        for torn in first.symmetric_difference(&second) {
            history.fail(format!("{torn:?} is torn"));
        }
        let mut committed = 0;
        for (transaction, fate) in &book.fates {
            committed += usize::from(first.contains(transaction));
            if *fate == Fate::Committed && !first.contains(transaction) {
                history.fail(format!("{transaction:?} was committed and is not there"));
            }
        }
        let all = book.fates.len();
        history.note(|| format!("{committed} of {all} transactions are committed"));
    }

    /// The number of a transactor's last transaction that is there.
    fn last_of(&self, index: usize) -> Option<i64> {
        let book = self.book.lock();
        let shown = book.shown.get(&0).into_iter().flatten();
        shown
            .filter(|(who, _)| *who == index)
            .map(|(_, n)| *n)
            .max()
    }
}

/// Why a transaction is given up.
struct GivenUp;

pub struct Transactor {
    index: usize,
    is_v2: bool,
    router: Router,
    history: History,
    ledger: Ledger,
    phase: Phase,
    random: Random,
    producer: (i64, i16),
    sequence: i32,
    next: i64,
}

impl Transactor {
    pub fn new(
        index: usize,
        brokers: Brokers,
        (history, ledger): (History, Ledger),
        phase: Phase,
        random: Random,
    ) -> Self {
        Self {
            index,
            is_v2: index.is_multiple_of(2),
            router: Router::of(&format!("x{index}"), brokers, &PAID_PLACES),
            history,
            ledger,
            phase,
            random,
            producer: (-1, -1),
            sequence: 0,
            next: 0,
        }
    }

    fn id(&self) -> TransactionalId {
        TransactionalId(text(&format!("txn-{}", self.index)))
    }

    /// Transacts until the faults are over; then what is left open is ended by a new producer.
    pub async fn run(mut self) {
        while !self.phase.is_healing() {
            if self.begin(TRIES).await.is_err() {
                continue;
            }
            while !self.phase.is_healing() {
                let pause = self.random.below(60);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                if self.transact().await.is_err() {
                    break;
                }
            }
        }
        if self.begin(END_TRIES).await.is_err() {
            let what = format!("transactor {} does not come to its end", self.index);
            self.history.fail(what);
        }
        self.phase.producer_ended();
    }

    async fn pause(&mut self) {
        let pause = self.random.below(100) + 5;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn begin(&mut self, tries: usize) -> Result<(), GivenUp> {
        for _ in 0..tries {
            if let Ok(at) = self.coordinator().await {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(Some(self.id()))
                    .with_transaction_timeout_ms(TIMEOUT_MS);
                match self.router.client(at).ask(5, &request, ANSWER_MAX).await {
                    Ok(begun) if begun.error_code == 0 => {
                        self.producer = (begun.producer_id.0, begun.producer_epoch);
                        self.sequence = 0;
                        return Ok(());
                    }
                    Ok(begun) => self.told("InitProducerId", begun.error_code),
                    Err(NoAnswer) => self.router.disconnect(),
                }
            }
            self.pause().await;
        }
        Err(GivenUp)
    }

    fn told(&mut self, what: &str, code: i16) {
        let index = self.index;
        self.history
            .note(|| format!("transactor {index}: {what}: {code}"));
        self.router.told_of_coordinator(code);
    }

    async fn coordinator(&mut self) -> Result<usize, NoAnswer> {
        let id = format!("txn-{}", self.index);
        self.router.coordinator_of(&id, 1).await
    }

    async fn transact(&mut self) -> Result<(), GivenUp> {
        let transaction = (self.index, self.next);
        self.next += 1;
        self.ledger.is(transaction, Fate::Running);
        let written = self.write(transaction).await;
        let is_commit = written.is_ok() && !self.random.one_in(4);
        if is_commit {
            self.ledger.is(transaction, Fate::Asked);
        }
        match self.end(is_commit).await {
            Ok(()) if is_commit => self.ledger.is(transaction, Fate::Committed),
            Ok(()) => self.ledger.is(transaction, Fate::Aborted),
            // Whoever begins next has it decided: as it was asked for, or aborted.
            Err(GivenUp) => return Err(GivenUp),
        }
        self.history
            .note(|| format!("{transaction:?} ended, commit {is_commit}"));
        written
    }

    async fn write(&mut self, transaction: Transaction) -> Result<(), GivenUp> {
        if !self.is_v2 {
            self.add_partitions().await?;
        }
        for partition in 0..2 {
            self.produce(transaction, partition).await?;
        }
        self.sequence += 1;
        // The last one counts.
        for earlier in 0..self.random.below(3) as i64 {
            self.commit_offset(transaction.1 - 9 + earlier).await?;
        }
        self.commit_offset(transaction.1 + 1).await
    }

    async fn add_partitions(&mut self) -> Result<(), GivenUp> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name(PAID))
            .with_partitions(vec![0, 1]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id())
            .with_v3_and_below_producer_id(ProducerId(self.producer.0))
            .with_v3_and_below_producer_epoch(self.producer.1)
            .with_v3_and_below_topics(vec![topic]);
        for _ in 0..TRIES {
            if let Ok(at) = self.coordinator().await {
                match self.router.client(at).ask(3, &request, ANSWER_MAX).await {
                    Ok(added) => {
                        let topic = &added.results_by_topic_v3_and_below[0];
                        let codes = topic.results_by_partition.iter();
                        let code = codes.map(|one| one.partition_error_code).max();
                        match code.unwrap_or(-1) {
                            0 => return Ok(()),
                            code => self.told("AddPartitionsToTxn", code),
                        }
                    }
                    Err(NoAnswer) => self.router.disconnect(),
                }
            }
            self.pause().await;
        }
        Err(GivenUp)
    }

    async fn produce(&mut self, (_, n): Transaction, partition: i32) -> Result<(), GivenUp> {
        let value = format!("{} {n}", self.index);
        let (id, epoch) = self.producer;
        let batch = BatchBuilder::new()
            .producer(id, epoch, self.sequence)
            .transactional()
            .push(None, Some(value.as_bytes()), &[], super::world::EPOCH_MS)
            .finish()
            .expect("plain batches always encode");
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch));
        let topic = TopicProduceData::default()
            .with_name(name(PAID))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(self.id()))
            .with_acks(-1)
            .with_timeout_ms(5000)
            .with_topic_data(vec![topic]);
        let version = if self.is_v2 { 12 } else { 11 };
        for _ in 0..TRIES {
            let place = PAID_PLACES[partition as usize];
            if let Ok(at) = self.router.leader(place).await {
                match self
                    .router
                    .client(at)
                    .ask(version, &request, ANSWER_MAX)
                    .await
                {
                    Ok(produced) => {
                        let code = produced.responses[0].partition_responses[0].error_code;
                        if code == 0 {
                            return Ok(());
                        }
                        self.router.told_of_leader(place, code);
                        self.told("Produce", code);
                    }
                    Err(NoAnswer) => self.router.disconnect(),
                }
            }
            self.pause().await;
        }
        Err(GivenUp)
    }

    /// Partition `index` of the topic stands for this transactor in the group.
    async fn commit_offset(&mut self, offset: i64) -> Result<(), GivenUp> {
        if !self.is_v2 {
            self.add_offsets().await?;
        }
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(self.index as i32)
            .with_committed_offset(offset);
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name(PAID))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.id())
            .with_group_id(GroupId(text(BANK)))
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_topics(vec![topic]);
        let version = if self.is_v2 { 5 } else { 4 };
        for _ in 0..TRIES {
            if let Ok(at) = self.router.coordinator_of(BANK, 0).await {
                match self
                    .router
                    .client(at)
                    .ask(version, &request, ANSWER_MAX)
                    .await
                {
                    Ok(stored) => match stored.topics[0].partitions[0].error_code {
                        0 => return Ok(()),
                        code => self.told("TxnOffsetCommit", code),
                    },
                    Err(NoAnswer) => self.router.disconnect(),
                }
            }
            self.pause().await;
        }
        Err(GivenUp)
    }

    async fn add_offsets(&mut self) -> Result<(), GivenUp> {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(self.id())
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_group_id(GroupId(text(BANK)));
        for _ in 0..TRIES {
            if let Ok(at) = self.coordinator().await {
                match self.router.client(at).ask(3, &request, ANSWER_MAX).await {
                    Ok(added) if added.error_code == 0 => return Ok(()),
                    Ok(added) => self.told("AddOffsetsToTxn", added.error_code),
                    Err(NoAnswer) => self.router.disconnect(),
                }
            }
            self.pause().await;
        }
        Err(GivenUp)
    }

    async fn end(&mut self, is_commit: bool) -> Result<(), GivenUp> {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id())
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_committed(is_commit);
        let version = if self.is_v2 { 5 } else { 4 };
        for _ in 0..TRIES {
            if let Ok(at) = self.coordinator().await {
                match self
                    .router
                    .client(at)
                    .ask(version, &request, ANSWER_MAX)
                    .await
                {
                    Ok(ended) if ended.error_code == 0 => {
                        if self.is_v2 {
                            self.producer = (ended.producer_id.0, ended.producer_epoch);
                            self.sequence = 0;
                        }
                        return Ok(());
                    }
                    Ok(ended) => self.told("EndTxn", ended.error_code),
                    Err(NoAnswer) => self.router.disconnect(),
                }
            }
            self.pause().await;
        }
        Err(GivenUp)
    }
}

/// Reads committed records of a partition, from its beginning, as Kafka's clients do.
struct PartitionReader {
    partition: i32,
    position: i64,
    /// Producers whose transactions at this place were aborted.
    aborted: BTreeSet<i64>,
    /// What its last answer was.
    told: String,
}

/// Reads until all is over and both partitions are read to their ends; then holds the whole against the ledger.
pub async fn read_along(brokers: Brokers, history: History, ledger: Ledger, phase: Phase) {
    let mut router = Router::of("bank-reader", brokers, &PAID_PLACES);
    let mut readers = [0, 1].map(|partition| PartitionReader {
        partition,
        position: 0,
        aborted: BTreeSet::new(),
        told: String::new(),
    });
    let mut left = END_TRIES;
    loop {
        let is_over = phase.producers_are_done();
        let mut at_end = true;
        for reader in &mut readers {
            at_end &= reader
                .read(&mut router, &history, &ledger)
                .await
                .unwrap_or(false);
        }
        if is_over && at_end {
            break;
        }
        if is_over {
            left -= 1;
            if left == 0 {
                let told = readers.map(|reader| reader.told);
                return history.fail(format!("not all is read: {told:?}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    ledger.check(&history);
    check_offsets(&mut router, &history, &ledger).await;
    phase.reader_ended();
}

impl PartitionReader {
    /// Whether all that there is was read.
    async fn read(
        &mut self,
        router: &mut Router,
        history: &History,
        ledger: &Ledger,
    ) -> Result<bool, NoAnswer> {
        let place = PAID_PLACES[self.partition as usize];
        let at = router.leader(place).await?;
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(self.position)
            .with_partition_max_bytes(4096);
        let topic = FetchTopic::default()
            .with_topic(name(PAID))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(4096)
            .with_isolation_level(1)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        // From version 11 on a follower may serve it, which may lag as long as it waits for an answer that a cut way has lost.
        let asked = router.client(at).ask(10, &request, ANSWER_MAX).await;
        let response = asked.inspect_err(|NoAnswer| router.disconnect())?;
        let told = &response.responses[0].partitions[0];
        self.told = format!(
            "{place:?} at {} of {at}: error {}, stable up to {} of {}",
            self.position, told.error_code, told.last_stable_offset, told.high_watermark
        );
        if told.error_code != 0 {
            router.told_of_leader(place, told.error_code);
            return Err(NoAnswer);
        }
        if told.last_stable_offset > told.high_watermark {
            history.fail(format!("{place:?}: {told:?}"));
        }
        let mut begun: Vec<(i64, i64)> = told
            .aborted_transactions
            .iter()
            .flatten()
            .map(|one| (one.first_offset, one.producer_id.0))
            .collect();
        begun.sort_unstable();
        let mut begun = begun.into_iter().peekable();
        let records = told.records.clone().unwrap_or_default();
        for batch in Batches::new(&records) {
            let Ok((header, batch)) = batch else { break };
            if header.last_offset() < self.position {
                continue;
            }
            while let Some((_, id)) = begun.next_if(|(first, _)| *first <= header.last_offset()) {
                self.aborted.insert(id);
            }
            if header.last_offset() >= told.last_stable_offset {
                history.fail(format!("{place:?}: shown above the last stable offset"));
            }
            self.position = header.last_offset() + 1;
            if let Some(marker) = EndMarker::of_batch(batch) {
                if marker.outcome == Outcome::Abort {
                    self.aborted.remove(&header.producer_id);
                }
                continue;
            }
            if self.aborted.contains(&header.producer_id) {
                continue;
            }
            for record in Records::new(&header, &batch[BATCH_HEADER_BYTES..]) {
                let value = record
                    .ok()
                    .and_then(|record| record.value)
                    .unwrap_or_default();
                let value = String::from_utf8_lossy(value).into_owned();
                let words: Vec<i64> = value
                    .split(' ')
                    .filter_map(|one| one.parse().ok())
                    .collect();
                ledger.show(history, self.partition, (words[0] as usize, words[1]));
            }
        }
        Ok(self.position >= told.high_watermark)
    }
}

/// The group's offsets must be those of the last committed transactions.
async fn check_offsets(router: &mut Router, history: &History, ledger: &Ledger) {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(name(PAID))
        .with_partition_indexes(vec![0, 1]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(BANK)))
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default()
        .with_groups(vec![group])
        .with_require_stable(true);
    for _ in 0..END_TRIES {
        if let Ok(at) = router.coordinator_of(BANK, 0).await
            && let Ok(found) = router.client(at).ask(8, &request, ANSWER_MAX).await
            && found.groups[0].error_code == 0
            && found.groups[0].topics[0]
                .partitions
                .iter()
                .all(|one| one.error_code == 0)
        {
            for one in &found.groups[0].topics[0].partitions {
                let last = ledger.last_of(one.partition_index as usize);
                let expected = last.map_or(-1, |last| last + 1);
                if one.committed_offset != expected {
                    history.fail(format!(
                        "the offset of transactor {} is {}, and {expected} is committed",
                        one.partition_index, one.committed_offset
                    ));
                }
            }
            return;
        }
        history.note(|| "offsets are not told, or not stable".to_owned());
        router.disconnect();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    history.fail("offsets are not stable".to_owned());
}
