//! Tokens on the dashboard: those of an identity provider (OAUTHBEARER) and delegation tokens (KIP-48), what they let one do, and
//! that they let nobody in once they are over.

#[path = "common/asking.rs"]
mod asking;
mod common;
#[path = "common/provider.rs"]
mod provider;
#[path = "common/visiting.rs"]
mod visiting;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use asking::{Asking, text};
use common::{Running, wait_for};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use metaq::security::{Mechanism, ScramMechanism};
use metaq_protocol::messages::create_acls_request::AclCreation;
use metaq_protocol::messages::create_delegation_token_request::CreatableRenewers;
use metaq_protocol::messages::{
    CreateAclsRequest, CreateDelegationTokenRequest, CreateDelegationTokenResponse,
    ExpireDelegationTokenRequest, MetadataRequest,
};
use provider::{Key, key_set, now};
use serde_json::json;
use visiting::{Answer, FORM, ask, basic, ends, get, live};

const TOKEN: &str = "the token of these tests";
const ADMIN: (&str, &str) = ("admin", "planted-admin-password");
const DESCRIBE: i8 = 8;

/// A broker that decides by lists, with a first listener whose clients are super users and further settings.
fn start(data: &Path, more: &[&str]) -> Running {
    let token = format!("dashboard.token={TOKEN}");
    let mut settings = vec![
        token.as_str(),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS;User:admin",
        "admin.user=admin",
        "admin.password=planted-admin-password",
        "connection.failed.authentication.delay.ms=10",
        "sasl.oauthbearer.expected.audience=kafka",
        "sasl.oauthbearer.expected.issuer=https://id.example",
        "delegation.token.secret.key=planted-secret-of-tokens",
    ];
    settings.extend(more);
    Running::start(data, &settings)
}

/// The setting of a file with a provider's keys.
fn keys_in(dir: &Path, name: &str, keys: &[&Key]) -> (PathBuf, String) {
    let file = dir.join(name);
    std::fs::write(&file, key_set(keys)).unwrap();
    let setting = format!(
        "sasl.oauthbearer.jwks.endpoint.url=file://{}",
        file.display()
    );
    (file, setting)
}

const WITH_PROVIDER: &[&str] = &[
    "listeners=PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0",
    "sasl.enabled.mechanisms=OAUTHBEARER,SCRAM-SHA-256",
];

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Lets a user describe the cluster, as who may look.
fn let_look(broker: &Running, user: &str) {
    let binding = AclCreation::default()
        .with_resource_type(4)
        .with_resource_name(text("kafka-cluster"))
        .with_resource_pattern_type(3)
        .with_principal(text(&format!("User:{user}")))
        .with_host(text("*"))
        .with_operation(DESCRIBE)
        .with_permission_type(3);
    let request = CreateAclsRequest::default().with_creations(vec![binding]);
    assert_eq!(broker.client().ask(3, &request).results[0].error_code, 0);
}

fn status(broker: &Running, headers: &str) -> u16 {
    get(broker, "/api/cluster", headers).status
}

/// What the form answers to fields of the page to log in.
fn log_in(broker: &Running, fields: &[(&str, &str)]) -> Answer {
    let fields = fields.iter().map(|(name, value)| {
        let value = value.replace('+', "%2B").replace('=', "%3D");
        format!("{name}={}", value.replace('/', "%2F").replace(' ', "+"))
    });
    let form: Vec<String> = fields.collect();
    ask(broker, "POST", "/login", FORM, &form.join("&"))
}

/// Whether `metaq` is shown the cluster by the dashboard with these properties.
fn shows_cluster(broker: &Running, file: &Path, properties: &str) -> bool {
    std::fs::write(file, properties).unwrap();
    let dashboard = broker.broker().dashboard_address().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["cluster", "status", "-d", &dashboard, "--command-config"])
        .arg(file)
        .output()
        .unwrap();
    output.status.success()
}

