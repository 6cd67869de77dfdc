//! Partitions of a broker over a disk that tells what it was asked.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use metaq_protocol::batch::{BatchBuilder, BatchHeader};
use parking_lot::Mutex;
use uuid::Uuid;

use super::*;
use crate::log::{Disk, DiskFile, LogConfig, ProducedBatch, RealDisk, as_real_disk};

/// Remembers which directories were synced, and which threads wrote to segments.
#[derive(Clone, Default)]
struct Telling {
    synced: Arc<Mutex<Vec<PathBuf>>>,
    writers: Arc<Mutex<Vec<String>>>,
    /// Whether a write takes its time.
    slow: Arc<AtomicBool>,
    /// Whether a write panics.
    panics: Arc<AtomicBool>,
    /// How many connections write now, and how many did at most.
    connections: Arc<(AtomicUsize, AtomicUsize)>,
}

struct TellingFile(Arc<dyn DiskFile>, Telling);

impl DiskFile for TellingFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }
    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let writer = std::thread::current().name().unwrap_or_default().to_owned();
        let is_thread = writer.starts_with("writer");
        self.1.writers.lock().push(writer);
        if self.1.slow.load(Ordering::SeqCst) {
            std::thread::sleep(SLOW);
        }
        assert!(!self.1.panics.load(Ordering::SeqCst), "on purpose");
        if is_thread {
            return self.0.write_all_at(buffers, position);
        }
        let (now, most) = &*self.1.connections;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let written = self.0.write_all_at(buffers, position);
        now.fetch_sub(1, Ordering::SeqCst);
        written
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Telling {
    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        match path.extension().is_some_and(|extension| extension == "log") {
            true => Arc::new(TellingFile(file, self.clone())),
            false => file,
        }
    }
}

impl Disk for Telling {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.create(path)?))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.synced.lock().push(path.to_path_buf());
        RealDisk.sync_dir(path)
    }
    as_real_disk!(rename, others, reserve);
}

fn topic(partitions: i32, config: LogConfig) -> TopicToOpen {
    let identity = Identity {
        broker_id: 0,
        number: 0,
    };
    TopicToOpen {
        topic: "t".into(),
        topic_id: Uuid::from_u128(7),
        config,
        partitions: (0..partitions)
            .map(|index| (index, identity, PartitionState::alone(0)))
            .collect(),
    }
}

fn batch(bytes: usize) -> Vec<ProducedBatch> {
    let builder = BatchBuilder::new().push(None, Some(&vec![7; bytes]), &[], 1);
    let bytes = builder.finish().unwrap();
    vec![ProducedBatch {
        header: BatchHeader::parse(&bytes).unwrap(),
        bytes,
    }]
}

#[test]
fn a_new_partitions_directory_is_durable_before_the_partition_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Telling::default();
    let synced = disk.synced.clone();
    let options = PartitionsOptions {
        open_threads: 2,
        ..PartitionsOptions::new(vec![dir.path().to_path_buf()])
    };
    let partitions = Partitions::open(Arc::new(disk), &options).unwrap();
    let topic = topic(5, LogConfig::default());
    let syncs = || {
        let synced = synced.lock();
        synced.iter().filter(|path| **path == dir.path()).count()
    };
    let at_start = syncs();
    assert_eq!(partitions.open_topics(vec![topic.clone()]).online, 5);
    assert_eq!(syncs(), at_start + 1);
    // What is there already costs nothing.
    assert_eq!(partitions.open_topics(vec![topic]).online, 5);
    assert_eq!(syncs(), at_start + 1);
}

