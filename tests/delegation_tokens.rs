//! Delegation tokens of running brokers (KIP-48, KIP-373), as those who mean well and others ask for them and log in with them.
//! Kafka's own tool and client with them: compat-tests/security.

#[path = "common/asking.rs"]
mod asking;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use asking::{Asking, text};
use common::{Running, now_ms, wait_for};
use data_encoding::BASE64;
use metaq::security::{Mechanism, SaslIdentity, ScramMechanism, salted_password};
use metaq_protocol::ResponseError as E;
use metaq_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use metaq_protocol::messages::create_acls_request::AclCreation;
use metaq_protocol::messages::create_delegation_token_request::CreatableRenewers;
use metaq_protocol::messages::describe_configs_request::DescribeConfigsResource;
use metaq_protocol::messages::describe_delegation_token_request::DescribeDelegationTokenOwner;
use metaq_protocol::messages::{
    AlterUserScramCredentialsRequest, CreateAclsRequest, CreateDelegationTokenRequest,
    CreateDelegationTokenResponse, DescribeConfigsRequest, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, RenewDelegationTokenRequest,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const FAILED: i16 = E::SaslAuthenticationFailed.code();
const SHA_256: Mechanism = Mechanism::Scram(ScramMechanism::Sha256);
const SHA_512: Mechanism = Mechanism::Scram(ScramMechanism::Sha512);
const SECRET: &str = "delegation.token.secret.key=planted-secret-of-tokens";

fn start(data: &Path, more: &[&str]) -> Running {
    let mut settings = vec![
        "listeners=SASL_PLAINTEXT://127.0.0.1:0",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "admin.user=admin",
        "admin.password=admin-secret",
        "connection.failed.authentication.delay.ms=10",
    ];
    settings.extend(more);
    Running::start(data, &settings)
}

/// A connection of a user that is there, whose password is its name.
fn of_user(broker: &Running, user: &str) -> Asking {
    let mut client = Asking::plain(broker.address());
    let password = if user == "admin" {
        "admin-secret"
    } else {
        user
    };
    assert_eq!(client.authenticate(SHA_256, (user, password)).0, 0);
    client
}

fn add_users(broker: &Running, users: &[&str]) {
    let upsertions = users.iter().map(|user| {
        let (salt, salted) = salted_password(ScramMechanism::Sha256, user, 4096);
        ScramCredentialUpsertion::default()
            .with_name(text(user))
            .with_mechanism(1)
            .with_iterations(4096)
            .with_salt(salt.into())
            .with_salted_password(salted.into())
    });
    let request = AlterUserScramCredentialsRequest::default();
    let request = request.with_upsertions(upsertions.collect());
    let answer = of_user(broker, "admin").ask(0, &request).unwrap();
    assert!(answer.results.iter().all(|result| result.error_code == 0));
}

/// A broker with users `alice`, `bob` and `carol`.
fn with_users(data: &Path, more: &[&str]) -> Running {
    let broker = start(data, more);
    add_users(&broker, &["alice", "bob", "carol"]);
    broker
}

fn request(renewers: &[&str], max_lifetime_ms: i64) -> CreateDelegationTokenRequest {
    let renewers = renewers.iter().map(|name| {
        CreatableRenewers::default()
            .with_principal_type(text("User"))
            .with_principal_name(text(name))
    });
    CreateDelegationTokenRequest::default()
        .with_owner_principal_type(None)
        .with_owner_principal_name(None)
        .with_renewers(renewers.collect())
        .with_max_lifetime_ms(max_lifetime_ms)
}

fn of_owner(owner: &str) -> CreateDelegationTokenRequest {
    request(&[], -1)
        .with_owner_principal_type(Some(text("User")))
        .with_owner_principal_name(Some(text(owner)))
}

fn create(client: &mut Asking, renewers: &[&str]) -> CreateDelegationTokenResponse {
    let made = client.ask(3, &request(renewers, -1)).unwrap();
    assert_eq!(made.error_code, 0);
    made
}

/// The code, and until when the token is good.
fn renew(client: &mut Asking, hmac: &[u8], period_ms: i64) -> (i16, i64) {
    let request = RenewDelegationTokenRequest::default()
        .with_hmac(hmac.to_vec().into())
        .with_renew_period_ms(period_ms);
    let answer = client.ask(2, &request).unwrap();
    (answer.error_code, answer.expiry_timestamp_ms)
}

fn expire(client: &mut Asking, hmac: &[u8], period_ms: i64) -> (i16, i64) {
    let request = ExpireDelegationTokenRequest::default()
        .with_hmac(hmac.to_vec().into())
        .with_expiry_time_period_ms(period_ms);
    let answer = client.ask(2, &request).unwrap();
    (answer.error_code, answer.expiry_timestamp_ms)
}

fn describe(client: &mut Asking, owners: Option<&[&str]>) -> DescribeDelegationTokenResponse {
    let owner = |name: &&str| {
        DescribeDelegationTokenOwner::default()
            .with_principal_type(text("User"))
            .with_principal_name(text(name))
    };
    let owners = owners.map(|owners| owners.iter().map(owner).collect());
    let request = DescribeDelegationTokenRequest::default().with_owners(owners);
    client.ask(3, &request).unwrap()
}

/// The ids of the tokens that somebody sees.
fn seen(client: &mut Asking, owners: Option<&[&str]>) -> Vec<String> {
    let answer = describe(client, owners);
    assert_eq!(answer.error_code, 0);
    let ids = answer.tokens.iter().map(|token| token.token_id.to_string());
    ids.collect()
}

fn identity(mechanism: Mechanism, id: &str, hmac: &[u8]) -> SaslIdentity {
    SaslIdentity {
        mechanism,
        user: id.to_owned(),
        password: BASE64.encode(hmac),
        is_token: true,
    }
}

/// A connection that has tried to log in with a token: the error's code and the lifetime too.
fn with_token(
    broker: &Running,
    mechanism: Mechanism,
    made: &CreateDelegationTokenResponse,
) -> (Asking, (i16, i64)) {
    let mut client = Asking::plain(broker.address());
    let outcome = client.log_in(&identity(mechanism, &made.token_id, &made.hmac));
    (client, outcome)
}

fn lets_in(broker: &Running, made: &CreateDelegationTokenResponse) -> bool {
    with_token(broker, SHA_256, made).1.0 == 0
}

#[test]
fn who_has_a_token_is_its_owner_by_both_mechanisms_and_may_not_ask_for_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let before_ms = now_ms();
    let made = create(&mut of_user(&broker, "alice"), &[]);
    assert!((before_ms..=now_ms()).contains(&made.issue_timestamp_ms));
    assert_eq!(made.expiry_timestamp_ms - made.issue_timestamp_ms, DAY_MS);
    assert_eq!(made.max_timestamp_ms - made.issue_timestamp_ms, 7 * DAY_MS);
    assert_eq!((made.token_id.len(), made.hmac.len()), (22, 64));
    for mechanism in [SHA_256, SHA_512, SHA_256] {
        let (mut bearer, (code, lifetime_ms)) = with_token(&broker, mechanism, &made);
        assert_eq!(code, 0);
        assert!((DAY_MS - 60_000..=DAY_MS).contains(&lifetime_ms));
        assert!(bearer.is_served());
        let refused = bearer.ask(3, &request(&[], -1)).unwrap();
        let not_allowed = E::DelegationTokenRequestNotAllowed.code();
        let times = (refused.issue_timestamp_ms, refused.max_timestamp_ms);
        assert_eq!((refused.error_code, times), (not_allowed, (-1, -1)));
        // It is alice who is refused.
        assert_eq!(&*refused.principal_name, "alice");
        assert_eq!(&*refused.token_requester_principal_name, "alice");
        assert_eq!(renew(&mut bearer, &made.hmac, -1), (not_allowed, -1));
        assert_eq!(expire(&mut bearer, &made.hmac, -1), (not_allowed, -1));
        assert_eq!(describe(&mut bearer, None).error_code, not_allowed);
    }
    broker.stop();
}

