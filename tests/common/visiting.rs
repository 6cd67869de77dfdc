//! Visitors of a broker's dashboard: requests, answers, who is logged in.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;

use crate::common::Running;

pub const JSON: &str = "Content-Type: application/json\r\n";
pub const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// Status, head and body of an answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn read(mut stream: impl Read) -> Self {
        let mut answer = Vec::new();
        // A server that closes without a notice is no error here.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn error(&self) -> (u16, String) {
        (
            self.status,
            self.json()["error"].as_str().unwrap().to_owned(),
        )
    }

    pub fn cookie(&self) -> &str {
        let mut lines = self.head.lines();
        let line = lines.find_map(|line| line.strip_prefix("set-cookie: "));
        line.unwrap_or_else(|| panic!("{self:?}"))
    }

    /// What a browser sends of it.
    pub fn session(&self) -> String {
        let pair = self.cookie().split(';').next().unwrap();
        format!("Cookie: {pair}\r\n")
    }
}

pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost:8120\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

pub fn connect(broker: &Running) -> TcpStream {
    let stream = TcpStream::connect(broker.broker().dashboard_address().unwrap()).unwrap();
    let timeout = Some(Duration::from_secs(20));
    stream.set_read_timeout(timeout).unwrap();
    stream
}

pub fn ask(broker: &Running, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = connect(broker);
    stream
        .write_all(request(method, path, headers, body).as_bytes())
        .unwrap();
    Answer::read(stream)
}

pub fn get(broker: &Running, path: &str, headers: &str) -> Answer {
    ask(broker, "GET", path, headers, "")
}

pub fn basic((user, password): (&str, &str)) -> String {
    let encoded = BASE64.encode(format!("{user}:{password}").as_bytes());
    format!("Authorization: Basic {encoded}\r\n")
}

pub fn login(broker: &Running, (user, password): (&str, &str)) -> Answer {
    let form = format!("user={user}&password={password}&then=%2Ftopics");
    ask(broker, "POST", "/login", FORM, &form)
}

/// A stream of live values, after its first one.
pub fn live(broker: &Running, headers: &str) -> BufReader<TcpStream> {
    let mut stream = connect(broker);
    let asked = format!("GET /api/live HTTP/1.0\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(asked.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "no value");
    }
    lines
}

/// Whether a stream ends by itself.
pub fn ends(mut stream: BufReader<TcpStream>) -> bool {
    stream.read_to_end(&mut Vec::new()).is_ok()
}