/// A partition and its disk, which makes writers wait when one takes longer than `turn_max`.
fn written(
    dir: &Path,
    config: LogConfig,
    turn_max: Duration,
) -> (Telling, Partitions, Arc<Partition>) {
    let disk = Telling::default();
    let mut options = PartitionsOptions::new(vec![dir.to_path_buf()]);
    options.inline_writes = InlineWrites::new(1);
    options.inline_writes.time_max = turn_max;
    options.inline_writes.pause = Duration::from_secs(2);
    let partitions = Partitions::open(Arc::new(disk.clone()), &options).unwrap();
    partitions.open_topics(vec![topic(1, config)]);
    let partition = partitions.get("t", 0).unwrap();
    (disk, partitions, partition)
}

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        ..LogConfig::default()
    }
}

/// Who writes batches that a connection brings in one poll.
async fn who_writes(disk: &Telling, partition: &Arc<Partition>, batches: &[usize]) -> Vec<String> {
    disk.writers.lock().clear();
    let turn = async {
        let answers = batches
            .iter()
            .map(|bytes| partition.append(Acks::All, batch(*bytes)));
        for answer in answers.collect::<Vec<_>>() {
            answer.await.unwrap().unwrap();
        }
    };
    with_inline_writes(pin!(turn)).await;
    std::mem::take(&mut disk.writers.lock())
}

/// No write takes that long.
const UNHURRIED: Duration = Duration::from_secs(600);
/// How often a connection tries whether the thread is through.
const RESTS_MAX: usize = 500;
/// More than `index.interval.bytes`, so that the index has its room after it.
const INDEXED_BYTES: usize = 5000;

/// A disk that makes its writers wait.
const SLOW: Duration = Duration::from_millis(700);

fn own_name() -> String {
    std::thread::current().name().unwrap().to_owned()
}

fn is_writer(written: &[String]) -> bool {
    written.len() == 1 && written[0].starts_with("writer")
}

/// The thread answers a moment before it is through.
async fn until_the_thread_rests(disk: &Telling, partition: &Arc<Partition>) {
    for _ in 0..RESTS_MAX {
        if who_writes(disk, partition, &[10]).await == [own_name()] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a connection never writes itself");
}

/// Appends as long as the thread must do it in a new segment.
async fn index(disk: &Telling, partition: &Arc<Partition>) {
    for bytes in [10, INDEXED_BYTES, 10] {
        assert!(is_writer(&who_writes(disk, partition, &[bytes]).await));
    }
}

#[tokio::test]
async fn a_connection_writes_what_is_on_the_fast_path_and_the_thread_all_else() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, partitions, partition) = written(dir.path(), small_segments(), UNHURRIED);
    // The first batch since the log was opened, and those that the index grows for.
    index(&disk, &partition).await;
    until_the_thread_rests(&disk, &partition).await;
    // What comes together is written together.
    let own = [own_name()];
    assert_eq!(who_writes(&disk, &partition, &[10, 20, 30]).await, own);
    assert_eq!(who_writes(&disk, &partition, &[30 << 10]).await, own);
    // Into the next segment.
    assert!(is_writer(&who_writes(&disk, &partition, &[30 << 10]).await));
    // Its index begins.
    assert!(is_writer(&who_writes(&disk, &partition, &[10]).await));
    until_the_thread_rests(&disk, &partition).await;
    // Outside a poll.
    disk.writers.lock().clear();
    partition
        .append(Acks::All, batch(10))
        .await
        .unwrap()
        .unwrap();
    assert!(is_writer(&disk.writers.lock()));
    partitions.close();
}

#[tokio::test]
async fn a_connection_does_not_write_much_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, partitions, partition) = written(dir.path(), LogConfig::default(), UNHURRIED);
    index(&disk, &partition).await;
    until_the_thread_rests(&disk, &partition).await;
    assert!(is_writer(
        &who_writes(&disk, &partition, &[200 << 10, 100 << 10]).await
    ));
    until_the_thread_rests(&disk, &partition).await;
    partitions.close();
}