#[test]
fn every_version_of_the_messages_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let mut alice = of_user(&broker, "alice");
    for version in 1..=3 {
        let mut asked = request(&["bob"], -1);
        if version < 3 {
            let before = CreateDelegationTokenRequest::default();
            asked = before.with_renewers(asked.renewers);
        }
        let made = alice.ask(version, &asked).unwrap();
        assert_eq!((made.error_code, &*made.principal_name), (0, "alice"));
        let all = DescribeDelegationTokenRequest::default().with_owners(None);
        let described = alice.ask(version, &all).unwrap();
        let tokens = described.tokens;
        let token = tokens.iter().find(|token| token.token_id == made.token_id);
        let token = token.unwrap();
        assert_eq!(token.hmac, made.hmac);
        assert_eq!(&*token.renewers[0].principal_name, "bob");
        let requester = if version < 3 { "" } else { "alice" };
        assert_eq!(&*token.token_requester_principal_name, requester);
        let version = version.min(2);
        let hmac = made.hmac.clone();
        let renewal = RenewDelegationTokenRequest::default().with_hmac(hmac.clone());
        assert_eq!(alice.ask(version, &renewal).unwrap().error_code, 0);
        let end = ExpireDelegationTokenRequest::default().with_hmac(hmac);
        let end = end.with_expiry_time_period_ms(-1);
        assert_eq!(alice.ask(version, &end).unwrap().error_code, 0);
    }
    assert!(seen(&mut alice, None).is_empty());
    broker.stop();
}

