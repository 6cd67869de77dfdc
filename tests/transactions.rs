//! Transactions over the wire, as far as their coordinator has them: producers that begin, partitions that are added, ends of
//! both versions, timeouts, two phases, restarts and kills.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::path::Path;

use bytes::Bytes;
use cluster::{LONG, Node, within};
use common::{Client, Running, name, wait_for};
use metaq_protocol::ResponseError as E;
use metaq_protocol::batch::BatchBuilder;
use metaq_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use metaq_protocol::messages::describe_transactions_response::TransactionState;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use metaq_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use metaq_protocol::messages::*;
use metaq_protocol::protocol::StrBytes;

/// A transactional id with its producer, as a client has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Producer {
    transactional_id: &'static str,
    id: i64,
    epoch: i16,
}

fn transactional_id(id: &'static str) -> TransactionalId {
    TransactionalId(StrBytes::from_static_str(id))
}

fn init_request(id: &'static str) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

fn init(client: &mut Client, id: &'static str) -> Producer {
    init_with(client, 4, id, &init_request(id)).unwrap()
}

fn init_with(
    client: &mut Client,
    version: i16,
    id: &'static str,
    request: &InitProducerIdRequest,
) -> Result<Producer, E> {
    let answer = client.ask(version, request);
    match E::try_from_code(answer.error_code) {
        None => Ok(Producer {
            transactional_id: id,
            id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        }),
        Some(error) => Err(error),
    }
}

impl Producer {
    fn bumped(self) -> Self {
        Self {
            epoch: self.epoch + 1,
            ..self
        }
    }

    /// The code of each partition, in a version of clients.
    fn add(self, client: &mut Client, version: i16, partitions: &[(&str, i32)]) -> Vec<i16> {
        let topic = |(topic, index): &(&str, i32)| {
            AddPartitionsToTxnTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![*index])
        };
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(self.transactional_id))
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(partitions.iter().map(topic).collect());
        let answer = client.ask(version, &request);
        let topics = answer.results_by_topic_v3_and_below.iter();
        let partitions = topics.flat_map(|topic| &topic.results_by_partition);
        partitions.map(|found| found.partition_error_code).collect()
    }

    /// The code of a partition, as a broker asks.
    fn add_as_broker(self, client: &mut Client, verify_only: bool, topic: &str, at: i32) -> i16 {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![at]);
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(transactional_id(self.transactional_id))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_verify_only(verify_only)
            .with_topics(vec![topic]);
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        let answer = client.ask(5, &request);
        let result = &answer.results_by_transaction[0];
        assert_eq!(result.transactional_id.as_str(), self.transactional_id);
        result.topic_results[0].results_by_partition[0].partition_error_code
    }

    fn end(self, client: &mut Client, version: i16, commit: bool) -> Result<Self, E> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(self.transactional_id))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit);
        let answer = client.ask(version, &request);
        match E::try_from_code(answer.error_code) {
            None if version < 5 => Ok(self),
            None => Ok(Self {
                id: answer.producer_id.0,
                epoch: answer.producer_epoch,
                ..self
            }),
            Some(error) => Err(error),
        }
    }
}

fn describe(client: &mut Client, id: &'static str) -> TransactionState {
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(id)]);
    client.ask(0, &request).transaction_states.remove(0)
}

fn state(client: &mut Client, id: &'static str) -> String {
    describe(client, id).transaction_state.to_string()
}

fn wait_for_state(client: &mut Client, id: &'static str, wanted: &str) {
    wait_for(wanted, || state(client, id) == wanted);
}

fn end_offset(client: &mut Client, topic: &str) -> i64 {
    end_offset_in(client, topic, 0)
}

fn end_offset_in(client: &mut Client, topic: &str, index: i32) -> i64 {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(index)
        .with_current_leader_epoch(-1)
        .with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    client.ask(7, &request).topics[0].partitions[0].offset
}

fn start(dir: &Path) -> (Running, Client) {
    let broker = Running::start(dir, &["transaction.two.phase.commit.enable=true"]);
    let mut client = broker.client();
    client.create("t");
    (broker, client)
}

