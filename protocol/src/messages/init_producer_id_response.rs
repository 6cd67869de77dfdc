//! InitProducerIdResponse (key 22, v0–v6).
//!
//! Written by schemas/generate.py from InitProducerIdResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::ProducerId;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// InitProducerIdResponse (key 22, v0–v6).
#[derive(Debug, Clone, PartialEq)]
pub struct InitProducerIdResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// The error code, or 0 if there was no error.
    pub error_code: i16,
    /// The current producer id.
    pub producer_id: ProducerId,
    /// The current epoch associated with the producer id.
    pub producer_epoch: i16,
    /// The producer id for ongoing transaction when KeepPreparedTxn is used, -1 if there is no transaction ongoing.
    pub ongoing_txn_producer_id: ProducerId,
    /// The epoch associated with the  producer id for ongoing transaction when KeepPreparedTxn is used, -1 if there is no transaction ongoing.
    pub ongoing_txn_producer_epoch: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for InitProducerIdResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: 0,
            producer_id: ProducerId(-1),
            producer_epoch: 0,
            ongoing_txn_producer_id: ProducerId(-1),
            ongoing_txn_producer_epoch: -1,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for InitProducerIdResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.throttle_time_ms.write(out, form)?;
        self.error_code.write(out, form)?;
        self.producer_id.write(out, form)?;
        self.producer_epoch.write(out, form)?;
        if form.version >= 6 {
            self.ongoing_txn_producer_id.write(out, form)?;
        } else if self.ongoing_txn_producer_id != ProducerId(-1) {
            return Err(form.lacks("ongoing_txn_producer_id"));
        }
        if form.version >= 6 {
            self.ongoing_txn_producer_epoch.write(out, form)?;
        } else if self.ongoing_txn_producer_epoch != -1 {
            return Err(form.lacks("ongoing_txn_producer_epoch"));
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            producer_id: Wire::read(input, form)?,
            producer_epoch: Wire::read(input, form)?,
            ongoing_txn_producer_id: if form.version >= 6 {
                Wire::read(input, form)?
            } else {
                ProducerId(-1)
            },
            ongoing_txn_producer_epoch: if form.version >= 6 {
                Wire::read(input, form)?
            } else {
                -1
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { InitProducerIdResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_error_code => error_code: i16,
    with_producer_id => producer_id: ProducerId,
    with_producer_epoch => producer_epoch: i16,
    with_ongoing_txn_producer_id => ongoing_txn_producer_id: ProducerId,
    with_ongoing_txn_producer_epoch => ongoing_txn_producer_epoch: i16,
} }

message!(InitProducerIdResponse, versions 0 to 6, flexible from 2, headers 0 and 1);
