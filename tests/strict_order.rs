//! Topics with ordering=strict: what is consumed has the order of what was produced, whatever happens to brokers and members, and who
//! leads them.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/ordered.rs"]
mod ordered;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::{Cluster, LONG, Node, SHORT_SESSION, produce, within};
use common::{Client, name};
use metaq_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use metaq_protocol::messages::elect_leaders_request::TopicPartitions;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{
    BrokerId, CreateTopicsRequest, ElectLeadersRequest, MetadataRequest,
};
use metaq_protocol::protocol::StrBytes;
use ordered::{Addresses, Book, End, Member, produce_in_order, read_all, record};
use parking_lot::Mutex;
use uuid::Uuid;

const NOT_LEADER: i16 = 6;
const ELIGIBLE_LEADERS_NOT_AVAILABLE: i16 = 83;
const UNCLEAN: i8 = 1;
/// A member that is silent for so long is thrown out.
const MEMBER_SESSION: Duration = Duration::from_millis(3000);

const SETTINGS: [&str; 7] = [
    SHORT_SESSION,
    "unclean.leader.election.enable=true",
    "group.consumer.min.session.timeout.ms=1000",
    "group.consumer.session.timeout.ms=3000",
    "group.consumer.min.heartbeat.interval.ms=100",
    "group.consumer.heartbeat.interval.ms=100",
    "group.consumer.assignment.interval.ms=0",
];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Makes a topic with the replicas that each of its partitions is to have; all brokers know it when this returns.
fn create(cluster: &Cluster, topic: &str, ordering: &str, replicas: &[&[i32]]) {
    let assignment = |(index, ids): (i32, &&[i32])| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(ids.iter().copied().map(BrokerId).collect())
    };
    let config = CreatableTopicConfig::default()
        .with_name(text("ordering"))
        .with_value(Some(text(ordering)));
    let new = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments((0..).zip(replicas).map(assignment).collect())
        .with_configs(vec![config]);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new])
        .with_timeout_ms(10_000);
    let made = cluster.nodes[0].client().ask(5, &request);
    assert_eq!(made.topics[0].error_code, 0, "{made:?}");
    let firsts: Vec<i32> = replicas.iter().map(|ids| ids[0]).collect();
    for node in &cluster.nodes {
        within(LONG, "the topic on every broker", || {
            led_by(node, topic) == firsts
        });
    }
}

fn led_by(node: &Node, topic: &str) -> Vec<i32> {
    let leaders = node.leaders(topic);
    leaders.into_iter().map(|(leader, _)| leader).collect()
}

fn id_of(node: &Node, topic: &str) -> Uuid {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    node.client().ask(12, &request).topics[0].topic_id
}

/// Appends numbered records to partition 0, each acknowledged by its leader alone.
fn append(client: &mut Client, topic: &str, numbers: std::ops::Range<usize>) {
    for n in numbers {
        assert_eq!(append_one(client, topic, n), 0, "{topic} {n}");
    }
}

fn append_one(client: &mut Client, topic: &str, n: usize) -> i16 {
    let answer = client.ask(9, &record(topic, 0, n, 1, None));
    answer.responses[0].partition_responses[0].error_code
}