#[test]
fn a_transaction_of_version_1_commits_and_leaves_a_marker() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let find = FindCoordinatorRequest::default()
        .with_key_type(1)
        .with_coordinator_keys(vec![StrBytes::from_static_str("app")]);
    let found = &client.ask(4, &find).coordinators[0];
    assert_eq!((found.error_code, found.node_id.0), (0, 0));
    let producer = init(&mut client, "app");
    assert_eq!(producer.epoch, 0);
    assert_eq!(producer.add(&mut client, 3, &[("t", 0)]), [0]);
    let ongoing = describe(&mut client, "app");
    assert_eq!(ongoing.transaction_state.as_str(), "Ongoing");
    assert_eq!(ongoing.transaction_timeout_ms, 60_000);
    assert_eq!(ongoing.topics[0].partitions, [0]);
    assert_eq!(producer.end(&mut client, 3, true), Ok(producer));
    wait_for_state(&mut client, "app", "CompleteCommit");
    assert_eq!(end_offset(&mut client, "t"), 1);
    assert_eq!(producer.end(&mut client, 3, true), Ok(producer), "again");
    let wrong = Err(E::InvalidTxnState);
    assert_eq!(producer.end(&mut client, 3, false), wrong);
    assert_eq!(producer.add(&mut client, 3, &[("t", 0)]), [0]);
    broker.stop();
}

#[test]
fn each_end_of_version_2_begins_an_epoch_and_a_retry_gets_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let mut producer = init(&mut client, "app");
    for n in 0..5 {
        assert_eq!(producer.add_as_broker(&mut client, false, "t", 0), 0);
        let next = producer.end(&mut client, 5, n % 2 == 0);
        assert_eq!(next, Ok(producer.bumped()));
        assert_eq!(producer.end(&mut client, 5, n % 2 == 0), next, "again");
        producer = producer.bumped();
    }
    wait_for_state(&mut client, "app", "CompleteCommit");
    assert_eq!(end_offset(&mut client, "t"), 5);
    let empty = producer.end(&mut client, 5, false);
    assert_eq!(empty, Ok(producer.bumped()), "nothing to abort");
    assert_eq!(
        producer.bumped().end(&mut client, 5, true),
        Err(E::InvalidTxnState)
    );
    broker.stop();
}

#[test]
fn one_bad_partition_fails_all_of_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let producer = init(&mut client, "app");
    let (unknown, not_tried) = (
        E::UnknownTopicOrPartition.code(),
        E::OperationNotAttempted.code(),
    );
    let codes = producer.add(&mut client, 3, &[("t", 0), ("t", 9), ("u", 0)]);
    assert_eq!(codes, [not_tried, unknown, unknown]);
    assert_eq!(state(&mut client, "app"), "Empty");
    let denied = E::TopicAuthorizationFailed.code();
    let codes = producer.add(&mut client, 3, &[("t", 0), ("__consumer_offsets", 3)]);
    assert_eq!(codes, [not_tried, denied]);
    let all = [("t", 0), ("__consumer_offsets", 3), ("u", 0)];
    let codes = producer.add(&mut client, 3, &all);
    assert_eq!(codes, [not_tried, denied, unknown]);
    let unnamed = Producer {
        transactional_id: "",
        ..producer
    };
    let codes = unnamed.add(&mut client, 3, &[("t", 0), ("t", 9)]);
    assert_eq!(codes, [not_tried, unknown], "before the id is looked at");
    let abortable = E::TransactionAbortable.code();
    assert_eq!(producer.add_as_broker(&mut client, true, "t", 0), abortable);
    assert_eq!(producer.add(&mut client, 0, &[("t", 0)]), [0]);
    assert_eq!(producer.add_as_broker(&mut client, true, "t", 0), 0);
    broker.stop();
}

/// A batch of a transaction without a key, which a compacted topic does not take.
fn keyless(id: i64, epoch: i16) -> Bytes {
    let builder = BatchBuilder::new().producer(id, epoch, 0).transactional();
    let builder = builder.push(None, Some(b"v"), &[], common::now_ms());
    builder.finish().unwrap()
}

