//! Tokens of an identity provider (OAUTHBEARER) at a running broker: whose tokens are taken, for how long, and how the provider's
//! keys change.

mod common;
#[path = "common/provider.rs"]
mod provider;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Client, Running, wait_for};
use data_encoding::BASE64URL_NOPAD;
use metaq_protocol::messages::{
    MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
};
use metaq_protocol::protocol::StrBytes;
use provider::{Key, key_set, now};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

const FAILED: i16 = 58;

fn message(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

fn say(client: &mut Client, message: Vec<u8>) -> SaslAuthenticateResponse {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
    client.ask(1, &request)
}

fn choose(client: &mut Client) -> i16 {
    let mechanism = StrBytes::from_static_str("OAUTHBEARER");
    let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
    client.ask(1, &request).error_code
}

/// Shows a token on a new connection: the client, and for how long it may stay; or what it is told.
fn show(broker: &Running, token: &str) -> Result<(Client, i64), String> {
    let mut client = broker.client();
    assert_eq!(choose(&mut client), 0);
    let answer = say(&mut client, message(token));
    assert_eq!(answer.error_code, 0);
    if answer.auth_bytes.is_empty() {
        return Ok((client, answer.session_lifetime_ms));
    }
    let told = String::from_utf8(answer.auth_bytes.to_vec()).unwrap();
    // It says that it has read that, and learns that it has failed.
    let last = say(&mut client, vec![1]);
    assert_eq!(last.error_code, FAILED);
    assert_eq!(last.error_message.as_deref(), Some(told.as_str()));
    Err(told)
}

fn metadata(client: &mut Client) {
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    client.ask(12, &request);
}

const REFUSED: &str = "{\"status\":\"invalid_token\"}";

fn start(data: &Path, source: &str, more: &[&str]) -> Running {
    let url = format!("sasl.oauthbearer.jwks.endpoint.url={source}");
    let mut settings = vec![
        "listeners=SASL_PLAINTEXT://127.0.0.1:0",
        "sasl.enabled.mechanisms=OAUTHBEARER,SCRAM-SHA-256",
        "sasl.oauthbearer.expected.audience=kafka",
        "sasl.oauthbearer.expected.issuer=https://id.example",
        "connection.failed.authentication.delay.ms=10",
        "admin.user=admin",
        "admin.password=admin-secret",
        &url,
    ];
    settings.extend(more);
    Running::start(data, &settings)
}

#[test]
fn what_is_wrong_with_a_token_is_told_to_the_operator_and_not_to_its_bearer() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("a");
    let file = dir.path().join("keys.json");
    std::fs::write(&file, key_set(&[&key])).unwrap();
    let source = format!("file://{}", file.display());
    let audit = dir.path().join("audit.log");
    let path = format!("audit.log.path={}", audit.display());
    let broker = start(&dir.path().join("data"), &source, &[&path]);
    let wrong = [
        (key.token("alice", -600), "claim exp: the token has expired"),
        (
            key.token("admin", 600),
            "claim sub: this user is of the broker's own configuration",
        ),
        (
            Key::new("b").token("alice", 600),
            "no key of the provider has the token's key id",
        ),
        ("none".to_owned(), "not a JWT"),
    ];
    for (token, why) in wrong {
        assert_eq!(show(&broker, &token).err().as_deref(), Some(REFUSED));
        wait_for(why, || {
            let lines = std::fs::read_to_string(&audit).unwrap_or_default();
            lines.contains(why)
        });
    }
    broker.stop();
}

#[test]
fn a_token_is_good_for_as_long_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("a");
    let file = dir.path().join("keys.json");
    std::fs::write(&file, key_set(&[&key])).unwrap();
    let source = format!("file://{}", file.display());
    let broker = start(&dir.path().join("data"), &source, &[]);

    let (mut client, lifetime) = show(&broker, &key.token("alice", 600)).unwrap();
    assert!((590_000..=600_000).contains(&lifetime), "{lifetime}");
    metadata(&mut client);
    // It comes back with a later one as the same user, and as nobody else.
    assert_eq!(choose(&mut client), 0);
    let again = say(&mut client, message(&key.token("alice", 6000)));
    assert_eq!(again.error_code, 0);
    assert!(again.session_lifetime_ms > 5_000_000);
    assert_eq!(choose(&mut client), 0);
    let other = say(&mut client, message(&key.token("bob", 600)));
    assert_eq!(other.error_code, FAILED);
    let why = "Cannot change principals during re-authentication from User.alice: User.bob";
    assert_eq!(other.error_message.as_deref(), Some(why));

    assert_eq!(show(&broker, "none").err().as_deref(), Some(REFUSED));
    assert_eq!(
        show(&broker, &Key::new("a").token("alice", 600))
            .err()
            .as_deref(),
        Some(REFUSED)
    );
    assert_eq!(
        show(&broker, &key.token("admin", 600)).err().as_deref(),
        Some(REFUSED)
    );

    // Whoever goes on after its token has expired is not served.
    let (mut short, lifetime) = show(&broker, &key.token("alice", 2)).unwrap();
    assert!(lifetime <= 2000);
    metadata(&mut short);
    std::thread::sleep(Duration::from_millis(2100));
    short.send(
        12,
        &MetadataRequest::default().with_topics(Some(Vec::new())),
    );
    assert!(short.is_closed());

    // A key that is taken away is good for nothing any more, without a restart.
    let next = Key::new("b");
    std::fs::write(&file, key_set(&[&next])).unwrap();
    wait_for("the other key", || {
        show(&broker, &next.token("alice", 600)).is_ok()
    });
    assert!(show(&broker, &key.token("alice", 600)).is_err());
    // A file that is broken changes nothing.
    std::fs::write(&file, "{").unwrap();
    std::thread::sleep(Duration::from_secs(6));
    assert!(show(&broker, &next.token("alice", 600)).is_ok());
}

