//! Tokens of one's own (KIP-768): commands and brokers that log in with OAUTHBEARER, with a token in a file or of an identity provider
//! that gives them to who has a client id and its secret.

#[path = "common/asking.rs"]
mod asking;
#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/provider.rs"]
mod provider;
#[path = "common/visiting.rs"]
mod visiting;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use asking::Asking;
use cluster::{Cluster, LONG, within};
use common::Running;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use metaq::bearer_source::{BearerSource, BearerSourceSettings};
use metaq::security::{Mechanism, PemSource, ScramMechanism};
use provider::{Key, key_set, now};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

const ID: &str = "the-client";
const SECRET: &str = "planted-client-secret";

/// An identity provider's token endpoint.
struct Endpoint {
    url: String,
    asked: Arc<AtomicUsize>,
    /// The last request: its head and body.
    request: Arc<Mutex<String>>,
}

fn read_request(stream: impl Read) -> String {
    let mut lines = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        request.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    request + &String::from_utf8(body).unwrap()
}

impl Endpoint {
    /// It answers who has the secret with what `give` makes, and others with 401.
    fn start(give: impl Fn() -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Self {
            url: format!("http://{address}/oauth2/token?tenant=1"),
            asked: Arc::default(),
            request: Arc::default(),
        };
        let (asked, last) = (endpoint.asked.clone(), endpoint.request.clone());
        let known = BASE64.encode(format!("{ID}:{SECRET}").as_bytes());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&stream);
                let is_known = request.contains(&format!("authorization: Basic {known}\r\n"));
                let refusal = r#"{"error":"invalid_client","error_description":"no such client"}"#;
                let (status, body) = match is_known {
                    true => give(),
                    false => (401, refusal.to_owned()),
                };
                asked.fetch_add(1, Ordering::Relaxed);
                *last.lock().unwrap() = request;
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        endpoint
    }

    /// One that gives tokens about a user which are good for so many seconds.
    fn of(key: Arc<Key>, user: &'static str, seconds: i64) -> Self {
        Self::start(move || {
            let token = key.token(user, seconds);
            let answer = json!({"access_token": token, "token_type": "Bearer"});
            (200, answer.to_string())
        })
    }

    /// What asks it for tokens in this process.
    fn source(&self) -> BearerSource {
        let settings = BearerSourceSettings {
            url: self.url.clone(),
            id: ID.to_owned(),
            secret: SECRET.to_owned(),
            ..BearerSourceSettings::default()
        };
        BearerSource::new(settings).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The settings of a listener that takes a key's tokens.
fn taking(dir: &Path, key: &Key) -> Vec<String> {
    let file = dir.join("keys.json");
    std::fs::write(&file, key_set(&[key])).unwrap();
    [
        "sasl.enabled.mechanisms=OAUTHBEARER",
        "sasl.oauthbearer.expected.audience=kafka",
        "sasl.oauthbearer.expected.issuer=https://id.example",
        &format!(
            "sasl.oauthbearer.jwks.endpoint.url=file://{}",
            file.display()
        ),
    ]
    .map(str::to_owned)
    .into()
}

fn start(dir: &Path, key: &Key) -> Running {
    let mut settings = taking(dir, key);
    settings.push("listeners=SASL_PLAINTEXT://127.0.0.1:0".to_owned());
    settings.push("connection.failed.authentication.delay.ms=10".to_owned());
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Running::start(&dir.join("data"), &settings)
}

/// A file of client properties with these lines beside what all have.
fn properties(dir: &Path, lines: &[&str]) -> PathBuf {
    let file = dir.join("client.properties");
    let all = [
        "security.protocol=SASL_PLAINTEXT",
        "sasl.mechanism=OAUTHBEARER",
    ];
    std::fs::write(&file, [&all, lines].concat().join("\n")).unwrap();
    file
}

/// What `metaq` says with these words.
fn metaq(words: &[&str], address: &str, file: &Path) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(words)
        .args(["-b", address, "--command-config"])
        .arg(file)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

fn credentials(url: &str) -> [String; 3] {
    [
        format!("sasl.oauthbearer.token.endpoint.url={url}"),
        format!("sasl.oauthbearer.client.credentials.client.id={ID}"),
        format!("sasl.oauthbearer.client.credentials.client.secret={SECRET}"),
    ]
}

#[test]
fn a_command_asks_the_identity_provider_for_a_token_and_logs_in_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(Key::new("a"));
    let broker = start(dir.path(), &key);
    let address = broker.address().to_string();
    let endpoint = Endpoint::of(key, "alice", 600);
    let url = format!("sasl.oauthbearer.token.endpoint.url={}", endpoint.url);
    let older = format!(
        "sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=\"{ID}\" clientSecret=\"{SECRET}\" scope=\"kafka\";"
    );
    let file = properties(dir.path(), &[&url, &older]);
    metaq(&["topic", "create", "made"], &address, &file).unwrap();
    let request = endpoint.request.lock().unwrap().clone();
    assert!(request.starts_with("POST /oauth2/token?tenant=1 HTTP/1.1\r\n"));
    assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=kafka"));
    for header in [
        "content-type: application/x-www-form-urlencoded",
        "accept: application/json",
        "cache-control: no-cache",
    ] {
        assert!(request.contains(header), "{request}");
    }
    // In the newer words.
    let newer = credentials(&endpoint.url);
    let newer: Vec<&str> = newer.iter().map(String::as_str).collect();
    let file = properties(dir.path(), &newer);
    let list = metaq(&["topic", "list"], &address, &file).unwrap();
    assert!(list.contains("made"), "{list}");
    let request = endpoint.request.lock().unwrap().clone();
    assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials"));
    // The dashboard is asked with one too.
    let dashboard = broker.broker().dashboard_address().unwrap().to_string();
    let shown = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["cluster", "status", "-d", &dashboard, "--command-config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    broker.stop();
}

#[test]
fn why_there_is_no_token_is_said_in_clear_words() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(Key::new("a"));
    let broker = start(dir.path(), &key);
    let address = broker.address().to_string();
    let said = |lines: &[&str]| {
        let file = properties(dir.path(), lines);
        metaq(&["topic", "list"], &address, &file).unwrap_err()
    };
    let of_endpoint = |endpoint: &Endpoint| {
        let lines = credentials(&endpoint.url);
        said(&lines.each_ref().map(String::as_str))
    };
    let endpoint = Endpoint::of(key.clone(), "alice", 600);
    let mut lines = credentials(&endpoint.url);
    lines[2] = "sasl.oauthbearer.client.credentials.client.secret=wrong".to_owned();
    let why = said(&lines.each_ref().map(String::as_str));
    assert!(
        why.contains("gives no token: it answers 401")
            && why.contains("(invalid_client: no such client)"),
        "{why}"
    );
    let why = of_endpoint(&Endpoint::start(|| (200, "x".repeat((1 << 20) + 1))));
    assert!(why.contains("cannot be asked: length limit"), "{why}");
    let why = of_endpoint(&Endpoint::start(|| (500, "<html>".to_owned())));
    assert!(why.contains("it answers 500"), "{why}");
    let none = r#"{"token":"planted-other-token"}"#;
    let why = of_endpoint(&Endpoint::start(|| (200, none.to_owned())));
    assert!(
        why.contains("has no access_token") && !why.contains("planted"),
        "{why}"
    );
    let away = credentials("http://127.0.0.1:1/token");
    let why = said(&away.each_ref().map(String::as_str));
    assert!(why.contains("cannot be asked: "), "{why}");
    // Nor is it the dashboard's fault.
    let dashboard = broker.broker().dashboard_address().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["status", "-d", &dashboard, "--command-config"])
        .arg(properties(dir.path(), &away.each_ref().map(String::as_str)))
        .output()
        .unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    let asked = "was not asked: the token endpoint http://127.0.0.1:1/token cannot be asked: ";
    assert!(why.contains(&format!("{dashboard} {asked}")), "{why}");
    assert_eq!(output.status.code(), Some(4));
    let far = credentials("http://id.example/token");
    let why = said(&far.each_ref().map(String::as_str));
    assert!(why.contains("the identity provider needs https"), "{why}");
    let why = said(&[&lines[0], &lines[1]]);
    assert!(why.contains("client.secret is not set"), "{why}");
    let why = said(&["sasl.oauthbearer.token.endpoint.url=file:///no/such/file"]);
    assert!(
        why.contains("cannot read the token in /no/such/file"),
        "{why}"
    );
    // A token that the broker does not take.
    let why = of_endpoint(&Endpoint::of(Arc::new(Key::new("b")), "alice", 600));
    assert!(why.contains("invalid_token"), "{why}");
    broker.stop();
}

