//! A pass that ends at any step, and indexes of keys that do not fit.

use super::*;

/// A disk that does nothing any more after so many changes: what a kill there leaves.
#[derive(Default)]
struct Killed {
    left: std::sync::atomic::AtomicI64,
    log: std::sync::OnceLock<std::sync::Weak<Log>>,
    /// The log's count of rewrites at each rename.
    rewrites: std::sync::Mutex<Vec<u64>>,
}

impl Killed {
    fn step(&self) -> std::io::Result<()> {
        match self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0 {
            true => Ok(()),
            false => Err(std::io::Error::other("killed")),
        }
    }
}

impl Disk for Killed {
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Arc<dyn DiskFile>> {
        self.step()?;
        RealDisk.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.step()?;
        if let Some(log) = self.log.get().and_then(std::sync::Weak::upgrade) {
            self.rewrites.lock().unwrap().push(log.rewrites());
        }
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.step()?;
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<crate::log::DirEntry>> {
        RealDisk.list(dir)
    }
    fn create_dir(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn remove_dir_all(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove_dir_all(path)
    }
    fn link(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.link(from, to)
    }
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        RealDisk.read(path)
    }
    fn replace(&self, path: &Path, content: &[u8]) -> std::io::Result<()> {
        self.step()?;
        RealDisk.replace(path, content)
    }
    fn reserve(&self, path: &Path, bytes: u64) -> std::io::Result<std::fs::File> {
        RealDisk.reserve(path, bytes)
    }
    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        self.step()?;
        RealDisk.sync_dir(path)
    }
}

#[test]
fn tombstones_whose_time_has_come_are_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let log = open(dir.path(), OpenMode::Clean, 0);
    assert!(!log.cleanable(i64::MAX, NOW).unwrap().has_due_tombstones);
    compact_all(&log, &mut KeyMap::with_slots(1000), NOW);
    let cleaned_until = log.cleaned_until();
    let is_due = |log: &Log, at| log.cleanable(i64::MAX, at).unwrap().has_due_tombstones;
    assert!(is_due(&log, NOW + RETENTION));
    log.close(NOW).unwrap();
    let log = open(dir.path(), OpenMode::Clean, cleaned_until);
    assert!(!is_due(&log, NOW + RETENTION - 1));
    assert!(is_due(&log, NOW + RETENTION));
    compact_all(&log, &mut KeyMap::with_slots(1000), NOW + RETENTION);
    assert!(!is_due(&log, NOW + RETENTION));
}

#[test]
fn whoever_copies_the_log_at_any_moment_of_a_swap_finds_out() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let disk = Arc::new(Killed {
        left: std::sync::atomic::AtomicI64::new(i64::MAX),
        ..Killed::default()
    });
    let left = LeftAs::new(OpenMode::Clean);
    let log = Log::open(disk.clone(), dir.path(), config(), left, NOW);
    let log = Arc::new(log.unwrap().log);
    let _ = disk.log.set(Arc::downgrade(&log));
    let before = log.rewrites();
    compact(&log, &mut KeyMap::with_slots(1000), NOW)
        .unwrap()
        .unwrap();
    let seen = disk.rewrites.lock().unwrap();
    assert!(seen.len() > 10, "{seen:?}");
    // Who began before it, and who began in the middle of it.
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    assert!(before < first && last < log.rewrites(), "{before} {seen:?}");
}

