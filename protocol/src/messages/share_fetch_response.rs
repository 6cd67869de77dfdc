//! ShareFetchResponse (key 78, v1–v2).
//!
//! Written by schemas/generate.py from ShareFetchResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// ShareFetchResponse (key 78, v1–v2).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ShareFetchResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// The top-level response error code.
    pub error_code: i16,
    /// The top-level error message, or null if there was no error.
    pub error_message: Option<StrBytes>,
    /// The time in milliseconds for which the acquired records are locked.
    pub acquisition_lock_timeout_ms: i32,
    /// The response topics.
    pub responses: Vec<ShareFetchableTopicResponse>,
    /// Endpoints for all current leaders enumerated in PartitionData with error NOT_LEADER_OR_FOLLOWER.
    pub node_endpoints: Vec<NodeEndpoint>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ShareFetchResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.throttle_time_ms.write(out, form)?;
        self.error_code.write(out, form)?;
        self.error_message.write(out, form)?;
        self.acquisition_lock_timeout_ms.write(out, form)?;
        self.responses.write(out, form)?;
        self.node_endpoints.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            error_message: Wire::read(input, form)?,
            acquisition_lock_timeout_ms: Wire::read(input, form)?,
            responses: Wire::read(input, form)?,
            node_endpoints: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ShareFetchResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_error_code => error_code: i16,
    with_error_message => error_message: Option<StrBytes>,
    with_acquisition_lock_timeout_ms => acquisition_lock_timeout_ms: i32,
    with_responses => responses: Vec<ShareFetchableTopicResponse>,
    with_node_endpoints => node_endpoints: Vec<NodeEndpoint>,
} }

/// The response topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ShareFetchableTopicResponse {
    /// The unique topic ID.
    pub topic_id: Uuid,
    /// The topic partitions.
    pub partitions: Vec<PartitionData>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ShareFetchableTopicResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.topic_id.write(out, form)?;
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            topic_id: Wire::read(input, form)?,
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ShareFetchableTopicResponse {
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<PartitionData>,
} }

/// The topic partitions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionData {
    /// The partition index.
    pub partition_index: i32,
    /// The fetch error code, or 0 if there was no fetch error.
    pub error_code: i16,
    /// The fetch error message, or null if there was no fetch error.
    pub error_message: Option<StrBytes>,
    /// The acknowledge error code, or 0 if there was no acknowledge error.
    pub acknowledge_error_code: i16,
    /// The acknowledge error message, or null if there was no acknowledge error.
    pub acknowledge_error_message: Option<StrBytes>,
    /// The current leader of the partition.
    pub current_leader: LeaderIdAndEpoch,
    /// The record data.
    pub records: Bytes,
    /// The acquired records.
    pub acquired_records: Vec<AcquiredRecords>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for PartitionData {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.error_code.write(out, form)?;
        self.error_message.write(out, form)?;
        self.acknowledge_error_code.write(out, form)?;
        self.acknowledge_error_message.write(out, form)?;
        self.current_leader.write(out, form)?;
        self.records.write(out, form)?;
        self.acquired_records.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            error_message: Wire::read(input, form)?,
            acknowledge_error_code: Wire::read(input, form)?,
            acknowledge_error_message: Wire::read(input, form)?,
            current_leader: Wire::read(input, form)?,
            records: Wire::read(input, form)?,
            acquired_records: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { PartitionData {
    with_partition_index => partition_index: i32,
    with_error_code => error_code: i16,
    with_error_message => error_message: Option<StrBytes>,
    with_acknowledge_error_code => acknowledge_error_code: i16,
    with_acknowledge_error_message => acknowledge_error_message: Option<StrBytes>,
    with_current_leader => current_leader: LeaderIdAndEpoch,
    with_records => records: Bytes,
    with_acquired_records => acquired_records: Vec<AcquiredRecords>,
} }

/// The current leader of the partition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LeaderIdAndEpoch {
    /// The ID of the current leader or -1 if the leader is unknown.
    pub leader_id: i32,
    /// The latest known leader epoch.
    pub leader_epoch: i32,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for LeaderIdAndEpoch {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.leader_id.write(out, form)?;
        self.leader_epoch.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            leader_id: Wire::read(input, form)?,
            leader_epoch: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { LeaderIdAndEpoch {
    with_leader_id => leader_id: i32,
    with_leader_epoch => leader_epoch: i32,
} }

/// The acquired records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AcquiredRecords {
    /// The earliest offset in this batch of acquired records.
    pub first_offset: i64,
    /// The last offset of this batch of acquired records.
    pub last_offset: i64,
    /// The delivery count of this batch of acquired records.
    pub delivery_count: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for AcquiredRecords {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.first_offset.write(out, form)?;
        self.last_offset.write(out, form)?;
        self.delivery_count.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            first_offset: Wire::read(input, form)?,
            last_offset: Wire::read(input, form)?,
            delivery_count: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { AcquiredRecords {
    with_first_offset => first_offset: i64,
    with_last_offset => last_offset: i64,
    with_delivery_count => delivery_count: i16,
} }

/// Endpoints for all current leaders enumerated in PartitionData with error NOT_LEADER_OR_FOLLOWER.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeEndpoint {
    /// The ID of the associated node.
    pub node_id: BrokerId,
    /// The node's hostname.
    pub host: StrBytes,
    /// The node's port.
    pub port: i32,
    /// The rack of the node, or null if it has not been assigned to a rack.
    pub rack: Option<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for NodeEndpoint {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.node_id.write(out, form)?;
        self.host.write(out, form)?;
        self.port.write(out, form)?;
        self.rack.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            node_id: Wire::read(input, form)?,
            host: Wire::read(input, form)?,
            port: Wire::read(input, form)?,
            rack: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { NodeEndpoint {
    with_node_id => node_id: BrokerId,
    with_host => host: StrBytes,
    with_port => port: i32,
    with_rack => rack: Option<StrBytes>,
} }

message!(ShareFetchResponse, versions 1 to 2, flexible from 0, headers 0 and 1);
