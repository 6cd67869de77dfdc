//! A broker's dashboard port: one request a connection, by TLS where the dashboard has it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use data_encoding::BASE64;
use serde::de::DeserializeOwned;

use super::Failure;
use super::client_security::{ClientSecurity, Stream, begin_tls, command_config, host_of};
use super::wrong_listener::{of_tls, tls_in_words};
use crate::admin::token_of;
use crate::broker_security::dashboard_trust;
use crate::config::Config;
use crate::security::{Mechanism, SaslIdentity};

/// An answer that takes longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// How the answer of a port with TLS begins to who asks in plain text.
const NEEDS_TLS: &str = "this port has TLS";
/// The status of an answer to who is not known.
const NOT_KNOWN: u16 = 401;

/// Holds the dashboard's token, where reading needs one, and for whatever changes something.
const TOKEN_VARIABLE: &str = "METAQ_TOKEN";
const ADDRESS_DEFAULT: &str = "127.0.0.1:8120";

/// Which broker's dashboard to ask.
#[derive(Debug, Args)]
pub(super) struct Dashboard {
    /// Address of a broker's dashboard; 127.0.0.1:8120 without. With https:// before it TLS is a must, with http:// it has
    /// none; else the file of --command-config decides. METAQ_TOKEN holds the dashboard's token.
    #[arg(short, long, value_name = "HOST:PORT")]
    dashboard: Option<String>,
    /// File of Kafka's client properties, with the user (sasl.jaas.config) and the authority (ssl.truststore.location) where
    /// the dashboard asks for them; METAQ_COMMAND_CONFIG names one for all commands.
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Dashboard {
    /// The dashboard that is meant.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        let security =
            ClientSecurity::load(command_config(self.command_config.clone()).as_deref())?;
        let written = self.dashboard.as_deref().unwrap_or(ADDRESS_DEFAULT);
        Target::new(written, &security)
    }

    /// The same, or that of a configuration where none is named.
    pub(super) fn target_or_of(&self, config: &Config) -> Result<Target, Failure> {
        match &self.dashboard {
            Some(_) => self.target(),
            None => Target::of(config, self.command_config.clone()),
        }
    }

    /// The JSON at a path.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.target()?.get(path)
    }

    /// Has something done, and returns what the dashboard says of it.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let target = self.target()?;
        let answer = target.request("POST", path)?;
        Ok(serde_json::from_str(&target.read(path, answer)?)?)
    }
}

/// Whether what is sent is encrypted.
#[derive(Debug, Clone)]
enum Transport {
    Plain,
    Tls(Arc<rustls::ClientConfig>),
    /// By TLS, or plain where the dashboard has none: on this machine alone.
    Either(Arc<rustls::ClientConfig>),
}

/// A dashboard, and how it is asked.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Host and port.
    address: String,
    transport: Transport,
    /// The dashboard's token, which counts before who asks.
    token: Option<String>,
    /// Who asks, where that may be told.
    security: ClientSecurity,
}

/// A dashboard that answered, but not with what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Refusal {
    what: String,
}

/// Whether a dashboard was there, and refused what was asked for.
pub(super) fn is_refusal(failure: &Failure) -> bool {
    failure.is::<Refusal>()
}

/// The beginning of an answer: its status, and the body to read on.
type Answer = (u16, BufReader<Box<dyn Stream>>);