/// What is answered of each partition: code, log's start, reason.
fn produced(
    client: &mut Client,
    (version, acks, id): (i16, i16, &'static str),
    batches: &[(&str, i32, Bytes)],
) -> Vec<(i16, i64, Option<String>)> {
    let topics = batches.iter().map(|(topic, index, records)| {
        let data = PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some(records.clone()));
        TopicProduceData::default()
            .with_name(name(topic))
            .with_partition_data(vec![data])
    });
    let request = ProduceRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_acks(acks)
        .with_timeout_ms(5000)
        .with_topic_data(topics.collect());
    let answer = client.ask(version, &request);
    let partitions = answer.responses.into_iter();
    let partitions = partitions.flat_map(|topic| topic.partition_responses);
    let told = partitions.map(|one| {
        let reason = one.error_message.map(|text| text.to_string());
        (one.error_code, one.log_start_offset, reason)
    });
    told.collect()
}

/// Kafka's ReplicaManager.handleProduceAppend.
#[test]
fn what_the_coordinator_says_of_a_batch_comes_before_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["log.cleanup.policy=compact"]);
    let mut client = broker.client();
    client.create("t");
    let producer = init(&mut client, "app");
    let batch = keyless(producer.id, producer.epoch);
    let not_added = "Partition was not added to the transaction".to_owned();
    let not_added = (E::InvalidTxnState.code(), -1, Some(not_added));
    for acks in [-1, 5] {
        let of = [("t", 0, batch.clone()), ("t", 9, batch.clone())];
        let told = produced(&mut client, (9, acks, "app"), &of);
        let missing = (E::UnknownTopicOrPartition.code(), -1, None);
        assert_eq!(told, [not_added.clone(), missing], "acks={acks}");
    }
    let of = [("t", 0, batch.clone())];
    let unknown = (E::InvalidProducerIdMapping.code(), -1, None);
    let told = produced(&mut client, (9, -1, "other"), &of);
    assert_eq!(told, [unknown]);
    // But for what no request carries (ProduceRequest.validateRecords): nothing becomes part of the transaction by it.
    let twice = [("t", 0, [batch.clone(), batch.clone()].concat().into())];
    for version in [9, 12] {
        let told = produced(&mut client, (version, -1, "app"), &twice);
        assert_eq!(told, [(E::InvalidRecord.code(), -1, None)]);
    }
    assert_eq!(state(&mut client, "app"), "Empty");

    assert_eq!(producer.add(&mut client, 3, &[("t", 0)]), [0]);
    let told = produced(&mut client, (9, 5, "app"), &of);
    assert_eq!(told, [(E::InvalidRequiredAcks.code(), -1, None)]);
    let told = produced(&mut client, (9, -1, "app"), &of);
    let text = told[0].2.clone().unwrap();
    assert_eq!((told[0].0, told[0].1), (E::InvalidRecord.code(), 0));
    assert!(text.contains("without key"), "{text}");
    broker.stop();
}

#[test]
fn a_request_has_batches_of_one_transaction_alone_as_far_as_their_partitions_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    client.create("u");
    let producer = init(&mut client, "app");
    assert_eq!(producer.add(&mut client, 3, &[("t", 0)]), [0]);
    let (own, others) = (keyless(producer.id, 0), keyless(producer.id + 1, 0));
    let several = "Transactional records contained more than one producer ID".to_owned();
    let several = (E::InvalidProducerIdMapping.code(), -1, Some(several));
    let of = [("t", 0, own.clone()), ("u", 0, others.clone())];
    let told = produced(&mut client, (9, -1, "app"), &of);
    assert_eq!(told, [several.clone(), several]);
    let of = [("t", 0, own), ("u", 9, others)];
    let told = produced(&mut client, (9, -1, "app"), &of);
    let missing = (E::UnknownTopicOrPartition.code(), -1, None);
    assert_eq!(told, [(0, 0, None), missing]);
    broker.stop();
}