#[test]
fn a_kill_at_any_step_loses_nothing_and_the_next_pass_finishes() {
    let origin = tempfile::tempdir().unwrap();
    let expected = filled(origin.path());
    for steps in 0.. {
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(origin.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        let disk = Arc::new(Killed {
            left: std::sync::atomic::AtomicI64::new(i64::MAX),
            ..Killed::default()
        });
        let left = LeftAs::new(OpenMode::Clean);
        let log = Log::open(disk.clone(), dir.path(), config(), left, NOW);
        let log = log.unwrap().log;
        disk.left.store(steps, std::sync::atomic::Ordering::Relaxed);
        let done = compact(&log, &mut KeyMap::with_slots(1000), NOW);
        let end = log.ends();
        drop(log);
        let mode = match steps % 2 {
            0 => OpenMode::AfterKill {
                recovery_point: end.synced_end,
            },
            _ => OpenMode::AfterCrash {
                recovery_point: end.synced_end,
            },
        };
        for _ in 0..2 {
            let log = open(dir.path(), mode, 0);
            let names = RealDisk.list(dir.path()).unwrap();
            let left = |name: &str| name.ends_with(".swap") || name.ends_with(".cleaned");
            assert!(!names.iter().any(|entry| left(&entry.name)), "{steps}");
            assert_eq!(log.ends().log_end.offset, end.log_end.offset, "{steps}");
            let committed = readable(&log);
            assert_eq!(committed, expected, "killed after {steps} steps");
            compact_all(&log, &mut KeyMap::with_slots(1000), NOW);
            assert_eq!(readable(&log), expected, "{steps}");
        }
        if matches!(done, Ok(Some(_))) {
            assert!(steps > 40, "{steps} steps");
            return;
        }
    }
}

#[test]
fn a_segment_without_aborted_transactions_has_an_index_of_them_where_the_one_before_it_had_some() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let log = open(dir.path(), OpenMode::Clean, 0);
    let bytes = || {
        let index = dir.path().join("00000000000000000000.txnindex");
        std::fs::metadata(index).map(|index| index.len()).ok()
    };
    let mut keys = KeyMap::with_slots(1000);
    let mut seen = vec![bytes()];
    for pass in 0..4 {
        compact_all(&log, &mut keys, NOW + pass * 2 * RETENTION);
        seen.push(bytes());
    }
    seen.dedup();
    assert!(seen.iter().any(|bytes| *bytes > Some(0)), "{seen:?}");
    assert_eq!(seen[seen.len() - 2..], [Some(0), None]);
}

/// A key index that is not what its segment's batches say.
#[derive(Clone, Copy, Debug)]
enum Hostile {
    /// Of other batches.
    Digest,
    /// With a record that is not there.
    Record,
    /// Torn.
    Entries,
}

/// Writes the key index of a segment anew, not as it is.
fn falsify(segment: &Segment, hostile: Hostile) {
    let index = KeyIndex::open(&RealDisk, segment).unwrap().unwrap();
    let mut facts = index.facts;
    let mut keys = Vec::new();
    let mut entries = index.entries();
    while let Some(key) = entries.next().unwrap() {
        keys.push(key);
    }
    let path = segment.keys_path();
    match hostile {
        Hostile::Digest => facts.batches_crc ^= 1,
        Hostile::Record => {
            let one = keys[0];
            keys.insert(
                0,
                KeyedOffset {
                    hash: [1, 2],
                    ..one
                },
            );
        }
        Hostile::Entries => {}
    }
    let base = segment.base_offset;
    let mut writer = KeyIndexWriter::create(&RealDisk, &path, base, &index.seed).unwrap();
    keys.iter().for_each(|key| writer.add(key).unwrap());
    writer.finish(segment.bytes(), &facts).unwrap();
    if let Hostile::Entries = hostile {
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn key_indexes_that_do_not_fit_their_segments_are_made_again_by_the_same_pass() {
    for hostile in [Hostile::Digest, Hostile::Record, Hostile::Entries] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let log = open(dir.path(), OpenMode::Clean, 0);
        let mut keys = KeyMap::with_slots(1000);
        compact_all(&log, &mut keys, NOW);
        let mut falsified = 0;
        for segment in log.segments().iter() {
            if KeyIndex::open(&RealDisk, segment).unwrap().is_some() {
                falsify(segment, hostile);
                falsified += 1;
            }
        }
        assert!(falsified > 1, "{falsified}");
        let mut model = Model {
            log,
            ..Model::new(&dir.path().join("unused"), 3)
        };
        for _ in 0..40 {
            let records = model.records();
            let mut builder = BatchBuilder::new();
            for record in &records {
                let (key, value) = (Some(&record.key[..]), record.value.as_deref());
                builder = builder.push(key, value, &[], record.timestamp);
            }
            let bytes = builder.finish().unwrap();
            let header = BatchHeader::parse(&bytes).unwrap();
            let batches = vec![ProducedBatch { header, bytes }];
            model.append(AppendRequest::of_client(batches));
        }
        let expected = readable(&model.log);
        let compacted = compact(&model.log, &mut keys, NOW);
        assert!(matches!(compacted, Ok(Some(_))), "{hostile:?}");
        assert_eq!(readable(&model.log), expected, "{hostile:?}");
        for segment in model.log.segments().iter().rev().skip(1) {
            let index = KeyIndex::open(&RealDisk, segment).unwrap().unwrap();
            let mut entries = index.entries();
            let mut before = -1;
            while let Some(key) = entries.next().unwrap() {
                assert!(key.offset > before, "{hostile:?}");
                before = key.offset;
            }
        }
    }
}
