//! DescribeShareGroupOffsetsResponse (key 90, v0–v1).
//!
//! Written by schemas/generate.py from DescribeShareGroupOffsetsResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// DescribeShareGroupOffsetsResponse (key 90, v0–v1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeShareGroupOffsetsResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// The results for each group.
    pub groups: Vec<DescribeShareGroupOffsetsResponseGroup>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribeShareGroupOffsetsResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.throttle_time_ms.write(out, form)?;
        self.groups.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: Wire::read(input, form)?,
            groups: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeShareGroupOffsetsResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_groups => groups: Vec<DescribeShareGroupOffsetsResponseGroup>,
} }

/// The results for each group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeShareGroupOffsetsResponseGroup {
    /// The group identifier.
    pub group_id: GroupId,
    /// The results for each topic.
    pub topics: Vec<DescribeShareGroupOffsetsResponseTopic>,
    /// The group-level error code, or 0 if there was no error.
    pub error_code: i16,
    /// The group-level error message, or null if there was no error.
    pub error_message: Option<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribeShareGroupOffsetsResponseGroup {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_id.write(out, form)?;
        self.topics.write(out, form)?;
        self.error_code.write(out, form)?;
        self.error_message.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: Wire::read(input, form)?,
            topics: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            error_message: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeShareGroupOffsetsResponseGroup {
    with_group_id => group_id: GroupId,
    with_topics => topics: Vec<DescribeShareGroupOffsetsResponseTopic>,
    with_error_code => error_code: i16,
    with_error_message => error_message: Option<StrBytes>,
} }

/// The results for each topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeShareGroupOffsetsResponseTopic {
    /// The topic name.
    pub topic_name: TopicName,
    /// The unique topic ID.
    pub topic_id: Uuid,
    /// Partitions
    pub partitions: Vec<DescribeShareGroupOffsetsResponsePartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribeShareGroupOffsetsResponseTopic {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.topic_name.write(out, form)?;
        self.topic_id.write(out, form)?;
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            topic_name: Wire::read(input, form)?,
            topic_id: Wire::read(input, form)?,
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeShareGroupOffsetsResponseTopic {
    with_topic_name => topic_name: TopicName,
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<DescribeShareGroupOffsetsResponsePartition>,
} }

/// DescribeShareGroupOffsetsResponsePartition
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeShareGroupOffsetsResponsePartition {
    /// The partition index.
    pub partition_index: i32,
    /// The share-partition start offset.
    pub start_offset: i64,
    /// The leader epoch of the partition.
    pub leader_epoch: i32,
    /// The share-partition lag.
    pub lag: i64,
    /// The partition-level error code, or 0 if there was no error.
    pub error_code: i16,
    /// The partition-level error message, or null if there was no error.
    pub error_message: Option<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for DescribeShareGroupOffsetsResponsePartition {
    fn default() -> Self {
        Self {
            partition_index: 0,
            start_offset: 0,
            leader_epoch: 0,
            lag: -1,
            error_code: 0,
            error_message: None,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for DescribeShareGroupOffsetsResponsePartition {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.start_offset.write(out, form)?;
        self.leader_epoch.write(out, form)?;
        if form.version >= 1 {
            self.lag.write(out, form)?;
        }
        self.error_code.write(out, form)?;
        self.error_message.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            start_offset: Wire::read(input, form)?,
            leader_epoch: Wire::read(input, form)?,
            lag: if form.version >= 1 {
                Wire::read(input, form)?
            } else {
                -1
            },
            error_code: Wire::read(input, form)?,
            error_message: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeShareGroupOffsetsResponsePartition {
    with_partition_index => partition_index: i32,
    with_start_offset => start_offset: i64,
    with_leader_epoch => leader_epoch: i32,
    with_lag => lag: i64,
    with_error_code => error_code: i16,
    with_error_message => error_message: Option<StrBytes>,
} }

message!(DescribeShareGroupOffsetsResponse, versions 0 to 1, flexible from 0, headers 0 and 1);
