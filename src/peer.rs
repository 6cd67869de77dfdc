//! The connections to other brokers: a few to each ([`Lane`]), kept open. Requests go out as they come, and their answers are matched by
//! correlation id.
//!
//! A peer answers the requests of one connection in their order, as Kafka's brokers do, so one that waits holds up those
//! after it. Nothing is sent twice: what a broken connection leaves without an answer fails, and who asked decides. Where a peer
//! wants brokers to authenticate again within some time (KIP-368), another connection takes the place of the one before in time.

mod answers;
mod correlation;
mod secured;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use answers::AnswerReader;
use correlation::{BEFORE_ID, correlation_id, with_correlation_id};
use stream::connect_tcp;

pub use secured::{PeerSecurity, secured};
pub use stream::{Connect, Connecting, PeerStream};

/// Requests to one peer that wait to be sent or answered.
const REQUESTS_MAX: usize = 1024;
/// Bytes of those that wait to be sent, KiB; the largest request alone may have as many.
const QUEUE_KIB_MAX: usize = 256 << 10;
/// Largest answer that is taken, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be made, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Of a connection's lifetime so much is used: what is sent then arrives before its end.
const LIFETIME_USED: f64 = 0.8;
/// How often a connection that takes no more requests is looked at, whether all answers have come.
const FINISH_PAUSE: Duration = Duration::from_millis(50);
/// Length; an answer's correlation id stands after it.
const LENGTH_BYTES: usize = 4;

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// One of the connections to a peer. Answers come in order, so what may wait for other requests has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// What clients asked for.
    Forwards,
    /// Markers that end transactions.
    Markers,
    /// Partitions of transactions, which may wait for markers: one of [`Lane::ADDS`], by transactional id.
    Adds(usize),
    /// What a follower fetches from its leader: by one of the connections that copy.
    Fetches(usize),
    /// Who is in sync.
    InSync,
    /// What share groups have done with records.
    Shares,
}

impl Lane {
    /// How many there are for partitions of transactions.
    pub const ADDS: usize = 4;
}

/// The peers of this broker. Dropped, it ends the connections.
pub struct Peers {
    connect: Connect,
    known: Mutex<BTreeMap<(i32, Lane), Peer>>,
}

impl Default for Peers {
    /// Over TCP.
    fn default() -> Self {
        Self::over(Arc::new(|address| Box::pin(connect_tcp(address.clone()))))
    }
}

/// One peer, as those see it who ask.
#[derive(Clone)]
struct Peer {
    address: PeerAddress,
    requests: mpsc::Sender<Asked>,
    room: Arc<Semaphore>,
    queue_room: Arc<Semaphore>,
    /// Told when an answer did not come in time.
    missed: Arc<Notify>,
}

/// A request that waits to be sent.
struct Asked {
    frame: Bytes,
    deadline: Instant,
    answer: Answer,
    _queued: OwnedSemaphorePermit,
}

/// Who waits for an answer.
struct Answer {
    /// The request's correlation id.
    id: i32,
    reply: oneshot::Sender<io::Result<Bytes>>,
    _room: OwnedSemaphorePermit,
}

impl Peers {
    /// Over connections that are made so.
    pub fn over(connect: Connect) -> Self {
        Self {
            connect,
            known: Mutex::default(),
        }
    }

    /// Sends a request, length and all, and returns the answer, length and all; its correlation id is the request's. Fails
    /// when there is no answer by `wait`.
    pub async fn ask(
        &self,
        id: i32,
        address: &PeerAddress,
        frame: Bytes,
        wait: Duration,
    ) -> io::Result<Bytes> {
        self.ask_on(Lane::Forwards, (id, address), frame, wait)
            .await
    }

    /// The same, on another connection.
    pub async fn ask_on(
        &self,
        lane: Lane,
        (id, address): (i32, &PeerAddress),
        frame: Bytes,
        wait: Duration,
    ) -> io::Result<Bytes> {
        let correlation_id = correlation_id(&frame, BEFORE_ID)?;
        let peer = self.peer((id, lane), address);
        let deadline = Instant::now() + wait;
        let (reply, answered) = oneshot::channel();
        let asked = Asked {
            _queued: take(&peer.queue_room, frame.len().div_ceil(1 << 10))?,
            frame,
            deadline,
            answer: Answer {
                id: correlation_id,
                reply,
                _room: take(&peer.room, 1)?,
            },
        };
        peer.requests.try_send(asked).map_err(|_| busy())?;
        let Ok(answer) = tokio::time::timeout_at(deadline, answered).await else {
            peer.missed.notify_one();
            return Err(io::ErrorKind::TimedOut.into());
        };
        answer.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?
    }

