//! ApiVersionsRequest (key 18, v0–v5).
//!
//! Written by schemas/generate.py from ApiVersionsRequest.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Request, StrBytes};

use super::wire::{Form, Sink, Tags, Wire, message, read_unknown_tags, setters};

/// ApiVersionsRequest (key 18, v0–v5).
#[derive(Debug, Clone, PartialEq)]
pub struct ApiVersionsRequest {
    /// The name of the client.
    pub client_software_name: StrBytes,
    /// The version of the client.
    pub client_software_version: StrBytes,
    /// The cluster ID the client intends to connect to. Provide both ClusterId and NodeId, if known.
    pub cluster_id: Option<StrBytes>,
    /// The node ID the client intends to connect to. Provide both ClusterId and NodeId, if known.
    pub node_id: i32,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for ApiVersionsRequest {
    fn default() -> Self {
        Self {
            client_software_name: Default::default(),
            client_software_version: Default::default(),
            cluster_id: None,
            node_id: -1,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for ApiVersionsRequest {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        if form.version >= 3 {
            self.client_software_name.write(out, form)?;
            self.client_software_version.write(out, form)?;
        }
        if form.version >= 5 {
            self.cluster_id.write(out, form)?;
            self.node_id.write(out, form)?;
        }
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            client_software_name: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            client_software_version: if form.version >= 3 {
                Wire::read(input, form)?
            } else {
                Default::default()
            },
            cluster_id: if form.version >= 5 {
                Wire::read(input, form)?
            } else {
                None
            },
            node_id: if form.version >= 5 {
                Wire::read(input, form)?
            } else {
                -1
            },
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ApiVersionsRequest {
    with_client_software_name => client_software_name: StrBytes,
    with_client_software_version => client_software_version: StrBytes,
    with_cluster_id => cluster_id: Option<StrBytes>,
    with_node_id => node_id: i32,
} }

message!(ApiVersionsRequest, versions 0 to 5, flexible from 3, headers 1 and 2);

impl Request for ApiVersionsRequest {
    const KEY: i16 = 18;
    type Response = super::ApiVersionsResponse;
}
