//! Which names directories hold: as whoever runs sees them, and as a power failure may leave them.
//!
//! A name that was made, renamed or removed is durable when its directory is synced. Until then each change by itself may be on
//! the device or not. What a model of files cannot see (indexes, which are mapped) lies in the real directories and goes
//! where these go.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::random::Random;

/// A directory that all who know it share.
pub type Shared<F> = Arc<Mutex<Dir<F>>>;

/// What a name stands for.
#[derive(Clone)]
pub enum Node<F> {
    File(F),
    Dir(Shared<F>),
}

/// A change of a directory since it was synced.
enum Change<F> {
    Added(String, Node<F>),
    Removed(String),
    Renamed(String, String, Node<F>),
}

pub struct Dir<F> {
    live: BTreeMap<String, Node<F>>,
    /// As of the last sync.
    durable: BTreeMap<String, Node<F>>,
    since: Vec<Change<F>>,
}

impl<F: Clone> Default for Dir<F> {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            since: Vec::new(),
        }
    }
}

impl<F: Clone> Change<F> {
    fn apply(&self, entries: &mut BTreeMap<String, Node<F>>) {
        match self {
            Self::Added(name, node) => {
                entries.insert(name.clone(), node.clone());
            }
            Self::Removed(name) => {
                entries.remove(name);
            }
            Self::Renamed(from, to, node) => {
                entries.remove(from);
                entries.insert(to.clone(), node.clone());
            }
        }
    }
}

impl<F: Clone> Dir<F> {
    fn change(&mut self, change: Change<F>) {
        change.apply(&mut self.live);
        self.since.push(change);
    }

    fn synced(&mut self) {
        for change in self.since.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// All, none, or any of the changes are on the device.
    fn survive(&mut self, random: &mut Random) {
        let mood = match self.since.is_empty() {
            true => 0,
            false => random.below(4),
        };
        for change in self.since.drain(..) {
            let there = match mood {
                0 => false,
                1 => true,
                _ => random.one_in(2),
            };
            if there {
                change.apply(&mut self.durable);
            }
        }
        self.live = self.durable.clone();
    }
}

/// The names below a directory, which is durable itself.
pub struct Names<F> {
    path: PathBuf,
    root: Shared<F>,
}

impl<F: Clone> Names<F> {
    pub fn below(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            root: Arc::default(),
        }
    }

    fn dir(&self, path: &Path) -> Option<Shared<F>> {
        let below = path.strip_prefix(&self.path).ok()?;
        let mut at = self.root.clone();
        for part in below {
            let next = match at.lock().live.get(part.to_str()?)? {
                Node::Dir(dir) => dir.clone(),
                Node::File(_) => return None,
            };
            at = next;
        }
        Some(at)
    }

    /// The directory of a name that is known, and the name.
    fn split(&self, path: &Path) -> Option<(Shared<F>, String)> {
        let name = path.file_name()?.to_str()?.to_owned();
        Some((self.dir(path.parent()?)?, name))
    }

    pub fn file(&self, path: &Path) -> Option<F> {
        let (dir, name) = self.split(path)?;
        match dir.lock().live.get(&name)? {
            Node::File(file) => Some(file.clone()),
            Node::Dir(_) => None,
        }
    }

    pub fn add_file(&self, path: &Path, file: F) {
        if let Some((dir, name)) = self.split(path) {
            dir.lock().change(Change::Added(name, Node::File(file)));
        }
    }

    pub fn add_dir(&self, path: &Path) {
        if let Some((dir, name)) = self.split(path) {
            let made = Node::Dir(Arc::default());
            dir.lock().change(Change::Added(name, made));
        }
    }

    pub fn remove(&self, path: &Path) {
        if let Some((dir, name)) = self.split(path) {
            let mut dir = dir.lock();
            if dir.live.contains_key(&name) {
                dir.change(Change::Removed(name));
            }
        }
    }

    /// Within one directory.
    pub fn rename(&self, from: &Path, to: &Path) {
        assert_eq!(from.parent(), to.parent(), "no broker renames further");
        if let (Some((dir, from)), Some((_, to))) = (self.split(from), self.split(to)) {
            let mut dir = dir.lock();
            if let Some(node) = dir.live.get(&from).cloned() {
                dir.change(Change::Renamed(from, to, node));
            }
        }
    }

    /// From now on it is not seen here.
    pub fn forget(&self, path: &Path) {
        if let Some((dir, name)) = self.split(path) {
            let mut dir = dir.lock();
            dir.live.remove(&name);
            dir.durable.remove(&name);
            dir.since.retain(|change| match change {
                Change::Added(other, _) | Change::Removed(other) => *other != name,
                Change::Renamed(from, to, _) => *from != name && *to != name,
            });
        }
    }

    pub fn sync(&self, path: &Path) {
        if let Some(dir) = self.dir(path) {
            dir.lock().synced();
        }
    }

    /// The power goes: leaves in the real directories what may be left. `content` says what of a file is.
    pub fn lose(&self, random: &mut Random, mut content: impl FnMut(&F, &mut Random) -> Vec<u8>) {
        let staging = self.path.join("staging");
        fs::create_dir(&staging).unwrap();
        let mut staged = HashMap::new();
        stage(&self.root, &self.path, &staging, &mut staged);
        put(&self.root, &self.path, &mut staged, random, &mut content);
        fs::remove_dir_all(&staging).unwrap();
    }
}

/// Takes the real directories out of the way, the innermost first, and the files that are known away.
fn stage<F: Clone>(
    dir: &Shared<F>,
    path: &Path,
    staging: &Path,
    staged: &mut HashMap<*const Mutex<Dir<F>>, PathBuf>,
) {
    for (name, node) in &dir.lock().live {
        let at = path.join(name);
        match node {
            Node::File(_) => drop(fs::remove_file(&at)),
            Node::Dir(inner) => {
                stage(inner, &at, staging, staged);
                let aside = staging.join(staged.len().to_string());
                fs::rename(&at, &aside).unwrap();
                staged.insert(Arc::as_ptr(inner), aside);
            }
        }
    }
}

fn put<F: Clone>(
    dir: &Shared<F>,
    path: &Path,
    staged: &mut HashMap<*const Mutex<Dir<F>>, PathBuf>,
    random: &mut Random,
    content: &mut impl FnMut(&F, &mut Random) -> Vec<u8>,
) {
    let entries = {
        let mut dir = dir.lock();
        dir.survive(random);
        dir.live.clone()
    };
    for (name, node) in entries {
        let at = path.join(name);
        match node {
            Node::File(file) => fs::write(&at, content(&file, random)).unwrap(),
            Node::Dir(inner) => {
                match staged.remove(&Arc::as_ptr(&inner)) {
                    Some(aside) => fs::rename(aside, &at).unwrap(),
                    None => fs::create_dir(&at).unwrap(),
                }
                put(&inner, &at, staged, random, content);
            }
        }
    }
}