#[test]
fn a_fenced_producer_is_told_so_in_words_that_its_version_knows() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let first = init(&mut client, "app");
    assert_eq!(first.add(&mut client, 3, &[("t", 0)]), [0]);
    let second = init(&mut client, "app");
    assert_eq!(second, first.bumped().bumped(), "aborted, then begun");
    let (fenced, old) = (E::ProducerFenced, E::InvalidProducerEpoch);
    assert_eq!(first.add(&mut client, 1, &[("t", 0)]), [old.code()]);
    assert_eq!(first.add(&mut client, 2, &[("t", 0)]), [fenced.code()]);
    assert_eq!(first.end(&mut client, 1, true), Err(old));
    assert_eq!(first.end(&mut client, 2, true), Err(fenced));
    let offsets = AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id("app"))
        .with_producer_id(ProducerId(first.id))
        .with_producer_epoch(first.epoch)
        .with_group_id(GroupId(StrBytes::from_static_str("g")));
    assert_eq!(client.ask(1, &offsets).error_code, old.code());
    assert_eq!(client.ask(2, &offsets).error_code, fenced.code());
    let request = init_request("app")
        .with_producer_id(ProducerId(first.id))
        .with_producer_epoch(first.epoch);
    assert_eq!(init_with(&mut client, 3, "app", &request), Err(old));
    assert_eq!(init_with(&mut client, 4, "app", &request), Err(fenced));
    broker.stop();
}

#[test]
fn what_no_producer_may_begin_with_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["maxTxTimeoutInSeconds=60"]);
    let mut client = broker.client();
    let mut refused = |version, request: &InitProducerIdRequest| {
        init_with(&mut client, version, "app", request).unwrap_err()
    };
    for timeout_ms in [0, -1, 60_001, i32::MAX] {
        let request = init_request("app").with_transaction_timeout_ms(timeout_ms);
        assert_eq!(refused(5, &request), E::InvalidTransactionTimeout);
    }
    let two_phases = init_request("app").with_enable_2_pc(true);
    assert_eq!(
        refused(6, &two_phases),
        E::TransactionalIdAuthorizationFailed
    );
    assert_eq!(refused(5, &init_request("")), E::InvalidRequest);
    assert_eq!(
        describe(&mut broker.client(), "app").error_code,
        E::TransactionalIdNotFound.code()
    );
    broker.stop();
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let request = init_request("app").with_transaction_timeout_ms(300);
    let producer = init_with(&mut client, 4, "app", &request).unwrap();
    assert_eq!(producer.add(&mut client, 3, &[("t", 0)]), [0]);
    wait_for_state(&mut client, "app", "CompleteAbort");
    assert_eq!(end_offset(&mut client, "t"), 1);
    let fenced = E::ProducerFenced.code();
    assert_eq!(producer.add(&mut client, 3, &[("t", 0)]), [fenced]);
    let told = broker.page("/api/events?kind=transaction");
    assert!(told.contains("aborted: it took too long"), "{told}");
    broker.stop();
}

#[test]
fn a_groups_offsets_are_part_of_a_transaction_as_the_partition_of_its_slot() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let producer = init(&mut client, "app");
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id("app"))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(GroupId(StrBytes::from_static_str("g")));
    assert_eq!(client.ask(3, &request).error_code, 0);
    let found = describe(&mut client, "app");
    let topic = &found.topics[0];
    assert_eq!(topic.topic.as_str(), "__consumer_offsets");
    assert_eq!(topic.partitions, [24], "the slot of g");
    assert_eq!(producer.end(&mut client, 3, true), Ok(producer));
    wait_for_state(&mut client, "app", "CompleteCommit");
    broker.stop();
}

#[test]
fn a_deleted_topic_does_not_hold_up_the_end_of_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    client.create("u");
    let producer = init(&mut client, "app");
    assert_eq!(producer.add(&mut client, 3, &[("t", 0), ("u", 0)]), [0, 0]);
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("u")])
        .with_timeout_ms(10_000);
    assert_eq!(client.ask(5, &delete).responses[0].error_code, 0);
    assert_eq!(producer.end(&mut client, 3, true), Ok(producer));
    wait_for_state(&mut client, "app", "CompleteCommit");
    assert_eq!(end_offset(&mut client, "t"), 1);
    broker.stop();
}

