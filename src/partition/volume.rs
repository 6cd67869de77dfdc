//! A data directory with what writes to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use super::writer::Writer;
use crate::log::journal::{self, Journaled};
use crate::log::{DataDir, Disk, JournaledBatch, Left};

/// A data directory and the thread that writes to it.
pub(super) struct Volume {
    pub(super) dir: DataDir,
    pub(super) writer: Writer,
    pub(super) partitions: AtomicUsize,
    /// What was found in the journal, of partitions that were not opened yet.
    pub(super) journaled: Mutex<HashMap<(Uuid, i32), Vec<JournaledBatch>>>,
}

impl Volume {
    /// A partition is open here no more. The count only says where new ones go.
    pub(super) fn has_one_less(&self) {
        let less = |count: usize| Some(count.saturating_sub(1));
        let order = Ordering::Relaxed;
        let _ = self.partitions.fetch_update(order, order, less);
    }
}

/// What a crash left in a directory's journal, by partition.
pub(super) fn load_journal(
    disk: &dyn Disk,
    dir: &DataDir,
) -> std::io::Result<HashMap<(Uuid, i32), Vec<JournaledBatch>>> {
    let mut found: HashMap<_, Vec<JournaledBatch>> = HashMap::new();
    if dir.left() != Left::Clean {
        for Journaled {
            topic_id,
            partition,
            run_from,
            batch: bytes,
        } in journal::load(disk, dir.path())?
        {
            let of_log = found.entry((topic_id, partition)).or_default();
            of_log.push(JournaledBatch { run_from, bytes });
        }
    }
    Ok(found)
}
