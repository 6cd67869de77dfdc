//! Of a journal by itself; what it makes of logs is tested in `restore.rs` and tests/power.rs.

use parking_lot::Mutex;

use super::*;
use crate::log::as_real_disk;
use crate::log::disk::RealDisk;

const FILE_BYTES: u64 = 64 << 10;

fn batch(fill: u8, bytes: usize) -> WrittenBatch {
    WrittenBatch {
        head: [fill; BATCH_HEADER_BYTES],
        body: vec![fill; bytes].into(),
    }
}

fn record(journal: &mut Journal, batches: &[WrittenBatch]) {
    let entry = |(n, batch)| Entry {
        topic_id: Uuid::from_u128(7),
        partition: n as i32,
        run_from: 5,
        batch: Some(batch),
    };
    let entries: Vec<_> = batches.iter().enumerate().map(entry).collect();
    range(journal, batches).write(&entries).unwrap();
}

fn range(journal: &mut Journal, batches: &[WrittenBatch]) -> JournalRange {
    let bytes = |batch: &WrittenBatch| BATCH_HEADER_BYTES + batch.body.len();
    let bytes = batches.iter().map(bytes).sum();
    if let Some(range) = journal.range(0, batches.len(), bytes) {
        return range;
    }
    journal.switch().unwrap();
    journal.range(0, batches.len(), bytes).unwrap()
}

fn found(dir: &Path) -> Vec<u8> {
    let all = load(&RealDisk, dir).unwrap();
    all.iter().map(|found| found.batch[0]).collect()
}

#[test]
fn records_are_found_in_their_order_over_both_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    for n in 1..=20 {
        record(&mut journal, &[batch(n, 100), batch(n, 3000)]);
    }
    let all = load(&RealDisk, dir.path()).unwrap();
    assert_eq!(all.last().unwrap().partition, 1);
    assert_eq!(all.last().unwrap().run_from, 5);
    assert_eq!(all.last().unwrap().batch.len(), BATCH_HEADER_BYTES + 3000);
    // The first file was begun again after record 15 + 15.
    assert_eq!(
        found(dir.path()),
        (1..=20).flat_map(|n| [n, n]).collect::<Vec<_>>()
    );
    for n in 21..=40 {
        record(&mut journal, &[batch(n, 100), batch(n, 3000)]);
    }
    let left = found(dir.path());
    assert!(
        left.starts_with(&[16, 16]) && left.ends_with(&[40, 40]),
        "{left:?}"
    );
}

#[test]
fn a_torn_record_ends_it_and_a_new_journal_goes_on_after_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    (1..=3).for_each(|n| record(&mut journal, &[batch(n, 5000)]));
    let path = path(dir.path(), 0);
    let mut content = std::fs::read(&path).unwrap();
    // In the third record, which takes two blocks like the others.
    content[4096 * 5 + 4500] ^= 1;
    std::fs::write(&path, content).unwrap();
    assert_eq!(found(dir.path()), [1, 2]);
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    record(&mut journal, &[batch(9, 10)]);
    assert_eq!(journal.generation, 2);
}

#[test]
fn what_a_torn_header_leaves_is_not_taken_for_records_of_a_later_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    (1..=3).for_each(|n| record(&mut journal, &[batch(n, 10)]));
    discard(&RealDisk, dir.path()).unwrap();
    // The disk took half of the next header.
    let path = path(dir.path(), 0);
    let mut content = std::fs::read(&path).unwrap();
    content[..8].copy_from_slice(&header(MAGIC, 2)[..8]);
    std::fs::write(&path, content).unwrap();
    assert!(found(dir.path()).is_empty());
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    record(&mut journal, &[batch(9, 10)]);
    assert_eq!((journal.generation, found(dir.path())), (2, vec![9]));
}

#[test]
fn a_record_counts_only_after_all_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    record(&mut journal, &[batch(1, 10)]);
    // One that is not written while later ones are, also in the other file.
    range(&mut journal, &[batch(2, 10)]);
    (3..15).for_each(|n| record(&mut journal, &[batch(n, 4000)]));
    assert_eq!(found(dir.path()), [1]);
}

#[test]
fn what_is_discarded_does_not_count_and_what_is_kept_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    record(&mut journal, &[batch(1, 10), batch(2, 10)]);
    let mut needed = load(&RealDisk, dir.path()).unwrap();
    needed.pop();
    keep(&RealDisk, dir.path(), &needed).unwrap();
    assert_eq!(load(&RealDisk, dir.path()).unwrap(), needed);
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    record(&mut journal, &[batch(3, 10)]);
    assert_eq!(found(dir.path()), [1, 3]);
    // It is kept once more, as the only one.
    keep(&RealDisk, dir.path(), &needed).unwrap();
    assert_eq!(load(&RealDisk, dir.path()).unwrap(), needed);
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    record(&mut journal, &[batch(4, 10)]);
    assert_eq!(found(dir.path()), [1, 4]);
    discard(&RealDisk, dir.path()).unwrap();
    assert!(found(dir.path()).is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_a_kill_left_of_a_kept_file_that_was_not_whole_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    (1..=5).for_each(|n| record(&mut journal, &[batch(n, 10)]));
    let needed = load(&RealDisk, dir.path()).unwrap();
    let aside = tempfile::tempdir().unwrap();
    keep(&RealDisk, aside.path(), &needed).unwrap();
    let whole = std::fs::read(aside.path().join("metaq-journal-kept-1")).unwrap();
    for blocks in 0..=whole.len() / BLOCK_BYTES as usize {
        let part = &whole[..blocks * BLOCK_BYTES as usize];
        std::fs::write(dir.path().join("metaq-journal-kept-2.tmp"), part).unwrap();
        assert_eq!(load(&RealDisk, dir.path()).unwrap(), needed, "{blocks}");
    }
    keep(&RealDisk, dir.path(), &needed).unwrap();
    assert!(!dir.path().join("metaq-journal-kept-2.tmp").exists());
    assert_eq!(load(&RealDisk, dir.path()).unwrap(), needed);
}

