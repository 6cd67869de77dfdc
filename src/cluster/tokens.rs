//! Delegation tokens as the tree has them (Kafka's TokenInformation): whose they are and until when. What logs in with one is
//! made of its id and a key that is not in the tree: see [`crate::tokens`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::principal::Principal;

/// A delegation token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name; clients give it as their user.
    pub id: String,
    /// Who logs in with it.
    pub owner: Principal,
    /// Who asked for it.
    pub requester: Principal,
    /// Who may renew it beside the owner.
    pub renewers: Vec<Principal>,
    /// When it was made, ms since 1970.
    pub issued_ms: i64,
    /// Until when it is good, ms since 1970.
    pub expires_ms: i64,
    /// Until when it can be renewed, ms since 1970.
    pub max_ms: i64,
}

impl Token {
    /// Whether it is good for nothing any more.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms < now_ms || self.max_ms < now_ms
    }

    /// Whether somebody may renew it and end it.
    pub fn may_be_changed_by(&self, who: &Principal) -> bool {
        self.owner == *who || self.renewers.contains(who)
    }

    /// Bytes of all names in it.
    pub fn names_bytes(&self) -> usize {
        let named = [&self.owner, &self.requester].into_iter();
        let named = named.chain(&self.renewers);
        named.map(|who| who.kind().len() + who.name().len()).sum()
    }

    /// Whether somebody has to do with it: who has may see it.
    pub fn is_of(&self, who: &Principal) -> bool {
        self.requester == *who || self.may_be_changed_by(who)
    }
}

/// Numbers the changes to the tokens of all images of this process.
static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// All tokens of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    version: u64,
    by_id: BTreeMap<Arc<str>, Arc<Token>>,
}

impl Tokens {
    /// Another number after each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The token of an id.
    pub fn get(&self, id: &str) -> Option<&Arc<Token>> {
        self.by_id.get(id)
    }

    /// All, by id.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.by_id.values()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// The same with other tokens in the place of some, or none.
    pub(super) fn with(&self, changed: impl IntoIterator<Item = (String, Option<Token>)>) -> Self {
        let mut by_id = self.by_id.clone();
        for (id, token) in changed {
            match token {
                Some(token) => by_id.insert(id.into(), Arc::new(token)),
                None => by_id.remove(&*id),
            };
        }
        Self {
            version: VERSIONS.fetch_add(1, Ordering::Relaxed),
            by_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_seen_by_who_asked_for_it_and_renewed_by_its_owner_and_renewers_alone() {
        let [owner, requester, renewer, other] = ["a", "b", "c", "d"].map(Principal::user);
        let token = Token {
            id: "x".to_owned(),
            owner: owner.clone(),
            requester: requester.clone(),
            renewers: vec![renewer.clone()],
            issued_ms: 0,
            expires_ms: 10,
            max_ms: 20,
        };
        let rights = |who: &Principal| (token.may_be_changed_by(who), token.is_of(who));
        assert_eq!(rights(&owner), (true, true));
        assert_eq!(rights(&renewer), (true, true));
        assert_eq!(rights(&requester), (false, true));
        assert_eq!(rights(&other), (false, false));
        assert_eq!(rights(&Principal::new("Group", "a")), (false, false));
        assert!(!token.is_expired(10) && token.is_expired(11));
    }
}
