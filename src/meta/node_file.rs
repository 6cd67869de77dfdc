//! The file of the embedded store (redb). A write that fails leaves redb unable to do anything more: the file is opened again,
//! at once and then once a second, until it can be. Whether the commit that failed is in it is seen then.
//!
//! The table `nodes` maps a path to: version i32 big-endian, then the data.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::tree::{Overlay, Tree};
use super::{Node, paths};

const NODES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("nodes");
/// Of the file.
const MODE: u32 = 0o600;
/// What the file's pages may take in memory, bytes: all reading is done in the tree.
const CACHE_BYTES: usize = 8 << 20;
/// A file that could not be written is not opened again more often than this.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

type Opens = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

/// See the module's documentation.
pub(super) struct NodeFile {
    opens: Opens,
    /// `None` while it cannot be written.
    database: Option<Database>,
    /// When it was last tried to open it again.
    tried: Option<Instant>,
    /// The commit of which it is not known whether it is in the file.
    doubtful: Option<Overlay>,
}

impl NodeFile {
    /// Opens a file, or creates it.
    pub(super) fn open(file: &Path) -> Result<Self, redb::Error> {
        keep_private(file)?;
        let file: PathBuf = file.to_path_buf();
        Self::opened_by(Box::new(move || {
            let mut builder = Database::builder();
            Ok(builder.set_cache_size(CACHE_BYTES).create(&file)?)
        }))
    }