#[test]
fn what_was_kept_of_an_earlier_run_does_not_hide_one_whose_first_records_were_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    record(&mut journal, &[batch(1, 10)]);
    let needed = load(&RealDisk, dir.path()).unwrap();
    keep(&RealDisk, dir.path(), &needed).unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    // Each file is begun anew several times.
    (2..=90).for_each(|n| record(&mut journal, &[batch(n, 100)]));
    let all = found(dir.path());
    let of_run = all.strip_prefix(&[1]).unwrap();
    assert!(of_run.len() >= 15 && !of_run.contains(&2), "{of_run:?}");
    assert!(
        of_run.iter().copied().eq(91 - of_run.len() as u8..=90),
        "{of_run:?}"
    );
}

#[test]
fn much_is_kept_in_several_records_with_where_logs_were_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |n: usize| Journaled {
        topic_id: Uuid::from_u128(n as u128 % 3),
        partition: n as i32 % 2,
        run_from: n as i64,
        batch: vec![n as u8; n % 5].into(),
    };
    let needed: Vec<_> = (0..2 * KEPT_ENTRIES_MAX + 1).map(entry).collect();
    keep(&RealDisk, dir.path(), &needed).unwrap();
    assert_eq!(load(&RealDisk, dir.path()).unwrap(), needed);
}

#[test]
fn what_was_discarded_is_not_taken_for_records_of_a_later_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    (1..=5).for_each(|n| record(&mut journal, &[batch(n, 10)]));
    discard(&RealDisk, dir.path()).unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    (6..=7).for_each(|n| record(&mut journal, &[batch(n, 10)]));
    assert_eq!(found(dir.path()), [6, 7]);
}

#[test]
fn a_record_that_is_larger_than_a_file_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    assert!(journal.takes(1, 61_384) && !journal.takes(1, 61_385));
}

/// The real disk, but a power failure takes what was written to a file since its last sync, if a test says so.
#[derive(Clone, Default)]
struct Forgetful(Arc<Mutex<Vec<Synced>>>);

/// A file, and its content when it was synced.
type Synced = (PathBuf, Vec<u8>);

struct ForgetfulFile(PathBuf, Arc<dyn DiskFile>, Forgetful);

impl Forgetful {
    /// The first block of a file as it was synced last.
    fn power_failure_takes_the_first_block(&self, path: &Path) {
        let synced = self.0.lock();
        let durable = synced.iter().rev().find(|(of, _)| of == path);
        let block = BLOCK_BYTES as usize;
        let mut content = std::fs::read(path).unwrap();
        content[..block].copy_from_slice(&durable.unwrap().1[..block]);
        std::fs::write(path, content).unwrap();
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(ForgetfulFile(path.to_path_buf(), file, self.clone()))
    }
}

impl DiskFile for ForgetfulFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.1.read_at(buffer, position)
    }
    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        self.1.write_all_at(buffers, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        let content = std::fs::read(&self.0)?;
        self.2.0.lock().push((self.0.clone(), content));
        self.1.sync_data()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.1.set_len(bytes)
    }
    fn size(&self) -> io::Result<u64> {
        self.1.size()
    }
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}

impl Disk for Forgetful {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.create(path)?))
    }
    as_real_disk!(rename, others, reserve, sync_dir);
}

#[test]
fn a_file_that_is_written_anew_takes_nothing_of_the_other_one_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Forgetful::default();
    let mut journal = Journal::new(Arc::new(disk.clone()), dir.path(), FILE_BYTES, 1);
    // Both files are full; the first one is begun again, and of that the power takes all but a record in its middle,
    // which was not synced yet either.
    (1..=14).for_each(|n| record(&mut journal, &[batch(n, 4000)]));
    journal.switch().unwrap();
    let old = range(&mut journal, &[batch(15, 4000)]);
    let torn = range(&mut journal, &[batch(16, 4000)]);
    assert_eq!((old.in_file, torn.in_file), (0, 0));
    torn.file
        .write_all_at(&mut [IoSlice::new(&[7; 100])], torn.position)
        .unwrap();
    disk.power_failure_takes_the_first_block(&path(dir.path(), 0));
    let found = found(dir.path());
    assert!(found.ends_with(&[12, 13, 14]), "{found:?}");
}

#[test]
fn a_cut_is_read_back_as_an_entry_without_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(Arc::new(RealDisk), dir.path(), FILE_BYTES, 1);
    journal.switch().unwrap();
    let cut = Entry {
        topic_id: Uuid::from_u128(7),
        partition: 3,
        run_from: 42,
        batch: None,
    };
    journal.range(0, 1, 0).unwrap().write(&[cut]).unwrap();
    record(&mut journal, &[batch(1, 100)]);
    let found = load(&RealDisk, dir.path()).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].partition, found[0].run_from), (3, 42));
    assert!(found[0].batch.is_empty() && !found[1].batch.is_empty());
}
