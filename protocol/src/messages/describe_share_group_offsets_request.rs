//! DescribeShareGroupOffsetsRequest (key 90, v0–v1).
//!
//! Written by schemas/generate.py from DescribeShareGroupOffsetsRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::Request;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// DescribeShareGroupOffsetsRequest (key 90, v0–v1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeShareGroupOffsetsRequest {
    /// The groups to describe offsets for.
    pub groups: Vec<DescribeShareGroupOffsetsRequestGroup>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribeShareGroupOffsetsRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.groups.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            groups: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeShareGroupOffsetsRequest {
    with_groups => groups: Vec<DescribeShareGroupOffsetsRequestGroup>,
} }

/// The groups to describe offsets for.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeShareGroupOffsetsRequestGroup {
    /// The group identifier.
    pub group_id: GroupId,
    /// The topics to describe offsets for, or null for all topic-partitions.
    pub topics: Option<Vec<DescribeShareGroupOffsetsRequestTopic>>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for DescribeShareGroupOffsetsRequestGroup {
    fn default() -> Self {
        Self {
            group_id: Default::default(),
            topics: Some(Default::default()),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for DescribeShareGroupOffsetsRequestGroup {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_id.write(out, form)?;
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: Wire::read(input, form)?,
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeShareGroupOffsetsRequestGroup {
    with_group_id => group_id: GroupId,
    with_topics => topics: Option<Vec<DescribeShareGroupOffsetsRequestTopic>>,
} }

/// The topics to describe offsets for, or null for all topic-partitions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeShareGroupOffsetsRequestTopic {
    /// The topic name.
    pub topic_name: TopicName,
    /// The partitions.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribeShareGroupOffsetsRequestTopic {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.topic_name.write(out, form)?;
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            topic_name: Wire::read(input, form)?,
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeShareGroupOffsetsRequestTopic {
    with_topic_name => topic_name: TopicName,
    with_partitions => partitions: Vec<i32>,
} }

message!(DescribeShareGroupOffsetsRequest, versions 0 to 1, flexible from 0, headers 1 and 2);

impl Request for DescribeShareGroupOffsetsRequest {
    const KEY: i16 = 90;
    type Response = super::DescribeShareGroupOffsetsResponse;
}