#[test]
fn who_goes_on_for_long_asks_for_another_token_when_most_of_the_first_ones_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(Key::new("a"));
    let broker = start(dir.path(), &key);
    let endpoint = Endpoint::of(key, "alice", 12);
    let lines = credentials(&endpoint.url);
    let file = properties(dir.path(), &lines.each_ref().map(String::as_str));
    let address = broker.address().to_string();
    metaq(&["topic", "create", "made"], &address, &file).unwrap();
    let asked = endpoint.asked();
    let mut reader = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["consume", "made", "-b", &address, "--command-config"])
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The broker ends its connection when the token expires.
    within(LONG, "another token", || endpoint.asked() >= asked + 2);
    assert!(reader.try_wait().unwrap().is_none(), "it has given up");
    reader.kill().unwrap();
    reader.wait().unwrap();
    broker.stop();
}

/// Two brokers that take these tokens of each other; the first listener is for the tests.
fn two_brokers(dir: &Path, key: &Key, own: &[String]) -> Cluster {
    let mut cluster = Cluster::start(0, &[]);
    for id in 0..2 {
        let ports = zookeeper::free_ports(1);
        let mut settings = taking(dir, key);
        settings.extend(own.iter().cloned());
        settings.extend([
            "inter.broker.listener.name=SASL_PLAINTEXT".to_owned(),
            "sasl.mechanism.inter.broker.protocol=OAUTHBEARER".to_owned(),
            "inter.broker.user=broker".to_owned(),
        ]);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let mut node = cluster.prepare(id, &cluster.servers, &settings);
        let listeners = format!(
            "PLAINTEXT://127.0.0.1:{},SASL_PLAINTEXT://127.0.0.1:{}",
            node.port, ports[0]
        );
        node.set(&format!("listeners={listeners}"));
        node.set(&format!("advertised.listeners={listeners}"));
        node.launch();
        cluster.nodes.push(node);
    }
    within(LONG, "both brokers to know each other", || {
        cluster.nodes.iter().all(|node| node.brokers() == [0, 1])
    });
    cluster
}

