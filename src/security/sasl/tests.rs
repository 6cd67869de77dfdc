use std::sync::Arc;

use super::*;
use crate::security::scram::ITERATIONS_MIN;
use crate::security::scram_exchange::ScramClient;

struct One(Credential);

impl Users for One {
    fn credential(&self, user: &str, mechanism: ScramMechanism) -> Option<Credential> {
        let is_known = user == "u" && mechanism == ScramMechanism::Sha256;
        is_known.then(|| self.0.clone())
    }

    fn token(&self, id: &str, mechanism: ScramMechanism) -> Option<TokenLogin> {
        let is_known = id == "t" && mechanism == ScramMechanism::Sha256;
        is_known.then(|| TokenLogin {
            owner: "u".to_owned(),
            credential: self.0.clone(),
        })
    }

    fn secret(&self) -> &[u8] {
        b"secret"
    }
}

fn users() -> Arc<dyn Users> {
    let mechanism = ScramMechanism::Sha256;
    Arc::new(One(Credential::of_password(
        mechanism,
        "right",
        ITERATIONS_MIN,
    )))
}

fn ask_plain(message: &[u8]) -> Result<Progress, Failure> {
    let mut exchange = Exchange::default();
    assert!(exchange.choose(Mechanism::Plain, false));
    exchange.on(message, users().as_ref(), None).unwrap()
}

#[test]
fn plain_takes_the_right_password_and_says_no_more_than_kafka_of_a_wrong_one() {
    let done = Progress::Done {
        who: Authenticated::by_password("u".to_owned()),
        message: Vec::new(),
    };
    assert_eq!(ask_plain(b"\0u\0right"), Ok(done.clone()));
    assert_eq!(ask_plain(b"u\0u\0right"), Ok(done));
    assert_eq!(ask_plain(b"\0u\0wrong"), Err(Failure::Password));
    assert_eq!(ask_plain(b"\0nobody\0right"), Err(Failure::Password));
    assert_eq!(ask_plain(b"v\0u\0right"), Err(Failure::AnotherIdentity));
    assert_eq!(ask_plain(b"v\0u\0wrong"), Err(Failure::Password));
    assert_eq!(ask_plain(b"\0\0right"), Err(Failure::NoUser));
    assert_eq!(ask_plain(b"\0u\0"), Err(Failure::NoPassword));
    assert_eq!(ask_plain(b"u\0right"), Err(Failure::Tokens(2)));
    assert_eq!(ask_plain(b"\0u\0right\0"), Err(Failure::Tokens(4)));
}

fn ask_scram(exchange: &mut Exchange, user: &str, password: &str) -> Result<String, Failure> {
    let begun = ScramClient::begin(ScramMechanism::Sha256, user, password);
    finish_scram(exchange, begun).map(|(user, _)| user)
}

/// Who it is, and the token.
fn finish_scram(
    exchange: &mut Exchange,
    (mut client, first): (ScramClient, String),
) -> Result<(String, Option<String>), Failure> {
    let mechanism = ScramMechanism::Sha256;
    assert!(exchange.choose(Mechanism::Scram(mechanism), false));
    let Progress::Continue(answer) = exchange
        .on(first.as_bytes(), users_kept().as_ref(), None)
        .unwrap()?
    else {
        panic!("it is not done yet");
    };
    let last = client.prove(&answer).unwrap();
    match exchange
        .on(last.as_bytes(), users_kept().as_ref(), None)
        .unwrap()?
    {
        Progress::Done { who, message } => {
            client.verify(&message).unwrap();
            let token = match who.proof {
                Proof::DelegationToken(id) => Some(id),
                _ => None,
            };
            Ok((who.user, token))
        }
        _ => panic!("it goes on"),
    }
}

fn users_kept() -> Arc<dyn Users> {
    static USERS: std::sync::OnceLock<Arc<dyn Users>> = std::sync::OnceLock::new();
    USERS.get_or_init(users).clone()
}

#[test]
fn a_connection_comes_back_as_the_same_user_by_the_same_mechanism() {
    let mut exchange = Exchange::default();
    let failed = |phase| Failure::Credentials {
        mechanism: "SCRAM-SHA-256",
        phase,
    };
    assert_eq!(
        ask_scram(&mut exchange, "u", "wrong"),
        Err(failed("authentication"))
    );
    assert_eq!(ask_scram(&mut exchange, "u", "right"), Ok("u".to_owned()));
    assert_eq!(ask_scram(&mut exchange, "u", "right"), Ok("u".to_owned()));
    assert_eq!(
        ask_scram(&mut exchange, "u", "wrong"),
        Err(failed("re-authentication"))
    );
    assert!(!exchange.choose(Mechanism::Plain, false));
    assert_eq!(exchange.on(b"\0u\0right", users().as_ref(), None), None);
    exchange.known = Some(("v".to_owned(), Mechanism::Scram(ScramMechanism::Sha256)));
    assert!(matches!(
        ask_scram(&mut exchange, "u", "right"),
        Err(Failure::AnotherUser { .. })
    ));
}

#[test]
fn who_has_a_token_is_its_owner_and_tokens_and_users_are_not_taken_for_each_other() {
    let ask = |exchange: &mut Exchange, id: &str, password: &str| {
        let begun = ScramClient::begin_with_token(ScramMechanism::Sha256, id, password);
        finish_scram(exchange, begun)
    };
    let failed = Err(Failure::Credentials {
        mechanism: "SCRAM-SHA-256",
        phase: "authentication",
    });
    let mut exchange = Exchange::default();
    assert_eq!(ask(&mut exchange, "t", "wrong"), failed);
    assert_eq!(ask(&mut exchange, "u", "right"), failed);
    assert_eq!(ask(&mut exchange, "nobody", "right"), failed);
    let as_user = ask_scram(&mut exchange, "t", "right");
    assert_eq!(as_user, failed.clone().map(|(user, _)| user));
    let by_token = Ok(("u".to_owned(), Some("t".to_owned())));
    assert_eq!(ask(&mut exchange, "t", "right"), by_token);
    // The same principal comes back without a token, and with it again.
    assert_eq!(ask_scram(&mut exchange, "u", "right"), Ok("u".to_owned()));
    assert_eq!(ask(&mut exchange, "t", "right"), by_token);
}

#[test]
fn nothing_is_taken_before_a_mechanism_is_chosen_or_after_it_failed() {
    let mut exchange = Exchange::default();
    assert_eq!(exchange.on(b"\0u\0right", users().as_ref(), None), None);
    assert!(exchange.choose(Mechanism::Plain, false));
    assert!(
        exchange
            .on(b"\0u\0wrong", users().as_ref(), None)
            .unwrap()
            .is_err()
    );
    assert_eq!(exchange.on(b"\0u\0right", users().as_ref(), None), None);
}
