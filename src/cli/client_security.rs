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
use crate::bearer_source::{BearerSource, BearerSourceSettings, ID_KEY, SECRET_KEY, URL_KEY};
use crate::login::Login;
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
    login: Option<Login>,
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
        let login = match protocol.has_sasl() {
            true => Some(login(properties)?),
            false => None,
        };
        Ok(Self {
            tls,
            servers: properties
                .get(SERVERS)
                .filter(|servers| !servers.is_empty())
                .cloned(),
            trusted,
            login,
        })
    }

    #[cfg(test)]
    pub(super) fn of_identity(identity: SaslIdentity) -> Self {
        Self {
            login: Some(Login::Password(identity)),
            ..Self::default()
        }
    }

    /// Who asks, now: a token is read from its file, or asked for where most of the time of the one before is over.
    pub(super) fn identity(&self) -> Result<Option<SaslIdentity>, Failure> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        // Not in this thread, which may have a runtime of its own.
        let asked = std::thread::scope(|scope| scope.spawn(|| wait_for(login)).join());
        let identity = asked.map_err(|_| "the token could not be asked for")??;
        Ok(Some(identity))
    }

    /// Notes that what was shown is not taken.
    pub(super) fn was_refused(&self, shown: &SaslIdentity) {
        self.login.iter().for_each(|login| login.was_refused(shown));
    }

    /// Whether listeners have SASL.
    pub(super) fn has_sasl(&self) -> bool {
        self.login.is_some()
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

fn login(properties: &BTreeMap<String, String>) -> Result<Login, Failure> {
    let text = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
    let name = text("sasl.mechanism");
    let mechanism = Mechanism::by_name(name).ok_or_else(|| {
        format!("sasl.mechanism={name} is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER")
    })?;
    let mut options = jaas_options(text("sasl.jaas.config"))?;
    if mechanism == Mechanism::OAuthBearer {
        let source = BearerSource::new(bearer_source(properties, &options))?;
        return Ok(Login::Bearer(Arc::new(source), None));
    }
    let is_token = options
        .get("tokenauth")
        .is_some_and(|word| word.eq_ignore_ascii_case("true"));
    let (user, password) = (options.remove("username"), options.remove("password"));
    let (Some(user), Some(password)) = (user, password) else {
        return Err("sasl.jaas.config has no username=\"…\" and password=\"…\"".into());
    };
    Ok(Login::Password(SaslIdentity {
        mechanism,
        user,
        password,
        is_token,
    }))
}

/// Where tokens come from, in Kafka's words: what is set counts before what its older options of the JAAS configuration say
/// (KIP-1139).
fn bearer_source(
    properties: &BTreeMap<String, String>,
    options: &BTreeMap<String, String>,
) -> BearerSourceSettings {
    let text = |key: &str| properties.get(key).cloned().unwrap_or_default();
    let either = |key: &str, option: &str| match text(key) {
        set if !set.is_empty() => set,
        _ => options.get(option).cloned().unwrap_or_default(),
    };
    let authorities = options.get("ssl.truststore.location");
    BearerSourceSettings {
        url: text(URL_KEY),
        id: either(ID_KEY, "clientId"),
        secret: either(SECRET_KEY, "clientSecret"),
        scope: either("sasl.oauthbearer.scope", "scope"),
        is_encoded: text("sasl.oauthbearer.header.urlencode").eq_ignore_ascii_case("true"),
        authorities: authorities.map(|path| PemSource::File(PathBuf::from(path))),
    }
}

fn wait_for(login: &Login) -> Result<SaslIdentity, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let identity = runtime.block_on(login.identity());
    identity.map_err(|error| error.to_string())
}

/// The options of a JAAS configuration: `MODULE required NAME=VALUE …;`, with values in quotes or without.
fn jaas_options(jaas: &str) -> Result<BTreeMap<String, String>, Failure> {
    let mut options = BTreeMap::new();
    let mut letters = jaas.chars().peekable();
    let (mut name, mut is_over) = (String::new(), false);
    while let Some(letter) = letters.next() {
        match letter {
            '=' => {
                while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
                let name = std::mem::take(&mut name);
                let value = jaas_value(&mut letters)
                    .ok_or_else(|| format!("sasl.jaas.config: the quote of {name} does not end"))?;
                options.insert(name, value);
            }
            ';' => name.clear(),
            // What follows is another word, or =.
            letter if letter.is_whitespace() => is_over = true,
            letter => {
                if is_over {
                    name.clear();
                }
                is_over = false;
                name.push(letter);
            }
        }
    }
    Ok(options)
}

