//! The messages that are generated here, against Kafka's own classes and against the wire crate.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as by_the_crate;
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use metaq_protocol::messages::{self, AnyRequest, AnyResponse};
use metaq_protocol::shape;

struct Golden {
    key: i16,
    is_request: bool,
    version: i16,
    bytes: Bytes,
}

/// What `schemas/GoldenMessages.java` printed.
fn golden() -> impl Iterator<Item = Golden> {
    include_str!("golden.txt").lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let digits = |at: usize| u8::from_str_radix(&words[3][at..at + 2], 16).unwrap();
        Golden {
            key: words[0].parse().unwrap(),
            is_request: words[1] == "request",
            version: words[2].parse().unwrap(),
            bytes: (0..words[3].len()).step_by(2).map(digits).collect(),
        }
    })
}

impl Golden {
    /// Decodes it and encodes it again.
    fn again(&self) -> anyhow::Result<Bytes> {
        let mut rest = self.bytes.clone();
        let mut out = BytesMut::new();
        if self.is_request {
            let read = AnyRequest::decode(self.key, &mut rest, self.version)?;
            assert!(!matches!(read, AnyRequest::Other(_)));
            read.encode(&mut out, self.version)?;
        } else {
            let read = AnyResponse::decode(self.key, &mut rest, self.version)?;
            assert!(!matches!(read, AnyResponse::Other(_)));
            read.encode(&mut out, self.version)?;
        }
        assert!(rest.is_empty());
        Ok(out.freeze())
    }
}

#[test]
fn what_kafkas_classes_write_is_read_and_written_as_it_was() {
    for golden in golden() {
        let Golden { key, version, .. } = golden;
        assert_eq!(golden.again().unwrap(), golden.bytes, "{key} v{version}");
        if !golden.is_request {
            shape::walk_response(key, version, &golden.bytes).unwrap();
        }
    }
    assert!(golden().count() > 400);
}

#[test]
fn what_is_cut_anywhere_is_an_error() {
    for golden in golden() {
        for cut in 0..golden.bytes.len() {
            let Golden { key, version, .. } = golden;
            let bytes = golden.bytes.slice(..cut);
            assert!(
                Golden { bytes, ..golden }.again().is_err(),
                "{key} v{version} at {cut}"
            );
        }
    }
}

/// Reads every golden message of an API as the wire crate does, in the versions that it knows, but for what one of them alone has;
/// how many there were.
fn compare<Own, Crates>(key: i16, is_request: bool, other: &[&str]) -> usize
where
    Own: Decodable + Encodable + std::fmt::Debug,
    Crates: Decodable + Message + std::fmt::Debug,
{
    let versions = Crates::VERSIONS.min..=Crates::VERSIONS.max;
    let known = golden().filter(|golden| versions.contains(&golden.version));
    let known = known.filter(|golden| golden.key == key && golden.is_request == is_request);
    let compared = known.map(|golden| {
        let own = Own::decode(&mut golden.bytes.clone(), golden.version).unwrap();
        let crates = Crates::decode(&mut golden.bytes.clone(), golden.version).unwrap();
        let without = |read: String| {
            other
                .iter()
                .fold(read, |read, other| read.replace(other, ""))
        };
        assert_eq!(without(format!("{own:?}")), without(format!("{crates:?}")));
        let size = own.compute_size(golden.version).unwrap();
        assert_eq!(size, golden.bytes.len());
    });
    compared.count()
}

macro_rules! compare {
    ($($key:literal $is_request:literal $message:ident but $other:expr,)*) => {
        $(assert_ne!(compare::<messages::$message, by_the_crate::$message>($key, $is_request, $other), 0);)*
    };
}

/// Those that the wire crate has at all, with what one of them alone has; ShareFetchResponse's records
/// may be null there.
#[test]
fn every_field_has_the_value_that_the_wire_crate_reads() {
    compare!(
        2 true ListOffsetsRequest but &[],
        2 false ListOffsetsResponse but &[],
        8 true OffsetCommitRequest but &[],
        8 false OffsetCommitResponse but &[],
        9 true OffsetFetchRequest but &[],
        9 false OffsetFetchResponse but &[],
        18 true ApiVersionsRequest but &["cluster_id: None, node_id: -1, "],
        18 false ApiVersionsResponse but &[],
        22 true InitProducerIdRequest but &[],
        22 false InitProducerIdResponse but &[],
        27 true WriteTxnMarkersRequest but &["transaction_version: 0, "],
        27 false WriteTxnMarkersResponse but &[],
        28 true TxnOffsetCommitRequest but &["topic_id: 00000000-0000-0000-0000-000000000000, ", "_or_member_epoch"],
        28 false TxnOffsetCommitResponse but &["topic_id: 00000000-0000-0000-0000-000000000000, "],
        35 true DescribeLogDirsRequest but &[],
        35 false DescribeLogDirsResponse but &["is_cordoned: false, "],
        42 true DeleteGroupsRequest but &[],
        42 false DeleteGroupsResponse but &["error_message: None, "],
        78 true ShareFetchRequest but &["share_acquire_mode: 0, is_renew_ack: false, ", "partition_max_bytes: 0, "],
        79 true ShareAcknowledgeRequest but &["is_renew_ack: false, "],
        79 false ShareAcknowledgeResponse but &["acquisition_lock_timeout_ms: 0, "],
        90 true DescribeShareGroupOffsetsRequest but &[],
        90 false DescribeShareGroupOffsetsResponse but &["lag: -1, "],
    );
}