#[test]
fn what_is_no_token_lets_nobody_in_and_a_token_is_no_user() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let mut alice = of_user(&broker, "alice");
    let (made, other) = (create(&mut alice, &[]), create(&mut alice, &[]));
    let attempt = |identity: &SaslIdentity| {
        let mut client = Asking::plain(broker.address());
        let (code, _) = client.log_in(identity);
        assert!(client.receive().is_none(), "it is closed");
        code
    };
    let right = identity(SHA_256, &made.token_id, &made.hmac);
    for (mechanism, user, password, is_token) in [
        // A token's id and another one's HMAC, or none.
        (SHA_256, &*made.token_id, BASE64.encode(&other.hmac), true),
        (SHA_256, &*made.token_id, BASE64.encode(b""), true),
        (SHA_512, &*made.token_id, right.password.clone(), false),
        (SHA_256, &*made.token_id, right.password.clone(), false),
        (
            Mechanism::Plain,
            &*made.token_id,
            right.password.clone(),
            true,
        ),
        // A user as a token, by its password and by a token's.
        (SHA_256, "alice", "alice".to_owned(), true),
        (SHA_256, "alice", right.password.clone(), true),
        (SHA_256, "admin", "admin-secret".to_owned(), true),
        (SHA_256, "nobody", right.password.clone(), true),
        (SHA_256, "*", right.password.clone(), true),
        (SHA_256, "../config/users/alice", "alice".to_owned(), true),
    ] {
        let (user, what) = (user.to_owned(), format!("{user} {is_token}"));
        let identity = SaslIdentity {
            mechanism,
            user,
            password,
            is_token,
        };
        assert_eq!(attempt(&identity), FAILED, "{what}");
    }
    let mut client = Asking::plain(broker.address());
    assert_eq!(client.log_in(&right).0, 0);
    broker.stop();
}

#[test]
fn owner_and_renewers_renew_and_end_a_token_and_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let [mut alice, mut bob, mut carol] =
        ["alice", "bob", "carol"].map(|user| of_user(&broker, user));
    let made = create(&mut alice, &["bob"]);
    let mismatch = (E::DelegationTokenOwnerMismatch.code(), 0);
    assert_eq!(renew(&mut carol, &made.hmac, -1), mismatch);
    assert_eq!(expire(&mut carol, &made.hmac, -1), mismatch);
    for renewer in [&mut alice, &mut bob] {
        let (code, expires_ms) = renew(renewer, &made.hmac, 60_000);
        assert_eq!(code, 0);
        assert!((now_ms()..=now_ms() + 60_000).contains(&expires_ms));
    }
    let missing = (E::DelegationTokenNotFound.code(), 0);
    let mut another = made.hmac.to_vec();
    another[0] ^= 1;
    for hmac in [&another[..], b"", &made.hmac[..63], &[0; 100_000]] {
        assert_eq!(renew(&mut alice, hmac, -1), missing);
        assert_eq!(expire(&mut alice, hmac, -1), missing);
    }
    assert_eq!(expire(&mut bob, &made.hmac, -1).0, 0);
    assert_eq!(renew(&mut alice, &made.hmac, -1), missing);
    assert!(!lets_in(&broker, &made));
    broker.stop();
}

#[test]
fn lifetimes_that_nobody_asks_for_end_at_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let week = "delegation.token.max.lifetime.ms=604800000";
    let broker = with_users(dir.path(), &[SECRET, week]);
    let mut alice = of_user(&broker, "alice");
    let mut lifetimes = |max_lifetime_ms| {
        let made = alice.ask(3, &request(&[], max_lifetime_ms)).unwrap();
        assert_eq!(made.error_code, 0);
        let issued_ms = made.issue_timestamp_ms;
        let expiry_ms = made.expiry_timestamp_ms - issued_ms;
        (expiry_ms, made.max_timestamp_ms - issued_ms)
    };
    for whatever in [i64::MIN, -1, 0, 7 * DAY_MS + 1, i64::MAX] {
        assert_eq!(lifetimes(whatever), (DAY_MS, 7 * DAY_MS), "{whatever}");
    }
    assert_eq!(lifetimes(1), (1, 1));
    assert_eq!(lifetimes(2 * DAY_MS), (DAY_MS, 2 * DAY_MS));
    let made = create(&mut alice, &[]);
    for whatever in [i64::MIN, -1, 0, i64::MAX] {
        let (code, expires_ms) = renew(&mut alice, &made.hmac, whatever);
        let left_ms = expires_ms - now_ms();
        assert_eq!(code, 0);
        assert!((DAY_MS - 60_000..=DAY_MS).contains(&left_ms), "{whatever}");
    }
    let (code, expires_ms) = expire(&mut alice, &made.hmac, i64::MAX);
    assert_eq!((code, expires_ms), (0, made.max_timestamp_ms));
    let (code, expires_ms) = expire(&mut alice, &made.hmac, 0);
    assert_eq!(code, 0);
    assert!((now_ms() - 60_000..=now_ms()).contains(&expires_ms));
    std::thread::sleep(Duration::from_millis(5));
    let expired = (E::DelegationTokenExpired.code(), 0);
    assert_eq!(renew(&mut alice, &made.hmac, -1), expired);
    assert_eq!(expire(&mut alice, &made.hmac, 0), expired);
    // That it is over is said before that it is another's, where it is to be renewed.
    let mut bob = of_user(&broker, "bob");
    assert_eq!(renew(&mut bob, &made.hmac, -1), expired);
    let mismatch = (E::DelegationTokenOwnerMismatch.code(), 0);
    assert_eq!(expire(&mut bob, &made.hmac, 0), mismatch);
    // It is there until it is removed, and can be removed.
    assert!(seen(&mut alice, None).contains(&made.token_id.to_string()));
    assert_eq!(expire(&mut alice, &made.hmac, i64::MIN).0, 0);
    broker.stop();
}