/// Whether a broker gets something done that the controller alone does.
fn forwards_at(node: &cluster::Node, topic: &str) -> bool {
    let code = cluster::create(&mut node.client(), topic, 1);
    code == 0 || code == 36
}

fn forwards(cluster: &Cluster) {
    for (n, node) in cluster.nodes.iter().enumerate() {
        let topic = format!("by-{n}");
        within(LONG, "a topic by each broker", || forwards_at(node, &topic));
    }
}

/// What a support bundle of a broker has, all of it as text.
fn bundle_of(node: &cluster::Node, dir: &Path) -> String {
    let file = dir.join("bundle.tar.gz");
    let path = file.to_str().unwrap();
    node.command(&["support-bundle", "--output", path]).unwrap();
    let unpacked = Command::new("tar").args(["xzOf", path]).output().unwrap();
    assert!(unpacked.status.success());
    String::from_utf8_lossy(&unpacked.stdout).into_owned()
}

#[test]
fn brokers_are_known_to_each_other_by_tokens_of_the_identity_provider() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(Key::new("a"));
    let fails = Arc::new(AtomicBool::new(false));
    let (signing, is_failing) = (key.clone(), fails.clone());
    let endpoint = Endpoint::start(move || match is_failing.load(Ordering::Relaxed) {
        true => (503, r#"{"error":"on_holiday"}"#.to_owned()),
        false => {
            let token = signing.token("broker", 6);
            (200, json!({ "access_token": token }).to_string())
        }
    });
    let cluster = two_brokers(dir.path(), &key, &credentials(&endpoint.url));
    forwards(&cluster);
    let asked = endpoint.asked();
    assert!(asked > 0);
    // With other tokens when these are over.
    within(LONG, "another token", || {
        forwards(&cluster);
        endpoint.asked() > asked
    });
    // Why there are none is in the log, and it goes on by itself.
    fails.store(true, Ordering::Relaxed);
    let log = || -> String { cluster.nodes.iter().map(|node| node.log()).collect() };
    within(LONG, "the reason in the log", || {
        forwards_at(&cluster.nodes[0], "in-vain");
        forwards_at(&cluster.nodes[1], "in-vain");
        log().contains("gives no token: it answers 503 Service Unavailable (on_holiday)")
    });
    fails.store(false, Ordering::Relaxed);
    forwards(&cluster);
    // Neither the secret nor what stands in the URL is told to anybody.
    let bundle = bundle_of(&cluster.nodes[0], dir.path());
    assert!(bundle.contains("sasl.oauthbearer.token.endpoint.url=http://127.0.0.1:"));
    for secret in [SECRET, "tenant=1"] {
        assert!(
            !log().contains(secret) && !bundle.contains(secret),
            "{secret}"
        );
    }
}

