//! A request and a response of any API.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey as Known, RequestKind, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, Request};

use super::*;

macro_rules! any {
    ($any:ident, $kind:ident: $($message:ident of $request:ident,)*) => {
        #[derive(Debug, Clone, PartialEq)]
        pub enum $any {
            /// One of the wire crate's.
            Other($kind),
            $($message($message),)*
        }

        impl $any {
            /// Decodes it; its shape is to be checked before.
            pub fn decode(key: i16, body: &mut Bytes, version: i16) -> anyhow::Result<Self> {
                match key {
                    $(<$request as Request>::KEY => $message::decode(body, version).map(Self::$message),)*
                    _ => {
                        let unknown = |()| anyhow::Error::msg(format!("no API has key {key}"));
                        let key = Known::try_from(key).map_err(unknown)?;
                        $kind::decode(key, body, version).map(Self::Other)
                    }
                }
            }

            /// Encodes it.
            pub fn encode(&self, out: &mut BytesMut, version: i16) -> anyhow::Result<()> {
                match self {
                    Self::Other(other) => other.encode(out, version),
                    $(Self::$message(message) => message.encode(out, version),)*
                }
            }
        }
    };
}

any! {
    AnyRequest, RequestKind:
    ApiVersionsRequest of ApiVersionsRequest,
    DeleteGroupsRequest of DeleteGroupsRequest,
    DescribeLogDirsRequest of DescribeLogDirsRequest,
    DescribeShareGroupOffsetsRequest of DescribeShareGroupOffsetsRequest,
    InitProducerIdRequest of InitProducerIdRequest,
    ListOffsetsRequest of ListOffsetsRequest,
    OffsetCommitRequest of OffsetCommitRequest,
    OffsetFetchRequest of OffsetFetchRequest,
    ReadShareGroupStateSummaryRequest of ReadShareGroupStateSummaryRequest,
    ShareAcknowledgeRequest of ShareAcknowledgeRequest,
    ShareFetchRequest of ShareFetchRequest,
    StreamsGroupDescribeRequest of StreamsGroupDescribeRequest,
    StreamsGroupHeartbeatRequest of StreamsGroupHeartbeatRequest,
    TxnOffsetCommitRequest of TxnOffsetCommitRequest,
    WriteShareGroupStateRequest of WriteShareGroupStateRequest,
    WriteTxnMarkersRequest of WriteTxnMarkersRequest,
}

any! {
    AnyResponse, ResponseKind:
    ApiVersionsResponse of ApiVersionsRequest,
    DeleteGroupsResponse of DeleteGroupsRequest,
    DescribeLogDirsResponse of DescribeLogDirsRequest,
    DescribeShareGroupOffsetsResponse of DescribeShareGroupOffsetsRequest,
    InitProducerIdResponse of InitProducerIdRequest,
    ListOffsetsResponse of ListOffsetsRequest,
    OffsetCommitResponse of OffsetCommitRequest,
    OffsetFetchResponse of OffsetFetchRequest,
    ReadShareGroupStateSummaryResponse of ReadShareGroupStateSummaryRequest,
    ShareAcknowledgeResponse of ShareAcknowledgeRequest,
    ShareFetchResponse of ShareFetchRequest,
    StreamsGroupDescribeResponse of StreamsGroupDescribeRequest,
    StreamsGroupHeartbeatResponse of StreamsGroupHeartbeatRequest,
    TxnOffsetCommitResponse of TxnOffsetCommitRequest,
    WriteShareGroupStateResponse of WriteShareGroupStateRequest,
    WriteTxnMarkersResponse of WriteTxnMarkersRequest,
}
