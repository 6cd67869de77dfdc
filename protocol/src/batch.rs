//! The header of a version-2 record batch (KIP-98): reading, checking, and setting what a broker sets.
//!
//! A batch on the wire and in a segment file, big-endian:
//!
//! | bytes  | field             | meaning                                                        |
//! |--------|-------------------|----------------------------------------------------------------|
//! | 0..8   | base_offset       | offset of the first record                                     |
//! | 8..12  | batch_length      | bytes after this field                                        |
//! | 12..16 | leader_epoch      | epoch of the leader that appended it                           |
//! | 16     | magic             | 2                                                              |
//! | 17..21 | crc               | CRC-32C of everything from `attributes` on                     |
//! | 21..23 | attributes        | bits 0–2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon |
//! | 23..27 | last_offset_delta | last offset − base offset                                      |
//! | 27..35 | base_timestamp    | ms                                                             |
//! | 35..43 | max_timestamp     | ms                                                             |
//! | 43..51 | producer_id       | −1 for none                                                    |
//! | 51..53 | producer_epoch    | −1 for none                                                    |
//! | 53..57 | base_sequence     | −1 for none                                                    |
//! | 57..61 | record_count      |                                                                |
//! | 61..   | records           | compressed as one block                                        |

mod builder;
mod compacted;
mod marker;

use bytes::BufMut;

pub use builder::BatchBuilder;
pub use compacted::{CompactError, write_no_records, write_some_records};
pub use marker::{EndMarker, Outcome};

/// Size of the header.
pub const BATCH_HEADER_BYTES: usize = 61;
/// What `batch_length` does not count.
const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the CRC's range begins.
const CRC_START: usize = 21;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;
const CODEC_MASK: i16 = 0x07;

/// Why bytes are not an acceptable batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header says.
    #[error("{have} bytes are fewer than the batch's {need}")]
    Truncated {
        /// What there is.
        have: usize,
        /// What there should be.
        need: usize,
    },
    /// Another format than version 2.
    #[error("record format {0} is not supported")]
    Magic(i8),
    /// A length that no batch has.
    #[error("batch length {0} is impossible")]
    Length(i32),
    /// The content is not what was sent.
    #[error("the CRC does not match")]
    Crc,
    /// An unknown codec.
    #[error("compression codec {0} is unknown")]
    Codec(i16),
    /// Record count and last offset disagree, or there are no records.
    #[error("{record_count} records do not fit a last offset delta of {last_offset_delta}")]
    Count {
        /// Records by the header.
        record_count: i32,
        /// Offsets by the header.
        last_offset_delta: i32,
    },
    /// A client must not send control batches.
    #[error("a client may not write control batches")]
    Control,
    /// A timestamp below -1.
    #[error("timestamp {0} is invalid")]
    Timestamp(i64),
    /// Bytes after the batch.
    #[error("{0} bytes after the batch")]
    Trailing(usize),
}

/// A batch's codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not compressed.
    None,
    /// gzip.
    Gzip,
    /// Snappy in Java's block framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Its number in the attributes.
    pub fn attribute(self) -> i16 {
        self as i16
    }

    /// The codec that a batch's attributes name.
    pub fn of_attributes(attributes: i16) -> Result<Self, BatchError> {
        match attributes & CODEC_MASK {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            unknown => Err(BatchError::Codec(unknown)),
        }
    }

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd]
            .into_iter()
            .find(|codec| codec.name() == name)
    }
}