#[test]
fn a_token_that_has_expired_lets_nobody_in_ends_what_is_open_and_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let often = "delegation.token.expiry.check.interval.ms=200";
    let broker = with_users(dir.path(), &[SECRET, often]);
    let mut alice = of_user(&broker, "alice");
    let made = alice.ask(3, &request(&[], 1500)).unwrap();
    let other = create(&mut alice, &[]);
    let (mut bearer, (code, lifetime_ms)) = with_token(&broker, SHA_256, &made);
    assert_eq!(code, 0);
    assert!((1..=1500).contains(&lifetime_ms));
    assert!(bearer.is_served());
    let left_ms = u64::try_from(made.expiry_timestamp_ms - now_ms()).unwrap_or(0);
    std::thread::sleep(Duration::from_millis(left_ms + 5));
    assert!(!bearer.is_served());
    assert!(!lets_in(&broker, &made));
    wait_for("the removal", || {
        seen(&mut alice, None) == [other.token_id.to_string()]
    });
    broker.stop();
}

#[test]
fn a_token_that_has_expired_lets_nobody_in_before_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let mut alice = of_user(&broker, "alice");
    let made = alice.ask(3, &request(&[], 1)).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(seen(&mut alice, None), [made.token_id.to_string()]);
    let started = Instant::now();
    assert!(!lets_in(&broker, &made));
    assert!(started.elapsed() < Duration::from_secs(5));
    broker.stop();
}

#[test]
fn what_is_open_ends_with_the_token_that_it_came_in_with_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let mut alice = of_user(&broker, "alice");
    let [removed, shortened, kept] = [(); 3].map(|()| create(&mut alice, &[]));
    let [mut of_removed, mut of_shortened, mut of_kept] =
        [&removed, &shortened, &kept].map(|made| with_token(&broker, SHA_256, made).0);
    for bearer in [&mut of_removed, &mut of_shortened, &mut of_kept] {
        assert!(bearer.is_served());
    }
    assert_eq!(expire(&mut alice, &removed.hmac, -1).0, 0);
    assert!(!of_removed.is_served());
    assert_eq!(expire(&mut alice, &shortened.hmac, 1000).0, 0);
    assert!(of_shortened.is_served(), "it has a second left");
    std::thread::sleep(Duration::from_millis(1100));
    assert!(!of_shortened.is_served());
    assert!(of_kept.is_served() && alice.is_served());
    broker.stop();
}

#[test]
fn who_authenticates_again_in_time_goes_on_with_a_token_that_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let of_tokens = "delegation.token.expiry.time.ms=2000";
    let of_connections = "connections.max.reauth.ms=60000";
    let broker = with_users(dir.path(), &[SECRET, of_tokens, of_connections]);
    let mut alice = of_user(&broker, "alice");
    let made = create(&mut alice, &[]);
    let token = identity(SHA_256, &made.token_id, &made.hmac);
    let (mut bearer, (code, lifetime_ms)) = with_token(&broker, SHA_256, &made);
    assert_eq!(code, 0);
    assert!((1..=2000).contains(&lifetime_ms), "the shorter of both");
    let until = Instant::now() + Duration::from_millis(3000);
    while Instant::now() < until {
        assert_eq!(renew(&mut alice, &made.hmac, -1).0, 0);
        let (code, lifetime_ms) = bearer.log_in(&token);
        assert_eq!(code, 0);
        assert!((1..=2000).contains(&lifetime_ms));
        std::thread::sleep(Duration::from_millis(400));
        assert!(bearer.is_served());
    }
    // As the same principal it may come by its password too; then no token ends it.
    let (code, lifetime_ms) = bearer.authenticate(SHA_256, ("alice", "alice"));
    assert_eq!((code, lifetime_ms), (0, 60_000));
    assert_eq!(expire(&mut alice, &made.hmac, -1).0, 0);
    assert!(bearer.is_served());
    assert_eq!(bearer.ask(3, &request(&[], -1)).unwrap().error_code, 0);
    // With another one's token it may not.
    let of_bob = create(&mut of_user(&broker, "bob"), &[]);
    let of_bob = identity(SHA_256, &of_bob.token_id, &of_bob.hmac);
    assert_eq!(bearer.log_in(&of_bob).0, FAILED);
    assert!(bearer.receive().is_none());
    broker.stop();
}