#[test]
fn who_has_a_token_of_the_identity_provider_is_the_user_that_it_names_with_that_users_rights() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("a");
    let (_, url) = keys_in(dir.path(), "keys.json", &[&key]);
    let settings = [WITH_PROVIDER, &[&*url]].concat();
    let broker = start(&dir.path().join("data"), &settings);
    let alice = bearer(&key.token("alice", 600));
    assert_eq!(get(&broker, "/api/cluster", &alice).error().0, 403);
    assert_eq!(get(&broker, "/", &alice).status, 403);
    let_look(&broker, "alice");
    assert_eq!(status(&broker, &alice), 200);
    let page = get(&broker, "/", &alice);
    assert!(page.body.contains("Logged in as alice"), "{page:?}");
    // It is good for one's own rights alone.
    assert_eq!(get(&broker, "/api/configuration", &alice).status, 403);
    assert_eq!(status(&broker, &bearer(&key.token("bob", 600))), 403);
    let file = dir.path().join("token");
    std::fs::write(&file, key.token("alice", 600)).unwrap();
    let properties = format!(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=file://{}\n",
        file.display()
    );
    let config = dir.path().join("client.properties");
    assert!(shows_cluster(&broker, &config, &properties));
    std::fs::write(&file, key.token("bob", 600)).unwrap();
    assert!(!shows_cluster(&broker, &config, &properties));
    // The dashboard's own token is what it was.
    assert_eq!(
        get(&broker, "/api/configuration", &bearer(TOKEN)).status,
        200
    );
    let asked = get(&broker, "/api/cluster", "");
    let challenges = asked.head.matches("www-authenticate: ").count();
    assert!(
        challenges == 2
            && asked
                .head
                .contains("www-authenticate: Bearer realm=\"metaq\"")
    );
    broker.stop();
}

#[test]
fn tokens_that_are_not_taken_are_answered_in_the_same_words_and_the_operator_learns_why() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("a");
    let (_, url) = keys_in(dir.path(), "keys.json", &[&key]);
    let audit = dir.path().join("audit.log");
    let audit_path = format!("audit.log.path={}", audit.display());
    let settings = [WITH_PROVIDER, &[&url, &audit_path]].concat();
    let broker = start(&dir.path().join("data"), &settings);
    let b64 = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let claims = json!({"sub": "alice", "aud": "kafka", "iss": "https://id.example",
        "iat": now(), "exp": now() + 600});
    let unsigned = format!(
        "{}.{}.",
        b64("{\"alg\":\"none\"}"),
        b64(&claims.to_string())
    );
    let wrong = [
        (key.token("alice", -600), "claim exp: the token has expired"),
        (
            key.token("admin", 600),
            "claim sub: this user is of the broker's own configuration",
        ),
        (
            Key::new("unknown").token("alice", 600),
            "no key of the provider has the token's key id",
        ),
        (Key::new("a").token("alice", 600), "its signature is wrong"),
        (unsigned, "not a JWT"),
        ("another token".to_owned(), "not a JWT"),
    ];
    let let_in = bearer(&key.token("alice", 600));
    let_look(&broker, "alice");
    let mut answers = Vec::new();
    for (token, why) in &wrong {
        let began = Instant::now();
        let answer = get(&broker, "/api/cluster", &bearer(token));
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert_eq!(answer.error(), (401, "wrong_token".to_owned()));
        assert!(!answer.body.contains(why));
        answers.push(answer.body);
        assert_eq!(log_in(&broker, &[("token", token)]).status, 401);
        wait_for(why, || {
            let lines = std::fs::read_to_string(&audit).unwrap_or_default();
            let mut lines = lines.lines();
            lines.any(|line| line.contains(why) && line.contains("DASHBOARD"))
        });
        assert_eq!(status(&broker, &let_in), 200);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    // Then the address has no more patience, for a right one neither.
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| get(&broker, "/api/cluster", &bearer("guessed")));
        }
    });
    let refused = get(&broker, "/api/cluster", &let_in);
    assert_eq!(refused.error(), (429, "too_many_logins".to_owned()));
    broker.stop();
}

#[test]
fn a_token_of_the_identity_provider_is_good_until_it_expires_and_so_is_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("a");
    let (_, url) = keys_in(dir.path(), "keys.json", &[&key]);
    let skew = "sasl.oauthbearer.clock.skew.seconds=0";
    let settings = [WITH_PROVIDER, &[&*url, skew]].concat();
    let broker = start(&dir.path().join("data"), &settings);
    let_look(&broker, "alice");
    let short = key.token("alice", 12);
    let login = log_in(&broker, &[("token", &short)]);
    assert_eq!(login.status, 303, "{login:?}");
    let session = login.session();
    assert_eq!(status(&broker, &session), 200);
    assert_eq!(status(&broker, &bearer(&short)), 200);
    let streams = [live(&broker, &session), live(&broker, &bearer(&short))];
    wait_for("its end", || status(&broker, &session) == 401);
    assert_eq!(status(&broker, &bearer(&short)), 401);
    assert!(streams.into_iter().all(ends));
    assert_eq!(status(&broker, &bearer(&key.token("alice", 600))), 200);
    broker.stop();
}

