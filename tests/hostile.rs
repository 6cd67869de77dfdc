//! Hostile clients: their connection is closed, nothing else notices, memory does not move.

mod common;
#[path = "common/process.rs"]
mod process;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Client, Running, batch};
use metaq_protocol::ResponseError;
use metaq_protocol::batch::BatchBuilder;
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::leave_group_request::MemberIdentity;
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::{
    ApiVersionsRequest, DescribeGroupsRequest, FetchRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, MetadataRequest, OffsetCommitRequest, ProduceRequest,
    SyncGroupRequest,
};
use metaq_protocol::protocol::StrBytes;
use metaq_protocol::shape::{Direction, shape_of};
use metaq_protocol::versions;
use process::Process;

fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let flexible = key != 18 && version >= 0 && {
        // A request is flexible where its schema has tagged fields.
        matches!(
            shape_of(key, Direction::Request, version),
            Some(metaq_protocol::shape::Shape::Struct { tags: Some(_), .. })
        )
    };
    let mut out = Vec::new();
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&(-1i16).to_be_bytes());
    if flexible {
        out.push(0);
    }
    out.extend_from_slice(body);
    let mut whole = (out.len() as i32).to_be_bytes().to_vec();
    whole.extend_from_slice(&out);
    whole
}

#[test]
fn hostile_frames_close_their_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Process::start(dir.path(), &[]);
    let mut witness = broker.client();
    witness.create("t");
    let before = broker.resident();
    let mut attacks: Vec<Vec<u8>> = vec![
        i32::MAX.to_be_bytes().to_vec(),
        (-1i32).to_be_bytes().to_vec(),
        0i32.to_be_bytes().to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame(3, 1, &[0x7f, 0xff, 0xff, 0xff, 0, 0]),
        frame(999, 0, &[]),
        frame(0, 2, &[]),
    ];
    for row in versions::TABLE {
        for version in row.min..=row.max {
            attacks.push(frame(row.key, version, &[0x7f; 40]));
            attacks.push(frame(row.key, version, &[0xff; 40]));
        }
    }
    let mut closed = 0;
    for attack in &attacks {
        let mut attacker = broker.client();
        attacker.stream.write_all(attack).unwrap();
        attacker.stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Some of the garbage happens to be a request; either way the connection ends.
        common::wait_for("the connection to end", || attacker.is_closed());
        closed += 1;
    }
    assert_eq!(closed, attacks.len());
    assert_eq!(witness.produce("t", batch(1)).0, 0);
    let grown = broker.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    assert_eq!(broker.metric("metaq_handler_panics_total"), 0);
}

#[test]
fn a_claimed_length_costs_no_memory_until_the_bytes_come() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Process::start(dir.path(), &[]);
    let before = broker.resident();
    let mut clients: Vec<Client> = (0..50).map(|_| broker.client()).collect();
    for client in &mut clients {
        client
            .stream
            .write_all(&(100i32 << 20).to_be_bytes())
            .unwrap();
        client.stream.write_all(&[0; 100]).unwrap();
    }
    let mut witness = broker.client();
    witness.create("t");
    let grown = broker.resident().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes for 5 GB claimed");
    drop(clients);
    drop(broker);
}

#[test]
fn request_memory_is_bounded_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(
        dir.path(),
        &[
            "socket.request.max.bytes=1000000",
            "queued.max.request.bytes=1000000",
        ],
    );
    let mut hog = broker.client();
    hog.stream.write_all(&900_000i32.to_be_bytes()).unwrap();
    hog.stream.write_all(&[0; 800_000]).unwrap();
    let cx = broker.broker().context().clone();
    let held = || {
        cx.metrics
            .request_memory_bytes
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    common::wait_for("the hog's share", || held() >= 800_000);
    // Small requests still fit; a large one waits until the hog is gone.
    let mut small = broker.client();
    small.create("t");
    small.ask(9, &MetadataRequest::default().with_topics(Some(Vec::new())));
    let mut large = broker.client();
    large.send(9, &common::produce_request("t", batch(20_000), -1));
    std::thread::sleep(Duration::from_millis(100));
    assert!(held() <= 1_000_448, "{}", held());
    drop(hog);
    large.receive::<ProduceRequest>(9);
    common::wait_for("the shares to come back", || held() == 0);
    broker.stop();
}

/// A fetch of partitions 0.. of a topic that does not exist, in a new session.
fn large_fetch(partitions: i32) -> FetchRequest {
    let mut request = common::fetch_request("missing", 0, 0).with_session_epoch(0);
    let one = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..partitions)
        .map(|n| one.clone().with_partition(n))
        .collect();
    request
}

