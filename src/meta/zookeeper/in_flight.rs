//! Sends changes. While a few multis are in flight, what comes in waits, and then goes together in the next one.
//!
//! A multi never leaves while another one that touches the same part of the tree (the first two elements of a path,
//! so a group or a topic's kind) is in flight. So a multi can be sent again without undoing a later one.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use zookeeper_client::{Client, Error, MultiWriteError};

use super::plan::{Known, Native, Step, plan};
use super::{REQUESTS_MAX, Shared, is_connection_error, unavailable};
use crate::meta::{MULTI_BYTES_MAX, MULTI_OPS_MAX, MetaError, Op, SessionState, paths};

/// Multis in flight at most.
const IN_FLIGHT_MAX: usize = 4;
/// Steps and bytes of one multi; the server refuses more than 1 MiB by default.
const STEPS_MAX: usize = 1000;
const BYTES_MAX: usize = 512 << 10;
// The root's name and the access list are part of each step too.
const _: () = assert!(MULTI_OPS_MAX < STEPS_MAX && MULTI_BYTES_MAX * 2 <= BYTES_MAX);
/// Operations that are gathered from several requests.
const GATHERED_OPS_MAX: usize = 256;
const GATHERED_BYTES_MAX: usize = 256 << 10;
/// Requests that are looked at for the next multi.
const SCANNED_MAX: usize = 4096;
/// What ZooKeeper takes a check of existence alone as.
const ANY_VERSION: i32 = -1;
/// How often one multi may find that the tree is not as it seemed.
const GUESSES_MAX: usize = 10;

type Reply = oneshot::Sender<Result<(), MetaError>>;

/// A change that somebody waits for.
pub(super) struct Request {
    ops: Vec<Op>,
    keys: Vec<String>,
    reply: Reply,
}

impl Request {
    pub(super) fn new(ops: Vec<Op>, reply: Reply) -> Self {
        let changes = ops.iter().filter(|op| !matches!(op, Op::Check { .. }));
        let keys: HashSet<&str> = changes.map(|op| key_of(op.path())).collect();
        let keys = keys.into_iter().map(str::to_owned).collect();
        Self { ops, keys, reply }
    }

    pub(super) fn answer(self, result: Result<(), MetaError>) {
        let _ = self.reply.send(result);
    }

    /// Whether sending it twice is as good as once.
    fn is_repeatable(&self) -> bool {
        let once = |op: &Op| matches!(op, Op::Create { .. } | Op::Set { .. } | Op::Delete { .. });
        !self.ops.iter().any(once)
    }

    fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }
}

/// The part of the tree that a path is in.
fn key_of(path: &str) -> &str {
    let second = path
        .match_indices('/')
        .nth(2)
        .map_or(path.len(), |(at, _)| at);
    &path[..second]
}

/// What the multis of one session share.
struct FlightContext {
    shared: Arc<Shared>,
    client: Client,
    number: u64,
    known: Known,
    marks: AtomicU64,
    /// Whether the session's marker is there.
    has_marker: AtomicBool,
}

type InFlightMulti = Pin<Box<dyn Future<Output = (Vec<String>, bool)> + Send>>;

/// Changes that wait, and those in flight.
pub(super) struct InFlightMultis {
    context: Arc<FlightContext>,
    waiting: VecDeque<Request>,
    in_flight: FuturesUnordered<InFlightMulti>,
    busy: HashSet<String>,
    /// At most one multi in flight has a marker, so that the marker stands for that multi.
    marked: bool,
}

