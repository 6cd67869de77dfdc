//! Copying a part of a file, durably.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;

use super::disk::Disk;

/// Copied at a time, bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Copies a range of a file to the same place of another one and syncs it; from 0 on, the other one is begun anew. Its name is
/// durable after a sync of its directory. Stops with an error when `goes_on` says so.
pub(crate) fn copy_range(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    range: Range<u64>,
    goes_on: &dyn Fn() -> bool,
) -> io::Result<()> {
    let source = disk.open(from)?;
    let target = disk.create(to)?;
    if range.start == 0 {
        target.set_len(0)?;
    }
    let mut position = range.start;
    let mut chunk = vec![0; CHUNK_BYTES.min(range.end.saturating_sub(position) as usize)];
    while position < range.end {
        if !goes_on() {
            return Err(io::Error::other("it is not wanted any more"));
        }
        let bytes = chunk.len().min((range.end - position) as usize);
        if source.read_at(&mut chunk[..bytes], position)? < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.write_all_at(&mut [IoSlice::new(&chunk[..bytes])], position)?;
        position += bytes as u64;
    }
    target.sync_data()
}

#[cfg(test)]
mod tests {
    use super::super::disk::RealDisk;
    use super::*;

    #[test]
    fn a_range_goes_to_its_own_place_and_the_first_one_begins_the_file_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, b"first second").unwrap();
        std::fs::write(&to, b"something longer than that").unwrap();
        let copy = |range| copy_range(&RealDisk, &from, &to, range, &|| true);
        copy(0..5).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"first");
        copy(5..12).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"first second");
        let short = copy(12..13).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        let stopped = copy_range(&RealDisk, &from, &to, 0..5, &|| false);
        assert!(stopped.is_err());
    }
}
