//! What was decided for one connection lately, so that it need not be decided again for each partition of each request. It
//! knows nothing of what decisions are about: whoever asks says by which version of the lists it is.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Decisions of a connection that are remembered; with one more all are forgotten.
const DECISIONS_MAX: usize = 1000;
/// Bytes of a name at most that is remembered: a topic's has fewer.
const NAME_BYTES_MAX: usize = 256;

/// What is done to what kind of resource, by their codes.
type Deed = (i8, i8);

#[derive(Debug, Default)]
struct Known {
    version: u64,
    count: usize,
    by_deed: Vec<(Deed, HashMap<Box<str>, bool>)>,
}

impl Known {
    fn of(&mut self, deed: Deed) -> &mut HashMap<Box<str>, bool> {
        let known = self.by_deed.iter().position(|(known, _)| *known == deed);
        let at = known.unwrap_or_else(|| {
            self.by_deed.push((deed, HashMap::new()));
            self.by_deed.len() - 1
        });
        &mut self.by_deed[at].1
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<Known>);

impl Decisions {
    /// What was decided of a deed to what has this name, by this version; or what is decided now.
    pub fn recall(
        &self,
        version: u64,
        deed: (i8, i8),
        name: &str,
        decide: impl FnOnce() -> bool,
    ) -> bool {
        let mut known = self.0.lock();
        if known.version != version {
            *known = Known::default();
            known.version = version;
        }
        if let Some(decided) = known.of(deed).get(name) {
            return *decided;
        }
        let decided = decide();
        if name.len() <= NAME_BYTES_MAX {
            if known.count == DECISIONS_MAX {
                known.by_deed.clear();
                known.count = 0;
            }
            known.count += 1;
            known.of(deed).insert(name.into(), decided);
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_made_once_for_each_deed_name_and_version() {
        let decisions = Decisions::default();
        let mut made = Vec::new();
        let mut ask = |version, deed, name: &str, yes| {
            let decide = || {
                made.push((version, deed, name.to_owned()));
                yes
            };
            decisions.recall(version, deed, name, decide)
        };
        assert!(ask(1, (3, 2), "t", true) && ask(1, (3, 2), "t", false));
        assert!(!ask(1, (4, 2), "t", false) && !ask(1, (3, 2), "u", false));
        assert!(!ask(2, (3, 2), "t", false) && !ask(2, (3, 2), "t", true));
        assert_eq!(made.len(), 4);
    }

    #[test]
    fn only_so_many_are_remembered_and_no_long_names() {
        let decisions = Decisions::default();
        let is_made = |name: &str| {
            let mut made = false;
            let decide = || {
                made = true;
                true
            };
            decisions.recall(1, (3, 2), name, decide);
            made
        };
        for n in 0..DECISIONS_MAX {
            assert!(is_made(&n.to_string()));
        }
        assert!(!is_made("0") && is_made("one more") && is_made("0"));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(is_made(&long) && is_made(&long));
    }
}
