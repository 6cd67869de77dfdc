//! Listeners with TLS and SASL, as clients that mean well and others meet them.

#[path = "common/asking.rs"]
mod asking;
mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use asking::{Asking, text};
use bytes::{BufMut, Bytes, BytesMut};
use common::{Client, Running, batch, wait_for};
use metaq::api::FORWARDED;
use metaq::security::{Mechanism, ScramMechanism, salted_password};
use metaq_protocol::ResponseError;
use metaq_protocol::frame;
use metaq_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{
    AlterUserScramCredentialsRequest, ApiVersionsRequest, CreateTopicsRequest,
    DefaultPrincipalData, DeleteGroupsRequest, DescribeUserScramCredentialsRequest,
    EnvelopeRequest, ListGroupsRequest, MetadataRequest, SaslAuthenticateRequest,
    SaslHandshakeRequest,
};
use metaq_protocol::protocol::Encodable;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const ADMIN: (&str, &str) = ("admin", "admin-secret");
const SCRAM: Mechanism = Mechanism::Scram(ScramMechanism::Sha256);

fn sasl(data: &Path, more: &[&str]) -> Running {
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

fn upsertion(user: &str, password: &str) -> ScramCredentialUpsertion {
    let (salt, salted) = salted_password(ScramMechanism::Sha256, password, 4096);
    ScramCredentialUpsertion::default()
        .with_name(text(user))
        .with_mechanism(1)
        .with_iterations(4096)
        .with_salt(salt.into())
        .with_salted_password(salted.into())
}

fn add_user(broker: &Running, user: &str, password: &str) {
    let mut admin = Asking::plain(broker.address());
    assert_eq!(admin.authenticate(SCRAM, ADMIN).0, 0);
    let request = AlterUserScramCredentialsRequest::default();
    let request = request.with_upsertions(vec![upsertion(user, password)]);
    let answer = admin.ask(0, &request).unwrap();
    assert_eq!(answer.results[0].error_code, 0);
}

#[test]
fn a_client_is_served_once_it_is_known_by_each_mechanism() {
    let dir = tempfile::tempdir().unwrap();
    let broker = sasl(dir.path(), &[]);
    add_user(&broker, "alice", "alice-secret");
    for mechanism in [Mechanism::Plain, SCRAM] {
        let mut client = Asking::plain(broker.address());
        let versions = ApiVersionsRequest::default();
        assert!(client.ask(0, &versions).is_some());
        assert_eq!(
            client.authenticate(mechanism, ("alice", "alice-secret")),
            (0, 0)
        );
        assert!(client.is_served());
        let live = broker.broker().context().observe.clients.live();
        let users = live.iter().map(|client| client.snapshot().user);
        assert!(users.into_iter().any(|user| user == "User:alice"));
        for wrong in [("alice", "wrong"), ("nobody", "alice-secret")] {
            let mut client = Asking::plain(broker.address());
            let failed = ResponseError::SaslAuthenticationFailed.code();
            assert_eq!(client.authenticate(mechanism, wrong).0, failed);
            assert!(client.receive().is_none(), "it is closed");
        }
    }
    // Kept over a restart, as they are in the tree.
    broker.stop();
    let broker = sasl(dir.path(), &[]);
    let mut client = Asking::plain(broker.address());
    assert_eq!(client.authenticate(SCRAM, ("alice", "alice-secret")).0, 0);
    broker.stop();
}

#[test]
fn nothing_but_authentication_is_taken_from_who_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let broker = sasl(dir.path(), &["authentication.timeout.ms=1000"]);
    assert!(!Asking::plain(broker.address()).is_served());
    // Not in the middle of an exchange either, nor together with its last message.
    let mut client = Asking::plain(broker.address());
    assert_eq!(client.choose("PLAIN"), Some(0));
    assert!(!client.is_served());
    let mut client = Asking::plain(broker.address());
    assert_eq!(client.choose("PLAIN"), Some(0));
    let wrong = SaslAuthenticateRequest::default().with_auth_bytes("\0admin\0wrong".into());
    client.send(1, &wrong);
    client.send(12, &MetadataRequest::default());
    assert!(client.receive().is_some());
    assert!(
        client.receive().is_none(),
        "what was sent with it is not done"
    );
    // A mechanism that is not enabled.
    let mut client = Asking::plain(broker.address());
    let unsupported = ResponseError::UnsupportedSaslMechanism.code();
    assert_eq!(client.choose("GSSAPI"), Some(unsupported));
    assert!(client.receive().is_none());
    // A large frame, of which only the length is sent.
    let mut client = Asking::plain(broker.address());
    client.0.write_all(&(600_000_i32).to_be_bytes()).unwrap();
    client.0.write_all(&[0; 8]).unwrap();
    assert!(client.receive().is_none());
    // One that says nothing.
    let started = Instant::now();
    assert!(Asking::plain(broker.address()).receive().is_none());
    assert!(started.elapsed() >= Duration::from_millis(900));
    // One that asks all the time, and never says who it is.
    let started = Instant::now();
    let mut client = Asking::plain(broker.address());
    let versions = ApiVersionsRequest::default();
    while client.ask(0, &versions).is_some() {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    assert!(started.elapsed() >= Duration::from_millis(900));
    // And one that does not read what it is answered.
    let started = Instant::now();
    let mut client = Asking::plain(broker.address());
    let asked = frame::encode_request(0, 1, "test", &versions).unwrap();
    while client.0.write_all(&asked).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    broker.stop();
}

/// What somebody is told of a user's password before anything is proved.
fn told(broker: &Running, user: &str) -> String {
    let mut client = Asking::plain(broker.address());
    assert_eq!(client.choose("SCRAM-SHA-256"), Some(0));
    let first = format!("n,,n={user},r=nonce").into_bytes();
    let request = SaslAuthenticateRequest::default().with_auth_bytes(first.into());
    let answer = client.ask(1, &request).unwrap();
    let text = String::from_utf8(answer.auth_bytes.to_vec()).unwrap();
    text.split_once(',').unwrap().1.to_owned()
}

#[test]
fn a_user_who_is_not_known_has_the_same_salt_after_a_restart_as_one_who_is() {
    let dir = tempfile::tempdir().unwrap();
    let broker = sasl(dir.path(), &[]);
    add_user(&broker, "alice", "alice-secret");
    let before = [told(&broker, "alice"), told(&broker, "nobody")];
    assert_ne!(before[1], told(&broker, "somebody"));
    broker.stop();
    let broker = sasl(dir.path(), &[]);
    assert_eq!([told(&broker, "alice"), told(&broker, "nobody")], before);
    broker.stop();
}

#[test]
fn messages_without_requests_do_not_let_a_connection_become_somebody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let path = format!("audit.log.path={}", log.display());
    let broker = sasl(&dir.path().join("data"), &[&path]);
    add_user(&broker, "alice", "alice-secret");
    add_user(&broker, "bob", "bob-secret");
    let raw = |message: &[u8]| {
        let mut framed = (message.len() as i32).to_be_bytes().to_vec();
        framed.extend(message);
        framed
    };
    let handshake = |version: i16| {
        let plain = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
        frame::encode_request(version, 1, "test", &plain).unwrap()
    };
    let as_bob = SaslAuthenticateRequest::default().with_auth_bytes("\0bob\0bob-secret".into());
    for first in [
        "\0alice\0wrong",
        "\0alice\0alice-secret",
        "\0bob\0bob-secret",
    ] {
        let mut client = Asking::plain(broker.address());
        let plain = Mechanism::Plain;
        assert_eq!(client.authenticate(plain, ("alice", "alice-secret")).0, 0);
        // All at once: what comes after a message waits until it is answered.
        let mut all = handshake(0).to_vec();
        all.extend(raw(first.as_bytes()));
        all.extend(&handshake(1)[..]);
        all.extend(&frame::encode_request(1, 2, "test", &as_bob).unwrap()[..]);
        client.0.write_all(&all).unwrap();
        let mut answers = Vec::new();
        while let Some(answer) = client.receive() {
            answers.push(answer);
        }
        // The last one is the refusal: bob's right password does not make the connection his.
        let last = answers.pop().unwrap();
        if first.ends_with("alice-secret") {
            let (_, refused) = frame::decode_response::<SaslAuthenticateRequest>(1, last).unwrap();
            let why = "Cannot change principals during re-authentication from User.alice: User.bob";
            assert_eq!(refused.error_message.as_deref(), Some(why));
        }
        assert!(!client.is_served());
    }
    // Whoever fails so is in the audit log too.
    wait_for("the lines", || {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        let refused = lines
            .lines()
            .filter(|line| line.contains("SaslAuthenticate"));
        refused.filter(|line| line.contains("refused")).count() == 3
    });
    broker.stop();
}

