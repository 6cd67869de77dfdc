//! Delegation tokens that are in force (KIP-48): the tree has whose they are and until when, and what logs in with one is made here
//! of its id and `delegation.token.secret.key`, which all brokers have (Kafka's DelegationTokenManager).
//!
//! - The HMAC of a token is HMAC-SHA512 of its id. In base64 it is the password that its bearer proves by SCRAM to have, with
//!   4096 iterations.
//! - What SCRAM needs is made when somebody logs in with a token for the first time, and kept: it takes milliseconds.
//! - A token that has expired lets nobody in, whether it is removed already or not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::clock::WallClock;
use crate::cluster::{Cluster, Token, Tokens};
use crate::config::Config;
use crate::log::uuid_to_base64;
use crate::principal::Principal;
use crate::security::{Credential, ITERATIONS_MIN, ScramMechanism};

/// How long tokens are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lifetimes {
    /// Beyond it none is renewed, ms.
    max_ms: i64,
    /// Without being renewed, ms.
    expiry_ms: i64,
}

impl Lifetimes {
    /// Until when a token is good that is made now, and until when it can be renewed; `asked_ms` is the most that its maker
    /// wants, 0 or less for whatever there is.
    fn of_new(self, now_ms: i64, asked_ms: i64) -> (i64, i64) {
        let max_ms = now_ms.saturating_add(at_most(self.max_ms, asked_ms));
        (max_ms.min(now_ms.saturating_add(self.expiry_ms)), max_ms)
    }

    /// Until when a token is good that is renewed now.
    fn of_renewed(self, now_ms: i64, asked_ms: i64, token_max_ms: i64) -> i64 {
        let until_ms = now_ms.saturating_add(at_most(self.expiry_ms, asked_ms));
        until_ms.min(token_max_ms)
    }
}

fn at_most(own_ms: i64, asked_ms: i64) -> i64 {
    match asked_ms {
        ..=0 => own_ms,
        asked_ms => asked_ms.min(own_ms),
    }
}

/// What was made of tokens.
#[derive(Default)]
struct Made {
    /// Of which tokens.
    version: u64,
    known: HashSet<String>,
    ids_by_hmac: HashMap<Vec<u8>, String>,
    credentials: HashMap<(String, ScramMechanism), Credential>,
}

impl Made {
    /// Follows the tokens that there are.
    fn follow(&mut self, tokens: &Tokens, key: &hmac::Key) {
        if self.version == tokens.version() {
            return;
        }
        self.version = tokens.version();
        let is_there = |id: &String| tokens.get(id).is_some();
        self.known.retain(is_there);
        self.ids_by_hmac.retain(|_, id| is_there(id));
        self.credentials.retain(|(id, _), _| is_there(id));
        for token in tokens.all() {
            if self.known.insert(token.id.clone()) {
                let hmac = hmac::sign(key, token.id.as_bytes());
                self.ids_by_hmac
                    .insert(hmac.as_ref().to_vec(), token.id.clone());
            }
        }
    }
}

/// See the module's documentation.
pub struct LiveTokens {
    cluster: Arc<Cluster>,
    clock: WallClock,
    /// None where there is no secret.
    key: Option<hmac::Key>,
    lifetimes: Lifetimes,
    made: Mutex<Made>,
}