#[test]
fn tokens_are_there_after_a_restart_and_good_for_nothing_under_another_secret() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let made = create(&mut of_user(&broker, "alice"), &["bob"]);
    broker.stop();
    let broker = start(dir.path(), &[SECRET]);
    assert!(lets_in(&broker, &made));
    let mut alice = of_user(&broker, "alice");
    let described = describe(&mut alice, None).tokens;
    assert_eq!(described[0].hmac, made.hmac);
    assert_eq!(described[0].expiry_timestamp, made.expiry_timestamp_ms);
    assert_eq!(described[0].max_timestamp, made.max_timestamp_ms);
    assert_eq!(described[0].issue_timestamp, made.issue_timestamp_ms);
    assert_eq!(&*described[0].renewers[0].principal_name, "bob");
    broker.stop();
    let broker = start(dir.path(), &["delegation.token.secret.key=another"]);
    assert!(!lets_in(&broker, &made));
    let mut alice = of_user(&broker, "alice");
    let missing = (E::DelegationTokenNotFound.code(), 0);
    assert_eq!(renew(&mut alice, &made.hmac, -1), missing);
    let again = describe(&mut alice, None).tokens.remove(0);
    assert_ne!(again.hmac, made.hmac);
    assert_eq!(expire(&mut alice, &again.hmac, -1).0, 0);
    broker.stop();
}

#[test]
fn without_a_secret_there_are_no_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let made = create(&mut of_user(&broker, "alice"), &[]);
    broker.stop();
    let broker = start(dir.path(), &[]);
    assert!(!lets_in(&broker, &made));
    let mut alice = of_user(&broker, "alice");
    let disabled = E::DelegationTokenAuthDisabled.code();
    let refused = alice.ask(3, &request(&[], -1)).unwrap();
    let times = (refused.issue_timestamp_ms, refused.expiry_timestamp_ms);
    assert_eq!((refused.error_code, times), (disabled, (0, 0)));
    assert_eq!(&*refused.principal_name, "alice");
    assert_eq!(renew(&mut alice, &made.hmac, -1), (disabled, 0));
    assert_eq!(expire(&mut alice, &made.hmac, -1), (disabled, 0));
    let described = describe(&mut alice, None);
    assert_eq!(
        (described.error_code, described.tokens.len()),
        (disabled, 0)
    );
    broker.stop();
}

#[test]
fn who_does_not_say_who_it_is_may_not_ask_for_tokens() {
    let dir = tempfile::tempdir().unwrap();
    for more in [&[SECRET][..], &[]] {
        let broker = Running::start(dir.path(), more);
        let mut anybody = Asking::plain(broker.address());
        let not_allowed = E::DelegationTokenRequestNotAllowed.code();
        let refused = anybody.ask(3, &of_owner("alice")).unwrap();
        let times = (refused.issue_timestamp_ms, refused.expiry_timestamp_ms);
        assert_eq!((refused.error_code, times), (not_allowed, (-1, -1)));
        assert_eq!(&*refused.principal_name, "alice");
        assert_eq!(&*refused.token_requester_principal_name, "ANONYMOUS");
        assert_eq!(renew(&mut anybody, b"x", -1), (not_allowed, -1));
        assert_eq!(expire(&mut anybody, b"x", -1), (not_allowed, -1));
        assert_eq!(describe(&mut anybody, None).error_code, not_allowed);
        broker.stop();
    }
}

/// Allows `user` something.
fn allow(broker: &Running, user: &str, (kind, name): (i8, &str), operation: i8) {
    let binding = AclCreation::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_resource_pattern_type(3)
        .with_principal(text(&format!("User:{user}")))
        .with_host(text("*"))
        .with_operation(operation)
        .with_permission_type(3);
    let request = CreateAclsRequest::default().with_creations(vec![binding]);
    let answer = of_user(broker, "admin").ask(3, &request).unwrap();
    assert_eq!(answer.results[0].error_code, 0);
}

const DELEGATION_TOKEN: i8 = 6;
const USER: i8 = 7;
const DESCRIBE: i8 = 8;
const CREATE_TOKENS: i8 = 13;
const DESCRIBE_TOKENS: i8 = 14;
const AUTHORIZER: &str =
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";