impl InFlightMultis {
    pub(super) fn new(shared: Arc<Shared>, client: Client, number: u64) -> Self {
        Self {
            context: Arc::new(FlightContext {
                shared,
                client,
                number,
                known: Known::default(),
                marks: AtomicU64::new(0),
                has_marker: AtomicBool::new(false),
            }),
            waiting: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            busy: HashSet::new(),
            marked: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Takes a request, and with it all that came in meanwhile.
    pub(super) fn enqueue(
        &mut self,
        request: Request,
        more: &mut mpsc::UnboundedReceiver<Request>,
    ) {
        let mut next = Some(request);
        while let Some(request) = next {
            if self.waiting.len() < REQUESTS_MAX {
                self.waiting.push_back(request);
            } else {
                request.answer(Err(unavailable("too many changes wait for ZooKeeper")));
            }
            next = more.try_recv().ok();
        }
    }

    /// Sends what can be sent.
    pub(super) fn send_waiting(&mut self) {
        let state = self.context.shared.session.borrow().state;
        while self.in_flight.len() < IN_FLIGHT_MAX && state == SessionState::Connected {
            let requests = self.gather();
            let Some(first) = requests.first() else {
                return;
            };
            let marked = !first.is_repeatable();
            self.marked |= marked;
            let keys: Vec<String> = requests
                .iter()
                .flat_map(|request| request.keys.iter().cloned())
                .collect();
            self.busy.extend(keys.iter().cloned());
            let context = self.context.clone();
            self.in_flight.push(Box::pin(async move {
                context.send(requests, marked).await;
                (keys, marked)
            }));
        }
    }

    /// The requests for the next multi: the first that may leave, and others that may leave with it.
    fn gather(&mut self) -> Vec<Request> {
        let mut held: HashSet<String> = HashSet::new();
        let mut taken: Vec<Request> = Vec::new();
        let (mut ops, mut bytes, mut at) = (0, 0, 0);
        while at < self.waiting.len().min(SCANNED_MAX) {
            let request = &self.waiting[at];
            let is_held = |key: &String| self.busy.contains(key) || held.contains(key);
            let alone = !request.is_repeatable();
            let fits = taken.is_empty()
                || (!alone
                    && ops + request.ops.len() <= GATHERED_OPS_MAX
                    && bytes + request.bytes() <= GATHERED_BYTES_MAX);
            if request.keys.iter().any(is_held) || !fits || (alone && self.marked) {
                held.extend(request.keys.iter().cloned());
                at += 1;
                continue;
            }
            (ops, bytes) = (ops + request.ops.len(), bytes + request.bytes());
            taken.extend(self.waiting.remove(at));
            if alone || ops >= GATHERED_OPS_MAX {
                break;
            }
        }
        taken
    }

    /// Waits for one multi to be answered.
    pub(super) async fn finish_one(&mut self) {
        if self.in_flight.is_empty() {
            return std::future::pending().await;
        }
        if let Some((keys, marked)) = self.in_flight.next().await {
            for key in &keys {
                self.busy.remove(key);
            }
            if marked {
                self.marked = false;
            }
        }
    }

    /// Gives up everything: what waits is refused, the store being unavailable.
    pub(super) fn lose(&mut self) {
        for request in self.waiting.drain(..) {
            request.answer(Err(unavailable("the ZooKeeper session is lost")));
        }
        self.in_flight.clear();
        self.busy.clear();
        self.marked = false;
    }
}

/// Why a multi was not made.
enum Fault {
    /// The step at this index does not fit the tree.
    Step(usize, Error),
    /// Not even part of it; trying again may help.
    Session(MetaError),
    /// More than one write can hold, and it can be made one after the other.
    ToDivide,
    /// More than one write can hold.
    TooLarge,
}

impl FlightContext {
    /// Carries requests out and answers them.
    async fn send(&self, mut requests: Vec<Request>, marked: bool) {
        let mut guesses = 0;
        while !requests.is_empty() {
            let (fault, steps) = match self.attempt(&requests, marked).await {
                Ok(()) => {
                    requests
                        .into_iter()
                        .for_each(|request| request.answer(Ok(())));
                    return;
                }
                Err(failed) => failed,
            };
            match fault {
                Fault::Step(at, error) if steps[at].guessed => {
                    guesses += 1;
                    self.known.forget_all();
                    if guesses > GUESSES_MAX {
                        let why = format!("{} keeps changing: {error}", steps[at].native.path());
                        return answer_all(requests, &unavailable(&why));
                    }
                }
                Fault::Step(at, error) => {
                    let step = &steps[at];
                    let refusal = refusal(&step.native, &error);
                    let (blamed, rest) = requests
                        .into_iter()
                        .enumerate()
                        .partition::<Vec<_>, _>(|(n, _)| step.owners.contains(n));
                    for (_, request) in blamed {
                        request.answer(Err(refusal.clone()));
                    }
                    requests = rest.into_iter().map(|(_, request)| request).collect();
                }
                Fault::Session(error) => return answer_all(requests, &error),
                Fault::ToDivide => return self.divide(requests).await,
                Fault::TooLarge => {
                    let why = format!("a change of more than {BYTES_MAX} bytes cannot be stored");
                    return answer_all(requests, &MetaError::TooLarge(why));
                }
            }
        }
    }

    /// Carries out one after the other what is too large for one write together: request by request, and of one the first half of
    /// its changes before the second. The steps of a write are in another order than what was asked, and whoever asks for much
    /// relies on the order where it is cut off in the middle.
    async fn divide(&self, mut requests: Vec<Request>) {
        if requests.len() > 1 {
            for request in requests {
                self.send_in_full(vec![request]).await;
            }
            return;
        }
        let Some(Request { ops, reply, .. }) = requests.pop() else {
            return;
        };
        let is_check = |op: &Op| matches!(op, Op::Check { .. });
        let (checks, mut first): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(is_check);
        let second = first.split_off(first.len() / 2);
        for half in [first, second] {
            let ops = checks.iter().cloned().chain(half).collect();
            let (sender, answer) = oneshot::channel();
            self.send_in_full(vec![Request::new(ops, sender)]).await;
            let lost = || Err(unavailable("the ZooKeeper session is lost"));
            if let Err(error) = answer.await.unwrap_or_else(|_| lost()) {
                let _ = reply.send(Err(error));
                return;
            }
        }
        let _ = reply.send(Ok(()));
    }

    fn send_in_full(
        &self,
        requests: Vec<Request>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.send(requests, false))
    }

    async fn attempt(&self, requests: &[Request], marked: bool) -> Result<(), (Fault, Vec<Step>)> {
        let steps = loop {
            let ops: Vec<&[Op]> = requests.iter().map(|request| &request.ops[..]).collect();
            match plan(&self.client, &self.known, &ops).await {
                Ok(steps) => break steps,
                Err(error) => match self.recover(&error).await {
                    Ok(()) => {}
                    Err(error) => return Err((Fault::Session(error), Vec::new())),
                },
            }
        };
        let parts = match cut(&steps, marked) {
            Some(parts) if parts.len() > 1 && are_divisible(requests) => {
                return Err((Fault::ToDivide, steps));
            }
            Some(parts) => parts,
            None => return Err((Fault::TooLarge, steps)),
        };
        for part in parts {
            if let Err(fault) = self.commit(&part, marked).await {
                let fault = match fault {
                    // The index within all steps.
                    Fault::Step(at, error) => Fault::Step(
                        steps
                            .iter()
                            .position(|step| std::ptr::eq(step, part[at]))
                            .unwrap_or(0),
                        error,
                    ),
                    fault => fault,
                };
                return Err((fault, steps));
            }
        }
        for step in &steps {
            if let Native::Create(path, _, false) | Native::Set(path, ..) = &step.native
                && step.guessed
            {
                self.known.learn(path);
            }
        }
        Ok(())
    }

    /// One multi, sent again until it is known what became of it.
    async fn commit(&self, steps: &[&Step], marked: bool) -> Result<(), Fault> {
        let mark = self.marks.fetch_add(1, Ordering::Relaxed) + 1;
        let marker = paths::session_marker(self.client.session_id().0);
        if marked && !self.has_marker.load(Ordering::Relaxed) {
            self.make_marker(&marker).await.map_err(Fault::Session)?;
        }
        loop {
            let mut writer = self.client.new_multi_writer();
            let added = steps.iter().try_for_each(|step| match &step.native {
                Native::Check(path, version) => {
                    writer.add_check_version(path, version.unwrap_or(ANY_VERSION))
                }
                Native::Create(path, data, ephemeral) => {
                    writer.add_create(path, data, &self.shared.create_options(*ephemeral))
                }
                Native::Set(path, data, version) => writer.add_set_data(path, data, *version),
                Native::Delete(path, version) => writer.add_delete(path, *version),
            });
            if let Err(error) = added {
                return Err(Fault::Session(unavailable(&error.to_string())));
            }
            if marked {
                let _ = writer.add_set_data(&marker, mark.to_string().as_bytes(), None);
            }
            let error = match writer.commit().await {
                Ok(_) => return Ok(()),
                Err(MultiWriteError::OperationFailed { index, source }) if index < steps.len() => {
                    return Err(Fault::Step(index, source));
                }
                Err(error) => Error::from(error),
            };
            self.recover(&error).await.map_err(Fault::Session)?;
            if marked
                && self
                    .marked_with(&marker, mark)
                    .await
                    .map_err(Fault::Session)?
            {
                return Ok(());
            }
        }
    }

    /// Waits until there is a connection again, when that is what the error was about.
    async fn recover(&self, error: &Error) -> Result<(), MetaError> {
        if !is_connection_error(error) {
            return Err(unavailable(&error.to_string()));
        }
        // The state may be reported after the error.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        self.shared.connected(Some(self.number)).await.map(|_| ())
    }

    /// Makes the session's marker, which goes with it.
    async fn make_marker(&self, marker: &str) -> Result<(), MetaError> {
        for (path, ephemeral) in [(paths::SESSIONS, false), (marker, true)] {
            loop {
                let options = self.shared.create_options(ephemeral);
                match self.client.create(path, b"", &options).await {
                    Ok(_) | Err(Error::NodeExists) => break,
                    Err(error) => self.recover(&error).await?,
                }
            }
        }
        self.has_marker.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the marker says that a multi was made.
    async fn marked_with(&self, marker: &str, mark: u64) -> Result<bool, MetaError> {
        loop {
            // The server that is there now may lag the one that made the change.
            let synced = self.client.sync("/").await;
            let read = match synced {
                Ok(()) => self.client.get_data(marker).await,
                Err(error) => Err(error),
            };
            match read {
                Ok((data, _)) => return Ok(data == mark.to_string().as_bytes()),
                Err(error) => self.recover(&error).await?,
            }
        }
    }
}

/// Whether requests can be carried out in smaller ones: several, or one of several changes.
fn are_divisible(requests: &[Request]) -> bool {
    let is_change = |op: &&Op| !matches!(op, Op::Check { .. });
    let changes = requests.iter().flat_map(|request| &request.ops);
    changes.filter(is_change).count() > 1
}

/// Cuts steps into parts that fit into one write each; `None` where that is not possible.
fn cut(steps: &[Step], marked: bool) -> Option<Vec<Vec<&Step>>> {
    let (checks, changes): (Vec<&Step>, Vec<&Step>) = steps
        .iter()
        .partition(|step| matches!(step.native, Native::Check(..)));
    let bytes_of = |steps: &[&Step]| steps.iter().map(|step| step.native.bytes()).sum::<usize>();
    let overhead = bytes_of(&checks);
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (checks.clone(), overhead);
    for step in changes {
        let own = step.native.bytes();
        if overhead + own > BYTES_MAX {
            return None;
        }
        if bytes + own > BYTES_MAX || part.len() >= STEPS_MAX {
            parts.push(std::mem::replace(&mut part, checks.clone()));
            bytes = overhead;
        }
        bytes += own;
        part.push(step);
    }
    parts.push(part);
    (parts.len() == 1 || !marked).then_some(parts)
}

fn answer_all(requests: Vec<Request>, error: &MetaError) {
    for request in requests {
        request.answer(Err(error.clone()));
    }
}

fn refusal(native: &Native, error: &Error) -> MetaError {
    let path = native.path().to_owned();
    match error {
        Error::NoNode => match native {
            Native::Create(..) => MetaError::NoNode(parent_of(&path)),
            _ => MetaError::NoNode(path),
        },
        Error::NodeExists => MetaError::NodeExists(path),
        Error::BadVersion => MetaError::BadVersion(path),
        Error::NotEmpty => MetaError::NotEmpty(path),
        error => unavailable(&format!("{path}: {error}")),
    }
}

fn parent_of(path: &str) -> String {
    path.rsplit_once('/')
        .map_or(String::new(), |(parent, _)| parent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_group_is_one_part_of_the_tree() {
        assert_eq!(key_of("/consumers/g/offsets/t/0-0"), "/consumers/g");
        assert_eq!(key_of("/consumers/g"), "/consumers/g");
        assert_eq!(key_of("/controller"), "/controller");
    }

    #[test]
    fn what_is_too_large_is_cut_with_all_checks_in_every_part() {
        let step = |native| Step {
            native,
            owners: vec![0],
            guessed: true,
        };
        let mut steps = vec![step(Native::Check("/c".into(), Some(1)))];
        let data = Bytes::from(vec![b'x'; 200 << 10]);
        for n in 0..4 {
            steps.push(step(Native::Set(format!("/{n}"), data.clone(), None)));
        }
        let parts = cut(&steps, false).unwrap();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        assert!(cut(&steps, true).is_none());
    }
}
