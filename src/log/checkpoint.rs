//! Kafka's checkpoint text files: a version line, a count, then one row a line.
//!
//! `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint`, `replication-offset-checkpoint` and
//! `cleaner-offset-checkpoint` hold `topic partition offset` rows for a whole data directory; `leader-epoch-checkpoint` has two
//! columns.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::disk::Disk;

/// Offsets up to which each partition is synced.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// Log start offsets that lie after their first segment's base.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// High watermarks.
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Up to where partitions are compacted.
pub const CLEANED: &str = "cleaner-offset-checkpoint";

/// A checkpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It could not be read.
    #[error("cannot read checkpoint {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the disk said.
        source: io::Error,
    },
    /// Its content is not what the format says.
    #[error("checkpoint {path} is malformed at line {line:?}")]
    Malformed {
        /// The file.
        path: String,
        /// The line that is wrong.
        line: String,
    },
}

impl CheckpointError {
    pub(super) fn line(path: &Path, line: &str) -> Self {
        Self::Malformed {
            path: path.display().to_string(),
            line: line.chars().take(200).collect(),
        }
    }
}

/// Topic name and partition index.
pub type TopicPartition = (String, i32);

/// Reads `topic partition offset` rows; a missing file is empty.
pub fn read_offsets(
    disk: &dyn Disk,
    path: &Path,
) -> Result<BTreeMap<TopicPartition, i64>, CheckpointError> {
    let mut offsets = BTreeMap::new();
    for row in read_rows(disk, path)?.unwrap_or_default() {
        let mut words = row.split(' ');
        let parsed = (|| {
            Some((
                words.next()?.to_owned(),
                words.next()?.parse().ok()?,
                words.next()?.parse().ok()?,
            ))
        })();
        let (topic, partition, offset) = parsed.ok_or_else(|| CheckpointError::line(path, &row))?;
        offsets.insert((topic, partition), offset);
    }
    Ok(offsets)
}

/// Replaces the file durably.
pub fn write_offsets(
    disk: &dyn Disk,
    path: &Path,
    offsets: &BTreeMap<TopicPartition, i64>,
) -> io::Result<()> {
    let row = |((topic, partition), offset): (&TopicPartition, &i64)| {
        format!("{topic} {partition} {offset}")
    };
    disk.replace(path, &rows_content(offsets.iter().map(row)))
}

/// The rows of a checkpoint, or `None` when there is no file.
pub(super) fn read_rows(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Option<Vec<String>>, CheckpointError> {
    let content = match disk.read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(CheckpointError::Read {
                path: path.display().to_string(),
                source,
            });
        }
    };
    let text = String::from_utf8_lossy(&content);
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    if version != "0" {
        return Err(CheckpointError::line(path, version));
    }
    let count = lines.next().unwrap_or_default();
    let rows: Vec<String> = lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if count.parse() != Ok(rows.len()) {
        return Err(CheckpointError::line(path, count));
    }
    Ok(Some(rows))
}

/// A checkpoint's content.
pub(super) fn rows_content(rows: impl Iterator<Item = String>) -> Vec<u8> {
    let rows: Vec<String> = rows.collect();
    let mut content = format!("0\n{}\n", rows.len());
    for row in rows {
        content.push_str(&row);
        content.push('\n');
    }
    content.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::RealDisk;

    #[test]
    fn offsets_are_read_back_as_written_and_a_wrong_count_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RECOVERY_POINTS);
        assert!(read_offsets(&RealDisk, &path).unwrap().is_empty());
        let offsets = BTreeMap::from([
            (("orders".to_owned(), 3), 17),
            (("orders".to_owned(), 10), 0),
        ]);
        write_offsets(&RealDisk, &path, &offsets).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "0\n2\norders 3 17\norders 10 0\n"
        );
        assert_eq!(read_offsets(&RealDisk, &path).unwrap(), offsets);
        std::fs::write(&path, "0\n3\norders 3 17\n").unwrap();
        assert!(matches!(
            read_offsets(&RealDisk, &path),
            Err(CheckpointError::Malformed { .. })
        ));
    }
}