#[test]
fn an_envelope_holds_what_brokers_send_on_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let between = [
        "inter.broker.user=admin",
        "inter.broker.password=admin-secret",
    ];
    let broker = sasl(dir.path(), &between);
    let mut client = Asking::plain(broker.address());
    assert_eq!(client.authenticate(SCRAM, ADMIN).0, 0);
    let mut principal = BytesMut::new();
    principal.put_i16(0);
    let alice = DefaultPrincipalData::default();
    let alice = alice.with_type(text("User")).with_name(text("alice"));
    alice.encode(&mut principal, 0).unwrap();
    let mut enclosed = |frame: Bytes| {
        let request = EnvelopeRequest::default()
            .with_request_data(frame.slice(4..))
            .with_request_principal(Some(principal.clone().freeze()))
            .with_client_host_address(Bytes::from_static(&[127, 0, 0, 1]));
        // Whoever asks so is a broker.
        let framed = frame::encode_request(0, 1, FORWARDED, &request).unwrap();
        client.0.write_all(&framed).unwrap();
        let answer = client.receive().unwrap();
        let (_, answer) = frame::decode_response::<EnvelopeRequest>(0, answer).unwrap();
        answer.error_code
    };
    let create = CreateTopicsRequest::default();
    assert_eq!(
        enclosed(frame::encode_request(5, 1, "x", &create).unwrap()),
        0
    );
    let refused = ResponseError::InvalidRequest.code();
    let metadata = MetadataRequest::default();
    assert_eq!(
        enclosed(frame::encode_request(9, 1, "x", &metadata).unwrap()),
        refused
    );
    let handshake = SaslHandshakeRequest::default();
    assert_eq!(
        enclosed(frame::encode_request(1, 1, "x", &handshake).unwrap()),
        refused
    );
    broker.stop();
}

