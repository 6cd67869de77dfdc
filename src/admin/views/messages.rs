//! The message browser: messages of one partition, by offset, time or key. Never more than is asked for, never more than
//! the limits here, whatever a message claims to be.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metaq_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use metaq_protocol::compression;
use metaq_protocol::records::{Record, Records};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
/// A search by key ends behind so many bytes, and goes on when asked again.
const SCAN_BYTES_MAX: usize = 64 << 20;
/// Or behind so long.
const SCAN_TIME_MAX: Duration = Duration::from_secs(2);

/// Deeper than this nothing is indented further.
const INDENT_MAX: usize = 16;

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

/// How bytes are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Auto,
    Text,
    Json,
    Hex,
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
    /// Whether there is more behind it.
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
    // What compaction took, or is in a batch that ends behind it.
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

fn encode(bytes: &[u8], format: Format, truncated: bool) -> (&'static str, String) {
    // What was cut within a character is text all the same.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if truncated && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let is_plain = |text: &str| {
        let odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
        !text.contains(odd)
    };
    let json = |text: &str| {
        let begins = text.trim_start().starts_with(['{', '[']);
        let parses = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        (begins && !truncated && parses()).then(|| indented(text))
    };
    match format {
        Format::Hex => ("hex", hex(bytes)),
        Format::Text => ("text", String::from_utf8_lossy(bytes).into_owned()),
        Format::Json | Format::Auto => match text.filter(|text| is_plain(text)) {
            Some(text) => match json(text).filter(|_| format == Format::Json) {
                Some(pretty) => ("json", pretty),
                None => ("text", text.to_owned()),
            },
            None => ("hex", hex(bytes)),
        },
    }
}

/// JSON with a line a member; order, numbers and strings stay as they were sent.
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut letters = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(letter) = letters.next() {
        if in_string {
            out.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(|next| next.is_whitespace()).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth.min(INDENT_MAX));
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth.min(INDENT_MAX));
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                line(&mut out, depth.min(INDENT_MAX));
            }
            ':' => out.push_str(": "),
            letter if letter.is_whitespace() => {}
            letter => {
                in_string = letter == '"';
                out.push(letter);
            }
        }
    }
    out
}

/// Sixteen bytes a line: their place, the bytes, and what of them is ASCII.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(bytes.len() * 5);
    for (n, line) in bytes.chunks(16).enumerate() {
        if n > 0 {
            out.push('\n');
        }
        let _ = write!(out, "{:08x} ", n * 16);
        for at in 0..16 {
            let _ = match line.get(at) {
                Some(byte) => write!(out, " {byte:02x}"),
                None => write!(out, "   "),
            };
        }
        out.push_str("  ");
        let ascii = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        out.extend(line.iter().map(ascii));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_given_as_what_they_are() {
        let auto = |bytes: &[u8]| encode(bytes, Format::Auto, false);
        assert_eq!(auto(b"plain"), ("text", "plain".to_owned()));
        assert_eq!(auto(&[0, 159]).0, "hex");
        assert_eq!(encode(b"{\"a\":1}", Format::Json, false).0, "json");
        assert_eq!(encode(b"{\"a\":", Format::Json, false).0, "text");
        // Cut within a character.
        assert_eq!(
            encode(&"é".as_bytes()[..1], Format::Auto, true),
            ("text", String::new())
        );
    }

    #[test]
    fn json_is_indented_and_otherwise_as_it_was_sent() {
        let sent = r#"{"z":1.0,"a":[1,{"q\"{":"x,y"}],"e":{ },"n":18446744073709551616}"#;
        let shown = indented(sent);
        let expected = "{\n  \"z\": 1.0,\n  \"a\": [\n    1,\n    {\n      \"q\\\"{\": \"x,y\"\n    }\n  ],\n  \"e\": {},\n  \"n\": 18446744073709551616\n}";
        assert_eq!(shown, expected);
    }

    #[test]
    fn hex_is_laid_out_as_by_hexdump() {
        let shown = hex(b"0123456789abcdef\n");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("00000000  30 31") && lines[0].ends_with("  0123456789abcdef")
        );
        assert!(lines[1].starts_with("00000010  0a") && lines[1].ends_with("  ."));
    }
}
