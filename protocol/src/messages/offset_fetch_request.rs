//! OffsetFetchRequest (key 9, v1–v10).
//!
//! Written by schemas/generate.py from OffsetFetchRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// OffsetFetchRequest (key 9, v1–v10).
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetFetchRequest {
    /// The group to fetch offsets for.
    pub group_id: GroupId,
    /// Each topic we would like to fetch offsets for, or null to fetch offsets for all topics.
    pub topics: Option<Vec<OffsetFetchRequestTopic>>,
    /// Each group we would like to fetch offsets for.
    pub groups: Vec<OffsetFetchRequestGroup>,
    /// Whether broker should hold on returning unstable offsets but set a retriable error code for the partitions.
    pub require_stable: bool,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for OffsetFetchRequest {
    fn default() -> Self {
        Self {
            group_id: Default::default(),
            topics: Some(Default::default()),
            groups: Default::default(),
            require_stable: false,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for OffsetFetchRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version <= 7 {
            self.group_id.write(out, form)?;
        } else if !self.group_id.is_empty() {
            return Err(form.lacks("group_id"));
        }
        if form.version <= 7 {
            form.check_null(&self.topics, form.version >= 2, "topics")?;
            self.topics.write(out, form)?;
        } else if self.topics != Some(Default::default()) {
            return Err(form.lacks("topics"));
        }
        if form.version >= 8 {
            self.groups.write(out, form)?;
        } else if !self.groups.is_empty() {
            return Err(form.lacks("groups"));
        }
        if form.version >= 7 {
            self.require_stable.write(out, form)?;
        } else if self.require_stable {
            return Err(form.lacks("require_stable"));
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: if form.version <= 7 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            topics: if form.version <= 7 {
                let read = Wire::read(input, form)?;
                form.check_null(&read, form.version >= 2, "topics")?;
                read
            } else {
                Some(Default::default())
            },
            groups: if form.version >= 8 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            require_stable: if form.version >= 7 {
                Wire::read(input, form)?
            } else {
                false
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchRequest {
    with_group_id => group_id: GroupId,
    with_topics => topics: Option<Vec<OffsetFetchRequestTopic>>,
    with_groups => groups: Vec<OffsetFetchRequestGroup>,
    with_require_stable => require_stable: bool,
} }

/// Each topic we would like to fetch offsets for, or null to fetch offsets for all topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetFetchRequestTopic {
    /// The topic name.
    pub name: TopicName,
    /// The partition indexes we would like to fetch offsets for.
    pub partition_indexes: Vec<i32>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetFetchRequestTopic {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.name.write(out, form)?;
        self.partition_indexes.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: Wire::read(input, form)?,
            partition_indexes: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchRequestTopic {
    with_name => name: TopicName,
    with_partition_indexes => partition_indexes: Vec<i32>,
} }

/// Each group we would like to fetch offsets for.
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetFetchRequestGroup {
    /// The group ID.
    pub group_id: GroupId,
    /// The member id.
    pub member_id: Option<StrBytes>,
    /// The member epoch if using the new consumer protocol (KIP-848).
    pub member_epoch: i32,
    /// Each topic we would like to fetch offsets for, or null to fetch offsets for all topics.
    pub topics: Option<Vec<OffsetFetchRequestTopics>>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for OffsetFetchRequestGroup {
    fn default() -> Self {
        Self {
            group_id: Default::default(),
            member_id: None,
            member_epoch: -1,
            topics: Some(Default::default()),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for OffsetFetchRequestGroup {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_id.write(out, form)?;
        if form.version >= 9 {
            self.member_id.write(out, form)?;
            self.member_epoch.write(out, form)?;
        }
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: Wire::read(input, form)?,
            member_id: if form.version >= 9 {
                Wire::read(input, form)?
            } else {
                None
            },
            member_epoch: if form.version >= 9 {
                Wire::read(input, form)?
            } else {
                -1
            },
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchRequestGroup {
    with_group_id => group_id: GroupId,
    with_member_id => member_id: Option<StrBytes>,
    with_member_epoch => member_epoch: i32,
    with_topics => topics: Option<Vec<OffsetFetchRequestTopics>>,
} }

/// Each topic we would like to fetch offsets for, or null to fetch offsets for all topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetFetchRequestTopics {
    /// The topic name.
    pub name: TopicName,
    /// The topic ID.
    pub topic_id: Uuid,
    /// The partition indexes we would like to fetch offsets for.
    pub partition_indexes: Vec<i32>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for OffsetFetchRequestTopics {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version <= 9 {
            self.name.write(out, form)?;
        }
        if form.version >= 10 {
            self.topic_id.write(out, form)?;
        }
        self.partition_indexes.write(out, form)?;
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
            partition_indexes: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { OffsetFetchRequestTopics {
    with_name => name: TopicName,
    with_topic_id => topic_id: Uuid,
    with_partition_indexes => partition_indexes: Vec<i32>,
} }

message!(OffsetFetchRequest, versions 1 to 10, flexible from 6, headers 1 and 2);

impl Request for OffsetFetchRequest {
    const KEY: i16 = 9;
    type Response = super::OffsetFetchResponse;
}
