//! An identity provider's keys, and the tokens that they sign.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

/// One of a provider's keys.
pub struct Key {
    pair: KeyPair,
    id: &'static str,
}

impl Key {
    pub fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate().unwrap();
        Self { pair, id }
    }

    pub fn published(&self) -> Value {
        let point = self.pair.public_key_raw();
        let (x, y) = point[1..].split_at(32);
        let b64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": b64(x), "y": b64(y)})
    }

    /// A token about a user that is good for so many seconds.
    pub fn token(&self, user: &str, seconds: i64) -> String {
        let claims = json!({
            "sub": user, "aud": "kafka", "iss": "https://id.example", "iat": now() - 100, "exp": now().saturating_add_signed(seconds)
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.to_owned());
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        encode(&header, &claims, &key).unwrap()
    }
}

pub fn key_set(keys: &[&Key]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.published()).collect();
    json!({ "keys": keys }).to_string()
}
