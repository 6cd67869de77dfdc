//! Builds record batches, for tests, tools and markers.
//!
//! Tests: batch.rs, records.rs.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    BATCH_HEADER_BYTES, BatchHeader, CONTROL, CRC_START, Compression, LENGTH_PREFIX_BYTES,
    TRANSACTIONAL,
};
use crate::compression::{self, CompressionError};

/// A batch that grows by a record at a time.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    records: BytesMut,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    attributes: i16,
    codec: Compression,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch without producer, not compressed.
    pub fn new() -> Self {
        Self {
            records: BytesMut::new(),
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            attributes: 0,
            codec: Compression::None,
        }
    }

    /// Sets the idempotent producer's identity.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, base_sequence);
        self
    }

    /// Marks the batch as part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.attributes |= TRANSACTIONAL;
        self
    }

    /// Marks the batch as a control batch.
    pub fn control(mut self) -> Self {
        self.attributes |= CONTROL;
        self
    }

    /// Sets the codec.
    pub fn compression(mut self, codec: Compression) -> Self {
        self.codec = codec;
        self
    }

    /// Adds a record.
    pub fn push(
        mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
        timestamp: i64,
    ) -> Self {
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let mut body = BytesMut::new();
        body.put_i8(0);
        put_varint(&mut body, timestamp - self.base_timestamp);
        put_varint(&mut body, i64::from(self.count));
        put_field(&mut body, key);
        put_field(&mut body, value);
        put_varint(&mut body, headers.len() as i64);
        for (name, value) in headers {
            put_field(&mut body, Some(name));
            put_field(&mut body, *value);
        }
        put_varint(&mut self.records, body.len() as i64);
        self.records.put_slice(&body);
        self.count += 1;
        self
    }

    /// The batch's bytes, with base offset 0.
    pub fn finish(self) -> Result<Bytes, CompressionError> {
        let packed = compression::compress(self.codec, &self.records)?;
        Ok(self.assemble(&packed))
    }

    /// As [`Self::finish`], not compressed.
    pub(super) fn finish_plain(mut self) -> Bytes {
        self.codec = Compression::None;
        self.assemble(&self.records)
    }

    fn assemble(&self, packed: &[u8]) -> Bytes {
        let header = BatchHeader {
            base_offset: 0,
            batch_length: (packed.len() + BATCH_HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32,
            leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: self.attributes | self.codec.attribute(),
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.count,
        };
        let mut head = [0; BATCH_HEADER_BYTES];
        header.write(&mut head);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[CRC_START..]), packed);
        head[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
        let mut batch = BytesMut::with_capacity(BATCH_HEADER_BYTES + packed.len());
        batch.put_slice(&head);
        batch.put_slice(packed);
        batch.freeze()
    }
}

fn put_field(out: &mut BytesMut, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

/// Zigzag varint, as records use it.
pub(super) fn put_varint(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}
