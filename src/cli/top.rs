//! `metaq top`: what moves on a broker, a line a topic, group or client, the busiest first; anew every second.
//!
//! Tests: tests/shell.rs.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use crossterm::event::{Event, KeyCode, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{Clear, ClearType};
use crossterm::{cursor, event, execute, queue, terminal};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::http::{Dashboard, Target};
use super::output::{bytes, count, duration, plain};
use super::status::Rates;

/// How often keys are looked for.
const KEYS_PAUSE: Duration = Duration::from_millis(100);
/// Clients and groups that are asked for.
const ROWS_MAX: usize = 1000;

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(after_help = "Keys: t topics, g groups, c clients, q to end.

Without a terminal, or with --json, one look is printed and that is all.

Examples:
  metaq top
  metaq top --by clients
  metaq top --json | jq '.topics | to_entries | max_by(.value[0])'")]
pub(super) struct Top {
    /// What to show first.
    #[arg(long, value_enum, default_value_t = By::Topics)]
    by: By,
    #[command(flatten)]
    dashboard: Dashboard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Topics,
    Groups,
    Clients,
}

/// What `/api/live` tells every second.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Live {
    rates: Rates,
    connections: u64,
    resident: u64,
    log_bytes: u64,
    uptime_ms: u64,
    /// Bytes appended, bytes sent, messages appended a second.
    topics: BTreeMap<String, [f64; 3]>,
}

#[derive(Debug, Deserialize)]
struct Page<T> {
    items: Vec<T>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Group {
    group_id: String,
    state: String,
    members: u64,
    lag: i64,
}

#[derive(Debug, Deserialize)]
struct Clients {
    connected: Page<Client>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Client {
    number: u64,
    peer: String,
    client_id: String,
    software: String,
    requests: u64,
    request_bytes: u64,
    response_bytes: u64,
    errors: u64,
}

/// A client with what it did a second.
#[derive(Debug, Clone, Serialize)]
struct Moving {
    client: Client,
    requests: f64,
    sent_bytes: f64,
    got_bytes: f64,
}

/// One look.
#[derive(Debug, Serialize)]
struct Look {
    #[serde(flatten)]
    live: Live,
    groups: Vec<Group>,
    clients: Vec<Moving>,
}

/// Counters of clients, and when they were read.
type Before = Option<(Instant, BTreeMap<u64, Client>)>;

impl Top {
    pub(super) fn run(self) -> Result<(), Failure> {
        let live = follow(&self.dashboard.target()?)?;
        let mut before = None;
        if self.dashboard.json || !io::stdout().is_terminal() {
            // Rates of clients need two looks.
            let first = live.recv().map_err(|_| ENDED)??;
            self.look(first, &mut before)?;
            let look = self.look(live.recv().map_err(|_| ENDED)??, &mut before)?;
            return self.print_once(&look);
        }
        let _screen = Screen::open()?;
        self.watch(&live, &mut before)
    }

    fn watch(
        &self,
        live: &Receiver<Result<Live, Failure>>,
        before: &mut Before,
    ) -> Result<(), Failure> {
        let mut by = self.by;
        let mut look = None;
        loop {
            match live.recv_timeout(KEYS_PAUSE) {
                Ok(told) => look = Some(self.look(told?, before)?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ENDED.into()),
            }
            while event::poll(Duration::ZERO)? {
                match event::read()? {
                    Event::Key(key) => match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                            return Ok(());
                        }
                        KeyCode::Char('t') => by = By::Topics,
                        KeyCode::Char('g') => by = By::Groups,
                        KeyCode::Char('c') => by = By::Clients,
                        _ => {}
                    },
                    _ => continue,
                }
            }
            if let Some(look) = &look {
                draw(look, by)?;
            }
        }
    }

    fn look(&self, live: Live, before: &mut Before) -> Result<Look, Failure> {
        let path = format!("/api/groups?limit={ROWS_MAX}");
        let mut groups = self.dashboard.get::<Page<Group>>(&path)?.items;
        groups.sort_by_key(|group| -group.lag);
        let path = format!("/api/clients?limit={ROWS_MAX}");
        let clients = self.dashboard.get::<Clients>(&path)?.connected.items;
        Ok(Look {
            live,
            groups,
            clients: moving(clients, before),
        })
    }

    fn print_once(&self, look: &Look) -> Result<(), Failure> {
        if self.dashboard.json {
            println!("{}", serde_json::to_string_pretty(look)?);
            return Ok(());
        }
        head(&look.live).iter().for_each(|line| println!("{line}"));
        let rows = rows(look, self.by);
        rows.iter()
            .for_each(|row| println!("{}", plain(row.trim_end())));
        Ok(())
    }
}

const ENDED: &str = "the broker tells nothing any more";

