//! OffsetCommitRequest (key 8, v2–v10).
//!
//! Written by schemas/generate.py from OffsetCommitRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// OffsetCommitRequest (key 8, v2–v10).
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetCommitRequest {
    /// The unique group identifier.
    pub group_id: GroupId,
    /// The generation of the group if using the classic group protocol or the member epoch if using the consumer protocol.
    pub generation_id_or_member_epoch: i32,
    /// The member ID assigned by the group coordinator.
    pub member_id: StrBytes,
    /// The unique identifier of the consumer instance provided by end user.
    pub group_instance_id: Option<StrBytes>,
    /// The time period in ms to retain the offset.
    pub retention_time_ms: i64,
    /// The topics to commit offsets for.
    pub topics: Vec<OffsetCommitRequestTopic>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for OffsetCommitRequest {
    fn default() -> Self {
        Self {
            group_id: Default::default(),
            generation_id_or_member_epoch: -1,
            member_id: Default::default(),
            group_instance_id: None,
            retention_time_ms: -1,
            topics: Default::default(),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for OffsetCommitRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_id.write(out, form)?;
        self.generation_id_or_member_epoch.write(out, form)?;
        self.member_id.write(out, form)?;
        if form.version >= 7 {
            self.group_instance_id.write(out, form)?;
        } else if self.group_instance_id.is_some() {
            return Err(form.lacks("group_instance_id"));
        }
        if form.version <= 4 {
            self.retention_time_ms.write(out, form)?;
        }
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: Wire::read(input, form)?,
            generation_id_or_member_epoch: Wire::read(input, form)?,
            member_id: Wire::read(input, form)?,
            group_instance_id: if form.version >= 7 {
                Wire::read(input, form)?
            } else {
                None
            },
            retention_time_ms: if form.version <= 4 {
                Wire::read(input, form)?
            } else {
                -1
            },
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetCommitRequest {
    with_group_id => group_id: GroupId,
    with_generation_id_or_member_epoch => generation_id_or_member_epoch: i32,
    with_member_id => member_id: StrBytes,
    with_group_instance_id => group_instance_id: Option<StrBytes>,
    with_retention_time_ms => retention_time_ms: i64,
    with_topics => topics: Vec<OffsetCommitRequestTopic>,
} }

/// The topics to commit offsets for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetCommitRequestTopic {
    /// The topic name.
    pub name: TopicName,
    /// The topic ID.
    pub topic_id: Uuid,
    /// Each partition to commit offsets for.
    pub partitions: Vec<OffsetCommitRequestPartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetCommitRequestTopic {
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

setters! { OffsetCommitRequestTopic {
    with_name => name: TopicName,
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<OffsetCommitRequestPartition>,
} }

/// Each partition to commit offsets for.
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetCommitRequestPartition {
    /// The partition index.
    pub partition_index: i32,
    /// The message offset to be committed.
    pub committed_offset: i64,
    /// The leader epoch of this partition.
    pub committed_leader_epoch: i32,
    /// Any associated metadata the client wants to keep.
    pub committed_metadata: Option<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for OffsetCommitRequestPartition {
    fn default() -> Self {
        Self {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            committed_metadata: Some(Default::default()),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for OffsetCommitRequestPartition {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.committed_offset.write(out, form)?;
        if form.version >= 6 {
            self.committed_leader_epoch.write(out, form)?;
        }
        self.committed_metadata.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            committed_offset: Wire::read(input, form)?,
            committed_leader_epoch: if form.version >= 6 {
                Wire::read(input, form)?
            } else {
                -1
            },
            committed_metadata: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetCommitRequestPartition {
    with_partition_index => partition_index: i32,
    with_committed_offset => committed_offset: i64,
    with_committed_leader_epoch => committed_leader_epoch: i32,
    with_committed_metadata => committed_metadata: Option<StrBytes>,
} }

message!(OffsetCommitRequest, versions 2 to 10, flexible from 8, headers 1 and 2);

impl Request for OffsetCommitRequest {
    const KEY: i16 = 8;
    type Response = super::OffsetCommitResponse;
}