#[test]
fn of_several_listeners_with_providers_the_first_that_looks_at_signatures_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Key::new("first"), Key::new("second"));
    let [one, two] = [("one", &first), ("two", &second)].map(|(listener, key)| {
        let (_, setting) = keys_in(dir.path(), listener, &[key]);
        format!("listener.name.{listener}.{setting}")
    });
    let settings = [
        "listeners=PLAINTEXT://127.0.0.1:0,OPEN://127.0.0.1:0,ONE://127.0.0.1:0,TWO://127.0.0.1:0",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OPEN:SASL_PLAINTEXT,ONE:SASL_PLAINTEXT,TWO:SASL_PLAINTEXT",
        "inter.broker.listener.name=PLAINTEXT",
        "sasl.enabled.mechanisms=OAUTHBEARER",
        "listener.name.open.sasl.oauthbearer.unsecured=true",
        &one,
        &two,
    ];
    let broker = start(&dir.path().join("data"), &settings);
    let_look(&broker, "alice");
    let b64 = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let claims = json!({"sub": "alice", "aud": "kafka", "iss": "https://id.example",
        "exp": now() + 600});
    let unsigned = format!(
        "{}.{}.",
        b64("{\"alg\":\"none\"}"),
        b64(&claims.to_string())
    );
    assert_eq!(status(&broker, &bearer(&first.token("alice", 600))), 200);
    assert_eq!(status(&broker, &bearer(&second.token("alice", 600))), 401);
    assert_eq!(status(&broker, &bearer(&unsigned)), 401);
    broker.stop();
}

/// Whether the listener of this number takes a token.
fn takes(broker: &Running, listener: usize, token: &str) -> bool {
    let mut client = Asking::plain(broker.broker().addresses()[listener]);
    let is_let_in = client.authenticate(Mechanism::OAuthBearer, ("", token)).0 == 0;
    // Not only to be sent away with the next request.
    is_let_in && client.ask(9, &MetadataRequest::default()).is_some()
}

#[test]
fn a_token_that_names_the_brokers_user_opens_the_listener_between_brokers_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (brokers, users) = (Key::new("brokers"), Key::new("users"));
    let [inside, outside] = [("inside", &brokers), ("outside", &users)].map(|(listener, key)| {
        let (_, setting) = keys_in(dir.path(), listener, &[key]);
        format!("listener.name.{listener}.{setting}")
    });
    let common = [
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INSIDE:SASL_PLAINTEXT,OUTSIDE:SASL_PLAINTEXT",
        "inter.broker.listener.name=INSIDE",
        "inter.broker.user=broker",
        "sasl.oauthbearer.token.endpoint.url=file:///token",
        "sasl.enabled.mechanisms=OAUTHBEARER",
        &inside,
    ];
    let [own, alice] = ["broker", "alice"].map(|user| brokers.token(user, 600));
    let both = [
        "listeners=INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0",
        &outside,
    ];
    let broker = start(&dir.path().join("both"), &[&common[..], &both].concat());
    assert!(takes(&broker, 0, &own));
    assert_eq!(status(&broker, &bearer(&own)), 401);
    let forged = users.token("broker", 600);
    assert!(!takes(&broker, 1, &forged));
    assert_eq!(status(&broker, &bearer(&forged)), 401);
    // Known, without rights as yet.
    assert_eq!(status(&broker, &bearer(&users.token("alice", 600))), 403);
    assert_eq!(status(&broker, &bearer(&alice)), 401);
    broker.stop();
    // Where there is no other listener.
    let one = ["listeners=INSIDE://127.0.0.1:0"];
    let broker = start(&dir.path().join("one"), &[&common[..], &one].concat());
    assert!(takes(&broker, 0, &own));
    assert_eq!(status(&broker, &bearer(&own)), 401);
    assert_eq!(status(&broker, &bearer(&alice)), 403);
    broker.stop();
}

#[test]
fn an_expired_token_is_no_guess_and_opens_no_session_that_is_dead_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("a");
    let (_, url) = keys_in(dir.path(), "keys.json", &[&key]);
    let broker = start(
        &dir.path().join("data"),
        &[WITH_PROVIDER, &[&*url]].concat(),
    );
    let_look(&broker, "alice");
    // Listeners take it: their clocks may differ by 30 s.
    let just_over = key.token("alice", -5);
    assert!(takes(&broker, 1, &just_over));
    assert_eq!(log_in(&broker, &[("token", &just_over)]).status, 401);
    let expired = bearer(&key.token("alice", -600));
    std::thread::scope(|scope| {
        for _ in 0..25 {
            scope.spawn(|| {
                let began = Instant::now();
                assert_eq!(status(&broker, &expired), 401);
                assert!(began.elapsed() >= Duration::from_millis(300));
            });
        }
    });
    assert_eq!(status(&broker, &bearer(&key.token("alice", 600))), 200);
    broker.stop();
}

