//! ReadShareGroupStateSummaryResponse (key 87, v0–v1).
//!
//! Written by schemas/generate.py from ReadShareGroupStateSummaryResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// ReadShareGroupStateSummaryResponse (key 87, v0–v1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadShareGroupStateSummaryResponse {
    /// The read results.
    pub results: Vec<ReadStateSummaryResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ReadShareGroupStateSummaryResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.results.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            results: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ReadShareGroupStateSummaryResponse {
    with_results => results: Vec<ReadStateSummaryResult>,
} }

/// The read results.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadStateSummaryResult {
    /// The topic identifier.
    pub topic_id: Uuid,
    /// The results for the partitions.
    pub partitions: Vec<PartitionResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ReadStateSummaryResult {
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

setters! { ReadStateSummaryResult {
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<PartitionResult>,
} }

/// The results for the partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionResult {
    /// The partition index.
    pub partition: i32,
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// The error message, or null if there was no error.
    pub error_message: Option<StrBytes>,
    /// The state epoch of the share-partition.
    pub state_epoch: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
    /// The share-partition start offset.
    pub start_offset: i64,
    /// The number of offsets greater than or equal to share-partition start offset for which delivery has been completed.
    pub delivery_complete_count: i32,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for PartitionResult {
    fn default() -> Self {
        Self {
            partition: 0,
            error_code: 0,
            error_message: None,
            state_epoch: 0,
            leader_epoch: 0,
            start_offset: 0,
            delivery_complete_count: -1,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for PartitionResult {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition.write(out, form)?;
        self.error_code.write(out, form)?;
        self.error_message.write(out, form)?;
        self.state_epoch.write(out, form)?;
        self.leader_epoch.write(out, form)?;
        self.start_offset.write(out, form)?;
        if form.version >= 1 {
            self.delivery_complete_count.write(out, form)?;
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            error_message: Wire::read(input, form)?,
            state_epoch: Wire::read(input, form)?,
            leader_epoch: Wire::read(input, form)?,
            start_offset: Wire::read(input, form)?,
            delivery_complete_count: if form.version >= 1 {
                Wire::read(input, form)?
            } else {
                -1
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { PartitionResult {
    with_partition => partition: i32,
    with_error_code => error_code: i16,
    with_error_message => error_message: Option<StrBytes>,
    with_state_epoch => state_epoch: i32,
    with_leader_epoch => leader_epoch: i32,
    with_start_offset => start_offset: i64,
    with_delivery_complete_count => delivery_complete_count: i32,
} }

message!(ReadShareGroupStateSummaryResponse, versions 0 to 1, flexible from 0, headers 0 and 1);
