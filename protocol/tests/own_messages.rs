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
    assert!(golden().count() > 200);
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

/// Reads every golden message of an API as the wire crate does, in the versions that it knows; how many there were.
fn compare<Own, Crates>(key: i16, is_request: bool) -> usize
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
        assert_eq!(format!("{own:?}"), format!("{crates:?}"));
        let size = own.compute_size(golden.version).unwrap();
        assert_eq!(size, golden.bytes.len());
    });
    compared.count()
}

macro_rules! compare {
    ($($key:literal $is_request:literal $message:ident,)*) => {
        $(assert_ne!(compare::<messages::$message, by_the_crate::$message>($key, $is_request), 0);)*
    };
}

/// Those whose fields are the same in both.
#[test]
fn every_field_has_the_value_that_the_wire_crate_reads() {
    compare!(
        2 true ListOffsetsRequest,
        2 false ListOffsetsResponse,
        8 true OffsetCommitRequest,
        8 false OffsetCommitResponse,
        9 true OffsetFetchRequest,
        9 false OffsetFetchResponse,
        18 false ApiVersionsResponse,
        35 true DescribeLogDirsRequest,
        42 true DeleteGroupsRequest,
    );
}
