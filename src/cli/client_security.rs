//! How the operator commands protect a connection and say who they are: a file of Kafka's client properties, as Kafka's own tools
//! take it with --command-config.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::Failure;
use super::wrong_listener::tls_in_words;
use crate::security::{ClientAuth, Mechanism, PemSource, SaslIdentity, TlsSettings};
use crate::session::SecurityProtocol;

/// Both directions of a connection.
pub(super) trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// Names the file of client properties for all commands.
const COMMAND_CONFIG_VARIABLE: &str = "METAQ_COMMAND_CONFIG";

/// The file of client properties: the one that is given, or that of all commands.
pub(super) fn command_config(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| std::env::var_os(COMMAND_CONFIG_VARIABLE).map(PathBuf::from))
}

/// Does a handshake of TLS with a host.
pub(super) fn begin_tls(
    config: &Arc<rustls::ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> io::Result<Box<dyn Stream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Box::new(stream))
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientSecurity {
    tls: Option<Arc<rustls::ClientConfig>>,
    /// Whom a dashboard with TLS has to be known by, also where listeners have none.
    trusted: Option<Arc<rustls::ClientConfig>>,
    pub(super) identity: Option<SaslIdentity>,
    /// The brokers to ask, where it says that.
    pub(super) servers: Option<String>,
}

/// The host of an address `HOST:PORT`, an IPv6 one without its brackets.
pub(super) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// What such a file may say here; everything else in it is another program's.
const OWN_PREFIXES: [&str; 4] = ["security.", "sasl.", "ssl.", SERVERS];
const SERVERS: &str = "bootstrap.servers";

impl ClientSecurity {
    /// Reads a file of properties; nothing is protected without one.
    pub(super) fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let text = fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let security = Self::parse(&properties(&text));
        security.map_err(|error| format!("{}: {error}", file.display()).into())
    }

    fn parse(properties: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let text = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
        let protocol = match text("security.protocol") {
            "" => SecurityProtocol::Plaintext,
            name => SecurityProtocol::by_name(name)
                .ok_or_else(|| format!("security.protocol={name} is not known"))?,
        };
        let tls = match protocol.has_tls() {
            true => Some(Arc::new(tls_settings(properties)?.client_config()?)),
            false => None,
        };
        let names_authorities = ["ssl.truststore.location", "ssl.truststore.certificates"]
            .iter()
            .any(|key| !text(key).is_empty());
        let trusted = match &tls {
            None if names_authorities => Some(Arc::new(tls_settings(properties)?.client_config()?)),
            tls => tls.clone(),
        };
        let identity = match protocol.has_sasl() {
            true => Some(identity(properties)?),
            false => None,
        };
        Ok(Self {
            tls,
            servers: properties
                .get(SERVERS)
                .filter(|servers| !servers.is_empty())
                .cloned(),
            trusted,
            identity,
        })
    }

    #[cfg(test)]
    pub(super) fn of_identity(identity: SaslIdentity) -> Self {
        Self {
            identity: Some(identity),
            ..Self::default()
        }
    }

    /// Whether listeners have TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How a dashboard with TLS is asked, where its authorities are known.
    pub(super) fn trusted(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.trusted.clone()
    }

    /// Trusts these authorities, where no others are known.
    pub(super) fn trust(&mut self, settings: TlsSettings) -> Result<(), Failure> {
        if self.trusted.is_none() {
            self.trusted = Some(Arc::new(settings.client_config()?));
        }
        Ok(())
    }

    /// Protects a connection to an address.
    pub(super) fn protect(
        &self,
        address: &str,
        stream: TcpStream,
    ) -> Result<Box<dyn Stream>, Failure> {
        let Some(config) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let begun = begin_tls(config, host_of(address), stream);
        begun.map_err(|error| {
            let why = tls_in_words(&error);
            format!("TLS with {address} failed: {why}").into()
        })
    }
}

fn tls_settings(properties: &BTreeMap<String, String>) -> Result<TlsSettings, Failure> {
    let text = |key: &str| properties.get(key).filter(|text| !text.is_empty());
    for store in ["ssl.truststore.type", "ssl.keystore.type"] {
        if let Some(kind) = text(store).filter(|kind| *kind != "PEM") {
            let file = text(&store.replace("type", "location")).map_or("STORE", String::as_str);
            return Err(format!(
                "{store}={kind}: it has to be PEM; convert it: openssl pkcs12 -in {file} -nodes -out {file}.pem (a JKS one with keytool -importkeystore -deststoretype PKCS12 before)"
            )
            .into());
        }
    }
    let file = |key| text(key).map(|path| PemSource::File(PathBuf::from(path)));
    let written = |key: &'static str| {
        let pem = text(key)?.clone();
        Some(PemSource::Text { key, pem })
    };
    let keystore = || file("ssl.keystore.location");
    let certificate = written("ssl.keystore.certificate.chain").or_else(keystore);
    let key = written("ssl.keystore.key").or_else(keystore);
    let versions = text("ssl.enabled.protocols").map_or("TLSv1.2,TLSv1.3", String::as_str);
    let versions = versions.split(',').map(|version| version.trim().to_owned());
    let verify_host = properties
        .get("ssl.endpoint.identification.algorithm")
        .is_none_or(|algorithm| !algorithm.is_empty());
    Ok(TlsSettings {
        identity: certificate.zip(key),
        authorities: written("ssl.truststore.certificates")
            .or_else(|| file("ssl.truststore.location")),
        client_auth: ClientAuth::None,
        versions: versions.collect(),
        suites: Vec::new(),
        verify_host,
    })
}