#[test]
fn an_address_has_few_connections_at_a_time_that_are_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let limit = "max.unauthenticated.connections.per.ip=2";
    let broker = sasl(dir.path(), &[limit]);
    let connect = || {
        let mut client = Asking::plain(broker.address());
        let answer = client.ask(0, &ApiVersionsRequest::default());
        (client, answer.is_some())
    };
    let (mut first, _) = connect();
    let (second, is_taken) = connect();
    assert!(is_taken);
    assert!(!connect().1, "one more");
    assert_eq!(first.authenticate(SCRAM, ADMIN).0, 0);
    let (third, is_taken) = connect();
    assert!(is_taken, "the first is known");
    assert!(!connect().1, "one more again");
    drop((second, third));
    wait_for("those that are gone to be noticed", || connect().1);
    assert!(first.is_served());
    broker.stop();
}

#[test]
fn who_is_known_may_send_large_requests() {
    let dir = tempfile::tempdir().unwrap();
    let broker = sasl(dir.path(), &["sasl.server.max.receive.size=1024"]);
    let mut client = Asking::plain(broker.address());
    assert_eq!(client.authenticate(SCRAM, ADMIN).0, 0);
    let name = "x".repeat(200);
    let topics =
        (0..20).map(|_| MetadataRequestTopic::default().with_name(Some(common::name(&name))));
    let request = MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false);
    assert!(client.ask(12, &request).is_some());
    broker.stop();
}

#[test]
fn messages_without_requests_around_them_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let broker = sasl(dir.path(), &[]);
    let mut client = Asking::plain(broker.address());
    let handshake = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    assert_eq!(client.ask(0, &handshake).unwrap().error_code, 0);
    let token = b"\0admin\0admin-secret";
    client
        .0
        .write_all(&(token.len() as u32).to_be_bytes())
        .unwrap();
    client.0.write_all(token).unwrap();
    assert_eq!(client.receive().unwrap(), Bytes::new());
    assert!(client.is_served());
    broker.stop();
}