impl LiveTokens {
    /// Those of a cluster.
    pub fn new(cluster: Arc<Cluster>, config: &Config, clock: WallClock) -> Self {
        let secret = config.password("delegation.token.secret.key");
        Self {
            cluster,
            clock,
            key: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA512, secret.as_bytes())),
            lifetimes: Lifetimes {
                max_ms: config.number("delegation.token.max.lifetime.ms"),
                expiry_ms: config.number("delegation.token.expiry.time.ms"),
            },
            made: Mutex::default(),
        }
    }

    /// Whether there is a secret to make tokens with.
    pub fn is_enabled(&self) -> bool {
        self.key.is_some()
    }

    /// Milliseconds since 1970, as tokens are held to.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn with_made<T>(&self, look: impl FnOnce(&mut Made, &Tokens) -> T) -> Option<T> {
        let key = self.key.as_ref()?;
        let tokens = self.cluster.image().tokens.clone();
        let mut made = self.made.lock();
        made.follow(&tokens, key);
        Some(look(&mut made, &tokens))
    }

    /// What the bearer of a token knows; of one that is not in the tree yet too.
    pub fn hmac(&self, id: &str) -> Option<Vec<u8>> {
        let key = self.key.as_ref()?;
        Some(hmac::sign(key, id.as_bytes()).as_ref().to_vec())
    }

    /// The token of an HMAC, expired or not.
    pub fn of_hmac(&self, hmac: &[u8]) -> Option<Arc<Token>> {
        self.with_made(|made, tokens| tokens.get(made.ids_by_hmac.get(hmac)?).cloned())?
    }

    /// A token that somebody may log in with: not expired, and of a user, because who logs in is one.
    fn good(&self, id: &str) -> Option<Arc<Token>> {
        let image = self.cluster.image();
        let token = image.tokens.get(id)?;
        let is_good = self.is_enabled()
            && !token.is_expired(self.now_ms())
            && token.owner.kind() == Principal::USER;
        is_good.then(|| token.clone())
    }

    /// For how long a token is good yet; `None` for one that lets nobody in.
    pub fn left(&self, id: &str) -> Option<Duration> {
        let token = self.good(id)?;
        let left_ms = token.expires_ms.saturating_sub(self.now_ms()).max(0);
        Some(Duration::from_millis(left_ms.unsigned_abs()))
    }

    /// The owner of a token that somebody may log in with, where this is what its bearer knows: its HMAC in base64. It takes as
    /// long for another text.
    pub fn owner_of(&self, id: &str, password: &str) -> Option<String> {
        let token = self.good(id)?;
        let own = BASE64.encode(&self.hmac(id)?);
        let is_own = bool::from(own.as_bytes().ct_eq(password.as_bytes()));
        is_own.then(|| token.owner.name().to_owned())
    }

    /// The owner of a token that somebody may log in with, and what SCRAM needs to know of it. The first time takes longer than
    /// for what is no token: ids cannot be guessed, and are no secret to who has them.
    pub fn login(&self, id: &str, mechanism: ScramMechanism) -> Option<(String, Credential)> {
        let token = self.good(id)?;
        let owner = token.owner.name().to_owned();
        let of_mechanism = (id.to_owned(), mechanism);
        let known = self.with_made(|made, _| made.credentials.get(&of_mechanism).cloned())?;
        if let Some(credential) = known {
            return Some((owner, credential));
        }
        let password = BASE64.encode(&self.hmac(id)?);
        let credential = Credential::of_password(mechanism, &password, ITERATIONS_MIN);
        self.with_made(|made, tokens| {
            // Removed meanwhile.
            if tokens.get(id).is_some() {
                made.credentials.insert(of_mechanism, credential.clone());
            }
        });
        Some((owner, credential))
    }

    /// A new token, not in the tree yet; `asked_ms` is the longest lifetime that its maker wants, 0 or less for whatever there
    /// is.
    pub fn new_token(
        &self,
        (owner, requester): (Principal, Principal),
        renewers: Vec<Principal>,
        asked_ms: i64,
    ) -> Token {
        let issued_ms = self.now_ms();
        let (expires_ms, max_ms) = self.lifetimes.of_new(issued_ms, asked_ms);
        Token {
            id: new_id(),
            owner,
            requester,
            renewers,
            issued_ms,
            expires_ms,
            max_ms,
        }
    }

    /// Until when a token is good that is renewed now, ms since 1970; `asked_ms` as in [`Self::new_token`].
    pub fn renewed_ms(&self, token: &Token, asked_ms: i64) -> i64 {
        let now_ms = self.now_ms();
        self.lifetimes.of_renewed(now_ms, asked_ms, token.max_ms)
    }
}

/// As Kafka's Uuid.randomUuid: 22 letters of which the first is no hyphen, which tools would take for an option.
fn new_id() -> String {
    loop {
        let id = uuid_to_base64(Uuid::new_v4());
        if !id.starts_with('-') {
            return id;
        }
    }
}

/// Removes tokens that have expired, as the controller, until the task is aborted.
pub async fn remove_expired(tokens: Arc<LiveTokens>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let controller = tokens.cluster.controller();
        if !controller.is_controller() {
            continue;
        }
        if let Err(error) = controller.remove_expired_tokens(tokens.now_ms()).await {
            tracing::warn!(%error, "cannot remove delegation tokens that have expired");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        max_ms: 700,
        expiry_ms: 100,
    };

    #[test]
    fn a_token_is_good_for_no_longer_than_is_asked_nor_than_it_may() {
        let new = |asked_ms| LIFETIMES.of_new(1000, asked_ms);
        for whatever in [i64::MIN, -1, 0, 700, 701, i64::MAX] {
            assert_eq!(new(whatever), (1100, 1700), "{whatever}");
        }
        assert_eq!(new(1), (1001, 1001));
        assert_eq!(new(99), (1099, 1099));
        assert_eq!(new(300), (1100, 1300));
        let renewed = |asked_ms| LIFETIMES.of_renewed(1250, asked_ms, 1300);
        for whatever in [i64::MIN, -1, 0, 50, 100, i64::MAX] {
            assert_eq!(renewed(whatever), 1300, "{whatever}");
        }
        assert_eq!(renewed(20), 1270);
    }

    #[test]
    fn the_longest_lifetimes_end_at_the_end_of_time() {
        let forever = Lifetimes {
            max_ms: i64::MAX,
            expiry_ms: i64::MAX,
        };
        assert_eq!(forever.of_new(1000, -1), (i64::MAX, i64::MAX));
        assert_eq!(forever.of_new(1000, 5), (1005, 1005));
        assert_eq!(forever.of_renewed(1000, -1, i64::MAX), i64::MAX);
    }

    #[test]
    fn ids_are_kafkas() {
        for _ in 0..1000 {
            let id = new_id();
            assert!(id.len() == 22 && !id.starts_with('-'), "{id}");
        }
    }
}
