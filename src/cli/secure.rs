//! `metaq secure`: a first setup with TLS, users and access control lists in one command: an authority and a certificate of one's own, an
//! admin, a server.ini, and files for clients.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::BASE64URL_NOPAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::Failure;
use super::output::say;
use crate::security::random_bytes;

/// Bytes of a password that is made.
const PASSWORD_BYTES: usize = 18;
/// How long the certificates are valid, days.
const DAYS: u32 = 825;
/// Files that only their owner reads.
const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  metaq secure --host broker-0.example
  metaq secure -c conf/server.ini --directory /etc/metaq/security --host broker-0.example --host 10.0.0.7")]
pub(super) struct Secure {
    /// The configuration that the new one begins with.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the files go; it must not hold any of them yet.
    #[arg(short, long, default_value = "security", value_name = "DIRECTORY")]
    directory: PathBuf,
    /// A name or address that clients connect to, besides localhost; may be given several times. The first is told to clients.
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Port of the listener.
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// The admin's name.
    #[arg(long, default_value = "admin", value_name = "USER")]
    admin: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The files, in the order in which they are made.
struct Files {
    directory: PathBuf,
    made: Vec<(String, &'static str)>,
}

impl Files {
    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn write(
        &mut self,
        name: &str,
        what: &'static str,
        text: &str,
        mode: u32,
    ) -> Result<(), Failure> {
        let path = self.directory.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        self.made.push((path.display().to_string(), what));
        Ok(())
    }
}

impl Secure {
    pub(super) fn run(self) -> Result<(), Failure> {
        let before = self.configuration()?;
        fs::create_dir_all(&self.directory)
            .map_err(|error| format!("cannot make {}: {error}", self.directory.display()))?;
        let mut files = Files {
            directory: self.directory.canonicalize()?,
            made: Vec::new(),
        };
        for name in ["ca.pem", "server.ini", "client.properties"] {
            if files.directory.join(name).exists() {
                return Err(format!("{} is there already", files.path(name)).into());
            }
        }
        self.certificates(&mut files)?;
        let password = BASE64URL_NOPAD.encode(&random_bytes(PASSWORD_BYTES));
        self.server(&mut files, &before, &password)?;
        self.clients(&mut files, &password)?;
        self.tell(&files);
        Ok(())
    }

    /// The configuration to begin with, without what another listener is.
    fn configuration(&self) -> Result<String, Failure> {
        let Some(file) = &self.config else {
            return Ok("[system]\n".to_owned());
        };
        let text = read(file)?;
        let has = |section: &str| text.lines().any(|line| line.trim().starts_with(section));
        if has("[security]") || has("[listener=") {
            return Err(format!(
                "{} has [security] or a [listener=…] already",
                file.display()
            )
            .into());
        }
        let names_listener = |line: &&str| {
            let line = line.trim_start();
            let keys = [
                "listeners",
                "advertised.listeners",
                "hostName",
                "host.name",
                "serverPort",
                "port",
                "dashboardHttpHost",
                "dashboard.http.host",
                "dashboard.tls",
                "dashboard.tls.certificate",
                "dashboard.tls.key",
            ];
            let key = line.split('=').next().unwrap_or_default().trim_end();
            keys.contains(&key)
        };
        let kept: Vec<&str> = text.lines().filter(|line| !names_listener(line)).collect();
        Ok(kept.join("\n") + "\n")
    }

