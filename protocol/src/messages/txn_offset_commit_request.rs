//! TxnOffsetCommitRequest (key 28, v0–v6).
//!
//! Written by schemas/generate.py from TxnOffsetCommitRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{GroupId, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// TxnOffsetCommitRequest (key 28, v0–v6).
#[derive(Debug, Clone, PartialEq)]
pub struct TxnOffsetCommitRequest {
    /// The ID of the transaction.
    pub transactional_id: TransactionalId,
    /// The ID of the group.
    pub group_id: GroupId,
    /// The current producer ID in use by the transactional ID.
    pub producer_id: ProducerId,
    /// The current epoch associated with the producer ID.
    pub producer_epoch: i16,
    /// The generation of the group if using the classic group protocol or the member epoch if using the consumer protocol.
    pub generation_id_or_member_epoch: i32,
    /// The member ID assigned by the group coordinator.
    pub member_id: StrBytes,
    /// The unique identifier of the consumer instance provided by end user.
    pub group_instance_id: Option<StrBytes>,
    /// Each topic that we want to commit offsets for.
    pub topics: Vec<TxnOffsetCommitRequestTopic>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for TxnOffsetCommitRequest {
    fn default() -> Self {
        Self {
            transactional_id: Default::default(),
            group_id: Default::default(),
            producer_id: ProducerId(0),
            producer_epoch: 0,
            generation_id_or_member_epoch: -1,
            member_id: Default::default(),
            group_instance_id: None,
            topics: Default::default(),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for TxnOffsetCommitRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.transactional_id.write(out, form)?;
        self.group_id.write(out, form)?;
        self.producer_id.write(out, form)?;
        self.producer_epoch.write(out, form)?;
        if form.version >= 3 {
            self.generation_id_or_member_epoch.write(out, form)?;
        } else if self.generation_id_or_member_epoch != -1 {
            return Err(form.lacks("generation_id_or_member_epoch"));
        }
        if form.version >= 3 {
            self.member_id.write(out, form)?;
        } else if !self.member_id.is_empty() {
            return Err(form.lacks("member_id"));
        }
        if form.version >= 3 {
            self.group_instance_id.write(out, form)?;
        } else if self.group_instance_id.is_some() {
            return Err(form.lacks("group_instance_id"));
        }
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            transactional_id: Wire::read(input, form)?,
            group_id: Wire::read(input, form)?,
            producer_id: Wire::read(input, form)?,
            producer_epoch: Wire::read(input, form)?,
            generation_id_or_member_epoch: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                -1
            },
            member_id: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            group_instance_id: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                None
            },
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TxnOffsetCommitRequest {
    with_transactional_id => transactional_id: TransactionalId,
    with_group_id => group_id: GroupId,
    with_producer_id => producer_id: ProducerId,
    with_producer_epoch => producer_epoch: i16,
    with_generation_id_or_member_epoch => generation_id_or_member_epoch: i32,
    with_member_id => member_id: StrBytes,
    with_group_instance_id => group_instance_id: Option<StrBytes>,
    with_topics => topics: Vec<TxnOffsetCommitRequestTopic>,
} }

/// Each topic that we want to commit offsets for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TxnOffsetCommitRequestTopic {
    /// The topic name.
    pub name: TopicName,
    /// The topic ID.
    pub topic_id: Uuid,
    /// The partitions inside the topic that we want to commit offsets for.
    pub partitions: Vec<TxnOffsetCommitRequestPartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for TxnOffsetCommitRequestTopic {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version <= 5 {
            self.name.write(out, form)?;
        }
        if form.version >= 6 {
            self.topic_id.write(out, form)?;
        }
        self.partitions.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: if form.version <= 5 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            topic_id: if form.version >= 6 {
                Wire::read(input, form)?
            } else {
                Uuid::nil()
            },
            partitions: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TxnOffsetCommitRequestTopic {
    with_name => name: TopicName,
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<TxnOffsetCommitRequestPartition>,
} }

/// The partitions inside the topic that we want to commit offsets for.
#[derive(Debug, Clone, PartialEq)]
pub struct TxnOffsetCommitRequestPartition {
    /// The index of the partition within the topic.
    pub partition_index: i32,
    /// The message offset to be committed.
    pub committed_offset: i64,
    /// The leader epoch of the last consumed record.
    pub committed_leader_epoch: i32,
    /// Any associated metadata the client wants to keep.
    pub committed_metadata: Option<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for TxnOffsetCommitRequestPartition {
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

impl Wire for TxnOffsetCommitRequestPartition {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.committed_offset.write(out, form)?;
        if form.version >= 2 {
            self.committed_leader_epoch.write(out, form)?;
        }
        self.committed_metadata.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            committed_offset: Wire::read(input, form)?,
            committed_leader_epoch: if form.version >= 2 {
                Wire::read(input, form)?
            } else {
                -1
            },
            committed_metadata: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { TxnOffsetCommitRequestPartition {
    with_partition_index => partition_index: i32,
    with_committed_offset => committed_offset: i64,
    with_committed_leader_epoch => committed_leader_epoch: i32,
    with_committed_metadata => committed_metadata: Option<StrBytes>,
} }

message!(TxnOffsetCommitRequest, versions 0 to 6, flexible from 3, headers 1 and 2);

impl Request for TxnOffsetCommitRequest {
    const KEY: i16 = 28;
    type Response = super::TxnOffsetCommitResponse;
}
