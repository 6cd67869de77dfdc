//! What is to be done after a sync that failed. The page cache may hold what the device refused, and count it as written:
//! no later sync writes it, nor reports that it is missing. So the log stays offline, and when it is opened again while the
//! system has run on, all that is not known to be synced is written once more.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;
use super::segment::{Segment, segment_of};

/// Written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// In the directory of a log whose sync failed. As long as the system runs on, its page cache may hold what the device
/// refused, and count it as written: no sync writes it again.
const SYNC_FAILED: &str = "metaq-sync-failed";

/// A disk that fails once may fail again at once.
const TRIES: usize = 5;

/// Leaves word for the next opening. It need not survive the system, whose page cache goes with it.
pub(super) fn note(disk: &dyn Disk, dir: &Path) {
    for _ in 0..TRIES {
        match disk.write(&dir.join(SYNC_FAILED), &[]) {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(dir = %dir.display(), %error, "cannot note that a sync failed")
            }
        }
    }
}

pub(super) fn is_noted(disk: &dyn Disk, dir: &Path) -> bool {
    disk.open(&dir.join(SYNC_FAILED)).is_ok()
}

/// All is synced again.
pub(super) fn forget(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.remove(&dir.join(SYNC_FAILED))
}

/// Writes what is not known to be synced to its own place, so that the next sync has it to write. What tells of aborted
/// transactions is synced at once.
pub(super) fn write_again(segments: &[Arc<Segment>], synced_end: i64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    for segment in &segments[segment_of(segments, synced_end)..] {
        let file = segment.file()?;
        let mut position = 0;
        while position < segment.bytes() {
            let want = CHUNK_BYTES.min((segment.bytes() - position) as usize);
            let read = file.read_at(&mut buffer[..want], position)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all_at(&mut [IoSlice::new(&buffer[..read])], position)?;
            position += read as u64;
        }
        // Its length too: what was cut off must not come back after what is written from now on.
        file.set_len(segment.bytes())?;
    }
    // Of a segment that ends there the index may be what could not be synced.
    for segment in &segments[segment_of(segments, synced_end.saturating_sub(1))..] {
        segment.aborted.write_again()?;
    }
    Ok(())
}
