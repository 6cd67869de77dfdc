//! A Fetch response whose record bytes stay where they are.
//!
//! The wire crate's encoder copies every record byte. Here the fields around them are encoded into a skeleton
//! with a slot for each partition's records, which the caller fills from files.
//!
//! Body, by version: throttle i32 · (7+) error i16, session i32 · topics: (to 12) name, (13+) id; partitions:
//! index i32, error i16, high watermark i64, last stable i64, (5+) log start i64, aborted transactions,
//! (11+) preferred replica i32, records · tagged fields from 12 on: of a partition 0 the diverging epoch, 1 the current
//! leader; of the whole (16+) 0 the endpoints of current leaders.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::frame::FrameError;
use crate::messages::fetch_response::NodeEndpoint;

const FLEXIBLE_FROM: i16 = 12;
const TOPIC_IDS_FROM: i16 = 13;
const ENDPOINTS_FROM: i16 = 16;

/// A whole answer, but for the records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fetched {
    /// Milliseconds.
    pub throttle_ms: i32,
    /// 0 for none; sent from version 7 on.
    pub error_code: i16,
    /// 0 for none; sent from version 7 on.
    pub session_id: i32,
    /// In the order in which they are sent.
    pub topics: Vec<FetchedTopic>,
    /// Where the current leaders are that partitions name; sent from version 16 on.
    pub endpoints: Vec<NodeEndpoint>,
}

/// One partition's part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchedPartition {
    /// Partition index.
    pub index: i32,
    /// 0 for none.
    pub error_code: i16,
    /// -1 with an error.
    pub high_watermark: i64,
    /// -1 with an error.
    pub last_stable_offset: i64,
    /// -1 with an error.
    pub log_start_offset: i64,
    /// Producer id and first offset of each; `None` for read-uncommitted readers.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Largest epoch that the log shares with the reader, and where it ends; sent from version 12 on.
    pub diverging_epoch: Option<(i32, i64)>,
    /// Leader and its epoch, for a reader that asked another broker or in an old epoch; sent from version 12 on.
    pub current_leader: Option<(i32, i32)>,
    /// The replica that the reader is to read from instead (KIP-392); sent from version 11 on.
    pub preferred_read_replica: Option<i32>,
    /// How many bytes of records follow.
    pub records_bytes: usize,
}

/// One topic's part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchedTopic {
    /// Name, sent up to version 12.
    pub name: String,
    /// Id, sent from version 13 on.
    pub id: Uuid,
    /// Its partitions.
    pub partitions: Vec<FetchedPartition>,
}

/// A part of an encoded response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchPiece {
    /// Bytes to send.
    Skeleton(Bytes),
    /// Here go the records of this partition of this topic.
    Records {
        /// Index into the topics.
        topic: usize,
        /// Index into its partitions.
        partition: usize,
    },
}

/// Encodes a whole frame, length prefix and header included.
pub fn encode(
    version: i16,
    correlation_id: i32,
    fetched: &Fetched,
) -> Result<Vec<FetchPiece>, FrameError> {
    let flexible = version >= FLEXIBLE_FROM;
    let mut out = Out {
        bytes: BytesMut::with_capacity(64 + 96 * fetched.topics.len()),
        flexible,
    };
    let mut pieces = Vec::new();
    let (mut total, mut records_total) = (0usize, 0usize);
    out.bytes.put_i32(0);
    out.bytes.put_i32(correlation_id);
    out.tags();
    out.bytes.put_i32(fetched.throttle_ms);
    if version >= 7 {
        out.bytes.put_i16(fetched.error_code);
        out.bytes.put_i32(fetched.session_id);
    }
    out.length(fetched.topics.len());
    for (t, topic) in fetched.topics.iter().enumerate() {
        if version >= TOPIC_IDS_FROM {
            out.bytes.put_slice(topic.id.as_bytes());
        } else {
            out.string(&topic.name);
        }
        out.length(topic.partitions.len());
        for (p, partition) in topic.partitions.iter().enumerate() {
            out.partition(version, partition);
            if partition.records_bytes > 0 {
                total += out.bytes.len();
                records_total += partition.records_bytes;
                pieces.push(FetchPiece::Skeleton(out.bytes.split().freeze()));
                pieces.push(FetchPiece::Records {
                    topic: t,
                    partition: p,
                });
            }
            out.partition_tags(partition);
        }
        out.tags();
    }
    match version >= ENDPOINTS_FROM && !fetched.endpoints.is_empty() {
        true => out.endpoints(&fetched.endpoints),
        false => out.tags(),
    }
    total += out.bytes.len();
    pieces.push(FetchPiece::Skeleton(out.bytes.freeze()));
    let length = total + records_total - 4;
    set_length(&mut pieces, length, ("Fetch", version))?;
    Ok(pieces)
}