fn identity(properties: &BTreeMap<String, String>) -> Result<SaslIdentity, Failure> {
    let text = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
    let name = text("sasl.mechanism");
    let mechanism = Mechanism::by_name(name).ok_or_else(|| {
        format!("sasl.mechanism={name} is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER")
    })?;
    if mechanism == Mechanism::OAuthBearer {
        return Ok(SaslIdentity {
            mechanism,
            is_token: false,
            user: String::new(),
            password: token(text("sasl.oauthbearer.token.endpoint.url"))?,
        });
    }
    let jaas = text("sasl.jaas.config");
    let (user, password) = (option_of(jaas, "username"), option_of(jaas, "password"));
    let (Some(user), Some(password)) = (user, password) else {
        return Err("sasl.jaas.config has no username=\"…\" and password=\"…\"".into());
    };
    Ok(SaslIdentity {
        mechanism,
        user,
        password,
        is_token: is_true(jaas, "tokenauth"),
    })
}

/// The bearer token in a file, as Kafka's FileJwtRetriever takes it.
fn token(url: &str) -> Result<String, Failure> {
    let path = url.strip_prefix("file://").ok_or(
        "OAUTHBEARER takes its token from a file here: sasl.oauthbearer.token.endpoint.url=file:///…",
    )?;
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(text.trim().to_owned())
}

/// Whether an option of a JAAS configuration is true, with or without quotes around it.
fn is_true(jaas: &str, name: &str) -> bool {
    let value = jaas.split_once(&format!("{name}=")).map(|(_, rest)| rest);
    let value = value.map(|rest| rest.trim_start_matches('"'));
    let word = value.and_then(|rest| rest.get(..4));
    word.is_some_and(|word| word.eq_ignore_ascii_case("true"))
}

/// The value of an option in a JAAS configuration.
fn option_of(jaas: &str, name: &str) -> Option<String> {
    let (_, rest) = jaas.split_once(&format!("{name}="))?;
    let rest = rest.strip_prefix('"')?;
    let mut value = String::new();
    let mut letters = rest.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return Some(value),
            '\\' => value.extend(letters.next()),
            letter => value.push(letter),
        }
    }
    None
}

/// The entries of a Java properties file; lines may go on after a backslash.
fn properties(text: &str) -> BTreeMap<String, String> {
    let joined = text.replace("\\\r\n", "").replace("\\\n", "");
    let lines = joined.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with(['#', '!']));
    let entries = lines.filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim().to_owned(), value.trim().to_owned()))
    });
    let ours = |key: &str| OWN_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    entries.filter(|(key, _)| ours(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_kafkas_tools_says_who_asks() {
        let text = "# comment\nbootstrap.servers=x\nsecurity.protocol = SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n  username=\"admin\" \\\n  password=\"a\\\"b=c\";\n";
        let security = ClientSecurity::parse(&properties(text)).unwrap();
        let identity = security.identity.unwrap();
        assert_eq!((&*identity.user, &*identity.password), ("admin", "a\"b=c"));
        assert!(security.tls.is_none());
        assert_eq!(security.servers.as_deref(), Some("x"));
    }

    #[test]
    fn a_file_may_say_that_the_user_is_a_delegation_token() {
        let is_token = |option: &str| {
            let text = format!(
                "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=x required username=\"id\" password=\"hmac\" {option};\n"
            );
            let security = ClientSecurity::parse(&properties(&text)).unwrap();
            security.identity.unwrap().is_token
        };
        for yes in ["tokenauth=\"true\"", "tokenauth=true", "tokenauth=\"True\""] {
            assert!(is_token(yes), "{yes}");
        }
        for no in ["", "tokenauth=\"false\"", "tokenauth=\"\"", "tokenauth"] {
            assert!(!is_token(no), "{no}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let refused = |text: &str| {
            ClientSecurity::parse(&properties(text))
                .unwrap_err()
                .to_string()
        };
        assert!(refused("security.protocol=X").contains("is not known"));
        assert!(refused("security.protocol=SASL_PLAINTEXT").contains("sasl.mechanism"));
        assert!(
            refused("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN")
                .contains("sasl.jaas.config")
        );
        assert!(refused("security.protocol=SSL").contains("ssl.truststore.location"));
        let jks = "security.protocol=SSL\nssl.truststore.type=JKS\nssl.truststore.location=/a.p12";
        assert!(refused(jks).contains("openssl pkcs12 -in /a.p12 -nodes"));
    }
}
