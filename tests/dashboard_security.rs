//! The dashboard of a broker that asks who one is: logins, rights, sessions, TLS, and what the audit log is told. The Kafka
//! port of these brokers takes everybody as a super user, so that a test can make users and rights by it.

mod common;
#[path = "common/visiting.rs"]
mod visiting;

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Client, Running, batch, wait_for};
use metaq::security::{ScramMechanism, salted_password};
use metaq_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use metaq_protocol::messages::create_acls_request::AclCreation;
use metaq_protocol::messages::delete_acls_request::DeleteAclsFilter;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::{
    AlterUserScramCredentialsRequest, CreateAclsRequest, DeleteAclsRequest, OffsetCommitRequest,
};
use metaq_protocol::protocol::StrBytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use visiting::{Answer, FORM, JSON, ask, basic, connect, ends, get, live, login, request};

const TOKEN: &str = "the token of these tests";
const ADMIN: (&str, &str) = ("admin", "planted-admin-password");
const VERA: (&str, &str) = ("vera", "planted-vera-password");
const OLGA: (&str, &str) = ("olga", "planted-olga-password");

const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: (i8, &str) = (4, "kafka-cluster");
const READ: i8 = 3;
const CREATE: i8 = 5;
const DELETE: i8 = 6;
const ALTER: i8 = 7;
const DESCRIBE: i8 = 8;
const DESCRIBE_CONFIGS: i8 = 10;
const ALTER_CONFIGS: i8 = 11;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

/// A broker that asks who one is, and decides by lists.
fn secured(data: &Path, more: &[&str]) -> Running {
    let token = format!("dashboard.token={TOKEN}");
    let mut settings = vec![
        token.as_str(),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
        "admin.user=admin",
        "admin.password=planted-admin-password",
    ];
    settings.extend(more);
    Running::start(data, &settings)
}

fn set_password(client: &mut Client, (user, password): (&str, &str)) {
    let (salt, salted) = salted_password(ScramMechanism::Sha256, password, 4096);
    let upsertion = ScramCredentialUpsertion::default()
        .with_name(text(user))
        .with_mechanism(1)
        .with_iterations(4096)
        .with_salt(salt.into())
        .with_salted_password(salted.into());
    let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
    assert_eq!(client.ask(0, &request).results[0].error_code, 0);
}

fn remove(client: &mut Client, user: &str) {
    let deletion = ScramCredentialDeletion::default()
        .with_name(text(user))
        .with_mechanism(1);
    let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
    assert_eq!(client.ask(0, &request).results[0].error_code, 0);
}

fn allow(client: &mut Client, user: &str, operation: i8, (resource, name): (i8, &str)) {
    let binding = AclCreation::default()
        .with_resource_type(resource)
        .with_resource_name(text(name))
        .with_resource_pattern_type(3)
        .with_principal(text(&format!("User:{user}")))
        .with_host(text("*"))
        .with_operation(operation)
        .with_permission_type(3);
    let request = CreateAclsRequest::default().with_creations(vec![binding]);
    assert_eq!(client.ask(3, &request).results[0].error_code, 0);
}

/// Takes all rights from a user.
fn forbid(client: &mut Client, user: &str) {
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(1)
        .with_resource_name_filter(None)
        .with_host_filter(None)
        .with_pattern_type_filter(1)
        .with_principal_filter(Some(text(&format!("User:{user}"))))
        .with_operation(1)
        .with_permission_type(1);
    let request = DeleteAclsRequest::default().with_filters(vec![filter]);
    assert_eq!(client.ask(3, &request).filter_results[0].error_code, 0);
}

fn commit(client: &mut Client, group: &str, topics: &[&str]) {
    let topic = |topic: &&str| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        OffsetCommitRequestTopic::default()
            .with_name(common::name(topic))
            .with_partitions(vec![partition])
    };
    let request = OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.iter().map(topic).collect());
    let answer = client.ask(8, &request);
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.for_each(|partition| assert_eq!(partition.error_code, 0));
}

