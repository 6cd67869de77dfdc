//! `metaq secure`: a first setup with TLS, users and access control lists in one command: an authority and a certificate of one's own, an
//! admin, a server.ini, and files for clients.
//!
//! Tests: tests/certificates.rs.

use std::fs;
use std::net::ToSocketAddrs;
use std::path::PathBuf;

use clap::Args;
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;

use super::Failure;
use super::authority::{Authority, Certified, DAYS, Files, PRIVATE_MODE, PUBLIC_MODE, read};
use super::output::say;
use crate::security::random_bytes;

/// What a setup makes.
const FILES: [&str; 7] = [
    "ca.pem",
    "ca.key",
    "broker.pem",
    "broker.key",
    "server.ini",
    "client.properties",
    "kcat.conf",
];
/// Bytes of a password that is made.
const PASSWORD_BYTES: usize = 18;

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

impl Secure {
    pub(super) fn run(self) -> Result<(), Failure> {
        let before = self.configuration()?;
        fs::create_dir_all(&self.directory)
            .map_err(|error| format!("cannot make {}: {error}", self.directory.display()))?;
        let mut files = Files {
            directory: self.directory.canonicalize()?,
            replace: false,
            made: Vec::new(),
        };
        for name in FILES {
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
        let authority = Authority::make("metaq authority")?;
        let made = authority.sign(Certified::Broker { names: &self.hosts })?;
        files.write(
            "ca.pem",
            "the authority that clients trust",
            &authority.certificate,
            PUBLIC_MODE,
        )?;
        let (what, key) = ("its key; keep it elsewhere", authority.key());
        files.write("ca.key", what, &key, PRIVATE_MODE)?;
        let what = "the broker's certificate";
        files.write("broker.pem", what, &made.certificate, PUBLIC_MODE)?;
        files.write("broker.key", "its key", &made.key, PRIVATE_MODE)
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
        let unknown = match (host, self.port).to_socket_addrs() {
            Ok(_) => String::new(),
            Err(error) => format!("\n{host} is not known on this machine: {error}\n"),
        };
        let sentence = format!(
            "Made:\n{lines}\nThe certificate is valid for {DAYS} days (metaq certificate broker --replace makes the next one).\n{unknown}\nStart:      metaq start -c {server}\nThen:       export METAQ_COMMAND_CONFIG={client}\nTry:        metaq topic create orders\nLook:       metaq status, or https://localhost:8120 as {admin}; dashboardHttpHost opens it to other machines\nAnd kcat:   echo hello | kcat -F {kcat} -P -t orders\nA user:     METAQ_PASSWORD=… metaq user add billing\nIts rights: metaq acl add --allow-principal User:billing --producer --topic orders\nIts files:  those of the admin with its own name and password",
            lines = lines.join("\n"),
            kcat = files.path("kcat.conf"),
            admin = self.admin,
        );
        say(self.json, &json!({ "files": made }), &sentence);
    }
}
