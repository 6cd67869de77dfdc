//! Messages of SASL, tokens and mapping rules that are nearly right, made from right ones by chance: nothing panics, nobody is let in
//! who should not be, and no message of a client takes long.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use metaq::security::{
    BearerSettings, BearerTokens, Credential, Exchange, ITERATIONS_MIN, Mechanism,
    PrincipalMapping, Progress, ScramClient, ScramMechanism, TokenLogin, Users, subject,
};
use proptest::prelude::*;
use rcgen::KeyPair;
use serde_json::json;

const SCRAM: ScramMechanism = ScramMechanism::Sha256;
/// What one message may take; much more than it does.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(5);

struct Alice(Credential);

impl Users for Alice {
    fn credential(&self, user: &str, mechanism: ScramMechanism) -> Option<Credential> {
        (user == "alice" && mechanism == SCRAM).then(|| self.0.clone())
    }

    fn token(&self, id: &str, mechanism: ScramMechanism) -> Option<TokenLogin> {
        (id == "alice" && mechanism == SCRAM).then(|| TokenLogin {
            owner: "owner".to_owned(),
            credential: self.0.clone(),
        })
    }

    fn secret(&self) -> &[u8] {
        b"secret"
    }
}

static USERS: LazyLock<Arc<Alice>> = LazyLock::new(|| {
    Arc::new(Alice(Credential::of_password(
        SCRAM,
        "right",
        ITERATIONS_MIN,
    )))
});

/// A provider's tokens, and a good one about alice.
static TOKENS: LazyLock<(BearerTokens, String)> = LazyLock::new(|| {
    let pair = KeyPair::generate().unwrap();
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    let b64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let key = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(x), "y": b64(y)});
    let tokens = BearerTokens::new(BearerSettings {
        audiences: vec!["kafka".to_owned()],
        issuer: None,
        clock_skew: Duration::from_secs(30),
        scope_claim: "scope".to_owned(),
        user_claim: "sub".to_owned(),
        scopes: Vec::new(),
        is_unsecured: false,
        reserved: Vec::new(),
    });
    tokens
        .set_keys(&json!({ "keys": [key] }).to_string())
        .unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = json!({"sub": "alice", "aud": "kafka", "iat": now, "exp": now + 36_000});
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("k".to_owned());
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    (tokens, encode(&header, &claims, &key).unwrap())
});

/// One change of a message.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
    Swap(usize, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (any::<usize>(), 1..=u8::MAX).prop_map(|(at, bits)| Change::Flip(at, bits)),
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<usize>(), 1usize..3000).prop_map(|(at, times)| Change::Repeat(at, times)),
        (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Change::Swap(one, other)),
    ];
    prop::collection::vec(change, 1..4)
}

fn changed(message: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match change {
            Change::Flip(at, bits) => bytes[at % length] ^= bits,
            Change::Cut(at) => bytes.truncate(at % length),
            Change::Insert(at, more) => {
                let at = at % length;
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Repeat(at, times) => {
                let byte = bytes[at % length];
                let more = std::iter::repeat_n(byte, *times);
                bytes.splice(at % length..at % length, more);
            }
            Change::Swap(one, other) => bytes.swap(one % length, other % length),
        }
    }
    bytes
}

/// The user that a first message lets in, if any.
fn let_in(mechanism: Mechanism, message: &[u8]) -> Option<String> {
    let mut exchange = Exchange::default();
    assert!(exchange.choose(mechanism, false));
    let began = Instant::now();
    let progress = exchange.on(message, USERS.as_ref(), Some(&TOKENS.0));
    assert!(began.elapsed() < MESSAGE_TIME_MAX);
    match progress {
        Some(Ok(Progress::Done { who, .. })) => Some(who.user),
        _ => None,
    }
}

fn bearer_message(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

/// Whether two tokens say the same: a changed letter may stand for the same bytes.
fn is_same_token(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message);
    let good = TOKENS.1.as_str();
    let Some(signed) = good.rsplit_once('.').map(|(signed, _)| signed) else {
        return false;
    };
    text.contains(signed)
}

