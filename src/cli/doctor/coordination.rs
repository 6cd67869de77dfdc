//! The coordination store: whether it can be reached and used.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::super::Failure;
use super::Finding;
use crate::config::Config;
use crate::store::{StoreError, open_existing_store};

/// A server that does not accept within this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The port where none is written.
const ZOOKEEPER_PORT: u16 = 2181;

/// All checks of the store.
pub(super) fn check(config: &Config) -> Result<Vec<Finding>, Failure> {
    if !config.flag("zookeeper.enable") {
        return Ok(Vec::new());
    }
    let servers = config.text("zookeeper.connect");
    let servers = servers.split('/').next().unwrap_or_default();
    let mut findings: Vec<Finding> = servers.split(',').map(|one| server(one.trim())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    findings.push(runtime.block_on(session(config)));
    Ok(findings)
}

fn server(name: &str) -> Finding {
    const CHECK: &str = "ZooKeeper";
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().unwrap_or(ZOOKEEPER_PORT)),
        None => (name, ZOOKEEPER_PORT),
    };
    let remedy =
        "see that it runs, and that no firewall is between; zk.zkConnect names the servers";
    let began = Instant::now();
    let connected = (host, port).to_socket_addrs().and_then(|mut addresses| {
        let address = addresses.next().ok_or(std::io::ErrorKind::NotFound)?;
        TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
    });
    match connected {
        Ok(_) => {
            let ms = began.elapsed().as_secs_f64() * 1000.0;
            Finding::ok(
                CHECK,
                format!("{name} accepts connections, after {ms:.1} ms"),
            )
        }
        Err(error) => Finding::failed(CHECK, format!("{name}: {error}"), remedy),
    }
}

/// A session, and a look at the tree.
async fn session(config: &Config) -> Finding {
    const CHECK: &str = "ZooKeeper session";
    let began = Instant::now();
    match open_existing_store(config).await {
        Ok(store) => {
            let ms = began.elapsed().as_secs_f64() * 1000.0;
            store.close().await;
            Finding::ok(
                CHECK,
                format!(
                    "opened in {ms:.1} ms, below {}",
                    config.text("zookeeper.root")
                ),
            )
        }
        Err(StoreError::NoStore(what)) => {
            Finding::failed(CHECK, what, "see zk.zkConnect and zk.zkRoot")
        }
        Err(error) => Finding::failed(
            CHECK,
            error.to_string(),
            "see zk.zkConnect, zk.zkRoot, zk.zkAuth and zk.zkTls, and the quorum (docs/zookeeper.md)",
        ),
    }
}