#[test]
fn a_fetch_of_very_many_partitions_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut witness = broker.client();
    witness.create("t");
    witness.produce("t", batch(1));
    let mut greedy = broker.client();
    greedy.send(11, &large_fetch(100_000));
    let answered = std::thread::spawn(move || greedy.receive::<FetchRequest>(11).1);
    let mut slowest = Duration::ZERO;
    while !answered.is_finished() {
        let asked = Instant::now();
        let request = common::fetch_request("t", 0, 0).with_session_epoch(0);
        assert_eq!(witness.ask(11, &request).responses.len(), 1);
        slowest = slowest.max(asked.elapsed());
    }
    let answer = answered.join().unwrap();
    assert_eq!(answer.responses[0].partitions.len(), 100_000);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let refused = broker.client().ask(11, &large_fetch(100_001));
    assert_eq!(
        refused.error_code,
        metaq_protocol::ResponseError::InvalidRequest.code()
    );
    broker.stop();
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_up_the_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["controlled.shutdown.drain.ms=300"]);
    let mut client = broker.client();
    client.create("t");
    let large = BatchBuilder::new()
        .push(None, Some(&[7; 1_000_000]), &[], common::now_ms())
        .finish()
        .unwrap();
    for _ in 0..30 {
        client.produce("t", large.clone());
    }
    let mut deaf = broker.client();
    for _ in 0..10 {
        deaf.send(11, &common::fetch_request("t", 0, 0));
    }
    let cx = broker.broker().context().clone();
    common::wait_for("an answer on its way", || {
        let apis = cx.metrics.apis();
        apis.iter().any(|api| api.key == 1 && api.requests > 0)
    });
    let stopping = Instant::now();
    broker.stop();
    let took = stopping.elapsed();
    let expected = Duration::from_millis(300)..Duration::from_secs(5);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn half_sent_large_frames_do_not_hold_up_small_ones() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(
        dir.path(),
        &[
            "socket.request.max.bytes=1000000",
            "queued.max.request.bytes=1000000",
        ],
    );
    let mut witness = broker.client();
    witness.create("t");
    let half_sent = |bytes: usize| {
        let mut hog = broker.client();
        hog.stream.write_all(&900_000i32.to_be_bytes()).unwrap();
        hog.stream.write_all(&vec![0; bytes]).unwrap();
        hog
    };
    let cx = broker.broker().context().clone();
    let held = || {
        cx.metrics
            .request_memory_bytes
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let _first = half_sent(440_000);
    common::wait_for("the first share", || held() >= 800_000);
    // They want more than there is, and wait.
    let _others = [half_sent(300_000), half_sent(300_000)];
    // The bytes that a waiting connection has read are those that it got memory for, and those before.
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(300) {
        let started = Instant::now();
        assert_eq!(witness.produce("t", batch(10)).0, 0);
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    assert!(held() <= 1_000_000, "{}", held());
    broker.stop();
}

#[test]
fn a_frame_that_does_not_go_on_closes_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["socket.request.stall.ms=200"]);
    let mut quiet = broker.client();
    let mut stalled = broker.client();
    stalled.stream.write_all(&1000i32.to_be_bytes()).unwrap();
    stalled.stream.write_all(&[0; 10]).unwrap();
    assert!(stalled.is_closed());
    // Between requests a client may be silent for longer.
    quiet.ask(0, &ApiVersionsRequest::default());
    broker.stop();
}

#[test]
fn connections_above_the_limit_are_closed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["max.connections=3"]);
    let kept: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = broker.client();
            client.ask(0, &ApiVersionsRequest::default());
            client
        })
        .collect();
    assert!(broker.client().is_closed());
    drop(kept);
    common::wait_for("a place", || {
        let mut client = broker.client();
        client.stream.write_all(&frame(18, 0, &[])).unwrap();
        !client.is_closed()
    });
    broker.stop();
}

#[test]
fn one_address_gets_no_more_connections_than_are_its_share() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["max.connections.per.ip=2"]);
    let kept: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = broker.client();
            client.ask(0, &ApiVersionsRequest::default());
            client
        })
        .collect();
    assert!(broker.client().is_closed());
    drop(kept);
    broker.stop();
}

