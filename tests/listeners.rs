//! Listeners of several kinds at one broker: the limits count their connections together, a peer that takes its time holds
//! up nobody, and each client is given the endpoints of the listener that it came in by.

mod common;

use std::future::pending;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as Stream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::{Client, Running, wait_for};
use metaq::net::{Bound, Listener, Server, Socket};
use metaq::session::{ListenerInfo, SecurityProtocol};
use metaq_protocol::ResponseError;
use metaq_protocol::frame;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeTopicPartitionsRequest,
    FindCoordinatorRequest, MetadataRequest,
};
use metaq_protocol::protocol::StrBytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A listener whose connections from one address are never established.
struct Slow(TcpListener, SocketAddr);

struct SlowSocket {
    stream: TcpStream,
    is_slow: bool,
}

impl Listener for Slow {
    type Socket = SlowSocket;

    async fn accept(&self) -> io::Result<(SlowSocket, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        let is_slow = peer.ip() == self.1.ip();
        Ok((SlowSocket { stream, is_slow }, peer))
    }
}

impl Socket for SlowSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    async fn establish(&mut self) -> io::Result<()> {
        match self.is_slow {
            true => pending().await,
            false => Ok(()),
        }
    }

    async fn send_bytes(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        Socket::send_bytes(&mut self.stream, bytes, more).await
    }
}

impl AsyncRead for SlowSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

/// Connects from an address of this machine.
fn connect_from(from: &str, to: SocketAddr) -> Stream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &from.parse::<SocketAddr>().unwrap()).unwrap();
    connect(&socket, &to).unwrap();
    Stream::from(socket)
}

/// Lets a server accept connections by another listener, of which those from 127.0.0.9 are never established.
fn serve_slow(server: &mut Server, broker: &Running, info: ListenerInfo) -> SocketAddr {
    let _in_runtime = broker.enter();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let socket = TcpListener::from_std(socket).unwrap();
    let slow = "127.0.0.9:0".parse().unwrap();
    let bound = Bound {
        info: Arc::new(info),
        address,
        socket: Slow(socket, slow),
    };
    server.serve(broker.broker().context(), vec![bound]);
    address
}

fn is_closed(mut stream: &Stream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_connection_that_is_never_established_holds_up_nobody_and_is_closed_in_time() {
    const STALL: Duration = Duration::from_secs(1);
    let dir = tempfile::tempdir().unwrap();
    let stall = format!("socket.request.stall.ms={}", STALL.as_millis());
    let broker = Running::start(dir.path(), &[&stall]);
    let mut server = Server::default();
    let address = serve_slow(&mut server, &broker, ListenerInfo::plaintext());
    let started = Instant::now();
    let slow: Vec<Stream> = (0..20)
        .map(|_| connect_from("127.0.0.9:0", address))
        .collect();
    let versions = Client::connect(address).ask(0, &ApiVersionsRequest::default());
    assert!(!versions.api_keys.is_empty() && started.elapsed() < STALL);
    wait_for("the slow ones to be closed", || slow.iter().all(is_closed));
    assert!(started.elapsed() >= STALL);
}

#[test]
fn all_listeners_of_a_server_share_the_limit_of_connections() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["max.connections=2"]);
    let mut server = Server::default();
    let addresses = [0; 2].map(|_| serve_slow(&mut server, &broker, ListenerInfo::plaintext()));
    let mut first = Client::connect(addresses[0]);
    let mut second = Client::connect(addresses[1]);
    for client in [&mut first, &mut second] {
        client.ask(0, &ApiVersionsRequest::default());
    }
    for address in addresses {
        let third = Client::connect(address);
        wait_for("it to be refused", || is_closed(&third.stream));
    }
    drop(first);
    wait_for("one to be free", || {
        let mut stream = Stream::connect(addresses[1]).unwrap();
        let asked = frame::encode_request(0, 1, "test", &ApiVersionsRequest::default());
        stream.write_all(&asked.unwrap()).is_ok() && stream.read_exact(&mut [0; 4]).is_ok()
    });
}

#[test]
fn a_broker_that_lacks_a_clients_listener_is_not_there_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    broker.client().create("t");
    let mut server = Server::default();
    let info = ListenerInfo::new("OTHER", SecurityProtocol::Plaintext);
    let address = serve_slow(&mut server, &broker, info);
    let topic = MetadataRequestTopic::default().with_name(Some(common::name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let leader_of = |client: &mut Client, version| {
        let metadata = client.ask(version, &request);
        let partition = &metadata.topics[0].partitions[0];
        let error = ResponseError::try_from_code(partition.error_code);
        (metadata.brokers.len(), partition.leader_id.0, error)
    };
    let mut client = Client::connect(address);
    let not_found = Some(ResponseError::ListenerNotFound);
    let not_available = Some(ResponseError::LeaderNotAvailable);
    assert_eq!(leader_of(&mut client, 9), (0, -1, not_found));
    assert_eq!(leader_of(&mut client, 5), (0, -1, not_available));
    assert_eq!(leader_of(&mut broker.client(), 9), (1, 0, None));
    let described = client.ask(0, &DescribeTopicPartitionsRequest::default());
    let code = described.topics[0].partitions[0].error_code;
    assert_eq!(ResponseError::try_from_code(code), not_found);
    assert!(
        client
            .ask(0, &DescribeClusterRequest::default())
            .brokers
            .is_empty()
    );
    let group = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g"));
    let found = client.ask(1, &group);
    let code = ResponseError::CoordinatorNotAvailable.code();
    assert_eq!((found.error_code, found.node_id.0), (code, -1));
    assert_eq!(broker.client().ask(1, &group).node_id.0, 0);
}