    /// The peer of that number, at its present address.
    fn peer(&self, id: (i32, Lane), address: &PeerAddress) -> Peer {
        let mut known = self.known.lock();
        match known.get(&id) {
            Some(peer) if peer.address == *address => peer.clone(),
            _ => {
                let peer = Peer::start(address.clone(), self.connect.clone());
                known.insert(id, peer.clone());
                peer
            }
        }
    }
}

impl Peer {
    fn start(address: PeerAddress, connect: Connect) -> Self {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let missed = Arc::new(Notify::new());
        tokio::spawn(keep(address.clone(), connect, receiver, missed.clone()));
        Self {
            address,
            requests,
            room: Arc::new(Semaphore::new(REQUESTS_MAX)),
            queue_room: Arc::new(Semaphore::new(QUEUE_KIB_MAX)),
            missed,
        }
    }
}

fn take(room: &Arc<Semaphore>, permits: usize) -> io::Result<OwnedSemaphorePermit> {
    let permits = permits.clamp(1, QUEUE_KIB_MAX) as u32;
    room.clone()
        .try_acquire_many_owned(permits)
        .map_err(|_| busy())
}

fn busy() -> io::Error {
    io::Error::new(
        io::ErrorKind::WouldBlock,
        "too many requests wait for that broker",
    )
}

