//! ReadShareGroupStateSummaryRequest (key 87, v0–v1).
//!
//! Written by schemas/generate.py from ReadShareGroupStateSummaryRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// ReadShareGroupStateSummaryRequest (key 87, v0–v1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadShareGroupStateSummaryRequest {
    /// The group identifier.
    pub group_id: StrBytes,
    /// The data for the topics.
    pub topics: Vec<ReadStateSummaryData>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ReadShareGroupStateSummaryRequest {
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

setters! { ReadShareGroupStateSummaryRequest {
    with_group_id => group_id: StrBytes,
    with_topics => topics: Vec<ReadStateSummaryData>,
} }

/// The data for the topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadStateSummaryData {
    /// The topic identifier.
    pub topic_id: Uuid,
    /// The data for the partitions.
    pub partitions: Vec<PartitionData>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ReadStateSummaryData {
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

setters! { ReadStateSummaryData {
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<PartitionData>,
} }

/// The data for the partitions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionData {
    /// The partition index.
    pub partition: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for PartitionData {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition.write(out, form)?;
        self.leader_epoch.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition: Wire::read(input, form)?,
            leader_epoch: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { PartitionData {
    with_partition => partition: i32,
    with_leader_epoch => leader_epoch: i32,
} }

message!(ReadShareGroupStateSummaryRequest, versions 0 to 1, flexible from 0, headers 1 and 2);

impl Request for ReadShareGroupStateSummaryRequest {
    const KEY: i16 = 87;
    type Response = super::ReadShareGroupStateSummaryResponse;
}
