//! Where listeners listen, and what clients are given instead.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::session::ListenerInfo;

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

/// The addresses to bind, and those to give to clients, of the listeners for which they are configured.
pub fn listen_endpoints(config: &Config) -> Result<(Vec<Endpoint>, Vec<Endpoint>), EndpointError> {
    let host_and_port = Endpoint {
        listener: Arc::new(ListenerInfo::plaintext()),
        host: config.text("host.name").to_owned(),
        port: config.number("port") as u16,
    };
    let parse = |key, list: &str| {
        let endpoints = list
            .split(',')
            .map(|endpoint| parse_endpoint(key, endpoint.trim()));
        endpoints.collect::<Result<Vec<_>, _>>()
    };
    let listeners = match config.text("listeners") {
        "" => vec![host_and_port.clone()],
        listeners => parse("listeners", listeners)?,
    };
    let advertised = match config.text("advertised.listeners") {
        "" if host_and_port.host.is_empty() => Vec::new(),
        "" => vec![host_and_port],
        advertised => parse("advertised.listeners", advertised)?,
    };
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
        () => return Ok((listeners, advertised)),
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

// As Kafka's SocketServerConfigs and KafkaConfig say it, and what to do.
const UNSPECIFIED_ADVERTISED: &str = "advertised.listeners cannot use the nonroutable meta-address. Use a routable IP address, or leave it out: then each client is told the address that it connected to";
const UNSPECIFIED_HOST_NAME: &str = "clients cannot be told a nonroutable meta-address. Use a routable IP address, or leave it empty to bind every address: then each client is told the address that it connected to";

fn parse_endpoint(key: &'static str, value: &str) -> Result<Endpoint, EndpointError> {
    let error = |what| EndpointError {
        key,
        value: value.to_owned(),
        what,
    };
    let (name, address) = value
        .split_once("://")
        .ok_or_else(|| error("expected PLAINTEXT://host:port"))?;
    let listener = ListenerInfo::plaintext();
    if name != listener.name {
        return Err(error("only PLAINTEXT listeners are served"));
    }
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
        listener: Arc::new(listener),
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

/// Binds all endpoints.
pub async fn bind(endpoints: &[Endpoint]) -> io::Result<Vec<Bound<TcpListener>>> {
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
                format!("cannot listen on {host}:{port}: {error}"),
            )
        };
        let socket = bound.map_err(named)?;
        // It listens already; this only makes the queue longer.
        rustix::net::listen(&socket, ACCEPT_QUEUE_MAX)?;
        listeners.push(Bound {
            info: listener.clone(),
            address: socket.local_addr()?,
            socket,
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
        assert!(endpoints(&["listeners=SSL://a:1"]).is_err());
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
