//! The control socket: a unix socket by which an operator of the same machine reaches the broker (`metaq config reload`,
//! `metaq loggers requests`). The broker's own user is answered, and root.
//!
//! Its name is made of the first data directory's device and inode, in the system's list of abstract names: nothing is
//! left behind, nothing lies in the directory to be copied with it. `control.socket` puts it into a file system instead.
//!
//! A request is one line of JSON, and so is its answer: `{"ok": …}` or `{"error": "…"}`. Requests are answered one after
//! the other.
//!
//! Tests: tests/config.rs.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::api::{Context, REQUEST_LOG_TIME_DEFAULT, REQUEST_LOG_TIME_MAX};
use crate::config::Config;

/// The longest request, bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// A peer that is silent for longer is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Read the configuration again; answered with a [`Reload`](crate::config::Reload).
    Reload,
    /// Log requests for a while.
    LogRequests {
        /// Those of this client.
        client_id: Option<String>,
        /// Those about this topic.
        topic: Option<String>,
        /// For how long.
        seconds: Option<u64>,
    },
    /// End the log of requests.
    LogNoRequests,
}

/// The socket, listening.
pub struct Control {
    listener: UnixListener,
    path: Option<PathBuf>,
}

/// Where the socket of a configuration is; `None` where it is not wanted.
pub fn socket_address(config: &Config) -> io::Result<Option<SocketAddr>> {
    match config.text("control.socket") {
        "none" => Ok(None),
        "" => {
            let paths = config.data_paths();
            let dir = paths.first().ok_or(io::ErrorKind::NotFound)?;
            let found = std::fs::metadata(dir)?;
            let name = format!("metaq-{:x}-{:x}", found.dev(), found.ino());
            SocketAddr::from_abstract_name(name).map(Some)
        }
        path => SocketAddr::from_pathname(path).map(Some),
    }
}

impl Control {
    /// Listens, where that is wanted. The data directory is locked by now: what is left of an earlier socket is nobody's.
    /// A broker that cannot listen serves all the same.
    pub fn bind(cx: &Context) -> Option<Self> {
        let listen = || -> io::Result<Option<Self>> {
            let Some(address) = socket_address(&cx.config.load())? else {
                return Ok(None);
            };
            let path = address.as_pathname().map(PathBuf::from);
            if let Some(path) = &path {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            Ok(Some(Self { listener, path }))
        };
        listen().unwrap_or_else(|error| {
            tracing::warn!(%error, "no control socket: metaq config reload will not reach this broker, SIGHUP does");
            None
        })
    }

    /// Answers until the task is aborted.
    pub async fn serve(self, cx: Arc<Context>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = answer(&cx, stream).await {
                        tracing::debug!(%error, "a request at the control socket was not answered");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket takes nothing");
                    tokio::time::sleep(SILENCE_MAX).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn answer(cx: &Context, mut stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        tracing::warn!(uid = peer, "another user is refused at the control socket");
        return Ok(());
    }
    let mut line = String::new();
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(SILENCE_MAX, read.read_line(&mut line)).await??;
    let result = match serde_json::from_str::<Order>(&line) {
        Ok(order) => carry_out(cx, order).await,
        Err(error) => Err(format!("not understood: {error}")),
    };
    let mut answer = match result {
        Ok(value) => serde_json::json!({ "ok": value }),
        Err(why) => serde_json::json!({ "error": why }),
    }
    .to_string();
    answer.push('\n');
    let sent = write.write_all(answer.as_bytes());
    tokio::time::timeout(SILENCE_MAX, sent).await?
}

async fn carry_out(cx: &Context, order: Order) -> Result<serde_json::Value, String> {
    match order {
        Order::Reload => {
            let report = cx.cluster.reload_config().await.map_err(|error| {
                tracing::error!(%error, "the configuration stays as it was");
                error.to_string()
            })?;
            serde_json::to_value(report).map_err(|error| error.to_string())
        }
        Order::LogRequests {
            client_id,
            topic,
            seconds,
        } => {
            let given = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
            let empty = |name: &Option<String>| name.is_some() && !given(name);
            if !given(&client_id) && !given(&topic) || empty(&client_id) || empty(&topic) {
                return Err("name a client or a topic".to_owned());
            }
            let time = seconds.map_or(REQUEST_LOG_TIME_DEFAULT, Duration::from_secs);
            if time > REQUEST_LOG_TIME_MAX {
                let most = REQUEST_LOG_TIME_MAX.as_secs();
                return Err(format!("requests are logged for {most} s at most"));
            }
            let id_of = |name: &String| cx.cluster.image().topic(name).map(|topic| topic.id);
            let named = topic.clone().map(|name| {
                let id = id_of(&name);
                (name, id)
            });
            tracing::info!(
                client_id,
                topic,
                seconds = time.as_secs(),
                "logging requests"
            );
            cx.request_log.start(client_id, named, time);
            Ok(serde_json::json!({ "seconds": time.as_secs() }))
        }
        Order::LogNoRequests => {
            cx.request_log.stop();
            Ok(serde_json::Value::Null)
        }
    }
}