#[test]
fn a_connection_authenticates_again_in_time_as_the_same_user() {
    let dir = tempfile::tempdir().unwrap();
    let broker = sasl(dir.path(), &["connections.max.reauth.ms=700"]);
    add_user(&broker, "alice", "alice-secret");
    let mut client = Asking::plain(broker.address());
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert_eq!(client.authenticate(SCRAM, ADMIN), (0, 700));
        std::thread::sleep(Duration::from_millis(300));
        assert!(client.is_served());
    }
    std::thread::sleep(Duration::from_millis(800));
    assert!(!client.is_served(), "its time is over");
    let mut client = Asking::plain(broker.address());
    assert_eq!(client.authenticate(SCRAM, ADMIN).0, 0);
    let failed = ResponseError::SaslAuthenticationFailed.code();
    assert_eq!(
        client.authenticate(SCRAM, ("alice", "alice-secret")).0,
        failed
    );
    assert!(client.receive().is_none());
    broker.stop();
}

#[test]
fn a_user_that_is_removed_is_served_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let broker = sasl(dir.path(), &[]);
    add_user(&broker, "alice", "alice-secret");
    let mut alice = Asking::plain(broker.address());
    assert_eq!(alice.authenticate(SCRAM, ("alice", "alice-secret")).0, 0);
    assert!(alice.is_served());
    add_user(&broker, "bob", "bobs-secret");
    assert!(alice.is_served(), "others may come");
    let mut admin = Asking::plain(broker.address());
    assert_eq!(admin.authenticate(SCRAM, ADMIN).0, 0);
    let deletion = ScramCredentialDeletion::default()
        .with_name(text("alice"))
        .with_mechanism(1);
    let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
    assert_eq!(admin.ask(0, &request).unwrap().results[0].error_code, 0);
    assert!(!alice.is_served());
    let described = admin.ask(
        0,
        &DescribeUserScramCredentialsRequest::default().with_users(None),
    );
    let users: Vec<String> = described
        .unwrap()
        .results
        .iter()
        .map(|result| result.user.to_string())
        .collect();
    assert_eq!(users, ["bob"]);
    broker.stop();
}

#[test]
fn credentials_are_refused_as_by_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let mut ask = |deletions: Vec<ScramCredentialDeletion>, upsertions| {
        let request = AlterUserScramCredentialsRequest::default();
        let request = request
            .with_deletions(deletions)
            .with_upsertions(upsertions);
        let results = client.ask(0, &request).results;
        let told = results.into_iter().map(|result| {
            let why = result.error_message.map(|why| why.to_string());
            (
                result.user.to_string(),
                result.error_code,
                why.unwrap_or_default(),
            )
        });
        told.collect::<Vec<_>>()
    };
    let one = |user: &str, code: ResponseError, why: &str| {
        vec![(user.to_owned(), code.code(), why.to_owned())]
    };
    let deletion = |user: &str, mechanism| {
        ScramCredentialDeletion::default()
            .with_name(text(user))
            .with_mechanism(mechanism)
    };
    let missing = "Attempt to delete a user credential that does not exist";
    assert_eq!(
        ask(vec![deletion("u", 1)], vec![]),
        one("u", ResponseError::ResourceNotFound, missing)
    );
    let empty = "Username must not be empty";
    assert_eq!(
        ask(vec![deletion("", 1)], vec![]),
        one("", ResponseError::UnacceptableCredential, empty)
    );
    let unknown = "Unknown SCRAM mechanism";
    assert_eq!(
        ask(vec![deletion("u", 3)], vec![]),
        one("u", ResponseError::UnsupportedSaslMechanism, unknown)
    );
    let few = upsertion("u", "x").with_iterations(4095);
    assert_eq!(
        ask(vec![], vec![few]),
        one(
            "u",
            ResponseError::UnacceptableCredential,
            "Too few iterations"
        )
    );
    let many = upsertion("u", "x").with_iterations(16_385);
    assert_eq!(
        ask(vec![], vec![many]),
        one(
            "u",
            ResponseError::UnacceptableCredential,
            "Too many iterations"
        )
    );
    let twice = "A user credential cannot be altered twice in the same request";
    let both = vec![upsertion("u", "x"), upsertion("u", "y").with_mechanism(2)];
    assert_eq!(
        ask(vec![], both),
        one("u", ResponseError::DuplicateResource, twice)
    );
    broker.stop();
}

