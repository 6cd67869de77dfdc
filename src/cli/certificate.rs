//! `metaq certificate broker|client`: more certificates of the authority that `metaq secure` has made, or of another one
//! whose files are there.
//!
//! Tests: tests/certificates.rs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Failure;
use super::authority::{Authority, Certified, DAYS, Files, PRIVATE_MODE, PUBLIC_MODE};
use super::output::say;

/// See the module's documentation.
#[derive(Debug, Args)]
pub(super) struct Certificate {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Sign a certificate for another broker, or the next one of a broker: its files are NAME.pem and NAME.key.
    #[command(
        after_help = "Examples:\n  metaq certificate broker --name broker-1 --host broker-1.example\n  metaq certificate broker --host broker-0.example --replace"
    )]
    Broker {
        /// A name or address that clients connect to, besides localhost; may be given several times.
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,
        /// What the files are called.
        #[arg(long, default_value = "broker", value_name = "NAME")]
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Sign a certificate for a client: NAME.pem has its key too, NAME.properties and NAME.conf are settings for a listener with
    /// protocol SSL.
    #[command(after_help = "Example: metaq certificate client billing")]
    Client {
        /// The user that it is: the certificate's subject is CN=NAME.
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// Where ca.pem and ca.key are, and where the files go.
    #[arg(short, long, default_value = "security", value_name = "DIRECTORY")]
    directory: PathBuf,
    /// The authority's key, where it is kept elsewhere.
    #[arg(long, value_name = "FILE")]
    ca_key: Option<PathBuf>,
    /// Take the place of files that are there; a running broker reads them within seconds.
    #[arg(long)]
    replace: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Place {
    fn open(&self) -> Result<(Authority, Files), Failure> {
        let directory = self.directory.canonicalize();
        let directory = directory
            .map_err(|error| format!("cannot read {}: {error}", self.directory.display()))?;
        let own = directory.join("ca.key");
        let key = self.ca_key.as_ref().unwrap_or(&own);
        let authority = Authority::open(&directory.join("ca.pem"), key)?;
        let files = Files {
            directory,
            replace: self.replace,
            made: Vec::new(),
        };
        Ok((authority, files))
    }

    fn tell(&self, files: &Files, more: &str) {
        let made = files.made.iter();
        let lines: Vec<String> = made
            .map(|(path, what)| format!("  {path}: {what}\n"))
            .collect();
        let made = files.made.iter();
        let made: Vec<_> = made
            .map(|(path, what)| json!({"file": path, "what": what}))
            .collect();
        let sentence = format!("Made, good for {DAYS} days:\n{}{more}", lines.concat());
        say(self.json, &json!({ "files": made }), &sentence);
    }
}

impl Certificate {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Broker { hosts, name, place } => broker(&hosts, &name, &place),
            Action::Client { name, place } => client(&name, &place),
        }
    }
}

/// A name of files, and no way to somewhere else.
fn check_name(name: &str, taken: &[&str]) -> Result<(), Failure> {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_.@".contains(letter);
    let is_good = !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain);
    match is_good && !taken.contains(&name) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} cannot name files: letters, digits and -_.@ can, and {} are taken",
            taken.join(", ")
        )
        .into()),
    }
}

/// Names of files that `metaq secure` has made for others than brokers, and for all.
const NOT_OF_BROKERS: &[&str] = &["ca", "client", "kcat", "server", "audit"];
const NOT_OF_CLIENTS: &[&str] = &["ca", "client", "kcat", "server", "audit", "broker"];

fn broker(hosts: &[String], name: &str, place: &Place) -> Result<(), Failure> {
    check_name(name, NOT_OF_BROKERS)?;
    let (authority, mut files) = place.open()?;
    let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
    files.check_free(&[key.clone(), certificate.clone()])?;
    let signed = authority.sign(Certified::Broker { names: hosts })?;
    files.write(&key, "the key", &signed.key, PRIVATE_MODE)?;
    let what = "the broker's certificate";
    files.write(&certificate, what, &signed.certificate, PUBLIC_MODE)?;
    let more = format!(
        "In server.ini:  tls.certificate={}\n                tls.key={}\n                tls.ca={}",
        files.path(&certificate),
        files.path(&key),
        files.path("ca.pem")
    );
    place.tell(&files, &more);
    Ok(())
}

fn client(name: &str, place: &Place) -> Result<(), Failure> {
    check_name(name, NOT_OF_CLIENTS)?;
    let (authority, mut files) = place.open()?;
    files.check_free(&["pem", "properties", "conf"].map(|kind| format!("{name}.{kind}")))?;
    let signed = authority.sign(Certified::Client { name })?;
    let (pem, ca) = (format!("{name}.pem"), files.path("ca.pem"));
    let both = format!("{}{}", signed.key, signed.certificate);
    files.write(&pem, "its certificate and key", &both, PRIVATE_MODE)?;
    let own = files.path(&pem);
    let java = format!(
        "security.protocol=SSL
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.keystore.type=PEM
ssl.keystore.location={own}
"
    );
    let librdkafka = format!(
        "security.protocol=ssl
ssl.ca.location={ca}
ssl.certificate.location={own}
ssl.key.location={own}
"
    );
    let what = "settings for Java clients, Kafka's tools and metaq";
    files.write(&format!("{name}.properties"), what, &java, PRIVATE_MODE)?;
    let what = "the same for kcat (-F) and librdkafka";
    files.write(&format!("{name}.conf"), what, &librdkafka, PRIVATE_MODE)?;
    let more = format!(
        "It is User:CN={name}, or what ssl.principal.mapping.rules of the listener make of that, where ssl.client.auth is required.
Its rights:     metaq acl add --allow-principal User:CN={name} --producer --topic orders"
    );
    place.tell(&files, &more);
    Ok(())
}
