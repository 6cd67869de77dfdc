//! WriteTxnMarkersResponse (key 27, v1–v2).
//!
//! Written by schemas/generate.py from WriteTxnMarkersResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{ProducerId, TopicName};
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// WriteTxnMarkersResponse (key 27, v1–v2).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteTxnMarkersResponse {
    /// The results for writing makers.
    pub markers: Vec<WritableTxnMarkerResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WriteTxnMarkersResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.markers.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            markers: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { WriteTxnMarkersResponse {
    with_markers => markers: Vec<WritableTxnMarkerResult>,
} }

/// The results for writing makers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WritableTxnMarkerResult {
    /// The current producer ID in use by the transactional ID.
    pub producer_id: ProducerId,
    /// The results by topic.
    pub topics: Vec<WritableTxnMarkerTopicResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WritableTxnMarkerResult {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.producer_id.write(out, form)?;
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            producer_id: Wire::read(input, form)?,
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { WritableTxnMarkerResult {
    with_producer_id => producer_id: ProducerId,
    with_topics => topics: Vec<WritableTxnMarkerTopicResult>,
} }

/// The results by topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WritableTxnMarkerTopicResult {
    /// The topic name.
    pub name: TopicName,
    /// The results by partition.
    pub partitions: Vec<WritableTxnMarkerPartitionResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WritableTxnMarkerTopicResult {
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

setters! { WritableTxnMarkerTopicResult {
    with_name => name: TopicName,
    with_partitions => partitions: Vec<WritableTxnMarkerPartitionResult>,
} }

/// The results by partition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WritableTxnMarkerPartitionResult {
    /// The partition index.
    pub partition_index: i32,
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WritableTxnMarkerPartitionResult {
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

setters! { WritableTxnMarkerPartitionResult {
    with_partition_index => partition_index: i32,
    with_error_code => error_code: i16,
} }

message!(WriteTxnMarkersResponse, versions 1 to 2, flexible from 1, headers 0 and 1);