/// An authority, and what it signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate of a name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// The files of a broker that an authority knows.
fn write_files(dir: &Path, authority: &Authority, name: &str) {
    let (certificate, key) = authority.sign(name);
    std::fs::write(dir.join("ca.pem"), authority.0.pem()).unwrap();
    std::fs::write(dir.join("broker.key"), key).unwrap();
    std::fs::write(dir.join("broker.pem"), certificate).unwrap();
}

fn tls(dir: &Path, more: &[&str]) -> Running {
    let file = |key: &str, name: &str| format!("{key}={}", dir.join(name).display());
    let files = [
        file("tls.certificate", "broker.pem"),
        file("tls.key", "broker.key"),
        file("tls.ca", "ca.pem"),
    ];
    let mut settings = vec!["listeners=SSL://127.0.0.1:0"];
    settings.extend(files.iter().map(String::as_str));
    settings.extend(more);
    Running::start(&dir.join("data"), &settings)
}

/// Connects as the owner of a certificate, or as nobody; the broker's certificate too.
fn connect(
    broker: &Running,
    trusted: &Authority,
    identity: Option<(String, String)>,
) -> std::io::Result<(Asking, Vec<u8>)> {
    let mut roots = RootCertStore::empty();
    let pem = trusted.0.pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(broker.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
    Ok((Asking(Box::new(stream)), shown))
}

#[test]
fn large_and_small_records_go_through_tls_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    write_files(dir.path(), &authority, "broker");
    let broker = tls(dir.path(), &["auto.create.topics.enable=true"]);
    let (mut client, _) = connect(&broker, &authority, None).unwrap();
    let asked = MetadataRequestTopic::default().with_name(Some(common::name("t")));
    let topics = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(true);
    wait_for("the topic", || {
        client.ask(12, &topics).unwrap().topics[0].error_code == 0
    });
    // So many records of some bytes each.
    let batches = [1, 100, 1000, 2000, 30_000].map(batch);
    for batch in &batches {
        let request = common::produce_request("t", batch.clone(), -1);
        let produced = client.ask(9, &request).unwrap();
        let partition = &produced.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0);
    }
    let fetched = client.ask(11, &common::fetch_request("t", 0, 0)).unwrap();
    let records = fetched.responses[0].partitions[0].records.clone().unwrap();
    // All but what the broker writes: base offset and epoch, 20 bytes in all.
    let mut at = 0;
    for batch in &batches {
        assert!(records[at + 20..at + batch.len()] == batch[20..]);
        at += batch.len();
    }
    assert_eq!(records.len(), at);
    broker.stop();
}

#[test]
fn who_shows_a_certificate_is_who_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    write_files(dir.path(), &authority, "broker");
    let rules = "ssl.principal.mapping.rules=RULE:^CN=(.*?)$/$1/L";
    let acls = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    let broker = tls(
        dir.path(),
        &[
            "ssl.client.auth=required",
            rules,
            acls,
            "super.users=User:alice",
        ],
    );
    let admin = DescribeUserScramCredentialsRequest::default().with_users(None);
    let may = |name: &str| {
        let (mut client, _) = connect(&broker, &authority, Some(authority.sign(name))).unwrap();
        client.ask(0, &admin).unwrap().error_code
    };
    assert_eq!(may("Alice"), 0);
    assert_eq!(may("bob"), ResponseError::ClusterAuthorizationFailed.code());
    // In TLS 1.3 a client hears that it is refused when it reads.
    let is_refused = |identity| match connect(&broker, &authority, identity) {
        Err(_) => true,
        Ok((mut client, _)) => !client.is_served(),
    };
    assert!(is_refused(None));
    assert!(is_refused(Some(other.sign("Alice"))));
    broker.stop();
}

#[test]
fn certificates_that_change_are_shown_to_new_connections_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    write_files(dir.path(), &authority, "broker");
    let broker = tls(dir.path(), &[]);
    let (mut before, shown) = connect(&broker, &authority, None).unwrap();
    // What is wrong changes nothing.
    std::fs::write(dir.path().join("broker.pem"), "nonsense").unwrap();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(connect(&broker, &authority, None).unwrap().1, shown);
    write_files(dir.path(), &authority, "another");
    wait_for("the new certificate", || {
        connect(&broker, &authority, None).unwrap().1 != shown
    });
    assert!(before.is_served());
    broker.stop();
}

