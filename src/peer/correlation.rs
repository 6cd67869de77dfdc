//! What matches answers to requests: the correlation id in a frame.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

/// Length, API key and version; a request's correlation id stands after them.
pub(super) const BEFORE_ID: usize = 8;

/// The correlation id in a frame.
pub(super) fn correlation_id(frame: &[u8], at: usize) -> io::Result<i32> {
    let bytes = frame
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(i32::from_be_bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a frame without correlation id"))
}

/// A request with another correlation id; without a copy where nobody else holds it.
pub(super) fn with_correlation_id(frame: Bytes, id: i32) -> Bytes {
    let mut frame = BytesMut::from(frame);
    let mut place = &mut frame[BEFORE_ID..BEFORE_ID + 4];
    place.put_i32(id);
    frame.freeze()
}