/// topics `open` and `concealed` with messages and a group of each; vera, who may look at the cluster and at what is open, and olga,
/// who may do what operators do.
fn furnish(broker: &Running) -> Client {
    let mut client = broker.client();
    for topic in ["open", "concealed"] {
        client.create(topic);
        assert_eq!(client.produce(topic, batch(5)).0, 0);
    }
    commit(&mut client, "readers", &["open", "concealed"]);
    commit(&mut client, "secret-readers", &["concealed"]);
    set_password(&mut client, VERA);
    set_password(&mut client, OLGA);
    allow(&mut client, "vera", DESCRIBE, CLUSTER);
    allow(&mut client, "vera", DESCRIBE, (TOPIC, "open"));
    allow(&mut client, "vera", DESCRIBE, (GROUP, "readers"));
    for operation in [DESCRIBE, ALTER, CREATE, ALTER_CONFIGS, DESCRIBE_CONFIGS] {
        allow(&mut client, "olga", operation, CLUSTER);
    }
    for operation in [READ, DELETE, ALTER, ALTER_CONFIGS] {
        allow(&mut client, "olga", operation, (TOPIC, "*"));
    }
    for operation in [READ, DELETE] {
        allow(&mut client, "olga", operation, (GROUP, "*"));
    }
    client
}

fn start(more: &[&str]) -> (tempfile::TempDir, Running, Client) {
    let dir = tempfile::tempdir().unwrap();
    let broker = secured(dir.path(), more);
    let client = furnish(&broker);
    (dir, broker, client)
}

#[test]
fn who_is_not_known_is_asked_to_log_in_and_sees_what_is_for_load_balancers_alone() {
    let (_dir, broker, _client) = start(&[]);
    for path in [
        "/",
        "/topics",
        "/topics/open",
        "/groups",
        "/nothing",
        "/log",
    ] {
        let answer = get(&broker, path, "");
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.body.contains("name=\"password\""), "{path}");
        assert!(!answer.body.contains("readers"), "{path}");
    }
    for path in [
        "/api/broker",
        "/api/topics",
        "/api/nothing",
        "/api/live",
        "/api/openapi.json",
    ] {
        let answer = get(&broker, path, "");
        assert_eq!(answer.error(), (401, "not_known".to_owned()), "{path}");
        assert!(answer.head.contains("www-authenticate: Basic"), "{path}");
        // A browser would ask its user.
        let by_script = get(&broker, path, "Sec-Fetch-Mode: cors\r\n");
        assert!(!by_script.head.contains("www-authenticate"), "{path}");
    }
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/login",
        "/assets/style.css",
    ] {
        assert_eq!(get(&broker, path, "").status, 200, "{path}");
    }
    let create = ask(&broker, "POST", "/api/topics", JSON, r#"{"name": "made"}"#);
    assert_eq!(create.status, 401);
    let form = format!("name=made&token={}", "wrong");
    assert_eq!(ask(&broker, "POST", "/topics", FORM, &form).status, 401);
    broker.stop();
}

#[test]
fn users_log_in_with_their_password_by_header_and_by_form() {
    let (_dir, broker, _client) = start(&[]);
    for user in [ADMIN, VERA, OLGA] {
        assert_eq!(get(&broker, "/api/broker", &basic(user)).status, 200);
        let login = login(&broker, user);
        assert_eq!(login.status, 303, "{login:?}");
        assert!(login.head.contains("location: /topics"), "{login:?}");
        let page = get(&broker, "/", &login.session());
        assert!(page.status == 200 && page.body.contains("Log out"));
        assert!(page.body.contains(&format!("Logged in as {}", user.0)));
        let out = ask(&broker, "POST", "/logout", &login.session(), "");
        assert_eq!(out.status, 303);
        assert_eq!(get(&broker, "/", &login.session()).status, 401);
    }
    assert_eq!(get(&broker, "/api/broker", &bearer()).status, 200);
    broker.stop();
}

