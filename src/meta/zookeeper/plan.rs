//! Turns the store's operations into ZooKeeper's, which knows no "create or set" and no "delete all below".
//!
//! What exists is remembered, or looked up; a guess that proves wrong is made anew by the caller.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use zookeeper_client::{Client, Error};

use super::READS_AT_ONCE;
use crate::meta::Op;

/// Paths that are remembered at most; above, everything is forgotten, which costs look-ups only.
const KNOWN_MAX: usize = 2_000_000;

/// Paths of nodes that stay and are known to exist, as hashes.
#[derive(Default)]
pub(super) struct Known {
    hasher: RandomState,
    paths: Mutex<HashSet<u64>>,
}

impl Known {
    fn hash(&self, path: &str) -> u64 {
        self.hasher.hash_one(path)
    }

    fn contains(&self, path: &str) -> bool {
        self.paths.lock().contains(&self.hash(path))
    }

    pub(super) fn learn(&self, path: &str) {
        let mut paths = self.paths.lock();
        if paths.len() >= KNOWN_MAX {
            paths.clear();
        }
        paths.insert(self.hash(path));
    }

    pub(super) fn forget_all(&self) {
        self.paths.lock().clear();
    }

    fn forget(&self, path: &str) {
        let hash = self.hash(path);
        self.paths.lock().remove(&hash);
    }
}

/// One of ZooKeeper's operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Native {
    Check(String, Option<i32>),
    Create(String, Bytes, bool),
    Set(String, Bytes, Option<i32>),
    Delete(String, Option<i32>),
}

impl Native {
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Check(path, _)
            | Self::Create(path, ..)
            | Self::Set(path, ..)
            | Self::Delete(path, _) => path,
        }
    }

    /// Its size on the wire, about.
    pub(super) fn bytes(&self) -> usize {
        let data = match self {
            Self::Create(_, data, _) | Self::Set(_, data, _) => data.len(),
            Self::Check(..) | Self::Delete(..) => 0,
        };
        // Headers, the root's name and the access list.
        self.path().len() + data + 100
    }
}

/// An operation with the requests that it came from.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) native: Native,
    /// Indices of requests.
    pub(super) owners: Vec<usize>,
    /// Chosen by what seemed to exist; otherwise just what was asked.
    pub(super) guessed: bool,
}

/// What a path shall become.
#[derive(Default)]
struct Wish {
    /// Content, and whether it is ephemeral; `None` for nothing.
    node: Option<(Bytes, bool)>,
    owners: Vec<usize>,
}

impl Wish {
    fn wish_away(&mut self, request: usize) {
        self.node = None;
        self.owners.push(request);
    }
}

/// What a path is: `None` for nothing, else the session that an ephemeral belongs to, 0 for a node that stays.
type NodeOwners = HashMap<String, Option<i64>>;

/// The steps for some requests: checks, then what is to go, then what is to be there, then what was asked to the
/// letter.
pub(super) async fn plan(
    client: &Client,
    known: &Known,
    requests: &[&[Op]],
) -> Result<Vec<Step>, Error> {
    let mut checks: BTreeMap<(&str, Option<i32>), Vec<usize>> = BTreeMap::new();
    let mut wishes: BTreeMap<String, Wish> = BTreeMap::new();
    let mut exact = Vec::new();
    let mut owners_found = NodeOwners::new();
    let trees = look_below(client, requests).await?;
    for (n, ops) in requests.iter().enumerate() {
        for op in *ops {
            match op {
                Op::Check { path, version } => checks.entry((path, *version)).or_default().push(n),
                Op::Put {
                    path,
                    data,
                    ephemeral,
                } => {
                    let wish = wishes.entry(path.clone()).or_default();
                    wish.node = Some((data.clone(), *ephemeral));
                    wish.owners.push(n);
                }
                Op::DeleteTree { path } => {
                    let there = trees.get(path.as_str()).map_or(&[][..], Vec::as_slice);
                    wish_nothing_below(path, n, there, &mut wishes, &mut owners_found);
                }
                Op::Create {
                    path,
                    data,
                    ephemeral,
                } => exact.push((Native::Create(path.clone(), data.clone(), *ephemeral), n)),
                Op::Set {
                    path,
                    data,
                    version,
                } => exact.push((Native::Set(path.clone(), data.clone(), *version), n)),
                Op::Delete { path, version } => {
                    exact.push((Native::Delete(path.clone(), *version), n))
                }
            }
        }
    }
    look_up(client, known, &wishes, &mut owners_found).await?;
    let mut steps: Vec<Step> = checks
        .into_iter()
        .map(|((path, version), owners)| Step {
            native: Native::Check(path.to_owned(), version),
            owners,
            guessed: false,
        })
        .collect();
    fulfil(
        client.session_id().0,
        known,
        &wishes,
        &owners_found,
        &mut steps,
    );
    let exact = exact.into_iter().map(|(native, n)| Step {
        native,
        owners: vec![n],
        guessed: false,
    });
    steps.extend(exact);
    Ok(steps)
}

