//! Certificates of one's own authority: made by commands, shown by a broker, replaced while it runs, and spoken of before they
//! are over.

mod common;
#[path = "common/process.rs"]
mod process;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::wait_for;
use process::{Process, metaq};
use rcgen::{CertificateParams, Issuer, KeyPair};

fn certificate(directory: &Path, words: &[&str]) -> (Option<i32>, String) {
    let all = [
        &["certificate"],
        words,
        &["--directory", directory.to_str().unwrap()],
    ]
    .concat();
    let (code, out, err) = metaq(&all);
    (code, out + &err)
}

/// A directory with an authority of its own.
fn authority(within: &Path) -> std::path::PathBuf {
    std::fs::create_dir_all(within).unwrap();
    let directory = within.join("security");
    let (code, _, err) = metaq(&["secure", "--directory", directory.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    directory
}

/// A certificate of the authority that is over, or will be, in so many hours.
fn expiring(directory: &Path, hours: i64) {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    params.not_before = (now - hour * 1000).into();
    params.not_after = match hours {
        0.. => (now + hour * hours as u32).into(),
        _ => (now - hour * hours.unsigned_abs() as u32).into(),
    };
    let key = KeyPair::from_pem(&read("broker.key")).unwrap();
    let signed = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("broker.pem"), signed.pem()).unwrap();
}

fn start(directory: &Path, data: &Path) -> Process {
    let file = |name: &str| directory.join(name).display().to_string();
    let settings = [
        "listeners=SSL://127.0.0.1:0".to_owned(),
        "ssl.client.auth=required".to_owned(),
        format!("tls.certificate={}", file("broker.pem")),
        format!("tls.key={}", file("broker.key")),
        format!("tls.ca={}", file("ca.pem")),
        "dashboard.token=t".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Process::start(data, &settings)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_signs_for_more_brokers_and_for_clients() {
    let dir = tempfile::tempdir().unwrap();
    let security = authority(dir.path());
    let (code, said) = certificate(&security, &["broker", "--host", "localhost"]);
    assert!(code == Some(1) && said.contains("broker.key"), "{said}");
    let before = std::fs::read(security.join("broker.pem")).unwrap();
    let (code, said) = certificate(&security, &["broker", "--host", "b.example", "--replace"]);
    assert_eq!(code, Some(0), "{said}");
    assert_ne!(std::fs::read(security.join("broker.pem")).unwrap(), before);
    assert_eq!(mode(&security.join("broker.key")), 0o600);
    let second = ["broker", "--host", "b1.example", "--name", "broker-1"];
    let (code, said) = certificate(&security, &second);
    assert!(code == Some(0) && said.contains("broker-1.pem"), "{said}");
    // Another authority's key signs nothing.
    let other = authority(&dir.path().join("other"));
    let key = other.join("ca.key").display().to_string();
    let words = ["broker", "--host", "h", "--replace", "--ca-key", &key];
    let (code, said) = certificate(&security, &words);
    assert!(
        code == Some(1) && said.contains("not the certificate's"),
        "{said}"
    );
    for wrong in ["../x", "ca", "", "broker", "client"] {
        let (code, said) = certificate(&security, &["client", wrong]);
        assert!(
            code == Some(1) && said.contains("cannot name files"),
            "{said}"
        );
    }
    let (code, said) = certificate(&security, &["client", "billing"]);
    assert!(
        code == Some(0) && said.contains("User:CN=billing"),
        "{said}"
    );
    assert_eq!(mode(&security.join("billing.pem")), 0o600);
    // Who has it is let in, and known by it.
    let broker = start(&security, &dir.path().join("data"));
    let address = format!("localhost:{}", broker.address().port());
    let properties = security.join("billing.properties");
    let words = [
        "topic",
        "create",
        "t",
        "-b",
        &address,
        "--command-config",
        properties.to_str().unwrap(),
    ];
    let (code, out, err) = metaq(&words);
    assert_eq!(code, Some(0), "{out}{err}");
    let held = [&words[..1], &["list"], &words[3..]].concat();
    assert_eq!(metaq(&held).0, Some(0));
    let (code, _, _) = metaq(&["topic", "list", "-b", &address]);
    assert_ne!(code, Some(0), "without a certificate");
}

#[test]
fn a_certificate_that_cannot_be_used_or_is_over_soon_is_a_problem_that_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let security = authority(dir.path());
    let broker = start(&security, &dir.path().join("data"));
    let dashboard = broker.dashboard().to_owned();
    let problems = || status(&dashboard).1;
    let metric = |name: &str| {
        let page = broker.page("/metrics");
        let start = format!("{name}{{listener=\"SSL\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap().trim().parse::<i64>().unwrap()
    };
    let (expires, unusable) = (
        "metaq_certificate_expiry_timestamp_seconds",
        "metaq_certificate_unusable",
    );
    let days = (metric(expires) - now_s()) / 86_400;
    assert!((824..=825).contains(&days), "{days}");
    assert_eq!(metric(unusable), 0);
    assert!(!problems().contains("certificate"));
    // Nothing that can be used: the old one is shown on.
    let good = metric(expires);
    std::fs::write(security.join("broker.pem"), "garbage").unwrap();
    wait_for("the file to be read", || metric(unusable) == 1);
    assert!(
        problems().contains("cannot be read again"),
        "{}",
        problems()
    );
    assert_eq!(metric(expires), good);
    // Nor does one that is over take the place of one that is not.
    expiring(&security, -2);
    wait_for("the file to be read", || {
        problems().contains("has expired, ")
    });
    assert_eq!(metric(expires), good);
    expiring(&security, 50);
    wait_for("the file to be read", || metric(unusable) == 0);
    assert!(
        problems().contains("good for 2 days only"),
        "{}",
        problems()
    );
    let checked = |security: &Path| {
        let file = |name: &str| security.join(name).display().to_string();
        let settings = [
            "listeners=SSL://127.0.0.1:0".to_owned(),
            format!("tls.certificate={}", file("broker.pem")),
            format!("tls.key={}", file("broker.key")),
            format!("dataPath={}", dir.path().join("none").display()),
        ];
        let mut words = vec!["doctor", "--json"];
        settings.iter().for_each(|one| words.extend(["--set", one]));
        let found: Vec<serde_json::Value> = serde_json::from_str(&metaq(&words).1).unwrap();
        let mut found = found.into_iter();
        found.find(|one| one["check"] == "certificate").unwrap()["level"].clone()
    };
    assert_eq!(checked(&security), "warning");
    let dashboard = |key: &str| {
        let file = |name: &str| security.join(name).display().to_string();
        let settings = [
            "dashboard.tls=true".to_owned(),
            format!("dashboard.tls.certificate={}", file("broker.pem")),
            format!("dashboard.tls.key={}", file(key)),
            format!("dataPath={}", dir.path().join("none").display()),
        ];
        let mut words = vec!["doctor", "--json"];
        settings.iter().for_each(|one| words.extend(["--set", one]));
        let found: Vec<serde_json::Value> = serde_json::from_str(&metaq(&words).1).unwrap();
        let mut found = found.into_iter();
        let found = found.find(|one| one["check"] == "certificate").unwrap();
        assert!(found["found"].as_str().unwrap().starts_with("dashboard: "));
        found["level"].clone()
    };
    assert_eq!(dashboard("broker.key"), "warning");
    assert_eq!(dashboard("ca.key"), "failed");
    expiring(&security, -1);
    assert_eq!(dashboard("broker.key"), "failed");
    assert_eq!(checked(&security), "failed");
    // One that is over is served where there is no other, and said to be.
    drop(broker);
    let broker = start(&security, &dir.path().join("data"));
    let (code, out) = status(broker.dashboard());
    assert!(code != Some(0) && out.contains("has expired"), "{out}");
}

/// `metaq status` with the dashboard's token.
fn status(dashboard: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["status", "-d", dashboard])
        .env("METAQ_TOKEN", "t")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs() as i64
}

#[test]
fn the_coordination_store_is_read_by_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metaq-meta.redb");
    drop(Process::start(dir.path(), &[]));
    assert_eq!(mode(&file), 0o600);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    drop(Process::start(dir.path(), &[]));
    assert_eq!(mode(&file), 0o600);
}