#[test]
fn brokers_are_known_to_each_other_by_a_token_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("a");
    let file = dir.path().join("token");
    std::fs::write(&file, key.token("broker", 600)).unwrap();
    let url = format!(
        "sasl.oauthbearer.token.endpoint.url=file://{}",
        file.display()
    );
    let cluster = two_brokers(dir.path(), &key, &[url]);
    forwards(&cluster);
}

/// What keeps a broker of a cluster from starting that has tokens.
fn mistakes(settings: &[&str]) -> String {
    let mut all = vec![
        "listeners=SASL_PLAINTEXT://127.0.0.1:0",
        "security.inter.broker.protocol=SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol=OAUTHBEARER",
        "zk.zkEnable=true",
    ];
    all.extend(settings);
    // The last one counts.
    let all: BTreeMap<&str, &str> = all.iter().filter_map(|pair| pair.split_once('=')).collect();
    let all: Vec<String> = all
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let config = metaq::config::Config::load(None, &all).unwrap();
    metaq::broker_security::mistakes(&config).join("\n")
}

#[test]
fn brokers_without_a_source_of_tokens_or_a_name_do_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let listener = taking(dir.path(), &Key::new("a"));
    let refused = |settings: &[&str]| {
        let listener: Vec<&str> = listener.iter().map(String::as_str).collect();
        mistakes(&[&listener, settings].concat())
    };
    assert!(refused(&[]).contains("OAUTHBEARER needs sasl.oauthbearer.token.endpoint.url"));
    let url = "sasl.oauthbearer.token.endpoint.url=file:///token";
    assert!(refused(&[url]).contains("inter.broker.user has to say"));
    let user = "inter.broker.user=broker";
    assert_eq!(refused(&[url, user]), "");
    let scram = "sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512";
    let password = "inter.broker.password=p";
    assert_eq!(
        refused(&[user, password, scram]),
        "sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512 has to be among the sasl.enabled.mechanisms of the listener between brokers, SASL_PLAINTEXT: it has OAUTHBEARER"
    );
    let admin = ["admin.user=broker", "admin.password=p"];
    let why = refused(&[&[url, user][..], &admin].concat());
    assert!(
        why.contains("inter.broker.user is broker, as admin.user is"),
        "{why}"
    );
    let all = "sasl.enabled.mechanisms=OAUTHBEARER,SCRAM-SHA-512";
    assert_eq!(refused(&[user, password, scram, all]), "");
    let unsecured = "sasl.oauthbearer.unsecured=true";
    let why = refused(&[url, user, unsecured]);
    assert!(
        why.contains("without a signature (sasl.oauthbearer.unsecured)"),
        "{why}"
    );
    // Where that listener has no SASL none of it counts.
    let plain = [
        "listeners=PLAINTEXT://127.0.0.1:0",
        "security.inter.broker.protocol=PLAINTEXT",
    ];
    assert_eq!(mistakes(&plain), "");
}

