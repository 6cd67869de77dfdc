//! The file of the embedded store (redb). After a write that failed nothing that is in the file is believed: the system may have
//! dropped what it could not write, and say otherwise (as in `log/failed_sync`). All nodes are written to a new file, which takes
//! its place once it is synced: at once, and then once a second until that succeeds. What the failed write was to bring is in
//! neither.
//!
//! Changes of transactions may be answered before they are synced (`FlushTransactions`): they are in the file of `unsynced` then.
//! Whatever is synced takes all of those with it, so that what a power failure leaves is the tree as it once was.
//!
//! The table `nodes` maps a path to: version i32 big-endian, then the data. The table `unsynced` has the number of the last frame
//! of that file whose changes are in `nodes`, where there ever was one.
//!
//! Tests: meta/node_file/tests.rs.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::tree::{Overlay, Tree};
use super::unsynced::{MODE, UnsyncedFile};
use super::{FlushTransactions, Node, paths};

const NODES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("nodes");
const UNSYNCED: TableDefinition<'_, &str, u64> = TableDefinition::new("unsynced");
const FRAME: &str = "frame";
/// What the file's pages may take in memory, bytes: all reading is done in the tree.
const CACHE_BYTES: usize = 8 << 20;
/// One commit takes in so much, bytes: its pages are in memory until it is written.
pub(super) const COMMIT_BYTES_MAX: usize = 4 << 20;
/// A file that could not be written is not tried again more often than this.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// With [`FlushTransactions::EachSecond`]: how long a change is not synced.
const SYNC_WITHIN: Duration = Duration::from_secs(1);

type Opens = Box<dyn Fn(&Path) -> Result<Database, redb::Error> + Send>;

/// See the module's documentation.
pub(super) struct NodeFile {
    path: PathBuf,
    opens: Opens,
    /// `None` while it cannot be written.
    database: Option<Database>,
    /// When it was last tried to write another one.
    tried: Option<Instant>,
    flush: FlushTransactions,
    unsynced: UnsyncedFile,
    /// What is in that file, and not in this one.
    pending: Overlay,
    /// When the first of that came.
    pending_since: Option<Instant>,
}

impl NodeFile {
    /// Opens a file, or creates it.
    pub(super) fn open(path: &Path, flush: FlushTransactions) -> Result<Self, redb::Error> {
        let opens = |path: &Path| {
            keep_private(path)?;
            let mut builder = Database::builder();
            Ok(builder.set_cache_size(CACHE_BYTES).create(path)?)
        };
        Self::opened_by(path, flush, Box::new(opens))
    }

    fn opened_by(path: &Path, flush: FlushTransactions, opens: Opens) -> Result<Self, redb::Error> {
        remove(&beside(path, ".new"))?;
        if !path.exists() {
            // Of a store that was here before.
            remove(&beside(path, ".unsynced"))?;
        }
        let database = opens(path)?;
        let begin = database.begin_write()?;
        begin.open_table(NODES)?;
        let synced = begin.open_table(UNSYNCED)?.get(FRAME)?.map(|it| it.value());
        begin.commit()?;
        let synced = synced.unwrap_or(0);
        let (mut unsynced, found) = UnsyncedFile::open(&beside(path, ".unsynced"), synced)?;
        if !found.0.is_empty() {
            write(&database, [&found], unsynced.number())?;
        }
        unsynced.clear();
        respell(&database)?;
        Ok(Self {
            path: path.to_path_buf(),
            opens,
            database: Some(database),
            tried: None,
            flush,
            unsynced,
            pending: Overlay::default(),
            pending_since: None,
        })
    }

    /// All that is in it.
    pub(super) fn load(&self) -> Result<Tree, redb::Error> {
        let mut tree = Tree::default();
        let Some(database) = &self.database else {
            return Ok(tree);
        };
        let read = database.begin_read()?;
        for entry in read.open_table(NODES)?.iter()? {
            let (path, value) = entry?;
            if let Some((version, data)) = value.value().split_first_chunk::<4>() {
                let version = i32::from_be_bytes(*version);
                let node = Node {
                    data: Bytes::copy_from_slice(data),
                    version,
                    ephemeral: false,
                };
                tree.insert(path.value().to_owned(), node);
            }
        }
        Ok(tree)
    }

    /// Whether changes can be made durable.
    pub(super) fn is_writable(&self) -> bool {
        self.database.is_some()
    }