#[test]
fn the_dashboards_port_takes_a_bounded_number_of_connections() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["dashboard.http.max.connections=4"]);
    let visit = || {
        let mut visitor = Client::connect(broker.broker().dashboard_address().unwrap());
        let _ = visitor
            .stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        visitor
    };
    let refusal = |mut visitor: Client| {
        let mut answer = String::new();
        visitor.stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // One address has half of them.
    let kept: Vec<Client> = (0..2)
        .map(|_| {
            let mut visitor = visit();
            assert!(!visitor.is_closed());
            visitor
        })
        .collect();
    let refused = refusal(visit());
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(
        refused.ends_with("dashboard.http.max.connections\n"),
        "{refused}"
    );
    // Many within a second are closed without a word.
    common::wait_for("a visitor who is told nothing", || {
        let crowd: Vec<Client> = (0..60).map(|_| visit()).collect();
        crowd.into_iter().any(|mut visitor| {
            let mut answer = Vec::new();
            // What was sent to a closed connection may reset it.
            match visitor.stream.read_to_end(&mut answer) {
                Ok(_) => answer.is_empty(),
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            }
        })
    });
    drop(kept);
    common::wait_for("a place", || {
        let mut visitor = visit();
        let mut answer = [0; 12];
        let read = visitor.stream.read_exact(&mut answer);
        read.is_ok() && &answer == b"HTTP/1.1 200"
    });
    broker.stop();
}

#[test]
fn a_connection_is_read_on_only_when_requests_in_flight_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["max.inflight.requests.per.connection=2"]);
    let mut client = broker.client();
    client.create("t");
    for _ in 0..2 {
        client.send(11, &common::fetch_request("t", 0, 300));
    }
    // It would wake them, but is not looked at before one of them is answered.
    client.send(9, &common::produce_request("t", batch(1), -1));
    let (_, first) = client.receive::<FetchRequest>(11);
    let records = first.responses[0].partitions[0].records.as_ref();
    assert!(records.is_none_or(|records| records.is_empty()));
    client.receive::<FetchRequest>(11);
    let (_, produced) = client.receive::<ProduceRequest>(9);
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    broker.stop();
}

#[test]
fn a_fetch_answer_is_no_larger_than_the_broker_allows() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["fetch.max.bytes=5000"]);
    let mut client = broker.client();
    client.create("t");
    let bytes = batch(50).len();
    for _ in 0..20 {
        client.produce("t", batch(50));
    }
    let answer = client.ask(11, &common::fetch_request("t", 0, 0));
    let records = answer.responses[0].partitions[0].records.clone().unwrap();
    assert!((bytes..=5000).contains(&records.len()), "{}", records.len());
    broker.stop();
}

#[test]
fn a_text_committed_with_an_offset_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["offset.metadata.max.bytes=10"]);
    let mut client = broker.client();
    client.create("t");
    let mut commit = |text: &'static str| {
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(1)
            .with_committed_metadata(Some(StrBytes::from_static_str(text)));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(common::name("t"))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("g")))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        client.ask(8, &request).topics[0].partitions[0].error_code
    };
    assert_eq!(commit("0123456789"), 0);
    assert_eq!(
        commit("0123456789a"),
        metaq_protocol::ResponseError::OffsetMetadataTooLarge.code()
    );
    broker.stop();
}

#[test]
fn a_group_id_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    let mut join = |bytes: usize| {
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string("g".repeat(bytes))))
            .with_session_timeout_ms(60_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![JoinGroupRequestProtocol::default()]);
        client.ask(6, &request).error_code
    };
    let longest = i16::MAX as usize;
    assert_eq!(join(longest), ResponseError::MemberIdRequired.code());
    assert_eq!(join(longest + 1), ResponseError::InvalidGroupId.code());
    broker.stop();
}

#[test]
fn an_idle_connection_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["connections.max.idle.ms=200"]);
    assert!(broker.client().is_closed());
    broker.stop();
}

#[test]
fn an_unknown_api_versions_version_is_answered_in_version_zero() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &[]);
    let mut client = broker.client();
    client.stream.write_all(&frame(18, 99, &[])).unwrap();
    let (_, response) = client.receive::<ApiVersionsRequest>(0);
    assert_eq!(response.error_code, 35);
    // By it the client chooses another version.
    let told: Vec<(i16, i16)> = response
        .api_keys
        .iter()
        .map(|api| (api.api_key, api.max_version))
        .collect();
    assert_eq!(told, [(18, versions::lookup(18).unwrap().max)]);
    client.ask(0, &ApiVersionsRequest::default());
    broker.stop();
}

