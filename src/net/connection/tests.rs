use metaq_protocol::messages::create_topics_request::CreatableTopic;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, MetadataRequest, TopicName,
};
use metaq_protocol::protocol::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::broker::Broker;
use crate::config::Config;
use crate::net::limits::{ConnectionLimits, ConnectionsMax};

const THROTTLE: Duration = Duration::from_millis(1500);

async fn broker(dir: &std::path::Path) -> Broker {
    let settings = [
        format!("dataPath={}", dir.display()),
        "serverPort=0".to_owned(),
        "dashboardHttpPort=0".to_owned(),
        "hostName=127.0.0.1".to_owned(),
    ];
    let config = Config::load(None, &settings).unwrap();
    Broker::start(config).await.unwrap()
}

/// A connection and its client.
async fn connection(cx: &Arc<Context>) -> (Connection<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let max = ConnectionsMax {
        total: 1,
        per_ip: 1,
        unknown_per_ip: 1,
    };
    let permit = Arc::new(ConnectionLimits::default()).take(max, peer.ip(), false);
    let accepted = Accepted {
        listener: Arc::new(ListenerInfo::plaintext()),
        stream,
        peer,
        permit: permit.ok().unwrap(),
    };
    let settings = Settings {
        frame_bytes_max: 1 << 20,
        unknown_frame_bytes_max: 1 << 20,
        stall_max: Duration::from_secs(30),
        authentication_max: Duration::from_secs(30),
        in_flight_max: 4,
        idle_max: Some(THROTTLE / 2),
        drain: Duration::ZERO,
    };
    (Connection::new(cx.clone(), accepted, settings), client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_answer_leaves_at_once_and_what_follows_is_read_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(dir.path()).await;
    let cx = broker.context();
    let (mut connection, mut client) = connection(cx).await;
    let response = Response {
        body: Body::from(bytes::Bytes::from_static(b"throttled")),
        throttle: THROTTLE,
    };
    connection.answer_now(response, cx.memory.empty_share());
    let of_connection = connection.session.client().clone();
    let (_stop, shutdown) = watch::channel(false);
    let started = Instant::now();
    let serving = tokio::spawn(async move { connection.serve(shutdown).await });
    let mut answer = [0; 9];
    client.read_exact(&mut answer).await.unwrap();
    assert!(&answer == b"throttled" && started.elapsed() < THROTTLE);
    let asked = frame::encode_request(0, 1, "test", &ApiVersionsRequest::default());
    client.write_all(&asked.unwrap()).await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
    assert!(started.elapsed() >= THROTTLE);
    let throttled_ms = of_connection.snapshot().throttled_ms;
    assert_eq!(throttled_ms, THROTTLE.as_millis() as u64);
    assert_eq!(cx.observe.events.total(EventKind::Throttle), 1);
    drop(client);
    assert_eq!(serving.await.unwrap(), None);
    broker.shutdown().await;
}

/// A change of the cluster that has begun goes on when its connection ends, and its memory is counted until it is over.
async fn goes_on_without_its_client<R: Request>(version: i16, request: R) {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(dir.path()).await;
    let cx = broker.context();
    let reserved = || cx.metrics.request_memory_bytes.load(Ordering::Relaxed);
    let held = cx.cluster.hold_changes().await;
    let (mut connection, mut client) = connection(cx).await;
    let (_stop, shutdown) = watch::channel(false);
    let serving = tokio::spawn(async move { connection.serve(shutdown).await });
    let asked = frame::encode_request(version, 1, "test", &request);
    client.write_all(&asked.unwrap()).await.unwrap();
    until(|| reserved() > 0).await;
    // It waits for its turn now.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    serving.await.unwrap();
    assert!(reserved() > 0);
    assert!(cx.cluster.image().topic("t").is_none());
    drop(held);
    until(|| cx.cluster.image().topic("t").is_some() && reserved() == 0).await;
    broker.shutdown().await;
}

async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_though_its_client_has_gone() {
    let name = TopicName(StrBytes::from_static_str("t"));
    let topic = CreatableTopic::default().with_name(name.clone());
    let topic = topic.with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    goes_on_without_its_client(5, request.with_timeout_ms(5_000)).await;
    let topic = MetadataRequestTopic::default().with_name(Some(name));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    goes_on_without_its_client(4, request).await;
}