#[test]
fn the_right_ones_are_let_in() {
    for (begin, user) in [
        (ScramClient::begin as fn(_, &str, &str) -> _, "alice"),
        (ScramClient::begin_with_token, "owner"),
    ] {
        let (mut client, first): (ScramClient, String) = begin(SCRAM, "alice", "right");
        let mut exchange = Exchange::default();
        assert!(exchange.choose(Mechanism::Scram(SCRAM), false));
        let challenge = match exchange.on(first.as_bytes(), USERS.as_ref(), None) {
            Some(Ok(Progress::Continue(challenge))) => challenge,
            other => panic!("{other:?}"),
        };
        let proof = client.prove(&challenge).unwrap();
        match exchange.on(proof.as_bytes(), USERS.as_ref(), None) {
            Some(Ok(Progress::Done { who, .. })) => assert_eq!(who.user, user),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        let_in(Mechanism::Plain, b"\0alice\0right").as_deref(),
        Some("alice")
    );
    let good = bearer_message(&TOKENS.1);
    assert_eq!(
        let_in(Mechanism::OAuthBearer, &good).as_deref(),
        Some("alice")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_token_lets_nobody_in_but_whom_it_is_about(changes in changes()) {
        let message = changed(&bearer_message(&TOKENS.1), &changes);
        if let Some(user) = let_in(Mechanism::OAuthBearer, &message) {
            // What was signed is as it was.
            prop_assert_eq!(user.as_str(), "alice");
            prop_assert!(is_same_token(&message));
        }
    }

    #[test]
    fn bytes_of_chance_let_nobody_in(message in prop::collection::vec(any::<u8>(), 0..300)) {
        for mechanism in Mechanism::ALL {
            prop_assert_eq!(let_in(mechanism, &message), None);
        }
    }

    #[test]
    fn keys_of_chance_are_read_or_refused(text in ".{0,200}", changes in changes()) {
        let tokens = BearerTokens::new(BearerSettings {
            audiences: Vec::new(),
            issuer: None,
            clock_skew: Duration::ZERO,
            scope_claim: String::new(),
            user_claim: String::new(),
            scopes: Vec::new(),
            is_unsecured: false,
            reserved: Vec::new(),
        });
        let _ = tokens.set_keys(&text);
        let right = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"AAAA","y":"AAAA"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
        let _ = tokens.set_keys(&String::from_utf8_lossy(&changed(right.as_bytes(), &changes)));
    }

    #[test]
    fn rules_and_subjects_of_chance_are_read_or_refused(changes in changes(), name in ".{0,100}") {
        let right = b"RULE:^CN=(.*?),OU=(.*?)$/$1-$2/L,RULE:^(a|b)*$/x/U,DEFAULT";
        let rules = changed(right, &changes);
        if let Ok(mapping) = PrincipalMapping::parse(&String::from_utf8_lossy(&rules)) {
            let _ = mapping.name_of(&name);
        }
    }

    #[test]
    fn certificates_of_chance_name_somebody_or_nobody(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = subject(&bytes);
    }
}

proptest! {
    // Each takes the time of a password.
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_first_message_lets_nobody_in_with_a_right_proof(changes in changes(), with_token in any::<bool>()) {
        let begin = match with_token {
            true => ScramClient::begin_with_token,
            false => ScramClient::begin,
        };
        let (mut client, first) = begin(SCRAM, "alice", "right");
        let message = changed(first.as_bytes(), &changes);
        let mut exchange = Exchange::default();
        assert!(exchange.choose(Mechanism::Scram(SCRAM), false));
        let Some(Ok(Progress::Continue(challenge))) = exchange.on(&message, USERS.as_ref(), None) else {
            return Ok(());
        };
        let Ok(proof) = client.prove(&challenge) else {
            return Ok(());
        };
        if let Some(Ok(Progress::Done { who, .. })) = exchange.on(proof.as_bytes(), USERS.as_ref(), None) {
            // What was proved is what was said first.
            prop_assert_eq!(&message, first.as_bytes());
            prop_assert_eq!(who.user.as_str(), if with_token { "owner" } else { "alice" });
        }
    }

    #[test]
    fn a_changed_proof_lets_nobody_in(changes in changes()) {
        let (mut client, first) = ScramClient::begin(SCRAM, "alice", "right");
        let mut exchange = Exchange::default();
        assert!(exchange.choose(Mechanism::Scram(SCRAM), false));
        let challenge = match exchange.on(first.as_bytes(), USERS.as_ref(), None) {
            Some(Ok(Progress::Continue(challenge))) => challenge,
            other => panic!("{other:?}"),
        };
        let proof = client.prove(&challenge).unwrap();
        let message = changed(proof.as_bytes(), &changes);
        prop_assume!(message != proof.as_bytes());
        let progress = exchange.on(&message, USERS.as_ref(), None);
        prop_assert!(matches!(progress, Some(Err(_))), "{:?}", String::from_utf8_lossy(&message));
    }

    #[test]
    fn a_changed_password_lets_nobody_in(changes in changes()) {
        let message = changed(b"\0alice\0right", &changes);
        prop_assume!(message != b"\0alice\0right" && message != b"alice\0alice\0right");
        prop_assert_eq!(let_in(Mechanism::Plain, &message), None);
    }

    #[test]
    fn a_changed_challenge_of_a_server_is_answered_or_refused(changes in changes()) {
        let (mut client, first) = ScramClient::begin(SCRAM, "alice", "right");
        let mut exchange = Exchange::default();
        assert!(exchange.choose(Mechanism::Scram(SCRAM), false));
        let challenge = match exchange.on(first.as_bytes(), USERS.as_ref(), None) {
            Some(Ok(Progress::Continue(challenge))) => challenge,
            other => panic!("{other:?}"),
        };
        let began = Instant::now();
        let _ = client.prove(&changed(&challenge, &changes));
        prop_assert!(began.elapsed() < MESSAGE_TIME_MAX);
    }
}
