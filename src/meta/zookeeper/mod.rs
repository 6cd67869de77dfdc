//! The ZooKeeper backend: one session a broker, over the zookeeper-client crate.
//!
//! - [`keeper`] keeps the session: connects, extends the lease, tells of suspension, loss and renewal, watches.
//! - [`in_flight`] sends changes: several multis at a time, each made of all that is waiting and does not conflict.
//! - [`plan`] turns the store's operations into ZooKeeper's.
//! - [`access`] says whose nodes are.
//!
//! A lost connection leaves it open whether a change was made. Puts, tree deletions and checks are sent again,
//! which changes nothing when they were; with any other change a marker node of the session is set in the same
//! multi, and read to learn what happened.
//!
//! Tests: tests/meta.rs.

mod access;
mod in_flight;
mod keeper;
mod plan;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error};

use super::{Change, Lease, MetaError, Node, Op, Session, SessionState};
use in_flight::Request;

/// Watched changes that a slow receiver may lag before it must re-read.
const WATCH_BACKLOG: usize = 16 << 10;
/// After how long it is said that the first connection is waited for, and how often again.
const TOLD_AFTER: Duration = Duration::from_secs(2);
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Reads that one call keeps under way.
const READS_AT_ONCE: usize = 256;
/// Changes that may wait to be sent.
const REQUESTS_MAX: usize = 100_000;

/// Where ZooKeeper is and how to talk to it.
#[derive(Debug, Clone)]
pub struct ZooKeeperOptions {
    /// `host:port` of the servers, separated by commas, with an optional chroot after the last one.
    pub servers: String,
    /// The root of the tree, below the chroot.
    pub root: String,
    /// Asked for; the server may give another one.
    pub session_timeout: Duration,
    /// For the first connection.
    pub connection_timeout: Duration,
    /// Scheme and credentials such as `digest` and `user:password`.
    pub auth: Option<(String, String)>,
    /// Whether what is created belongs to the user of `auth` alone.
    pub set_acl: bool,
    /// Encrypts the connection.
    pub tls: Option<ZooKeeperTls>,
}

/// Files for TLS, in PEM.
#[derive(Debug, Clone, Default)]
pub struct ZooKeeperTls {
    /// Authorities that may have signed the server's certificate; the system's when not given.
    pub ca: Option<PathBuf>,
    /// This broker's certificate chain and key, where the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether the server's certificate must be for the host that is connected to.
    pub verify_host: bool,
}

/// What the session's task and its users share.
struct Shared {
    options: ZooKeeperOptions,
    client: ArcSwap<Option<Client>>,
    session: watch::Sender<Session>,
    lease: Arc<Lease>,
    changes: broadcast::Sender<Change>,
}

impl Shared {
    /// How nodes are created.
    fn create_options(&self, ephemeral: bool) -> CreateOptions<'static> {
        let mode = match ephemeral {
            true => CreateMode::Ephemeral,
            false => CreateMode::Persistent,
        };
        let is_owned = self.options.set_acl && self.options.auth.is_some();
        mode.with_acls(match is_owned {
            true => Acls::creator_all(),
            false => Acls::anyone_all(),
        })
    }

    /// Waits until the session is connected; fails when it is lost first, or takes longer than its timeout.
    async fn connected(&self, number: Option<u64>) -> Result<Client, MetaError> {
        let mut session = self.session.subscribe();
        let decided = session.wait_for(|session| {
            number.is_some_and(|number| session.number != number)
                || session.state != SessionState::Suspended
        });
        let timeout = self.options.session_timeout;
        let decided = *tokio::time::timeout(timeout, decided)
            .await
            .map_err(|_| unavailable("ZooKeeper did not answer within the session timeout"))?
            .map_err(|_| unavailable("the store is closed"))?;
        if decided.state != SessionState::Connected
            || number.is_some_and(|number| number != decided.number)
        {
            return Err(unavailable("the ZooKeeper session is lost"));
        }
        self.current()
    }

    fn current(&self) -> Result<Client, MetaError> {
        let client = self.client.load();
        Option::as_ref(&client)
            .cloned()
            .ok_or_else(|| unavailable("there is no ZooKeeper session"))
    }
}

fn unavailable(why: &str) -> MetaError {
    MetaError::Unavailable(why.to_owned())
}

/// Errors that a new connection may cure.
fn is_connection_error(error: &Error) -> bool {
    !matches!(
        error,
        Error::NoNode
            | Error::NodeExists
            | Error::BadVersion
            | Error::NotEmpty
            | Error::NoAuth
            | Error::InvalidAcl
            | Error::AuthFailed
            | Error::BadArguments(_)
            | Error::NoChildrenForEphemerals
            | Error::QuotaExceeded
            | Error::SessionExpired
            | Error::SessionMoved
            | Error::ClientClosed
    )
}

