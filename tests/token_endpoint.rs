//! Tokens of one's own (KIP-768): commands and brokers that log in with OAUTHBEARER, with a token in a file or of an identity provider
//! that gives them to who has a client id and its secret.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/provider.rs"]
mod provider;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cluster::{Cluster, LONG, within};
use common::Running;
use data_encoding::BASE64;
use provider::{Key, key_set};
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

fn read_request(stream: &TcpStream) -> String {
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
    let endpoint = Endpoint::of(key, "alice", 3);
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

/// Has something done at each broker that the controller alone does.
fn forwards(cluster: &Cluster) {
    for (n, node) in cluster.nodes.iter().enumerate() {
        let topic = format!("by-{n}");
        within(LONG, "a topic by each broker", || {
            let code = cluster::create(&mut node.client(), &topic, 1);
            code == 0 || code == 36
        });
    }
}

#[test]
fn brokers_are_known_to_each_other_by_tokens_of_the_identity_provider() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(Key::new("a"));
    let endpoint = Endpoint::of(key.clone(), "broker", 6);
    let cluster = two_brokers(dir.path(), &key, &credentials(&endpoint.url));
    forwards(&cluster);
    let asked = endpoint.asked();
    assert!(asked > 0);
    // With other tokens when these are over.
    within(LONG, "another token", || {
        forwards(&cluster);
        endpoint.asked() > asked
    });
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

#[test]
fn brokers_without_a_source_of_tokens_or_a_name_do_not_start() {
    let refused = |settings: &[&str]| {
        let mut all = vec![
            "listeners=SASL_PLAINTEXT://127.0.0.1:0",
            "security.inter.broker.protocol=SASL_PLAINTEXT",
            "sasl.mechanism.inter.broker.protocol=OAUTHBEARER",
            "zk.zkEnable=true",
        ];
        all.extend(settings);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let config = metaq::config::Config::load(None, &all).unwrap();
        metaq::broker_security::mistakes(&config).join("\n")
    };
    assert!(refused(&[]).contains("OAUTHBEARER needs sasl.oauthbearer.token.endpoint.url"));
    let url = "sasl.oauthbearer.token.endpoint.url=file:///token";
    assert!(refused(&[url]).contains("inter.broker.user has to say"));
    assert_eq!(refused(&[url, "inter.broker.user=broker"]), "");
}

#[test]
fn nobody_is_the_brokers_user_by_a_password_where_brokers_have_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "inter.broker.user=broker",
        "sasl.oauthbearer.token.endpoint.url=file:///token",
    ];
    let broker = Running::start(dir.path(), &settings);
    let add = |user: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
            .args(["user", "add", user, "-b", &broker.address().to_string()])
            .env("METAQ_PASSWORD", "planted-password")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let (is_added, said) = add("broker");
    assert!(
        !is_added && said.contains("inter.broker.password"),
        "{said}"
    );
    assert!(add("alice").0);
    broker.stop();
}
