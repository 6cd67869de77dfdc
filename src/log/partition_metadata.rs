//! `partition.metadata`: which topic a partition directory belongs to (KIP-516).
//!
//! ```text
//! version: 0
//! topic_id: 5wcHfpCHQB2Z5T7vB0nHOA
//! ```
//! The id is the UUID in URL-safe base64 without padding.

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use data_encoding::{BASE64URL_NOPAD, Encoding};
use uuid::Uuid;

use super::disk::Disk;

const FILE_NAME: &str = "partition.metadata";

/// Writes the topic's id into a partition directory.
pub(super) fn store(disk: &dyn Disk, dir: &Path, topic_id: Uuid) -> io::Result<()> {
    disk.replace(&dir.join(FILE_NAME), content(topic_id).as_bytes())
}

/// The same for a directory that was just made, not durably: the first sync of the log syncs it too ([`sync`]). Where it is
/// lost before that, nothing is lost that was acknowledged as synced, and it is written again.
pub(super) fn write(disk: &dyn Disk, dir: &Path, topic_id: Uuid) -> io::Result<()> {
    disk.write(&dir.join(FILE_NAME), content(topic_id).as_bytes())
}

/// Makes the id durable; whether there is one. It is written once more for that: after a failed sync the page cache would count
/// as written what the device refused. One at a time.
pub(super) fn sync(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    match load(disk, dir)? {
        Some(topic_id) => store(disk, dir, topic_id).map(|()| true),
        None => Ok(false),
    }
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
    BASE64URL_NOPAD.encode(id.as_bytes())
}

/// The UUID that [`to_base64`] printed.
fn from_base64(text: &str) -> Option<Uuid> {
    // As Java's decoder, which does not look at the bits after the last byte.
    static LENIENT: LazyLock<Option<Encoding>> = LazyLock::new(|| {
        let mut specification = BASE64URL_NOPAD.specification();
        specification.check_trailing_bits = false;
        specification.encoding().ok()
    });
    let bytes = LENIENT.as_ref()?.decode(text.as_bytes()).ok()?;
    Uuid::from_slice(&bytes).ok()
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
        assert_eq!(
            from_base64("AAAAAAAAAAAAAAAAAAAAAf"),
            from_base64("AAAAAAAAAAAAAAAAAAAAAQ")
        );
        let urls = Uuid::from_u128(u128::MAX << 8 | 0xfb);
        assert_eq!(to_base64(urls), "____________________-w");
        for wrong in [
            "short",
            "",
            "AAAAAAAAAAAAAAAAAAAAAQ==",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAQ",
            "AAAAAAAAAA+AAAAAAAAAAQ",
            "AAAAAAAAAA AAAAAAAAAAQ",
            "äAAAAAAAAAAAAAAAAAAAAQ",
        ] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }
}
