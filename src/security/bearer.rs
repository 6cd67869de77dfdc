//! Bearer tokens of OAUTHBEARER: signed by one of an identity provider's keys, for this cluster, and not too old (RFC 7519; Kafka's
//! BrokerJwtValidator). Where the keys come from is of the broker.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::crypto::verify;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, decode_header};
use serde_json::{Map, Value};

use super::wanted_keys::WantedKeys;

/// The longest token, bytes.
pub const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Most keys of a provider.
pub const KEYS_MAX: usize = 1000;
/// A token that names no key is tried with so many.
const KEYS_TRIED_MAX: usize = 8;

/// What tokens have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BearerSettings {
    /// One of them is whom tokens are for; empty for anybody.
    pub audiences: Vec<String>,
    /// Who made them; `None` for anybody.
    pub issuer: Option<String>,
    /// How far clocks may differ.
    pub clock_skew: Duration,
    /// The claim that says what a client may do.
    pub scope_claim: String,
    /// The claim that names the user.
    pub user_claim: String,
    /// Scopes that each token must have.
    pub scopes: Vec<String>,
    /// Tokens need no signature.
    pub is_unsecured: bool,
    /// Users that no token can name.
    pub reserved: Vec<String>,
}

/// Whom a token is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The user.
    pub user: String,
    /// Until when.
    pub expires: SystemTime,
}

/// Why a token is not taken; for the log, clients learn less.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts that can be read.
    #[error("not a JWT: {0}")]
    Malformed(String),
    /// No known key has made its signature.
    #[error("{0}")]
    Signature(&'static str),
    /// A claim is missing or wrong.
    #[error("claim {0}: {1}")]
    Claim(String, &'static str),
    /// Too little is allowed by it.
    #[error("its scope lacks {0}")]
    Scope(String),
}

/// A provider's keys that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Not a JWK set.
    #[error("not a JSON Web Key Set: {0}")]
    Json(#[from] serde_json::Error),
    /// More than [`KEYS_MAX`].
    #[error("there are {0} keys in it, and {KEYS_MAX} at most may be")]
    TooMany(usize),
}

/// A JSON Web Key Set; its keys are looked at one by one.
#[derive(serde::Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    key: DecodingKey,
}

/// See the module's documentation.
pub struct BearerTokens {
    settings: BearerSettings,
    keys: Arc<ArcSwap<Vec<Key>>>,
    wanted: Arc<WantedKeys>,
}

impl std::fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BearerTokens({} keys)", self.keys.load().len())
    }
}

/// A key that can verify; keys for encryption and secrets are none.
fn usable(jwk: &Jwk) -> Option<Key> {
    let is_for_signatures = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let is_public = key.family() != AlgorithmFamily::Hmac;
    (is_for_signatures && is_public).then(|| Key {
        id: jwk.common.key_id.clone(),
        algorithm: jwk
            .common
            .key_algorithm
            .map(|algorithm| algorithm.to_string()),
        key,
    })
}

impl Key {
    fn may_have_signed(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let is_named = id.is_none_or(|id| self.id.as_deref() == Some(id));
        let name = format!("{algorithm:?}");
        let fits = self.algorithm.as_ref().is_none_or(|own| *own == name);
        is_named && fits && self.key.family() == algorithm.family()
    }
}

impl BearerTokens {
    /// Without keys as yet.
    pub fn new(settings: BearerSettings) -> Self {
        Self {
            settings,
            keys: Arc::default(),
            wanted: Arc::default(),
        }
    }

    /// The same, with the same keys, but that no token names these users.
    pub fn reserving(&self, users: Vec<String>) -> Self {
        let mut settings = self.settings.clone();
        settings.reserved.extend(users);
        Self {
            settings,
            keys: self.keys.clone(),
            wanted: self.wanted.clone(),
        }
    }

    /// By how much the provider's clock may differ from this one.
    pub fn clock_skew(&self) -> Duration {
        self.settings.clock_skew
    }

    /// Whether signatures are looked at.
    pub fn is_unsecured(&self) -> bool {
        self.settings.is_unsecured
    }