#[test]
fn wrong_passwords_and_unknown_users_are_told_apart_by_nothing_and_end_with_the_addresss_patience()
{
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let path = format!("audit.log.path={}", log.display());
    let broker = secured(&dir.path().join("data"), &[&path]);
    let mut client = furnish(&broker);
    let session = login(&broker, VERA).session();
    let wrong = [
        ("vera", "x"),
        ("nobody", "x"),
        ("admin", "x"),
        ("nobody", ""),
    ];
    let answers = wrong.map(|who| {
        let began = Instant::now();
        let answer = get(&broker, "/api/topics", &basic(who));
        assert!(began.elapsed() >= Duration::from_millis(300), "{who:?}");
        answer.body
    });
    assert!(
        answers.iter().all(|answer| answer == &answers[0]),
        "{answers:?}"
    );
    assert!(answers[0].contains("wrong_password"));
    assert_eq!(login(&broker, ("vera", "x")).status, 401);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| get(&broker, "/api/topics", &basic(("vera", "guessed"))));
        }
    });
    let refused = get(&broker, "/api/topics", &basic(VERA));
    assert_eq!(refused.error(), (429, "too_many_logins".to_owned()));
    assert_eq!(login(&broker, VERA).status, 429);
    assert_eq!(get(&broker, "/api/topics", &bearer()).status, 429);
    // Who is in stays in.
    assert_eq!(get(&broker, "/api/topics", &session).status, 200);
    let said = |parts: &[&str]| {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        let mut lines = lines.lines();
        lines.any(|line| parts.iter().all(|part| line.contains(part)))
    };
    for user in ["\"vera\"", "\"nobody\""] {
        let parts = [user, "\"login\"", "refused", "127.0.0.1", "DASHBOARD"];
        wait_for("a line", || said(&parts));
    }
    assert!(!std::fs::read_to_string(&log).unwrap().contains("guessed"));
    client.create("still-served");
    broker.stop();
}

const PLAN: &str = r#"{"topic": "open", "to": "earliest", "execute": true}"#;

