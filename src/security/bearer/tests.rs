use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::json;

use super::*;

fn b64(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A provider: its key, and what it publishes of it.
struct Provider {
    key: EncodingKey,
    algorithm: Algorithm,
    id: &'static str,
    published: Value,
}

impl Provider {
    fn p256(id: &'static str) -> Self {
        let pair = KeyPair::generate().unwrap();
        let point = pair.public_key_raw();
        let published = json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": b64(&point[1..33]), "y": b64(&point[33..])});
        Self {
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
            algorithm: Algorithm::ES256,
            id,
            published,
        }
    }

    fn ed25519(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let published =
            json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": b64(pair.public_key_raw())});
        Self {
            key: EncodingKey::from_ed_der(&pair.serialize_der()),
            algorithm: Algorithm::EdDSA,
            id,
            published,
        }
    }

    fn rsa(id: &'static str, algorithm: Algorithm) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let (modulus, exponent) = (public.modulus(), public.exponent());
        let published = json!({
            "kty": "RSA", "kid": id, "alg": format!("{algorithm:?}"),
            "n": b64(modulus.big_endian_without_leading_zero()), "e": b64(exponent.big_endian_without_leading_zero())
        });
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
        Self {
            // Without what PKCS#8 puts before it.
            key: EncodingKey::from_rsa_der(&der.as_ref()[26..]),
            algorithm,
            id,
            published,
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        encode(&header, claims, &self.key).unwrap()
    }
}

fn settings() -> BearerSettings {
    BearerSettings {
        audiences: vec!["kafka".to_owned(), "logs".to_owned()],
        issuer: Some("https://id.example".to_owned()),
        clock_skew: Duration::from_secs(30),
        scope_claim: "scope".to_owned(),
        user_claim: "sub".to_owned(),
        scopes: Vec::new(),
        is_unsecured: false,
        reserved: vec!["admin".to_owned()],
    }
}

fn tokens_of(settings: BearerSettings, providers: &[&Provider]) -> BearerTokens {
    let tokens = BearerTokens::new(settings);
    let keys: Vec<&Value> = providers
        .iter()
        .map(|provider| &provider.published)
        .collect();
    assert_eq!(
        tokens
            .set_keys(&json!({ "keys": keys }).to_string())
            .unwrap(),
        keys.len()
    );
    tokens
}

/// The claims of a good token, with some of them otherwise; null takes one away.
fn claims(otherwise: Value) -> Value {
    let mut claims = json!({"sub": "alice", "aud": "kafka", "iss": "https://id.example", "iat": now(), "exp": now() + 600});
    for (name, value) in otherwise.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    claims
}

#[test]
fn a_token_that_one_of_the_providers_keys_has_signed_says_who_it_is_about_and_until_when() {
    let providers = [
        Provider::p256("a"),
        Provider::ed25519("b"),
        Provider::rsa("c", Algorithm::RS256),
        Provider::rsa("d", Algorithm::PS512),
    ];
    let tokens = tokens_of(settings(), &providers.iter().collect::<Vec<_>>());
    for provider in &providers {
        let expires = now() + 600;
        let bearer = tokens
            .verify(&provider.sign(&claims(json!({ "exp": expires }))))
            .unwrap();
        assert_eq!(bearer.user, "alice");
        assert_eq!(bearer.expires, UNIX_EPOCH + Duration::from_secs(expires));
    }
}

#[test]
fn a_key_is_found_without_its_name_too() {
    let (one, other) = (Provider::p256("a"), Provider::p256("b"));
    let tokens = tokens_of(settings(), &[&other, &one]);
    let unnamed = encode(&Header::new(Algorithm::ES256), &claims(json!({})), &one.key).unwrap();
    assert!(tokens.verify(&unnamed).is_ok());
}

#[test]
fn a_token_of_another_key_or_with_another_algorithm_is_not_taken() {
    let provider = Provider::rsa("a", Algorithm::RS256);
    let tokens = tokens_of(settings(), &[&provider]);
    let refused = |token: &str| tokens.verify(token).is_err();
    let good = provider.sign(&claims(json!({})));
    assert!(!refused(&good));
    // The same name, another key.
    assert!(refused(
        &Provider::rsa("a", Algorithm::RS256).sign(&claims(json!({})))
    ));
    // What the key was not made for.
    let other = Provider {
        algorithm: Algorithm::RS512,
        ..provider
    };
    assert!(refused(&other.sign(&claims(json!({})))));
    // The public key as a secret: the oldest trick with these tokens.
    let modulus = other.published["n"].as_str().unwrap();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("a".to_owned());
    let secret = EncodingKey::from_secret(modulus.as_bytes()).unwrap();
    assert!(refused(
        &encode(&header, &claims(json!({})), &secret).unwrap()
    ));
    // None, and one whose claims or signature were changed.
    let parts: Vec<&str> = good.split('.').collect();
    let none = b64(br#"{"alg":"none"}"#);
    let changed = b64(claims(json!({"sub": "mallory"})).to_string().as_bytes());
    assert!(refused(&format!("{none}.{}.", parts[1])));
    assert!(refused(&format!("{none}.{}.{}", parts[1], parts[2])));
    assert!(refused(&format!("{}.{changed}.{}", parts[0], parts[2])));
    assert!(refused(&format!("{}.{}.", parts[0], parts[1])));
    for none in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &"x".repeat(TOKEN_BYTES_MAX + 1),
    ] {
        assert!(refused(none), "{none:.20}");
    }
}

#[test]
fn keys_that_are_taken_back_are_good_for_nothing_and_one_that_is_wrong_does_not_matter() {
    let provider = Provider::p256("a");
    let tokens = tokens_of(settings(), &[&provider]);
    let token = provider.sign(&claims(json!({})));
    assert!(tokens.verify(&token).is_ok());
    let keys = json!({"keys": [{"kty": "EC"}, 7, provider.published]}).to_string();
    assert_eq!(tokens.set_keys(&keys).unwrap(), 1);
    assert!(tokens.verify(&token).is_ok());
    assert_eq!(tokens.set_keys("{\"keys\":[]}").unwrap(), 0);
    assert!(tokens.verify(&token).is_err());
}

/// RFC 7515, 4.1.11.
#[test]
fn a_token_with_critical_parts_in_its_header_that_are_not_known_is_not_taken() {
    let provider = Provider::p256("k");
    let tokens = tokens_of(settings(), &[&provider]);
    let signed_with = |critical: Option<&str>| {
        let mut header = Header::new(provider.algorithm);
        header.kid = Some(provider.id.to_owned());
        header.crit = critical.map(|name| vec![name.to_owned()]);
        encode(&header, &claims(json!({})), &provider.key).unwrap()
    };
    assert!(tokens.verify(&signed_with(None)).is_ok());
    let refused = tokens.verify(&signed_with(Some("exp")));
    assert!(
        matches!(refused, Err(TokenError::Malformed(_))),
        "{refused:?}"
    );
}

#[test]
fn secrets_and_keys_for_encryption_verify_nothing() {
    let tokens = BearerTokens::new(settings());
    let mut for_encryption = Provider::p256("a").published;
    for_encryption["use"] = json!("enc");
    let secret = json!({"kty": "oct", "kid": "s", "k": b64(b"secret")});
    let unknown = json!({"kty": "new", "kid": "n"});
    let keys = json!({"keys": [for_encryption, secret, unknown]}).to_string();
    assert_eq!(tokens.set_keys(&keys).unwrap(), 0);
    let many = vec![Provider::p256("a").published; KEYS_MAX + 1];
    let many = json!({ "keys": many }).to_string();
    assert!(matches!(tokens.set_keys(&many), Err(KeysError::TooMany(_))));
    for none in ["", "{}", "[]", "{\"keys\":1}"] {
        assert!(tokens.set_keys(none).is_err(), "{none}");
    }
}

fn refused_claim(otherwise: Value) -> Option<String> {
    let provider = Provider::p256("a");
    let tokens = tokens_of(settings(), &[&provider]);
    match tokens.verify(&provider.sign(&claims(otherwise))) {
        Err(TokenError::Claim(claim, _)) => Some(claim),
        Ok(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn claims_are_looked_at_as_by_kafka() {
    let now = now();
    let refused = |claim: &str, otherwise: Value| {
        assert_eq!(
            refused_claim(otherwise.clone()).as_deref(),
            Some(claim),
            "{otherwise}"
        );
    };
    let taken =
        |otherwise: Value| assert_eq!(refused_claim(otherwise.clone()), None, "{otherwise}");
    refused("exp", json!({ "exp": null }));
    refused("exp", json!({ "exp": "soon" }));
    refused("exp", json!({ "exp": -1 }));
    refused("exp", json!({ "exp": 1e300 }));
    refused("exp", json!({ "exp": now - 31, "iat": now - 100 }));
    taken(json!({ "exp": now - 20, "iat": now - 100 }));
    taken(json!({ "exp": now as f64 + 10.5 }));
    refused("iat", json!({ "iat": null }));
    refused("iat", json!({ "iat": now + 700 }));
    refused("nbf", json!({ "nbf": now + 60 }));
    refused("nbf", json!({ "nbf": now + 700 }));
    taken(json!({ "nbf": now + 20 }));
    refused("aud", json!({ "aud": null }));
    refused("aud", json!({ "aud": "others" }));
    refused("aud", json!({ "aud": ["others"] }));
    refused("aud", json!({ "aud": 7 }));
    taken(json!({ "aud": ["others", "logs"] }));
    refused("iss", json!({ "iss": null }));
    refused("iss", json!({ "iss": "https://id.example/" }));
    refused("iss", json!({ "iss": ["https://id.example"] }));
    refused("sub", json!({ "sub": null }));
    refused("sub", json!({ "sub": "  " }));
    refused("sub", json!({ "sub": ["alice"] }));
    // Who has a password in the broker's configuration comes with that.
    refused("sub", json!({ "sub": "admin" }));
}

#[test]
fn scopes_that_are_needed_are_named() {
    let provider = Provider::p256("a");
    let scopes = vec!["read".to_owned(), "write".to_owned()];
    let tokens = tokens_of(
        BearerSettings {
            scopes,
            ..settings()
        },
        &[&provider],
    );
    let verify = |scope: Value| tokens.verify(&provider.sign(&claims(json!({ "scope": scope }))));
    assert!(verify(json!("write read more")).is_ok());
    assert!(verify(json!(["read", "write"])).is_ok());
    let error = verify(json!("read")).unwrap_err();
    assert_eq!(error, TokenError::Scope("write".to_owned()));
    let told = tokens.status(&error);
    assert_eq!(told, ("insufficient_scope", Some("read write".to_owned())));
    assert!(verify(Value::Null).is_err());
}

#[test]
fn unsecured_tokens_are_taken_where_that_is_asked_for_and_signed_ones_are_not() {
    let open = BearerSettings {
        audiences: Vec::new(),
        issuer: None,
        is_unsecured: true,
        ..settings()
    };
    let tokens = BearerTokens::new(open);
    let token = |header: &str, claims: &Value| {
        format!(
            "{}.{}.",
            b64(header.as_bytes()),
            b64(claims.to_string().as_bytes())
        )
    };
    let verify = |claims: Value| tokens.verify(&token(r#"{"alg":"none"}"#, &claims));
    assert_eq!(
        verify(json!({"sub": "alice", "exp": now() + 60}))
            .unwrap()
            .user,
        "alice"
    );
    assert!(verify(json!({"sub": "alice", "exp": now() - 60})).is_err());
    assert!(verify(json!({"sub": "alice", "exp": now() + 600, "iat": now() + 60})).is_err());
    assert!(verify(json!({"sub": "alice"})).is_err());
    assert!(verify(json!({"sub": "admin", "exp": now() + 60})).is_err());
    assert!(
        tokens
            .verify(&token(r#"{"alg":"HS256"}"#, &claims(json!({}))))
            .is_err()
    );
    assert!(
        tokens
            .verify(&Provider::p256("a").sign(&claims(json!({}))))
            .is_err()
    );
}