/// Two topics on the same brokers, of which the one that leads both dies with records that it acknowledged and the other one has not got
/// yet: by ordinary order that one leads, and what follows is read without what came before; by strict order nothing is taken before
/// the first one is back, and everything is read.
fn what_a_dead_leader_acknowledged(cluster: &mut Cluster, home: i32, other: i32, controller: i32) {
    for ordering in ["ordinary", "strict"] {
        create(cluster, ordering, ordering, &[&[home, other]]);
    }
    let (home, other) = (home as usize, other as usize);
    let mut client = cluster.nodes[home].client();
    for topic in ["ordinary", "strict"] {
        assert_eq!(until_acks_all(&mut client, topic), 0);
        append(&mut client, topic, 1..5);
    }
    cluster.nodes[other].pause();
    for topic in ["ordinary", "strict"] {
        append(&mut client, topic, 5..15);
    }
    cluster.nodes[home].kill();
    cluster.nodes[other].resume();
    let watch = &cluster.nodes[controller as usize];
    within(LONG, "the other one to lead by ordinary order", || {
        led_by(watch, "ordinary") == [other as i32]
    });
    assert_eq!(led_by(watch, "strict"), [-1]);
    let mut client = cluster.nodes[other].client();
    within(LONG, "the other one to know that it leads", || {
        append_one(&mut client, "ordinary", 15) == 0
    });
    append(&mut client, "ordinary", 16..20);
    assert_eq!(append_one(&mut client, "strict", 15), NOT_LEADER);
    cluster.nodes[home].launch();
    let mut client = cluster.nodes[home].client();
    within(LONG, "the home broker to lead again", || {
        append_one(&mut client, "strict", 15) == 0
    });
    append(&mut client, "strict", 16..20);
    let addresses = Addresses::of(cluster);
    for topic in ["ordinary", "strict"] {
        within(LONG, "the last record to be committed", || {
            read_all(&addresses, topic, 0).last() == Some(&19)
        });
    }
    let all: Vec<usize> = (0..20).collect();
    assert_eq!(read_all(&addresses, "strict", 0), all);
    // The counter-test: what was acknowledged is missing before what came later.
    let read = read_all(&addresses, "ordinary", 0);
    let missing = (5..15).filter(|n| !read.contains(n)).count();
    assert!(
        missing > 0 && read.ends_with(&[15, 16, 17, 18, 19]),
        "{read:?}"
    );
}

/// The first record, with acks=all.
fn until_acks_all(client: &mut Client, topic: &str) -> i16 {
    let answer = client.ask(9, &record(topic, 0, 0, -1, None));
    answer.responses[0].partition_responses[0].error_code
}

/// Something that is done with brokers while records are produced and read, and who reads them changes.
struct Run<'a> {
    cluster: &'a mut Cluster,
    acknowledged: &'a [Mutex<usize>],
    book: &'a Book,
}

impl Run<'_> {
    /// Waits until more was acknowledged and read of each partition.
    fn until_it_goes_on(&self) {
        let acknowledged = || self.acknowledged.iter().map(|count| *count.lock());
        let before: Vec<usize> = acknowledged().collect();
        within(2 * LONG, "records to be acknowledged and read", || {
            let mut all = (0..).zip(acknowledged()).zip(&before);
            all.all(|((partition, count), before)| {
                count > before + 20 && self.book.read(partition) > *before
            })
        });
    }

    /// Kills the broker that leads a partition, which nobody does while it is away.
    fn kill_home(&mut self, partition: usize) {
        let cluster = &mut *self.cluster;
        let home = led_by(&cluster.nodes[0], "moved")[partition];
        cluster.nodes[home as usize].kill();
        let watch = cluster.other_than(home);
        within(LONG, "the broker to be gone", || {
            led_by(watch, "moved")[partition] == -1
        });
        // Others lead what is ordinary by then; this one has to wait.
        within(LONG, "the others to go on", || {
            led_by(watch, "witness").iter().all(|leader| *leader >= 0)
        });
        assert_eq!(led_by(watch, "moved")[partition], -1);
        cluster.nodes[home as usize].launch();
    }

    fn stop_home(&mut self, partition: usize) {
        let cluster = &mut *self.cluster;
        let home = led_by(&cluster.nodes[0], "moved")[partition];
        cluster.nodes[home as usize].stop();
        cluster.nodes[home as usize].launch();
    }

    /// Gives a partition another home broker, which leads it once it has everything.
    fn move_home(&self, partition: usize) {
        let cluster = &*self.cluster;
        let home = led_by(&cluster.nodes[0], "moved")[partition];
        let (next, last) = ((home + 1) % 3, (home + 2) % 3);
        cluster.nodes[0].reassign("moved", partition as i32, &[next, last]);
        within(2 * LONG, "the new home broker to lead", || {
            led_by(&cluster.nodes[0], "moved")[partition] == next
        });
    }

    /// Waits until a member owns partitions.
    fn until_owner(&self, member: &str) {
        within(2 * LONG, "a member to own something", || {
            self.book.owned_by(member) > 0
        });
    }
}

