//! What the commands tell somebody who asks the wrong listener, may not do something, or made a mistake: what is wrong, and what
//! to set.

mod common;
#[path = "common/process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::wait_for;
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::{GroupId, JoinGroupRequest};
use process::{Process, metaq};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// The listeners of a bench, in the order of its ready line.
const LISTENERS: [&str; 5] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", "MTLS"];
const ALICE: &str = "alice-secret";

/// A broker with a listener of every kind, as the program itself. Who comes in by the plain one may do everything.
struct Bench {
    process: Process,
    dir: tempfile::TempDir,
}

impl Bench {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_certificates(dir.path());
        let file = |key: &str, name: &str| format!("{key}={}", dir.path().join(name).display());
        let listeners = LISTENERS
            .map(|name| format!("{name}://127.0.0.1:0"))
            .join(",");
        let own = [
            format!("listeners={listeners}"),
            file("tls.certificate", "broker.pem"),
            file("tls.key", "broker.key"),
            file("tls.ca", "ca.pem"),
            file("audit.log.path", "audit.log"),
        ];
        let mut settings = vec![
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,MTLS:SSL",
            "listener.name.mtls.ssl.client.auth=required",
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
            "admin.user=admin",
            "admin.password=admin-secret",
        ];
        settings.extend(own.iter().map(String::as_str));
        settings.extend(more);
        let log = dir.path().join("broker.log");
        let process = Process::start_logging(&dir.path().join("data"), &settings, &log);
        Self { process, dir }
    }

    fn address(&self, listener: &str) -> String {
        let ready = &self.process.ready;
        let all = ready.split("listening on ").nth(1).unwrap();
        let at = LISTENERS.iter().position(|name| *name == listener);
        all.split(", ").nth(at.unwrap()).unwrap().trim().to_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of client properties.
    fn properties(&self, name: &str, text: &str) -> String {
        let file = self.file(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn trusting(&self, protocol: &str, authority: &str) -> String {
        let authority = self.file(authority);
        format!(
            "security.protocol={protocol}\nssl.truststore.location={}\n",
            authority.display()
        )
    }

    /// As whoever comes in by the plain listener.
    fn as_all(&self, words: &[&str]) -> (Option<i32>, String, String) {
        metaq(&[words, &["-b", &self.address("PLAINTEXT")]].concat())
    }

    /// As alice, who is added.
    fn as_alice(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let properties = self.properties("alice", &sasl("SASL_PLAINTEXT", "PLAIN", "alice", ALICE));
        let address = self.address("SASL_PLAINTEXT");
        metaq(&[words, &["-b", &address, "--command-config", &properties]].concat())
    }

    fn add_alice(&self) {
        let address = self.address("PLAINTEXT");
        let (code, err) = with_password(ALICE, &["user", "add", "alice", "-b", &address]);
        assert_eq!(code, Some(0), "{err}");
    }

    /// The lines of the audit log that have a text.
    fn audited(&self, text: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.file("audit.log")).unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

fn write_certificates(dir: &Path) {
    let authority = || {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (own, other) = (authority(), authority());
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let params = CertificateParams::new(names.to_vec()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &own).unwrap();
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let files = [
        ("ca.pem", own.pem()),
        ("other-ca.pem", other.pem()),
        ("broker.pem", certificate.pem()),
        ("broker.key", key.serialize_pem()),
        ("other.key", other_key),
    ];
    for (name, pem) in files {
        std::fs::write(dir.join(name), pem).unwrap();
    }
}

fn sasl(protocol: &str, mechanism: &str, user: &str, password: &str) -> String {
    format!(
        "security.protocol={protocol}\nsasl.mechanism={mechanism}\nsasl.jaas.config=x required username=\"{user}\" password=\"{password}\";\n"
    )
}

/// Runs the program with a password in the environment.
fn with_password(password: &str, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(words)
        .env("METAQ_PASSWORD", password)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), err)
}

#[test]
fn a_client_at_the_wrong_listener_is_told_what_to_set() {
    let bench = Bench::start(&[]);
    let ssl = bench.properties("ssl", &bench.trusting("SSL", "ca.pem"));
    let stranger = bench.properties("stranger", &bench.trusting("SSL", "other-ca.pem"));
    let admin = |protocol| sasl(protocol, "PLAIN", "admin", "admin-secret");
    let plain_sasl = bench.properties("sasl", &admin("SASL_PLAINTEXT"));
    let both = admin("SASL_SSL") + &bench.trusting("SASL_SSL", "ca.pem");
    let sasl_ssl = bench.properties("sasl_ssl", &both);
    let sha512 = sasl("SASL_PLAINTEXT", "SCRAM-SHA-512", "admin", "admin-secret");
    let sha512 = bench.properties("sha512", &sha512);
    let none = bench.properties("none", "");
    let cases = [
        (
            "SSL",
            &none,
            "has TLS: set security.protocol=SSL or SASL_SSL",
        ),
        ("SASL_SSL", &plain_sasl, "has TLS: set security.protocol="),
        (
            "SASL_SSL",
            &ssl,
            "a listener with SASL wants security.protocol=SASL_SSL",
        ),
        (
            "SASL_PLAINTEXT",
            &none,
            "a listener with SASL wants security.protocol=SASL_PLAINTEXT",
        ),
        (
            "PLAINTEXT",
            &plain_sasl,
            "has no SASL: set security.protocol=PLAINTEXT",
        ),
        ("SSL", &sasl_ssl, "has no SASL: set security.protocol=SSL"),
        (
            "PLAINTEXT",
            &ssl,
            "speaks no TLS: set security.protocol=PLAINTEXT or SASL_PLAINTEXT",
        ),
        (
            "SSL",
            &stranger,
            "signed by none of the authorities in ssl.truststore.location",
        ),
        (
            "MTLS",
            &ssl,
            "asks for a certificate: ssl.keystore.location",
        ),
        (
            "SASL_PLAINTEXT",
            &sha512,
            "has no SCRAM-SHA-512: it has PLAIN, SCRAM-SHA-256",
        ),
    ];
    for (listener, properties, expected) in cases {
        let address = bench.address(listener);
        let words = [
            "topic",
            "list",
            "-b",
            &address,
            "--command-config",
            properties,
        ];
        let (code, _, err) = metaq(&words);
        assert!(
            code == Some(1) && err.contains(expected) && err.contains(&address),
            "{listener} with {properties}: {err}"
        );
    }
    let log = std::fs::read_to_string(bench.file("broker.log")).unwrap();
    assert!(
        log.contains("the client speaks no TLS, which this listener does"),
        "{log}"
    );
}

#[test]
fn a_right_that_is_missing_is_named() {
    let bench = Bench::start(&[]);
    bench.add_alice();
    assert_eq!(bench.as_all(&["topic", "create", "orders"]).0, Some(0));
    let lacks = |words: &[&str], expected: &str| {
        let (code, _, err) = bench.as_alice(words);
        assert!(
            code == Some(1) && err.contains(expected),
            "{words:?}: {err}"
        );
    };
    lacks(
        &["produce", "orders", "/dev/null"],
        "you need Write on topic orders",
    );
    lacks(
        &["consume", "orders", "-e"],
        "you need Describe on topic orders",
    );
    let allow = |operation: &str, resource: &[&str]| {
        let words = [
            "acl",
            "add",
            "--allow-principal",
            "User:alice",
            "--operation",
            operation,
        ];
        let (code, _, err) = bench.as_all(&[&words, resource].concat());
        assert_eq!(code, Some(0), "{err}");
    };
    allow("Describe", &["--topic", "orders"]);
    allow("Describe", &["--topic", "missing"]);
    allow("IdempotentWrite", &["--cluster"]);
    let line = bench.file("line");
    std::fs::write(&line, "a line\n").unwrap();
    let line = line.to_str().unwrap();
    let of_cluster = "you need DescribeConfigs on the cluster";
    wait_for("the rights", || {
        bench.as_alice(&["topic", "describe", "orders"]).0 == Some(0)
    });
    assert_eq!(bench.as_all(&["produce", "orders", line]).0, Some(0));
    lacks(
        &["consume", "orders", "-e"],
        "you need Read on topic orders",
    );
    lacks(
        &["produce", "orders", line],
        "you need Write on topic orders",
    );
    lacks(
        &["produce", "missing", line],
        "you need Create on topic missing",
    );
    lacks(
        &["topic", "delete", "orders"],
        "you need Delete on topic orders",
    );
    lacks(
        &["topic", "alter", "orders", "-o", "retention.ms=1"],
        "you need AlterConfigs on topic orders",
    );
    lacks(&["config", "show"], of_cluster);
    lacks(&["loggers", "list"], of_cluster);
    lacks(&["quota", "list"], of_cluster);
    lacks(&["user", "list"], "you need Describe on the cluster");
    lacks(&["group", "describe", "g"], "you need Describe on group g");
}

#[test]
fn who_may_not_produce_is_refused_once_and_not_for_seconds() {
    let bench = Bench::start(&[]);
    bench.add_alice();
    let begun = Instant::now();
    let (code, _, err) = bench.as_alice(&["produce", "other", "--acks", "1", "/dev/null"]);
    assert!(
        code == Some(1) && err.contains("you need Write on topic other"),
        "{err}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    wait_for("the refusal", || !bench.audited("topic other").is_empty());
    assert!(bench.audited("topic other").len() <= 3);
}

#[test]
fn a_broker_that_gives_nobody_messages_is_told_from_a_right_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &["acceptSubscribe=false"]);
    let address = process.address().to_string();
    assert_eq!(metaq(&["topic", "create", "t", "-b", &address]).0, Some(0));
    let line = dir.path().join("line");
    std::fs::write(&line, "a line\n").unwrap();
    let (code, _, err) = metaq(&["produce", "t", line.to_str().unwrap(), "-b", &address]);
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = metaq(&["consume", "t", "-e", "-b", &address]);
    assert!(
        code == Some(1) && err.contains("acceptSubscribe") && !err.contains("you need"),
        "{err}"
    );
}

#[test]
fn a_password_of_a_user_of_the_configuration_is_not_taken_without_effect() {
    let bench = Bench::start(&[]);
    let address = bench.address("PLAINTEXT");
    let (code, err) = with_password("another-secret", &["user", "add", "admin", "-b", &address]);
    let expected = "this user is in the configuration: set admin.password and restart";
    assert!(code == Some(1) && err.contains(expected), "{err}");
    let words = ["user", "passwd", "admin", "-b", &address];
    let (code, err) = with_password("another-secret", &words);
    assert!(code == Some(1) && err.contains("admin.password"), "{err}");
    let (_, out, _) = bench.as_all(&["user", "list"]);
    assert!(
        out.trim_start().starts_with("USER") && !out.contains("admin"),
        "{out}"
    );
}

#[test]
fn a_quota_of_somebody_else_and_one_that_is_not_there_are_said() {
    let bench = Bench::start(&[]);
    let (code, _, err) =
        bench.as_all(&["quota", "set", "--user", "a", "connection_creation_rate=5"]);
    assert!(
        code == Some(1) && err.contains("a quota of addresses: --ip or --default-ip"),
        "{err}"
    );
    let (code, _, err) = bench.as_all(&["quota", "set", "--default-ip", "producer_byte_rate=5"]);
    assert!(
        code == Some(1) && err.contains("a quota of users and client ids"),
        "{err}"
    );
    let remove = ["quota", "remove", "--user", "a", "producer_byte_rate"];
    assert_eq!(bench.as_all(&remove).1, "nothing was set\n");
    let set = ["quota", "set", "--user", "a", "producer_byte_rate=5"];
    assert_eq!(bench.as_all(&set).1, "set\n");
    assert_eq!(bench.as_all(&remove).1, "removed\n");
    assert_eq!(
        bench.as_all(&["quota", "remove", "--user", "a"]).1,
        "nothing was set\n"
    );
}

#[test]
fn the_audit_log_says_in_words_what_was_asked() {
    let bench = Bench::start(&[]);
    bench.add_alice();
    let words = [
        "acl",
        "add",
        "--allow-principal",
        "User:alice",
        "--operation",
        "Read",
        "--topic",
        "ord",
        "--resource-pattern-type",
        "prefixed",
    ];
    let (code, _, err) = bench.as_all(&words);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(bench.as_all(&["topic", "create", "orders"]).0, Some(0));
    let alter = ["config", "set", "topic", "orders", "retention.ms=1000"];
    assert_eq!(bench.as_all(&alter).0, Some(0));
    let unset = ["config", "unset", "topic", "orders", "retention.ms"];
    assert_eq!(bench.as_all(&unset).0, Some(0));
    bench.as_all(&[
        "config",
        "set",
        "broker",
        "default",
        "ssl.keystore.key=planted-key",
    ]);
    // A slip in the kind of resource, and a long value before one that matters.
    let slip = [
        "config",
        "set",
        "topic",
        "orders",
        "admin.password=planted-slip",
    ];
    bench.as_all(&slip);
    let long = format!(
        "leader.replication.throttled.replicas={}",
        "0:0,".repeat(90) + "0:0"
    );
    let hidden = [
        "config",
        "set",
        "topic",
        "orders",
        &long,
        "max.message.bytes=2000",
    ];
    assert_eq!(bench.as_all(&hidden).0, Some(0));
    for told in [
        "topic orders: max.message.bytes=\\\"2000\\\"",
        "topic orders: admin.password\"",
        "Allow User:alice from *: Read on Topic ord and what begins so",
        "topic orders: retention.ms=\\\"1000\\\"",
        "topic orders: delete retention.ms",
        "broker default: ssl.keystore.key\"",
        "set alice SCRAM-SHA-256",
        "set alice SCRAM-SHA-512",
    ] {
        wait_for(told, || bench.audited(told).len() == 1);
    }
    assert!(bench.audited("planted-").is_empty());
}

#[test]
fn a_dashboard_that_refuses_is_told_by_its_sentence_and_from_one_that_is_away() {
    let bench = Bench::start(&["dashboard.read.token=true"]);
    let dashboard = bench.process.dashboard().to_owned();
    for command in ["status", "top"] {
        let (code, _, err) = metaq(&[command, "-d", &dashboard]);
        let wanted = if command == "status" { 5 } else { 1 };
        assert!(
            code == Some(wanted) && err.contains("log in as a user") && !err.contains('{'),
            "{code:?} {err}"
        );
    }
    let token = sasl("SASL_PLAINTEXT", "SCRAM-SHA-256", "id", "hmac");
    let token = token.replace(';', " tokenauth=\"true\";");
    let token = bench.properties("token", &token);
    let (code, _, err) = metaq(&["status", "-d", &dashboard, "--command-config", &token]);
    assert!(
        code == Some(5) && err.contains("user or password is wrong"),
        "{code:?} {err}"
    );
    let (code, _, _) = metaq(&["status", "-d", "127.0.0.1:1"]);
    assert_eq!(code, Some(4));
}

#[test]
fn a_support_bundle_is_asked_for_by_tls_and_fails_where_the_broker_tells_nothing() {
    let bench = Bench::start(&["dashboard.tls=true"]);
    let ready = &bench.process.ready;
    let dashboard = ready.split("dashboard https://").nth(1).unwrap();
    let port = dashboard
        .split(',')
        .next()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap();
    let port = format!("dashboardHttpPort={}", port.trim());
    let both =
        sasl("SASL_SSL", "PLAIN", "admin", "admin-secret") + &bench.trusting("SASL_SSL", "ca.pem");
    let properties = bench.properties("admin", &both);
    let bundle = |name: &str, more: &[&str]| {
        let file = bench.file(name);
        let file = file.to_str().unwrap();
        metaq(&[&["support-bundle", "--set", &port, "-o", file], more].concat())
    };
    let (code, out, err) = bundle("a.tar.gz", &["--command-config", &properties]);
    assert!(
        code == Some(0) && !out.contains("broker/broker.json: missing"),
        "{out}{err}"
    );
    let (code, out, err) = bundle("b.tar.gz", &[]);
    assert!(
        code == Some(1) && out.contains("Written to") && err.contains("the broker told nothing"),
        "{out}{err}"
    );
    let (code, _, err) = bundle("b.tar.gz", &[]);
    assert!(
        code == Some(1) && err.contains("--output names another file"),
        "{err}"
    );
}

#[test]
fn what_a_check_finds_is_what_would_keep_a_broker_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("store.p12"), [0x30, 0x82, 0, 0]).unwrap();
    let cases = [
        (
            String::new(),
            "listener SSL: a listener with TLS needs".to_owned(),
        ),
        (
            format!(
                "tls.certificate={}\ntls.key={}\n",
                at("broker.pem"),
                at("no.key")
            ),
            format!("cannot read {}", at("no.key")),
        ),
        (
            format!(
                "tls.certificate={}\ntls.key={}\n",
                at("broker.pem"),
                at("other.key")
            ),
            format!(
                "{}: the private key does not fit the certificate in {}",
                at("other.key"),
                at("broker.pem")
            ),
        ),
        (
            format!("ssl.keystore.location={}\n", at("store.p12")),
            "openssl pkcs12 -in".to_owned(),
        ),
        (
            "ssl.keystore.type=PKCS12\n".to_owned(),
            "openssl pkcs12 -in KEYSTORE -nodes".to_owned(),
        ),
    ];
    let file = at("server.ini");
    for (lines, expected) in cases {
        let text = format!(
            "[system]\nlisteners=SSL://127.0.0.1:0\nsecurity.inter.broker.protocol=SSL\n{lines}"
        );
        std::fs::write(&file, text).unwrap();
        let (code, out, _) = metaq(&["config", "check", &file]);
        assert!(
            code == Some(1) && out.contains(&expected),
            "{expected}: {out}"
        );
        let data = format!("dataPath={}", at("data"));
        let set = ["--set", &data, "--set", "dashboardHttpPort=0"];
        let (code, _, err) = metaq(&[&["start", "-c", &file], &set[..]].concat());
        assert!(
            code == Some(1) && err.contains(&expected),
            "{expected}: {err}"
        );
    }
    let jwks = at("keys.json");
    let text = format!(
        "[system]\nlisteners=SASL_PLAINTEXT://127.0.0.1:0\nsasl.enabled.mechanisms=OAUTHBEARER\nsasl.oauthbearer.jwks.endpoint.url=file://{jwks}\nsasl.oauthbearer.expected.audience=a\nsasl.oauthbearer.expected.issuer=b\nadmin.user=admin\n"
    );
    std::fs::write(&file, text).unwrap();
    let (code, out, _) = metaq(&["config", "check", &file]);
    assert!(
        code == Some(1) && out.contains(&jwks) && out.contains("admin.password is not"),
        "{out}"
    );
}

