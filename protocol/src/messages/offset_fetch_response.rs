//! OffsetFetchResponse (key 9, v1–v10).
//!
//! Written by schemas/generate.py from OffsetFetchResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// OffsetFetchResponse (key 9, v1–v10).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetFetchResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// The responses per topic.
    pub topics: Vec<OffsetFetchResponseTopic>,
    /// The top-level error code, or 0 if there was no error.
    pub error_code: i16,
    /// The responses per group id.
    pub groups: Vec<OffsetFetchResponseGroup>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetFetchResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version >= 3 {
            self.throttle_time_ms.write(out, form)?;
        }
        if form.version <= 7 {
            self.topics.write(out, form)?;
        } else if !self.topics.is_empty() {
            return Err(form.lacks("topics"));
        }
        if (2..=7).contains(&form.version) {
            self.error_code.write(out, form)?;
        }
        if form.version >= 8 {
            self.groups.write(out, form)?;
        } else if !self.groups.is_empty() {
            return Err(form.lacks("groups"));
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                0
            },
            topics: if form.version <= 7 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            error_code: if (2..=7).contains(&form.version) {
                Wire::read(input, form)?
            } else {
                0
            },
            groups: if form.version >= 8 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_topics => topics: Vec<OffsetFetchResponseTopic>,
    with_error_code => error_code: i16,
    with_groups => groups: Vec<OffsetFetchResponseGroup>,
} }

/// The responses per topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetFetchResponseTopic {
    /// The topic name.
    pub name: TopicName,
    /// The responses per partition.
    pub partitions: Vec<OffsetFetchResponsePartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetFetchResponseTopic {
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

setters! { OffsetFetchResponseTopic {
    with_name => name: TopicName,
    with_partitions => partitions: Vec<OffsetFetchResponsePartition>,
} }

/// The responses per partition.
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetFetchResponsePartition {
    /// The partition index.
    pub partition_index: i32,
    /// The committed message offset.
    pub committed_offset: i64,
    /// The leader epoch.
    pub committed_leader_epoch: i32,
    /// The partition metadata.
    pub metadata: Option<StrBytes>,
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for OffsetFetchResponsePartition {
    fn default() -> Self {
        Self {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            metadata: Some(Default::default()),
            error_code: 0,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for OffsetFetchResponsePartition {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.committed_offset.write(out, form)?;
        if form.version >= 5 {
            self.committed_leader_epoch.write(out, form)?;
        }
        self.metadata.write(out, form)?;
        self.error_code.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            committed_offset: Wire::read(input, form)?,
            committed_leader_epoch: if form.version >= 5 {
                Wire::read(input, form)?
            } else {
                -1
            },
            metadata: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchResponsePartition {
    with_partition_index => partition_index: i32,
    with_committed_offset => committed_offset: i64,
    with_committed_leader_epoch => committed_leader_epoch: i32,
    with_metadata => metadata: Option<StrBytes>,
    with_error_code => error_code: i16,
} }

/// The responses per group id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetFetchResponseGroup {
    /// The group ID.
    pub group_id: GroupId,
    /// The responses per topic.
    pub topics: Vec<OffsetFetchResponseTopics>,
    /// The group-level error code, or 0 if there was no error.
    pub error_code: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetFetchResponseGroup {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_id.write(out, form)?;
        self.topics.write(out, form)?;
        self.error_code.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: Wire::read(input, form)?,
            topics: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchResponseGroup {
    with_group_id => group_id: GroupId,
    with_topics => topics: Vec<OffsetFetchResponseTopics>,
    with_error_code => error_code: i16,
} }

/// The responses per topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetFetchResponseTopics {
    /// The topic name.
    pub name: TopicName,
    /// The topic ID.
    pub topic_id: Uuid,
    /// The responses per partition.
    pub partitions: Vec<OffsetFetchResponsePartitions>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetFetchResponseTopics {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version <= 9 {
            self.name.write(out, form)?;
        }
        if form.version >= 10 {
            self.topic_id.write(out, form)?;
        }
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: if form.version <= 9 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            topic_id: if form.version >= 10 {
                Wire::read(input, form)?
            } else {
                Uuid::nil()
            },
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchResponseTopics {
    with_name => name: TopicName,
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<OffsetFetchResponsePartitions>,
} }

/// The responses per partition.
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetFetchResponsePartitions {
    /// The partition index.
    pub partition_index: i32,
    /// The committed message offset.
    pub committed_offset: i64,
    /// The leader epoch.
    pub committed_leader_epoch: i32,
    /// The partition metadata.
    pub metadata: Option<StrBytes>,
    /// The partition-level error code, or 0 if there was no error.
    pub error_code: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for OffsetFetchResponsePartitions {
    fn default() -> Self {
        Self {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            metadata: Some(Default::default()),
            error_code: 0,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for OffsetFetchResponsePartitions {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.committed_offset.write(out, form)?;
        self.committed_leader_epoch.write(out, form)?;
        self.metadata.write(out, form)?;
        self.error_code.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            committed_offset: Wire::read(input, form)?,
            committed_leader_epoch: Wire::read(input, form)?,
            metadata: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchResponsePartitions {
    with_partition_index => partition_index: i32,
    with_committed_offset => committed_offset: i64,
    with_committed_leader_epoch => committed_leader_epoch: i32,
    with_metadata => metadata: Option<StrBytes>,
    with_error_code => error_code: i16,
} }

message!(OffsetFetchResponse, versions 1 to 10, flexible from 6, headers 0 and 1);