#[test]
fn tokens_of_others_are_made_and_seen_by_who_has_the_right() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET, AUTHORIZER]);
    let [mut alice, mut bob, mut carol] =
        ["alice", "bob", "carol"].map(|user| of_user(&broker, user));
    let own = create(&mut alice, &[]);
    // Oneself, by name.
    assert_eq!(alice.ask(3, &of_owner("alice")).unwrap().error_code, 0);
    let denied = bob.ask(3, &of_owner("alice")).unwrap();
    let code = E::DelegationTokenAuthorizationFailed.code();
    let times = (denied.issue_timestamp_ms, denied.max_timestamp_ms);
    assert_eq!((denied.error_code, times), (code, (-1, -1)));
    allow(&broker, "bob", (USER, "User:alice"), CREATE_TOKENS);
    let made = bob.ask(3, &of_owner("alice")).unwrap();
    assert_eq!((made.error_code, &*made.principal_name), (0, "alice"));
    assert_eq!(&*made.token_requester_principal_name, "bob");
    let other = bob.ask(3, &of_owner("carol")).unwrap();
    assert_eq!(other.error_code, code);
    // It is alice who comes with it; who asked for it sees it, and may not renew it.
    assert!(lets_in(&broker, &made));
    assert_eq!(seen(&mut bob, None), [made.token_id.to_string()]);
    let mismatch = (E::DelegationTokenOwnerMismatch.code(), 0);
    assert_eq!(renew(&mut bob, &made.hmac, -1), mismatch);
    assert_eq!(renew(&mut alice, &made.hmac, -1).0, 0);
    assert_eq!(seen(&mut alice, None).len(), 3);
    assert_eq!(seen(&mut alice, Some(&["alice"])).len(), 3);
    assert_eq!(seen(&mut alice, Some(&["bob"])).len(), 1);
    assert_eq!(seen(&mut alice, Some(&["nobody"])).len(), 0);
    assert_eq!(seen(&mut alice, Some(&[])).len(), 0);
    assert_eq!(seen(&mut carol, None).len(), 0);
    let id = own.token_id.to_string();
    allow(&broker, "carol", (DELEGATION_TOKEN, &id), DESCRIBE);
    assert_eq!(seen(&mut carol, None), [id]);
    allow(&broker, "carol", (USER, "User:alice"), DESCRIBE_TOKENS);
    assert_eq!(seen(&mut carol, None).len(), 3);
    assert_eq!(seen(&mut carol, Some(&["carol"])).len(), 0);
    assert_eq!(seen(&mut of_user(&broker, "admin"), None).len(), 3);
    broker.stop();
}

#[test]
fn requests_that_make_no_sense_are_refused_as_by_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let mut alice = of_user(&broker, "alice");
    let mut asked = request(&["bob"], -1);
    asked.renewers[0].principal_type = text("Group");
    let refused = alice.ask(3, &asked).unwrap();
    let invalid = E::InvalidPrincipalType.code();
    let outcome = (refused.error_code, refused.issue_timestamp_ms);
    assert_eq!(outcome, (invalid, -1));
    // An owner without a kind; one without a name is who asks.
    let without_kind = of_owner("bob").with_owner_principal_type(None);
    let refused = alice.ask(3, &without_kind).unwrap();
    let outcome = (refused.error_code, &*refused.principal_name);
    assert_eq!(outcome, (E::UnknownServerError.code(), "ANONYMOUS"));
    let made = alice.ask(3, &of_owner("")).unwrap();
    assert_eq!((made.error_code, &*made.principal_name), (0, "alice"));
    // An owner that is no user: there is such a token, and nobody logs in with it.
    let of_group = of_owner("alice").with_owner_principal_type(Some(text("Group")));
    let made = alice.ask(3, &of_group).unwrap();
    assert_eq!((made.error_code, &*made.principal_type), (0, "Group"));
    assert!(!lets_in(&broker, &made));
    broker.stop();
}