#[test]
fn what_is_no_secret_is_not_called_one() {
    let bench = Bench::start(&[]);
    let (code, out, err) = bench.as_all(&["config", "show"]);
    assert_eq!(code, Some(0), "{err}");
    let line = |key: &str| {
        let found = out
            .lines()
            .find(|line| line.split_whitespace().next() == Some(key));
        found
            .unwrap_or_else(|| panic!("no {key} in {out}"))
            .to_owned()
    };
    assert!(line("admin.password").contains("(secret)"));
    assert!(!line("ssl.keystore.key").contains("(secret)"));
    assert!(line("super.users").contains("(not told"));
    assert!(line("allow.everyone.if.no.acl.found").contains(" false "));
}

#[test]
fn a_lone_broker_that_is_drained_is_told_once_and_who_reads_no_more_gets_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &[]);
    let address = process.address().to_string();
    assert_eq!(metaq(&["topic", "create", "t", "-b", &address]).0, Some(0));
    let (code, out, err) = metaq(&["cluster", "drain", "0", "-b", &address]);
    assert!(
        code == Some(1)
            && out.contains("others lead 0 of 1 partition that it led")
            && err.contains("leads 1 partition still"),
        "{out}{err}"
    );
    let mut man = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .arg("man")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(man.stdout.take());
    let ended = man.wait_with_output().unwrap();
    assert!(
        ended.status.success() && ended.stderr.is_empty(),
        "{ended:?}"
    );
}

