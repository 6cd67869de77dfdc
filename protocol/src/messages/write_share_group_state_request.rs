//! WriteShareGroupStateRequest (key 85, v0–v1).
//!
//! Written by schemas/generate.py from WriteShareGroupStateRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// WriteShareGroupStateRequest (key 85, v0–v1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteShareGroupStateRequest {
    /// The group identifier.
    pub group_id: StrBytes,
    /// The data for the topics.
    pub topics: Vec<WriteStateData>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WriteShareGroupStateRequest {
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

setters! { WriteShareGroupStateRequest {
    with_group_id => group_id: StrBytes,
    with_topics => topics: Vec<WriteStateData>,
} }

/// The data for the topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteStateData {
    /// The topic identifier.
    pub topic_id: Uuid,
    /// The data for the partitions.
    pub partitions: Vec<PartitionData>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WriteStateData {
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

setters! { WriteStateData {
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<PartitionData>,
} }

/// The data for the partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionData {
    /// The partition index.
    pub partition: i32,
    /// The state epoch of the share-partition.
    pub state_epoch: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
    /// The share-partition start offset, or -1 if the start offset is not being written.
    pub start_offset: i64,
    /// The number of offsets greater than or equal to share-partition start offset for which delivery has been completed.
    pub delivery_complete_count: i32,
    /// The state batches for the share-partition.
    pub state_batches: Vec<StateBatch>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for PartitionData {
    fn default() -> Self {
        Self {
            partition: 0,
            state_epoch: 0,
            leader_epoch: 0,
            start_offset: 0,
            delivery_complete_count: -1,
            state_batches: Default::default(),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for PartitionData {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition.write(out, form)?;
        self.state_epoch.write(out, form)?;
        self.leader_epoch.write(out, form)?;
        self.start_offset.write(out, form)?;
        if form.version >= 1 {
            self.delivery_complete_count.write(out, form)?;
        }
        self.state_batches.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition: Wire::read(input, form)?,
            state_epoch: Wire::read(input, form)?,
            leader_epoch: Wire::read(input, form)?,
            start_offset: Wire::read(input, form)?,
            delivery_complete_count: if form.version >= 1 {
                Wire::read(input, form)?
            } else {
                -1
            },
            state_batches: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { PartitionData {
    with_partition => partition: i32,
    with_state_epoch => state_epoch: i32,
    with_leader_epoch => leader_epoch: i32,
    with_start_offset => start_offset: i64,
    with_delivery_complete_count => delivery_complete_count: i32,
    with_state_batches => state_batches: Vec<StateBatch>,
} }

/// The state batches for the share-partition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StateBatch {
    /// The first offset of this state batch.
    pub first_offset: i64,
    /// The last offset of this state batch.
    pub last_offset: i64,
    /// The delivery state - 0:Available,2:Acked,4:Archived.
    pub delivery_state: i8,
    /// The delivery count.
    pub delivery_count: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for StateBatch {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.first_offset.write(out, form)?;
        self.last_offset.write(out, form)?;
        self.delivery_state.write(out, form)?;
        self.delivery_count.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            first_offset: Wire::read(input, form)?,
            last_offset: Wire::read(input, form)?,
            delivery_state: Wire::read(input, form)?,
            delivery_count: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { StateBatch {
    with_first_offset => first_offset: i64,
    with_last_offset => last_offset: i64,
    with_delivery_state => delivery_state: i8,
    with_delivery_count => delivery_count: i16,
} }

message!(WriteShareGroupStateRequest, versions 0 to 1, flexible from 0, headers 1 and 2);

impl Request for WriteShareGroupStateRequest {
    const KEY: i16 = 85;
    type Response = super::WriteShareGroupStateResponse;
}