#[test]
fn a_token_that_anybody_can_make_never_names_the_brokers_user() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "listeners=SASL_PLAINTEXT://127.0.0.1:0",
        "sasl.enabled.mechanisms=OAUTHBEARER",
        "sasl.oauthbearer.unsecured=true",
        "sasl.oauthbearer.token.endpoint.url=file:///token",
        "inter.broker.user=broker",
        "connection.failed.authentication.delay.ms=10",
    ];
    let broker = Running::start(dir.path(), &settings);
    let is_taken = |user: &str| {
        let part = |value: serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let claims = json!({"sub": user, "iat": now(), "exp": now() + 600});
        let token = format!("{}.{}.", part(json!({"alg": "none"})), part(claims));
        let mut client = Asking::plain(broker.address());
        client.authenticate(Mechanism::OAuthBearer, ("", &token)).0 == 0
    };
    assert!(is_taken("alice"));
    assert!(!is_taken("broker"));
    broker.stop();
}

/// Has `metaq user add` or `passwd` done; what it says of an error.
fn change_user(broker: &Running, verb: &str, user: &str) -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["user", verb, user, "-b", &broker.address().to_string()])
        .env("METAQ_PASSWORD", "planted-password")
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn nobody_is_the_brokers_user_by_a_password_where_brokers_have_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = vec![
        "listeners=PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "connection.failed.authentication.delay.ms=10",
    ];
    let comes_in = |broker: &Running, user: &str| {
        let by_sasl = [
            Mechanism::Plain,
            Mechanism::Scram(ScramMechanism::Sha256),
            Mechanism::Scram(ScramMechanism::Sha512),
        ]
        .map(|mechanism| {
            let mut client = Asking::plain(broker.broker().addresses()[1]);
            client.authenticate(mechanism, (user, "planted-password")).0 == 0
        });
        let asked = visiting::get(
            broker,
            "/api/cluster",
            &visiting::basic((user, "planted-password")),
        );
        (by_sasl, asked.status == 200)
    };
    // There already when brokers get tokens.
    let broker = Running::start(dir.path(), &settings);
    for user in ["alice", "broker"] {
        change_user(&broker, "add", user).unwrap();
        within(LONG, "the user", || {
            comes_in(&broker, user) == ([true; 3], true)
        });
    }
    broker.stop();
    settings.push("inter.broker.user=broker");
    settings.push("sasl.oauthbearer.token.endpoint.url=file:///token");
    let broker = Running::start(dir.path(), &settings);
    assert_eq!(comes_in(&broker, "alice"), ([true; 3], true));
    assert_eq!(comes_in(&broker, "broker"), ([false; 3], false));
    let why = change_user(&broker, "passwd", "broker").unwrap_err();
    assert!(
        why.contains("brokers show tokens (sasl.oauthbearer.token.endpoint.url)"),
        "{why}"
    );
    change_user(&broker, "add", "bob").unwrap();
    broker.stop();
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn where_the_provider_fails_a_token_is_used_to_its_end_and_not_longer() {
    let key = Key::new("a");
    let given = AtomicUsize::new(0);
    let endpoint = Endpoint::start(move || match given.fetch_add(1, Ordering::Relaxed) {
        0 => {
            let token = key.token("alice", 15);
            (200, json!({ "access_token": token }).to_string())
        }
        _ => (500, String::new()),
    });
    let (source, runtime) = (endpoint.source(), runtime());
    let token = runtime.block_on(source.token()).unwrap();
    // One broker does not take it; others may.
    source.was_refused(&token);
    within(LONG, "the provider to fail", || {
        assert_eq!(runtime.block_on(source.token()), Ok(token.clone()));
        endpoint.asked() > 1
    });
    within(LONG, "the end of the token", || {
        let answer = runtime.block_on(source.token());
        answer.is_err_and(|why| why.to_string().contains("it answers 500"))
    });
}