#[test]
fn thousands_of_renewers_are_taken_and_more_than_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(dir.path(), &[SECRET]);
    let mut alice = of_user(&broker, "alice");
    let names: Vec<String> = (0..20_000).map(|n| format!("user-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let made = create(&mut alice, &names[..4000]);
    let described = describe(&mut alice, None).tokens;
    assert_eq!(described[0].renewers.len(), 4000);
    assert!(lets_in(&broker, &made));
    let refused = alice.ask(3, &request(&names[..9000], -1)).unwrap();
    assert_eq!(refused.error_code, E::PolicyViolation.code());
    let long = "x".repeat(30_000);
    let refused = alice.ask(3, &request(&[long.as_str(); 10], -1)).unwrap();
    assert_eq!(refused.error_code, E::PolicyViolation.code());
    // The same one many times is no more than once.
    let made = create(&mut alice, &["bob"; 1000]);
    assert_eq!(renew(&mut of_user(&broker, "bob"), &made.hmac, -1).0, 0);
    // More than any request has.
    assert!(alice.ask(3, &request(&names, -1)).is_none(), "it is closed");
    assert_eq!(seen(&mut of_user(&broker, "alice"), None).len(), 2);
    broker.stop();
}

#[test]
fn neither_tree_nor_log_nor_configurations_tell_what_lets_in() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let audit = format!("audit.log.path={}", log.display());
    let broker = with_users(&dir.path().join("data"), &[SECRET, &audit]);
    let mut alice = of_user(&broker, "alice");
    let made = create(&mut alice, &["bob"]);
    assert_eq!(renew(&mut alice, &made.hmac, 5000).0, 0);
    assert_eq!(renew(&mut alice, b"other", 5000).0, 62);
    let of_broker = DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(text("0"))
        .with_configuration_keys(None);
    let asked = DescribeConfigsRequest::default().with_resources(vec![of_broker]);
    let answer = of_user(&broker, "admin").ask(4, &asked).unwrap();
    let mut configs = answer.results[0].configs.iter();
    let secret = configs.find(|config| &*config.name == "delegation.token.secret.key");
    let secret = secret.unwrap();
    assert!(secret.is_sensitive && secret.value.is_none());
    let said = |parts: &[&str]| {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        let mut lines = lines.lines();
        lines.any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let token = format!("token {}", made.token_id);
    for parts in [
        &["User:alice", "CreateDelegationToken", "for itself", "asked"][..],
        &["User:alice", "RenewDelegationToken", &token, "asked"],
        &[
            "RenewDelegationToken",
            "DELEGATION_TOKEN_NOT_FOUND",
            "refused",
        ],
    ] {
        wait_for("a line", || said(parts));
    }
    let told = std::fs::read_to_string(&log).unwrap();
    let page = broker.page("/api/meta/tree?path=/tokens");
    assert!(page.contains(&*made.token_id), "{page}");
    let settings = broker.page("/api/configuration");
    let hmac = BASE64.encode(&made.hmac);
    for text in [&told, &page, &settings] {
        assert!(!text.contains(&hmac) && !text.contains("planted-secret"));
    }
    assert_eq!(expire(&mut alice, &made.hmac, -1).0, 0);
    broker.stop();
}

/// Runs `metaq token` as who a file of client properties says; what it printed.
fn metaq_token(broker: &Running, config: &Path, words: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .arg("token")
        .args(words)
        .args(["-b", &broker.address().to_string()])
        .args(["--command-config", config.to_str().unwrap()])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[test]
fn metaq_token_makes_lists_renews_and_ends_tokens_and_what_it_shows_logs_in() {
    let dir = tempfile::tempdir().unwrap();
    let broker = with_users(&dir.path().join("data"), &[SECRET, AUTHORIZER]);
    let file = |name: &str, lines: &str| {
        let path = dir.path().join(name);
        std::fs::write(
            &path,
            format!("security.protocol=SASL_PLAINTEXT\n{lines}\n"),
        )
        .unwrap();
        path
    };
    let of_user = |user: &str| {
        let jaas = format!("sasl.jaas.config=x required username=\"{user}\" password=\"{user}\";");
        file(user, &format!("sasl.mechanism=SCRAM-SHA-256\n{jaas}"))
    };
    let (alice, bob) = (of_user("alice"), of_user("bob"));
    let ask = |config: &Path, words: &[&str]| metaq_token(&broker, config, words);
    let made = ask(&alice, &["create", "--renewer", "User:bob"]).unwrap();
    let (said, properties) = made.split_once('\n').unwrap();
    let id = said.split(' ').nth(1).unwrap();
    let listed = ask(&bob, &["list"]).unwrap();
    assert!(
        listed.contains(id) && listed.contains("User:alice"),
        "{listed}"
    );
    assert!(!listed.contains("password"), "{listed}");
    let of_nobody = ask(&alice, &["list", "--owner", "User:nobody", "--json"]);
    assert_eq!(of_nobody.unwrap().trim(), "[]");
    let renewed = ask(&bob, &["renew", id, "--period-ms", "60000", "--json"]).unwrap();
    assert!(renewed.contains("expires_ms"), "{renewed}");
    // What was shown logs in, and who comes with a token may not ask for tokens.
    let bearer = file("bearer", properties);
    let refused = ask(&bearer, &["list"]).unwrap_err();
    assert!(
        refused.contains("by something else than a delegation token"),
        "{refused}"
    );
    let denied = ask(&bob, &["create", "--owner", "User:alice"]).unwrap_err();
    assert!(denied.contains("tokens of others"), "{denied}");
    let unknown = ask(&alice, &["expire", "unknown"]).unwrap_err();
    assert!(unknown.contains("no token unknown"), "{unknown}");
    let wrong = ask(&alice, &["create", "--renewer", "bob"]).unwrap_err();
    assert!(wrong.contains("no principal"), "{wrong}");
    let removed = ask(&alice, &["expire", id]).unwrap();
    assert_eq!(removed.trim(), format!("{id} is removed"));
    let ended = ask(&bearer, &["list"]).unwrap_err();
    assert!(ended.contains("invalid credentials"), "{ended}");
    // All of an owner, and none that it may renew only.
    for (owner, renewer) in [
        (&alice, "User:bob"),
        (&alice, "User:bob"),
        (&bob, "User:alice"),
    ] {
        ask(owner, &["create", "--renewer", renewer]).unwrap();
    }
    let all = ["expire", "--owner", "User:alice", "--json"];
    let removed = ask(&bob, &all).unwrap();
    assert_eq!(removed.matches("\"token\"").count(), 2, "{removed}");
    let left = ask(&alice, &["list"]).unwrap();
    assert!(
        left.lines().count() == 2 && left.contains("User:bob"),
        "{left}"
    );
    let none = ask(&bob, &all).unwrap_err();
    assert!(none.contains("no token of User:alice"), "{none}");
    assert!(ask(&bob, &["expire"]).is_err());
    assert!(ask(&bob, &["expire", id, "--owner", "User:bob"]).is_err());
    // Who sees them and may not end them is told so of each.
    let admin = file(
        "admin",
        "sasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=x required username=\"admin\" password=\"admin-secret\";",
    );
    let refused = ask(&admin, &["expire", "--owner", "User:bob"]).unwrap_err();
    assert!(refused.lines().count() == 1, "{refused}");
    broker.stop();
}

/// A place of its own in ZooKeeper.
fn new_root() -> String {
    static ROOTS: AtomicU32 = AtomicU32::new(0);
    let root = ROOTS.fetch_add(1, Ordering::Relaxed);
    format!("/tokens-{}-{root}", std::process::id())
}

/// A broker of a cluster.
fn member(data: &Path, id: i32, root: &str, setting: &str) -> Running {
    let more = [
        setting.to_owned(),
        format!("brokerId={id}"),
        "zk.zkEnable=true".to_owned(),
        format!("zk.zkConnect={}", zookeeper::shared().address()),
        format!("zk.zkRoot={root}"),
        "inter.broker.listener.name=SASL_PLAINTEXT".to_owned(),
        "inter.broker.user=broker".to_owned(),
        "inter.broker.password=between-brokers".to_owned(),
        SECRET.to_owned(),
        AUTHORIZER.to_owned(),
    ];
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    start(&data.join(id.to_string()), &more)
}

/// The controller, and another broker.
fn two_brokers(data: &Path, setting: &str) -> (Running, Running) {
    let root = new_root();
    let [one, other] = [0, 1].map(|id| member(data, id, &root, setting));
    wait_for("both to know a controller", || {
        [&one, &other].into_iter().all(|broker| {
            let image = broker.broker().context().cluster.image();
            image.controller_id >= 0 && image.brokers.len() == 2
        })
    });
    match one.broker().context().cluster.is_controller() {
        true => (one, other),
        false => (other, one),
    }
}

fn knows(broker: &Running, user: &str) -> bool {
    let mut client = Asking::plain(broker.address());
    client.authenticate(SHA_256, (user, user)).0 == 0
}

#[test]
fn requests_for_the_controller_get_there_while_brokers_have_to_authenticate_again() {
    let dir = tempfile::tempdir().unwrap();
    let often = "connections.max.reauth.ms=1000";
    let (controller, other) = two_brokers(dir.path(), often);
    add_users(&other, &["alice"]);
    wait_for("the user", || {
        knows(&other, "alice") && knows(&controller, "alice")
    });
    for pause_ms in [0, 300, 700, 900, 1100, 1500, 700, 300] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        let made = create(&mut of_user(&other, "alice"), &[]);
        assert_eq!(&*made.principal_name, "alice");
    }
    assert_eq!(seen(&mut of_user(&controller, "alice"), None).len(), 8);
    other.stop();
    controller.stop();
}

#[test]
fn a_token_is_good_on_all_brokers_whichever_was_asked_and_ends_on_all() {
    let dir = tempfile::tempdir().unwrap();
    let started = two_brokers(dir.path(), "connections.max.reauth.ms=0");
    let (controller, other) = (&started.0, &started.1);
    let brokers = [controller, other];
    add_users(other, &["alice", "bob"]);
    wait_for("the users", || {
        brokers.iter().all(|broker| knows(broker, "bob"))
    });
    let mut alice = of_user(other, "alice");
    let made = create(&mut alice, &["bob"]);
    assert_eq!(&*made.principal_name, "alice");
    wait_for("the token", || {
        brokers.iter().all(|broker| lets_in(broker, &made))
    });
    let mut bearers = brokers.map(|broker| with_token(broker, SHA_512, &made).0);
    assert!(bearers.iter_mut().all(Asking::is_served));
    // What is not allowed to a token is not allowed by way of another broker either.
    let not_allowed = E::DelegationTokenRequestNotAllowed.code();
    for bearer in &mut bearers {
        let refused = bearer.ask(3, &request(&[], -1)).unwrap();
        assert_eq!(refused.error_code, not_allowed);
    }
    // Who renews is told apart by the controller: bob may, the broker that sends it on has no say.
    assert_eq!(renew(&mut of_user(other, "bob"), &made.hmac, -1).0, 0);
    let denied = of_user(other, "bob").ask(3, &of_owner("alice")).unwrap();
    let code = E::DelegationTokenAuthorizationFailed.code();
    assert_eq!(denied.error_code, code);
    assert_eq!(expire(&mut alice, &made.hmac, -1).0, 0);
    for bearer in &mut bearers {
        wait_for("the end of what is open", || !bearer.is_served());
    }
    assert!(brokers.iter().all(|broker| !lets_in(broker, &made)));
    started.1.stop();
    started.0.stop();
}