    fn opened_by(opens: Opens) -> Result<Self, redb::Error> {
        let database = opens()?;
        let write = database.begin_write()?;
        write.open_table(NODES)?;
        write.commit()?;
        respell(&database)?;
        Ok(Self {
            opens,
            database: Some(database),
            tried: None,
            doubtful: None,
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

    /// How long until it is to be tried again; `None` where it can be written.
    pub(super) fn retry_in(&self) -> Option<Duration> {
        let since = self.tried.map(|tried| tried.elapsed());
        let wait = since.map_or(Duration::ZERO, |since| RETRY_INTERVAL.saturating_sub(since));
        self.database.is_none().then_some(wait)
    }

    /// Opens it again where that is due. Gives the commit of which nothing was known, where it is in the file.
    pub(super) fn try_again(&mut self) -> Option<Overlay> {
        if self.retry_in() != Some(Duration::ZERO) {
            return None;
        }
        self.tried = Some(Instant::now());
        let reopened = (self.opens)().and_then(|database| {
            let is_stored = match &self.doubtful {
                Some(doubtful) => is_stored(&database, doubtful)?,
                None => false,
            };
            Ok((database, is_stored))
        });
        match reopened {
            Ok((database, is_stored)) => {
                self.database = Some(database);
                self.doubtful.take().filter(|_| is_stored)
            }
            Err(error) => {
                tracing::error!(%error, "the coordination store cannot be opened again");
                None
            }
        }
    }

    /// Writes changes durably, all or nothing. Gives them back once they are in the file, or says why they are not, or may not be.
    pub(super) fn commit(&mut self, batch: Overlay) -> Result<Overlay, String> {
        if is_in_memory_alone(&batch) {
            return Ok(batch);
        }
        let Some(database) = &self.database else {
            return Err("the coordination store could not be written a moment ago".to_owned());
        };
        let Err(error) = write(database, &batch) else {
            return Ok(batch);
        };
        tracing::error!(%error, "the coordination store cannot be written");
        self.database = None;
        self.doubtful = Some(batch);
        self.try_again().ok_or_else(|| error.to_string())
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

fn write(database: &Database, batch: &Overlay) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(NODES)?;
        let mut value = Vec::new();
        for (path, node) in &batch.0 {
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
    }
    write.commit()?;
    Ok(())
}

/// Whether a file has what a commit was to leave in it.
fn is_stored(database: &Database, batch: &Overlay) -> Result<bool, redb::Error> {
    let read = database.begin_read()?;
    let table = read.open_table(NODES)?;
    let mut value = Vec::new();
    for (path, node) in &batch.0 {
        let found = table.get(path.as_str())?;
        let is_as_wanted = match node {
            Some(node) if !node.ephemeral => {
                encode(node, &mut value);
                found.is_some_and(|found| found.value() == value)
            }
            _ => found.is_none(),
        };
        if !is_as_wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use redb::StorageBackend;
    use redb::backends::FileBackend;

    use super::*;

    /// A disk that fails when so many more writes and syncs were done, and from then on; negative for never.
    pub(in crate::meta) type FailsAfter = Arc<AtomicI64>;

    /// A file on it.
    #[derive(Debug)]
    struct FailingFile {
        file: FileBackend,
        fails_after: FailsAfter,
    }

    impl FailingFile {
        fn step(&self) -> io::Result<()> {
            let left = self.fails_after.load(Ordering::Relaxed);
            match left {
                0 => Err(io::ErrorKind::StorageFull.into()),
                1.. => {
                    self.fails_after.store(left - 1, Ordering::Relaxed);
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    }

    impl StorageBackend for FailingFile {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.step()?;
            self.file.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            // What was written is there although the disk says otherwise.
            self.file.sync_data()?;
            self.step()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.step()?;
            self.file.write(offset, data)
        }
        fn close(&self) -> io::Result<()> {
            self.file.close()
        }
    }

    pub(in crate::meta) fn on_failing_disk(path: &Path, fails_after: &FailsAfter) -> NodeFile {
        let (path, fails_after) = (path.to_path_buf(), fails_after.clone());
        let opens = move || {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let backend = FailingFile {
                file: FileBackend::new(options.open(&path)?)?,
                fails_after: fails_after.clone(),
            };
            Ok(Database::builder().create_with_backend(backend)?)
        };
        NodeFile::opened_by(Box::new(opens)).unwrap()
    }

    #[test]
    fn nodes_of_names_that_were_spelt_otherwise_are_found_under_todays_spelling() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("meta");
        let database = Database::create(&file).unwrap();
        let write = database.begin_write().unwrap();
        let mut table = write.open_table(NODES).unwrap();
        for path in ["/consumers/app-🚀/offsets/t/0-0", "/consumers/ü%2f"] {
            table.insert(path, b"\0\0\0\x03data".as_slice()).unwrap();
        }
        drop(table);
        write.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let opened = NodeFile::open(&file).unwrap();
            let tree = opened.load().unwrap();
            let moved = format!("{}/offsets/t/0-0", paths::group("app-🚀"));
            for path in [&moved, "/consumers/ü%2f"] {
                let node = tree.get(path).unwrap();
                assert_eq!((node.version, &node.data[..]), (3, b"data".as_slice()));
            }
            assert_eq!(tree.subtree("/consumers").len(), 2);
        }
    }

    fn put(path: &str, version: i32) -> Overlay {
        let node = Node {
            data: vec![7; 20_000].into(),
            version,
            ephemeral: false,
        };
        Overlay([(path.to_owned(), Some(node))].into())
    }

    #[test]
    fn a_disk_that_fails_at_any_step_leaves_a_file_that_takes_more_and_has_what_was_said_to_be_in_it()
     {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        let fails_after = FailsAfter::new((-1).into());
        let mut file = on_failing_disk(&path, &fails_after);
        let (mut version, mut refused, mut doubtful) = (0, 0, 0);
        let mut expected = None;
        for after in 0..60 {
            version += 1;
            fails_after.store(after, Ordering::Relaxed);
            let committed = file.commit(put("/n", version));
            fails_after.store(-1, Ordering::Relaxed);
            if committed.is_ok() {
                expected = Some(version);
            } else {
                refused += 1;
                file.tried = None;
                if file.try_again().is_some() {
                    doubtful += 1;
                    expected = Some(version);
                }
                assert_eq!(file.retry_in(), None);
            }
            let found = file.load().unwrap().get("/n");
            assert_eq!(found.map(|node| node.version), expected, "after {after}");
        }
        // Some failed before they were in the file, and some after that; the last ones not at all.
        assert!(
            refused > doubtful && version as usize > refused,
            "{refused} {doubtful}"
        );
        drop(file);
        let found = NodeFile::open(&path).unwrap().load().unwrap().get("/n");
        assert_eq!(found.map(|node| node.version), expected);
    }

    #[test]
    fn while_the_disk_fails_it_is_tried_now_and_then_and_what_is_in_memory_alone_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let fails_after = FailsAfter::new((-1).into());
        let mut file = on_failing_disk(&dir.path().join("meta"), &fails_after);
        fails_after.store(0, Ordering::Relaxed);
        assert!(file.commit(put("/n", 1)).is_err());
        if file.retry_in().is_none() {
            // Opening it again needed no write.
            file.database = None;
        }
        assert!(file.retry_in().unwrap() > Duration::ZERO);
        assert!(file.try_again().is_none() && file.commit(put("/n", 2)).is_err());
        let mut ephemeral = put("/e", 1);
        for node in ephemeral.0.values_mut().flatten() {
            node.ephemeral = true;
        }
        assert!(file.commit(ephemeral).is_ok());
    }
}
