//! WriteShareGroupStateResponse (key 85, v0–v1).
//!
//! Written by schemas/generate.py from WriteShareGroupStateResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// WriteShareGroupStateResponse (key 85, v0–v1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteShareGroupStateResponse {
    /// The write results.
    pub results: Vec<WriteStateResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WriteShareGroupStateResponse {
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

setters! { WriteShareGroupStateResponse {
    with_results => results: Vec<WriteStateResult>,
} }

/// The write results.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteStateResult {
    /// The topic identifier.
    pub topic_id: Uuid,
    /// The results for the partitions.
    pub partitions: Vec<PartitionResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WriteStateResult {
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

setters! { WriteStateResult {
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<PartitionResult>,
} }

/// The results for the partitions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionResult {
    /// The partition index.
    pub partition: i32,
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// The error message, or null if there was no error.
    pub error_message: Option<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for PartitionResult {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition.write(out, form)?;
        self.error_code.write(out, form)?;
        self.error_message.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            error_message: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { PartitionResult {
    with_partition => partition: i32,
    with_error_code => error_code: i16,
    with_error_message => error_message: Option<StrBytes>,
} }

message!(WriteShareGroupStateResponse, versions 0 to 1, flexible from 0, headers 0 and 1);
