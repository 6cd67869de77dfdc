//! The message browser: messages of one partition, by offset, time or key. Never more than is asked for, never more than
//! the limits here, whatever a message claims to be.
//!
//! Tests: tests/dashboard.rs.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use metaq_protocol::compression;
use metaq_protocol::records::{Record, Records};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::payload::{Format, encode};
use crate::log::{LogError, PassedBatch};
use crate::partition::{Isolation, OffsetSpec, Partition};

/// Messages in an answer.
const MESSAGES_MAX: usize = 100;
const MESSAGES_DEFAULT: usize = 20;
/// Bytes of keys, values and headers in an answer; of a single message that is asked for alone too.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes that are shown of a key, a value or a header, unless the message is asked for alone.
const FIELD_BYTES_MAX: usize = 4 << 10;
/// Headers that are shown of a message.
const HEADERS_MAX: usize = 100;
/// Batches above this size are not read.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// And those that unpack to more are not shown.
const UNPACKED_BYTES_MAX: usize = 32 << 20;
/// A search by key ends after so many bytes, and goes on when asked again.
const SCAN_BYTES_MAX: usize = 64 << 20;
/// Or after so long.
const SCAN_TIME_MAX: Duration = Duration::from_secs(2);

/// Which messages.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::admin) struct MessagesAsked {
    /// From this offset on; the latest messages without.
    pub(in crate::admin) offset: Option<i64>,
    /// From the first message on that is not older than this, ms since 1970.
    pub(in crate::admin) timestamp: Option<i64>,
    /// Only messages with this key.
    pub(in crate::admin) key: Option<String>,
    /// How many; at most 100, 20 without. A single one is shown whole, up to 1 MiB.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::admin) limit: Option<u16>,
    /// `auto`, `text`, `json` or `hex`: how keys and values are given. `auto` gives text where it is text.
    pub(in crate::admin) format: Option<String>,
}

/// Bytes of a message.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct Payload {
    /// How many bytes there are.
    pub(in crate::admin) bytes: usize,
    /// `text`, `json` (indented) or `hex` (as hexdump gives it).
    pub(in crate::admin) encoding: &'static str,
    /// The bytes, as the encoding says.
    pub(in crate::admin) data: String,
    /// Whether this is the beginning only.
    pub(in crate::admin) truncated: bool,
}

/// A header of a message.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct HeaderView {
    /// Its name.
    pub(in crate::admin) name: String,
    /// Its value, `null` for none.
    pub(in crate::admin) value: Option<Payload>,
}

/// A message.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct MessageView {
    /// Its offset.
    pub(in crate::admin) offset: i64,
    /// ms since 1970; -1 without.
    pub(in crate::admin) timestamp_ms: i64,
    /// `create` or `append`: whose time that is.
    pub(in crate::admin) timestamp_type: &'static str,
    /// Its key, `null` for none.
    pub(in crate::admin) key: Option<Payload>,
    /// Its value, `null` for none (a tombstone).
    pub(in crate::admin) value: Option<Payload>,
    /// Its headers in order.
    pub(in crate::admin) headers: Vec<HeaderView>,
    /// How many headers it has.
    pub(in crate::admin) headers_total: usize,
    /// The batch that it was sent in.
    pub(in crate::admin) batch: BatchView,
}

/// A batch.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct BatchView {
    /// Offset of its first message.
    pub(in crate::admin) base_offset: i64,
    /// How many messages it has.
    pub(in crate::admin) messages: i32,
    /// Its bytes in the file.
    pub(in crate::admin) bytes: usize,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub(in crate::admin) compression: &'static str,
    /// The producer's id, -1 for none.
    pub(in crate::admin) producer_id: i64,
    /// The producer's epoch, -1 for none.
    pub(in crate::admin) producer_epoch: i16,
    /// Sequence of its first message, -1 for none.
    pub(in crate::admin) base_sequence: i32,
    /// The leader's epoch under which it was written.
    pub(in crate::admin) leader_epoch: i32,
}

/// Messages of a partition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::admin) struct MessagesView {
    /// The topic.
    pub(in crate::admin) topic: String,
    /// The partition's index.
    pub(in crate::admin) partition: i32,
    /// `brokerId-n`.
    pub(in crate::admin) identity: String,
    /// First offset that can be read.
    pub(in crate::admin) log_start: i64,
    /// Readers see what lies before it.
    pub(in crate::admin) high_watermark: i64,
    /// The messages, by offset.
    pub(in crate::admin) messages: Vec<MessageView>,
    /// Where to go on.
    pub(in crate::admin) next_offset: i64,
    /// Whether there is more after it.
    pub(in crate::admin) more: bool,
    /// What is not shown, and why; empty where everything is.
    pub(in crate::admin) notes: Vec<String>,
}

struct Reader<'a> {
    from: i64,
    limit: i64,
    most: usize,
    /// The latest instead of the first.
    latest: bool,
    key: Option<&'a [u8]>,
    format: Format,
    field_bytes_max: usize,
    deadline: Instant,
    scanned: usize,
    bytes: usize,
    found: VecDeque<MessageView>,
    next_offset: i64,
    notes: Vec<String>,
}