#[test]
fn a_provider_that_gives_no_token_is_asked_ever_more_seldom() {
    let endpoint = Endpoint::start(|| (500, String::new()));
    let (source, runtime) = (endpoint.source(), runtime());
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        let why = runtime.block_on(source.token()).unwrap_err().to_string();
        assert!(why.contains("it answers 500"), "{why}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // At 0, 1 and 3 s; the next one is at 7 s.
    assert!((2..=3).contains(&endpoint.asked()), "{}", endpoint.asked());
}

#[test]
fn another_token_is_asked_for_where_one_was_refused_ever_more_seldom() {
    let endpoint = Endpoint::of(Arc::new(Key::new("a")), "alice", 600);
    let (source, runtime) = (endpoint.source(), runtime());
    let token = || runtime.block_on(source.token()).unwrap();
    let mut shown = token();
    source.was_refused("another");
    assert_eq!((token() == shown, endpoint.asked()), (true, 1));
    let begun = std::time::Instant::now();
    for asked in 2..=4 {
        // By several brokers.
        source.was_refused(&shown);
        source.was_refused(&shown);
        within(LONG, "another token", || token() != shown);
        shown = token();
        assert_eq!(endpoint.asked(), asked);
    }
    // Not at once but the first time: after 1 s and 2 s.
    assert!(begun.elapsed() >= Duration::from_secs(3));
}

#[test]
fn who_gives_up_waiting_leaves_the_answer_to_the_next_one() {
    let key = Key::new("a");
    let endpoint = Endpoint::start(move || {
        std::thread::sleep(Duration::from_secs(2));
        let token = key.token("alice", 600);
        (200, json!({ "access_token": token }).to_string())
    });
    let (source, runtime) = (endpoint.source(), runtime());
    let early = async { tokio::time::timeout(Duration::from_millis(200), source.token()).await };
    assert!(runtime.block_on(early).is_err());
    let several = async { tokio::join!(source.token(), source.token()) };
    let (one, other) = runtime.block_on(several);
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(endpoint.asked(), 1);
}

#[test]
fn a_token_that_does_not_say_until_when_it_is_good_is_used_for_a_while() {
    let endpoint = Endpoint::start(|| (200, r#"{"access_token":"opaque"}"#.to_owned()));
    let (source, runtime) = (endpoint.source(), runtime());
    for _ in 0..3 {
        assert_eq!(runtime.block_on(source.token()).unwrap(), "opaque");
    }
    assert_eq!(endpoint.asked(), 1);
}

#[test]
fn a_token_endpoint_is_believed_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, made.pem()).unwrap();
        (made, file)
    };
    let ((right, right_file), (_, wrong_file)) = (authority("right"), authority("wrong"));
    let pair = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&pair, &right).unwrap();
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::new(config.clone())).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            while stream.conn.is_handshaking() && stream.conn.complete_io(&mut stream.sock).is_ok()
            {
            }
            if stream.conn.is_handshaking() {
                continue;
            }
            seen.lock().unwrap().push(read_request(&mut stream));
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"access_token\":\"a.b\"}";
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.flush();
        }
    });
    let runtime = runtime();
    let asked = |host: &str, authorities: &Path| {
        let settings = BearerSourceSettings {
            url: format!("https://{host}:{port}/token"),
            id: ID.to_owned(),
            secret: SECRET.to_owned(),
            authorities: Some(PemSource::File(authorities.to_owned())),
            ..BearerSourceSettings::default()
        };
        let source = BearerSource::new(settings).unwrap();
        let token = runtime.block_on(source.token());
        token.map_err(|why| why.to_string())
    };
    for why in [
        asked("localhost", &wrong_file),
        asked("127.0.0.1", &right_file),
    ] {
        let why = why.unwrap_err();
        assert!(why.contains("invalid peer certificate"), "{why}");
    }
    // Who is not believed has not seen the secret.
    assert_eq!(requests.lock().unwrap().len(), 0);
    assert_eq!(asked("localhost", &right_file).as_deref(), Ok("a.b"));
    assert!(requests.lock().unwrap()[0].contains("authorization: Basic "));
}
