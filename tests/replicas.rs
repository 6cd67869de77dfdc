//! Who leads and who is in sync, as the controller writes it.

mod common;

use common::{Client, Running, name};
use metaq::api::FORWARDED;
use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerId, MetadataRequest,
};
use uuid::Uuid;

fn id_of(client: &mut Client, topic: &str) -> Uuid {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    client.ask(12, &request).topics[0].topic_id
}

/// A leader's proposal, as a version has it.
fn proposal(
    version: i16,
    topic_id: Uuid,
    (broker, registration): (i32, i64),
    isr: &[i32],
) -> AlterPartitionRequest {
    let member = |id: &i32| {
        BrokerState::default()
            .with_broker_id(BrokerId(*id))
            .with_broker_epoch(-1)
    };
    let partition = match version {
        2 => PartitionData::default().with_new_isr(isr.iter().map(|id| BrokerId(*id)).collect()),
        _ => PartitionData::default().with_new_isr_with_epochs(isr.iter().map(member).collect()),
    };
    let topic = TopicData::default()
        .with_topic_id(topic_id)
        .with_partitions(vec![partition]);
    AlterPartitionRequest::default()
        .with_broker_id(BrokerId(broker))
        .with_broker_epoch(registration)
        .with_topics(vec![topic])
}

#[test]
fn a_leaders_proposal_is_taken_from_a_broker_and_from_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    let id = id_of(&mut client, "t");
    let code = ResponseError::code;
    let mut ask = |request: AlterPartitionRequest, version| -> AlterPartitionResponse {
        client.send_as(FORWARDED, version, &request);
        client.receive::<AlterPartitionRequest>(version).1
    };
    for version in [2, 3] {
        let answer = ask(proposal(version, id, (0, 1), &[0]), version);
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((answer.error_code, partition.error_code), (0, 0));
        assert_eq!((partition.leader_id.0, partition.partition_epoch), (0, 0));
        assert_eq!(partition.isr, [BrokerId(0)]);
        let answer = ask(proposal(version, id, (0, 1), &[0, 1]), version);
        let refused = answer.topics[0].partitions[0].error_code;
        assert_eq!(refused, code(&ResponseError::InvalidRequest));
        let answer = ask(proposal(version, Uuid::from_u128(7), (0, 1), &[0]), version);
        let refused = answer.topics[0].partitions[0].error_code;
        assert_eq!(refused, code(&ResponseError::UnknownTopicId));
        let answer = ask(proposal(version, id, (0, 7), &[0]), version);
        assert_eq!(answer.error_code, code(&ResponseError::StaleBrokerEpoch));
        assert!(answer.topics.is_empty());
    }
    let mut other = broker.client();
    other.send(3, &proposal(3, id, (0, 1), &[0]));
    assert!(other.is_closed());
    broker.stop();
}
