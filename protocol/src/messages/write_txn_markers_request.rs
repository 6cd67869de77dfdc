//! WriteTxnMarkersRequest (key 27, v1–v2).
//!
//! Written by schemas/generate.py from WriteTxnMarkersRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{ProducerId, TopicName};
use kafka_protocol::protocol::Request;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// WriteTxnMarkersRequest (key 27, v1–v2).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteTxnMarkersRequest {
    /// The transaction markers to be written.
    pub markers: Vec<WritableTxnMarker>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WriteTxnMarkersRequest {
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

setters! { WriteTxnMarkersRequest {
    with_markers => markers: Vec<WritableTxnMarker>,
} }

/// The transaction markers to be written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WritableTxnMarker {
    /// The current producer ID.
    pub producer_id: ProducerId,
    /// The current epoch associated with the producer ID.
    pub producer_epoch: i16,
    /// The result of the transaction to write to the partitions (false = ABORT, true = COMMIT).
    pub transaction_result: bool,
    /// Each topic that we want to write transaction marker(s) for.
    pub topics: Vec<WritableTxnMarkerTopic>,
    /// Epoch associated with the transaction state partition hosted by this transaction coordinator.
    pub coordinator_epoch: i32,
    /// Transaction version of the marker. Ex: 0/1 = legacy (TV0/TV1), 2 = TV2 etc.
    pub transaction_version: i8,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WritableTxnMarker {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.producer_id.write(out, form)?;
        self.producer_epoch.write(out, form)?;
        self.transaction_result.write(out, form)?;
        self.topics.write(out, form)?;
        self.coordinator_epoch.write(out, form)?;
        if form.version >= 2 {
            self.transaction_version.write(out, form)?;
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            producer_id: Wire::read(input, form)?,
            producer_epoch: Wire::read(input, form)?,
            transaction_result: Wire::read(input, form)?,
            topics: Wire::read(input, form)?,
            coordinator_epoch: Wire::read(input, form)?,
            transaction_version: if form.version >= 2 {
                Wire::read(input, form)?
            } else {
                0
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { WritableTxnMarker {
    with_producer_id => producer_id: ProducerId,
    with_producer_epoch => producer_epoch: i16,
    with_transaction_result => transaction_result: bool,
    with_topics => topics: Vec<WritableTxnMarkerTopic>,
    with_coordinator_epoch => coordinator_epoch: i32,
    with_transaction_version => transaction_version: i8,
} }

/// Each topic that we want to write transaction marker(s) for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WritableTxnMarkerTopic {
    /// The topic name.
    pub name: TopicName,
    /// The indexes of the partitions to write transaction markers for.
    pub partition_indexes: Vec<i32>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for WritableTxnMarkerTopic {
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

setters! { WritableTxnMarkerTopic {
    with_name => name: TopicName,
    with_partition_indexes => partition_indexes: Vec<i32>,
} }

message!(WriteTxnMarkersRequest, versions 1 to 2, flexible from 1, headers 1 and 2);

impl Request for WriteTxnMarkersRequest {
    const KEY: i16 = 27;
    type Response = super::WriteTxnMarkersResponse;
}