/// An identity provider that publishes its keys over HTTPS.
struct Provider {
    url: String,
    keys: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    /// The authority of its certificate, as PEM.
    authority: String,
}

impl Provider {
    fn start(keys: String) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&pair, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Self {
            url: format!(
                "https://localhost:{}/keys",
                listener.local_addr().unwrap().port()
            ),
            keys: Arc::new(Mutex::new(keys)),
            asked: Arc::default(),
            authority: authority.pem(),
        };
        let (keys, asked) = (provider.keys.clone(), provider.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::new(config.clone())).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let mut request = [0; 4096];
                let Ok(read) = stream.read(&mut request) else {
                    continue;
                };
                assert!(request[..read].starts_with(b"GET /keys HTTP/1.1\r\n"));
                asked.fetch_add(1, Ordering::Relaxed);
                let keys = keys.lock().unwrap().clone();
                let status = if keys.is_empty() {
                    "500 Internal Server Error"
                } else {
                    "200 OK"
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
                    keys.len()
                );
                let _ = stream.write_all((head + &keys).as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        provider
    }
}

#[test]
fn keys_are_asked_of_the_provider_and_again_when_a_token_names_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Key::new("first"), Key::new("second"));
    // It is not well when the broker starts.
    let provider = Provider::start(String::new());
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &provider.authority).unwrap();
    let ca = format!("sasl.oauthbearer.jwks.ca={}", ca.display());
    let broker = start(&dir.path().join("data"), &provider.url, &[&ca]);
    assert!(show(&broker, &first.token("alice", 600)).is_err());
    *provider.keys.lock().unwrap() = key_set(&[&first]);
    wait_for("keys", || show(&broker, &first.token("alice", 600)).is_ok());

    *provider.keys.lock().unwrap() = key_set(&[&first, &second]);
    let asked = provider.asked.load(Ordering::Relaxed);
    let begun = Instant::now();
    wait_for("keys", || {
        show(&broker, &second.token("alice", 600)).is_ok()
    });
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(provider.asked.load(Ordering::Relaxed) > asked);
    // Names that are made up do not make it ask all the time.
    let asked = provider.asked.load(Ordering::Relaxed);
    let begun = Instant::now();
    for id in ["x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9"] {
        assert!(show(&broker, &Key::new(id).token("alice", 600)).is_err());
    }
    std::thread::sleep(Duration::from_millis(1500));
    let again = provider.asked.load(Ordering::Relaxed) - asked;
    assert!(again as u64 <= 1 + begun.elapsed().as_secs(), "{again}");
}

#[test]
fn a_provider_with_another_authority_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new("a");
    let provider = Provider::start(key_set(&[&key]));
    let broker = start(&dir.path().join("data"), &provider.url, &[]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(show(&broker, &key.token("alice", 600)).is_err());
    assert_eq!(provider.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_missing_is_said_at_the_start() {
    let refused = |settings: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let mut all: Vec<String> = [
            "listeners=SASL_PLAINTEXT://127.0.0.1:0",
            "sasl.enabled.mechanisms=OAUTHBEARER",
            "dashboardHttpPort=0",
        ]
        .map(str::to_owned)
        .into();
        all.extend(settings.iter().map(|&setting| setting.to_owned()));
        all.push(format!("dataPath={}", dir.path().display()));
        let config = metaq::config::Config::load(None, &all).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let started = runtime.block_on(metaq::broker::Broker::start(config));
        started.err().map(|error| error.to_string()).unwrap()
    };
    let url = "sasl.oauthbearer.jwks.endpoint.url=file:///no/such/file";
    let audience = "sasl.oauthbearer.expected.audience=kafka";
    let issuer = "sasl.oauthbearer.expected.issuer=i";
    assert!(refused(&[]).contains("sasl.oauthbearer.jwks.endpoint.url"));
    assert!(refused(&[url]).contains("sasl.oauthbearer.expected.audience"));
    assert!(refused(&[url, audience]).contains("sasl.oauthbearer.expected.issuer"));
    assert!(refused(&[url, audience, issuer]).contains("/no/such/file"));
}

#[test]
fn messages_that_are_none_end_their_connection_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), "", &["sasl.oauthbearer.unsecured=true"]);
    let b64 = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let claims =
        json!({"sub": "alice", "aud": "kafka", "iss": "https://id.example", "exp": now() + 600});
    let claims = claims.to_string();
    let token = format!("{}.{}.", b64("{\"alg\":\"none\"}"), b64(&claims));
    let (mut client, _) = show(&broker, &token).unwrap();
    for none in [
        Vec::new(),
        vec![1],
        vec![0xff; 64],
        b"n,,\x01\x01".to_vec(),
        b"n,,\x01auth=Basic x\x01\x01".to_vec(),
        vec![b'n'; 500_000],
    ] {
        let mut other = broker.client();
        assert_eq!(choose(&mut other), 0);
        let answer = say(&mut other, none);
        assert_eq!(answer.error_code, FAILED);
        let why = "Authentication failed during authentication due to invalid credentials with SASL mechanism OAUTHBEARER";
        assert_eq!(answer.error_message.as_deref(), Some(why));
    }
    // Somebody else's name.
    let mut other = broker.client();
    assert_eq!(choose(&mut other), 0);
    let answer = say(
        &mut other,
        format!("n,a=bob,\x01auth=Bearer {token}\x01\x01").into_bytes(),
    );
    assert_eq!(answer.error_code, FAILED);
    assert!(
        answer
            .error_message
            .unwrap()
            .contains("(bob) that is different from the token's principal name (alice)")
    );
    metadata(&mut client);
}