fn is_this_machine(address: &str) -> bool {
    let host = host_of(address);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// How what is bound to a host and a port is reached on this machine.
pub(super) fn reached(host: &str, port: u16) -> String {
    match host.trim_start_matches('[').trim_end_matches(']') {
        "" | "0.0.0.0" | "::" => format!("127.0.0.1:{port}"),
        host if host.contains(':') => format!("[{host}]:{port}"),
        host => format!("{host}:{port}"),
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// As whom listeners know who asks: by a token of an identity provider, or by user and password, which may be a delegation
/// token's id and HMAC.
fn of_identity(identity: &SaslIdentity) -> String {
    if identity.mechanism == Mechanism::OAuthBearer {
        return bearer(&identity.password);
    }
    let pair = format!("{}:{}", identity.user, identity.password);
    format!(
        "Authorization: Basic {}\r\n",
        BASE64.encode(pair.as_bytes())
    )
}

const NO_AUTHORITY: &str = "https needs the authority of the dashboard's certificate: --command-config or METAQ_COMMAND_CONFIG names a file with ssl.truststore.location";

impl Target {
    /// The one at an address as it is written. A password goes over plain HTTP on this machine alone, or where http:// is written.
    fn new(written: &str, security: &ClientSecurity) -> Result<Self, Failure> {
        let trusted = security.trusted();
        let (address, transport) = match (written.split_once("://"), trusted) {
            (Some(("http", address)), _) => (address, Transport::Plain),
            (Some(("https", address)), Some(trusted)) => (address, Transport::Tls(trusted)),
            (Some(("https", _)), None) => return Err(NO_AUTHORITY.into()),
            (Some((scheme, _)), _) => {
                return Err(format!("{scheme}:// is neither https:// nor http://").into());
            }
            (None, Some(trusted)) if security.has_tls() => match is_this_machine(written) {
                true => (written, Transport::Either(trusted)),
                false => (written, Transport::Tls(trusted)),
            },
            (None, _) => (written, Transport::Plain),
        };
        let address = address.trim_end_matches('/').to_owned();
        let is_plain = matches!(transport, Transport::Plain) && !written.contains("://");
        let may_tell = !is_plain || is_this_machine(&address);
        let security = match may_tell {
            true => security.clone(),
            false => ClientSecurity::default(),
        };
        Ok(Self {
            address,
            transport,
            token: std::env::var(TOKEN_VARIABLE).ok(),
            security,
        })
    }

    /// Host and port of the one of a broker with this configuration, on this machine.
    fn place(config: &Config) -> String {
        let host = match config.text("dashboard.http.host") {
            "" => config.text("host.name"),
            host => host,
        };
        reached(host, config.number("dashboard.http.port") as u16)
    }

    /// Where that is, with its scheme.
    pub(super) fn written(config: &Config) -> String {
        let scheme = match config.flag("dashboard.tls") {
            true => "https",
            false => "http",
        };
        format!("{scheme}://{}", Self::place(config))
    }

    /// The one of a broker with this configuration, on this machine: with its token, and its authorities beside those of the
    /// file of client properties, where that is given.
    pub(super) fn of(config: &Config, given: Option<PathBuf>) -> Result<Self, Failure> {
        let mut security = ClientSecurity::load(command_config(given).as_deref())?;
        // No file says whether it has TLS.
        let is_open = !config.flag("dashboard.tls") && config.file().is_none();
        let written = match is_open && security.has_tls() {
            true => Self::place(config),
            false => Self::written(config),
        };
        if let Some(trust) = dashboard_trust(config) {
            security.trust(trust)?;
        }
        let mut target = Self::new(&written, &security)?;
        if std::env::var_os(TOKEN_VARIABLE).is_none()
            && let Some(token) = token_of(config)
        {
            target.token = Some(token);
        }
        Ok(target)
    }

    /// Who asks, where no token of the dashboard does. A token of an identity provider is the one that is good now; where there
    /// is none, that is no fault of the broker's.
    fn identity(&self) -> Result<Option<SaslIdentity>, Failure> {
        if self.token.is_some() {
            return Ok(None);
        }
        let identity = self.security.identity();
        identity.map_err(|why| format!("{} was not asked: {why}", self.address).into())
    }

    /// The header that says who asks; empty for nobody.
    fn authorization(&self, identity: Option<&SaslIdentity>) -> String {
        let of_token = self.token.as_deref().map(bearer);
        let header = of_token.or_else(|| identity.map(of_identity));
        header.unwrap_or_default()
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The text at a path.
    pub(super) fn text(&self, path: &str) -> Result<String, Failure> {
        self.read(path, self.request("GET", path)?)
    }

    /// The JSON at a path.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        Ok(serde_json::from_str(&self.text(path)?)?)
    }

    /// The whole body of an answer, where that is no refusal.
    fn read(&self, path: &str, (status, mut body): Answer) -> Result<String, Failure> {
        let mut text = String::new();
        Read::take(&mut body, ANSWER_BYTES_MAX).read_to_string(&mut text)?;
        match status {
            200 => Ok(text),
            _ => Err(self.refusal(path, status, text.trim()).into()),
        }
    }

    /// What an answer that is none says, in its own words where it has some.
    fn refusal(&self, path: &str, status: u16, text: &str) -> Refusal {
        let address = &self.address;
        let view = serde_json::from_str::<serde_json::Value>(text).ok();
        let message = view.as_ref().and_then(|view| view["message"].as_str());
        let what = match message {
            Some(message) => format!("{address}: {message}"),
            None if text.starts_with(NEEDS_TLS) => {
                format!("the dashboard at {address} has TLS: {NO_AUTHORITY}")
            }
            None => format!("{address}{path}: status {status}: {text}"),
        };
        Refusal { what }
    }

    /// What is at a path, to read on while it comes.
    pub(super) fn follow(&self, path: &str) -> Result<impl BufRead + Send + use<>, Failure> {
        match self.request("GET", path)? {
            (200, body) => Ok(body),
            refused => match self.read(path, refused) {
                Err(refusal) => Err(refusal),
                Ok(_) => Err(format!("{}{path}: no answer", self.address).into()),
            },
        }
    }

    fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let address = &self.address;
        let plain = || -> Result<TcpStream, Failure> {
            let stream = TcpStream::connect(address)
                .map_err(|error| format!("cannot reach a dashboard at {address}: {error}"))?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(stream)
        };
        let (Transport::Tls(config) | Transport::Either(config)) = &self.transport else {
            return Ok(Box::new(plain()?));
        };
        match begin_tls(config, host_of(address), plain()?) {
            Ok(stream) => Ok(stream),
            Err(error) if is_no_tls(&error) => match &self.transport {
                Transport::Either(_) => Ok(Box::new(plain()?)),
                _ => Err(format!(
                    "the dashboard at {address} has no TLS; http://{address} asks it in plain text"
                )
                .into()),
            },
            Err(error) => {
                let why = tls_in_words(&error);
                Err(format!("TLS with the dashboard at {address} failed: {why}").into())
            }
        }
    }

    /// Asks for a path. The answer is not chunked, because it is asked for as HTTP/1.0.
    fn request(&self, method: &str, path: &str) -> Result<Answer, Failure> {
        let (address, identity) = (&self.address, self.identity()?);
        let authorization = self.authorization(identity.as_ref());
        let mut stream = self.connect()?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nContent-Length: 0\r\nHost: {address}\r\n{authorization}\r\n"
        )?;
        stream.flush()?;
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let status = line
            .split_whitespace()
            .nth(1)
            .and_then(|code| code.parse().ok());
        let status =
            status.ok_or_else(|| format!("{address} does not answer as a dashboard does"))?;
        if let (NOT_KNOWN, Some(identity)) = (status, &identity) {
            self.security.was_refused(identity);
        }
        while !line.trim().is_empty() {
            line.clear();
            answer.read_line(&mut line)?;
        }
        Ok((status, answer))
    }
}

/// Whether the other side answered something that is no TLS at all.
fn is_no_tls(error: &io::Error) -> bool {
    matches!(of_tls(error), Some(rustls::Error::InvalidMessage(_)))
}

/// A text as one element of a path.
pub(super) fn escape_element(text: &str) -> String {
    escape(text).replace('/', "%2F")
}

/// A text as the value of a query.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                out.push(byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(mechanism: Mechanism, is_token: bool) -> ClientSecurity {
        ClientSecurity::of_identity(SaslIdentity {
            mechanism,
            is_token,
            user: "a".to_owned(),
            password: "b".to_owned(),
        })
    }

    fn with_password() -> ClientSecurity {
        with(Mechanism::Plain, false)
    }

    #[test]
    fn a_dashboard_is_shown_what_listeners_are_and_what_it_says_is_told() {
        let body = r#"{"error":"not_known","message":"log in"}"#;
        for (mechanism, is_token, header) in [
            (Mechanism::Plain, true, "Basic YTpi"),
            (Mechanism::Plain, false, "Basic YTpi"),
            (Mechanism::OAuthBearer, false, "Bearer b"),
        ] {
            let target = Target::new("127.0.0.1:1", &with(mechanism, is_token)).unwrap();
            let identity = target.identity().unwrap();
            assert_eq!(
                target.authorization(identity.as_ref()),
                format!("Authorization: {header}\r\n")
            );
        }
        let target = Target::new("127.0.0.1:1", &with_password()).unwrap();
        let refusal = target.refusal("/api/broker", 401, body);
        assert_eq!(refusal.what, "127.0.0.1:1: log in");
        let refusal = target.refusal("/x", 500, "<html>");
        assert_eq!(refusal.what, "127.0.0.1:1/x: status 500: <html>");
    }

    #[test]
    fn a_password_goes_in_plain_text_where_it_was_said_and_on_this_machine_alone() {
        let told = |written: &str| {
            let target = Target::new(written, &with_password()).unwrap();
            let identity = target.identity().unwrap();
            let is_told = !target.authorization(identity.as_ref()).is_empty();
            (target.address, is_told)
        };
        let expected = |address: &str, told| (address.to_owned(), told);
        assert_eq!(told("broker:8120"), expected("broker:8120", false));
        assert_eq!(told("http://broker:8120/"), expected("broker:8120", true));
        for here in ["127.0.0.1:8120", "localhost:1", "[::1]:1"] {
            assert_eq!(told(here), expected(here, true));
        }
    }

    #[test]
    fn https_without_an_authority_and_other_schemes_are_refused() {
        for written in ["https://broker:8120", "ftp://broker:8120"] {
            assert!(Target::new(written, &with_password()).is_err());
        }
    }
}