#[test]
fn a_transaction_of_two_phases_waits_for_its_next_producer() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let request = init_request("app").with_enable_2_pc(true);
    let first = init_with(&mut client, 6, "app", &request).unwrap();
    assert_eq!(first.add_as_broker(&mut client, false, "t", 0), 0);
    broker.stop();
    let (broker, mut client) = start(dir.path());
    let keep = request.clone().with_keep_prepared_txn(true);
    let answer = client.ask(6, &keep);
    assert_eq!(answer.error_code, 0);
    assert_eq!(answer.ongoing_txn_producer_id.0, first.id);
    assert_eq!(answer.ongoing_txn_producer_epoch, first.epoch);
    assert_eq!(first.end(&mut client, 5, true), Err(E::ProducerFenced));
    let second = first.bumped();
    assert_eq!(answer.producer_epoch, second.epoch);
    assert_eq!(second.end(&mut client, 5, true), Ok(second.bumped()));
    wait_for_state(&mut client, "app", "CompleteCommit");
    let answer = client.ask(6, &keep);
    assert_eq!(answer.ongoing_txn_producer_id.0, -1, "nothing is pending");
    broker.stop();
}

#[test]
fn transactions_are_listed_by_state_producer_age_and_pattern() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let [a, _] = ["app-a", "app-b"].map(|id| init(&mut client, id));
    assert_eq!(a.add(&mut client, 3, &[("t", 0)]), [0]);
    let text = StrBytes::from_static_str;
    let mut list = |request: ListTransactionsRequest| {
        let answer = client.ask(2, &request);
        let found = answer.transaction_states.iter();
        let found = found.map(|found| found.transactional_id.to_string());
        let unknown = answer.unknown_state_filters.len();
        (answer.error_code, found.collect::<Vec<_>>(), unknown)
    };
    let request = || ListTransactionsRequest::default().with_duration_filter(-1);
    let both = (0, vec!["app-a".to_owned(), "app-b".to_owned()], 0);
    assert_eq!(list(request()), both);
    assert_eq!(
        list(request().with_transactional_id_pattern(Some(text("app-.")))),
        both
    );
    let none = (0, vec![], 0);
    assert_eq!(
        list(request().with_transactional_id_pattern(Some(text("app")))),
        none
    );
    let wrong = list(request().with_transactional_id_pattern(Some(text("a)|(b"))));
    assert_eq!(wrong.0, E::InvalidRegularExpression.code());
    let one = (0, vec!["app-a".to_owned()], 0);
    assert_eq!(
        list(request().with_state_filters(vec![text("Ongoing")])),
        one
    );
    assert_eq!(
        list(request().with_state_filters(vec![text("nonsense"), text("nonsense")])),
        (0, vec![], 1)
    );
    assert_eq!(
        list(request().with_producer_id_filters(vec![ProducerId(a.id)])),
        one
    );
    assert_eq!(
        list(request().with_duration_filter(600_000)).1,
        ["app-b"],
        "it has no start, as in Kafka"
    );
    broker.stop();
}

#[test]
fn version_2_of_transactions_is_finalized_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    for (version, supported) in [(3, 0), (4, 4)] {
        let answer = client.ask(version, &request);
        let finalized = answer.finalized_features.iter();
        let levels: Vec<(&str, i16)> = finalized
            .map(|feature| (feature.name.as_str(), feature.max_version_level))
            .collect();
        let all = [
            ("group.version", 1),
            ("share.version", 2),
            ("streams.version", 1),
            ("transaction.version", 2),
        ];
        assert_eq!(levels, all);
        assert!(answer.finalized_features_epoch >= 0);
        assert_eq!(answer.supported_features.len(), supported);
    }
    let mut update = |level| {
        let update = update_features_request::FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str("transaction.version"))
            .with_max_version_level(level)
            .with_upgrade_type(1);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        client.ask(1, &request).error_code
    };
    assert_eq!(update(2), 0);
    assert_eq!(update(1), E::InvalidUpdateVersion.code());
    assert_eq!(update(3), E::InvalidUpdateVersion.code());
    broker.stop();
}

