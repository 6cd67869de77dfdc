//! The coordination store that the configuration names.
//! Tests: tests/broker.rs, tests/meta.rs.

use std::path::PathBuf;
use std::time::Duration;

use crate::broker_options::flush_transactions;
use crate::cluster::cluster_id_of;
use crate::config::Config;
use crate::log::DataDirError;
use crate::meta::{MetaError, MetaStore, ZooKeeperOptions, ZooKeeperTls};
use crate::partition::Partitions;

/// The embedded coordination store's file, in one of the data directories.
const META_FILE: &str = "metaq-meta.redb";
/// What such a store calls itself.
const EMBEDDED: &str = "embedded";
/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No data directory is configured.
    #[error("dataPath (log.dirs) names no directory")]
    NoDataPath,
    /// A data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store itself says so.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The embedded store cannot be set aside.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Groups and configurations would be forgotten.
    #[error(
        "{0} holds a coordination store that is not in ZooKeeper yet: take it there with metaq meta export and import (docs/zookeeper.md), or move the file away to begin without its groups and configurations"
    )]
    NotImported(PathBuf),
    /// Nothing to look into.
    #[error("there is no coordination store in {0}")]
    NoStore(String),
    /// Which one holds the topics and offsets?
    #[error(
        "{0} and {1} both hold a coordination store; move the one away that is not this broker's"
    )]
    TwoStores(PathBuf, PathBuf),
}

/// A broker that moves to ZooKeeper leaves its embedded store behind, but not what is in it: the tree must have been
/// imported. Then the file is set aside, so that it is not taken for the newest on the way back.
pub async fn leave_embedded_store(
    config: &Config,
    partitions: &Partitions,
    meta: &MetaStore,
) -> Result<(), StoreError> {
    if meta.kind() == EMBEDDED {
        return Ok(());
    }
    let file = embedded_file(config)?;
    if !file.exists() {
        return Ok(());
    }
    let own = match partitions.data_dirs().next() {
        Some(dir) => dir.property("cluster.id")?,
        None => None,
    };
    if own.is_none() || cluster_id_of(meta).await? != own {
        return Err(StoreError::NotImported(file));
    }
    let aside = file.with_extension("redb.moved");
    std::fs::rename(&file, &aside)?;
    tracing::info!(file = %aside.display(), "the embedded coordination store is set aside: its content is in ZooKeeper");
    Ok(())
}

/// Opens the store that the configuration names, where it is there already.
pub async fn open_existing_store(config: &Config) -> Result<MetaStore, StoreError> {
    if !config.flag("zookeeper.enable") && !embedded_file(config)?.exists() {
        return Err(StoreError::NoStore(config.text("log.dirs").to_owned()));
    }
    open_store(config).await
}

/// Opens the coordination store that the configuration names.
pub async fn open_store(config: &Config) -> Result<MetaStore, StoreError> {
    if config.flag("zookeeper.enable") {
        let options = zookeeper_options(config)?;
        return Ok(MetaStore::connect_zookeeper(options).await?);
    }
    let flush = flush_transactions(config);
    Ok(MetaStore::open_embedded_flushing(
        &embedded_file(config)?,
        flush,
    )?)
}

/// Where the embedded store is: in whichever data directory has it, so that their order does not matter; a new one in
/// the first.
fn embedded_file(config: &Config) -> Result<PathBuf, StoreError> {
    let files = config
        .data_paths()
        .into_iter()
        .map(|dir| dir.join(META_FILE));
    let found: Vec<PathBuf> = files.clone().filter(|file| file.exists()).collect();
    match &found[..] {
        [] => files.into_iter().next().ok_or(StoreError::NoDataPath),
        [only] => Ok(only.clone()),
        [first, second, ..] => Err(StoreError::TwoStores(first.clone(), second.clone())),
    }
}

/// How the configuration wants ZooKeeper to be reached.
fn zookeeper_options(config: &Config) -> Result<ZooKeeperOptions, MetaError> {
    let ms = |name| Duration::from_millis(config.number(name) as u64);
    let file =
        |name| Some(PathBuf::from(config.text(name))).filter(|path| !path.as_os_str().is_empty());
    let auth = match config.text("zookeeper.auth") {
        "" => None,
        auth => match auth.split_once(':') {
            Some((scheme, credentials)) => Some((scheme.to_owned(), credentials.to_owned())),
            None => {
                let why = "zk.zkAuth must be SCHEME:CREDENTIALS, such as digest:user:password";
                return Err(MetaError::Unavailable(why.to_owned()));
            }
        },
    };
    let tls = config.flag("zookeeper.tls").then(|| ZooKeeperTls {
        ca: file("zookeeper.tls.ca"),
        identity: file("zookeeper.tls.certificate").zip(file("zookeeper.tls.key")),
        verify_host: config.flag("zookeeper.tls.verify.host"),
    });
    Ok(ZooKeeperOptions {
        servers: config.text("zookeeper.connect").to_owned(),
        root: config.text("zookeeper.root").to_owned(),
        set_acl: config.flag("zookeeper.set.acl"),
        session_timeout: ms("zookeeper.session.timeout.ms"),
        connection_timeout: ms("zookeeper.connection.timeout.ms"),
        auth,
        tls,
    })
}
