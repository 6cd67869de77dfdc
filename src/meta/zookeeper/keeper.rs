//! Keeps the session: one loop for each session, and a new session when one is lost.
//!
//! Tests: tests/meta.rs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zookeeper_client::{
    AddWatchMode, Client, Error, EventType, SessionState as ClientState, StateWatcher, TlsOptions,
};

use super::in_flight::{InFlightMultis, Request};
use super::{Shared, unavailable};
use crate::meta::session::boot_ms;
use crate::meta::{Change, MetaError, Session, SessionState, paths};

/// A session's timeout is divided by this to get the time between two heartbeats.
const HEARTBEATS_A_TIMEOUT: u32 = 12;
/// How long to wait before trying again to get a session.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// How long the server may take to confirm that a session was closed.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Connects and makes sure that the root is there.
pub(super) async fn connect(shared: &Shared) -> Result<Client, MetaError> {
    let options = &shared.options;
    let (servers, chroot) = match options.servers.find('/') {
        Some(at) => options.servers.split_at(at),
        None => (options.servers.as_str(), ""),
    };
    let root = format!(
        "{}{}",
        chroot.trim_end_matches('/'),
        options.root.trim_end_matches('/')
    );
    let failed = |error: Error| unavailable(&error.to_string());
    loop {
        let mut connector = Client::connector().with_session_timeout(options.session_timeout);
        if let Some((scheme, credentials)) = &options.auth {
            connector = connector.with_auth(scheme, credentials.as_bytes());
        }
        let connected = match &options.tls {
            Some(_) => {
                let tls = tls_options(shared)?;
                connector.with_tls(tls).secure_connect(servers).await
            }
            None => connector.connect(servers).await,
        };
        match connected {
            Ok(client) if root.is_empty() => return Ok(client),
            Ok(client) => {
                let made = client.mkdir(&root, &shared.create_options(false)).await;
                match made {
                    Ok(()) | Err(Error::NodeExists) => {}
                    Err(error) => return Err(failed(error)),
                }
                return client
                    .chroot(root)
                    .map_err(|_| unavailable("zk.zkRoot is no valid path"));
            }
            Err(error @ (Error::AuthFailed | Error::BadArguments(_))) => return Err(failed(error)),
            Err(error) => {
                tracing::warn!(servers, %error, "ZooKeeper cannot be reached; trying again");
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}

fn tls_options(shared: &Shared) -> Result<TlsOptions, MetaError> {
    let files = shared.options.tls.clone().unwrap_or_default();
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path)
            .map_err(|error| unavailable(&format!("{}: {error}", path.display())))
    };
    let wrong = |error: Error| unavailable(&format!("TLS to ZooKeeper: {error}"));
    let mut tls = TlsOptions::new();
    if let Some(ca) = &files.ca {
        tls = tls.with_pem_ca(&read(ca)?).map_err(wrong)?;
    }
    if let Some((certificate, key)) = &files.identity {
        tls = tls
            .with_pem_identity(&read(certificate)?, &read(key)?)
            .map_err(wrong)?;
    }
    if !files.verify_host {
        // SAFETY: not about memory. The operator asked for it, and the certificate's chain is still verified.
        tls = unsafe { tls.with_no_hostname_verification() };
    }
    Ok(tls)
}

/// A session with its watches and its heartbeat.
pub(super) struct OpenedSession {
    number: u64,
    client: Client,
    tasks: JoinSet<()>,
}

/// Sets up a new session: watches and the lease.
pub(super) async fn open_session(
    shared: &Arc<Shared>,
    number: u64,
    client: Client,
) -> Result<OpenedSession, Error> {
    let mut tasks = JoinSet::new();
    let state = client.state_watcher();
    let watches = add_watches(shared, &client).await?;
    tasks.spawn(keep_watches(shared.clone(), client.clone(), state, watches));
    let sent_ms = boot_ms();
    client.sync("/").await?;
    shared.lease.begin(number);
    shared.lease.extend_to(lease_end(sent_ms, &client));
    tasks.spawn(heartbeat(shared.clone(), client.clone()));
    tracing::info!(session = %client.session_id(), timeout_ms = client.session_timeout().as_millis() as u64, "ZooKeeper session");
    Ok(OpenedSession {
        number,
        client,
        tasks,
    })
}

/// Watches everything that brokers follow; what happens is reported until the tasks are dropped.
async fn add_watches(shared: &Arc<Shared>, client: &Client) -> Result<JoinSet<()>, Error> {
    let mut tasks = JoinSet::new();
    for root in paths::WATCHED {
        let watcher = client
            .watch(root, AddWatchMode::PersistentRecursive)
            .await?;
        tasks.spawn(forward_events(shared.clone(), watcher));
    }
    Ok(tasks)
}

/// Adds the watches again after every reconnect: the server forgot them, and zookeeper-client 0.11.2 does not send
/// persistent ones again (its `resend_watches` always chooses the older request, which has no room for them). What
/// happened meanwhile is not reported, so everything must be read again after them.
async fn keep_watches(
    shared: Arc<Shared>,
    client: Client,
    mut state: StateWatcher,
    mut watches: JoinSet<()>,
) {
    loop {
        match state.changed().await {
            ClientState::SyncConnected | ClientState::ConnectedReadOnly => {
                // The older ones go only when the new ones are there, or the server would drop both.
                match add_watches(&shared, &client).await {
                    Ok(again) => watches = again,
                    // The connection is lost once more, and its return will be reported.
                    Err(error) => {
                        tracing::debug!(%error, "cannot watch");
                        continue;
                    }
                }
                let _ = shared.changes.send(Change::Everything);
            }
            state if state.is_terminated() => {
                watches.shutdown().await;
                return;
            }
            _ => {}
        }
    }
}

async fn forward_events(shared: Arc<Shared>, mut watcher: zookeeper_client::PersistentWatcher) {
    loop {
        let event = watcher.changed().await;
        if event.event_type != EventType::Session {
            let _ = shared.changes.send(Change::Paths([event.path].into()));
        } else if event.session_state.is_terminated() {
            return;
        }
    }
}

/// A server that is cut off from the others may still answer while they let the session expire. But `sync` is
/// answered by the leader, and a follower tells the leader at least every half tick which sessions it heard of; as
/// a session's timeout is two ticks at the least, the leader knew of the session a quarter of the timeout before
/// a `sync` that it answered was sent.
fn lease_end(sent_ms: i64, client: &Client) -> i64 {
    sent_ms + client.session_timeout().as_millis() as i64 * 3 / 4
}

async fn heartbeat(shared: Arc<Shared>, client: Client) {
    let pause = client.session_timeout() / HEARTBEATS_A_TIMEOUT;
    let mut state = client.state_watcher();
    loop {
        let sent_ms = boot_ms();
        match client.sync("/").await {
            Ok(()) => {
                shared.lease.extend_to(lease_end(sent_ms, &client));
                // One that was queued while there was no connection proves little, and is followed by another one at once.
                if boot_ms() - sent_ms < pause.as_millis() as i64 {
                    tokio::time::sleep(pause).await;
                }
            }
            Err(_) => {
                // What is sent while there is no connection is answered late, and would prove little.
                while state.state() == ClientState::Disconnected {
                    state.changed().await;
                }
                if client.state().is_terminated() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Runs sessions until the store is closed.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut opened: OpenedSession,
    mut requests: mpsc::UnboundedReceiver<Request>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let number = opened.number;
        shared.client.store(Arc::new(Some(opened.client.clone())));
        publish(&shared, number, SessionState::Connected);
        let _ = shared.changes.send(Change::Everything);
        let closing = serve(&shared, &opened, &mut requests, &mut stop).await;
        shared.lease.end();
        shared.client.store(Arc::new(None));
        opened.tasks.shutdown().await;
        // A last heartbeat may have come in between.
        shared.lease.end();
        if closing {
            publish(&shared, number, SessionState::Closed);
            end(opened.client).await;
            return;
        }
        publish(&shared, number, SessionState::Lost);
        tracing::warn!("the ZooKeeper session is lost; getting a new one");
        drop(opened);
        let next = async {
            loop {
                let attempt = async {
                    let client = connect(&shared).await?;
                    open_session(&shared, number + 1, client)
                        .await
                        .map_err(|error| unavailable(&error.to_string()))
                };
                match attempt.await {
                    Ok(opened) => return opened,
                    Err(error) => {
                        tracing::warn!(%error, "no new ZooKeeper session yet");
                        tokio::time::sleep(RECONNECT_PAUSE).await;
                    }
                }
            }
        };
        let refuse = async {
            while let Some(request) = requests.recv().await {
                request.answer(Err(unavailable("the ZooKeeper session is lost")));
            }
            std::future::pending::<()>().await
        };
        opened = tokio::select! {
            opened = next => opened,
            () = refuse => return,
            _ = stop.wait_for(|stop| *stop) => {
                publish(&shared, number, SessionState::Closed);
                return;
            }
        };
    }
}

fn publish(shared: &Shared, number: u64, state: SessionState) {
    shared.session.send_replace(Session { number, state });
}

/// Serves one session until it is lost (false) or the store is closed (true).
async fn serve(
    shared: &Arc<Shared>,
    opened: &OpenedSession,
    requests: &mut mpsc::UnboundedReceiver<Request>,
    stop: &mut watch::Receiver<bool>,
) -> bool {
    let mut state = opened.client.state_watcher();
    let mut in_flight = InFlightMultis::new(shared.clone(), opened.client.clone(), opened.number);
    let mut closing = false;
    loop {
        if closing && in_flight.is_empty() {
            return true;
        }
        in_flight.send_waiting();
        tokio::select! {
            biased;
            () = changed(&mut state, shared, opened.number) => {
                if state.peek_state().is_terminated() {
                    in_flight.lose();
                    return false;
                }
            }
            () = in_flight.finish_one(), if !in_flight.is_empty() => {}
            request = requests.recv() => match request {
                Some(request) => in_flight.enqueue(request, requests),
                None => return true,
            },
            _ = stop.wait_for(|stop| *stop), if !closing => {
                closing = true;
                while let Ok(request) = requests.try_recv() {
                    in_flight.enqueue(request, requests);
                }
                if shared.session.borrow().state != SessionState::Connected {
                    in_flight.lose();
                }
            }
        }
    }
}

/// Publishes the next state of the connection.
async fn changed(state: &mut StateWatcher, shared: &Shared, number: u64) {
    match state.changed().await {
        ClientState::Disconnected => {
            let left_ms = shared
                .lease
                .left()
                .map_or(0, |left| left.as_millis() as u64);
            tracing::warn!(left_ms, "the connection to ZooKeeper is lost");
            publish(shared, number, SessionState::Suspended);
        }
        ClientState::SyncConnected | ClientState::ConnectedReadOnly => {
            tracing::info!("connected to ZooKeeper again");
            publish(shared, number, SessionState::Connected);
        }
        _ => {}
    }
}

/// Ends a session, so that others need not wait for its timeout.
async fn end(client: Client) {
    let mut state = client.state_watcher();
    drop(client);
    let ended = async { while !state.changed().await.is_terminated() {} };
    if tokio::time::timeout(CLOSE_WAIT, ended).await.is_err() {
        tracing::warn!("ZooKeeper did not confirm the end of the session");
    }
}