/// What changes something: method, path and body.
const ACTIONS: &[(&str, &str, &str)] = &[
    ("POST", "/api/topics", r#"{"name": "made"}"#),
    (
        "PATCH",
        "/api/topics/open",
        r#"{"set": {"retention.ms": "5000"}}"#,
    ),
    ("POST", "/api/topics/open/partitions", r#"{"count": 2}"#),
    ("POST", "/api/topics/open/partitions/0/close", ""),
    ("POST", "/api/topics/open/partitions/0/open", ""),
    ("POST", "/api/groups/readers/offsets", PLAN),
    ("POST", "/api/configuration/reload", ""),
    ("DELETE", "/api/groups/secret-readers", ""),
    ("DELETE", "/api/topics/open", ""),
];

#[test]
fn a_viewer_may_look_and_not_act_and_an_operator_may() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let path = format!("audit.log.path={}", log.display());
    let broker = secured(&dir.path().join("data"), &[&path]);
    let _client = furnish(&broker);
    let [vera, olga] = [VERA, OLGA].map(|user| format!("{JSON}{}", basic(user)));
    for path in [
        "/",
        "/api/broker",
        "/api/cluster",
        "/api/events",
        "/api/clients",
        "/process",
        "/log",
    ] {
        assert_eq!(get(&broker, path, &vera).status, 200, "{path}");
    }
    for path in ["/api/configuration", "/configuration", "/api/meta/tree"] {
        assert_eq!(get(&broker, path, &vera).status, 403, "{path}");
    }
    for (method, path, body) in ACTIONS {
        let answer = ask(&broker, method, path, &vera, body);
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
    }
    for verb in ["commit", "abort", "forget"] {
        let path = format!("/api/transactions/x/{verb}");
        assert_eq!(ask(&broker, "POST", &path, &vera, "").status, 403);
        assert_eq!(ask(&broker, "POST", &path, &olga, "").status, 404);
    }
    for (method, path, body) in ACTIONS {
        let answer = ask(&broker, method, path, &olga, body);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    }
    // The tree has what is kept of passwords.
    assert_eq!(get(&broker, "/api/meta/tree", &olga).status, 403);
    for all in [basic(ADMIN), bearer()] {
        assert_eq!(get(&broker, "/api/meta/tree", &all).status, 200);
    }
    let told = get(&broker, "/api/events?kind=action", &olga).json();
    assert_eq!(told["events"][0]["who"], "olga (127.0.0.1)");
    let said = |parts: &[&str]| {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        let mut lines = lines.lines();
        lines.any(|line| parts.iter().all(|part| line.contains(part)))
    };
    for parts in [
        [
            "User:vera",
            "DELETE /api/topics/{topic}",
            "[\"open\"]",
            "refused",
        ],
        ["User:vera", "CreateTopics", "topic made", "refused"],
        [
            "User:olga",
            "DELETE /api/topics/{topic}",
            "[\"open\"]",
            "asked",
        ],
        ["User:olga", "DeleteTopics", "[\"open\"]", "asked"],
        [
            "User:olga",
            "POST /api/groups/{group}/offsets",
            "[\"readers\"]",
            "asked",
        ],
        [
            "User:olga",
            "/api/transactions/{id}/abort",
            "[\"x\"]",
            "asked",
        ],
    ] {
        wait_for("a line", || said(&parts));
    }
    broker.stop();
}

#[test]
fn forms_are_held_to_the_same_rights() {
    let (_dir, broker, mut client) = start(&[]);
    let form = |user, path: &str, body: &str| {
        let session = login(&broker, user).session();
        ask(&broker, "POST", path, &format!("{FORM}{session}"), body).status
    };
    for (path, body) in [
        ("/topics", "name=made"),
        ("/topics/open/alter", "settings=retention.ms%3D5"),
        ("/topics/open/delete", "confirm=open"),
        ("/groups/readers/reset", "topic=open&to=earliest&do=execute"),
        ("/groups/readers/delete", "confirm=readers"),
    ] {
        assert_eq!(form(VERA, path, body), 403, "{path}");
    }
    assert_eq!(form(OLGA, "/topics", "name=made"), 303);
    assert_eq!(form(OLGA, "/topics/made/delete", "confirm=made"), 303);
    // A right to the group is not one to the topic.
    allow(&mut client, "vera", READ, (GROUP, "readers"));
    let reset = "topic=open&to=earliest&do=execute";
    assert_eq!(form(VERA, "/groups/readers/reset", reset), 403);
    allow(&mut client, "vera", READ, (TOPIC, "open"));
    assert_eq!(form(VERA, "/groups/readers/reset", reset), 200);
    broker.stop();
}

#[test]
fn messages_are_for_who_may_read_the_topic() {
    let (_dir, broker, mut client) = start(&[]);
    let status = |path: &str| get(&broker, path, &basic(VERA)).status;
    let messages = "/api/topics/open/partitions/0/messages";
    let page = "/topics/open/partitions/0/messages";
    assert_eq!(
        (status("/api/topics/open"), status(messages), status(page)),
        (200, 403, 403)
    );
    allow(&mut client, "vera", READ, (TOPIC, "open"));
    assert_eq!((status(messages), status(page)), (200, 200));
    let found = get(&broker, messages, &basic(VERA)).json();
    assert_eq!(found["messages"].as_array().unwrap().len(), 5);
    assert_eq!(status("/api/topics/concealed/partitions/0/messages"), 403);
    broker.stop();
}

#[test]
fn what_a_visitor_may_not_describe_is_not_there() {
    let (_dir, broker, mut client) = start(&[]);
    let vera = basic(VERA);
    let names = |path: &str, field: &str| {
        let answer = get(&broker, path, &vera).json();
        let items = answer["items"].as_array().unwrap();
        let names = items
            .iter()
            .map(|item| item[field].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), answer["total"].as_u64().unwrap())
    };
    assert_eq!(names("/api/topics", "name"), (vec!["open".to_owned()], 1));
    assert_eq!(
        names("/api/groups", "group_id"),
        (vec!["readers".to_owned()], 1)
    );
    // Whether there is such a topic is not told.
    let [hidden, nothing] =
        ["concealed", "nothing"].map(|name| get(&broker, &format!("/api/topics/{name}"), &vera));
    let blurred = |answer: &Answer, name: &str| (answer.status, answer.body.replace(name, "x"));
    assert_eq!(blurred(&hidden, "concealed"), blurred(&nothing, "nothing"));
    assert_eq!(hidden.status, 403);
    let group = get(&broker, "/api/groups/readers", &vera).json();
    let rows = group["partitions"].as_array().unwrap();
    assert!(rows.len() == 1 && rows[0]["topic"] == "open", "{group}");
    assert_eq!(
        get(&broker, "/api/groups/secret-readers", &vera).status,
        403
    );
    let topic = get(&broker, "/api/topics/open", &vera).json();
    assert_eq!(topic["groups"], serde_json::json!(["readers"]));
    assert_eq!(topic["configurations"], serde_json::json!([]));
    for path in [
        "/",
        "/topics",
        "/groups",
        "/groups/readers",
        "/topics/open",
        "/api/history",
    ] {
        let answer = get(&broker, path, &vera);
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            !answer.body.contains("concealed"),
            "{path}: {}",
            answer.body
        );
        assert!(!answer.body.contains("secret-readers"), "{path}");
    }
    allow(&mut client, "vera", DESCRIBE, (TOPIC, "concealed"));
    assert_eq!(names("/api/topics", "name").1, 2);
    // Without a right to the cluster there are its own topics alone.
    forbid(&mut client, "vera");
    allow(&mut client, "vera", READ, (TOPIC, "open"));
    assert_eq!(names("/api/topics", "name"), (vec!["open".to_owned()], 1));
    assert_eq!(
        get(&broker, "/api/broker", &vera).error(),
        (403, "not_allowed".to_owned())
    );
    assert_eq!(get(&broker, "/", &vera).status, 403);
    broker.stop();
}

