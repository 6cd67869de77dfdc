//! DeleteGroupsResponse (key 42, v0–v3).
//!
//! Written by schemas/generate.py from DeleteGroupsResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// DeleteGroupsResponse (key 42, v0–v3).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeleteGroupsResponse {
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// The deletion results.
    pub results: Vec<DeletableGroupResult>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DeleteGroupsResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.throttle_time_ms.write(out, form)?;
        self.results.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            throttle_time_ms: Wire::read(input, form)?,
            results: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DeleteGroupsResponse {
    with_throttle_time_ms => throttle_time_ms: i32,
    with_results => results: Vec<DeletableGroupResult>,
} }

/// The deletion results.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeletableGroupResult {
    /// The group id.
    pub group_id: GroupId,
    /// The deletion error, or 0 if the deletion succeeded.
    pub error_code: i16,
    /// The error message, or null if there was no error.
    pub error_message: Option<StrBytes>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DeletableGroupResult {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_id.write(out, form)?;
        self.error_code.write(out, form)?;
        if form.version >= 3 {
            self.error_message.write(out, form)?;
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_id: Wire::read(input, form)?,
            error_code: Wire::read(input, form)?,
            error_message: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                None
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DeletableGroupResult {
    with_group_id => group_id: GroupId,
    with_error_code => error_code: i16,
    with_error_message => error_message: Option<StrBytes>,
} }

message!(DeleteGroupsResponse, versions 0 to 3, flexible from 2, headers 0 and 1);