#[test]
fn consumed_order_is_produced_order_through_kills_moves_and_rebalances_and_ordinary_order_may_break()
 {
    let mut cluster = Cluster::start(3, &SETTINGS);
    let controller = cluster.nodes[0].controller();
    let mut others = (0..3).filter(|id| *id != controller);
    let (home, other) = (others.next().unwrap(), others.next().unwrap());
    what_a_dead_leader_acknowledged(&mut cluster, home, other, controller);

    create(
        &cluster,
        "witness",
        "ordinary",
        &[&[0, 1, 2], &[1, 2, 0], &[2, 0, 1]],
    );
    create(
        &cluster,
        "moved",
        "strict",
        &[&[home, other], &[other, controller]],
    );
    let topic = id_of(&cluster.nodes[0], "moved");
    let addresses = Addresses::of(&cluster);
    let book = Book::new(MEMBER_SESSION);
    let (stop, give_up) = (AtomicBool::new(false), AtomicBool::new(false));
    let acknowledged = [Mutex::new(0), Mutex::new(0)];
    let ends = [
        Mutex::new(End::Not),
        Mutex::new(End::Not),
        Mutex::new(End::Not),
    ];
    std::thread::scope(|scope| {
        let (addresses, book, ends) = (&addresses, &book, &ends);
        let (stop, give_up) = (&stop, &give_up);
        let produce = |(partition, acknowledged)| {
            scope.spawn(move || {
                produce_in_order(addresses, "moved", partition, (stop, give_up), acknowledged);
            })
        };
        let producers: Vec<_> = (0..).zip(&acknowledged).map(produce).collect();
        let join = |n: usize| {
            let member = Member::new(
                &format!("m{n}"),
                "ordered",
                ("moved", topic),
                addresses,
                book,
            );
            scope.spawn(move || member.run(&ends[n]))
        };
        let mut run = Run {
            cluster: &mut cluster,
            acknowledged: &acknowledged,
            book,
        };
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            join(0);
            run.until_owner("m0");
            run.until_it_goes_on();
            // One that is killed, while another member joins.
            join(1);
            run.kill_home(0);
            run.until_owner("m1");
            run.until_it_goes_on();
            // One that is stopped in order, and a member that leaves.
            *ends[0].lock() = End::Leaves;
            run.stop_home(1);
            run.until_it_goes_on();
            // Another home broker, and a member that dies.
            join(2);
            run.until_owner("m2");
            run.move_home(0);
            *ends[1].lock() = End::Dies;
            run.until_it_goes_on();
            assert!(run.book.handovers() >= 5, "{}", run.book.handovers());
            run.kill_home(1);
            run.until_it_goes_on();
            stop.store(true, Ordering::SeqCst);
            within(LONG, "everything to be acknowledged", || {
                producers.iter().all(|producer| producer.is_finished())
            });
            within(2 * LONG, "everything to be read", || {
                (0..)
                    .zip(&acknowledged)
                    .all(|(partition, count)| book.read(partition) == *count.lock())
            });
        }));
        give_up.store(true, Ordering::SeqCst);
        for end in ends {
            *end.lock() = End::Dies;
        }
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let addresses = Addresses::of(&cluster);
    for (partition, count) in (0..).zip(&acknowledged) {
        let all: Vec<usize> = (0..*count.lock()).collect();
        assert_eq!(read_all(&addresses, "moved", partition), all);
    }
}

fn metaq(node: &Node, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(words)
        .args(["--bootstrap", &node.address()])
        .output()
        .unwrap()
}

