//! Where hostile bytes enter: one function an entry point, shared by the fuzz targets in `fuzz/` and by the replay of
//! their corpus in the tests. None may panic, and none may allocate much more than it was given.

use bytes::Bytes;

use crate::batch::{BATCH_HEADER_BYTES, Batches, Compression, validate_produced};
use crate::messages::{AnyRequest, AnyResponse};
use crate::record_stream::RecordStream;
use crate::records::Records;
use crate::{compression, frame, shape};

/// Most that a batch is unpacked to.
const UNPACKED_BYTES_MAX: usize = 1 << 20;

/// A request frame after its length.
pub fn request_frame(bytes: &[u8]) {
    let Ok(parsed) = frame::parse_request(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    if shape::walk_request(parsed.api_key, parsed.version, &parsed.body).is_ok() {
        let mut body = parsed.body;
        let _ = AnyRequest::decode(parsed.api_key, &mut body, parsed.version);
    }
}

/// A request's body, also of what is not served yet: two bytes API key, two bytes version, then the body.
pub fn request(bytes: &[u8]) {
    if let Some((key, version, body)) = keyed(bytes)
        && shape::walk_request(key, version, body).is_ok()
    {
        let _ = AnyRequest::decode(key, &mut Bytes::copy_from_slice(body), version);
    }
}

/// A response's body, in the same way.
pub fn response(bytes: &[u8]) {
    if let Some((key, version, body)) = keyed(bytes)
        && shape::walk_response(key, version, body).is_ok()
    {
        let _ = AnyResponse::decode(key, &mut Bytes::copy_from_slice(body), version);
    }
}

fn keyed(bytes: &[u8]) -> Option<(i16, i16, &[u8])> {
    let ([a, b, c, d], body) = bytes.split_first_chunk::<4>()?;
    let key = i16::from_be_bytes([*a, *b]);
    Some((key, i16::from_be_bytes([*c, *d]), body))
}

/// Record data as it is produced.
pub fn batches(bytes: &[u8]) {
    for found in Batches::new(bytes) {
        let Ok((_, batch)) = found else { return };
        let Ok(header) = validate_produced(batch) else {
            continue;
        };
        let packed = &batch[BATCH_HEADER_BYTES..];
        if let Ok(stream) = RecordStream::new(&header, packed, UNPACKED_BYTES_MAX) {
            let _ = stream.filter(Result::is_ok).count();
        }
        if let Ok(codec) = header.compression()
            && let Ok(unpacked) = compression::decompress(codec, packed, UNPACKED_BYTES_MAX)
        {
            walk(Records::new(&header, &unpacked));
        }
    }
}

/// Unpacked records after a batch header.
pub fn records(bytes: &[u8]) {
    if let Ok(header) = crate::batch::BatchHeader::parse(bytes) {
        walk(Records::new(&header, &bytes[BATCH_HEADER_BYTES..]));
    }
}

fn walk(records: Records<'_>) {
    for record in records.flatten() {
        let _ = record.headers().count();
    }
}

/// A codec's number, then packed bytes.
pub fn decompress(bytes: &[u8]) {
    let Some((codec, packed)) = bytes.split_first() else {
        return;
    };
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let codec = codecs[usize::from(*codec) % codecs.len()];
    if let Ok(unpacked) = compression::decompress(codec, packed, UNPACKED_BYTES_MAX) {
        assert!(codec == Compression::None || unpacked.len() <= UNPACKED_BYTES_MAX);
    }
}