/// A batch's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the module's table says what each is
pub struct BatchHeader {
    pub base_offset: i64,
    pub batch_length: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Decodes the first 61 bytes. The batch itself may be longer than `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let truncated = BatchError::Truncated {
            have: bytes.len(),
            need: BATCH_HEADER_BYTES,
        };
        let head = bytes.first_chunk::<BATCH_HEADER_BYTES>().ok_or(truncated)?;
        let magic = head[16] as i8;
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(head, 0)),
            batch_length: i32::from_be_bytes(field(head, 8)),
            leader_epoch: i32::from_be_bytes(field(head, 12)),
            magic,
            crc: u32::from_be_bytes(field(head, 17)),
            attributes: i16::from_be_bytes(field(head, 21)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, 35)),
            producer_id: i64::from_be_bytes(field(head, 43)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        };
        if header.batch_length < (BATCH_HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return Err(BatchError::Length(header.batch_length));
        }
        Ok(header)
    }

    /// Encodes the header.
    pub fn write(&self, out: &mut [u8; BATCH_HEADER_BYTES]) {
        let mut rest = &mut out[..];
        rest.put_i64(self.base_offset);
        rest.put_i32(self.batch_length);
        rest.put_i32(self.leader_epoch);
        rest.put_i8(self.magic);
        rest.put_u32(self.crc);
        rest.put_i16(self.attributes);
        rest.put_i32(self.last_offset_delta);
        rest.put_i64(self.base_timestamp);
        rest.put_i64(self.max_timestamp);
        rest.put_i64(self.producer_id);
        rest.put_i16(self.producer_epoch);
        rest.put_i32(self.base_sequence);
        rest.put_i32(self.record_count);
    }

    /// Bytes of the whole batch.
    pub fn total_bytes(&self) -> usize {
        self.batch_length.max(0) as usize + LENGTH_PREFIX_BYTES
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .wrapping_add(i64::from(self.last_offset_delta))
    }

    /// Sequence of the last record.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            -1
        } else {
            next_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    /// The codec.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::of_attributes(self.attributes)
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Holds a marker, not records.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// All records carry the broker's time, which is `max_timestamp`.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// `base_timestamp` is when tombstones may go.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }
}

fn field<const N: usize>(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

/// The sequence `increment` after `sequence`; they wrap from `i32::MAX` to 0.
pub fn next_sequence(sequence: i32, increment: i32) -> i32 {
    ((i64::from(sequence) + i64::from(increment)) & i64::from(i32::MAX)) as i32
}

/// Whether a whole batch's CRC is right.
pub fn verify_crc(batch: &[u8]) -> bool {
    let Some(stored) = batch.get(17..CRC_START) else {
        return false;
    };
    crc32c::crc32c(&batch[CRC_START..]).to_be_bytes() == stored
}

/// The header under which a batch is stored: base offset and leader epoch set; for LogAppendTime also the
/// timestamps, the attribute and the CRC. `batch` must hold a header that was parsed before.
pub fn header_for_append(
    batch: &[u8],
    base_offset: i64,
    leader_epoch: i32,
    log_append_time: Option<i64>,
) -> [u8; BATCH_HEADER_BYTES] {
    let mut head = [0; BATCH_HEADER_BYTES];
    let bytes = batch.len().min(BATCH_HEADER_BYTES);
    head[..bytes].copy_from_slice(&batch[..bytes]);
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    head[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    if let Some(time) = log_append_time {
        let attributes = i16::from_be_bytes([head[21], head[22]]) | LOG_APPEND_TIME;
        head[21..23].copy_from_slice(&attributes.to_be_bytes());
        head[35..43].copy_from_slice(&time.to_be_bytes());
        let crc = crc32c::crc32c_append(
            crc32c::crc32c(&head[CRC_START..]),
            batch.get(BATCH_HEADER_BYTES..).unwrap_or(&[]),
        );
        head[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
    }
    head
}

/// Checks all that a leader checks of a client's batch without unpacking it.
pub fn validate_produced(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let need = header.total_bytes();
    if batch.len() < need {
        return Err(BatchError::Truncated {
            have: batch.len(),
            need,
        });
    }
    if batch.len() > need {
        return Err(BatchError::Trailing(batch.len() - need));
    }
    if !verify_crc(batch) {
        return Err(BatchError::Crc);
    }
    header.compression()?;
    if header.is_control() {
        return Err(BatchError::Control);
    }
    let (record_count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if record_count <= 0 || last_offset_delta != record_count - 1 {
        return Err(BatchError::Count {
            record_count,
            last_offset_delta,
        });
    }
    for timestamp in [header.base_timestamp, header.max_timestamp] {
        if timestamp < -1 {
            return Err(BatchError::Timestamp(timestamp));
        }
    }
    Ok(header)
}

/// Whether bytes begin with a whole message of format 0 or 1, which is no damage but not read here:
///
/// | bytes  | field                                       |
/// |--------|---------------------------------------------|
/// | 0..8   | offset                                      |
/// | 8..12  | bytes after this field                     |
/// | 12..16 | CRC-32 of everything from `magic` on        |
/// | 16     | magic                                       |
pub fn is_old_message(bytes: &[u8]) -> bool {
    let message = || {
        let size = i32::from_be_bytes(*bytes.get(8..)?.first_chunk()?);
        let message = bytes.get(12..)?.get(..usize::try_from(size).ok()?)?;
        let (stored, rest) = message.split_first_chunk::<4>()?;
        let mut crc = flate2::Crc::new();
        crc.update(rest);
        Some(matches!(rest.first()?, 0 | 1) && crc.sum() == u32::from_be_bytes(*stored))
    };
    message().unwrap_or(false)
}

/// Splits a buffer into batches; stops at the first error.
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// All batches in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = BatchHeader::parse(self.rest).and_then(|header| {
            match self.rest.split_at_checked(header.total_bytes()) {
                Some((batch, rest)) => Ok((header, batch, rest)),
                None => Err(BatchError::Truncated {
                    have: self.rest.len(),
                    need: header.total_bytes(),
                }),
            }
        });
        Some(match found {
            Ok((header, batch, rest)) => {
                self.rest = rest;
                Ok((header, batch))
            }
            Err(error) => {
                self.rest = &[];
                Err(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn batch() -> Bytes {
        BatchBuilder::new()
            .push(Some(b"k"), Some(b"v"), &[], 5)
            .push(None, None, &[(b"h", None)], 9)
            .finish()
            .unwrap()
    }

    #[test]
    fn a_header_is_read_back_as_written() {
        let batch = batch();
        let header = validate_produced(&batch).unwrap();
        assert_eq!(
            (
                header.record_count,
                header.max_timestamp,
                header.total_bytes()
            ),
            (2, 9, batch.len())
        );
        let mut head = [0; BATCH_HEADER_BYTES];
        header.write(&mut head);
        assert_eq!(head[..], batch[..BATCH_HEADER_BYTES]);
    }

    #[test]
    fn any_flipped_byte_after_the_crc_is_noticed() {
        let batch = batch();
        for at in 17..batch.len() {
            let mut damaged = batch.to_vec();
            damaged[at] ^= 1;
            assert_eq!(
                validate_produced(&damaged),
                Err(BatchError::Crc),
                "byte {at}"
            );
        }
    }

    #[test]
    fn appending_keeps_the_crc_and_log_append_time_renews_it() {
        let batch = batch();
        for (time, expected) in [(None, 9), (Some(77), 77)] {
            let mut stored = header_for_append(&batch, 1000, 4, time).to_vec();
            stored.extend_from_slice(&batch[BATCH_HEADER_BYTES..]);
            assert!(verify_crc(&stored));
            let header = BatchHeader::parse(&stored).unwrap();
            assert_eq!(
                (
                    header.base_offset,
                    header.leader_epoch,
                    header.max_timestamp
                ),
                (1000, 4, expected)
            );
            assert_eq!(header.is_log_append_time(), time.is_some());
        }
    }

    #[test]
    fn truncated_and_trailing_bytes_are_told_apart() {
        let batch = batch();
        assert!(matches!(
            validate_produced(&batch[..batch.len() - 1]),
            Err(BatchError::Truncated { .. })
        ));
        let mut longer = batch.to_vec();
        longer.push(0);
        assert_eq!(validate_produced(&longer), Err(BatchError::Trailing(1)));
        assert!(matches!(
            BatchHeader::parse(&batch[..60]),
            Err(BatchError::Truncated { .. })
        ));
    }

    #[test]
    fn an_old_message_is_told_from_garbage() {
        // MemoryRecords of Kafka 0.10, magic 1: offset 0, null key, value "a".
        let mut message = vec![
            1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, b'a',
        ];
        let mut crc = flate2::Crc::new();
        crc.update(&message);
        message.splice(..0, crc.sum().to_be_bytes());
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(&(message.len() as i32).to_be_bytes());
        bytes.extend_from_slice(&message);
        assert!(is_old_message(&bytes));
        assert!(!is_old_message(&bytes[..bytes.len() - 1]));
        assert!(!is_old_message(&[0; 100]));
        assert!(!is_old_message(&batch()));
    }

    #[test]
    fn sequences_wrap() {
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX - 1, 4), 2);
    }
}