/// What is there of the trees that are to go, by their roots: paths with their owners. All are looked at together.
async fn look_below(
    client: &Client,
    requests: &[&[Op]],
) -> Result<HashMap<String, Vec<(String, Option<i64>)>>, Error> {
    let roots: BTreeSet<&str> = requests
        .iter()
        .flat_map(|ops| ops.iter())
        .filter_map(|op| match op {
            Op::DeleteTree { path } => Some(path.as_str()),
            _ => None,
        })
        .collect();
    let mut trees: HashMap<String, Vec<(String, Option<i64>)>> = HashMap::new();
    let mut level: Vec<(String, String)> = roots
        .into_iter()
        .map(|root| (root.to_owned(), root.to_owned()))
        .collect();
    while !level.is_empty() {
        let look = |(root, path): (String, String)| async move {
            let stat = client.check_stat(&path).await?;
            let children = match &stat {
                Some(stat) if stat.num_children > 0 => match client.list_children(&path).await {
                    Err(Error::NoNode) => Vec::new(),
                    listed => listed?,
                },
                _ => Vec::new(),
            };
            let owner = stat.map(|stat| stat.ephemeral_owner);
            Ok::<_, Error>((root, path, owner, children))
        };
        let looked: Vec<_> = stream::iter(level.drain(..))
            .map(look)
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        for (root, path, owner, children) in looked {
            let below = children.into_iter();
            level.extend(below.map(|child| (root.clone(), format!("{path}/{child}"))));
            trees.entry(root).or_default().push((path, owner));
        }
    }
    Ok(trees)
}

/// Wishes a node away with everything below it.
fn wish_nothing_below(
    path: &str,
    request: usize,
    there: &[(String, Option<i64>)],
    wishes: &mut BTreeMap<String, Wish>,
    owners_found: &mut NodeOwners,
) {
    let below = format!("{path}/");
    // What was wished below it stands in one range; of what begins like the path but is beside it nothing is.
    let own = wishes.range_mut(path.to_owned()..=path.to_owned());
    own.for_each(|(_, wish)| wish.wish_away(request));
    let all = wishes.range_mut(below.clone()..);
    all.take_while(|(wished, _)| wished.starts_with(&below))
        .for_each(|(_, wish)| wish.wish_away(request));
    for (path, owner) in there {
        if owner.is_some() {
            let wish = wishes.entry(path.clone()).or_default();
            wish.owners.push(request);
        }
        owners_found.insert(path.clone(), *owner);
    }
}

/// Learns which of the wished paths exist, and which of their parents.
async fn look_up(
    client: &Client,
    known: &Known,
    wishes: &BTreeMap<String, Wish>,
    owners_found: &mut NodeOwners,
) -> Result<(), Error> {
    let mut unknown: BTreeSet<&str> = BTreeSet::new();
    for (path, wish) in wishes {
        let Some((_, ephemeral)) = &wish.node else {
            continue;
        };
        if !owners_found.contains_key(path) && (*ephemeral || !known.contains(path)) {
            unknown.insert(path);
            for parent in parents_of(path) {
                if known.contains(parent)
                    || owners_found.contains_key(parent)
                    || !unknown.insert(parent)
                {
                    break;
                }
            }
        }
    }
    let unknown: Vec<String> = unknown.into_iter().map(str::to_owned).collect();
    let looked: Vec<(String, Option<i64>)> = stream::iter(unknown)
        .map(|path| async move {
            let stat = client.check_stat(&path).await?;
            Ok::<_, Error>((path, stat.map(|stat| stat.ephemeral_owner)))
        })
        .buffer_unordered(READS_AT_ONCE)
        .try_collect()
        .await?;
    owners_found.extend(looked);
    Ok(())
}

