//! Where listeners listen, and what clients are given instead.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::any_socket::AnyListener;
use super::bearer::bearer_tokens;
use crate::config::{Config, Value};
use crate::security::{
    ClientAuth, Mechanism, PemSource, PrincipalMapping, ServerTls, TlsError, TlsSettings,
};
use crate::session::{ListenerAuthentication, ListenerInfo, SecurityProtocol};

/// Connections that may wait to be accepted, where the system allows as many: after a restart all clients come at once, and
/// one that finds no room tries again after a second, then three, then seven.
const ACCEPT_QUEUE_MAX: i32 = 4096;

/// An address of a listener; an empty host means all addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener.
    pub listener: Arc<ListenerInfo>,
    /// Host name or address.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
}

impl Endpoint {
    /// Whether it is the address that stands for all addresses, to which nothing can connect from elsewhere.
    fn is_unspecified(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        address.is_ok_and(|address| address.to_canonical().is_unspecified())
    }
}

/// A listener's address that makes no sense.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{key}={value}: {what}")]
pub struct EndpointError {
    /// The configuration.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong.
    pub what: &'static str,
}

/// The addresses to bind, and those to give to clients, of the listeners for which they are configured. Brokers speak to each
/// other by the first listener of both.
pub fn listen_endpoints(config: &Config) -> Result<(Vec<Endpoint>, Vec<Endpoint>), EndpointError> {
    let parse = |key, list: &str| {
        let endpoints = list
            .split(',')
            .map(|endpoint| parse_endpoint(config, key, endpoint.trim()));
        endpoints.collect::<Result<Vec<_>, _>>()
    };
    let sections = section_endpoints(config)?;
    let host_and_port = || -> Result<Endpoint, EndpointError> {
        Ok(Endpoint {
            listener: listener_info(config, "port", "PLAINTEXT")?,
            host: config.text("host.name").to_owned(),
            port: config.number("port") as u16,
        })
    };
    let mut listeners = match config.text("listeners") {
        "" if !sections.0.is_empty() => Vec::new(),
        "" => vec![host_and_port()?],
        listeners => parse("listeners", listeners)?,
    };
    let mut advertised = match config.text("advertised.listeners") {
        "" if config.text("host.name").is_empty() || !sections.0.is_empty() => Vec::new(),
        "" => vec![host_and_port()?],
        advertised => parse("advertised.listeners", advertised)?,
    };
    listeners.extend(sections.0);
    advertised.extend(sections.1);
    let between_brokers = inter_broker_listener(config, &listeners)?;
    for endpoints in [&mut listeners, &mut advertised] {
        endpoints.sort_by_key(|endpoint| endpoint.listener.name != between_brokers);
        for endpoint in endpoints {
            let listener = Arc::make_mut(&mut endpoint.listener);
            listener.is_between_brokers = listener.name == between_brokers;
            if listener.is_between_brokers && listener.authentication.tokens.is_some() {
                listener.authentication.tokens = bearer_tokens(config, &between_brokers, true).ok();
            }
        }
    }
    check_advertised(config, &advertised)?;
    Ok((listeners, advertised))
}

/// What sections say of addresses.
fn section_endpoints(config: &Config) -> Result<(Vec<Endpoint>, Vec<Endpoint>), EndpointError> {
    let (mut listeners, mut advertised) = (Vec::new(), Vec::new());
    for section in config.listener_sections() {
        let Some(port) = section.port else { continue };
        let listener = listener_info(config, "listener", &section.name)?;
        if let Some(address) = &section.advertised {
            let named = format!("{}://{address}", section.name);
            advertised.push(parse_endpoint(config, "advertised", &named)?);
        }
        listeners.push(Endpoint {
            listener,
            host: section.host.clone(),
            port,
        });
    }
    Ok((listeners, advertised))
}

/// The name of the listener that brokers speak to each other by.
pub fn inter_broker_listener(
    config: &Config,
    listeners: &[Endpoint],
) -> Result<String, EndpointError> {
    let error = |key: &'static str, what| EndpointError {
        key,
        value: config.text(key).to_owned(),
        what,
    };
    match config.text("inter.broker.listener.name") {
        "" => {
            let protocol = config.text("security.inter.broker.protocol");
            let of_protocol = |endpoint: &&Endpoint| endpoint.listener.protocol.name() == protocol;
            let found = listeners.iter().find(of_protocol);
            // A broker that is alone speaks to nobody.
            let found = found.or(match config.flag("zookeeper.enable") {
                true => None,
                false => listeners.first(),
            });
            let none = || {
                error(
                    "security.inter.broker.protocol",
                    "no listener has this protocol; inter.broker.listener.name names the one that brokers speak to each other by",
                )
            };
            found
                .map(|endpoint| endpoint.listener.name.clone())
                .ok_or_else(none)
        }
        name if listeners
            .iter()
            .any(|endpoint| endpoint.listener.name == name) =>
        {
            Ok(name.to_owned())
        }
        _ => Err(error(
            "inter.broker.listener.name",
            "there is no such listener",
        )),
    }
}