    /// Takes a provider's keys instead of those that were there; how many of them can be used. Where that is none, no token is
    /// taken: a provider that has taken all its keys back means it.
    pub fn set_keys(&self, text: &str) -> Result<usize, KeysError> {
        let read: KeySet = serde_json::from_str(text)?;
        if read.keys.len() > KEYS_MAX {
            return Err(KeysError::TooMany(read.keys.len()));
        }
        // One that is not understood says nothing of the others.
        let known = read.keys.into_iter();
        let known = known.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: Vec<Key> = known.filter_map(|key| usable(&key)).collect();
        self.wanted
            .found(keys.iter().filter_map(|key| key.id.as_deref()));
        let count = keys.len();
        self.keys.store(Arc::new(keys));
        Ok(count)
    }

    /// Comes when a token named a key that is not there.
    pub async fn key_is_wanted(&self) {
        self.wanted.wait().await;
    }

    /// Whom a token is about.
    pub fn verify(&self, token: &str) -> Result<Bearer, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed("it is too long".to_owned()));
        }
        let claims = match self.settings.is_unsecured {
            true => unsigned(token)?,
            false => self.signed(token)?,
        };
        self.check(&claims, SystemTime::now())
    }

    /// The claims of a token that one of the keys has signed.
    fn signed(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        let malformed = |why: &str| TokenError::Malformed(why.to_owned());
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or_else(|| malformed("it has no signature"))?;
        let (_, claims) = signed
            .split_once('.')
            .ok_or_else(|| malformed("it has no claims"))?;
        let header =
            decode_header(token).map_err(|error| TokenError::Malformed(error.to_string()))?;
        // RFC 7515, 4.1.11: what it calls critical must be understood, and there is nothing of that kind that is.
        if header.crit.is_some() {
            return Err(malformed("its header has critical parts"));
        }
        let keys = self.keys.load();
        let id = header.kid.as_deref();
        let mut candidates = keys
            .iter()
            .filter(|key| key.may_have_signed(id, header.alg))
            .take(KEYS_TRIED_MAX)
            .peekable();
        if candidates.peek().is_none() {
            if let Some(id) = id {
                self.wanted.note(id);
            }
            return Err(TokenError::Signature(
                "no key of the provider has the token's key id and algorithm",
            ));
        }
        let is_right = |key: &Key| verify(signature, signed.as_bytes(), &key.key, header.alg);
        match candidates.any(|key| is_right(key).unwrap_or(false)) {
            true => claims_of(claims),
            false => Err(TokenError::Signature("its signature is wrong")),
        }
    }

    fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<Bearer, TokenError> {
        let settings = &self.settings;
        let wrong = |claim: &str, why| TokenError::Claim(claim.to_owned(), why);
        let time = |claim: &str| time_of(claims, claim).map_err(|why| wrong(claim, why));
        let expires = time("exp")?.ok_or_else(|| wrong("exp", "it is missing"))?;
        let issued = time("iat")?;
        let not_before = time("nbf")?;
        let skew = settings.clock_skew;
        let is_unissued = issued.is_none() && !settings.is_unsecured;
        // An unsecured token from the future is none; of a signed one the provider is trusted with that.
        let is_of_future =
            settings.is_unsecured && issued.is_some_and(|issued| issued > now + skew);
        match () {
            () if expires + skew <= now => return Err(wrong("exp", "the token has expired")),
            () if is_unissued => return Err(wrong("iat", "it is missing")),
            () if is_of_future => return Err(wrong("iat", "the token is from the future")),
            () if issued.is_some_and(|issued| issued > expires) => {
                return Err(wrong("iat", "it is after exp"));
            }
            () if not_before.is_some_and(|not_before| not_before > expires) => {
                return Err(wrong("nbf", "it is after exp"));
            }
            () if not_before.is_some_and(|not_before| not_before > now + skew) => {
                return Err(wrong("nbf", "the token is not valid yet"));
            }
            () => {}
        }
        self.check_origin(claims)?;
        let user = claims
            .get(&settings.user_claim)
            .and_then(Value::as_str)
            .map(str::trim);
        let user = user.filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| wrong(&settings.user_claim, "it names no user"))?;
        if settings.reserved.iter().any(|reserved| reserved == user) {
            return Err(wrong(
                &settings.user_claim,
                "this user is of the broker's own configuration",
            ));
        }
        self.check_scope(claims)?;
        Ok(Bearer {
            user: user.to_owned(),
            expires,
        })
    }

    /// Who made it, and for whom.
    fn check_origin(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let wrong = |claim: &str, why| Err(TokenError::Claim(claim.to_owned(), why));
        if let Some(issuer) = &self.settings.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return wrong("iss", "another issuer is expected");
        }
        let audiences = &self.settings.audiences;
        let is_ours = |value: &Value| {
            value
                .as_str()
                .is_some_and(|name| audiences.iter().any(|own| own == name))
        };
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        match audiences.is_empty() || is_for_us {
            true => Ok(()),
            false => wrong("aud", "it is for somebody else"),
        }
    }

    fn check_scope(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let given: Vec<&str> = match claims.get(&self.settings.scope_claim) {
            Some(Value::String(words)) => words.split_whitespace().collect(),
            Some(Value::Array(several)) => several
                .iter()
                .filter_map(Value::as_str)
                .map(str::trim)
                .collect(),
            _ => Vec::new(),
        };
        let scopes = &self.settings.scopes;
        match scopes.iter().find(|scope| !given.contains(&scope.as_str())) {
            Some(missing) => Err(TokenError::Scope(missing.clone())),
            None => Ok(()),
        }
    }

    /// What a client learns of a token that is not taken: a status of RFC 6750, and the scopes that are needed.
    pub(super) fn status(&self, error: &TokenError) -> (&'static str, Option<String>) {
        match error {
            TokenError::Scope(_) => ("insufficient_scope", Some(self.settings.scopes.join(" "))),
            _ => ("invalid_token", None),
        }
    }
}

