//! A share group's members over the wire, one broker, one topic `t` of one partition.

#![allow(dead_code)] // Each test uses some of it.

use metaq_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use metaq_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use metaq_protocol::messages::share_acknowledge_request::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch as Acknowledged,
};
use metaq_protocol::messages::share_fetch_request::{
    AcknowledgementBatch, FetchPartition, FetchTopic,
};
use metaq_protocol::messages::share_fetch_response::PartitionData;
use metaq_protocol::messages::*;
use metaq_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::common::{self, Client, Running};

pub const GROUP: &str = "g";
/// Of a configuration resource that is a group.
pub const GROUP_RESOURCE: i8 = 32;

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The topic's id.
pub fn id_of(client: &mut Client, topic: &str) -> Uuid {
    let request = MetadataRequest::default().with_topics(Some(vec![
        metadata_request::MetadataRequestTopic::default().with_name(Some(common::name(topic))),
    ]));
    client.ask(12, &request).topics[0].topic_id
}

pub fn set(client: &mut Client, settings: &[(&str, &str)]) {
    let configs = settings.iter().map(|(name, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(GROUP_RESOURCE)
        .with_resource_name(text(GROUP))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.ask(1, &request).responses[0].error_code, 0);
}

pub fn beat(member: &str, epoch: i32, topics: Option<&[&str]>) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_subscribed_topic_names(
            topics.map(|topics| topics.iter().map(|topic| common::name(topic)).collect()),
        )
}

/// First and last offset, and what is said of them.
pub type Says = (i64, i64, &'static [i8]);

/// A member that has joined and reads the topic.
pub struct Member {
    pub client: Client,
    pub id: &'static str,
    pub topic_id: Uuid,
    pub session_epoch: i32,
}

impl Member {
    pub fn join(broker: &Running, id: &'static str, topic: &str) -> Self {
        let mut client = broker.client();
        let joined = client.ask(1, &beat(id, 0, Some(&[topic])));
        assert_eq!(joined.error_code, 0, "{:?}", joined.error_message);
        let assignment = joined.assignment.unwrap();
        assert_eq!(
            assignment.topic_partitions.len(),
            1,
            "with the first answer"
        );
        Self {
            topic_id: id_of(&mut client, topic),
            client,
            id,
            session_epoch: 0,
        }
    }

    pub fn request(&self, wait_ms: i32, says: &[(i64, i64, &[i8])]) -> ShareFetchRequest {
        let said = says.iter().map(|(first, last, types)| {
            AcknowledgementBatch::default()
                .with_first_offset(*first)
                .with_last_offset(*last)
                .with_acknowledge_types(types.to_vec())
        });
        let partition = FetchPartition::default()
            .with_partition_index(0)
            .with_acknowledgement_batches(said.collect());
        let topic = FetchTopic::default()
            .with_topic_id(self.topic_id)
            .with_partitions(vec![partition]);
        ShareFetchRequest::default()
            .with_group_id(Some(GroupId(text(GROUP))))
            .with_member_id(Some(text(self.id)))
            .with_share_session_epoch(self.session_epoch)
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_max_records(500)
            .with_batch_size(500)
            .with_topics(vec![topic])
    }

    pub fn next_epoch(&mut self) {
        self.session_epoch += 1;
    }

    /// Fetches, and says something of earlier records; what the partition answers, if anything.
    pub fn fetch(&mut self, wait_ms: i32, says: &[(i64, i64, &[i8])]) -> Option<PartitionData> {
        let request = self.request(wait_ms, says);
        self.next_epoch();
        let answer = self.client.ask(2, &request);
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        assert_eq!(answer.acquisition_lock_timeout_ms, 30_000);
        let topic = answer.responses.into_iter().next()?;
        topic.partitions.into_iter().next()
    }

    /// What it is given: first, last, how often.
    pub fn take(&mut self, wait_ms: i32, says: &[(i64, i64, &[i8])]) -> Vec<(i64, i64, i16)> {
        let Some(data) = self.fetch(wait_ms, says) else {
            return Vec::new();
        };
        assert_eq!((data.error_code, data.acknowledge_error_code), (0, 0));
        let acquired = data.acquired_records.iter();
        acquired
            .map(|part| (part.first_offset, part.last_offset, part.delivery_count))
            .collect()
    }

    pub fn acknowledge(&mut self, epoch: i32, says: &[(i64, i64, &[i8])]) -> (i16, i16) {
        let said = says.iter().map(|(first, last, types)| {
            Acknowledged::default()
                .with_first_offset(*first)
                .with_last_offset(*last)
                .with_acknowledge_types(types.to_vec())
        });
        let partition = AcknowledgePartition::default()
            .with_partition_index(0)
            .with_acknowledgement_batches(said.collect());
        let topic = AcknowledgeTopic::default()
            .with_topic_id(self.topic_id)
            .with_partitions(vec![partition]);
        let request = ShareAcknowledgeRequest::default()
            .with_group_id(Some(GroupId(text(GROUP))))
            .with_member_id(Some(text(self.id)))
            .with_share_session_epoch(epoch)
            .with_topics(vec![topic]);
        let answer = self.client.ask(2, &request);
        if answer.error_code != 0 {
            return (answer.error_code, 0);
        }
        self.next_epoch();
        (0, answer.responses[0].partitions[0].error_code)
    }
}

/// A broker with topic `t` of one partition, whose share group begins at its beginning.
pub fn broker(dir: &tempfile::TempDir) -> Running {
    let settings = ["numPartitions=1", "group.share.assignment.interval.ms=0"];
    let broker = Running::start(dir.path(), &settings);
    let mut client = broker.client();
    client.create("t");
    set(&mut client, &[("share.auto.offset.reset", "earliest")]);
    broker
}

/// Where the group is with the partition, and its lag.
pub fn offset(client: &mut Client) -> (i64, i64) {
    let group = DescribeShareGroupOffsetsRequestGroup::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_topics(None);
    let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![group]);
    let answer = client.ask(1, &request);
    let group = &answer.groups[0];
    assert_eq!(group.error_code, 0);
    let Some(topic) = group.topics.first() else {
        return (-1, -1);
    };
    let partition = &topic.partitions[0];
    (partition.start_offset, partition.lag)
}
