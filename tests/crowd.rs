//! Thousands of connections at once, to a broker in a process of its own: what each of them costs in memory, and that
//! others do not notice them. How much slower others become is measured by `benches/deafness`, not tested here.

mod common;
#[path = "common/crowd.rs"]
mod crowd;
#[path = "common/process.rs"]
mod process;
#[path = "simulation/random.rs"]
mod random;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use common::{batch, fetch_request, wait_for};
use crowd::{
    QUEUE, ask_versions, connect, connect_to, connections, raise_descriptor_limit, turn,
    wait_for_long, warm, witness,
};
use metaq_protocol::batch::BatchBuilder;
use metaq_protocol::frame;
use metaq_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use metaq_protocol::messages::{GroupId, JoinGroupRequest};
use metaq_protocol::protocol::{Request, StrBytes};
use process::Process;
use random::Random;

const CROWD: usize = 10_000;
/// What a connection may cost, bytes of the broker's memory.
const CONNECTION_BYTES_MAX: usize = 6 << 10;

/// What one may cost that never ends its handshake.
const HANDSHAKE_BYTES_MAX: usize = 10_000;

fn assert_small(broker: &Process, before: usize, what: &str) {
    let each = broker.resident().saturating_sub(before) / CROWD;
    println!("{what}: {each} bytes each");
    assert!(each < CONNECTION_BYTES_MAX, "{what}: {each} bytes each");
}

#[test]
fn a_thousand_that_come_at_once_need_not_try_again() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let broker = warm(dir.path(), &[]);
    // Accepts nothing for a while, as one that has much else to do.
    broker.send_signal("-STOP");
    let address = broker.address();
    // One that finds no room is tried again by the system, after a second.
    let one = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
    let mut crowd: Vec<_> = (0..QUEUE).map(one).collect();
    broker.send_signal("-CONT");
    crowd.iter_mut().for_each(ask_versions);
}

#[test]
fn ten_thousand_idle_connections_cost_less_than_6_kib_each() {
    raise_descriptor_limit(CROWD);
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let broker = warm(dir.path(), &[]);
    let before = broker.resident();
    let mut crowd = connect(&broker, CROWD);
    assert_small(&broker, before, "silent connections");
    let mut client = broker.client();
    witness(&mut client);
    crowd.iter_mut().for_each(ask_versions);
    assert_small(&broker, before, "connections that have spoken");
    witness(&mut client);
    drop(crowd);
    wait_for("all but one to be gone", || connections(&broker) == 1);
    witness(&mut client);
}

#[test]
fn ten_thousand_slow_senders_hold_little_and_nobody_up() {
    raise_descriptor_limit(CROWD);
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let mut broker = warm(dir.path(), &["socket.request.stall.ms=5000"]);
    let before = broker.resident();
    let mut client = broker.client();
    let mut crowd = connect(&broker, CROWD);
    // The beginning of a large frame, a byte now and then.
    let mut sent = 1_000_000i32.to_be_bytes().to_vec();
    sent.extend([0, 0, 0, 9, 0, 0]);
    for byte in &sent {
        for slow in &mut crowd {
            slow.write_all(&[*byte]).unwrap();
        }
        witness(&mut client);
    }
    let held = || broker.metric("metaq_request_memory_bytes");
    wait_for("all to have begun", || held() == (CROWD as i64) * 4096);
    assert_small(&broker, before, "slow senders");
    // Those that do not go on are closed, and the memory comes back.
    wait_for("the slow ones to be closed", || connections(&broker) == 1);
    assert_eq!(held(), 0);
    witness(&mut client);
    assert_eq!(broker.signal("-TERM").code(), Some(0));
}

#[test]
fn ten_thousand_handshakes_that_never_end_hold_little_and_nobody_up() {
    raise_descriptor_limit(CROWD);
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (key, certificate) = (
        file("key.pem", key.serialize_pem()),
        file("certificate.pem", certificate.pem()),
    );
    // The first one is for the witness.
    let settings = [
        "listeners=PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0",
        &format!("tls.key={key}"),
        &format!("tls.certificate={certificate}"),
        "authentication.timeout.ms=30000",
        "max.unauthenticated.connections.per.ip=20000",
    ];
    let broker = warm(&dir.path().join("data"), &settings);
    let before = broker.resident();
    let mut client = broker.client();
    let mut crowd = connect_to(&broker, broker.second_address(), CROWD);
    // The beginning of a ClientHello: a record of 512 bytes, of which few come.
    for half in &mut crowd {
        half.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
            .unwrap();
    }
    witness(&mut client);
    let each = broker.resident().saturating_sub(before) / CROWD;
    println!("handshakes that never end: {each} bytes each");
    assert!(each < HANDSHAKE_BYTES_MAX, "{each} bytes each");
    // Somebody new is served meanwhile.
    let came = Instant::now();
    ask_versions(&mut TcpStream::connect(broker.address()).unwrap());
    println!("a new client waits {:?}", came.elapsed());
    witness(&mut client);
    wait_for_long("the handshakes to be over", || connections(&broker) == 1);
    assert_eq!(broker.metric("metaq_handshakes_failed_total"), CROWD as i64);
    witness(&mut client);
}

