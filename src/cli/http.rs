//! A broker's dashboard port: one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;

use super::Failure;

/// An answer that takes longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Holds the dashboard's token, where reading needs one, and for whatever changes something.
const TOKEN_VARIABLE: &str = "METAQ_TOKEN";

/// Which broker's dashboard to ask.
#[derive(Debug, Args)]
pub(super) struct Dashboard {
    /// Address of a broker's dashboard. METAQ_TOKEN holds its token, where reading needs one.
    #[arg(
        short,
        long,
        default_value = "127.0.0.1:8120",
        value_name = "HOST:PORT"
    )]
    dashboard: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Dashboard {
    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.dashboard
    }

    /// The JSON at a path.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        get(&self.dashboard, path)
    }

    /// Has something done, and returns what the dashboard says of it.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = request(&self.dashboard, "POST", path)?;
        Ok(serde_json::from_str(&read(&self.dashboard, path, answer)?)?)
    }
}

/// The text at a path of a dashboard.
pub(super) fn text(address: &str, path: &str) -> Result<String, Failure> {
    read(address, path, open(address, path)?)
}

/// The whole body of an answer, where that is no refusal.
fn read(
    address: &str,
    path: &str,
    (status, mut body): (u16, BufReader<TcpStream>),
) -> Result<String, Failure> {
    let mut text = String::new();
    Read::take(&mut body, ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    match status {
        200 => Ok(text),
        _ => Err(format!("{address}{path}: status {status}: {}", text.trim()).into()),
    }
}

/// The JSON at a path of a dashboard.
pub(super) fn get<T: DeserializeOwned>(address: &str, path: &str) -> Result<T, Failure> {
    Ok(serde_json::from_str(&text(address, path)?)?)
}

/// Asks for a path; the status, and the body to read on. The answer is not chunked, because it is asked for as
/// HTTP/1.0.
pub(super) fn open(address: &str, path: &str) -> Result<(u16, BufReader<TcpStream>), Failure> {
    request(address, "GET", path)
}

fn request(
    address: &str,
    method: &str,
    path: &str,
) -> Result<(u16, BufReader<TcpStream>), Failure> {
    let mut stream = TcpStream::connect(address)
        .map_err(|error| format!("cannot reach a dashboard at {address}: {error}"))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let token = match std::env::var(TOKEN_VARIABLE) {
        Ok(token) => format!("Authorization: Bearer {token}\r\n"),
        Err(_) => String::new(),
    };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nContent-Length: 0\r\nHost: {address}\r\n{token}\r\n"
    )?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = line
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("{address} does not answer as a dashboard does"))?;
    while !line.trim().is_empty() {
        line.clear();
        answer.read_line(&mut line)?;
    }
    Ok((status, answer))
}

/// A text as one element of a path.
pub(super) fn escape_element(text: &str) -> String {
    escape(text).replace('/', "%2F")
}

/// A text as the value of a query.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                out.push(byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
