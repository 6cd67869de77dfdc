//! One client's connection: reads frames, begins their requests in arrival order, sends the answers in the same
//! order. A request begins when it sees the effects of every earlier one, which need not be answered (`api/order.rs`);
//! until then it waits here, and nothing more is read.
//!
//! A malformed frame or a panic in a handler ends this connection and nothing else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesOrdered, StreamExt};
use metaq_protocol::frame::{self, FrameError};
use metaq_protocol::messages::ApiKey;
use metaq_protocol::protocol::StrBytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::arrived::{Arrived, admitted, is_admitted, is_of_peer};
use super::frame_reader::{Frame, FrameReader, ReadFault};
use super::limits::ConnectionPermit;
use super::outcome::{Outcome, Ready};
use super::send::{Patience, SendError, send_all};
use super::settings::Settings;
use super::shutdown::stopped;
use super::socket::Socket;
use crate::api::{self, Body, Caller, Context, Gate, Piece, Response, Stage, ThreadTime};
use crate::memory::Share;
use crate::observe::{EventKind, Happened, Registered};
use crate::partition::with_inline_writes;
use crate::per_second::PerSecond;
use crate::quota::{QuotaKind, Who};
use crate::session::{ListenerInfo, Session};

/// Why a connection ends.
const NOT_KNOWN_IN_TIME: &str = "the client did not authenticate in time";
const NO_TLS: &str = "the client speaks no TLS, which this listener does";

/// Failed handshakes of all connections that are told in the log.
const FAILURES_LOGGED_A_SECOND_MAX: u64 = 10;

/// Answers that are ready together are sent together, up to this many.
const ANSWERS_JOINED_MAX: usize = 64;

/// Nothing more is read while answers of this size wait in memory for those before them.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// Why a connection ends after an answer.
enum Ending {
    /// The client did something wrong, or we did.
    Fault(String),
    /// The answer says why.
    Told,
}

struct Connection<S> {
    cx: Arc<Context>,
    permit: ConnectionPermit,
    stream: S,
    session: Arc<Session>,
    settings: Settings,
    reader: FrameReader,
    /// The request that was read and may not begin yet.
    held: Option<Arrived>,
    gate: Gate,
    in_flight: FuturesOrdered<std::pin::Pin<Box<dyn Future<Output = Ready> + Send>>>,
    registered: Registered,
    /// Bytes of answers in memory that are ready and not sent.
    unsent: Arc<AtomicUsize>,
    /// Until when nothing is read, because the client was throttled (KIP-219).
    muted_until: Option<Instant>,
    /// Whether the client was seen to be authenticated: larger frames are taken.
    is_known: bool,
    /// A message of a mechanism that came without a request is being answered.
    has_token: bool,
    /// What it called itself last, copied: what came with a frame would keep all of it for as long as a request waits.
    client_id: Option<StrBytes>,
}

/// A connection that was accepted.
pub(super) struct Accepted<S> {
    pub(super) listener: Arc<ListenerInfo>,
    pub(super) stream: S,
    pub(super) peer: SocketAddr,
    pub(super) permit: ConnectionPermit,
}

