//! What the newest versions of APIs brought, as Apache Kafka 4.4 answers.

mod common;

use common::{Running, batch, name};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::ListOffsetsRequest;
use metaq_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

/// KIP-1023; there are no tiers, so nothing is about to be uploaded.
#[test]
fn the_earliest_offset_that_is_to_be_uploaded_is_unknown_without_tiers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.create("t");
    assert_eq!(client.produce("t", batch(3)), (0, 0));
    let mut ask = |version, timestamp| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let partition = &client.ask(version, &request).topics[0].partitions[0];
        (
            partition.error_code,
            partition.offset,
            partition.timestamp,
            partition.leader_epoch,
        )
    };
    assert_eq!(ask(11, -6), (0, -1, -1, -1));
    assert_eq!(ask(11, -1), (0, 3, -1, 0));
    let unsupported = ResponseError::UnsupportedVersion.code();
    assert_eq!(ask(10, -6), (unsupported, -1, -1, -1));
    assert_eq!(ask(11, -7), (unsupported, -1, -1, -1));
    broker.stop();
}