/// `None` where its quote does not end.
fn jaas_value(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    if letters.next_if_eq(&'"').is_none() {
        let is_of_value = |letter: &char| !letter.is_whitespace() && *letter != ';';
        while let Some(letter) = letters.next_if(is_of_value) {
            value.push(letter);
        }
        return Some(value);
    }
    loop {
        match letters.next()? {
            '"' => return Some(value),
            '\\' => value.extend(letters.next()),
            letter => value.push(letter),
        }
    }
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
        let identity = security.identity().unwrap().unwrap();
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
            security.identity().unwrap().unwrap().is_token
        };
        for yes in ["tokenauth=\"true\"", "tokenauth=true", "tokenauth=\"True\""] {
            assert!(is_token(yes), "{yes}");
        }
        for no in ["", "tokenauth=\"false\"", "tokenauth=\"\"", "tokenauth"] {
            assert!(!is_token(no), "{no}");
        }
    }

    #[test]
    fn a_client_of_an_identity_provider_is_named_by_properties_or_by_kafkas_older_options() {
        let found = |text: &str| {
            let properties = properties(text);
            let jaas = properties.get("sasl.jaas.config").cloned();
            bearer_source(
                &properties,
                &jaas_options(&jaas.unwrap_or_default()).unwrap(),
            )
        };
        let older = "sasl.oauthbearer.token.endpoint.url=https://id.example/t\nsasl.jaas.config=a.b.OAuthBearerLoginModule required \\\n clientId=\"me\" clientSecret=\"scope=\\\"x\\\"; y\" scope=read extension_x=\"1\" ssl.truststore.location=\"/ca.pem\";\n";
        let read = found(older);
        assert_eq!((&*read.id, &*read.secret), ("me", "scope=\"x\"; y"));
        assert_eq!((&*read.scope, &*read.url), ("read", "https://id.example/t"));
        assert!(
            matches!(read.authorities, Some(PemSource::File(path)) if path == Path::new("/ca.pem"))
        );
        let newer = "sasl.oauthbearer.client.credentials.client.id=you\nsasl.oauthbearer.client.credentials.client.secret=s\nsasl.oauthbearer.scope=write\nsasl.oauthbearer.header.urlencode=true\n";
        let read = found(&format!("{older}{newer}"));
        assert_eq!(
            (&*read.id, &*read.secret, &*read.scope),
            ("you", "s", "write")
        );
        assert!(read.is_encoded);
    }

    #[test]
    fn options_may_have_spaces_around_their_sign_and_quotes_have_to_end() {
        let read = jaas_options("x required a = \"1 2\" b= 3 c =4 d=\"\" e=5;").unwrap();
        let read: Vec<(&str, &str)> = read
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let expected = [("a", "1 2"), ("b", "3"), ("c", "4"), ("d", ""), ("e", "5")];
        assert_eq!(read, expected);
        for open in [
            "x required a=\"1;",
            "x required a=\"1\\\";",
            "x required a=\"",
        ] {
            let why = jaas_options(open).unwrap_err().to_string();
            assert_eq!(why, "sasl.jaas.config: the quote of a does not end");
        }
        let text = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=x required username=\"a\" password=\"planted;\n";
        let why = ClientSecurity::parse(&properties(text)).unwrap_err();
        assert!(why.to_string().contains("quote of password"), "{why}");
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
        let bearer = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\n";
        assert!(refused(bearer).contains(URL_KEY));
        let url = format!("{bearer}{URL_KEY}=https://id.example/token");
        assert!(refused(&url).contains(ID_KEY));
        assert!(refused("security.protocol=SSL").contains("ssl.truststore.location"));
        let jks = "security.protocol=SSL\nssl.truststore.type=JKS\nssl.truststore.location=/a.p12";
        assert!(refused(jks).contains("openssl pkcs12 -in /a.p12 -nodes"));
    }
}
