//! ShareFetchRequest (key 78, v1–v2).
//!
//! Written by schemas/generate.py from ShareFetchRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// ShareFetchRequest (key 78, v1–v2).
#[derive(Debug, Clone, PartialEq)]
pub struct ShareFetchRequest {
    /// The group identifier.
    pub group_id: Option<GroupId>,
    /// The member ID.
    pub member_id: Option<StrBytes>,
    /// The current share session epoch: 0 to open a share session; -1 to close it; otherwise increments for consecutive requests.
    pub share_session_epoch: i32,
    /// The maximum time in milliseconds to wait for the response.
    pub max_wait_ms: i32,
    /// The minimum bytes to accumulate in the response.
    pub min_bytes: i32,
    /// The maximum bytes to fetch. See KIP-74 for cases where this limit may not be honored.
    pub max_bytes: i32,
    /// The maximum number of records to fetch. This limit can be exceeded for alignment of batch boundaries.
    pub max_records: i32,
    /// The optimal number of records for batches of acquired records and acknowledgements.
    pub batch_size: i32,
    /// The acquire mode to control the fetch behavior - 0:batch-optimized,1:record-limit.
    pub share_acquire_mode: i8,
    /// Whether Renew type acknowledgements present in AcknowledgementBatches.
    pub is_renew_ack: bool,
    /// The topics to fetch.
    pub topics: Vec<FetchTopic>,
    /// The partitions to remove from this share session.
    pub forgotten_topics_data: Vec<ForgottenTopic>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for ShareFetchRequest {
    fn default() -> Self {
        Self {
            group_id: None,
            member_id: Some(Default::default()),
            share_session_epoch: 0,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 2147483647,
            max_records: 0,
            batch_size: 0,
            share_acquire_mode: 0,
            is_renew_ack: false,
            topics: Default::default(),
            forgotten_topics_data: Default::default(),
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for ShareFetchRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_id.write(out, form)?;
        self.member_id.write(out, form)?;
        self.share_session_epoch.write(out, form)?;
        self.max_wait_ms.write(out, form)?;
        self.min_bytes.write(out, form)?;
        self.max_bytes.write(out, form)?;
        self.max_records.write(out, form)?;
        self.batch_size.write(out, form)?;
        if form.version >= 2 {
            self.share_acquire_mode.write(out, form)?;
        }
        if form.version >= 2 {
            self.is_renew_ack.write(out, form)?;
        } else if self.is_renew_ack {
            return Err(form.lacks("is_renew_ack"));
        }
        self.topics.write(out, form)?;
        self.forgotten_topics_data.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: Wire::read(input, form)?,
            member_id: Wire::read(input, form)?,
            share_session_epoch: Wire::read(input, form)?,
            max_wait_ms: Wire::read(input, form)?,
            min_bytes: Wire::read(input, form)?,
            max_bytes: Wire::read(input, form)?,
            max_records: Wire::read(input, form)?,
            batch_size: Wire::read(input, form)?,
            share_acquire_mode: if form.version >= 2 {
                Wire::read(input, form)?
            } else {
                0
            },
            is_renew_ack: if form.version >= 2 {
                Wire::read(input, form)?
            } else {
                false
            },
            topics: Wire::read(input, form)?,
            forgotten_topics_data: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ShareFetchRequest {
    with_group_id => group_id: Option<GroupId>,
    with_member_id => member_id: Option<StrBytes>,
    with_share_session_epoch => share_session_epoch: i32,
    with_max_wait_ms => max_wait_ms: i32,
    with_min_bytes => min_bytes: i32,
    with_max_bytes => max_bytes: i32,
    with_max_records => max_records: i32,
    with_batch_size => batch_size: i32,
    with_share_acquire_mode => share_acquire_mode: i8,
    with_is_renew_ack => is_renew_ack: bool,
    with_topics => topics: Vec<FetchTopic>,
    with_forgotten_topics_data => forgotten_topics_data: Vec<ForgottenTopic>,
} }

/// The topics to fetch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FetchTopic {
    /// The unique topic ID.
    pub topic_id: Uuid,
    /// The partitions to fetch.
    pub partitions: Vec<FetchPartition>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for FetchTopic {
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

setters! { FetchTopic {
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<FetchPartition>,
} }

/// The partitions to fetch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FetchPartition {
    /// The partition index.
    pub partition_index: i32,
    /// Record batches to acknowledge.
    pub acknowledgement_batches: Vec<AcknowledgementBatch>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for FetchPartition {
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

setters! { FetchPartition {
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

/// The partitions to remove from this share session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ForgottenTopic {
    /// The unique topic ID.
    pub topic_id: Uuid,
    /// The partitions indexes to forget.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ForgottenTopic {
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

setters! { ForgottenTopic {
    with_topic_id => topic_id: Uuid,
    with_partitions => partitions: Vec<i32>,
} }

message!(ShareFetchRequest, versions 1 to 2, flexible from 0, headers 1 and 2);

impl Request for ShareFetchRequest {
    const KEY: i16 = 78;
    type Response = super::ShareFetchResponse;
}