/// Follows `/api/live` on a thread of its own.
fn follow(target: &Target) -> Result<Receiver<Result<Live, Failure>>, Failure> {
    let stream = target.follow("/api/live")?;
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in stream.lines() {
            let told = match line {
                Ok(line) => match line.strip_prefix("data:") {
                    Some(data) => serde_json::from_str(data.trim()).map_err(Failure::from),
                    None => continue,
                },
                Err(error) => Err(error.into()),
            };
            if sender.send(told).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// What clients did since they were looked at last, the busiest first.
fn moving(clients: Vec<Client>, before: &mut Before) -> Vec<Moving> {
    let now = Instant::now();
    let by_number: BTreeMap<u64, Client> = clients
        .into_iter()
        .map(|client| (client.number, client))
        .collect();
    let since = before.replace((now, by_number.clone()));
    let seconds = since.as_ref().map_or(f64::INFINITY, |(at, _)| {
        (now - *at).as_secs_f64().max(0.001)
    });
    let of = |client: Client| {
        let old = since.as_ref().and_then(|(_, old)| old.get(&client.number));
        let rate = |now: u64, then: fn(&Client) -> u64| {
            now.saturating_sub(old.map_or(0, then)) as f64 / seconds
        };
        Moving {
            requests: rate(client.requests, |old| old.requests),
            sent_bytes: rate(client.request_bytes, |old| old.request_bytes),
            got_bytes: rate(client.response_bytes, |old| old.response_bytes),
            client,
        }
    };
    let mut moving: Vec<Moving> = by_number.into_values().map(of).collect();
    let busy = |one: &Moving| one.sent_bytes + one.got_bytes + one.requests;
    moving.sort_by(|a, b| busy(b).total_cmp(&busy(a)));
    moving
}

fn head(live: &Live) -> [String; 2] {
    let rates = &live.rates;
    [
        format!(
            "up {}  in {}/s ({} messages)  out {}/s  {} requests/s  p99 {:.2} ms",
            duration(live.uptime_ms),
            bytes(rates.bytes_in),
            count(rates.messages_in),
            bytes(rates.bytes_out),
            count(rates.requests),
            rates.produce_p99_ms
        ),
        format!(
            "CPU {:.2} cores  memory {}  logs {}  {} connections",
            rates.cpu,
            bytes(live.resident as f64),
            bytes(live.log_bytes as f64),
            live.connections
        ),
    ]
}

/// A heading and its lines.
fn rows(look: &Look, by: By) -> Vec<String> {
    match by {
        By::Topics => {
            let mut topics: Vec<_> = look.live.topics.iter().collect();
            topics.sort_by(|a, b| (b.1[0] + b.1[1]).total_cmp(&(a.1[0] + a.1[1])));
            let line = |(name, [appended, sent, messages]): (&String, &[f64; 3])| {
                let (appended, sent) = (bytes(*appended), bytes(*sent));
                format!(
                    "{name:<40} {appended:>12} {sent:>12} {:>12}",
                    count(*messages)
                )
            };
            let heading = format!(
                "{:<40} {:>12} {:>12} {:>12}",
                "TOPIC", "IN/S", "OUT/S", "MESSAGES/S"
            );
            [heading]
                .into_iter()
                .chain(topics.into_iter().map(line))
                .collect()
        }
        By::Groups => {
            let line = |group: &Group| {
                let Group {
                    group_id,
                    state,
                    members,
                    lag,
                } = group;
                format!(
                    "{group_id:<40} {state:<20} {members:>8} {:>14}",
                    count(*lag as f64)
                )
            };
            let heading = format!(
                "{:<40} {:<20} {:>8} {:>14}",
                "GROUP", "STATE", "MEMBERS", "BEHIND"
            );
            [heading]
                .into_iter()
                .chain(look.groups.iter().map(line))
                .collect()
        }
        By::Clients => {
            let line = |one: &Moving| {
                let client = &one.client;
                let name = format!("{} {}", client.client_id, client.peer);
                let (sent, got) = (bytes(one.sent_bytes), bytes(one.got_bytes));
                let requests = count(one.requests);
                let (software, errors) = (&client.software, client.errors);
                format!("{name:<40} {software:<18} {requests:>10} {sent:>12} {got:>12} {errors:>8}")
            };
            let heading = format!(
                "{:<40} {:<18} {:>10} {:>12} {:>12} {:>8}",
                "CLIENT", "SOFTWARE", "REQUESTS/S", "SENDS/S", "GETS/S", "REFUSED"
            );
            [heading]
                .into_iter()
                .chain(look.clients.iter().map(line))
                .collect()
        }
    }
}

fn draw(look: &Look, by: By) -> Result<(), Failure> {
    let (width, height) = terminal::size()?;
    let fit = |line: &str| -> String { plain(line).chars().take(usize::from(width)).collect() };
    let mut out = io::stdout();
    queue!(out, cursor::MoveTo(0, 0))?;
    let mut lines = head(&look.live).to_vec();
    lines.push("t topics  g groups  c clients  q ends".to_owned());
    lines.extend(rows(look, by));
    for (n, line) in lines.iter().take(usize::from(height)).enumerate() {
        let heading = if n == 3 {
            Attribute::Reverse
        } else {
            Attribute::Reset
        };
        queue!(
            out,
            cursor::MoveTo(0, n as u16),
            SetAttribute(heading),
            Print(fit(line)),
            SetAttribute(Attribute::Reset),
            Clear(ClearType::UntilNewLine)
        )?;
    }
    queue!(
        out,
        cursor::MoveToNextLine(1),
        Clear(ClearType::FromCursorDown)
    )?;
    Ok(out.flush()?)
}

/// The terminal while it is drawn on; given back as it was.
struct Screen;

impl Screen {
    fn open() -> Result<Self, Failure> {
        terminal::enable_raw_mode()?;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}
