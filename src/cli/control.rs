//! Asking the broker of this machine through its control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Failure;
use crate::config::Config;
use crate::control::{Order, short_name, socket_path};

/// An answer that takes longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Has an order carried out; what the broker answers.
pub(super) fn order(config: &Config, order: &Order) -> Result<serde_json::Value, Failure> {
    let path = socket_path(config).ok_or("control.socket=none: the broker cannot be reached so")?;
    let unreachable = |error: std::io::Error| {
        format!(
            "no broker answers at {}: {error}; name its configuration with --config, and run this in the directory that it was started in",
            path.display()
        )
    };
    let (_dir, short) = short_name(&path).map_err(unreachable)?;
    let mut stream = UnixStream::connect(short).map_err(unreachable)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("{}\n", serde_json::to_string(order)?).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let mut answer: serde_json::Value = serde_json::from_str(&line)?;
    match answer.get("error").and_then(serde_json::Value::as_str) {
        Some(why) => Err(why.to_owned().into()),
        None => Ok(answer["ok"].take()),
    }
}
