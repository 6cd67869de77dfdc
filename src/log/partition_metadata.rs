//! `partition.metadata`: which topic a partition directory belongs to (KIP-516).
//!
//! ```text
//! version: 0
//! topic_id: 5wcHfpCHQB2Z5T7vB0nHOA
//! ```
//! The id is the UUID in URL-safe base64 without padding.

use std::io;
use std::path::Path;

use uuid::Uuid;

use super::disk::Disk;

const FILE_NAME: &str = "partition.metadata";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Writes the topic's id into a partition directory.
pub(super) fn store(disk: &dyn Disk, dir: &Path, topic_id: Uuid) -> io::Result<()> {
    disk.replace(&dir.join(FILE_NAME), content(topic_id).as_bytes())
}

/// The same for a directory that was just made, not durably: where it is lost it is written again.
pub(super) fn write(disk: &dyn Disk, dir: &Path, topic_id: Uuid) -> io::Result<()> {
    disk.write(&dir.join(FILE_NAME), content(topic_id).as_bytes())
}

fn content(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {}\n", to_base64(topic_id))
}

/// The topic's id, or `None` when the file is missing or says nothing.
pub(super) fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Uuid>> {
    match disk.read(&dir.join(FILE_NAME)) {
        Ok(content) => {
            let text = String::from_utf8_lossy(&content);
            Ok(text
                .lines()
                .find_map(|line| line.strip_prefix("topic_id:"))
                .and_then(|id| from_base64(id.trim())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A UUID as Kafka prints it: 22 characters.
pub fn to_base64(id: Uuid) -> String {
    let bits = id.as_u128();
    let digit = |n: u32| {
        let shift = 122i32 - 6 * n as i32;
        let value = if shift >= 0 {
            bits >> shift
        } else {
            bits << -shift
        };
        char::from(ALPHABET[(value & 63) as usize])
    };
    (0..22).map(digit).collect()
}

/// The UUID that [`to_base64`] printed.
pub fn from_base64(text: &str) -> Option<Uuid> {
    if text.len() != 22 {
        return None;
    }
    let mut bits = 0u128;
    for (n, byte) in text.bytes().enumerate() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)? as u128;
        bits = if n < 21 {
            bits << 6 | value
        } else {
            bits << 2 | value >> 4
        };
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_kafka_prints_it() {
        // org.apache.kafka.common.Uuid.ONE_UUID and METADATA_TOPIC_ID print so.
        assert_eq!(to_base64(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        let id = Uuid::from_u128(0x1234_5678_9abc_def0_0fed_cba9_8765_4321);
        assert_eq!(from_base64(&to_base64(id)), Some(id));
        assert_eq!(from_base64("short"), None);
    }
}