pub(super) struct ZooKeeper {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<Request>,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

/// Says again and again that the first connection is waited for, so that nobody takes the broker for one that hangs.
async fn tell_of_waiting<T>(servers: &str, timeout: Duration) -> T {
    let started = Instant::now();
    let gives_up_after_s = timeout.as_secs();
    let mut pause = TOLD_AFTER;
    loop {
        tokio::time::sleep(pause).await;
        let waited_s = started.elapsed().as_secs();
        tracing::warn!(
            servers,
            waited_s,
            gives_up_after_s,
            "waiting for ZooKeeper (zk.zkConnect), which does not answer"
        );
        pause = TOLD_EVERY;
    }
}

impl ZooKeeper {
    pub(super) async fn connect(options: ZooKeeperOptions) -> Result<Self, MetaError> {
        let timeout = options.connection_timeout;
        let place = options.servers.clone();
        let session = Session {
            number: 1,
            state: SessionState::Suspended,
        };
        let shared = Arc::new(Shared {
            options,
            client: ArcSwap::from_pointee(None),
            session: watch::Sender::new(session),
            lease: Arc::new(Lease::ended()),
            changes: broadcast::channel(WATCH_BACKLOG).0,
        });
        let client = tokio::select! {
            client = tokio::time::timeout(timeout, keeper::connect(&shared)) => client,
            never = tell_of_waiting(&place, timeout) => never,
        };
        let client = client
            .map_err(|_| {
                unavailable(&format!(
                    "ZooKeeper at {place} was not reached within {} ms (zk.zkConnectionTimeoutMs)",
                    timeout.as_millis()
                ))
            })?
            .map_err(|error| unavailable(&format!("ZooKeeper at {place}: {error}")))?;
        let (requests, receiver) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let opened = keeper::open_session(&shared, 1, client)
            .await
            .map_err(|error| unavailable(&format!("ZooKeeper at {place}: {error}")))?;
        let task = tokio::spawn(keeper::run(shared.clone(), opened, receiver, stopped));
        Ok(Self {
            shared,
            requests,
            task: parking_lot::Mutex::new(Some(task)),
            stop,
        })
    }

    pub(super) fn multi(
        &self,
        ops: Vec<Op>,
    ) -> impl Future<Output = Result<(), MetaError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let closed = || unavailable("the store is closed");
        if self.shared.session.borrow().state == SessionState::Closed {
            let _ = reply.send(Err(closed()));
        } else if let Err(mpsc::error::SendError(request)) =
            self.requests.send(Request::new(ops, reply))
        {
            request.answer(Err(closed()));
        }
        async move { answer.await.map_err(|_| closed())? }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Option<Node>, MetaError> {
        let read = self
            .read(path, |client| async move {
                match client.get_data(path).await {
                    Ok((data, stat)) => Ok(Some(Node {
                        data: Bytes::from(data),
                        version: stat.version,
                        ephemeral: stat.ephemeral_owner != 0,
                    })),
                    Err(Error::NoNode) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await?;
        Ok(read)
    }

    pub(super) async fn children(&self, path: &str) -> Result<Vec<String>, MetaError> {
        let mut names = self
            .read(path, |client| async move {
                match client.list_children(path).await {
                    Err(Error::NoNode) => Ok(Vec::new()),
                    listed => listed,
                }
            })
            .await?;
        names.sort_unstable();
        Ok(names)
    }

    pub(super) async fn subtree(&self, path: &str) -> Result<Vec<(String, Node)>, MetaError> {
        self.sync().await?;
        let mut all = Vec::new();
        let mut level = vec![path.trim_end_matches('/').to_owned()];
        while !level.is_empty() {
            let listings = stream::iter(level.drain(..)).map(|parent| async move {
                let asked = if parent.is_empty() { "/" } else { &parent };
                let names = self.children(asked).await?;
                Ok::<_, MetaError>(
                    names
                        .into_iter()
                        .map(move |name| format!("{parent}/{name}"))
                        .collect::<Vec<_>>(),
                )
            });
            let found: Vec<Vec<String>> = listings.buffered(READS_AT_ONCE).try_collect().await?;
            let paths: Vec<String> = found.into_iter().flatten().collect();
            let nodes = stream::iter(paths).map(|path| async move {
                let node = self.get(&path).await?;
                Ok::<_, MetaError>((path, node))
            });
            let nodes: Vec<(String, Option<Node>)> =
                nodes.buffered(READS_AT_ONCE).try_collect().await?;
            for (path, node) in nodes {
                if let Some(node) = node {
                    // Ephemerals have no children.
                    if !node.ephemeral {
                        level.push(path.clone());
                    }
                    all.push((path, node));
                }
            }
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    pub(super) async fn sync(&self) -> Result<(), MetaError> {
        self.read("/", |client| async move { client.sync("/").await })
            .await
    }

    /// Reads, again after a connection was lost.
    async fn read<T, F>(&self, path: &str, read: impl Fn(Client) -> F) -> Result<T, MetaError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        loop {
            let client = self.shared.connected(None).await?;
            match tokio::time::timeout(self.shared.options.session_timeout, read(client)).await {
                Err(_) => {
                    return Err(unavailable(
                        "ZooKeeper did not answer within the session timeout",
                    ));
                }
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if is_connection_error(&error) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(Err(error)) => return Err(unavailable(&format!("{path}: {error}"))),
            }
        }
    }

    pub(super) fn watch(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    pub(super) fn session(&self) -> watch::Receiver<Session> {
        self.shared.session.subscribe()
    }

    pub(super) fn lease(&self) -> &Arc<Lease> {
        &self.shared.lease
    }

    pub(super) async fn close(&self) {
        self.stop.send_replace(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}