/// What `metaq` printed, where it did what it was told.
fn done(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complained of, and printed, where it did not.
fn refused(output: Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

const FAIL_OVER: [&str; 6] = ["partition", "fail-over", "--topic", "t", "--start", "0"];

#[test]
fn a_strict_partition_stays_with_its_home_broker_unless_an_operator_accepts_reordering() {
    let mut cluster = Cluster::start(3, &[SHORT_SESSION, "unclean.leader.election.enable=true"]);
    let controller = cluster.nodes[0].controller();
    let mut others = (0..3).filter(|id| *id != controller);
    let (home, other) = (others.next().unwrap(), others.next().unwrap());
    create(&cluster, "t", "strict", &[&[home, other]]);
    let (at_home, at_other) = (home as usize, other as usize);
    let watch = controller as usize;
    let first = produce(&mut cluster.nodes[at_home].client(), "t", 0);
    assert_eq!(first, (0, 0));
    // A drain moves nothing, and does not wait for what never happens.
    let id = home.to_string();
    let drained = refused(metaq(&cluster.nodes[watch], &["cluster", "drain", &id]));
    assert!(drained.contains("its order is strict"), "{drained}");
    assert_eq!(led_by(&cluster.nodes[watch], "t"), [home]);
    done(metaq(
        &cluster.nodes[watch],
        &["cluster", "drain", &id, "--undo"],
    ));
    let needless = [&FAIL_OVER[..], &["--accept-reordering"]].concat();
    let needless = refused(metaq(&cluster.nodes[watch], &needless));
    assert!(needless.contains("not needed"), "{needless}");
    // Nor does a stop in order.
    assert!(cluster.nodes[at_home].stop().success());
    let log = cluster.nodes[at_home].log();
    assert!(!log.contains("others do not lead all"), "{log}");
    within(LONG, "nobody to lead", || {
        led_by(&cluster.nodes[watch], "t") == [-1]
    });
    // Who asks for any replica is told what to do.
    let asked = TopicPartitions::default()
        .with_topic(name("t"))
        .with_partitions(vec![0]);
    let request = ElectLeadersRequest::default()
        .with_election_type(UNCLEAN)
        .with_topic_partitions(Some(vec![asked]))
        .with_timeout_ms(10_000);
    let answer = cluster.nodes[watch].client().ask(2, &request);
    let result = &answer.replica_election_results[0].partition_result[0];
    assert_eq!(result.error_code, ELIGIBLE_LEADERS_NOT_AVAILABLE);
    let why = result.error_message.as_deref().unwrap();
    assert!(
        why.contains("ordering=strict") && why.contains("fail-over"),
        "{why}"
    );
    let page = cluster.nodes[watch].page("/");
    assert!(page.contains("metaq partition fail-over"), "{page}");
    let careless = refused(metaq(&cluster.nodes[watch], &FAIL_OVER));
    assert!(careless.contains("--accept-reordering"), "{careless}");
    assert_eq!(led_by(&cluster.nodes[watch], "t"), [-1]);
    let accepted = [&FAIL_OVER[..], &["--accept-reordering"]].concat();
    let told = done(metaq(&cluster.nodes[watch], &accepted));
    assert!(told.contains("another replica leads"), "{told}");
    within(LONG, "the other one to lead", || {
        led_by(&cluster.nodes[watch], "t") == [other]
    });
    within(LONG, "the other one to know it", || {
        produce(&mut cluster.nodes[at_other].client(), "t", 0) == (0, 1)
    });
    // The home broker is back, copies, and leads.
    cluster.nodes[at_home].launch();
    within(LONG, "the home broker to lead again", || {
        led_by(&cluster.nodes[watch], "t") == [home]
    });
    within(LONG, "the home broker to know it", || {
        produce(&mut cluster.nodes[at_home].client(), "t", 0) == (0, 2)
    });
    // Given up while nobody leads.
    cluster.nodes[at_home].kill();
    within(LONG, "nobody to lead", || {
        led_by(&cluster.nodes[watch], "t") == [-1]
    });
    let ordinary = ["topic", "alter", "t", "--config", "ordering=ordinary"];
    done(metaq(&cluster.nodes[watch], &ordinary));
    within(LONG, "the other one to lead by itself", || {
        led_by(&cluster.nodes[watch], "t") == [other]
    });
}
