//! The records of a batch while they are unpacked, for checking them: nothing is kept but a small buffer, whatever the
//! batch unpacks to. Keys, values and headers are passed over (Kafka's skipKeyValueIterator).

use std::io::{self, Read};

use crate::batch::BatchHeader;
use crate::compression::{self, CompressionError};

const BUFFER_BYTES: usize = 64 << 10;

/// What is known of a record that was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedRecord {
    /// Offset after the batch's base offset.
    pub offset_delta: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Whether its key is not null.
    pub has_key: bool,
}

/// Why packed bytes are not records.
#[derive(Debug, thiserror::Error)]
pub enum RecordStreamError {
    /// They do not unpack.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// They do not unpack from here on.
    #[error("record {record} does not unpack: {source}")]
    Unpack {
        /// Which one, from 0.
        record: usize,
        /// What the codec said.
        source: io::Error,
    },
    /// They unpack to something else.
    #[error("record {record} is malformed: {what}")]
    Malformed {
        /// Which one, from 0.
        record: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// They unpack to more than the cap.
    #[error("the batch unpacks to more than {0} bytes")]
    TooLarge(usize),
}

enum Fault {
    Io(io::Error),
    Malformed(&'static str),
    TooLarge,
}

impl From<&'static str> for Fault {
    fn from(what: &'static str) -> Self {
        Self::Malformed(what)
    }
}

/// See the module's documentation. Yields as many records as the header says, or ends with an error.
pub struct RecordStream<'a> {
    unpacker: Box<dyn Read + 'a>,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    /// What may still come out.
    left: usize,
    bytes_max: usize,
    base_timestamp: i64,
    log_append_time: Option<i64>,
    next: usize,
    count: usize,
}

impl<'a> RecordStream<'a> {
    /// The records in the `packed` part of a batch; at most `bytes_max` bytes of them.
    pub fn new(
        header: &BatchHeader,
        packed: &'a [u8],
        bytes_max: usize,
    ) -> Result<Self, RecordStreamError> {
        let codec = header
            .compression()
            .map_err(|_| RecordStreamError::Malformed {
                record: 0,
                what: "unknown codec",
            })?;
        Ok(Self {
            unpacker: compression::unpacker(codec, packed, bytes_max)?,
            buffer: vec![0; BUFFER_BYTES.min(bytes_max.max(1))],
            at: 0,
            filled: 0,
            left: bytes_max,
            bytes_max,
            base_timestamp: header.base_timestamp,
            log_append_time: header.is_log_append_time().then_some(header.max_timestamp),
            next: 0,
            count: usize::try_from(header.record_count).unwrap_or(0),
        })
    }

    /// Makes sure that there is something in the buffer; false at the end.
    fn fill(&mut self) -> Result<bool, Fault> {
        while self.at == self.filled {
            match self.unpacker.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.left = self.left.checked_sub(read).ok_or(Fault::TooLarge)?;
                    (self.at, self.filled) = (0, read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Io(error)),
            }
        }
        Ok(true)
    }

    /// A byte of a record of which `left` bytes are left.
    fn byte(&mut self, left: &mut usize) -> Result<u8, Fault> {
        *left = left.checked_sub(1).ok_or("it is longer than it says")?;
        if !self.fill()? {
            return Err("the batch ends within it".into());
        }
        self.at += 1;
        Ok(self.buffer[self.at - 1])
    }

    fn varint(&mut self, left: &mut usize) -> Result<i64, Fault> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte(left)?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err("a varint is too long".into())
    }

    fn skip(&mut self, mut bytes: usize, left: &mut usize) -> Result<(), Fault> {
        *left = left.checked_sub(bytes).ok_or("it is longer than it says")?;
        while bytes > 0 {
            if !self.fill()? {
                return Err("the batch ends within it".into());
            }
            let some = bytes.min(self.filled - self.at);
            self.at += some;
            bytes -= some;
        }
        Ok(())
    }

    /// Passes over a field; false when it is null.
    fn field(&mut self, left: &mut usize) -> Result<bool, Fault> {
        match self.varint(left)? {
            -1 => Ok(false),
            length => {
                let length = usize::try_from(length).map_err(|_| "a length is negative")?;
                self.skip(length, left)?;
                Ok(true)
            }
        }
    }

    fn read(&mut self) -> Result<PassedRecord, Fault> {
        let mut unbounded = usize::MAX;
        let length = self.varint(&mut unbounded)?;
        let left = &mut usize::try_from(length).map_err(|_| "its length is negative")?;
        self.byte(left)?;
        let timestamp_delta = self.varint(left)?;
        let offset_delta = self.varint(left)?;
        let has_key = self.field(left)?;
        self.field(left)?;
        let headers = self.varint(left)?;
        if headers < 0 {
            return Err("its header count is negative".into());
        }
        // Each header takes at least two bytes, so a hostile count ends at the record's end.
        for _ in 0..headers {
            if !self.field(left)? {
                return Err("a header key is null".into());
            }
            self.field(left)?;
        }
        if *left != 0 {
            return Err("bytes after its last header".into());
        }
        Ok(PassedRecord {
            offset_delta,
            timestamp: self
                .log_append_time
                .unwrap_or_else(|| self.base_timestamp.wrapping_add(timestamp_delta)),
            has_key,
        })
    }

    fn error(&mut self, fault: Fault) -> RecordStreamError {
        let record = self.next;
        self.next = self.count + 1;
        match fault {
            Fault::Io(source) => RecordStreamError::Unpack { record, source },
            Fault::Malformed(what) => RecordStreamError::Malformed { record, what },
            Fault::TooLarge => RecordStreamError::TooLarge(self.bytes_max),
        }
    }
}