    /// How long until [`Self::do_due`] has something to do, as things are.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let left = |since: Option<Instant>, interval: Duration| {
            since.map_or(Duration::ZERO, |since| {
                interval.saturating_sub(since.elapsed())
            })
        };
        match self.is_writable() {
            false => Some(left(self.tried, RETRY_INTERVAL)),
            true if self.flush == FlushTransactions::EachSecond && self.pending_since.is_some() => {
                Some(left(self.pending_since, SYNC_WITHIN))
            }
            true => None,
        }
    }

    /// Syncs what has waited for long enough. Writes all nodes to a new file, where the one that there is failed, and that is due.
    pub(super) fn do_due(&mut self, tree: &Tree) {
        if self.due_in() != Some(Duration::ZERO) {
            return;
        }
        if self.is_writable() {
            self.sync();
            return;
        }
        self.tried = Some(Instant::now());
        match self.rewritten(tree) {
            Ok(database) => {
                tracing::info!(file = %self.path.display(), "the coordination store was written anew");
                self.database = Some(database);
                self.all_is_synced();
            }
            Err(error) => {
                tracing::error!(%error, "the coordination store cannot be written");
                // It would take what others free.
                let _ = remove(&beside(&self.path, ".new"));
            }
        }
    }

    fn rewritten(&self, tree: &Tree) -> Result<Database, redb::Error> {
        let unfinished = beside(&self.path, ".new");
        remove(&unfinished)?;
        let database = (self.opens)(&unfinished)?;
        let mut nodes = tree.iter().filter(|(_, node)| !node.ephemeral).peekable();
        loop {
            let write = database.begin_write()?;
            {
                let mut table = write.open_table(NODES)?;
                let (mut value, mut bytes) = (Vec::new(), 0);
                while bytes < COMMIT_BYTES_MAX
                    && let Some((path, node)) = nodes.next()
                {
                    encode(node, &mut value);
                    bytes += path.len() + value.len();
                    table.insert(path.as_str(), value.as_slice())?;
                }
            }
            let is_last = nodes.peek().is_none();
            if is_last {
                let mut table = write.open_table(UNSYNCED)?;
                table.insert(FRAME, self.unsynced.number())?;
            }
            write.commit()?;
            if is_last {
                break;
            }
        }
        std::fs::rename(&unfinished, &self.path)?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(database)
    }

    /// Writes changes, all or nothing: durably, or to the file of those that are not synced where they may be. An error means that
    /// they are in none, or will not stay there.
    pub(super) fn commit(&mut self, batch: &Overlay) -> Result<(), String> {
        if is_in_memory_alone(batch) {
            return Ok(());
        }
        if !self.is_writable() {
            return Err("the coordination store could not be written a moment ago".to_owned());
        }
        if self.may_wait(batch) {
            match self.unsynced.append(batch) {
                Ok(()) => {
                    self.pending.0.extend(batch.0.clone());
                    self.pending_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "changes of transactions are synced: cannot write the file of those that are not");
                }
            }
        }
        self.write(batch)
    }

    /// Makes durable what is not yet.
    pub(super) fn sync(&mut self) {
        if self.pending_since.is_some() && self.is_writable() {
            // It is logged, and the next step is to write all nodes anew.
            let _ = self.write(&Overlay::default());
        }
    }

    fn may_wait(&self, batch: &Overlay) -> bool {
        let mut paths = batch.0.keys();
        self.flush != FlushTransactions::BeforeAnswer
            && self.unsynced.bytes() < COMMIT_BYTES_MAX as u64
            && paths.all(|path| paths::is_of_transactions(path))
    }

    /// Writes what was not synced, and changes after it.
    fn write(&mut self, batch: &Overlay) -> Result<(), String> {
        let Some(database) = &self.database else {
            return Err("the coordination store cannot be written".to_owned());
        };
        let written = write(database, [&self.pending, batch], self.unsynced.number());
        match written {
            Ok(()) => {
                self.all_is_synced();
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the coordination store cannot be written");
                self.database = None;
                Err(error.to_string())
            }
        }
    }

    fn all_is_synced(&mut self) {
        self.pending = Overlay::default();
        self.pending_since = None;
        self.unsynced.clear();
    }
}

/// The file of this name and ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Only its owner reads the file: what users log in with is derived from what it holds.
fn keep_private(file: &Path) -> std::io::Result<()> {
    let options = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(MODE)
        .open(file)?;
    if let Err(error) = options.set_permissions(Permissions::from_mode(MODE)) {
        tracing::warn!(file = %file.display(), %error, "others may read the coordination store");
    }
    Ok(())
}

/// Puts nodes where their names are spelt as they are now.
fn respell(database: &Database) -> Result<(), redb::Error> {
    let mut moved = Vec::new();
    for entry in database.begin_read()?.open_table(NODES)?.iter()? {
        let (path, value) = entry?;
        let to = paths::respelt(path.value());
        moved.extend(to.map(|to| (path.value().to_owned(), to, value.value().to_vec())));
    }
    if moved.is_empty() {
        return Ok(());
    }
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(NODES)?;
        for (from, to, value) in moved {
            table.remove(from.as_str())?;
            table.insert(to.as_str(), value.as_slice())?;
        }
    }
    write.commit()?;
    Ok(())
}

/// Whether nothing of it goes into the file.
fn is_in_memory_alone(batch: &Overlay) -> bool {
    let mut nodes = batch.0.values();
    nodes.all(|node| node.as_ref().is_some_and(|node| node.ephemeral))
}

fn encode(node: &Node, value: &mut Vec<u8>) {
    value.clear();
    value.extend_from_slice(&node.version.to_be_bytes());
    value.extend_from_slice(&node.data);
}

/// Writes changes in their order; `number` is that of the last frame of changes not synced that is among them, or before.
fn write<const N: usize>(
    database: &Database,
    batches: [&Overlay; N],
    number: u64,
) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(NODES)?;
        let mut value = Vec::new();
        for (path, node) in batches.into_iter().flat_map(|batch| &batch.0) {
            match node {
                Some(node) if !node.ephemeral => {
                    encode(node, &mut value);
                    table.insert(path.as_str(), value.as_slice())?;
                }
                _ => {
                    table.remove(path.as_str())?;
                }
            }
        }
        if number > 0 {
            write.open_table(UNSYNCED)?.insert(FRAME, number)?;
        }
    }
    write.commit()?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