#[test]
fn plaintext_on_a_port_with_tls_and_the_other_way_round_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    write_files(dir.path(), &authority, "broker");
    let broker = tls(dir.path(), &["authentication.timeout.ms=1000"]);
    assert!(!Asking::plain(broker.address()).is_served());
    // Half a handshake.
    let mut half = TcpStream::connect(broker.address()).unwrap();
    half.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    half.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest);
    broker.stop();
    let data = dir.path().join("other");
    let broker = Running::start(&data, &[]);
    assert!(connect(&broker, &authority, None).is_err());
    let mut client: Client = broker.client();
    assert_eq!(client.ask(0, &ApiVersionsRequest::default()).error_code, 0);
    broker.stop();
}

#[test]
fn a_certificate_that_is_wrong_ends_its_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    write_files(dir.path(), &authority, "broker");
    let broker = tls(dir.path(), &["ssl.client.auth=required"]);
    // So large that it comes in several records, which the broker keeps until all are there.
    let mut params = CertificateParams::new(vec!["localhost".to_owned(); 3000]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "x");
    let key = KeyPair::generate().unwrap();
    let large = params.signed_by(&key, &other.0).unwrap();
    let large = (large.pem(), key.serialize_pem());
    for identity in [large, other.sign("x")] {
        if let Ok((mut client, _)) = connect(&broker, &authority, Some(identity)) {
            assert!(!client.is_served());
        }
    }
    let (mut client, _) = connect(&broker, &authority, Some(authority.sign("x"))).unwrap();
    assert!(client.is_served());
    let panics = &broker.broker().context().metrics.handler_panics;
    assert_eq!(panics.load(std::sync::atomic::Ordering::Relaxed), 0);
    broker.stop();
}

#[test]
fn what_changes_something_and_what_is_refused_is_in_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let path = format!("audit.log.path={}", log.display());
    let acls = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    let broker = sasl(&dir.path().join("data"), &[&path, acls]);
    add_user(&broker, "alice", "alice-secret");
    let mut alice = Asking::plain(broker.address());
    assert_eq!(alice.authenticate(SCRAM, ("alice", "alice-secret")).0, 0);
    // What is left out of a list is not asked for by name: nothing is refused.
    let listed = alice.ask(4, &ListGroupsRequest::default()).unwrap();
    assert_eq!(listed.error_code, 0);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![text("payroll").into()]);
    let denied = ResponseError::GroupAuthorizationFailed.code();
    assert_eq!(alice.ask(2, &delete).unwrap().results[0].error_code, denied);
    let failed = ResponseError::SaslAuthenticationFailed.code();
    let mut nobody = Asking::plain(broker.address());
    assert_eq!(nobody.authenticate(SCRAM, ("nobody", "x")).0, failed);
    let said = |parts: &[&str]| {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        lines
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    for parts in [
        [
            "User:admin",
            "AlterUserScramCredentials",
            "set alice",
            "asked",
        ],
        ["User:alice", "DeleteGroups", "payroll", "asked"],
        ["User:alice", "DeleteGroups", "group payroll", "refused"],
        ["User:ANONYMOUS", "SaslAuthenticate", "nobody", "refused"],
    ] {
        wait_for("a line", || said(&parts));
    }
    let all = std::fs::read_to_string(&log).unwrap();
    assert!(!all.contains("ListGroups"), "{all}");
    assert!(
        !all.contains("alice-secret") && !all.contains("salt"),
        "{all}"
    );
    broker.stop();
}

#[test]
fn the_dashboard_of_a_broker_that_asks_who_clients_are_gives_nothing_without_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let status = |broker: &Running, path: &str| {
        let mut stream = TcpStream::connect(broker.broker().dashboard_address().unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let broker = sasl(dir.path(), &[]);
    add_user(&broker, "alice", "alice-secret");
    for path in ["/api/meta/tree?path=/config/users", "/api/clients", "/"] {
        assert_ne!(status(&broker, path), "200", "{path}");
    }
    assert_eq!(status(&broker, "/healthz"), "200");
    broker.stop();
}
