//! DescribeLogDirsRequest (key 35, v1–v5).
//!
//! Written by schemas/generate.py from DescribeLogDirsRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::Request;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// DescribeLogDirsRequest (key 35, v1–v5).
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeLogDirsRequest {
    /// Each topic that we want to describe log directories for, or null for all topics.
    pub topics: Option<Vec<DescribableLogDirTopic>>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for DescribeLogDirsRequest {
    fn default() -> Self {
        Self {
            topics: Some(Default::default()),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for DescribeLogDirsRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeLogDirsRequest {
    with_topics => topics: Option<Vec<DescribableLogDirTopic>>,
} }

/// Each topic that we want to describe log directories for, or null for all topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribableLogDirTopic {
    /// The topic name.
    pub topic: TopicName,
    /// The partition indexes.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribableLogDirTopic {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.topic.write(out, form)?;
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            topic: Wire::read(input, form)?,
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribableLogDirTopic {
    with_topic => topic: TopicName,
    with_partitions => partitions: Vec<i32>,
} }

message!(DescribeLogDirsRequest, versions 1 to 5, flexible from 2, headers 1 and 2);

impl Request for DescribeLogDirsRequest {
    const KEY: i16 = 35;
    type Response = super::DescribeLogDirsResponse;
}
