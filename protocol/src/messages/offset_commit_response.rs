//! OffsetCommitResponse (key 8, v2–v10).
//!
//! Written by schemas/generate.py from OffsetCommitResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::buf::ByteBuf;
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// OffsetCommitResponse (key 8, v2–v10).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetCommitResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// The responses for each topic.
    pub topics: Vec<OffsetCommitResponseTopic>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetCommitResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version >= 3 {
            self.throttle_time_ms.write(out, form)?;
        }
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                0
            },
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetCommitResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_topics => topics: Vec<OffsetCommitResponseTopic>,
} }

/// The responses for each topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetCommitResponseTopic {
    /// The topic name.
    pub name: TopicName,
    /// The topic ID.
    pub topic_id: Uuid,
    /// The responses for each partition in the topic.
    pub partitions: Vec<OffsetCommitResponsePartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetCommitResponseTopic {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version <= 9 {
            self.name.write(out, form)?;
        }
        if form.version >= 10 {
            self.topic_id.write(out, form)?;
        }
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: if form.version <= 9 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            topic_id: if form.version >= 10 {
                Wire::read(input, form)?
            } else {
                Uuid::nil()
            },
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetCommitResponseTopic {
    with_name => name: TopicName,
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<OffsetCommitResponsePartition>,
} }

/// The responses for each partition in the topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetCommitResponsePartition {
    /// The partition index.
    pub partition_index: i32,
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetCommitResponsePartition {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.error_code.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetCommitResponsePartition {
    with_partition_index => partition_index: i32,
    with_error_code => error_code: i16,
} }

message!(OffsetCommitResponse, versions 2 to 10, flexible from 8, headers 0 and 1);