/// A part of a token: an object of JSON in base64url.
fn claims_of(part: &str) -> Result<Map<String, Value>, TokenError> {
    let malformed = |why: &str| TokenError::Malformed(why.to_owned());
    let bytes = BASE64URL_NOPAD.decode(part.as_bytes());
    let bytes = bytes.map_err(|_| malformed("a part is not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| malformed("a part is not JSON"))
}

/// Until when a token says to be good; nobody looks at whether it is right.
pub fn expiry_of(token: &str) -> Option<SystemTime> {
    let claims = claims_of(token.split('.').nth(1)?).ok()?;
    time_of(&claims, "exp").ok()?
}

/// A claim that is text; nobody looks at whether the token is right.
pub fn text_claim(token: &str, claim: &str) -> Option<String> {
    let claims = claims_of(token.split('.').nth(1)?).ok()?;
    Some(claims.get(claim)?.as_str()?.trim().to_owned())
}

/// The claims of a token without a signature (Kafka's OAuthBearerUnsecuredJws).
fn unsigned(token: &str) -> Result<Map<String, Value>, TokenError> {
    let malformed = |why: &str| TokenError::Malformed(why.to_owned());
    let parts: Vec<&str> = token.splitn(4, '.').collect();
    let [header, claims, ""] = parts[..] else {
        return Err(malformed(
            "an unsecured one has two parts and an empty third one",
        ));
    };
    match claims_of(header)?.get("alg").and_then(Value::as_str) {
        Some("none") => claims_of(claims),
        _ => Err(malformed("its algorithm is not none")),
    }
}

/// A time in seconds since 1970, which may have a fraction.
fn time_of(claims: &Map<String, Value>, claim: &str) -> Result<Option<SystemTime>, &'static str> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    let seconds = value.as_f64().ok_or("it is not a number")?;
    let since = Duration::try_from_secs_f64(seconds).map_err(|_| "it is no time")?;
    let time = UNIX_EPOCH.checked_add(since).ok_or("it is no time")?;
    // Room for the clocks' difference.
    match time.checked_add(Duration::from_secs(u64::from(u32::MAX))) {
        Some(_) => Ok(Some(time)),
        None => Err("it is no time"),
    }
}

#[cfg(test)]
mod tests;
