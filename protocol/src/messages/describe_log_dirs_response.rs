//! DescribeLogDirsResponse (key 35, v1–v5).
//!
//! Written by schemas/generate.py from DescribeLogDirsResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// DescribeLogDirsResponse (key 35, v1–v5).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeLogDirsResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// The log directories.
    pub results: Vec<DescribeLogDirsResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribeLogDirsResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.throttle_time_ms.write(out, form)?;
        if form.version >= 3 {
            self.error_code.write(out, form)?;
        }
        self.results.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: Wire::read(input, form)?,
            error_code: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                0
            },
            results: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeLogDirsResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_error_code => error_code: i16,
    with_results => results: Vec<DescribeLogDirsResult>,
} }

/// The log directories.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeLogDirsResult {
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// The absolute log directory path.
    pub log_dir: StrBytes,
    /// The topics.
    pub topics: Vec<DescribeLogDirsTopic>,
    /// The total size in bytes of the volume the log directory is in. This value does not include the size of data stored in remote storage.
    pub total_bytes: i64,
    /// The usable size in bytes of the volume the log directory is in. This value does not include the size of data stored in remote storage.
    pub usable_bytes: i64,
    /// True if this log directory is cordoned.
    pub is_cordoned: bool,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for DescribeLogDirsResult {
    fn default() -> Self {
        Self {
            error_code: 0,
            log_dir: Default::default(),
            topics: Default::default(),
            total_bytes: -1,
            usable_bytes: -1,
            is_cordoned: false,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for DescribeLogDirsResult {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.error_code.write(out, form)?;
        self.log_dir.write(out, form)?;
        self.topics.write(out, form)?;
        if form.version >= 4 {
            self.total_bytes.write(out, form)?;
            self.usable_bytes.write(out, form)?;
        }
        if form.version >= 5 {
            self.is_cordoned.write(out, form)?;
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            error_code: Wire::read(input, form)?,
            log_dir: Wire::read(input, form)?,
            topics: Wire::read(input, form)?,
            total_bytes: if form.version >= 4 {
                Wire::read(input, form)?
            } else {
                -1
            },
            usable_bytes: if form.version >= 4 {
                Wire::read(input, form)?
            } else {
                -1
            },
            is_cordoned: if form.version >= 5 {
                Wire::read(input, form)?
            } else {
                false
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeLogDirsResult {
    with_error_code => error_code: i16,
    with_log_dir => log_dir: StrBytes,
    with_topics => topics: Vec<DescribeLogDirsTopic>,
    with_total_bytes => total_bytes: i64,
    with_usable_bytes => usable_bytes: i64,
    with_is_cordoned => is_cordoned: bool,
} }

/// The topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeLogDirsTopic {
    /// The topic name.
    pub name: TopicName,
    /// The partitions.
    pub partitions: Vec<DescribeLogDirsPartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribeLogDirsTopic {
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

setters! { DescribeLogDirsTopic {
    with_name => name: TopicName,
    with_partitions => partitions: Vec<DescribeLogDirsPartition>,
} }

/// The partitions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DescribeLogDirsPartition {
    /// The partition index.
    pub partition_index: i32,
    /// The size of the log segments in this partition in bytes.
    pub partition_size: i64,
    /// The lag of the log's LEO w.r.t. partition's HW (if it is the current log for the partition) or current replica's LEO (if it is the future log for the partition).
    pub offset_lag: i64,
    /// True if this log is created by AlterReplicaLogDirsRequest and will replace the current log of the replica in the future.
    pub is_future_key: bool,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DescribeLogDirsPartition {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.partition_size.write(out, form)?;
        self.offset_lag.write(out, form)?;
        self.is_future_key.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            partition_size: Wire::read(input, form)?,
            offset_lag: Wire::read(input, form)?,
            is_future_key: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DescribeLogDirsPartition {
    with_partition_index => partition_index: i32,
    with_partition_size => partition_size: i64,
    with_offset_lag => offset_lag: i64,
    with_is_future_key => is_future_key: bool,
} }

message!(DescribeLogDirsResponse, versions 1 to 5, flexible from 2, headers 0 and 1);
