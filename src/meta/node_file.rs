//! The file of the embedded store (redb). After a write that failed nothing that is in the file is believed: the system may have
//! dropped what it could not write, and say otherwise (as in `log/failed_sync`). All nodes are written to a new file, which takes
//! its place once it is synced: at once, and then once a second until that succeeds. What the failed write was to bring is in
//! neither.
//!
//! The table `nodes` maps a path to: version i32 big-endian, then the data.

use std::fs::{File, OpenOptions, Permissions};
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
/// One commit takes in so much, bytes: its pages are in memory until it is written.
pub(super) const COMMIT_BYTES_MAX: usize = 4 << 20;
/// A file that could not be written is not tried again more often than this.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

type Opens = Box<dyn Fn(&Path) -> Result<Database, redb::Error> + Send>;

/// See the module's documentation.
pub(super) struct NodeFile {
    path: PathBuf,
    opens: Opens,
    /// `None` while it cannot be written.
    database: Option<Database>,
    /// When it was last tried to write another one.
    tried: Option<Instant>,
}

impl NodeFile {
    /// Opens a file, or creates it.
    pub(super) fn open(path: &Path) -> Result<Self, redb::Error> {
        let opens = |path: &Path| {
            keep_private(path)?;
            let mut builder = Database::builder();
            Ok(builder.set_cache_size(CACHE_BYTES).create(path)?)
        };
        Self::opened_by(path, Box::new(opens))
    }

    fn opened_by(path: &Path, opens: Opens) -> Result<Self, redb::Error> {
        remove_unfinished(&unfinished(path))?;
        let database = opens(path)?;
        let write = database.begin_write()?;
        write.open_table(NODES)?;
        write.commit()?;
        respell(&database)?;
        Ok(Self {
            path: path.to_path_buf(),
            opens,
            database: Some(database),
            tried: None,
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

    /// Writes all nodes to a new file, where the one that there is failed, and that is due.
    pub(super) fn try_again(&mut self, tree: &Tree) {
        if self.retry_in() != Some(Duration::ZERO) {
            return;
        }
        self.tried = Some(Instant::now());
        match self.rewritten(tree) {
            Ok(database) => {
                tracing::info!(file = %self.path.display(), "the coordination store was written anew");
                self.database = Some(database);
            }
            Err(error) => {
                tracing::error!(%error, "the coordination store cannot be written");
                // It would take what others free.
                let _ = remove_unfinished(&unfinished(&self.path));
            }
        }
    }

    fn rewritten(&self, tree: &Tree) -> Result<Database, redb::Error> {
        let unfinished = unfinished(&self.path);
        remove_unfinished(&unfinished)?;
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
            write.commit()?;
            if nodes.peek().is_none() {
                break;
            }
        }
        std::fs::rename(&unfinished, &self.path)?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(database)
    }

    /// Writes changes durably, all or nothing. An error means that they are not in the file, or will not stay there.
    pub(super) fn commit(&mut self, batch: &Overlay) -> Result<(), String> {
        if is_in_memory_alone(batch) {
            return Ok(());
        }
        let Some(database) = &self.database else {
            return Err("the coordination store could not be written a moment ago".to_owned());
        };
        write(database, batch).map_err(|error| {
            tracing::error!(%error, "the coordination store cannot be written");
            self.database = None;
            error.to_string()
        })
    }
}

/// Beside a file: the one that is to take its place.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn remove_unfinished(path: &Path) -> std::io::Result<()> {
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
        let fails_after = fails_after.clone();
        let opens = move |path: &Path| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let backend = FailingFile {
                file: FileBackend::new(options.open(path)?)?,
                fails_after: fails_after.clone(),
            };
            Ok(Database::builder().create_with_backend(backend)?)
        };
        NodeFile::opened_by(path, Box::new(opens)).unwrap()
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
    fn after_a_disk_that_fails_at_any_step_a_new_file_has_what_was_said_to_be_in_it_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        let fails_after = FailsAfter::new((-1).into());
        let mut file = on_failing_disk(&path, &fails_after);
        let mut tree = Tree::default();
        let (mut refused, mut still_failing) = (0, 0);
        for after in 0..80 {
            let batch = put("/n", after + 1);
            // Every other time the disk fails while the new file is written, too.
            fails_after.store(i64::from(after), Ordering::Relaxed);
            match file.commit(&batch) {
                Ok(()) => drop(tree.apply(batch)),
                Err(_) => {
                    refused += 1;
                    fails_after.store(i64::from(after % 2) * 6 - 1, Ordering::Relaxed);
                    file.tried = None;
                    file.try_again(&tree);
                    still_failing += i32::from(file.retry_in().is_some());
                    fails_after.store(-1, Ordering::Relaxed);
                    file.tried = None;
                    file.try_again(&tree);
                    assert_eq!(file.retry_in(), None, "after {after}");
                }
            }
            fails_after.store(-1, Ordering::Relaxed);
            let found = file.load().unwrap();
            assert!(found.iter().eq(tree.iter()), "after {after}");
        }
        assert!((1..80).contains(&refused), "{refused}");
        assert!(still_failing > 0);
        drop(file);
        let found = NodeFile::open(&path).unwrap().load().unwrap();
        assert!(found.iter().eq(tree.iter()));
        assert!(!unfinished(&path).exists());
    }

    #[test]
    fn while_the_disk_fails_it_is_tried_once_a_second_and_what_is_in_memory_alone_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let fails_after = FailsAfter::new((-1).into());
        let mut file = on_failing_disk(&dir.path().join("meta"), &fails_after);
        let tree = Tree::default();
        fails_after.store(0, Ordering::Relaxed);
        assert!(file.commit(&put("/n", 1)).is_err());
        assert_eq!(file.retry_in(), Some(Duration::ZERO));
        file.try_again(&tree);
        assert!(file.retry_in().unwrap() > Duration::ZERO);
        assert!(file.commit(&put("/n", 2)).is_err());
        let mut ephemeral = put("/e", 1);
        for node in ephemeral.0.values_mut().flatten() {
            node.ephemeral = true;
        }
        assert!(file.commit(&ephemeral).is_ok());
    }

    #[test]
    fn many_nodes_are_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        let fails_after = FailsAfter::new((-1).into());
        let mut file = on_failing_disk(&path, &fails_after);
        let mut tree = Tree::default();
        for n in 0..2 * COMMIT_BYTES_MAX / 20_000 + 3 {
            let batch = put(&format!("/n{n}"), 1);
            file.commit(&batch).unwrap();
            tree.apply(batch);
        }
        fails_after.store(0, Ordering::Relaxed);
        assert!(file.commit(&put("/n1", 2)).is_err());
        fails_after.store(-1, Ordering::Relaxed);
        file.try_again(&tree);
        drop(file);
        let found = NodeFile::open(&path).unwrap().load().unwrap();
        assert!(found.iter().eq(tree.iter()));
    }
}