#[test]
fn a_user_that_is_removed_or_has_another_password_is_out() {
    let (_dir, broker, mut client) = start(&[]);
    let [vera, olga] = [VERA, OLGA].map(|user| login(&broker, user).session());
    let status = |headers: &str| get(&broker, "/api/cluster", headers).status;
    let stream = live(&broker, &vera);
    assert_eq!((status(&vera), status(&basic(VERA))), (200, 200));
    remove(&mut client, "vera");
    assert_eq!((status(&vera), status(&basic(VERA))), (401, 401));
    assert!(ends(stream));
    assert_eq!(status(&olga), 200, "others stay");
    // Who comes back under the name is somebody else.
    set_password(&mut client, VERA);
    assert_eq!((status(&vera), status(&basic(VERA))), (401, 200));
    let stream = live(&broker, &olga);
    set_password(&mut client, ("olga", "another"));
    assert_eq!((status(&olga), status(&basic(OLGA))), (401, 401));
    assert!(ends(stream));
    assert_eq!(status(&basic(("olga", "another"))), 200);
    broker.stop();
}

#[test]
fn a_right_that_is_taken_is_gone_for_who_is_logged_in() {
    let (_dir, broker, mut client) = start(&[]);
    let vera = login(&broker, VERA).session();
    let stream = live(&broker, &vera);
    assert_eq!(get(&broker, "/api/cluster", &vera).status, 200);
    forbid(&mut client, "vera");
    assert_eq!(get(&broker, "/api/cluster", &vera).status, 403);
    assert_eq!(get(&broker, "/api/topics", &vera).json()["total"], 0);
    assert!(ends(stream));
    broker.stop();
}