#[tokio::test]
async fn a_disk_that_makes_its_writers_wait_makes_the_thread_wait() {
    let dir = tempfile::tempdir().unwrap();
    let turn_max = Duration::from_millis(500);
    let (disk, partitions, partition) = written(dir.path(), LogConfig::default(), turn_max);
    index(&disk, &partition).await;
    until_the_thread_rests(&disk, &partition).await;
    disk.slow.store(true, Ordering::SeqCst);
    assert_eq!(who_writes(&disk, &partition, &[10]).await, [own_name()]);
    for _ in 0..3 {
        assert!(is_writer(&who_writes(&disk, &partition, &[10]).await));
    }
    disk.slow.store(false, Ordering::SeqCst);
    until_the_thread_rests(&disk, &partition).await;
    partitions.close();
}

#[tokio::test]
async fn a_turn_for_two_directories_waits_for_neither() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = Telling::default();
    let paths = [&one, &two].map(|dir| dir.path().to_path_buf());
    let mut options = PartitionsOptions::new(paths.to_vec());
    options.inline_writes = InlineWrites::new(1);
    options.inline_writes.time_max = UNHURRIED;
    let partitions = Partitions::open(Arc::new(disk.clone()), &options).unwrap();
    partitions.open_topics(vec![topic(2, LogConfig::default())]);
    let pair = [0, 1].map(|index| partitions.get("t", index).unwrap());
    for partition in &pair {
        index(&disk, partition).await;
        until_the_thread_rests(&disk, partition).await;
    }
    disk.writers.lock().clear();
    let turn = async {
        let answers = pair
            .each_ref()
            .map(|partition| partition.append(Acks::All, batch(10)));
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
    };
    with_inline_writes(pin!(turn)).await;
    let mut writers = std::mem::take(&mut *disk.writers.lock());
    writers.sort();
    assert_eq!(writers, ["writer 0", "writer 1"]);
    partitions.close();
}

/// A port whose connections write a batch for each byte, and one that only answers; the ports of both.
async fn ports(partition: Arc<Partition>) -> (u16, u16) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listen = || tokio::net::TcpListener::bind("127.0.0.1:0");
    let (writing, answering) = (listen().await.unwrap(), listen().await.unwrap());
    let ports = [&writing, &answering].map(|one| one.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = writing.accept().await.unwrap();
        let serve = async {
            while stream.read_u8().await.is_ok() {
                partition
                    .append(Acks::All, batch(10))
                    .await
                    .unwrap()
                    .unwrap();
                stream.write_u8(0).await.unwrap();
            }
        };
        with_inline_writes(pin!(serve)).await;
    });
    tokio::spawn(async move {
        let (mut stream, _) = answering.accept().await.unwrap();
        while stream.read_u8().await.is_ok() {
            stream.write_u8(0).await.unwrap();
        }
    });
    (ports[0], ports[1])
}

#[test]
fn a_connection_that_waits_for_the_disk_does_not_keep_others_from_being_read() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let (disk, partitions, partition) = written(dir.path(), LogConfig::default(), UNHURRIED);
    runtime.block_on(async {
        for bytes in [10, INDEXED_BYTES, 10] {
            partition
                .append(Acks::All, batch(bytes))
                .await
                .unwrap()
                .unwrap();
        }
    });
    let (writing, answering) = runtime.block_on(ports(partition));
    let connect = |port| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut writing, mut answering) = (connect(writing), connect(answering));
    let ask = |stream: &mut std::net::TcpStream| {
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    };
    ask(&mut answering);
    let connection_writes = (0..RESTS_MAX).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        disk.writers.lock().clear();
        ask(&mut writing);
        !is_writer(&disk.writers.lock())
    });
    assert!(connection_writes, "a connection never writes itself");
    disk.writers.lock().clear();
    disk.slow.store(true, Ordering::SeqCst);
    // Whichever thread watches the sockets, it is the one that writes now.
    writing.write_all(&[1]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    ask(&mut answering);
    writing.set_nonblocking(true).unwrap();
    let answered = writing.read(&mut [0]);
    assert!(answered.is_err(), "answered after the write had ended");
    writing.set_nonblocking(false).unwrap();
    writing.read_exact(&mut [0]).unwrap();
    assert!(
        !is_writer(&disk.writers.lock()),
        "the thread wrote: {:?}",
        disk.writers.lock()
    );
    partitions.close();
}