/// What was answered holds, and the next owner writes what is missing.
fn ends_outlive_kills(node: &mut Node) {
    let mut client = node.client();
    cluster::create(&mut client, "t", 1);
    let mut producer = init(&mut client, "app");
    for n in 0..4 {
        within(LONG, "the partition is added", || {
            producer.add_as_broker(&mut client, false, "t", 0) == 0
        });
        let commit = n % 2 == 0;
        let next = producer.end(&mut client, 5, commit).unwrap();
        node.kill();
        node.launch();
        client = node.client();
        within(LONG, "the same answer", || {
            producer.end(&mut client, 5, commit) == Ok(next)
        });
        // A marker that was written before the kill is written once more where that was not stored.
        assert!(end_offset(&mut client, "t") > n);
        producer = next;
    }
}

#[test]
fn an_end_that_was_answered_outlives_a_kill() {
    for flush in ["0", "1", "2"] {
        let dir = tempfile::tempdir().unwrap();
        let setting = format!("flushTxLogAtCommit={flush}");
        ends_outlive_kills(&mut Node::start(dir.path(), 0, "", &[&setting]));
    }
}

#[test]
fn an_end_that_was_answered_outlives_a_kill_on_zookeeper() {
    let mut cluster = cluster::Cluster::start(1, &[]);
    ends_outlive_kills(&mut cluster.nodes[0]);
}

/// What `metaq txn` says, or why it fails.
fn txn(broker: &Running, args: &[&str]) -> Result<String, String> {
    let address = broker.broker().dashboard_address().unwrap().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_metaq"))
        .arg("txn")
        .args(args)
        .args(["--json", "--dashboard", &address])
        .env("METAQ_TOKEN", broker.broker().dashboard_token().unwrap().0)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[test]
fn an_operator_sees_a_transaction_of_two_phases_and_decides_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client) = start(dir.path());
    let request = init_request("pay/1").with_enable_2_pc(true);
    let producer = init_with(&mut client, 6, "pay/1", &request).unwrap();
    assert_eq!(producer.add_as_broker(&mut client, false, "t", 0), 0);
    let listed: serde_json::Value =
        serde_json::from_str(&txn(&broker, &["list", "--open"]).unwrap()).unwrap();
    assert_eq!(listed[0]["transactional_id"], "pay/1");
    assert_eq!(listed[0]["state"], "Ongoing");
    assert_eq!(listed[0]["two_phase"], true);
    assert!(listed[0]["age_ms"].as_i64().unwrap() >= 0);
    let described = txn(&broker, &["describe", "pay/1"]).unwrap();
    assert!(described.contains("\"topic\": \"t\""), "{described}");
    let page = broker.page("/transactions/pay%2F1");
    assert!(
        page.contains("two phases") && page.contains("Commit"),
        "{page}"
    );
    txn(&broker, &["commit", "pay/1"]).unwrap();
    wait_for_state(&mut client, "pay/1", "CompleteCommit");
    assert_eq!(end_offset(&mut client, "t"), 1);
    assert_eq!(producer.end(&mut client, 5, false), Err(E::InvalidTxnState));
    let listed = txn(&broker, &["list", "--open"]).unwrap();
    assert!(listed.contains("\"outcome\": \"commit\""), "{listed}");
    assert!(broker.page("/transactions").contains("decided: commit"));
    let keep = request.with_keep_prepared_txn(true);
    let answer = client.ask(6, &keep);
    assert_eq!(
        answer.ongoing_txn_producer_id.0, -1,
        "its client learns that it is over"
    );
    txn(&broker, &["forget", "pay/1"]).unwrap();
    assert_eq!(txn(&broker, &["list", "--open"]).unwrap().trim(), "[]");
    let twice = txn(&broker, &["commit", "pay/1"]).unwrap_err();
    assert!(twice.contains("no open transaction"), "{twice}");
    let again = txn(&broker, &["forget", "pay/1"]).unwrap_err();
    assert!(
        again.contains("no recorded decision about pay/1"),
        "{again}"
    );
    let one = init_request("one");
    let producer = init_with(&mut client, 6, "one", &one).unwrap();
    assert_eq!(producer.add_as_broker(&mut client, false, "t", 0), 0);
    let commit = txn(&broker, &["commit", "one"]).unwrap_err();
    assert!(
        commit.contains("has one phase: it can only be aborted"),
        "{commit}"
    );
    assert!(!commit.contains('{'), "{commit}");
    txn(&broker, &["abort", "one"]).unwrap();
    let unknown = txn(&broker, &["abort", "nobody"]).unwrap_err();
    assert!(unknown.contains("no such transactional id"), "{unknown}");
    broker.stop();
}