/// Serves a connection until it ends. What it needs for that is moved into the future once: an async function would keep
/// its arguments a second time.
pub(super) fn run<S: Socket>(
    cx: &Arc<Context>,
    accepted: Accepted<S>,
    settings: Settings,
    shutdown: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + use<S> {
    let mut connection = Connection::new(cx.clone(), accepted, settings);
    async move {
        if !connection.establish(shutdown.clone()).await {
            return;
        }
        let ended = with_inline_writes(pin!(connection.serve(shutdown))).await;
        if let Some(why) = ended {
            let metrics = &connection.cx.metrics;
            metrics.frames_malformed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(peer = %connection.session.peer(), why, "closing the connection");
            connection.record_end(&why);
        }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.cx.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Socket> Connection<S> {
    fn new(cx: Arc<Context>, accepted: Accepted<S>, settings: Settings) -> Self {
        let Accepted {
            listener,
            stream,
            peer,
            permit,
        } = accepted;
        let local = stream.local_addr().unwrap_or(peer);
        cx.metrics.connections.fetch_add(1, Ordering::Relaxed);
        cx.metrics
            .connections_accepted
            .fetch_add(1, Ordering::Relaxed);
        let registered = cx.observe.clients.connected(peer, local);
        let memory = cx.memory.clone();
        let session = Arc::new(Session::new(listener, registered.client().clone()));
        let frame_bytes_max = match session.is_authenticated() {
            true => settings.frame_bytes_max,
            false => settings.unknown_frame_bytes_max,
        };
        Self {
            session,
            reader: FrameReader::new(frame_bytes_max, settings.stall_max, memory),
            cx,
            permit,
            stream,
            settings,
            held: None,
            gate: Gate::default(),
            in_flight: FuturesOrdered::new(),
            registered,
            unsent: Arc::default(),
            muted_until: None,
            is_known: false,
            has_token: false,
            client_id: None,
        }
    }

    /// Makes it ready to be read and written; whether it is, in time and before the shutdown.
    async fn establish(&mut self, shutdown: watch::Receiver<bool>) -> bool {
        let _ = self.stream.set_nodelay();
        let in_time = self.settings.authentication_max;
        let established = tokio::time::timeout(in_time, self.stream.establish());
        let established = tokio::select! {
            biased;
            established = established => established,
            () = stopped(shutdown) => return false,
        };
        let error = match established {
            Ok(Ok(())) => {
                let certificate = self.stream.peer_certificate();
                let is_named = |certificate| self.session.set_certificate(certificate);
                match certificate.is_none_or(|certificate| is_named(certificate)) {
                    true => return true,
                    false => io::Error::other(
                        "the certificate names no user (ssl.principal.mapping.rules)",
                    ),
                }
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        let why = match is_no_tls(&error) {
            true => NO_TLS.to_owned(),
            false => error.to_string(),
        };
        static TOLD: PerSecond = PerSecond::new(FAILURES_LOGGED_A_SECOND_MAX);
        if let Some(untold) = TOLD.take() {
            let listener = &self.session.listener().name;
            tracing::info!(peer = %self.session.peer(), listener, why, untold, "the connection was not established");
        }
        let metrics = &self.cx.metrics;
        metrics.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        self.record_end(&format!("the connection was not established: {why}"));
        false
    }

    /// Returns why the connection had to be closed, when it was the client's fault or ours.
    async fn serve(&mut self, shutdown: watch::Receiver<bool>) -> Option<String> {
        let never = Duration::from_secs(u64::from(u32::MAX));
        let idle_max = self.settings.idle_max.unwrap_or(never);
        let mut stop = pin!(stopped(shutdown.clone()));
        // The end of being muted, or of being idle; set anew when it is over, not at every request.
        let first_max = match self.session.is_authenticated() {
            true => idle_max,
            false => self.settings.authentication_max.min(idle_max),
        };
        let known_by = Instant::now() + first_max;
        let mut timer = pin!(tokio::time::sleep(first_max));
        let mut busy_at = Instant::now();
        loop {
            let is_muted = self.muted_until.is_some();
            if !self.is_known && self.session.is_authenticated() {
                self.is_known = true;
                self.permit.set_known();
                self.reader.set_bytes_max(self.settings.frame_bytes_max);
            }
            // However much it asks meanwhile.
            if !self.is_known && Instant::now() >= known_by {
                return Some(NOT_KNOWN_IN_TIME.to_owned());
            }
            let is_idle = self.in_flight.is_empty();
            // What comes after a message of a mechanism waits until that is answered.
            self.has_token &= !is_idle;
            let may_read = !is_muted
                && !self.has_token
                && self.held.is_none()
                && self.in_flight.len() < self.settings.in_flight_max
                && self.unsent.load(Ordering::Relaxed) < UNSENT_BYTES_MAX;
            tokio::select! {
                biased;
                Some(ready) = self.in_flight.next(), if !is_idle => {
                    // Before the client hears of it, and comes with its next connection.
                    if !self.is_known && self.session.is_authenticated() {
                        self.permit.set_known();
                    }
                    let drained = drained(shutdown.clone(), self.settings.drain);
                    // However slowly it reads.
                    let is_known = self.is_known;
                    let too_late = async move {
                        match is_known {
                            true => std::future::pending().await,
                            false => tokio::time::sleep_until(known_by).await,
                        }
                    };
                    tokio::select! {
                        biased;
                        sent = self.send(ready, idle_max) => match sent {
                            Ok(()) => busy_at = Instant::now(),
                            Err(why) => return why,
                        },
                        () = drained => return None,
                        () = too_late => return Some(NOT_KNOWN_IN_TIME.to_owned()),
                    }
                    if let Some(until) = self.muted_until {
                        timer.as_mut().reset(until);
                    }
                }
                // What is in flight was polled just now.
                () = admitted(&self.session, &self.gate, &self.held), if self.held.is_some() && !is_muted => self.begin_held(),
                () = &mut stop => return Box::pin(self.drain(idle_max)).await,
                read = self.reader.next(&mut self.stream), if may_read => match read {
                    Ok(Some(frame)) => {
                        if let Err(why) = self.arrived(frame) {
                            return why;
                        }
                    }
                    Ok(None) => return Box::pin(self.drain(idle_max)).await,
                    Err(ReadFault::Io(_) | ReadFault::Cut) => return None,
                    Err(fault) => return Some(fault.to_string()),
                },
                () = &mut timer, if is_idle || is_muted || !self.is_known => {
                    if !self.is_known {
                        continue;
                    }
                    if self.muted_until.take().is_some() {
                        busy_at = Instant::now();
                    }
                    let end = busy_at + idle_max;
                    if end <= Instant::now() {
                        tracing::debug!(peer = %self.session.peer(), "closing an idle connection");
                        return None;
                    }
                    timer.as_mut().reset(end);
                }
            }
        }
    }

    /// Records why it had to be closed.
    fn record_end(&self, why: &str) {
        self.registered.rejected(why);
        let closed = Happened::new(EventKind::ConnectionRejected, "connection");
        let closed = closed.who(self.session.client().label()).why(why);
        self.cx.observe.events.tell(closed);
    }

    /// Takes a frame that was read.
    fn arrived(&mut self, frame: Frame) -> Result<(), Option<String>> {
        let (at, request_bytes) = (Instant::now(), frame.bytes.len());
        let share = frame.share;
        if api::expects_token(&self.session) {
            self.take_token(frame.bytes, share);
            return Ok(());
        }
        let frame = match frame::parse_request(frame.bytes) {
            Ok(request) => request.with(frame.checked),
            Err(FrameError::UnsupportedVersion {
                key,
                correlation_id,
                ..
            }) if key == ApiKey::ApiVersions as i16 => {
                let answer = api::unsupported_version(correlation_id)
                    .map_err(|error| Some(error.to_string()))?;
                self.answer_now(Body::from(answer).into(), share);
                return Ok(());
            }
            Err(error) => return Err(Some(error.to_string())),
        };
        self.held = Some(Arrived {
            frame,
            share,
            at,
            bytes: request_bytes,
        });
        if is_admitted(&self.session, &self.gate, &self.held) {
            self.begin_held();
        }
        Ok(())
    }

    /// Answers a message of a mechanism that came without a request.
    fn take_token(&mut self, token: Bytes, mut share: Share) {
        let (cx, session) = (self.cx.clone(), self.session.clone());
        let unsent = self.unsent.clone();
        self.has_token = true;
        self.in_flight.push_back(Box::pin(async move {
            let body = api::take_token(&cx, &session, token).await;
            let outcome = Outcome::Answered(body.into());
            let memory_bytes = outcome.memory_bytes();
            share.become_answer(memory_bytes);
            unsent.fetch_add(memory_bytes, Ordering::Relaxed);
            Ready { outcome, share }
        }));
    }

    /// Answers what needs no work, after what came before it.
    fn answer_now(&mut self, response: Response, mut share: Share) {
        let outcome = Outcome::Answered(response);
        let bytes = outcome.memory_bytes();
        self.unsent.fetch_add(bytes, Ordering::Relaxed);
        share.become_answer(bytes);
        let ready = std::future::ready(Ready { outcome, share });
        self.in_flight.push_back(Box::pin(ready));
    }

    /// Begins to work on what was read.
    fn begin_held(&mut self) {
        let Some(Arrived {
            mut frame,
            mut share,
            at: arrived,
            bytes: request_bytes,
        }) = self.held.take()
        else {
            return;
        };
        let key = frame.api_key;
        if let Some(why) = api::refusal(&self.cx, &self.session, key) {
            return self.answer_now(Body::Close(why).into(), share);
        }
        let session = self.session.clone();
        let client = session.client();
        client.asked(key, frame.version, request_bytes);
        if frame.client_id.as_deref() != self.client_id.as_deref() {
            let name = frame.client_id.as_deref();
            client.named(name.unwrap_or_default());
            self.client_id = name.map(|name| StrBytes::from_string(name.to_owned()));
        }
        frame.client_id.clone_from(&self.client_id);
        let stage = match is_of_peer(&self.session, &frame) {
            true => Stage::free(),
            false => self.gate.begin(key),
        };
        let mut caller = Caller::of(self.session.clone(), &frame);
        let cx = self.cx.clone();
        let is_timed = cx.quotas.has(QuotaKind::Request)
            && self.session.is_authenticated()
            && !is_of_peer(&self.session, &frame);
        let time = is_timed.then(Arc::<ThreadTime>::default);
        caller.thread_time.clone_from(&time);
        let unsent = self.unsent.clone();
        let logged = (cx.request_log.is_armed() && cx.request_log.wants(&frame))
            .then(|| Box::new(caller.clone()));
        let work = api::start(&self.cx, caller, frame, stage);
        let work = match time {
            Some(time) => Box::pin(time.of(work)),
            None => work,
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        let answering = async move {
            let outcome = match work.await {
                Ok(Ok(response)) => Outcome::Answered(response),
                Ok(Err(error)) => Outcome::Failed(error),
                Err(_) => Outcome::Panicked,
            };
            let memory_bytes = outcome.memory_bytes();
            share.become_answer(memory_bytes);
            unsent.fetch_add(memory_bytes, Ordering::Relaxed);
            let response_bytes = outcome.response_bytes();
            session.client().answered(response_bytes);
            if let Some(logged) = logged {
                outcome.log(&logged, request_bytes, arrived.elapsed());
            }
            cx.metrics
                .answered(key, request_bytes, response_bytes, arrived.elapsed());
            Ready { outcome, share }
        };
        self.in_flight.push_back(api::detached(key, answering));
    }

    /// Sends an answer, and with it those after it that are ready.
    async fn send(&mut self, first: Ready, stall_max: Duration) -> Result<(), Option<String>> {
        let (mut pieces, mut shares) = (Vec::new(), vec![first.share]);
        let mut ending = self.collect(first.outcome, &mut pieces);
        let mut joined = 1;
        while ending.is_none() && joined < ANSWERS_JOINED_MAX {
            let Some(Some(next)) = self.in_flight.next().now_or_never() else {
                break;
            };
            shares.push(next.share);
            ending = self.collect(next.outcome, &mut pieces);
            joined += 1;
        }
        let reserved = shares.iter().map(Share::bytes).sum::<usize>();
        let patience = Patience {
            stall_max,
            memory: &self.cx.memory,
            reserved: reserved + self.unsent.load(Ordering::Relaxed),
        };
        let is_timed = self.cx.quotas.has(QuotaKind::Request) && self.session.is_authenticated();
        let sent = match is_timed {
            true => {
                let time = Arc::<ThreadTime>::default();
                // Whoever has no quota keeps no room for this.
                let sending = send_all(&mut self.stream, pieces, &patience);
                let sent = Box::pin(time.clone().of(sending)).await;
                let who = Who {
                    user: self.session.principal().name(),
                    client_id: self.client_id.as_deref().unwrap_or_default(),
                };
                api::charge_sending(&self.cx, who, time.spent());
                sent
            }
            false => send_all(&mut self.stream, pieces, &patience).await,
        };
        match sent {
            Ok(()) => match ending {
                None => Ok(()),
                Some(Ending::Told) => Err(None),
                Some(Ending::Fault(why)) => Err(Some(why)),
            },
            Err(SendError::Peer(_)) => Err(None),
            Err(error @ SendError::MemoryWanted) => Err(Some(error.to_string())),
            Err(error @ SendError::File(_)) => {
                tracing::error!(peer = %self.session.peer(), %error, "closing the connection");
                self.record_end(&error.to_string());
                Err(None)
            }
        }
    }

    /// Adds an answer's pieces; returns why the connection must end after them.
    fn collect(&mut self, outcome: Outcome, pieces: &mut Vec<Piece>) -> Option<Ending> {
        self.unsent
            .fetch_sub(outcome.memory_bytes(), Ordering::Relaxed);
        match outcome {
            Outcome::Answered(Response { body, throttle }) => {
                if !throttle.is_zero() {
                    self.mute(throttle);
                }
                match body {
                    Body::Send(answer) => {
                        pieces.extend(answer);
                        None
                    }
                    Body::Last(answer) => {
                        pieces.push(answer);
                        Some(Ending::Told)
                    }
                    Body::Silence => None,
                    Body::Close(why) => Some(Ending::Fault(why)),
                }
            }
            Outcome::Failed(error) => Some(Ending::Fault(error.to_string())),
            Outcome::Panicked => {
                self.cx
                    .metrics
                    .handler_panics
                    .fetch_add(1, Ordering::Relaxed);
                let why = "a handler panicked; this is a bug".to_owned();
                Some(Ending::Fault(why))
            }
        }
    }

    /// Reads nothing more for a time, as the answer that now leaves says.
    fn mute(&mut self, throttle: Duration) {
        let until = Instant::now() + throttle;
        self.muted_until = self.muted_until.max(Some(until));
        let client = self.session.client();
        client.throttled(throttle.as_millis() as u64);
        let throttled = Happened::new(EventKind::Throttle, "connection");
        let throttled = throttled
            .who(client.label())
            .took_ms(throttle.as_millis() as i64);
        self.cx.observe.events.tell(throttled);
    }

    /// Answers what is in flight and reads no more.
    async fn drain(&mut self, stall_max: Duration) -> Option<String> {
        let drain = self.settings.drain;
        let answers = async {
            loop {
                while let Some(ready) = self.in_flight.next().await {
                    self.send(ready, stall_max).await?;
                }
                match self.held.is_some() {
                    true => self.begin_held(),
                    false => return Ok(()),
                }
            }
        };
        match tokio::time::timeout(drain, answers).await {
            Ok(Err(why)) => why,
            Ok(Ok(())) | Err(_) => None,
        }
    }
}

/// Whether a handshake of TLS failed because what came was none.
fn is_no_tls(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let unknown = rustls::InvalidMessage::InvalidContentType;
    inner == Some(&rustls::Error::InvalidMessage(unknown))
}

/// Waits for the end of the time that answers may take in a shutdown.
async fn drained(shutdown: watch::Receiver<bool>, drain: Duration) {
    stopped(shutdown).await;
    tokio::time::sleep(drain).await;
}

#[cfg(test)]
mod tests;