#[tokio::test]
async fn a_panic_while_a_connection_writes_is_the_partitions_alone_and_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, partitions, partition) = written(dir.path(), LogConfig::default(), UNHURRIED);
    index(&disk, &partition).await;
    until_the_thread_rests(&disk, &partition).await;
    let log_end = partition.log().ends().log_end;
    disk.panics.store(true, Ordering::SeqCst);
    disk.writers.lock().clear();
    let turn = async {
        let answers = [10, 20].map(|bytes| partition.append(Acks::All, batch(bytes)));
        for answer in answers {
            assert!(!matches!(answer.await, Ok(Ok(_))));
        }
        // The connection goes on, and is refused.
        assert!(matches!(
            partition.append(Acks::All, batch(10)).await,
            Ok(Err(_))
        ));
    };
    with_inline_writes(pin!(turn)).await;
    assert_eq!(*disk.writers.lock(), [own_name()]);
    assert!(matches!(
        partition.append(Acks::All, batch(10)).await,
        Ok(Err(_))
    ));
    let offline = partition.log().offline_reason().unwrap_or_default();
    assert!(offline.contains("panicked"), "{offline}");
    // It is the partition's, not the writer's.
    assert!(partitions.supervisor().ended().is_empty());
    disk.panics.store(false, Ordering::SeqCst);
    assert_eq!(partition.log().ends().log_end, log_end);
    partitions.close();
}

#[test]
fn no_more_connections_than_may_write_side_by_side_and_each_keeps_its_order() {
    const DIRECTORIES: usize = 3;
    const CONNECTIONS: usize = 6;
    const BATCHES: i64 = 300;
    let dirs: Vec<_> = (0..DIRECTORIES)
        .map(|_| tempfile::tempdir().unwrap())
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(4).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let disk = Telling::default();
    let paths = dirs.iter().map(|dir| dir.path().to_path_buf());
    let mut options = PartitionsOptions::new(paths.collect());
    options.inline_writes = InlineWrites::new(2);
    options.inline_writes.time_max = UNHURRIED;
    let inline_writes = options.inline_writes.clone();
    let partitions = Partitions::open(Arc::new(disk.clone()), &options).unwrap();
    partitions.open_topics(vec![topic(DIRECTORIES as i32, LogConfig::default())]);
    let connection = |n: usize| {
        let partition = partitions.get("t", (n % DIRECTORIES) as i32).unwrap();
        runtime.spawn(async move {
            let mut offsets = Vec::new();
            let work = async {
                for _ in 0..BATCHES {
                    let appended = partition
                        .append(Acks::All, batch(10))
                        .await
                        .unwrap()
                        .unwrap();
                    offsets.push(appended.base_offset);
                    tokio::task::yield_now().await;
                }
            };
            with_inline_writes(pin!(work)).await;
            assert!(offsets.is_sorted(), "{offsets:?}");
            offsets
        })
    };
    let connections: Vec<_> = (0..CONNECTIONS).map(connection).collect();
    let mut given = vec![Vec::new(); DIRECTORIES];
    for (n, connection) in connections.into_iter().enumerate() {
        given[n % DIRECTORIES].extend(runtime.block_on(connection).unwrap());
    }
    for mut offsets in given {
        offsets.sort_unstable();
        let each = BATCHES * (CONNECTIONS / DIRECTORIES) as i64;
        assert!(offsets.iter().copied().eq(0..each));
    }
    assert!(inline_writes.written() > 0, "no connection wrote");
    let most = disk.connections.1.load(Ordering::SeqCst);
    assert!((1..=2).contains(&most), "{most} at a time");
    partitions.close();
}