/// Writes the length prefix into the first piece.
pub(crate) fn set_length(
    pieces: &mut [FetchPiece],
    length: usize,
    (name, version): (&'static str, i16),
) -> Result<(), FrameError> {
    let too_large = || FrameError::Encode {
        name,
        version,
        what: "larger than 2 GiB".to_owned(),
    };
    let length = i32::try_from(length).map_err(|_| too_large())?;
    if let Some(FetchPiece::Skeleton(first)) = pieces.first_mut() {
        let mut bytes = BytesMut::from(&first[..]);
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        *first = bytes.freeze();
    }
    Ok(())
}

struct Out {
    bytes: BytesMut,
    flexible: bool,
}

impl Out {
    fn partition(&mut self, version: i16, partition: &FetchedPartition) {
        self.bytes.put_i32(partition.index);
        self.bytes.put_i16(partition.error_code);
        self.bytes.put_i64(partition.high_watermark);
        self.bytes.put_i64(partition.last_stable_offset);
        if version >= 5 {
            self.bytes.put_i64(partition.log_start_offset);
        }
        match &partition.aborted {
            None if self.flexible => self.bytes.put_u8(0),
            None => self.bytes.put_i32(-1),
            Some(aborted) => {
                self.length(aborted.len());
                for (producer_id, first_offset) in aborted {
                    self.bytes.put_i64(*producer_id);
                    self.bytes.put_i64(*first_offset);
                    self.tags();
                }
            }
        }
        if version >= 11 {
            self.bytes
                .put_i32(partition.preferred_read_replica.unwrap_or(-1));
        }
        // Empty, never null: librdkafka fails on null records.
        self.length(partition.records_bytes);
    }

    /// A partition's tagged fields.
    fn partition_tags(&mut self, partition: &FetchedPartition) {
        if !self.flexible {
            return;
        }
        let (diverging, leader) = (partition.diverging_epoch, partition.current_leader);
        self.bytes
            .put_u8(u8::from(diverging.is_some()) + u8::from(leader.is_some()));
        if let Some((epoch, end_offset)) = diverging {
            self.bytes.put_slice(&[0, 13]);
            self.bytes.put_i32(epoch);
            self.bytes.put_i64(end_offset);
            self.tags();
        }
        if let Some((leader_id, leader_epoch)) = leader {
            self.bytes.put_slice(&[1, 9]);
            self.bytes.put_i32(leader_id);
            self.bytes.put_i32(leader_epoch);
            self.tags();
        }
    }

    /// The answer's tagged fields: where current leaders are.
    fn endpoints(&mut self, endpoints: &[NodeEndpoint]) {
        let mut field = Out {
            bytes: BytesMut::new(),
            flexible: true,
        };
        field.length(endpoints.len());
        for endpoint in endpoints {
            field.bytes.put_i32(endpoint.node_id.0);
            field.string(&endpoint.host);
            field.bytes.put_i32(endpoint.port);
            match &endpoint.rack {
                Some(rack) => field.string(rack),
                None => field.bytes.put_u8(0),
            }
            field.tags();
        }
        self.bytes.put_slice(&[1, 0]);
        self.unsigned_varint(field.bytes.len() as u64);
        self.bytes.put_slice(&field.bytes);
    }

    /// No tagged fields.
    fn tags(&mut self) {
        if self.flexible {
            self.bytes.put_u8(0);
        }
    }

    fn length(&mut self, length: usize) {
        if self.flexible {
            self.unsigned_varint(length as u64 + 1);
        } else {
            self.bytes.put_i32(length as i32);
        }
    }

    fn string(&mut self, text: &str) {
        if self.flexible {
            self.unsigned_varint(text.len() as u64 + 1);
        } else {
            self.bytes.put_i16(text.len() as i16);
        }
        self.bytes.put_slice(text.as_bytes());
    }

    fn unsigned_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode_response;
    use crate::messages::fetch_response::{
        AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
    };
    use crate::messages::{BrokerId, FetchResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;
    use proptest::prelude::*;

    fn partition() -> impl Strategy<Value = FetchedPartition> {
        let aborted = proptest::option::of(proptest::collection::vec(
            (any::<i64>(), any::<i64>()),
            0..3,
        ));
        let leader = proptest::option::of((0..i32::MAX, 0..i32::MAX));
        (
            any::<i32>(),
            any::<i16>(),
            any::<i64>(),
            any::<i64>(),
            any::<i64>(),
            aborted,
            proptest::option::of((0..i32::MAX, 0..i64::MAX)),
            leader,
            proptest::option::of(0..i32::MAX),
            0usize..300,
        )
            .prop_map(
                |(
                    index,
                    error_code,
                    high_watermark,
                    last_stable_offset,
                    log_start_offset,
                    aborted,
                    diverging_epoch,
                    current_leader,
                    preferred_read_replica,
                    records_bytes,
                )| {
                    FetchedPartition {
                        index,
                        error_code,
                        high_watermark,
                        last_stable_offset,
                        log_start_offset,
                        aborted,
                        diverging_epoch,
                        current_leader,
                        preferred_read_replica,
                        records_bytes,
                    }
                },
            )
    }

    fn topics() -> impl Strategy<Value = Vec<FetchedTopic>> {
        let topic = (
            "[a-z]{1,200}",
            any::<u128>(),
            proptest::collection::vec(partition(), 0..4),
        )
            .prop_map(|(name, id, partitions)| FetchedTopic {
                name,
                id: Uuid::from_u128(id),
                partitions,
            });
        proptest::collection::vec(topic, 0..4)
    }

    fn endpoints() -> impl Strategy<Value = Vec<NodeEndpoint>> {
        let rack = proptest::option::of("[a-z]{0,9}");
        let endpoint = (any::<i32>(), "[a-z.]{1,150}", any::<i32>(), rack).prop_map(
            |(id, host, port, rack)| {
                NodeEndpoint::default()
                    .with_node_id(BrokerId(id))
                    .with_host(StrBytes::from_string(host))
                    .with_port(port)
                    .with_rack(rack.map(StrBytes::from_string))
            },
        );
        proptest::collection::vec(endpoint, 0..4)
    }

    fn by_the_crate(version: i16, fetched: &Fetched) -> Bytes {
        let flexible = version >= FLEXIBLE_FROM;
        let partition = |p: &FetchedPartition| {
            let aborted = p.aborted.as_ref().map(|all| {
                all.iter()
                    .map(|(id, first)| {
                        AbortedTransaction::default()
                            .with_producer_id((*id).into())
                            .with_first_offset(*first)
                    })
                    .collect()
            });
            let mut data = PartitionData::default()
                .with_partition_index(p.index)
                .with_error_code(p.error_code)
                .with_high_watermark(p.high_watermark)
                .with_last_stable_offset(p.last_stable_offset)
                .with_log_start_offset(if version >= 5 { p.log_start_offset } else { -1 })
                .with_aborted_transactions(aborted)
                .with_records(Some(Bytes::from(vec![7; p.records_bytes])));
            if let (true, Some(id)) = (version >= 11, p.preferred_read_replica) {
                data.preferred_read_replica = BrokerId(id);
            }
            if let (true, Some((epoch, end))) = (flexible, p.diverging_epoch) {
                data.diverging_epoch = EpochEndOffset::default()
                    .with_epoch(epoch)
                    .with_end_offset(end);
            }
            if let (true, Some((id, epoch))) = (flexible, p.current_leader) {
                data.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(id))
                    .with_leader_epoch(epoch);
            }
            data
        };
        let topic = |t: &FetchedTopic| {
            let mut response = FetchableTopicResponse::default()
                .with_partitions(t.partitions.iter().map(partition).collect());
            if version >= TOPIC_IDS_FROM {
                response.topic_id = t.id;
            } else {
                response.topic = TopicName(StrBytes::from_string(t.name.clone()));
            }
            response
        };
        let mut response = FetchResponse::default()
            .with_throttle_time_ms(fetched.throttle_ms)
            .with_responses(fetched.topics.iter().map(topic).collect());
        if version >= 7 {
            response = response
                .with_session_id(fetched.session_id)
                .with_error_code(fetched.error_code);
        }
        if version >= ENDPOINTS_FROM {
            response.node_endpoints = fetched.endpoints.clone();
        }
        encode_response(1, version, 77, &response).unwrap()
    }

    proptest! {
        #[test]
        fn the_pieces_put_together_are_what_the_crate_encodes(
            version in 4i16..=18,
            topics in topics(),
            endpoints in endpoints(),
        ) {
            let fetched = Fetched { throttle_ms: 5, error_code: 3, session_id: 9, topics, endpoints };
            let mut whole = Vec::new();
            for piece in encode(version, 77, &fetched).unwrap() {
                match piece {
                    FetchPiece::Skeleton(bytes) => whole.extend_from_slice(&bytes),
                    FetchPiece::Records { topic, partition } => {
                        let bytes = fetched.topics[topic].partitions[partition].records_bytes;
                        whole.extend(std::iter::repeat_n(7, bytes));
                    }
                }
            }
            prop_assert_eq!(Bytes::from(whole), by_the_crate(version, &fetched));
        }
    }
}