#[test]
fn without_a_listener_that_takes_them_no_token_of_a_provider_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = "listeners=PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0";
    let broker = start(dir.path(), &[listeners]);
    let token = Key::new("a").token("alice", 600);
    let answer = get(&broker, "/api/cluster", &bearer(&token));
    assert_eq!(answer.error(), (401, "wrong_token".to_owned()));
    assert!(!answer.head.contains("www-authenticate: Bearer"));
    assert!(answer.body.contains("the token is not the dashboard's"));
    broker.stop();
}

/// The admin's connection to the second listener.
fn of_admin(broker: &Running) -> Asking {
    let mut client = Asking::plain(broker.broker().addresses()[1]);
    let mechanism = Mechanism::Scram(ScramMechanism::Sha256);
    assert_eq!(client.authenticate(mechanism, ADMIN).0, 0);
    client
}

/// A delegation token of a user that is good for so long; the admin may remove it.
fn token_of(broker: &Running, owner: &str, lifetime_ms: i64) -> CreateDelegationTokenResponse {
    let admin = CreatableRenewers::default()
        .with_principal_type(text("User"))
        .with_principal_name(text("admin"));
    let request = CreateDelegationTokenRequest::default()
        .with_owner_principal_type(Some(text("User")))
        .with_owner_principal_name(Some(text(owner)))
        .with_renewers(vec![admin])
        .with_max_lifetime_ms(lifetime_ms);
    let made = of_admin(broker).ask(3, &request).unwrap();
    assert_eq!(made.error_code, 0);
    made
}

/// User and password of a delegation token.
fn pair(made: &CreateDelegationTokenResponse) -> (String, String) {
    (made.token_id.to_string(), BASE64.encode(&made.hmac))
}

const WITH_SCRAM: &[&str] = &[
    "listeners=PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0",
    "sasl.enabled.mechanisms=SCRAM-SHA-256",
];

#[test]
fn a_delegation_token_logs_in_as_its_owner_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), WITH_SCRAM);
    let made = token_of(&broker, "vera", -1);
    let (id, hmac) = pair(&made);
    let known = basic((&id, &hmac));
    wait_for("the token", || status(&broker, &known) == 403);
    let_look(&broker, "vera");
    assert_eq!(status(&broker, &known), 200);
    assert_eq!(get(&broker, "/api/configuration", &known).status, 403);
    let file = dir.path().join("client.properties");
    let properties = format!(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=x required username=\"{id}\" password=\"{hmac}\" tokenauth=\"true\";\n"
    );
    assert!(shows_cluster(&broker, &file, &properties));
    let login = log_in(&broker, &[("user", &id), ("password", &hmac)]);
    assert_eq!(login.status, 303, "{login:?}");
    let session = login.session();
    let page = get(&broker, "/", &session);
    assert!(page.body.contains("Logged in as vera"), "{page:?}");
    let stream = live(&broker, &session);
    // What is wrong is refused as a wrong password is.
    let wrong = [
        (id.as_str(), "x"),
        (&id, &hmac[1..]),
        ("another", &hmac),
        ("vera", &hmac),
    ];
    for who in wrong {
        let answer = get(&broker, "/api/cluster", &basic(who));
        assert_eq!(answer.error(), (401, "wrong_password".to_owned()));
    }
    let removal = ExpireDelegationTokenRequest::default()
        .with_hmac(made.hmac.clone())
        .with_expiry_time_period_ms(-1);
    assert_eq!(of_admin(&broker).ask(2, &removal).unwrap().error_code, 0);
    wait_for("the removal", || status(&broker, &known) == 401);
    assert_eq!(status(&broker, &session), 401);
    assert!(ends(stream));
    broker.stop();
}

#[test]
fn a_delegation_token_that_expires_ends_its_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), WITH_SCRAM);
    let_look(&broker, "vera");
    let (id, hmac) = pair(&token_of(&broker, "vera", 12_000));
    let known = basic((&id, &hmac));
    wait_for("the token", || status(&broker, &known) == 200);
    let session = log_in(&broker, &[("user", &id), ("password", &hmac)]).session();
    assert_eq!(status(&broker, &session), 200);
    wait_for("its end", || status(&broker, &session) == 401);
    assert_eq!(status(&broker, &known), 401);
    broker.stop();
}

#[test]
fn who_tries_delegation_tokens_ends_the_addresss_patience() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), WITH_SCRAM);
    let_look(&broker, "vera");
    let (id, hmac) = pair(&token_of(&broker, "vera", -1));
    let known = basic((&id, &hmac));
    wait_for("the token", || status(&broker, &known) == 200);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| get(&broker, "/api/cluster", &basic((&id, "guessed"))));
        }
    });
    assert_eq!(status(&broker, &known), 429);
    broker.stop();
}