    fn certificates(&self, files: &mut Files) -> Result<(), Failure> {
        let mut authority = CertificateParams::default();
        authority
            .distinguished_name
            .push(DnType::CommonName, "metaq authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for_days(&mut authority, DAYS * 4);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut names = vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        names.extend(self.hosts.iter().cloned());
        let mut broker = CertificateParams::new(names)?;
        let name = self.hosts.first().map_or("localhost", String::as_str);
        broker.distinguished_name.push(DnType::CommonName, name);
        broker.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        broker.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        valid_for_days(&mut broker, DAYS);
        let key = KeyPair::generate()?;
        let certificate = broker.signed_by(&key, &authority)?;
        let private = PRIVATE_MODE;
        files.write(
            "ca.pem",
            "the authority that clients trust",
            &authority.pem(),
            PUBLIC_MODE,
        )?;
        files.write(
            "ca.key",
            "its key; keep it elsewhere",
            &authority.key().serialize_pem(),
            private,
        )?;
        files.write(
            "broker.pem",
            "the broker's certificate",
            &certificate.pem(),
            PUBLIC_MODE,
        )?;
        files.write("broker.key", "its key", &key.serialize_pem(), private)
    }

    fn server(&self, files: &mut Files, before: &str, password: &str) -> Result<(), Failure> {
        let advertised = self.hosts.first().map_or(String::new(), |host| {
            format!("advertised={host}:{}\n", self.port)
        });
        let brokers_password = BASE64URL_NOPAD.encode(&random_bytes(PASSWORD_BYTES));
        let text = format!(
            "{before}
[security]
; The admin is there without the coordination tree; others are made with metaq user add.
admin.user={admin}
admin.password={password}
; The brokers of a cluster are this user to each other: the same on all of them.
inter.broker.user=metaq-broker
inter.broker.password={brokers_password}
inter.broker.listener.name=SECURE
; Nobody may do anything but those who are allowed to: metaq acl add.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{admin};User:metaq-broker
audit.log.path={audit}
; The dashboard has the listener's certificate, and asks who one is. Without the last line others can reach it too, and with it
; /metrics, which asks nobody.
dashboard.tls=true
dashboardHttpHost=127.0.0.1

[listener=SECURE]
protocol=SASL_SSL
port={port}
{advertised}sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256
tls.certificate={certificate}
tls.key={key}
tls.ca={ca}
",
            admin = self.admin,
            audit = files.path("audit.log"),
            port = self.port,
            certificate = files.path("broker.pem"),
            key = files.path("broker.key"),
            ca = files.path("ca.pem"),
        );
        files.write(
            "server.ini",
            "the broker's configuration",
            &text,
            PRIVATE_MODE,
        )
    }

    fn clients(&self, files: &mut Files, password: &str) -> Result<(), Failure> {
        let (admin, ca) = (&self.admin, files.path("ca.pem"));
        let host = self.hosts.first().map_or("localhost", String::as_str);
        let servers = format!("{host}:{}", self.port);
        let java = format!(
            "bootstrap.servers={servers}
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{admin}\" password=\"{password}\";
ssl.truststore.type=PEM
ssl.truststore.location={ca}
"
        );
        let librdkafka = format!(
            "bootstrap.servers={servers}
security.protocol=sasl_ssl
sasl.mechanisms=SCRAM-SHA-512
sasl.username={admin}
sasl.password={password}
ssl.ca.location={ca}
"
        );
        let what = "the admin's settings for Java clients, Kafka's tools and metaq";
        files.write("client.properties", what, &java, PRIVATE_MODE)?;
        let what = "the same for kcat (-F) and librdkafka";
        files.write("kcat.conf", what, &librdkafka, PRIVATE_MODE)
    }

    fn tell(&self, files: &Files) {
        let made: Vec<_> = files
            .made
            .iter()
            .map(|(path, what)| json!({"file": path, "what": what}))
            .collect();
        let lines = files
            .made
            .iter()
            .map(|(path, what)| format!("  {path}: {what}"));
        let lines: Vec<String> = lines.collect();
        let (server, client) = (files.path("server.ini"), files.path("client.properties"));
        let host = self.hosts.first().map_or("localhost", String::as_str);
        let to = format!("-b {host}:{} --command-config {client}", self.port);
        let sentence = format!(
            "Made:\n{}\nThe certificate is valid for {DAYS} days; its file may be replaced while the broker runs.\nStart:      metaq start -c {server}\nTry:        metaq topic create t {to}\nLook:       metaq status --command-config {client}, or https://localhost:8120 as {admin}\nAnd kcat:   echo hello | kcat -F {} -P -t t\nA user:     METAQ_PASSWORD=… metaq user add alice {to}\nIts rights: metaq acl add --allow-principal User:alice --producer --topic t {to}",
            lines.join("\n"),
            files.path("kcat.conf"),
            admin = self.admin,
        );
        say(self.json, &json!({ "files": made }), &sentence);
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file);
    text.map_err(|error| format!("cannot read {}: {error}", file.display()).into())
}

/// From an hour ago, so that clocks may differ.
fn valid_for_days(params: &mut CertificateParams, days: u32) {
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);
    params.not_before = (now - hour).into();
    params.not_after = (now + hour * 24 * days).into();
}
