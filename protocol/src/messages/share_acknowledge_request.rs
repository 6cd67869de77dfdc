//! ShareAcknowledgeRequest (key 79, v1–v2).
//!
//! Written by schemas/generate.py from ShareAcknowledgeRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// ShareAcknowledgeRequest (key 79, v1–v2).
#[derive(Debug, Clone, PartialEq)]
pub struct ShareAcknowledgeRequest {
    /// The group identifier.
    pub group_id: Option<GroupId>,
    /// The member ID.
    pub member_id: Option<StrBytes>,
    /// The current share session epoch: 0 to open a share session; -1 to close it; otherwise increments for consecutive requests.
    pub share_session_epoch: i32,
    /// Whether Renew type acknowledgements present in AcknowledgementBatches.
    pub is_renew_ack: bool,
    /// The topics containing records to acknowledge.
    pub topics: Vec<AcknowledgeTopic>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for ShareAcknowledgeRequest {
    fn default() -> Self {
        Self {
            group_id: None,
            member_id: Some(Default::default()),
            share_session_epoch: 0,
            is_renew_ack: false,
            topics: Default::default(),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for ShareAcknowledgeRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_id.write(out, form)?;
        self.member_id.write(out, form)?;
        self.share_session_epoch.write(out, form)?;
        if form.version >= 2 {
            self.is_renew_ack.write(out, form)?;
        } else if self.is_renew_ack {
            return Err(form.lacks("is_renew_ack"));
        }
        self.topics.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: Wire::read(input, form)?,
            member_id: Wire::read(input, form)?,
            share_session_epoch: Wire::read(input, form)?,
            is_renew_ack: if form.version >= 2 {
                Wire::read(input, form)?
            } else {
                false
            },
            topics: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ShareAcknowledgeRequest {
    with_group_id => group_id: Option<GroupId>,
    with_member_id => member_id: Option<StrBytes>,
    with_share_session_epoch => share_session_epoch: i32,
    with_is_renew_ack => is_renew_ack: bool,
    with_topics => topics: Vec<AcknowledgeTopic>,
} }

/// The topics containing records to acknowledge.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AcknowledgeTopic {
    /// The unique topic ID.
    pub topic_id: Uuid,
    /// The partitions containing records to acknowledge.
    pub partitions: Vec<AcknowledgePartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for AcknowledgeTopic {
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

setters! { AcknowledgeTopic {
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<AcknowledgePartition>,
} }

/// The partitions containing records to acknowledge.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AcknowledgePartition {
    /// The partition index.
    pub partition_index: i32,
    /// Record batches to acknowledge.
    pub acknowledgement_batches: Vec<AcknowledgementBatch>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for AcknowledgePartition {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.partition_index.write(out, form)?;
        self.acknowledgement_batches.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            partition_index: Wire::read(input, form)?,
            acknowledgement_batches: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { AcknowledgePartition {
    with_partition_index => partition_index: i32,
    with_acknowledgement_batches => acknowledgement_batches: Vec<AcknowledgementBatch>,
} }

/// Record batches to acknowledge.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AcknowledgementBatch {
    /// First offset of batch of records to acknowledge.
    pub first_offset: i64,
    /// Last offset (inclusive) of batch of records to acknowledge.
    pub last_offset: i64,
    /// Array of acknowledge types - 0:Gap,1:Accept,2:Release,3:Reject,4:Renew.
    pub acknowledge_types: Vec<i8>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for AcknowledgementBatch {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.first_offset.write(out, form)?;
        self.last_offset.write(out, form)?;
        self.acknowledge_types.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            first_offset: Wire::read(input, form)?,
            last_offset: Wire::read(input, form)?,
            acknowledge_types: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { AcknowledgementBatch {
    with_first_offset => first_offset: i64,
    with_last_offset => last_offset: i64,
    with_acknowledge_types => acknowledge_types: Vec<i8>,
} }

message!(ShareAcknowledgeRequest, versions 1 to 2, flexible from 0, headers 1 and 2);

impl Request for ShareAcknowledgeRequest {
    const KEY: i16 = 79;
    type Response = super::ShareAcknowledgeResponse;
}