#[test]
fn live_values_name_what_the_viewer_may_see() {
    let (_dir, broker, mut client) = start(&[]);
    let values = |headers: &str| {
        let mut stream = live(&broker, headers);
        let mut line = String::new();
        let mut all = String::new();
        let until = Instant::now() + Duration::from_secs(7);
        while Instant::now() < until {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0);
            all.push_str(&line);
        }
        all
    };
    std::thread::scope(|scope| {
        let of_vera = scope.spawn(|| values(&basic(VERA)));
        let of_admin = scope.spawn(|| values(&basic(ADMIN)));
        let until = Instant::now() + Duration::from_secs(7);
        while Instant::now() < until {
            for topic in ["open", "concealed"] {
                client.produce(topic, batch(1));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let (vera, admin) = (of_vera.join().unwrap(), of_admin.join().unwrap());
        for name in [
            "\"open\"",
            "\"readers\"",
            "\"concealed\"",
            "\"secret-readers\"",
        ] {
            assert!(admin.contains(name), "{name}: {admin}");
        }
        assert!(
            vera.contains("\"open\"") && vera.contains("\"readers\""),
            "{vera}"
        );
        assert!(
            !vera.contains("concealed") && !vera.contains("secret-readers"),
            "{vera}"
        );
    });
    broker.stop();
}

#[test]
fn a_session_that_is_not_used_ends() {
    let (_dir, broker, _client) = start(&["dashboard.session.idle.ms=1500"]);
    let [vera, token] = [
        login(&broker, VERA),
        ask(
            &broker,
            "POST",
            "/login",
            FORM,
            &format!("token={}", TOKEN.replace(' ', "+")),
        ),
    ]
    .map(|login| login.session());
    let until = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < until {
        assert_eq!(get(&broker, "/api/topics", &vera).status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(get(&broker, "/api/topics", &token).status, 401);
    std::thread::sleep(Duration::from_millis(1700));
    assert_eq!(get(&broker, "/api/topics", &vera).status, 401);
    broker.stop();
}

#[test]
fn another_sites_page_cannot_act_for_who_is_logged_in() {
    let (_dir, broker, _client) = start(&[]);
    let session = login(&broker, OLGA);
    let cookie = session.cookie();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "this port has no TLS: {cookie}");
    // A browser that asked its user for a password sends it along for other sites' pages too.
    for known in [session.session(), basic(OLGA)] {
        let create = |headers: &str| {
            let headers = format!("{FORM}{known}{headers}");
            ask(&broker, "POST", "/topics", &headers, "name=forged").status
        };
        assert_eq!(create("Origin: http://evil.example\r\n"), 403);
        assert_eq!(create("Origin: null\r\n"), 403);
        assert_eq!(create("Sec-Fetch-Site: cross-site\r\n"), 403);
        assert_eq!(create("Sec-Fetch-Site: same-site\r\n"), 403);
    }
    let evil = format!("{FORM}Origin: http://evil.example\r\n");
    let form = format!("user={}&password={}", OLGA.0, OLGA.1);
    assert_eq!(ask(&broker, "POST", "/login", &evil, &form).status, 403);
    let out = format!("{}Origin: http://evil.example\r\n", session.session());
    assert_eq!(ask(&broker, "POST", "/logout", &out, "").status, 403);
    let own = format!(
        "{FORM}{}Origin: http://localhost:8120\r\n",
        session.session()
    );
    assert_eq!(get(&broker, "/api/topics/forged", &basic(OLGA)).status, 404);
    assert_eq!(
        ask(&broker, "POST", "/topics", &own, "name=forged").status,
        303
    );
    broker.stop();
}

#[test]
fn without_an_authorizer_every_user_may_do_everything() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(
        dir.path(),
        &[
            "listeners=SASL_PLAINTEXT://127.0.0.1:0",
            "admin.user=admin",
            "admin.password=planted-admin-password",
        ],
    );
    assert_eq!(get(&broker, "/api/topics", "").status, 401);
    let admin = format!("{JSON}{}", basic(ADMIN));
    let create = ask(
        &broker,
        "POST",
        "/api/topics",
        &admin,
        r#"{"name": "made"}"#,
    );
    assert_eq!(create.status, 200, "{create:?}");
    assert_eq!(get(&broker, "/api/meta/tree", &admin).status, 200);
    broker.stop();
}

#[test]
fn where_nobody_has_to_say_who_it_is_users_are_not_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let token = format!("dashboard.token={TOKEN}");
    let broker = Running::start(dir.path(), &[&token]);
    let mut client = broker.client();
    set_password(&mut client, VERA);
    assert_eq!(get(&broker, "/api/topics", "").status, 200);
    let vera = format!("{JSON}{}", basic(VERA));
    let create = ask(&broker, "POST", "/api/topics", &vera, r#"{"name": "made"}"#);
    assert_eq!(create.error(), (401, "no_token".to_owned()));
    assert_eq!(login(&broker, VERA).status, 401);
    assert!(
        !get(&broker, "/login", "")
            .body
            .contains("name=\"password\"")
    );
    broker.stop();
}

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for localhost, and its key.
    fn write(&self, dir: &Path) {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(dir.join("dashboard.key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("dashboard.pem"), certificate.pem()).unwrap();
    }
}

fn with_tls(dir: &Path, more: &[&str]) -> Running {
    let file = |key: &str, name: &str| format!("{key}={}", dir.join(name).display());
    let files = [
        file("dashboard.tls.certificate", "dashboard.pem"),
        file("dashboard.tls.key", "dashboard.key"),
    ];
    let mut settings = vec!["dashboard.tls=true"];
    settings.extend(files.iter().map(String::as_str));
    settings.extend(more);
    secured(&dir.join("data"), &settings)
}

/// An answer by TLS, and the certificate that was shown.
fn ask_tls(
    broker: &Running,
    trusted: &Authority,
    asked: &str,
) -> std::io::Result<(Answer, Vec<u8>)> {
    let mut roots = RootCertStore::empty();
    let pem = trusted.0.pem();
    let trusted = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, connect(broker));
    stream.write_all(asked.as_bytes())?;
    stream.flush()?;
    let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
    Ok((Answer::read(stream), shown))
}

#[test]
fn the_port_has_tls_with_certificates_that_change_while_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write(dir.path());
    let broker = with_tls(dir.path(), &[]);
    furnish(&broker);
    assert!(broker.broker().ready_line().contains("dashboard https://"));
    let asked = request("GET", "/api/broker", &basic(VERA), "");
    let (answer, shown) = ask_tls(&broker, &authority, &asked).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(ask_tls(&broker, &other, &asked).is_err());
    let form = format!("user={}&password={}", VERA.0, VERA.1);
    let form = request("POST", "/login", FORM, &form);
    let (login, _) = ask_tls(&broker, &authority, &form).unwrap();
    assert!(login.cookie().ends_with("; Secure"), "{login:?}");
    // What is wrong changes nothing.
    std::fs::write(dir.path().join("dashboard.pem"), "nonsense").unwrap();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(ask_tls(&broker, &authority, &asked).unwrap().1, shown);
    authority.write(dir.path());
    wait_for("the new certificate", || {
        ask_tls(&broker, &authority, &asked).unwrap().1 != shown
    });
    broker.stop();
}

