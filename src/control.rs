//! The control socket: a unix socket in the data directory, by which an operator of the same machine reaches the broker
//! (`metaq config reload`, `metaq loggers requests`). Whoever may write to it may; it is made for the broker's user alone.
//!
//! A request is one line of JSON, and so is its answer: `{"ok": …}` or `{"error": "…"}`. Requests are answered one after
//! the other.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::api::{Context, REQUEST_LOG_TIME_DEFAULT, REQUEST_LOG_TIME_MAX};
use crate::config::Config;

/// The socket's name in the first data directory.
const FILE_NAME: &str = "metaq.sock";
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
    path: PathBuf,
}

/// Where the socket of a configuration is; `None` where it is not wanted.
pub fn socket_path(config: &Config) -> Option<PathBuf> {
    match config.text("control.socket") {
        "none" => None,
        "" => Some(config.data_paths().first()?.join(FILE_NAME)),
        path => Some(PathBuf::from(path)),
    }
}

/// A name of the socket that is short enough for the system, whatever the directory; valid while the file is open.
pub fn short_name(path: &Path) -> io::Result<(File, PathBuf)> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let dir = File::open(parent.unwrap_or(Path::new(".")))?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    Ok((dir, short))
}

impl Control {
    /// Listens, where that is wanted. The data directory is locked by now: what is left of an earlier socket is nobody's.
    pub fn bind(cx: &Context) -> io::Result<Option<Self>> {
        let Some(path) = socket_path(&cx.config.load()) else {
            return Ok(None);
        };
        let named = |error: io::Error| {
            let what = format!("cannot listen on {}: {error}", path.display());
            io::Error::new(error.kind(), what)
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
            _ => {}
        }
        let (_dir, short) = short_name(&path).map_err(named)?;
        let listener = UnixListener::bind(short).map_err(named)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(named)?;
        Ok(Some(Self { listener, path }))
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
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(cx: &Context, mut stream: UnixStream) -> io::Result<()> {
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
            if client_id.is_none() && topic.is_none() {
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
