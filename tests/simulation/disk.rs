//! A disk that forgets: what was not synced when the power goes may be gone, there, half there, or out of order.
//!
//! Everything is written through to a real directory, so that the log's code is the one that runs everywhere. Beside it
//! stands what a power loss would leave: each file's content as of its last sync, and the writes since. Index files are
//! mapped and not seen; [`damage_indexes`] damages those that nobody may trust.
//!
//! A sync takes time: it covers what was written before it began, and whatever [`Disk::during_syncs`] was given runs
//! before it ends; [`Disk::cut_power`] may come in between. A failed writeback is what Linux makes of it: the pages are clean afterwards, so that no later sync
//! writes them, and the error is reported once for each open file description, to whichever sync of it comes next.
//!
//! Names come in two ways. A plain disk is a coarse one, which the seeds of several simulations know: a new or removed file may
//! not be durable, while renames and directories are at once. One that is made by [`Disk::with_names`] takes every name for
//! what it is (`names.rs`), lets every call fail, and may end in the middle of any of them ([`Disk::end_in`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metaq::log::{DirEntry, DiskFile, RealDisk};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::names::Names;
use super::random::Random;

/// Bytes that a device writes whole or not at all.
const SECTOR: usize = 512;

enum Write {
    At(usize, Vec<u8>),
    Length(usize),
}

struct Content {
    /// As of the last sync.
    durable: Vec<u8>,
    /// Each with its number, in order.
    since: Vec<(u64, Write)>,
    /// Of the next write.
    number: u64,
    /// How many writebacks failed.
    failures: u64,
    /// The directory was synced since it was made.
    is_named: bool,
}

impl Content {
    fn wrote(&mut self, write: Write) {
        self.since.push((self.number, write));
        self.number += 1;
    }

    /// What was written before a number is on the device now.
    fn written_back(&mut self, before: u64) {
        let pending = self.since.partition_point(|(number, _)| *number < before);
        for (_, write) in self.since.drain(..pending) {
            write.apply(&mut self.durable);
        }
    }

    /// The device refuses: what was to be written is clean in the page cache, and will never be on the device.
    fn writeback_failed(&mut self, before: u64) {
        let pending = self.since.partition_point(|(number, _)| *number < before);
        self.since.drain(..pending);
        self.failures += 1;
    }
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::At(at, data) => put(bytes, *at, data),
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// What runs while a file is synced.
pub type DuringSync = Arc<dyn Fn(&Path) + Send + Sync>;

#[derive(Default)]
struct State {
    files: HashMap<PathBuf, Arc<Mutex<Content>>>,
    /// Removed since the directory was synced.
    removed: HashMap<PathBuf, Arc<Mutex<Content>>>,
    /// Calls until the disk fails, when it does.
    fails_in: Option<u64>,
    /// Calls after that one until another fails.
    fails_again_in: Option<u64>,
    /// Syncs until a writeback fails, when it does.
    writeback_fails_in: Option<u64>,
    during_sync: Option<DuringSync>,
    names: Option<Names<Arc<Mutex<Content>>>>,
    /// Calls until whoever calls has come to its end.
    ends_in: Option<u64>,
    has_ended: bool,
    /// Calls since the last [`Disk::revive`].
    calls: u64,
    /// There are no links between some of its directories.
    refuses_links: bool,
}

/// See the module's documentation; clones share it.
#[derive(Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    has_no_power: Arc<RwLock<bool>>,
}

/// An open file description.
struct SimulatedFile {
    path: PathBuf,
    real: Arc<dyn DiskFile>,
    content: Arc<Mutex<Content>>,
    /// Failures that were reported to it, or to others before it was opened.
    reported: AtomicU64,
    disk: Disk,
}

#[allow(
    dead_code,
    reason = "not every test that has this disk moves directories"
)]
impl Disk {
    /// A disk that knows the names below a directory for what they are.
    pub fn with_names(root: &Path) -> Self {
        let disk = Self::default();
        disk.state.lock().names = Some(Names::below(root));
        disk
    }

    /// In the middle of the call after the next `calls` whoever calls has come to its end: it is killed, or the power goes.
    pub fn end_in(&self, calls: u64) {
        self.state.lock().ends_in = Some(calls);
    }

    /// Lets one call fail, and one more, the `more`-th after it.
    pub fn fail_twice_in(&self, calls: u64, more: u64) {
        let mut state = self.state.lock();
        (state.fails_in, state.fails_again_in) = (Some(calls), Some(more));
    }