/// Steps that make every wish come true.
fn fulfil(
    session: i64,
    known: &Known,
    wishes: &BTreeMap<String, Wish>,
    owners_found: &NodeOwners,
    steps: &mut Vec<Step>,
) {
    let guess = |native, wish: &Wish| Step {
        native,
        owners: wish.owners.clone(),
        guessed: true,
    };
    let owner_of = |path: &str| match owners_found.get(path) {
        Some(owner) => *owner,
        None => known.contains(path).then_some(0),
    };
    // What is to be there keeps the nodes above it, also those that were to go.
    let needed: HashSet<&str> = wishes
        .iter()
        .filter(|(_, wish)| wish.node.is_some())
        .flat_map(|(path, _)| parents_of(path))
        .collect();
    let stays = |path: &str| needed.contains(path) && owner_of(path) == Some(0);
    // Children stand after their parents, so backwards they go first.
    for (path, wish) in wishes.iter().rev() {
        let replaced = match (&wish.node, owner_of(path)) {
            (_, None) => false,
            (None, Some(_)) => !stays(path),
            (Some((_, true)), Some(owner)) => owner != session,
            (Some((_, false)), Some(owner)) => owner != 0,
        };
        if replaced {
            known.forget(path);
            steps.push(guess(Native::Delete(path.clone(), None), wish));
        }
    }
    let mut made: HashSet<&str> = HashSet::new();
    for (path, wish) in wishes {
        let Some((data, ephemeral)) = &wish.node else {
            continue;
        };
        let right_owner = if *ephemeral { session } else { 0 };
        if owner_of(path) == Some(right_owner) {
            steps.push(guess(Native::Set(path.clone(), data.clone(), None), wish));
            continue;
        }
        let parents: Vec<&str> = parents_of(path).collect();
        for parent in parents.into_iter().rev() {
            let gone = wishes
                .get(parent)
                .is_some_and(|wish| wish.node.is_none() && !stays(parent));
            if (owner_of(parent).is_none() || gone) && made.insert(parent) {
                let native = Native::Create(parent.to_owned(), Bytes::new(), false);
                steps.push(guess(native, wish));
            }
        }
        made.insert(path);
        steps.push(guess(
            Native::Create(path.clone(), data.clone(), *ephemeral),
            wish,
        ));
    }
}

/// The nodes above a path, the nearest first, without the root.
fn parents_of(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = &rest[..rest.rfind('/')?];
        (!rest.is_empty()).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_named_from_the_nearest_up() {
        assert_eq!(parents_of("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a"]);
        assert_eq!(parents_of("/a").count(), 0);
    }

    #[test]
    fn wishes_become_deletes_from_below_and_creates_from_above() {
        let wish = |node: Option<&'static [u8]>| Wish {
            node: node.map(|data| (Bytes::from_static(data), false)),
            owners: vec![0],
        };
        let wishes = BTreeMap::from([
            ("/g".to_owned(), wish(Some(b"new"))),
            ("/g/ids".to_owned(), wish(None)),
            ("/g/ids/a".to_owned(), wish(None)),
            ("/g/kept".to_owned(), wish(None)),
            ("/g/kept/a".to_owned(), wish(None)),
            ("/g/kept/b".to_owned(), wish(Some(b"m"))),
            ("/g/owners/t/0-0".to_owned(), wish(Some(b"m"))),
        ]);
        let owners_found = NodeOwners::from([
            ("/g".to_owned(), Some(0)),
            ("/g/ids".to_owned(), Some(0)),
            ("/g/ids/a".to_owned(), Some(77)),
            ("/g/kept".to_owned(), Some(0)),
            ("/g/kept/a".to_owned(), Some(0)),
            ("/g/kept/b".to_owned(), Some(0)),
            ("/g/owners".to_owned(), None),
            ("/g/owners/t".to_owned(), None),
            ("/g/owners/t/0-0".to_owned(), None),
        ]);
        let mut steps = Vec::new();
        fulfil(5, &Known::default(), &wishes, &owners_found, &mut steps);
        let did: Vec<String> = steps
            .iter()
            .map(|step| match &step.native {
                Native::Create(path, ..) => format!("create {path}"),
                Native::Set(path, ..) => format!("set {path}"),
                Native::Delete(path, _) => format!("delete {path}"),
                Native::Check(path, _) => format!("check {path}"),
            })
            .collect();
        assert_eq!(
            did,
            [
                "delete /g/kept/a",
                "delete /g/ids/a",
                "delete /g/ids",
                "set /g",
                "set /g/kept/b",
                "create /g/owners",
                "create /g/owners/t",
                "create /g/owners/t/0-0"
            ]
        );
    }
}