fn check_advertised(config: &Config, advertised: &[Endpoint]) -> Result<(), EndpointError> {
    let twice = |endpoint: &Endpoint| {
        let of_same = advertised
            .iter()
            .filter(|other| other.listener == endpoint.listener);
        of_same.count() > 1
    };
    let (key, remedy) = match config.text("advertised.listeners") {
        "" => ("hostName", UNSPECIFIED_HOST_NAME),
        _ => ("advertised.listeners", UNSPECIFIED_ADVERTISED),
    };
    let what = match () {
        () if advertised.iter().any(twice) => "a listener has one address for clients",
        () if advertised.iter().any(Endpoint::is_unspecified) => remedy,
        () => return Ok(()),
    };
    Err(EndpointError {
        key,
        value: config
            .text(match key {
                "hostName" => "host.name",
                key => key,
            })
            .to_owned(),
        what,
    })
}

/// What is set of a listener: its protocol, and how its clients authenticate.
fn listener_info(
    config: &Config,
    key: &'static str,
    name: &str,
) -> Result<Arc<ListenerInfo>, EndpointError> {
    let error = |what| EndpointError {
        key,
        value: name.to_owned(),
        what,
    };
    let protocol = config.listener_protocol(name);
    let protocol = protocol.and_then(SecurityProtocol::by_name);
    let protocol = protocol.ok_or_else(|| error("listener.security.protocol.map does not say what protects this listener: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"))?;
    let mechanisms = config.listener_words(name, "sasl.enabled.mechanisms");
    let mechanisms: Vec<Mechanism> = mechanisms
        .iter()
        .filter_map(|name| Mechanism::by_name(name))
        .collect();
    if protocol.has_sasl() && mechanisms.is_empty() {
        return Err(error("a listener with SASL needs sasl.enabled.mechanisms"));
    }
    let takes_tokens = protocol.has_sasl() && mechanisms.contains(&Mechanism::OAuthBearer);
    let tokens = match takes_tokens {
        true => Some(bearer_tokens(config, name, false).map_err(error)?),
        false => None,
    };
    let rules = config.listener_text(name, "ssl.principal.mapping.rules");
    let mapping = PrincipalMapping::parse(rules)
        .map_err(|_| error("its ssl.principal.mapping.rules are no rules of the form RULE:pattern/replacement/[LU]"))?;
    let reauth_ms = Value::integer(config.listener_text(name, "connections.max.reauth.ms"));
    let reauth_ms = reauth_ms.unwrap_or(0).unsigned_abs();
    Ok(Arc::new(ListenerInfo {
        authentication: ListenerAuthentication {
            mechanisms,
            reauthentication_max: (reauth_ms > 0).then(|| Duration::from_millis(reauth_ms)),
            mapping,
            brokers_user: Some(config.text("inter.broker.user").to_owned())
                .filter(|user| !user.is_empty()),
            tokens,
        },
        ..ListenerInfo::new(name, protocol)
    }))
}

/// What is set of TLS for a listener; for this broker's own connections by the name of the listener between brokers.
pub fn tls_settings(config: &Config, listener: &str) -> TlsSettings {
    let text =
        |key| Some(config.listener_text(listener, key).to_owned()).filter(|text| !text.is_empty());
    let file = |key| text(key).map(|path| PemSource::File(PathBuf::from(path)));
    let written = |key| text(key).map(|pem| PemSource::Text { key, pem });
    let keystore = || file("ssl.keystore.location");
    let certificate = file("tls.certificate")
        .or_else(|| written("ssl.keystore.certificate.chain"))
        .or_else(keystore);
    let key = file("tls.key")
        .or_else(|| written("ssl.keystore.key"))
        .or_else(keystore);
    let authorities = file("tls.ca")
        .or_else(|| written("ssl.truststore.certificates"))
        .or_else(|| file("ssl.truststore.location"));
    TlsSettings {
        identity: certificate.zip(key),
        authorities,
        client_auth: match config.listener_text(listener, "ssl.client.auth") {
            "required" => ClientAuth::Required,
            "requested" => ClientAuth::Requested,
            _ => ClientAuth::None,
        },
        versions: config.listener_words(listener, "ssl.enabled.protocols"),
        suites: config.listener_words(listener, "ssl.cipher.suites"),
        verify_host: !config
            .text("ssl.endpoint.identification.algorithm")
            .is_empty(),
    }
}

// As Kafka's SocketServerConfigs and KafkaConfig say it, and what to do.
const UNSPECIFIED_ADVERTISED: &str = "advertised.listeners cannot use the nonroutable meta-address. Use a routable IP address, or leave it out: then each client is told the address that it connected to";
const UNSPECIFIED_HOST_NAME: &str = "clients cannot be told a nonroutable meta-address. Use a routable IP address, or leave it empty to bind every address: then each client is told the address that it connected to";