/// Reads messages; waits for the disk.
pub(in crate::admin) fn read(
    partition: &Arc<Partition>,
    asked: &MessagesAsked,
) -> Result<MessagesView, LogError> {
    let (start, end) = (partition.log().ends().log_start, partition.high_watermark());
    let most = usize::from(asked.limit.unwrap_or(MESSAGES_DEFAULT as u16)).clamp(1, MESSAGES_MAX);
    let key = asked.key.as_deref().filter(|key| !key.is_empty());
    let latest = asked.offset.is_none() && asked.timestamp.is_none() && key.is_none();
    let from = match (asked.offset, asked.timestamp) {
        (Some(offset), _) => offset.clamp(start, end),
        (None, Some(timestamp)) => {
            let spec = OffsetSpec::Timestamp(timestamp);
            let found = partition.list_offset(spec, Isolation::ReadUncommitted)?;
            if found.offset < 0 { end } else { found.offset }
        }
        (None, None) if latest => (end - most as i64).max(start),
        (None, None) => start,
    };
    let mut reader = Reader {
        from,
        limit: end,
        most,
        latest,
        key: key.map(str::as_bytes),
        format: match asked.format.as_deref() {
            Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some("hex") => Format::Hex,
            _ => Format::Auto,
        },
        field_bytes_max: if most == 1 {
            ANSWER_BYTES_MAX
        } else {
            FIELD_BYTES_MAX
        },
        deadline: Instant::now() + SCAN_TIME_MAX,
        scanned: 0,
        bytes: 0,
        found: VecDeque::new(),
        next_offset: from,
        notes: Vec::new(),
    };
    let pass = |batch| reader.pass(batch);
    partition
        .log()
        .pass_batches(from, end, BATCH_BYTES_MAX, pass)?;
    // What compaction took, or is in a batch that ends after it.
    let next_offset = reader.next_offset.max(from);
    Ok(MessagesView {
        topic: partition.topic().to_string(),
        partition: partition.index(),
        identity: partition.identity().to_string(),
        log_start: start,
        high_watermark: end,
        messages: reader.found.into(),
        next_offset,
        more: next_offset < end,
        notes: reader.notes,
    })
}

impl Reader<'_> {
    fn pass(&mut self, batch: PassedBatch) -> ControlFlow<()> {
        let header = batch.header;
        let Some(bytes) = batch.bytes else {
            let bytes = header.total_bytes();
            self.leave_out(
                &header,
                &format!("its {bytes} bytes are more than {BATCH_BYTES_MAX}"),
            );
            return ControlFlow::Continue(());
        };
        self.scanned += bytes.len();
        let Ok(codec) = header.compression() else {
            self.leave_out(&header, "its codec is unknown");
            return ControlFlow::Continue(());
        };
        let packed = &bytes[BATCH_HEADER_BYTES..];
        match compression::decompress(codec, packed, UNPACKED_BYTES_MAX) {
            Ok(unpacked) => {
                for record in Records::new(&header, &unpacked) {
                    match record {
                        Ok(record) => self.take(&header, codec.name(), &record)?,
                        Err(error) => {
                            self.leave_out(&header, &error.to_string());
                            break;
                        }
                    }
                }
            }
            Err(error) => self.leave_out(&header, &error.to_string()),
        }
        if self.scanned >= SCAN_BYTES_MAX || Instant::now() >= self.deadline {
            let at = self.next_offset;
            self.notes.push(format!(
                "The search ended at offset {at}; it goes on from there."
            ));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn leave_out(&mut self, header: &BatchHeader, why: &str) {
        self.next_offset = header.last_offset() + 1;
        if self.notes.len() < MESSAGES_MAX {
            let (from, to) = (header.base_offset, header.last_offset());
            self.notes
                .push(format!("Offsets {from} to {to} are not shown: {why}."));
        }
    }

    fn take(
        &mut self,
        header: &BatchHeader,
        codec: &'static str,
        record: &Record<'_>,
    ) -> ControlFlow<()> {
        if record.offset < self.from || record.offset >= self.limit {
            return ControlFlow::Continue(());
        }
        if self.key.is_some() && record.key != self.key {
            self.next_offset = record.offset + 1;
            return ControlFlow::Continue(());
        }
        if !self.latest && (self.found.len() >= self.most || self.bytes >= ANSWER_BYTES_MAX) {
            return ControlFlow::Break(());
        }
        let message = self.message(header, codec, record);
        self.found.push_back(message);
        if self.found.len() > self.most {
            self.found.pop_front();
        }
        self.next_offset = record.offset + 1;
        ControlFlow::Continue(())
    }

    fn message(
        &mut self,
        header: &BatchHeader,
        codec: &'static str,
        record: &Record<'_>,
    ) -> MessageView {
        let key = record.key.map(|bytes| self.payload(bytes));
        let value = record.value.map(|bytes| self.payload(bytes));
        let mut headers = Vec::new();
        let mut headers_total = 0;
        for (name, value) in record.headers() {
            headers_total += 1;
            if headers.len() < HEADERS_MAX {
                headers.push(HeaderView {
                    name: self.payload_as(name, Format::Auto).data,
                    value: value.map(|bytes| self.payload(bytes)),
                });
            }
        }
        MessageView {
            offset: record.offset,
            timestamp_ms: record.timestamp,
            timestamp_type: match header.is_log_append_time() {
                true => "append",
                false => "create",
            },
            key,
            value,
            headers,
            headers_total,
            batch: BatchView {
                base_offset: header.base_offset,
                messages: header.record_count,
                bytes: header.total_bytes(),
                compression: codec,
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                base_sequence: header.base_sequence,
                leader_epoch: header.leader_epoch,
            },
        }
    }

    fn payload(&mut self, bytes: &[u8]) -> Payload {
        self.payload_as(bytes, self.format)
    }

    fn payload_as(&mut self, bytes: &[u8], format: Format) -> Payload {
        let left = ANSWER_BYTES_MAX.saturating_sub(self.bytes);
        let shown = &bytes[..bytes.len().min(self.field_bytes_max).min(left)];
        self.bytes += shown.len();
        let truncated = shown.len() < bytes.len();
        let (encoding, data) = encode(shown, format, truncated);
        Payload {
            bytes: bytes.len(),
            encoding,
            data,
            truncated,
        }
    }
}