/// The broker that coordinates a transactional id, as a broker says it.
fn coordinator_of(node: &Node, id: &'static str) -> Option<i32> {
    let find = FindCoordinatorRequest::default()
        .with_key_type(1)
        .with_coordinator_keys(vec![StrBytes::from_static_str(id)]);
    let answer = node.client().ask(4, &find);
    let found = &answer.coordinators[0];
    (found.error_code == 0).then_some(found.node_id.0)
}

/// The end offset of each partition, as its leader says it.
fn end_offsets(cluster: &cluster::Cluster, topic: &str) -> Vec<i64> {
    let leaders = cluster.nodes[0].leaders(topic);
    let of = |(index, (leader, _)): (usize, &(i32, i16))| {
        let mut client = cluster.nodes[*leader as usize].client();
        end_offset_in(&mut client, topic, index as i32)
    };
    leaders.iter().enumerate().map(of).collect()
}

#[test]
fn markers_go_to_the_leaders_of_all_brokers() {
    let cluster = cluster::Cluster::start(3, &[]);
    cluster.create(0, "t", 6);
    let at = coordinator_of(&cluster.nodes[0], "app").unwrap();
    let mut client = cluster.nodes[at as usize].client();
    let mut producer = init(&mut client, "app");
    let all: Vec<(&str, i32)> = (0..6).map(|index| ("t", index)).collect();
    for n in 1..=5 {
        within(LONG, "the partitions are added", || {
            producer.add(&mut client, 3, &all) == [0; 6]
        });
        producer = producer.end(&mut client, 5, n % 2 == 0).unwrap();
        within(LONG, "every leader has a marker more", || {
            end_offsets(&cluster, "t") == [n; 6]
        });
    }
    let other = cluster.other_than(at).client();
    let refused = init_with(&mut { other }, 4, "app", &init_request("app"));
    assert_eq!(refused, Err(E::NotCoordinator));
}

#[test]
fn the_next_coordinator_writes_the_markers_that_are_missing() {
    let mut cluster = cluster::Cluster::start(3, &[cluster::SHORT_SESSION]);
    cluster.create(0, "t", 6);
    let at = coordinator_of(&cluster.nodes[0], "app").unwrap();
    let mut client = cluster.nodes[at as usize].client();
    let producer = init(&mut client, "app");
    let leaders = cluster.nodes[0].leaders("t");
    let elsewhere = |index: &i32| leaders[*index as usize].0 != at;
    let lasting: Vec<i32> = (0..6).filter(elsewhere).collect();
    let added: Vec<(&str, i32)> = lasting.iter().map(|index| ("t", *index)).collect();
    within(LONG, "the partitions are added", || {
        producer.add(&mut client, 3, &added) == [0; 4]
    });
    let next = producer.end(&mut client, 5, true).unwrap();
    cluster.nodes[at as usize].kill();
    let left = cluster.other_than(at);
    within(LONG, "another coordinator gives the same answer", || {
        let now = coordinator_of(left, "app").filter(|now| *now != at);
        now.is_some_and(|now| {
            let mut client = cluster.nodes[now as usize].client();
            producer.end(&mut client, 5, true) == Ok(next)
        })
    });
    for index in lasting {
        let mut client = cluster.nodes[leaders[index as usize].0 as usize].client();
        assert!(
            end_offset_in(&mut client, "t", index) >= 1,
            "partition {index}"
        );
    }
}