fn parse_endpoint(
    config: &Config,
    key: &'static str,
    value: &str,
) -> Result<Endpoint, EndpointError> {
    let error = |what| EndpointError {
        key,
        value: value.to_owned(),
        what,
    };
    let (name, address) = value
        .split_once("://")
        .ok_or_else(|| error("expected NAME://host:port"))?;
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| error("the port is missing"))?;
    let port = port
        .parse()
        .map_err(|_| error("the port is not a number within 0..=65535"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    Ok(Endpoint {
        listener: listener_info(config, key, name)?,
        host,
        port,
    })
}

/// A listener that is bound: nothing is accepted yet.
pub struct Bound<L> {
    /// What its connections know of it.
    pub info: Arc<ListenerInfo>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where connections come from.
    pub socket: L,
}

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its address.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its certificates.
    #[error("listener {0}: {1}")]
    Tls(String, TlsError),
}

/// Why a port cannot be had, with the setting that names it.
pub fn cannot_listen(host: &str, port: u16, (setting, error): (&str, &io::Error)) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process has it, perhaps a broker that runs already",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        _ => "",
    };
    format!("cannot listen on {host}:{port} ({setting}): {error}{remedy}")
}

/// Reads the certificates of a listener, where it has TLS.
pub fn open_tls(config: &Config, listener: &ListenerInfo) -> Result<Option<ServerTls>, BindError> {
    let settings = (listener.protocol.has_tls()).then(|| tls_settings(config, &listener.name));
    let opened = settings.map(ServerTls::open).transpose();
    opened.map_err(|error| BindError::Tls(listener.name.clone(), error))
}

/// Binds all endpoints, and reads their certificates.
pub async fn bind(
    config: &Config,
    endpoints: &[Endpoint],
) -> Result<Vec<Bound<AnyListener>>, BindError> {
    let mut listeners = Vec::with_capacity(endpoints.len());
    for Endpoint {
        listener,
        host,
        port,
    } in endpoints
    {
        let bound = match host.as_str() {
            "" => match TcpListener::bind(("::", *port)).await {
                Ok(both) => Ok(both),
                // A machine without IPv6.
                Err(_) => TcpListener::bind(("0.0.0.0", *port)).await,
            },
            host => TcpListener::bind((host, *port)).await,
        };
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                cannot_listen(host, *port, ("serverPort, or listeners", &error)),
            )
        };
        let tcp = bound.map_err(named)?;
        // It listens already; this only makes the queue longer.
        rustix::net::listen(&tcp, ACCEPT_QUEUE_MAX).map_err(io::Error::from)?;
        let tls = open_tls(config, listener)?;
        listeners.push(Bound {
            info: listener.clone(),
            address: tcp.local_addr()?,
            socket: AnyListener {
                tls: tls.map(Arc::new),
                tcp,
            },
        });
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(overrides: &[&str]) -> Result<(Vec<Endpoint>, Vec<Endpoint>), EndpointError> {
        let overrides: Vec<String> = overrides.iter().map(|entry| (*entry).to_owned()).collect();
        listen_endpoints(&Config::load(None, &overrides).unwrap())
    }

    #[test]
    fn the_listener_comes_from_host_and_port_or_from_the_list() {
        let at = |host: &str, port| Endpoint {
            listener: Arc::new(ListenerInfo::plaintext()),
            host: host.to_owned(),
            port,
        };
        assert_eq!(endpoints(&[]).unwrap(), (vec![at("", 9092)], vec![]));
        assert_eq!(
            endpoints(&["hostName=a"]).unwrap(),
            (vec![at("a", 9092)], vec![at("a", 9092)])
        );
        let listed = endpoints(&[
            "listeners=PLAINTEXT://:1,PLAINTEXT://[::1]:2",
            "advertised.listeners=PLAINTEXT://x:3",
        ]);
        assert_eq!(
            listed.unwrap(),
            (vec![at("", 1), at("::1", 2)], vec![at("x", 3)])
        );
        assert!(endpoints(&["listeners=NOBODY://a:1"]).is_err());
        assert!(endpoints(&["listeners=a:1"]).is_err());
        let twice = "advertised.listeners=PLAINTEXT://x:3,PLAINTEXT://y:3";
        assert!(endpoints(&[twice]).is_err());
    }

    #[test]
    fn clients_are_never_told_the_address_that_stands_for_all() {
        for host in ["0.0.0.0", "::", "0:0::0", "::ffff:0.0.0.0"] {
            let refused = endpoints(&[&format!("hostName={host}")]).unwrap_err();
            assert_eq!((refused.key, &*refused.value), ("hostName", host));
            assert!(refused.what.contains("leave it empty"), "{refused}");
            let advertised = format!("advertised.listeners=PLAINTEXT://[{host}]:1");
            let refused = endpoints(&[&advertised]).unwrap_err();
            assert_eq!(refused.key, "advertised.listeners");
            let text = "cannot use the nonroutable meta-address";
            assert!(refused.to_string().contains(text), "{refused}");
            // To bind it is what it is for.
            let name = format!("hostName={host}");
            assert!(endpoints(&[&name, "advertised.listeners=PLAINTEXT://x:3"]).is_ok());
            assert!(endpoints(&[&format!("listeners=PLAINTEXT://[{host}]:1")]).is_ok());
        }
    }
}
