//! A disk that fails, is full, or is asked for two things at a time.

use super::*;

/// A disk that fails on demand.
#[derive(Default)]
struct Failing {
    broken: Arc<AtomicBool>,
    /// No room for indexes, while records still find some.
    full: Arc<AtomicBool>,
    syncs: Arc<AtomicU64>,
    /// The length that a file was given last.
    length: Arc<AtomicU64>,
}

struct FailingFile(
    Arc<dyn DiskFile>,
    Arc<AtomicBool>,
    Arc<AtomicU64>,
    Arc<AtomicU64>,
);

impl Disk for Failing {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FailingFile(
            RealDisk.open(path)?,
            self.broken.clone(),
            self.syncs.clone(),
            self.length.clone(),
        )))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)?;
        self.open(path)
    }
    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<std::fs::File> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => RealDisk.reserve(path, bytes),
        }
    }
    as_real_disk!(rename, others, sync_dir);
}

impl DiskFile for FailingFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }
    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            // Torn: the first buffer arrives, the rest does not.
            self.0.write_all_at(&mut buffers[..1], position)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_all_at(buffers, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::Error::other("EIO"));
        }
        self.2.fetch_add(1, Ordering::SeqCst);
        self.0.sync_data()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.3.store(bytes, Ordering::SeqCst);
        self.0.set_len(bytes)
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn a_full_disk_takes_the_log_offline_and_tears_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::default();
    let broken = disk.broken.clone();
    let log = Log::open(
        Arc::new(disk),
        dir.path(),
        config(),
        LeftAs::new(OpenMode::Clean),
        NOW,
    )
    .unwrap()
    .log;
    append(&log, 3, NOW);
    broken.store(true, Ordering::SeqCst);
    let refused = log.append(&[batch(3, NOW), batch(1, NOW)], 0, NOW);
    assert!(
        refused
            .iter()
            .all(|result| matches!(result, Err(LogError::Offline(_)))),
        "{refused:?}"
    );
    broken.store(false, Ordering::SeqCst);
    assert!(matches!(
        log.append(&[batch(1, NOW)], 0, NOW)[0],
        Err(LogError::Offline(_))
    ));
    assert!(log.offline_reason().is_some());
    assert_eq!(first_offset_of(&read(&log, 1).unwrap()), 0);
    let opened = open(
        dir.path(),
        config(),
        OpenMode::AfterCrash { recovery_point: 0 },
    );
    assert_eq!((opened.log.ends().log_end.offset, opened.cut_bytes), (3, 0));
}

#[test]
fn an_index_that_finds_no_room_takes_the_log_offline_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::default();
    let full = disk.full.clone();
    let log = Log::open(
        Arc::new(disk),
        dir.path(),
        config(),
        LeftAs::new(OpenMode::Clean),
        NOW,
    )
    .unwrap()
    .log;
    append(&log, 3, NOW);
    let bytes = log.bytes();
    full.store(true, Ordering::SeqCst);
    let refused = log.append(&[batch(3, NOW)], 0, NOW);
    assert!(
        matches!(&refused[0], Err(LogError::Offline(reason)) if reason.contains("no storage space")),
        "{refused:?}"
    );
    assert_eq!(log.bytes(), bytes);
    assert_eq!(first_offset_of(&read(&log, 1).unwrap()), 0);
}

#[test]
fn a_failed_sync_is_not_taken_for_a_success_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::default();
    let (broken, syncs) = (disk.broken.clone(), disk.syncs.clone());
    let log = Log::open(
        Arc::new(disk),
        dir.path(),
        config(),
        LeftAs::new(OpenMode::Clean),
        NOW,
    )
    .unwrap()
    .log;
    append(&log, 3, NOW);
    assert_eq!(log.sync(NOW).unwrap().offset, 3);
    assert!(syncs.load(Ordering::SeqCst) > 0);
    append(&log, 3, NOW);
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(log.sync(NOW), Err(LogError::Offline(_))));
    broken.store(false, Ordering::SeqCst);
    assert_eq!(log.ends().synced_end, 3);
    assert!(matches!(
        log.append(&[batch(1, NOW)], 0, NOW)[0],
        Err(LogError::Offline(_))
    ));
}

#[test]
fn what_was_cut_off_by_a_sync_that_failed_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::default();
    let (broken, length) = (disk.broken.clone(), disk.length.clone());
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let left = LeftAs::new(OpenMode::AfterCrash { recovery_point: 0 });
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    append(&log, 3, NOW);
    let bytes = log.bytes();
    drop(log);
    let path = dir.path().join("00000000000000000000.log");
    let mut content = std::fs::read(&path).unwrap();
    content.extend([1; 100]);
    std::fs::write(&path, content).unwrap();
    broken.store(true, Ordering::SeqCst);
    assert!(Log::open(disk.clone(), dir.path(), config(), left, NOW).is_err());
    broken.store(false, Ordering::SeqCst);
    length.store(u64::MAX, Ordering::SeqCst);
    // The page cache knows of the cut, and the device may not.
    let left = LeftAs::new(OpenMode::AfterKill { recovery_point: 0 });
    let log = Log::open(disk, dir.path(), config(), left, NOW)
        .unwrap()
        .log;
    assert_eq!((log.bytes(), length.load(Ordering::SeqCst)), (bytes, bytes));
}

#[test]
fn syncs_and_retention_make_the_topics_id_durable_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), config(), OpenMode::Clean).log;
    // Nothing to make durable yet, which is no reason not to look again.
    log.sync_names().unwrap();
    let id = uuid::Uuid::from_u128(7);
    partition_metadata::write(&RealDisk, dir.path(), id).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| log.sync_names().unwrap()));
        }
    });
    let kept = partition_metadata::load(&RealDisk, dir.path()).unwrap();
    assert_eq!(kept, Some(id));
}