/// Connects when there is something to ask, for as long as somebody may ask.
async fn keep(
    address: PeerAddress,
    connect: Connect,
    mut requests: mpsc::Receiver<Asked>,
    missed: Arc<Notify>,
) {
    let mut pause = PAUSE_MIN;
    while let Some(first) = requests.recv().await {
        let connected = tokio::time::timeout(CONNECT_MAX, connect(&address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                pause = PAUSE_MIN;
                let error = Arc::new(Connection::default())
                    .serve(stream, first, &mut requests, &missed)
                    .await;
                tracing::debug!(host = address.host, port = address.port, %error, "the connection to a broker ended");
            }
            Err(error) => {
                refuse(first, &error);
                while let Ok(more) = requests.try_recv() {
                    refuse(more, &error);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn refuse(asked: Asked, error: &io::Error) {
    let _ = asked.answer.reply.send(Err(repeated(error)));
}

fn repeated(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// One connection while it lasts.
#[derive(Default)]
struct Connection {
    waiting: Mutex<HashMap<i32, Waiting>>,
    /// When bytes came last.
    heard: Mutex<Option<Instant>>,
}

/// What was sent by a connection.
enum Sent {
    /// All there is: nobody may ask any more.
    All,
    /// What came before its time was over.
    UntilOver,
}

struct Waiting {
    sent: Instant,
    deadline: Instant,
    answer: Answer,
}

impl Connection {
    /// Sends and receives until the connection ends, or takes no more requests; why it did.
    async fn serve(
        self: Arc<Self>,
        stream: PeerStream,
        first: Asked,
        requests: &mut mpsc::Receiver<Asked>,
        missed: &Notify,
    ) -> io::Error {
        let PeerStream {
            reader,
            mut writer,
            lifetime,
        } = stream;
        let over = lifetime.map(|lifetime| Instant::now() + lifetime.mul_f64(LIFETIME_USED));
        let receiver = self.clone();
        let mut receiving = Box::pin(async move { receiver.receive(reader).await });
        let ended = tokio::select! {
            Err(error) = &mut receiving => error,
            ended = self.send(&mut writer, first, requests, over) => match ended {
                Err(error) => error,
                Ok(Sent::All) => io::ErrorKind::NotConnected.into(),
                Ok(Sent::UntilOver) => {
                    let rest = async move {
                        self.finish(receiving).await;
                        drop(writer);
                    };
                    tokio::spawn(rest);
                    return io::Error::other("its time is over");
                }
            },
            () = self.silence(missed) => io::ErrorKind::TimedOut.into(),
        };
        self.fail(&ended);
        ended
    }

    /// Nobody gets an answer any more.
    fn fail(&self, why: &io::Error) {
        for (_, waiting) in self.waiting.lock().drain() {
            let _ = waiting.answer.reply.send(Err(repeated(why)));
        }
    }

    /// Takes the answers that are to come yet.
    async fn finish(&self, mut receiving: impl Future<Output = io::Result<()>> + Unpin) {
        let deadlines = |waiting: &HashMap<i32, Waiting>| {
            let deadlines = waiting.values().map(|waiting| waiting.deadline);
            deadlines.max().filter(|last| *last > Instant::now())
        };
        while deadlines(&self.waiting.lock()).is_some() {
            if let Ok(Err(error)) = tokio::time::timeout(FINISH_PAUSE, &mut receiving).await {
                return self.fail(&error);
            }
        }
        self.fail(&io::ErrorKind::TimedOut.into());
    }

    async fn send(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        first: Asked,
        requests: &mut mpsc::Receiver<Asked>,
        over: Option<Instant>,
    ) -> io::Result<Sent> {
        let mut next_id = 0;
        let mut next = Some(first);
        while let Some(asked) = next {
            if !asked.answer.reply.is_closed() {
                next_id = i32::wrapping_add(next_id, 1);
                let waiting = Waiting {
                    sent: Instant::now(),
                    deadline: asked.deadline,
                    answer: asked.answer,
                };
                self.waiting.lock().insert(next_id, waiting);
                let frame = with_correlation_id(asked.frame, next_id);
                writer.write_all(&frame).await?;
            }
            next = match over {
                None => requests.recv().await,
                Some(over) if over <= Instant::now() => return Ok(Sent::UntilOver),
                Some(over) => match tokio::time::timeout_at(over, requests.recv()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(Sent::UntilOver),
                },
            };
        }
        Ok(Sent::All)
    }

    /// Receives answers; ends with an error.
    async fn receive(&self, reader: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut answers = AnswerReader::new(reader);
        let heard = || *self.heard.lock() = Some(Instant::now());
        loop {
            let raw = answers.next(heard).await?;
            let waiting = self.waiting.lock().remove(&raw.id);
            match waiting.map(|waiting| waiting.answer) {
                Some(answer) => {
                    let answered = raw.with_id(answer.id);
                    let _ = answer.reply.send(Ok(answered));
                }
                // Who asked may not wait any more.
                None => raw.skip(),
            }
        }
    }

    /// Waits until a request's time is over and nothing at all was heard in the second half of it: the peer is not there any
    /// more. What was heard before may be the answers to earlier requests.
    async fn silence(&self, missed: &Notify) {
        loop {
            missed.notified().await;
            let (now, heard) = (Instant::now(), *self.heard.lock());
            let is_silent = |waiting: &Waiting| {
                let half = waiting.sent + (waiting.deadline - waiting.sent) / 2;
                waiting.deadline <= now && heard.is_none_or(|heard| heard <= half)
            };
            if self.waiting.lock().values().any(is_silent) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    const WAIT: Duration = Duration::from_secs(10);

    fn request(correlation_id: i32, text: &str) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_u32(8 + text.len() as u32);
        frame.put_u32(0);
        frame.put_i32(correlation_id);
        frame.put_slice(text.as_bytes());
        frame.freeze()
    }

    async fn listen() -> (TcpListener, PeerAddress) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = "127.0.0.1".to_owned();
        (listener, PeerAddress { host, port })
    }

    /// The id and text of the next request.
    async fn next(stream: &mut TcpStream) -> (i32, String) {
        let length = stream.read_u32().await.unwrap() as usize;
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await.unwrap();
        let text = String::from_utf8(frame[8..].to_vec()).unwrap();
        (correlation_id(&frame, 4).unwrap(), text)
    }

    async fn answer(stream: &mut TcpStream, id: i32, text: &str) {
        let mut frame = BytesMut::new();
        frame.put_u32(4 + text.len() as u32);
        frame.put_i32(id);
        frame.put_slice(text.as_bytes());
        stream.write_all(&frame).await.unwrap();
    }

    #[tokio::test]
    async fn many_requests_share_a_connection_and_get_their_own_answers() {
        let (listener, at) = listen().await;
        let peers = Peers::default();
        let texts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let asked = texts
            .iter()
            .map(|text| peers.ask(1, &at, request(77, text), WAIT));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            for _ in 0..50 {
                asked.push(next(&mut stream).await);
            }
            // In any order.
            for (id, text) in asked.iter().rev() {
                answer(&mut stream, *id, text).await;
            }
            (listener, stream)
        };
        let (answers, _open) = tokio::join!(futures_util::future::join_all(asked), serve);
        for (answer, text) in answers.into_iter().zip(&texts) {
            let answer = answer.unwrap();
            assert_eq!(correlation_id(&answer, 4).unwrap(), 77);
            assert_eq!(&answer[8..], text.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_fails_what_waits_and_the_next_request_makes_another() {
        let (listener, at) = listen().await;
        let peers = Peers::default();
        let breaks = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            next(&mut stream).await;
        };
        let (asked, ()) = tokio::join!(peers.ask(1, &at, request(1, "lost"), WAIT), breaks);
        assert!(asked.is_err());
        let serves = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (id, text) = next(&mut stream).await;
            answer(&mut stream, id, &text).await;
            stream
        };
        let (asked, _open) = tokio::join!(peers.ask(1, &at, request(2, "again"), WAIT), serves);
        assert_eq!(&asked.unwrap()[8..], b"again");
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_tried_again_after_a_pause() {
        let (listener, at) = listen().await;
        drop(listener);
        let peers = Peers::default();
        let refused = peers.ask(1, &at, request(1, "x"), WAIT).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let listener = TcpListener::bind((at.host.as_str(), at.port))
            .await
            .unwrap();
        let serves = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (id, _) = next(&mut stream).await;
            answer(&mut stream, id, "there").await;
            stream
        };
        let (asked, _open) = tokio::join!(peers.ask(1, &at, request(1, "x"), WAIT), serves);
        assert_eq!(&asked.unwrap()[8..], b"there");
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_in_time_is_connected_anew() {
        let (listener, at) = listen().await;
        let peers = Peers::default();
        let serves = async {
            let (_silent, _) = listener.accept().await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                let (id, _) = next(&mut stream).await;
                answer(&mut stream, id, "there").await;
            }
        };
        let short = Duration::from_millis(100);
        let asks = async {
            let silent = peers.ask(1, &at, request(1, "x"), short).await;
            assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
            while peers.ask(1, &at, request(1, "x"), short).await.is_err() {}
        };
        tokio::select! {
            () = asks => {}
            () = serves => {}
            () = tokio::time::sleep(WAIT) => panic!("not connected anew"),
        }
    }

    #[tokio::test]
    async fn a_peer_that_falls_silent_while_it_has_requests_is_connected_anew() {
        let (listener, at) = listen().await;
        let peers = Peers::default();
        let serves = async {
            let (mut silent, _) = listener.accept().await.unwrap();
            let (first, _) = next(&mut silent).await;
            next(&mut silent).await;
            // After the other one was sent.
            answer(&mut silent, first, "there").await;
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                let (id, _) = next(&mut stream).await;
                answer(&mut stream, id, "there").await;
            }
        };
        let wait = Duration::from_secs(1);
        let asks = async {
            let ask = || peers.ask(1, &at, request(1, "x"), wait);
            let (answered, silent) = tokio::join!(ask(), ask());
            assert!(answered.is_ok() && silent.is_err());
            while peers.ask(1, &at, request(1, "x"), 2 * WAIT).await.is_err() {}
        };
        tokio::select! {
            () = asks => {}
            () = serves => {}
            () = tokio::time::sleep(WAIT) => panic!("not connected anew"),
        }
    }

    #[tokio::test]
    async fn no_more_wait_for_a_peer_than_may() {
        let (listener, at) = listen().await;
        let peers = Peers::default();
        let asked = (0..REQUESTS_MAX).map(|_| peers.ask(1, &at, request(1, "x"), WAIT));
        let mut asked = futures_util::future::join_all(asked);
        let accept = listener.accept();
        tokio::select! {
            _ = &mut asked => panic!("nobody answers"),
            _ = accept => {}
        }
        let refused = peers.ask(1, &at, request(1, "x"), WAIT).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        // What was sent fails with the connection, and what was not with the next one.
        drop(listener);
        let failed = asked.await;
        assert!(failed.iter().all(Result::is_err));
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_ends_the_connection() {
        let (listener, at) = listen().await;
        let peers = Peers::default();
        let serves = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            next(&mut stream).await;
            stream.write_u32(u32::MAX).await.unwrap();
            stream
        };
        let (asked, _open) = tokio::join!(peers.ask(1, &at, request(1, "x"), WAIT), serves);
        assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
