//! Tests of the embedded store's file, over disks that fail.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;
use FlushTransactions::{BeforeAnswer, BySystem, EachSecond};

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

pub(in crate::meta) fn on_failing_disk(
    path: &Path,
    flush: FlushTransactions,
    fails_after: &FailsAfter,
) -> NodeFile {
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
    NodeFile::opened_by(path, flush, Box::new(opens)).unwrap()
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
        let opened = NodeFile::open(&file, BeforeAnswer).unwrap();
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
    let mut file = on_failing_disk(&path, BeforeAnswer, &fails_after);
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
                file.do_due(&tree);
                still_failing += i32::from(file.due_in().is_some());
                fails_after.store(-1, Ordering::Relaxed);
                file.tried = None;
                file.do_due(&tree);
                assert_eq!(file.due_in(), None, "after {after}");
            }
        }
        fails_after.store(-1, Ordering::Relaxed);
        let found = file.load().unwrap();
        assert!(found.iter().eq(tree.iter()), "after {after}");
    }
    assert!((1..80).contains(&refused), "{refused}");
    assert!(still_failing > 0);
    drop(file);
    let found = NodeFile::open(&path, BeforeAnswer).unwrap().load().unwrap();
    assert!(found.iter().eq(tree.iter()));
    assert!(!beside(&path, ".new").exists());
}

#[test]
fn while_the_disk_fails_it_is_tried_once_a_second_and_what_is_in_memory_alone_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let fails_after = FailsAfter::new((-1).into());
    let mut file = on_failing_disk(&dir.path().join("meta"), BeforeAnswer, &fails_after);
    let tree = Tree::default();
    fails_after.store(0, Ordering::Relaxed);
    assert!(file.commit(&put("/n", 1)).is_err());
    assert_eq!(file.due_in(), Some(Duration::ZERO));
    file.do_due(&tree);
    assert!(file.due_in().unwrap() > Duration::ZERO);
    assert!(file.commit(&put("/n", 2)).is_err());
    let mut ephemeral = put("/e", 1);
    for node in ephemeral.0.values_mut().flatten() {
        node.ephemeral = true;
    }
    assert!(file.commit(&ephemeral).is_ok());
}

fn of_transaction(id: &str, version: i32) -> Overlay {
    put(&paths::transaction(id), version)
}

/// What is found where the machine is started again; with the changes that were not synced, or without.
fn after_a_crash(path: &Path, with_unsynced: bool) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("meta");
    std::fs::copy(path, &copy).unwrap();
    if with_unsynced {
        std::fs::copy(beside(path, ".unsynced"), beside(&copy, ".unsynced")).unwrap();
    }
    NodeFile::open(&copy, BeforeAnswer).unwrap().load().unwrap()
}

#[test]
fn changes_of_transactions_are_synced_before_they_are_answered_or_with_the_next_one_that_is() {
    for (flush, waits) in [(BeforeAnswer, false), (BySystem, true), (EachSecond, true)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        let mut file = NodeFile::open(&path, flush).unwrap();
        file.commit(&put("/n", 0)).unwrap();
        file.commit(&of_transaction("x", 0)).unwrap();
        file.commit(&of_transaction("x", 1)).unwrap();
        let version = |tree: &Tree| tree.get("/transactions/x").map(|node| node.version);
        assert_eq!(version(&after_a_crash(&path, true)), Some(1), "{flush:?}");
        let synced = version(&after_a_crash(&path, false));
        assert_eq!(synced, (!waits).then_some(1), "{flush:?}");
        assert_eq!(file.due_in().is_some(), flush == EachSecond, "{flush:?}");
        // Removed, with something else: what waited must not come back.
        let mut removed = put("/n", 1);
        removed.0.insert("/transactions/x".to_owned(), None);
        let unsynced = std::fs::read(beside(&path, ".unsynced")).unwrap();
        file.commit(&removed).unwrap();
        assert_eq!(file.due_in(), None, "{flush:?}");
        // As a kill between the commit and the emptying of the other file leaves it.
        std::fs::write(beside(&path, ".unsynced"), unsynced).unwrap();
        for with_unsynced in [true, false] {
            let found = after_a_crash(&path, with_unsynced);
            assert_eq!(version(&found), None, "{flush:?} {with_unsynced}");
            assert_eq!(found.get("/n").unwrap().version, 1);
        }
    }
}

#[test]
fn what_waits_is_synced_within_a_second_or_when_it_is_much_or_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let mut file = NodeFile::open(&path, EachSecond).unwrap();
    file.commit(&of_transaction("x", 0)).unwrap();
    assert!(file.due_in().unwrap() > Duration::ZERO);
    file.pending_since = Instant::now().checked_sub(SYNC_WITHIN);
    file.do_due(&Tree::default());
    assert_eq!(file.due_in(), None);
    assert_eq!(after_a_crash(&path, false).iter().count(), 1);
    drop(file);
    let mut file = NodeFile::open(&path, BySystem).unwrap();
    let count = COMMIT_BYTES_MAX / 20_000 + 3;
    for n in 1..=count {
        file.commit(&of_transaction(&n.to_string(), 0)).unwrap();
    }
    let synced = after_a_crash(&path, false).iter().count();
    assert!((count - 3..=count).contains(&synced), "{synced} of {count}");
    file.sync();
    assert_eq!(after_a_crash(&path, false).iter().count(), count + 1);
    assert_eq!(
        std::fs::metadata(beside(&path, ".unsynced")).unwrap().len(),
        0
    );
}

#[test]
fn after_a_disk_that_fails_at_any_step_changes_that_were_not_synced_are_there_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let fails_after = FailsAfter::new((-1).into());
    let mut file = on_failing_disk(&path, BySystem, &fails_after);
    let mut tree = Tree::default();
    let mut refused = 0;
    for after in 0..60 {
        let waits = of_transaction("x", after + 1);
        file.commit(&waits).unwrap();
        tree.apply(waits);
        let batch = put("/n", after + 1);
        fails_after.store(i64::from(after), Ordering::Relaxed);
        let is_written = file.commit(&batch).is_ok();
        fails_after.store(-1, Ordering::Relaxed);
        match is_written {
            true => drop(tree.apply(batch)),
            false => {
                refused += 1;
                assert!(file.commit(&of_transaction("x", 0)).is_err());
                file.tried = None;
                file.do_due(&tree);
            }
        }
        assert!(file.load().unwrap().iter().eq(tree.iter()), "after {after}");
    }
    assert!((1..60).contains(&refused), "{refused}");
    drop(file);
    let found = NodeFile::open(&path, BySystem).unwrap().load().unwrap();
    assert!(found.iter().eq(tree.iter()));
}

#[test]
fn many_nodes_are_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let fails_after = FailsAfter::new((-1).into());
    let mut file = on_failing_disk(&path, BeforeAnswer, &fails_after);
    let mut tree = Tree::default();
    for n in 0..2 * COMMIT_BYTES_MAX / 20_000 + 3 {
        let batch = put(&format!("/n{n}"), 1);
        file.commit(&batch).unwrap();
        tree.apply(batch);
    }
    fails_after.store(0, Ordering::Relaxed);
    assert!(file.commit(&put("/n1", 2)).is_err());
    fails_after.store(-1, Ordering::Relaxed);
    file.do_due(&tree);
    drop(file);
    let found = NodeFile::open(&path, BeforeAnswer).unwrap().load().unwrap();
    assert!(found.iter().eq(tree.iter()));
}
