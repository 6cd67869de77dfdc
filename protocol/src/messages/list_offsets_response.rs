//! ListOffsetsResponse (key 2, v1–v11).
//!
//! Written by schemas/generate.py from ListOffsetsResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// ListOffsetsResponse (key 2, v1–v11).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListOffsetsResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// Each topic in the response.
    pub topics: Vec<ListOffsetsTopicResponse>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ListOffsetsResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version >= 2 {
            self.throttle_time_ms.write(out, form)?;
        }
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: if form.version >= 2 {
                Wire::read(input, form)?
            } else {
                0
            },
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ListOffsetsResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_topics => topics: Vec<ListOffsetsTopicResponse>,
} }

/// Each topic in the response.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListOffsetsTopicResponse {
    /// The topic name.
    pub name: TopicName,
    /// Each partition in the response.
    pub partitions: Vec<ListOffsetsPartitionResponse>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ListOffsetsTopicResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.name.write(out, form)?;
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: Wire::read(input, form)?,
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ListOffsetsTopicResponse {
    with_name => name: TopicName,
    with_partitions => partitions: Vec<ListOffsetsPartitionResponse>,
} }

/// Each partition in the response.
#[derive(Debug, Clone, PartialEq)]
pub struct ListOffsetsPartitionResponse {
    /// The partition index.
    pub partition_index: i32,
    /// The partition error code, or 0 if there was no error.
    pub error_code: i16,
    /// The timestamp associated with the returned offset.
    pub timestamp: i64,
    /// The returned offset.
    pub offset: i64,
    /// The leader epoch associated with the returned offset.
    pub leader_epoch: i32,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for ListOffsetsPartitionResponse {
    fn default() -> Self {
        Self {
            partition_index: 0,
            error_code: 0,
            timestamp: -1,
            offset: -1,
            leader_epoch: -1,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for ListOffsetsPartitionResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.error_code.write(out, form)?;
        self.timestamp.write(out, form)?;
        self.offset.write(out, form)?;
        if form.version >= 4 {
            self.leader_epoch.write(out, form)?;
        } else if self.leader_epoch != -1 {
            return Err(form.lacks("leader_epoch"));
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            timestamp: Wire::read(input, form)?,
            offset: Wire::read(input, form)?,
            leader_epoch: if form.version >= 4 {
                Wire::read(input, form)?
            } else {
                -1
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ListOffsetsPartitionResponse {
    with_partition_index => partition_index: i32,
    with_error_code => error_code: i16,
    with_timestamp => timestamp: i64,
    with_offset => offset: i64,
    with_leader_epoch => leader_epoch: i32,
} }

message!(ListOffsetsResponse, versions 1 to 11, flexible from 6, headers 0 and 1);