#[test]
fn a_plan_for_a_group_with_members_is_refused_before_it_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &["group.initial.rebalance.delay.ms=0"]);
    let address = process.address().to_string();
    let mut client = process.client();
    client.create("t");
    let protocol = JoinGroupRequestProtocol::default().with_name("range".into());
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId("g".into()))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol]);
    assert_eq!(client.ask(3, &join).error_code, 0);
    let reset = [
        "group",
        "reset-offsets",
        "g",
        "-t",
        "t",
        "--to-offset",
        "0",
        "--execute",
        "-b",
        &address,
    ];
    let (code, out, err) = metaq(&reset);
    assert!(
        code == Some(1) && out.is_empty() && err.contains("g has 1 member;"),
        "{out}{err}"
    );
}

#[test]
fn rights_are_taken_away_as_far_as_options_name_them_and_no_further() {
    let bench = Bench::start(&[]);
    bench.add_alice();
    let acl = |words: &str| {
        let all: Vec<&str> = ["acl"].into_iter().chain(words.split(' ')).collect();
        bench.as_all(&all)
    };
    let count = || {
        let (code, out, err) = acl("list --json");
        assert_eq!(code, Some(0), "{err}");
        let all: serde_json::Value = serde_json::from_str(&out).unwrap();
        all.as_array().unwrap().len()
    };
    let before = count();
    for added in [
        "add --allow-principal User:a --operation Read --topic orders",
        "add --allow-principal User:a --operation Write --topic o --pattern prefixed",
        "add --deny-principal User:b --deny-host 10.0.0.1 --operation Read --topic orders",
    ] {
        assert_eq!(acl(added).0, Some(0));
    }
    for nothing in [
        "remove --topic orders --allow-host 10.0.0.1",
        "remove --allow-principal User:b --topic orders",
        "remove --allow-principal User:a --deny-host 10.0.0.1",
    ] {
        assert_eq!(acl(nothing).0, Some(1), "{nothing}");
    }
    assert_eq!(count(), before + 3);
    for (removed, left) in [
        ("remove --allow-principal User:a --pattern prefixed", 2),
        ("remove --allow-principal User:a", 1),
        ("remove --topic orders", 0),
    ] {
        assert_eq!(acl(removed).0, Some(0), "{removed}");
        assert_eq!(count(), before + left, "{removed}");
    }
}