impl Iterator for RecordStream<'_> {
    type Item = Result<PassedRecord, RecordStreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.count {
            return None;
        }
        if self.next == self.count {
            // Read to the end, so that what the codec checks there is checked.
            let fault = match self.fill() {
                Ok(false) => {
                    self.next += 1;
                    return None;
                }
                Ok(true) => Fault::Malformed("bytes after the last record"),
                Err(fault) => fault,
            };
            return Some(Err(self.error(fault)));
        }
        match self.read() {
            Ok(record) => {
                self.next += 1;
                Some(Ok(record))
            }
            Err(fault) => Some(Err(self.error(fault))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BATCH_HEADER_BYTES, BatchBuilder, Compression};

    const CODECS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn batch(codec: Compression, value: &[u8]) -> Vec<u8> {
        BatchBuilder::new()
            .compression(codec)
            .push(None, Some(value), &[(b"h", Some(b"x")), (b"h", None)], 7)
            .push(Some(b"k"), None, &[], 9)
            .push(Some(b""), Some(b""), &[], 8)
            .finish()
            .unwrap()
            .to_vec()
    }

    fn walk(batch: &[u8], bytes_max: usize) -> Result<Vec<PassedRecord>, RecordStreamError> {
        let header = BatchHeader::parse(batch).unwrap();
        RecordStream::new(&header, &batch[BATCH_HEADER_BYTES..], bytes_max)?.collect()
    }

    #[test]
    fn records_of_every_codec_are_passed_over_whatever_their_size() {
        let value: Vec<u8> = (0..300_000u32).flat_map(u32::to_be_bytes).collect();
        for codec in CODECS {
            let passed = walk(&batch(codec, &value), 2 << 20).unwrap();
            let seen: Vec<_> = passed
                .iter()
                .map(|record| (record.offset_delta, record.timestamp, record.has_key))
                .collect();
            assert_eq!(
                seen,
                [(0, 7, false), (1, 9, true), (2, 8, true)],
                "{codec:?}"
            );
        }
    }

    #[test]
    fn the_cap_holds_for_every_codec() {
        for codec in CODECS {
            assert!(
                walk(&batch(codec, &[0; 300_000]), 200_000).is_err(),
                "{codec:?}"
            );
        }
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_an_error() {
        for codec in CODECS {
            let whole = batch(codec, b"value value value value");
            for cut in BATCH_HEADER_BYTES..whole.len() {
                assert!(walk(&whole[..cut], 1 << 20).is_err(), "{codec:?} {cut}");
            }
            let mut fewer = whole.clone();
            fewer[57..61].copy_from_slice(&2i32.to_be_bytes());
            assert!(walk(&fewer, 1 << 20).is_err(), "{codec:?}");
            let mut more = whole;
            more[57..61].copy_from_slice(&4i32.to_be_bytes());
            assert!(walk(&more, 1 << 20).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        for codec in &CODECS {
            for length in 1..64usize {
                let mut bytes = batch(*codec, b"v")[..BATCH_HEADER_BYTES].to_vec();
                bytes.extend((0..length).map(|n| (n * 37 + length) as u8));
                assert!(walk(&bytes, 1 << 20).is_err(), "{codec:?} {length}");
            }
        }
    }
}
