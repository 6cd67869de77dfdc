//! ListOffsetsRequest (key 2, v1–v11).
//!
//! Written by schemas/generate.py from ListOffsetsRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::Request;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// ListOffsetsRequest (key 2, v1–v11).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListOffsetsRequest {
    /// The broker ID of the requester, or -1 if this request is being made by a normal consumer.
    pub replica_id: BrokerId,
    /// This setting controls the visibility of transactional records. Using READ_UNCOMMITTED (isolation_level = 0) makes all records visible. With READ_COMMITTED (isolation_level = 1), non-transactional and COMMITTED transactional records are visible. To be more concrete, READ_COMMITTED returns all data from offsets smaller than the current LSO (last stable offset), and enables the inclusion of the list of aborted transactions in the result, which allows consumers to discard ABORTED transactional records.
    pub isolation_level: i8,
    /// Each topic in the request.
    pub topics: Vec<ListOffsetsTopic>,
    /// The timeout to await a response in milliseconds for requests that require reading from remote storage for topics enabled with tiered storage.
    pub timeout_ms: i32,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ListOffsetsRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.replica_id.write(out, form)?;
        if form.version >= 2 {
            self.isolation_level.write(out, form)?;
        } else if self.isolation_level != 0 {
            return Err(form.lacks("isolation_level"));
        }
        self.topics.write(out, form)?;
        if form.version >= 10 {
            self.timeout_ms.write(out, form)?;
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            replica_id: Wire::read(input, form)?,
            isolation_level: if form.version >= 2 {
                Wire::read(input, form)?
            } else {
                0
            },
            topics: Wire::read(input, form)?,
            timeout_ms: if form.version >= 10 {
                Wire::read(input, form)?
            } else {
                0
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ListOffsetsRequest {
    with_replica_id => replica_id: BrokerId,
    with_isolation_level => isolation_level: i8,
    with_topics => topics: Vec<ListOffsetsTopic>,
    with_timeout_ms => timeout_ms: i32,
} }

/// Each topic in the request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListOffsetsTopic {
    /// The topic name.
    pub name: TopicName,
    /// Each partition in the request.
    pub partitions: Vec<ListOffsetsPartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ListOffsetsTopic {
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

setters! { ListOffsetsTopic {
    with_name => name: TopicName,
    with_partitions => partitions: Vec<ListOffsetsPartition>,
} }

/// Each partition in the request.
#[derive(Debug, Clone, PartialEq)]
pub struct ListOffsetsPartition {
    /// The partition index.
    pub partition_index: i32,
    /// The current leader epoch.
    pub current_leader_epoch: i32,
    /// The current timestamp.
    pub timestamp: i64,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for ListOffsetsPartition {
    fn default() -> Self {
        Self {
            partition_index: 0,
            current_leader_epoch: -1,
            timestamp: 0,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for ListOffsetsPartition {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        if form.version >= 4 {
            self.current_leader_epoch.write(out, form)?;
        }
        self.timestamp.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            current_leader_epoch: if form.version >= 4 {
                Wire::read(input, form)?
            } else {
                -1
            },
            timestamp: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ListOffsetsPartition {
    with_partition_index => partition_index: i32,
    with_current_leader_epoch => current_leader_epoch: i32,
    with_timestamp => timestamp: i64,
} }

message!(ListOffsetsRequest, versions 1 to 11, flexible from 6, headers 1 and 2);

impl Request for ListOffsetsRequest {
    const KEY: i16 = 2;
    type Response = super::ListOffsetsResponse;
}