#[test]
fn plain_http_on_a_port_with_tls_is_told_so_and_learns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path());
    let broker = with_tls(dir.path(), &[]);
    for path in ["/", "/healthz", "/metrics"] {
        let answer = get(&broker, path, &bearer());
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("https://"), "{answer:?}");
        assert!(answer.body.len() < 100, "{answer:?}");
    }
    let asked = request("GET", "/healthz", "", "");
    assert_eq!(ask_tls(&broker, &authority, &asked).unwrap().0.status, 200);
    broker.stop();
}

#[test]
fn half_handshakes_are_bounded_and_end_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path());
    let broker = with_tls(
        dir.path(),
        &[
            "authentication.timeout.ms=1500",
            "dashboard.http.max.connections=20",
        ],
    );
    let failed = || {
        let failed = &broker.broker().context().metrics.handshakes_failed;
        failed.load(std::sync::atomic::Ordering::Relaxed)
    };
    let begun = Instant::now();
    let mut half: Vec<TcpStream> = (0..40).map(|_| connect(&broker)).collect();
    for stream in &mut half {
        let _ = stream.write_all(&[22, 3, 1, 2, 0, 1]);
    }
    // Half of the connections are the most that an address has; the Kafka port is not touched.
    let asked = request("GET", "/healthz", "", "");
    assert_ne!(
        ask_tls(&broker, &authority, &asked).map_or(0, |(answer, _)| answer.status),
        200
    );
    broker.client().create("still-served");
    for mut stream in half {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    wait_for("the handshakes to fail", || failed() >= 10);
    assert!(failed() <= 10, "{}", failed());
    assert_eq!(ask_tls(&broker, &authority, &asked).unwrap().0.status, 200);
    broker.stop();
}

