//! What `metaq produce` reads: lines, ahead of what is sent, and what they say of a record.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;

/// Lines read ahead of what is sent.
const LINES_AHEAD_MAX: usize = 1024;
/// A longer line is an error, bytes: no broker takes it with its defaults.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// What a record takes besides its key, value and headers, bytes at most.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// A record as `--input json` reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JsonRecord {
    key: Option<String>,
    key_hex: Option<String>,
    value: Option<String>,
    value_hex: Option<String>,
    headers: Vec<JsonHeader>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JsonHeader {
    name: String,
    value: Option<String>,
    value_hex: Option<String>,
}

/// A record to be sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) partition: Option<i32>,
    pub(super) timestamp: Option<i64>,
}

impl Outgoing {
    pub(super) fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.len() + len(value) + 8)
            .sum();
        len(&self.key) + len(&self.value) + headers + RECORD_OVERHEAD_BYTES
    }
}

/// The lines of a file, read ahead by a thread of its own, so that waiting for one does not keep those before it.
pub(super) fn read_lines(reader: Box<dyn Read + Send>) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(LINES_AHEAD_MAX);
    std::thread::spawn(move || {
        let mut reader = BufReader::with_capacity(256 << 10, reader);
        loop {
            let mut line = Vec::new();
            let read = (&mut reader)
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line);
            let item = match read {
                Ok(0) => return,
                Ok(_) if line.last() == Some(&b'\n') => {
                    line.pop();
                    Ok(line)
                }
                Ok(n) if n as u64 == LINE_BYTES_MAX => Err(io::Error::other(format!(
                    "longer than {LINE_BYTES_MAX} bytes"
                ))),
                Ok(_) => Ok(line),
                Err(error) => Err(error),
            };
            let last = item.is_err();
            if sender.send(item).is_err() || last {
                return;
            }
        }
    });
    receiver
}

pub(super) fn from_json(line: &[u8]) -> Result<Outgoing, String> {
    let json: JsonRecord = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let bytes = |text: Option<String>, hex: Option<String>| match (text, hex) {
        (None, Some(hex)) => unhex(hex.as_bytes()).map(Some),
        (text, _) => Ok(text.map(String::into_bytes)),
    };
    let mut headers = Vec::with_capacity(json.headers.len());
    for header in json.headers {
        let value = bytes(header.value, header.value_hex)?;
        headers.push((header.name.into_bytes(), value));
    }
    Ok(Outgoing {
        key: bytes(json.key, json.key_hex)?,
        value: bytes(json.value, json.value_hex)?,
        headers,
        partition: json.partition,
        timestamp: json.timestamp,
    })
}

pub(super) fn unhex(digits: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(digits);
    bytes.map_err(|_| "not pairs of hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes_in_pairs_and_nothing_else_is() {
        assert_eq!(unhex(b"00fFA0"), Ok(vec![0, 0xff, 0xa0]));
        for wrong in ["0", "0g", "+f", "0x00", "00 01"] {
            let error = unhex(wrong.as_bytes()).unwrap_err();
            assert_eq!(error, "not pairs of hexadecimal digits", "{wrong}");
        }
    }
}