    pub fn has_ended(&self) -> bool {
        self.state.lock().has_ended
    }

    /// Calls since this was asked last. Nothing fails, and whoever comes next can begin.
    pub fn revive(&self) -> u64 {
        self.stop_failing();
        let mut state = self.state.lock();
        (state.ends_in, state.has_ended) = (None, false);
        std::mem::take(&mut state.calls)
    }

    pub fn refuse_links(&self) {
        self.state.lock().refuses_links = true;
    }

    fn knows_names(&self) -> bool {
        self.state.lock().names.is_some()
    }

    /// A call that only a disk with names lets fail.
    fn may_fail_by_name(&self) -> io::Result<()> {
        match self.knows_names() {
            true => self.may_fail(),
            false => Ok(()),
        }
    }

    /// As the real file is, and not durable.
    fn content_of(real: &Arc<dyn DiskFile>) -> io::Result<Arc<Mutex<Content>>> {
        let mut durable = vec![0; real.size()? as usize];
        real.read_at(&mut durable, 0)?;
        Ok(Arc::new(Mutex::new(Content {
            durable,
            since: Vec::new(),
            number: 0,
            failures: 0,
            is_named: true,
        })))
    }

    /// What is known of a file that is opened, or of a new one.
    fn named(
        &self,
        path: &Path,
        real: &Arc<dyn DiskFile>,
        is_new: bool,
    ) -> io::Result<Option<Arc<Mutex<Content>>>> {
        let state = self.state.lock();
        let Some(names) = &state.names else {
            return Ok(None);
        };
        if let Some(content) = names.file(path).filter(|_| !is_new) {
            return Ok(Some(content));
        }
        let content = Self::content_of(real)?;
        if is_new {
            names.add_file(path, content.clone());
        }
        Ok(Some(content))
    }

    fn with_known_names(&self, change: impl FnOnce(&Names<Arc<Mutex<Content>>>)) -> bool {
        let state = self.state.lock();
        state.names.as_ref().map(change).is_some()
    }
}

impl Disk {
    /// Lets one call behind the next `calls` fail; after that the disk works again.
    pub fn fail_in(&self, calls: u64) {
        self.state.lock().fails_in = Some(calls);
    }

    /// Lets the writeback of one sync after the next `syncs` fail.
    pub fn fail_writeback_in(&self, syncs: u64) {
        self.state.lock().writeback_fails_in = Some(syncs);
    }

    pub fn stop_failing(&self) {
        let mut state = self.state.lock();
        (state.fails_in, state.writeback_fails_in) = (None, None);
        state.fails_again_in = None;
    }

    /// Runs something in the middle of every sync.
    pub fn during_syncs(&self, work: Option<DuringSync>) {
        self.state.lock().during_sync = work;
    }

    fn writeback_fails(&self) -> bool {
        let left = &mut self.state.lock().writeback_fails_in;
        match left {
            Some(0) => {
                *left = None;
                true
            }
            Some(more) => {
                *more -= 1;
                false
            }
            None => false,
        }
    }

    /// The power goes under threads that go on: what a call before it did is decided, and every later one fails until
    /// [`Disk::power_on`].
    #[allow(dead_code, reason = "only threads need it: tests/power.rs")]
    pub fn cut_power(&self) {
        *self.has_no_power.write() = true;
    }

    #[allow(dead_code, reason = "only threads need it: tests/power.rs")]
    pub fn power_on(&self) {
        *self.has_no_power.write() = false;
    }

    /// Power for a call, as long as the guard is held.
    fn power(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let guard = self.has_no_power.read();
        match *guard || self.state.lock().has_ended {
            false => Ok(guard),
            true => Err(io::Error::other("the power is gone")),
        }
    }