#[test]
fn the_dashboard_has_the_certificate_of_the_listeners_where_it_has_none_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path());
    let file = |key: &str, name: &str| format!("{key}={}", dir.path().join(name).display());
    let broker = Running::start(
        &dir.path().join("data"),
        &[
            "listeners=SSL://127.0.0.1:0",
            &file("listener.name.ssl.tls.certificate", "dashboard.pem"),
            &file("listener.name.ssl.tls.key", "dashboard.key"),
            "dashboard.tls=true",
        ],
    );
    let asked = request("GET", "/healthz", "", "");
    assert_eq!(ask_tls(&broker, &authority, &asked).unwrap().0.status, 200);
    broker.stop();
}

#[test]
fn nothing_that_is_secret_is_on_any_page_in_any_answer_or_in_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let path = format!("audit.log.path={}", log.display());
    let broker = secured(
        &dir.path().join("data"),
        &[
            &path,
            "inter.broker.user=brokers",
            "inter.broker.password=planted-brokers-password",
        ],
    );
    let _client = furnish(&broker);
    let session = login(&broker, ADMIN).session();
    let id = session.split('=').nth(1).unwrap().trim().to_owned();
    login(&broker, ("vera", "planted-wrong-password"));
    get(
        &broker,
        "/api/topics",
        &basic(("vera", "planted-wrong-password")),
    );
    get(
        &broker,
        "/api/topics",
        "Authorization: Bearer planted-wrong-token\r\n",
    );
    for (method, path, body) in ACTIONS {
        ask(
            &broker,
            method,
            path,
            &format!("{JSON}{}", basic(OLGA)),
            body,
        );
        ask(
            &broker,
            method,
            path,
            &format!("{JSON}{}", basic(VERA)),
            body,
        );
    }
    let document = get(&broker, "/api/openapi.json", &session).json();
    let of_api = document["paths"].as_object().unwrap().keys().cloned();
    let of_api = of_api.filter(|path| path != "/api/live");
    let pages = [
        "/",
        "/topics",
        "/topics/concealed",
        "/topics/concealed/partitions/0",
        "/groups",
        "/groups/readers",
        "/transactions",
        "/clients",
        "/cluster",
        "/events",
        "/configuration",
        "/log?level=all",
        "/process",
        "/login",
        "/metrics",
        "/healthz",
        "/readyz",
        "/api/openapi.json",
        "/api/meta/tree",
        "/api/log?limit=1000",
        "/topics/concealed/partitions/0/messages",
    ];
    let filled = |path: String| {
        let path = path
            .replace("{topic}", "concealed")
            .replace("{partition}", "0");
        let path = path.replace("{group}", "readers").replace("{what}", "tree");
        path.replace("{id}", "x").replace("{number}", "1")
    };
    let paths = pages
        .into_iter()
        .map(str::to_owned)
        .chain(of_api.map(filled));
    let mut seen = 0;
    let secrets = ["planted-", TOKEN, id.as_str()];
    for path in paths {
        let answer = get(&broker, &path, &session);
        seen += usize::from(answer.status == 200);
        for secret in secrets {
            let told = format!("{}{}", answer.head, answer.body);
            assert!(!told.contains(secret), "{path} has {secret}: {told}");
        }
    }
    assert!(seen >= 30, "{seen} pages were looked at");
    wait_for("the audit log", || {
        std::fs::read_to_string(&log).is_ok_and(|lines| lines.contains("User:olga"))
    });
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(
        secrets.iter().all(|secret| !lines.contains(secret)),
        "{lines}"
    );
    broker.stop();
}