/// Something that a broken or malicious client may send.
fn garbage(random: &mut Random) -> Vec<u8> {
    let whole = frame::encode_request(9, 1, "crowd", &common::produce_request("t", batch(20), -1));
    let mut bytes = whole.unwrap().to_vec();
    let noise = |random: &mut Random, count: u64| {
        let bytes = (0..count).map(|_| random.next() as u8);
        bytes.collect::<Vec<u8>>()
    };
    match random.below(5) {
        // No frame at all.
        0 => {
            let count = 1 + random.below(5000);
            bytes = noise(random, count);
        }
        // Truncated.
        1 => bytes.truncate(random.below(bytes.len() as u64) as usize),
        // Longer than any frame may be.
        2 => bytes[..4].copy_from_slice(&(i32::MAX - random.below(100) as i32).to_be_bytes()),
        // A right length around anything.
        3 => {
            let count = bytes.len() as u64 - 12;
            bytes.splice(12.., noise(random, count));
        }
        // A request with a few bytes changed, perhaps twice.
        _ => {
            for _ in 0..1 + random.below(4) {
                let at = random.between(4, bytes.len() as i64 - 1) as usize;
                bytes[at] = random.next() as u8;
            }
            if random.one_in(2) {
                bytes.extend_from_slice(&bytes.clone());
            }
        }
    }
    bytes
}

#[test]
fn garbage_from_many_connections_at_once_leaves_others_and_memory_alone() {
    const ATTACKERS: u64 = 8;
    const ATTACKS: usize = 500;
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let broker = warm(dir.path(), &["socket.request.stall.ms=1000"]);
    let before = broker.resident();
    let address = broker.address();
    let seed = common::now_ms() as u64;
    println!("seed {seed}");
    let mut client = broker.client();
    let mut largest = 0;
    std::thread::scope(|scope| {
        let attacker = |n: u64| {
            let mut random = Random::new(seed + n);
            let mut half_open = Vec::new();
            for _ in 0..ATTACKS {
                let mut stream = TcpStream::connect(address).unwrap();
                // Closed by the broker perhaps before all is written.
                let _ = stream.write_all(&garbage(&mut random));
                match random.below(3) {
                    // Closed at once, with answers on their way.
                    0 => {}
                    // Says that it sends no more, and never looks at the answer.
                    1 => {
                        let _ = stream.shutdown(Shutdown::Write);
                        half_open.push(stream);
                    }
                    // Says nothing more.
                    _ => half_open.push(stream),
                }
            }
            half_open
        };
        let attackers: Vec<_> = (0..ATTACKERS)
            .map(|n| scope.spawn(move || attacker(n)))
            .collect();
        while !attackers.iter().all(|attacker| attacker.is_finished()) {
            witness(&mut client);
            largest = largest.max(broker.resident());
        }
        let left: Vec<_> = attackers
            .into_iter()
            .flat_map(|attacker| attacker.join().unwrap())
            .collect();
        // Of those that are still there, all that had begun a frame are closed; idle ones may stay.
        wait_for("the half-sent frames to be given up", || {
            broker.metric("metaq_request_memory_bytes") == 0
        });
        drop(left);
    });
    wait_for("all but one to be gone", || connections(&broker) == 1);
    witness(&mut client);
    let grown = largest.saturating_sub(before);
    println!("{} KiB more at most", grown >> 10);
    assert!(grown < 64 << 20, "{grown} bytes");
    assert_eq!(broker.metric("metaq_handler_panics_total"), 0);
    assert!(broker.metric("metaq_frames_malformed_total") > 0);
}

/// Lets clients ask, and expects that nothing of what they sent stays in memory.
fn holds_nothing_of<R: Request>(version: i16, request: impl Fn(usize) -> R) {
    const FIRST: usize = 5;
    // Many, so that what they sent is much more than what the allocator keeps for its threads.
    const CLIENTS: usize = 85;
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let broker = warm(dir.path(), &[]);
    let (mut clients, mut before, mut sent) = (Vec::new(), 0, 0);
    for n in 0..CLIENTS {
        let request = request(n);
        let mut client = broker.client();
        client.ask(version, &request);
        clients.push(client);
        if n < FIRST {
            // What is given back behind them is used again.
            before = broker.resident();
        } else {
            let frame = frame::encode_request(version, 1, "crowd", &request);
            sent += frame.unwrap().len();
        }
    }
    let grown = || broker.resident().saturating_sub(before);
    println!("{} KiB more for {} KiB", grown() >> 10, sent >> 10);
    // The allocator gives back what is free in its own time, while it is used.
    wait_for("what they sent to be given back", || {
        witness(&mut clients[0]);
        grown() < sent / 2
    });
}

