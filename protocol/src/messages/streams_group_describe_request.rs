//! StreamsGroupDescribeRequest (key 89, v0–v1).
//!
//! Written by schemas/generate.py from StreamsGroupDescribeRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::Request;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// StreamsGroupDescribeRequest (key 89, v0–v1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamsGroupDescribeRequest {
    /// The ids of the groups to describe
    pub group_ids: Vec<GroupId>,
    /// Whether to include authorized operations.
    pub include_authorized_operations: bool,
    /// Whether to include the full topology description from the topology description plugin in the response.
    pub include_topology_description: bool,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for StreamsGroupDescribeRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.group_ids.write(out, form)?;
        self.include_authorized_operations.write(out, form)?;
        if form.version >= 1 {
            self.include_topology_description.write(out, form)?;
        } else if self.include_topology_description {
            return Err(form.lacks("include_topology_description"));
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            group_ids: Wire::read(input, form)?,
            include_authorized_operations: Wire::read(input, form)?,
            include_topology_description: if form.version >= 1 {
                Wire::read(input, form)?
            } else {
                false
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { StreamsGroupDescribeRequest {
    with_group_ids => group_ids: Vec<GroupId>,
    with_include_authorized_operations => include_authorized_operations: bool,
    with_include_topology_description => include_topology_description: bool,
} }

message!(StreamsGroupDescribeRequest, versions 0 to 1, flexible from 0, headers 1 and 2);

impl Request for StreamsGroupDescribeRequest {
    const KEY: i16 = 89;
    type Response = super::StreamsGroupDescribeResponse;
}
