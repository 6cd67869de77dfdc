//! Asking the broker of this machine through its control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{ExitWith, Failure};
use crate::config::Config;
use crate::control::{Order, socket_address};

/// LSB: the program is not running.
const NOT_RUNNING: u8 = 7;
/// An answer that takes longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Has an order carried out; what the broker answers.
pub(super) fn order(config: &Config, order: &Order) -> Result<serde_json::Value, Failure> {
    let unreachable = |error: std::io::Error| {
        let why = format!(
            "no broker of this machine and user answers for {}: {error}; name its configuration with --config, and run this in the directory that it was started in",
            config.text("log.dirs")
        );
        ExitWith::failure(NOT_RUNNING, &why)
    };
    let address = socket_address(config).map_err(unreachable)?;
    let address = address.ok_or("control.socket=none: the broker cannot be reached so")?;
    let mut stream = UnixStream::connect_addr(&address).map_err(unreachable)?;
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