/// Behind a fetch that waits, answers are ready and cannot be sent.
#[test]
fn answers_that_wait_for_others_are_bounded_and_all_arrive() {
    const ASKED: usize = 60;
    const WAIT_MS: i32 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), &["num.partitions=5000"]);
    let mut client = broker.client();
    client.create("wide");
    let answered = || {
        let apis = broker.broker().context().metrics.apis();
        let metadata = apis.into_iter().find(|api| api.key == 3);
        metadata.map_or((0, 0), |api| (api.requests, api.response_bytes))
    };
    let before = answered();
    client.send(11, &common::fetch_request("wide", 0, WAIT_MS));
    for _ in 0..ASKED {
        client.send(4, &MetadataRequest::default().with_topics(None));
    }
    std::thread::sleep(Duration::from_millis(WAIT_MS as u64 / 2));
    let (requests, bytes) = answered();
    let (requests, bytes) = (requests - before.0, bytes - before.1);
    assert!(requests > 1, "nothing is answered ahead");
    // Whichever passes the limit, and one that was begun before it did.
    let most = (1 << 20) + 2 * (bytes / requests);
    assert!(bytes <= most, "{requests} answers of {bytes} bytes wait");
    client.receive::<FetchRequest>(11);
    for _ in 0..ASKED {
        let (_, metadata) = client.receive::<MetadataRequest>(4);
        assert_eq!(metadata.topics[0].partitions.len(), 5000);
    }
    broker.stop();
}

/// Two static members in a stable group, who come back with a rebalance timeout that is over before it begins. One of
/// them leaves.
fn leave_one_without_time(broker: &Process, group: &GroupId, rebalance_timeout_ms: i32) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let join = |instance: &str, member_id: &StrBytes, rebalance_timeout_ms| {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
        JoinGroupRequest::default()
            .with_group_id(group.clone())
            .with_group_instance_id(Some(text(instance)))
            .with_member_id(member_id.clone())
            .with_session_timeout_ms(60_000)
            .with_rebalance_timeout_ms(rebalance_timeout_ms)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    };
    // A connection each: a request that waits for others keeps what comes after it waiting.
    let mut clients = [broker.client(), broker.client()];
    let nobody = StrBytes::default();
    let a = clients[0].ask(5, &join("a", &nobody, 60_000)).member_id;
    clients[1].send(5, &join("b", &nobody, 60_000));
    let describe = DescribeGroupsRequest::default().with_groups(vec![group.clone()]);
    common::wait_for("the second member", || {
        let described = clients[0].ask(1, &describe);
        described.groups[0].group_state.as_str() == "PreparingRebalance"
    });
    clients[0].send(5, &join("a", &a, 60_000));
    let (_, b) = clients[1].receive::<JoinGroupRequest>(5);
    clients[0].receive::<JoinGroupRequest>(5);
    for (client, id) in clients.iter_mut().zip([&a, &b.member_id]) {
        let sync = SyncGroupRequest::default()
            .with_group_id(group.clone())
            .with_generation_id(b.generation_id)
            .with_member_id(id.clone());
        client.send(3, &sync);
    }
    for (client, instance) in clients.iter_mut().zip(["a", "b"]) {
        client.receive::<SyncGroupRequest>(3);
        client.send(5, &join(instance, &nobody, rebalance_timeout_ms));
        let (_, back) = client.receive::<JoinGroupRequest>(5);
        assert_eq!(back.error_code, 0);
    }
    let leaving = MemberIdentity::default().with_group_instance_id(Some(text("a")));
    let leave = LeaveGroupRequest::default()
        .with_group_id(group.clone())
        .with_members(vec![leaving]);
    clients[0].send(3, &leave);
}

#[test]
fn static_members_without_time_to_rejoin_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["group.initial.rebalance.delay.ms=0"];
    let broker = Process::start(dir.path(), &settings);
    let name = |n: usize| GroupId(StrBytes::from_string(format!("g{n}")));
    let mut witness = broker.client();
    witness.create("t");
    for n in 0..12 {
        let rebalance_timeout_ms = [0, -1, 1, i32::MIN][n % 4];
        leave_one_without_time(&broker, &name(n), rebalance_timeout_ms);
        // Whoever has to do with such a group, or another one of its slot, is answered.
        let beat = HeartbeatRequest::default().with_group_id(name(n));
        let code = witness.ask(3, &beat).error_code;
        assert_eq!(code, ResponseError::UnknownMemberId.code());
        assert_eq!(witness.produce("t", batch(1)).0, 0);
    }
}
