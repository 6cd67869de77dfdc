//! DeleteGroupsRequest (key 42, v0–v3).
//!
//! Written by schemas/generate.py from DeleteGroupsRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::Request;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// DeleteGroupsRequest (key 42, v0–v3).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeleteGroupsRequest {
    /// The group names to delete.
    pub groups_names: Vec<GroupId>,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for DeleteGroupsRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.groups_names.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            groups_names: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { DeleteGroupsRequest {
    with_groups_names => groups_names: Vec<GroupId>,
} }

message!(DeleteGroupsRequest, versions 0 to 3, flexible from 2, headers 1 and 2);

impl Request for DeleteGroupsRequest {
    const KEY: i16 = 42;
    type Response = super::DeleteGroupsResponse;
}
