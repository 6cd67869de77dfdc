//! A ShareFetch response whose record bytes stay where they are, as [`fetch_response`](crate::fetch_response) does it.
//!
//! Body of versions 1 and 2: throttle i32 · error i16 · message · lock timeout i32 · topics: id; partitions: index i32, error i16,
//! message, acknowledge error i16, message, leader i32, leader epoch i32, records, acquired records (first i64, last i64, delivery
//! count i16) · endpoints: id i32, host, port i32, rack. Every structure ends with tagged fields, of which there are none.

use bytes::{BufMut, BytesMut};

use crate::fetch_response::{FetchPiece, set_length};
use crate::frame::FrameError;
use crate::messages::ShareFetchResponse;
use crate::messages::share_fetch_response::PartitionData;

/// Encodes a whole frame, length prefix and header included. `records_bytes` says how many bytes of records follow, by the
/// position of the topic and of the partition; those in the response itself do not count.
pub fn encode(
    version: i16,
    correlation_id: i32,
    response: &ShareFetchResponse,
    records_bytes: impl Fn(usize, usize) -> usize,
) -> Result<Vec<FetchPiece>, FrameError> {
    let mut out = Out(BytesMut::with_capacity(256));
    let mut pieces = Vec::new();
    let (mut total, mut records_total) = (0, 0);
    out.0.put_i32(0);
    out.0.put_i32(correlation_id);
    out.tags();
    out.0.put_i32(response.throttle_time_ms);
    out.0.put_i16(response.error_code);
    out.text(response.error_message.as_deref());
    out.0.put_i32(response.acquisition_lock_timeout_ms);
    out.length(response.responses.len());
    for (t, topic) in response.responses.iter().enumerate() {
        out.0.put_slice(topic.topic_id.as_bytes());
        out.length(topic.partitions.len());
        for (p, partition) in topic.partitions.iter().enumerate() {
            let records = records_bytes(t, p);
            out.partition(partition, records);
            if records > 0 {
                total += out.0.len();
                records_total += records;
                pieces.push(FetchPiece::Skeleton(out.0.split().freeze()));
                pieces.push(FetchPiece::Records {
                    topic: t,
                    partition: p,
                });
            }
            out.acquired(partition);
        }
        out.tags();
    }
    out.length(response.node_endpoints.len());
    for endpoint in &response.node_endpoints {
        out.0.put_i32(endpoint.node_id.0);
        out.text(Some(&endpoint.host));
        out.0.put_i32(endpoint.port);
        out.text(endpoint.rack.as_deref());
        out.tags();
    }
    out.tags();
    total += out.0.len();
    pieces.push(FetchPiece::Skeleton(out.0.freeze()));
    let length = total + records_total - 4;
    set_length(&mut pieces, length, ("ShareFetch", version))?;
    Ok(pieces)
}

struct Out(BytesMut);

impl Out {
    /// Up to the records.
    fn partition(&mut self, partition: &PartitionData, records_bytes: usize) {
        self.0.put_i32(partition.partition_index);
        self.0.put_i16(partition.error_code);
        self.text(partition.error_message.as_deref());
        self.0.put_i16(partition.acknowledge_error_code);
        self.text(partition.acknowledge_error_message.as_deref());
        self.0.put_i32(partition.current_leader.leader_id);
        self.0.put_i32(partition.current_leader.leader_epoch);
        self.tags();
        self.length(records_bytes);
    }

    /// After the records.
    fn acquired(&mut self, partition: &PartitionData) {
        self.length(partition.acquired_records.len());
        for acquired in &partition.acquired_records {
            self.0.put_i64(acquired.first_offset);
            self.0.put_i64(acquired.last_offset);
            self.0.put_i16(acquired.delivery_count);
            self.tags();
        }
        self.tags();
    }

    fn tags(&mut self) {
        self.0.put_u8(0);
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            None => self.0.put_u8(0),
            Some(text) => {
                self.length(text.len());
                self.0.put_slice(text.as_bytes());
            }
        }
    }

    /// A length and one more, as a varint.
    fn length(&mut self, length: usize) {
        let mut value = length as u64 + 1;
        while value >= 0x80 {
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::protocol::StrBytes;
    use uuid::Uuid;

    use super::*;
    use crate::frame::encode_response;
    use crate::messages::share_fetch_response::{
        AcquiredRecords, LeaderIdAndEpoch, NodeEndpoint, ShareFetchableTopicResponse,
    };
    use crate::messages::{ApiKey, BrokerId};

    /// All pieces one after the other, with these records.
    fn joined(pieces: Vec<FetchPiece>, records: impl Fn(usize, usize) -> Bytes) -> Bytes {
        let mut all = BytesMut::new();
        for piece in pieces {
            match piece {
                FetchPiece::Skeleton(bytes) => all.extend_from_slice(&bytes),
                FetchPiece::Records { topic, partition } => {
                    all.extend_from_slice(&records(topic, partition));
                }
            }
        }
        all.freeze()
    }

    fn partition(index: i32, records: usize) -> PartitionData {
        let acquired = AcquiredRecords::default()
            .with_first_offset(5)
            .with_last_offset(i64::MAX)
            .with_delivery_count(3);
        let leader = LeaderIdAndEpoch::default()
            .with_leader_id(1)
            .with_leader_epoch(2);
        PartitionData::default()
            .with_partition_index(index)
            .with_error_code(3)
            .with_error_message(Some(StrBytes::from_static_str("why")))
            .with_acknowledge_error_code(121)
            .with_acknowledge_error_message((index > 0).then(|| StrBytes::from_static_str("")))
            .with_current_leader(leader)
            .with_records(Bytes::from(vec![7; records]))
            .with_acquired_records(vec![acquired; index as usize])
    }

    fn response(sizes: &[Vec<usize>]) -> ShareFetchResponse {
        let topics = sizes.iter().enumerate().map(|(n, sizes)| {
            let partitions = sizes.iter().enumerate();
            ShareFetchableTopicResponse::default()
                .with_topic_id(Uuid::from_u128(n as u128))
                .with_partitions(
                    partitions
                        .map(|(index, size)| partition(index as i32, *size))
                        .collect(),
                )
        });
        let endpoint = NodeEndpoint::default()
            .with_node_id(BrokerId(7))
            .with_host(StrBytes::from_static_str("broker-7"))
            .with_port(9092)
            .with_rack(Some(StrBytes::from_static_str("r")));
        ShareFetchResponse::default()
            .with_throttle_time_ms(5)
            .with_error_code(-1)
            .with_error_message(Some(StrBytes::from_static_str("no")))
            .with_acquisition_lock_timeout_ms(30_000)
            .with_responses(topics.collect())
            .with_node_endpoints(vec![endpoint; sizes.len()])
    }

    #[test]
    fn a_response_around_records_is_byte_for_byte_the_response_with_them() {
        for sizes in [
            vec![],
            vec![vec![]],
            vec![vec![0, 300, 1], vec![0], vec![127, 128]],
        ] {
            let response = response(&sizes);
            for version in [1, 2] {
                let whole = encode_response(ApiKey::ShareFetch as i16, version, 9, &response);
                let pieces = encode(version, 9, &response, |t, p| sizes[t][p]).unwrap();
                let records =
                    |t: usize, p: usize| response.responses[t].partitions[p].records.clone();
                assert_eq!(joined(pieces, records), whole.unwrap());
            }
        }
    }
}