    fn may_fail(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.calls += 1;
        match state.ends_in {
            Some(0) => {
                state.has_ended = true;
                return Err(io::Error::other("this is the end"));
            }
            Some(left) => state.ends_in = Some(left - 1),
            None => {}
        }
        match state.fails_in {
            Some(0) => {
                state.fails_in = state.fails_again_in.take();
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(left) => {
                state.fails_in = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn known(
        &self,
        path: &Path,
        real: &Arc<dyn DiskFile>,
        is_new: bool,
    ) -> io::Result<Arc<Mutex<Content>>> {
        let mut state = self.state.lock();
        if let Some(content) = state.files.get(path) {
            return Ok(content.clone());
        }
        let mut durable = vec![0; real.size()? as usize];
        real.read_at(&mut durable, 0)?;
        let content = Arc::new(Mutex::new(Content {
            durable,
            since: Vec::new(),
            number: 0,
            failures: 0,
            is_named: !is_new,
        }));
        state.files.insert(path.to_path_buf(), content.clone());
        Ok(content)
    }

    fn file(
        &self,
        path: &Path,
        real: Arc<dyn DiskFile>,
        is_new: bool,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let content = match self.named(path, &real, is_new)? {
            Some(content) => content,
            None => self.known(path, &real, is_new)?,
        };
        let reported = AtomicU64::new(content.lock().failures);
        Ok(Arc::new(SimulatedFile {
            path: path.to_path_buf(),
            real,
            content,
            reported,
            disk: self.clone(),
        }))
    }

    /// The power goes: leaves on the real disk what may be left.
    pub fn lose_power(&self, random: &mut Random) {
        let mut state = self.state.lock();
        if let Some(names) = &state.names {
            names.lose(random, |content, random| {
                let mut content = content.lock();
                let bytes = left(&content, random);
                content.durable.clone_from(&bytes);
                content.since.clear();
                bytes
            });
            return;
        }
        let mut files: Vec<_> = state.files.drain().collect();
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, content) in files {
            // It went with its directory.
            if !path.parent().is_some_and(Path::exists) {
                continue;
            }
            let content = content.lock();
            if !content.is_named && random.one_in(2) {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            std::fs::write(&path, left(&content, random)).unwrap();
        }
        let mut removed: Vec<_> = state.removed.drain().collect();
        removed.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, content) in removed {
            if random.one_in(2) && !path.exists() && path.parent().is_some_and(Path::exists) {
                std::fs::write(&path, left(&content.lock(), random)).unwrap();
            }
        }
    }
}

/// Where the real files are: in memory, where the machine has such a place.
pub fn directory() -> io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
}

/// What of a file's unsynced writes may be on the device.
fn left(content: &Content, random: &mut Random) -> Vec<u8> {
    let mut bytes = content.durable.clone();
    // All, none, or any of them: pages are written back in any order.
    let mood = random.below(4);
    for (_, write) in &content.since {
        let there = match mood {
            0 => false,
            1 => true,
            _ => random.one_in(2),
        };
        match write {
            Write::Length(length) if there => bytes.resize(*length, 0),
            Write::At(at, data) if there => {
                let mut data = &data[..];
                if mood == 3 && random.one_in(3) && data.len() > 1 {
                    // Torn at a sector of the device.
                    let torn = random.below(data.len() as u64) as usize;
                    let end = ((at + torn) / SECTOR * SECTOR).saturating_sub(*at);
                    data = &data[..end];
                }
                put(&mut bytes, *at, data);
            }
            _ => {}
        }
    }
    bytes
}

/// What else goes with the power: indexes of segments from `trusted_before` on may be anything; those before it were
/// synced by whoever says so.
pub fn damage_indexes(dir: &Path, trusted_before: i64, random: &mut Random) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let extension = path.extension().unwrap_or_default();
            let base = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse::<i64>().ok());
            (extension == "index" || extension == "timeindex")
                && base.is_some_and(|base| base >= trusted_before)
        })
        .collect();
    paths.sort();
    for path in paths {
        let size = std::fs::metadata(&path).unwrap().len();
        match random.below(4) {
            0 => {}
            1 => std::fs::remove_file(&path).unwrap(),
            2 => {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len(random.below(size + 1)).unwrap();
            }
            _ => {
                let mut bytes = std::fs::read(&path).unwrap();
                let from = random.below(size + 1) as usize;
                bytes[from..].fill(0);
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }
}

impl metaq::log::Disk for Disk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let _power = self.power()?;
        self.file(path, RealDisk.open(path)?, false)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let _power = self.power()?;
        self.may_fail()?;
        let is_new = !path.exists();
        self.file(path, RealDisk.create(path)?, is_new)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _power = self.power()?;
        self.may_fail_by_name()?;
        if self.knows_names() {
            RealDisk.rename(from, to)?;
            self.with_known_names(|names| names.rename(from, to));
            return Ok(());
        }
        // One step: whoever opens the new name in between would take it for a file of its own.
        let mut state = self.state.lock();
        RealDisk.rename(from, to)?;
        if let Some(content) = state.files.remove(from) {
            state.files.insert(to.to_path_buf(), content);
            return Ok(());
        }
        // Of a directory, with all that is in it; that counts as durable.
        let moved = state.files.keys().filter(|path| path.starts_with(from));
        let moved: Vec<PathBuf> = moved.cloned().collect();
        for path in moved {
            if let (Some(content), Ok(below)) = (state.files.remove(&path), path.strip_prefix(from))
            {
                state.files.insert(to.join(below), content);
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _power = self.power()?;
        self.may_fail_by_name()?;
        RealDisk.remove(path)?;
        if self.with_known_names(|names| names.remove(path)) {
            return Ok(());
        }
        let mut state = self.state.lock();
        if let Some(content) = state.files.remove(path) {
            state.removed.insert(path.to_path_buf(), content);
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let _power = self.power()?;
        let mut entries = RealDisk.list(dir)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let _power = self.power()?;
        self.may_fail_by_name()?;
        RealDisk.create_dir(path)?;
        self.with_known_names(|names| names.add_dir(path));
        Ok(())
    }

    /// One by one, as the system has to.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        if !self.knows_names() {
            let _power = self.power()?;
            return RealDisk.remove_dir_all(path);
        }
        for entry in self.list(path)? {
            match entry.is_dir {
                true => self.remove_dir_all(&path.join(entry.name))?,
                false => self.remove(&path.join(entry.name))?,
            }
        }
        let _power = self.power()?;
        self.may_fail()?;
        std::fs::remove_dir(path)?;
        self.with_known_names(|names| names.remove(path));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _power = self.power()?;
        self.may_fail_by_name()?;
        if self.state.lock().refuses_links {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        RealDisk.link(from, to)?;
        self.with_known_names(|names| {
            if let Some(content) = names.file(from) {
                names.add_file(to, content);
            }
        });
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let _power = self.power()?;
        RealDisk.read(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if self.knows_names() {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(".tmp");
            let temporary = path.with_file_name(name);
            self.write(&temporary, content)?;
            self.open(&temporary)?.sync_data()?;
            self.rename(&temporary, path)?;
            return path.parent().map_or(Ok(()), |dir| self.sync_dir(dir));
        }
        let _power = self.power()?;
        self.may_fail()?;
        // In one step: there is no moment at which neither is there.
        let temporary = path.with_extension("replacing");
        std::fs::write(&temporary, content)?;
        std::fs::rename(&temporary, path)?;
        self.state.lock().files.remove(path);
        Ok(())
    }

    fn reserve(&self, path: &Path, bytes: u64) -> io::Result<File> {
        let _power = self.power()?;
        self.may_fail()?;
        let reserved = RealDisk.reserve(path, bytes)?;
        self.with_known_names(|names| names.forget(path));
        Ok(reserved)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let _power = self.power()?;
        self.may_fail()?;
        if self.with_known_names(|names| names.sync(path)) {
            return Ok(());
        }
        let mut state = self.state.lock();
        for (file, content) in &state.files {
            if file.parent() == Some(path) {
                content.lock().is_named = true;
            }
        }
        state.removed.retain(|file, _| file.parent() != Some(path));
        Ok(())
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.real.read_at(buffer, position)
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let _power = self.disk.power()?;
        let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_vec()).collect();
        if let Err(error) = self.disk.may_fail() {
            // A part of it is there.
            let part = &bytes[..bytes.len() / 2];
            self.real
                .write_all_at(&mut [IoSlice::new(part)], position)?;
            let write = Write::At(position as usize, part.to_vec());
            self.content.lock().wrote(write);
            return Err(error);
        }
        self.real.write_all_at(buffers, position)?;
        let write = Write::At(position as usize, bytes);
        self.content.lock().wrote(write);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let before = {
            let _power = self.disk.power()?;
            self.disk.may_fail()?;
            self.content.lock().number
        };
        let during = self.disk.state.lock().during_sync.clone();
        if let Some(during) = during {
            during(&self.path);
        }
        let _power = self.disk.power()?;
        let fails = self.disk.writeback_fails();
        let mut content = self.content.lock();
        match fails {
            true => content.writeback_failed(before),
            false => content.written_back(before),
        }
        match self.reported.swap(content.failures, Ordering::SeqCst) == content.failures {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(5)),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let _power = self.disk.power()?;
        self.disk.may_fail_by_name()?;
        self.real.set_len(bytes)?;
        self.content.lock().wrote(Write::Length(bytes as usize));
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.real.size()
    }

    /// Whoever reads copies, so that nothing hangs on the page cache.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