#[test]
fn members_with_very_large_metadata_are_refused_and_hold_no_memory() {
    let metadata = bytes::Bytes::from(vec![0; 4_000_000]);
    holds_nothing_of(3, |n| {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(metadata.clone());
        JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(format!("g{n}"))))
            .with_session_timeout_ms(60_000)
            .with_rebalance_timeout_ms(60_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol])
    });
}

#[test]
fn a_fetch_session_does_not_remember_names_that_no_topic_can_have() {
    holds_nothing_of(11, |_| {
        let one = fetch_request("t", 0, 0).topics.remove(0);
        let topic = |n| {
            let name = format!("{n}{}", "x".repeat(30_000));
            one.clone().with_topic(common::name(&name))
        };
        fetch_request("t", 0, 0)
            .with_session_epoch(0)
            .with_topics((0..100).map(topic).collect())
    });
}

#[test]
fn clients_that_never_read_cost_little_and_are_closed_in_their_time() {
    const DEAF: usize = 200;
    const IDLE_MS: u64 = 5000;
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let idle = format!("connections.max.idle.ms={IDLE_MS}");
    let broker = warm(dir.path(), &[&idle]);
    let mut client = broker.client();
    client.create("large");
    let large = BatchBuilder::new()
        .push(None, Some(&[7; 1_000_000]), &[], common::now_ms())
        .finish()
        .unwrap();
    for _ in 0..32 {
        assert_eq!(client.produce("large", large.clone()).0, 0);
    }
    drop(client);
    wait_for("the producer to be gone", || connections(&broker) == 0);
    let before = broker.resident();
    let started = Instant::now();
    let mut deaf = connect(&broker, DEAF);
    let mut client = broker.client();
    let asked = frame::encode_request(11, 1, "deaf", &fetch_request("large", 0, 0)).unwrap();
    for stream in &mut deaf {
        for _ in 0..10 {
            stream.write_all(&asked).unwrap();
        }
    }
    let mut witnessed = 0;
    let mut largest = 0;
    while connections(&broker) > 1 {
        witness(&mut client);
        witnessed += 1;
        largest = largest.max(broker.resident());
        assert!(started.elapsed() < Duration::from_secs(60), "they stay");
    }
    let took = started.elapsed();
    let grown = largest.saturating_sub(before);
    println!("{} KiB more at most; closed after {took:?}", grown >> 10);
    assert!(took >= Duration::from_millis(IDLE_MS) && witnessed > 10);
    assert!(grown < 64 << 20, "{grown} bytes");
    // What fitted into the sockets is there, and then the end.
    for stream in &mut deaf {
        let mut rest = vec![0; 1 << 16];
        let end = loop {
            match stream.read(&mut rest) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() == ErrorKind::ConnectionReset,
            }
        };
        assert!(end);
    }
    witness(&mut client);
}

#[test]
fn members_of_all_groups_together_hold_no_more_than_is_set() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let broker = warm(
        dir.path(),
        &[
            "group.members.max.bytes=4194304",
            "group.initial.rebalance.delay.ms=0",
        ],
    );
    let metadata = bytes::Bytes::from(vec![0; 500_000]);
    let mut client = broker.client();
    let mut join = |n: usize| {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(metadata.clone());
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(format!("g{n}"))))
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(6_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        client.ask(0, &request).error_code
    };
    let refused = metaq_protocol::ResponseError::GroupMaxSizeReached.code();
    let codes: Vec<i16> = (0..12).map(&mut join).collect();
    assert_eq!(
        codes.iter().filter(|code| **code == 0).count(),
        2,
        "{codes:?}"
    );
    assert!(codes[2..].iter().all(|code| *code == refused), "{codes:?}");
    // What silent members held is given back.
    wait_for("their sessions to end", || join(100) == 0);
}

#[test]
fn members_that_were_only_handed_an_id_are_counted_too() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let broker = warm(dir.path(), &["group.members.max.bytes=4194304"]);
    let mut client = broker.client();
    let mut join = |n: usize| {
        let protocol =
            JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(format!(
                "g{n}{}",
                "x".repeat(30_000)
            ))))
            .with_session_timeout_ms(6_000)
            .with_rebalance_timeout_ms(6_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        client.ask(4, &request).error_code
    };
    let handed = metaq_protocol::ResponseError::MemberIdRequired.code();
    let refused = metaq_protocol::ResponseError::GroupMaxSizeReached.code();
    let codes: Vec<i16> = (0..200).map(&mut join).collect();
    let first_refused = codes.iter().position(|code| *code != handed).unwrap();
    assert!((40..50).contains(&first_refused), "{first_refused}");
    assert!(codes[first_refused..].iter().all(|code| *code == refused));
    // What was handed out and not taken up is given back.
    wait_for("the ids to be forgotten", || join(1000) == handed);
}
