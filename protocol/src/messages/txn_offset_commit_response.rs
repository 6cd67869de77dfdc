//! TxnOffsetCommitResponse (key 28, v0–v6).
//!
//! Written by schemas/generate.py from TxnOffsetCommitResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::buf::ByteBuf;
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// TxnOffsetCommitResponse (key 28, v0–v6).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TxnOffsetCommitResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// The responses for each topic.
    pub topics: Vec<TxnOffsetCommitResponseTopic>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TxnOffsetCommitResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.throttle_time_ms.write(out, form)?;
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: Wire::read(input, form)?,
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TxnOffsetCommitResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_topics => topics: Vec<TxnOffsetCommitResponseTopic>,
} }

/// The responses for each topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TxnOffsetCommitResponseTopic {
    /// The topic name.
    pub name: TopicName,
    /// The topic ID.
    pub topic_id: Uuid,
    /// The responses for each partition in the topic.
    pub partitions: Vec<TxnOffsetCommitResponsePartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TxnOffsetCommitResponseTopic {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version <= 5 {
            self.name.write(out, form)?;
        }
        if form.version >= 6 {
            self.topic_id.write(out, form)?;
        }
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: if form.version <= 5 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            topic_id: if form.version >= 6 {
                Wire::read(input, form)?
            } else {
                Uuid::nil()
            },
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TxnOffsetCommitResponseTopic {
    with_name => name: TopicName,
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<TxnOffsetCommitResponsePartition>,
} }

/// The responses for each partition in the topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TxnOffsetCommitResponsePartition {
    /// The partition index.
    pub partition_index: i32,
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TxnOffsetCommitResponsePartition {
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

setters! { TxnOffsetCommitResponsePartition {
    with_partition_index => partition_index: i32,
    with_error_code => error_code: i16,
} }

message!(TxnOffsetCommitResponse, versions 0 to 6, flexible from 3, headers 0 and 1);
