//! What SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677) keep of a password: it lets nobody log in elsewhere.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use data_encoding::BASE64;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use subtle::ConstantTimeEq;

/// Fewer iterations are refused by both sides (ScramMechanism.minIterations).
pub const ITERATIONS_MIN: u32 = 4096;
/// More are refused where credentials are made (ScramMechanism.maxIterations), and by clients.
pub const ITERATIONS_MAX: u32 = 16_384;
/// What a user gets where nobody says how many.
pub const ITERATIONS_DEFAULT: u32 = 8192;
const SALT_BYTES: usize = 24;

/// A mechanism of SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256, number 1 on the wire.
    Sha256,
    /// SCRAM-SHA-512, number 2 on the wire.
    Sha512,
}

impl ScramMechanism {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// As SaslHandshake names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The mechanism of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// As AlterUserScramCredentials numbers it.
    pub fn code(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    /// The mechanism of a number.
    pub fn by_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// Length of its keys and of a salted password.
    pub fn key_bytes(self) -> usize {
        self.digest().output_len()
    }

    pub(super) fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; self.key_bytes()];
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(algorithm, iterations, salt, password, &mut salted);
        salted
    }

    pub(super) fn sign(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(self.hmac(), key);
        hmac::sign(&key, message).as_ref().to_vec()
    }

    pub(super) fn hash(self, of: &[u8]) -> Vec<u8> {
        digest::digest(self.digest(), of).as_ref().to_vec()
    }
}

/// What is kept of a user's password for one mechanism. Neither its text nor what a client needs can be got from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The salt.
    pub salt: Vec<u8>,
    /// The hash of the key that a client proves to have.
    pub stored_key: Vec<u8>,
    /// What the server proves to have.
    pub server_key: Vec<u8>,
    /// How often the password was hashed.
    pub iterations: u32,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} iterations)", self.iterations)
    }
}

/// Length of a secret that a broker or a cluster makes for itself.
const SECRET_BYTES: usize = 32;

/// A secret that nobody can guess.
pub fn random_secret() -> Vec<u8> {
    random_bytes(SECRET_BYTES)
}

/// So many random bytes.
pub fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut filled = 0;
    // Of the system itself: a library's generator gathers randomness of its own first, for longer than a broker starts.
    while filled < count {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(Errno::INTR) => {}
            Err(error) => {
                // Then nothing that follows may be guessed either.
                tracing::error!(%error, "the system gives no random bytes");
                std::process::abort();
            }
        }
    }
    bytes
}

/// A salt that nobody else has, and a password with it, as a client sends both (KIP-554).
pub fn salted_password(
    mechanism: ScramMechanism,
    password: &str,
    iterations: u32,
) -> (Vec<u8>, Vec<u8>) {
    let salt = random_bytes(SALT_BYTES);
    let salted = mechanism.salted(password.as_bytes(), &salt, iterations);
    (salt, salted)
}

impl Credential {
    /// Of a password, with a salt that nobody else has.
    pub fn of_password(mechanism: ScramMechanism, password: &str, iterations: u32) -> Self {
        let (salt, salted) = salted_password(mechanism, password, iterations);
        Self::of_salted(mechanism, salt, &salted, iterations)
    }

    /// Of a password that was salted by a client (KIP-554).
    pub fn of_salted(
        mechanism: ScramMechanism,
        salt: Vec<u8>,
        salted: &[u8],
        iterations: u32,
    ) -> Self {
        let client_key = mechanism.sign(salted, b"Client Key");
        Self {
            salt,
            stored_key: mechanism.hash(&client_key),
            server_key: mechanism.sign(salted, b"Server Key"),
            iterations,
        }
    }

    /// Whether it is that of a password.
    pub fn is_of_password(&self, mechanism: ScramMechanism, password: &str) -> bool {
        let salted = mechanism.salted(password.as_bytes(), &self.salt, self.iterations);
        let client_key = mechanism.sign(&salted, b"Client Key");
        bool::from(mechanism.hash(&client_key).ct_eq(&self.stored_key))
    }

    /// As Kafka kept it in ZooKeeper: `salt=…,stored_key=…,server_key=…,iterations=…` (ScramCredentialUtils).
    pub fn to_text(&self) -> String {
        format!(
            "salt={},stored_key={},server_key={},iterations={}",
            BASE64.encode(&self.salt),
            BASE64.encode(&self.stored_key),
            BASE64.encode(&self.server_key),
            self.iterations
        )
    }

    /// The credential of such a text.
    pub fn from_text(text: &str) -> Option<Self> {
        let part = |name: &str| {
            let mut parts = text.split(',');
            parts.find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let bytes = |name| BASE64.decode(part(name)?.as_bytes()).ok();
        Some(Self {
            salt: bytes("salt")?,
            stored_key: bytes("stored_key")?,
            server_key: bytes("server_key")?,
            iterations: part("iterations")?.parse().ok()?,
        })
    }

    /// Of a user's password that is kept nowhere else: the same on all brokers with the secret.
    pub fn of_local(mechanism: ScramMechanism, secret: &[u8], user: &str, password: &str) -> Self {
        let salt = Self::salt(mechanism, secret, user);
        let salted = mechanism.salted(password.as_bytes(), &salt, ITERATIONS_DEFAULT);
        Self::of_salted(mechanism, salt, &salted, ITERATIONS_DEFAULT)
    }

    fn salt(mechanism: ScramMechanism, secret: &[u8], user: &str) -> Vec<u8> {
        let mut salt = mechanism.sign(secret, user.as_bytes());
        salt.truncate(SALT_BYTES);
        salt
    }

    /// One for somebody who is not known: the same at each try, and nobody's password.
    pub(super) fn of_nobody(mechanism: ScramMechanism, secret: &[u8], user: &str) -> Self {
        Self {
            salt: Self::salt(mechanism, secret, user),
            stored_key: random_bytes(mechanism.key_bytes()),
            server_key: random_bytes(mechanism.key_bytes()),
            iterations: ITERATIONS_DEFAULT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_kept_as_kafka_kept_it() {
        let credential = Credential::of_password(ScramMechanism::Sha512, "x", 4096);
        assert_eq!(
            Credential::from_text(&credential.to_text()),
            Some(credential.clone())
        );
        assert_eq!(Credential::from_text("salt=a"), None);
        let shown = format!("{credential:?}");
        assert!(
            !shown.contains(&BASE64.encode(&credential.stored_key)),
            "{shown}"
        );
    }
}
