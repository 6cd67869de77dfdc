//! The users that may authenticate: those in the coordination tree, with what SCRAM keeps of their passwords, and the few that the
//! configuration names, which are there without it.
//!
//! Tests: tests/authentication.rs, tests/dashboard_security.rs.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::Mutex;

use crate::bearer_source::URL_KEY;
use crate::cluster::{Cluster, Entity};
use crate::config::{Config, LOCAL_USERS};
use crate::security::{Credential, ScramMechanism, TokenLogin, Users, random_secret};
use crate::tokens::LiveTokens;

/// Passwords that were right are remembered so many at a time, as keyed hashes: each PLAIN would take milliseconds else.
const REMEMBERED_MAX: usize = 10_000;

/// A user of the configuration that has no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is set and {1} is not")]
pub struct UserError(&'static str, &'static str);

struct Local {
    name: String,
    /// The key of its password.
    password_key: &'static str,
    credentials: Vec<(ScramMechanism, Credential)>,
}

/// See the module's documentation.
pub struct LiveUsers {
    cluster: Arc<Cluster>,
    tokens: Arc<LiveTokens>,
    local: Vec<Local>,
    /// The same on all brokers.
    secret: Vec<u8>,
    /// Of this process.
    seal: hmac::Key,
    /// By stored key: what a right password was, hashed with the secret.
    remembered: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

/// A user of the configuration: its name, the key of its password, and that, where it has one.
type LocalUser = (String, &'static str, Option<String>);

/// The users that the configuration names, who may do everything.
fn local_users(config: &Config) -> Result<Vec<LocalUser>, UserError> {
    let named = LOCAL_USERS.into_iter().filter_map(|(user, password)| {
        let name = config.text(user);
        let missing = UserError(user, password);
        let found = config.password(password);
        // Brokers may have tokens instead; nobody is their user by a password then.
        let may_lack = user == "inter.broker.user" && !config.text(URL_KEY).is_empty();
        let checked = match found.is_some() || may_lack {
            true => Ok((name.to_owned(), password, found)),
            false => Err(missing),
        };
        (!name.is_empty()).then_some(checked)
    });
    named.collect()
}

/// Whether the users of a configuration can be had.
pub fn check_local_users(config: &Config) -> Result<(), UserError> {
    local_users(config).map(drop)
}

impl LiveUsers {
    /// Those of a cluster and of the configuration; `secret` makes salts for users who are not known.
    pub fn new(
        cluster: Arc<Cluster>,
        tokens: Arc<LiveTokens>,
        config: &Config,
        secret: Vec<u8>,
    ) -> Result<Self, UserError> {
        let found = local_users(config)?.into_iter();
        let local = found.map(|(name, password_key, password)| {
            // With a salt like those of users who are not known: who they are is not to be found out.
            let credential = |password: &String, mechanism| {
                let credential = Credential::of_local(mechanism, &secret, &name, password);
                (mechanism, credential)
            };
            let all =
                |password| ScramMechanism::ALL.map(|mechanism| credential(&password, mechanism));
            Local {
                credentials: password.map(all).into_iter().flatten().collect(),
                password_key,
                name,
            }
        });
        Ok(Self {
            cluster,
            tokens,
            local: local.collect(),
            secret,
            seal: hmac::Key::new(hmac::HMAC_SHA256, &random_secret()),
            remembered: Mutex::default(),
        })
    }

    /// Whether there is such a user.
    pub fn knows(&self, user: &str) -> bool {
        let mut mechanisms = ScramMechanism::ALL.into_iter();
        mechanisms.any(|mechanism| self.credential(user, mechanism).is_some())
    }

    /// Why a user whom the configuration names gets no password of the tree: what that has of it is not looked at.
    pub fn why_fixed(&self, user: &str) -> Option<String> {
        let local = self.local.iter().find(|local| local.name == user)?;
        Some(match local.credentials.is_empty() {
            true => format!(
                "this user is in the configuration and has no password: brokers show tokens ({URL_KEY})"
            ),
            false => format!(
                "this user is in the configuration: set {} and restart",
                local.password_key
            ),
        })
    }

    /// Stands for what is kept of a user's password as long as this process runs: something else once it is another one,
    /// nothing where there is no such user.
    pub fn mark_of(&self, user: &str) -> Option<Vec<u8>> {
        let mechanisms = ScramMechanism::ALL.into_iter();
        let kept = mechanisms.filter_map(|mechanism| self.credential(user, mechanism));
        let keys: Vec<String> = kept.map(|credential| credential.to_text()).collect();
        (!keys.is_empty()).then(|| self.seal(&keys.join("\n")))
    }

    /// The delegation tokens that stand for their owners.
    pub fn tokens(&self) -> &LiveTokens {
        &self.tokens
    }

    /// Another number after users or delegation tokens of the tree changed.
    pub fn revision(&self) -> u64 {
        // Both only grow.
        let image = self.cluster.image();
        image.configs.revision() + image.tokens.version()
    }

    fn seal(&self, password: &str) -> Vec<u8> {
        hmac::sign(&self.seal, password.as_bytes())
            .as_ref()
            .to_vec()
    }
}

impl Users for LiveUsers {
    fn credential(&self, user: &str, mechanism: ScramMechanism) -> Option<Credential> {
        if let Some(local) = self.local.iter().find(|local| local.name == user) {
            let mut credentials = local.credentials.iter();
            let found = credentials.find(|(known, _)| *known == mechanism);
            return found.map(|(_, credential)| credential.clone());
        }
        let image = self.cluster.image();
        let kept = image.configs.of_entity(&Entity::user(user))?;
        Credential::from_text(kept.get(mechanism.name())?)
    }

    fn token(&self, id: &str, mechanism: ScramMechanism) -> Option<TokenLogin> {
        let (owner, credential) = self.tokens.login(id, mechanism)?;
        Some(TokenLogin { owner, credential })
    }

    fn secret(&self) -> &[u8] {
        &self.secret
    }

    fn is_of_password(
        &self,
        mechanism: ScramMechanism,
        credential: &Credential,
        password: &str,
    ) -> bool {
        let sealed = self.seal(password);
        let known = self.remembered.lock().get(&credential.stored_key).cloned();
        if known
            .is_some_and(|known| bool::from(subtle::ConstantTimeEq::ct_eq(&known[..], &sealed[..])))
        {
            return true;
        }
        let is_right = credential.is_of_password(mechanism, password);
        if is_right {
            let mut remembered = self.remembered.lock();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(credential.stored_key.clone(), sealed);
        }
        is_right
    }
}
