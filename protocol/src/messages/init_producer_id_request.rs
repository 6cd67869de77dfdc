//! InitProducerIdRequest (key 22, v0–v6).
//!
//! Written by schemas/generate.py from InitProducerIdRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{ProducerId, TransactionalId};
use kafka_protocol::protocol::Request;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// InitProducerIdRequest (key 22, v0–v6).
#[derive(Debug, Clone, PartialEq)]
pub struct InitProducerIdRequest {
    /// The transactional id, or null if the producer is not transactional.
    pub transactional_id: Option<TransactionalId>,
    /// The time in ms to wait before aborting idle transactions sent by this producer. This is only relevant if a TransactionalId has been defined.
    pub transaction_timeout_ms: i32,
    /// The producer id. This is used to disambiguate requests if a transactional id is reused following its expiration.
    pub producer_id: ProducerId,
    /// The producer's current epoch. This will be checked against the producer epoch on the broker, and the request will return an error if they do not match.
    pub producer_epoch: i16,
    /// True if the client wants to enable two-phase commit (2PC) protocol for transactions.
    pub enable_2_pc: bool,
    /// True if the client wants to keep the currently ongoing transaction instead of aborting it.
    pub keep_prepared_txn: bool,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for InitProducerIdRequest {
    fn default() -> Self {
        Self {
            transactional_id: Some(Default::default()),
            transaction_timeout_ms: 0,
            producer_id: ProducerId(-1),
            producer_epoch: -1,
            enable_2_pc: false,
            keep_prepared_txn: false,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for InitProducerIdRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.transactional_id.write(out, form)?;
        self.transaction_timeout_ms.write(out, form)?;
        if form.version >= 3 {
            self.producer_id.write(out, form)?;
        } else if self.producer_id != ProducerId(-1) {
            return Err(form.lacks("producer_id"));
        }
        if form.version >= 3 {
            self.producer_epoch.write(out, form)?;
        } else if self.producer_epoch != -1 {
            return Err(form.lacks("producer_epoch"));
        }
        if form.version >= 6 {
            self.enable_2_pc.write(out, form)?;
        } else if self.enable_2_pc {
            return Err(form.lacks("enable_2_pc"));
        }
        if form.version >= 6 {
            self.keep_prepared_txn.write(out, form)?;
        } else if self.keep_prepared_txn {
            return Err(form.lacks("keep_prepared_txn"));
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            transactional_id: Wire::read(input, form)?,
            transaction_timeout_ms: Wire::read(input, form)?,
            producer_id: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                ProducerId(-1)
            },
            producer_epoch: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                -1
            },
            enable_2_pc: if form.version >= 6 {
                Wire::read(input, form)?
            } else {
                false
            },
            keep_prepared_txn: if form.version >= 6 {
                Wire::read(input, form)?
            } else {
                false
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { InitProducerIdRequest {
    with_transactional_id => transactional_id: Option<TransactionalId>,
    with_transaction_timeout_ms => transaction_timeout_ms: i32,
    with_producer_id => producer_id: ProducerId,
    with_producer_epoch => producer_epoch: i16,
    with_enable_2_pc => enable_2_pc: bool,
    with_keep_prepared_txn => keep_prepared_txn: bool,
} }

message!(InitProducerIdRequest, versions 0 to 6, flexible from 2, headers 1 and 2);

impl Request for InitProducerIdRequest {
    const KEY: i16 = 22;
    type Response = super::InitProducerIdResponse;
}
