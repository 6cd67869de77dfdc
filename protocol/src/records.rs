//! The records of one batch, without copying: headers keep their order and their duplicates.
//!
//! A record, all integers zigzag varints: length, attributes (one byte), timestamp delta, offset delta, key
//! length (-1 for null) and key, value length and value, header count, then per header key length, key, value
//! length, value.

use crate::batch::BatchHeader;

/// Why bytes are not records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {record} is malformed at byte {position}: {what}")]
pub struct RecordError {
    /// Which one, from 0.
    pub record: usize,
    /// Byte in the unpacked records.
    pub position: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Absolute offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// `None` for a null key.
    pub key: Option<&'a [u8]>,
    /// `None` for a null value.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: usize,
}

impl<'a> Record<'a> {
    /// The headers in order: key, and value or null.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut cursor = Cursor {
            bytes: self.headers,
            at: 0,
        };
        // They were walked once when the record was read.
        (0..self.header_count)
            .map_while(move |_| Some((cursor.field().ok()??, cursor.field().ok()?)))
    }
}

/// Iterates over the records of a batch, given its unpacked bytes. Ends after an error.
pub struct Records<'a> {
    cursor: Cursor<'a>,
    base_offset: i64,
    base_timestamp: i64,
    log_append_time: Option<i64>,
    next: usize,
    count: usize,
}

impl<'a> Records<'a> {
    /// The records of `unpacked`, as many as the header says.
    pub fn new(header: &BatchHeader, unpacked: &'a [u8]) -> Self {
        Self {
            cursor: Cursor {
                bytes: unpacked,
                at: 0,
            },
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            log_append_time: header.is_log_append_time().then_some(header.max_timestamp),
            next: 0,
            count: usize::try_from(header.record_count).unwrap_or(0),
        }
    }

    /// How many of the unpacked bytes were gone through.
    pub(crate) fn position(&self) -> usize {
        self.cursor.at
    }

    /// Attributes and timestamp delta of an encoded record, and the rest of it.
    pub(crate) fn split_timestamp(encoded: &[u8]) -> Result<(u8, i64, &[u8]), RecordError> {
        let mut cursor = Cursor {
            bytes: encoded,
            at: 0,
        };
        let mut split = || {
            cursor.varint()?;
            let attributes = cursor.take(1)?[0];
            let delta = cursor.varint()?;
            Ok((attributes, delta, cursor.at))
        };
        let (attributes, delta, at) = split().map_err(|what| RecordError {
            record: 0,
            position: 0,
            what,
        })?;
        Ok((attributes, delta, &encoded[at..]))
    }

    #[inline(always)]
    fn read(&mut self) -> Result<Record<'a>, &'static str> {
        let length = usize::try_from(self.cursor.varint()?).map_err(|_| "negative length")?;
        let body = self.cursor.take(length)?;
        let mut cursor = Cursor { bytes: body, at: 0 };
        cursor.take(1)?;
        let timestamp_delta = cursor.varint()?;
        let offset_delta = cursor.varint()?;
        let key = cursor.field()?;
        let value = cursor.field()?;
        let header_count =
            usize::try_from(cursor.varint()?).map_err(|_| "negative header count")?;
        let headers = &body[cursor.at..];
        // Each header takes at least two bytes, so a hostile count ends at the record's end.
        for _ in 0..header_count {
            cursor.field()?.ok_or("null header key")?;
            cursor.field()?;
        }
        if cursor.at != body.len() {
            return Err("bytes after the last header");
        }
        if offset_delta != i64::from(offset_delta as i32) {
            return Err("offset delta out of range");
        }
        Ok(Record {
            offset: self.base_offset.wrapping_add(offset_delta),
            timestamp: self
                .log_append_time
                .unwrap_or_else(|| self.base_timestamp.wrapping_add(timestamp_delta)),
            key,
            value,
            headers,
            header_count,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.count {
            return None;
        }
        let record = self.next;
        let error = |position, what| {
            Some(Err(RecordError {
                record,
                position,
                what,
            }))
        };
        if record == self.count {
            self.next = self.count + 1;
            let trailing = self.cursor.at < self.cursor.bytes.len();
            return if trailing {
                error(self.cursor.at, "bytes after the last record")
            } else {
                None
            };
        }
        match self.read() {
            Ok(found) => {
                self.next += 1;
                Some(Ok(found))
            }
            Err(what) => {
                self.next = self.count + 1;
                error(self.cursor.at, what)
            }
        }
    }
}

#[inline]
fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at.checked_add(bytes).ok_or("length out of range")?;
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or("fewer bytes than the length says")?;
        self.at = end;
        Ok(taken)
    }

    /// Most are of one byte or two.
    #[inline(always)]
    fn varint(&mut self) -> Result<i64, &'static str> {
        match self.bytes.get(self.at..) {
            Some([byte @ ..0x80, ..]) => {
                self.at += 1;
                Ok(zigzag(u64::from(*byte)))
            }
            Some([low, high @ ..0x80, ..]) => {
                self.at += 2;
                Ok(zigzag(u64::from(*low & 0x7f) | u64::from(*high) << 7))
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Result<i64, &'static str> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or("the varint is cut off")?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(zigzag(value));
            }
        }
        Err("the varint is too long")
    }

    #[inline]
    fn field(&mut self) -> Result<Option<&'a [u8]>, &'static str> {
        match self.varint()? {
            -1 => Ok(None),
            length => self
                .take(usize::try_from(length).map_err(|_| "negative length")?)
                .map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BATCH_HEADER_BYTES, BatchBuilder};

    #[test]
    fn duplicate_headers_nulls_and_empties_survive() {
        let headers: &[(&[u8], Option<&[u8]>)] =
            &[(b"a", Some(b"1")), (b"a", None), (b"", Some(b""))];
        let batch = BatchBuilder::new()
            .push(None, Some(b""), headers, 7)
            .push(Some(b""), None, &[], 8)
            .finish()
            .unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        let records: Vec<_> = Records::new(&header, &batch[BATCH_HEADER_BYTES..])
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            (records[0].key, records[0].value, records[0].timestamp),
            (None, Some(&b""[..]), 7)
        );
        assert_eq!(
            (records[1].key, records[1].value, records[1].offset),
            (Some(&b""[..]), None, 1)
        );
        assert_eq!(records[0].headers().collect::<Vec<_>>(), headers);
    }

    #[test]
    fn bytes_after_the_last_record_and_cut_ones_are_errors() {
        let batch = BatchBuilder::new()
            .push(None, Some(b"value"), &[], 7)
            .finish()
            .unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        let body = &batch[BATCH_HEADER_BYTES..];
        let errors = |bytes: &[u8]| Records::new(&header, bytes).filter_map(Result::err).count();
        assert_eq!(errors(body), 0);
        for cut in 0..body.len() {
            assert_eq!(errors(&body[..cut]), 1, "cut at {cut}");
        }
        assert_eq!(errors(&[body, &[0]].concat()), 1);
    }
}
