//! Broadcast groups, whose members get everything each, as their clients and operators see them.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::process::Command;

use cluster::{Cluster, LONG, Member, Node, commit, committed, create, until_produced, within};
use common::{Client, name};
use metaq_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use metaq_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use metaq_protocol::messages::streams_group_heartbeat_request::{Subtopology, Topology};
use metaq_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
    ShareGroupHeartbeatRequest, StreamsGroupHeartbeatRequest,
};
use metaq_protocol::protocol::StrBytes;

const GROUP: &str = "push";

fn group_id() -> GroupId {
    GroupId(StrBytes::from_static_str(GROUP))
}

/// What `metaq` prints.
fn metaq(node: &Node, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(words)
        .args(["--bootstrap", &node.address()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn broadcast(node: &Node) {
    let mode = "metaq.consume.mode=broadcast";
    metaq(node, &["config", "set", "group", GROUP, mode]);
}

/// All of a topic with two partitions.
fn all_of(topic: &str) -> Vec<u8> {
    let mut assignment = vec![0, 0, 0, 0, 0, 1, 0, topic.len() as u8];
    assignment.extend(topic.as_bytes());
    assignment.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    assignment
}

/// A member that has a connection of its own.
struct Reader {
    client: Client,
    member: Member,
}

impl Reader {
    fn join(node: &Node, instance: Option<&str>) -> Self {
        let mut client = node.client();
        let member = Member::join_assigned(&mut client, GROUP, instance, "t", all_of("t"));
        Self { client, member }
    }

    fn commit(&mut self, offset: i64) -> i16 {
        self.member.commit(&mut self.client, "t", 0, offset)
    }

    fn committed(&mut self) -> Result<i64, i16> {
        committed(&mut self.client, GROUP, "t", 0)
    }
}

fn each_member_has_offsets_of_its_own(node: &mut Node) {
    create(&mut node.client(), "t", 2);
    for _ in 0..3 {
        until_produced(node, "t", 0);
    }
    broadcast(node);
    let instances = [Some("i"), Some("j"), None, None];
    let mut readers = instances.map(|instance| Reader::join(node, instance));
    for (reader, offset) in readers.iter_mut().zip([3, 2, 0, 1]) {
        assert_eq!(reader.commit(offset), 0);
    }
    // The last two call themselves the same.
    let own = readers.each_mut().map(Reader::committed);
    assert_eq!(own, [Ok(3), Ok(2), Ok(1), Ok(1)]);
    for reader in &mut readers {
        assert_eq!(reader.member.heartbeat(&mut reader.client), 0);
        let assigned = reader.member.assignment(&mut reader.client);
        assert_eq!(assigned, Ok(all_of("t")));
    }
    shown(node);
    no_other_kind_takes_its_name(node);
    assert_eq!(readers[0].member.heartbeat(&mut readers[0].client), 0);
    node.kill();
    node.launch();
    within(LONG, "the group is there again", || {
        committed(&mut node.client(), GROUP, "u", 0) == Ok(-1)
    });
    for (reader, expected) in readers.iter_mut().zip([3, 2, 1, 1]) {
        reader.client = node.client();
        assert_eq!(
            reader.member.heartbeat(&mut reader.client),
            0,
            "not joined again"
        );
        assert_eq!(reader.commit(expected), 0);
    }
    let mut back = instances.map(|instance| Reader::join(node, instance));
    let own = back.each_mut().map(Reader::committed);
    assert_eq!(own, [Ok(3), Ok(2), Ok(1), Ok(1)]);
    // Whose name was taken over learns of it, the others do not notice.
    let codes = readers
        .each_mut()
        .map(|reader| reader.member.heartbeat(&mut reader.client));
    assert_eq!(codes, [25, 25, 0, 0]);
}

/// Members of other kinds of groups are told that it is none of theirs.
fn no_other_kind_takes_its_name(node: &Node) {
    const GROUP_ID_NOT_FOUND: i16 = 69;
    let mut client = node.client();
    let member = || StrBytes::from_static_str("another");
    let share = ShareGroupHeartbeatRequest::default()
        .with_group_id(group_id())
        .with_member_id(member())
        .with_subscribed_topic_names(Some(vec![name("t")]));
    let told = client.ask(1, &share);
    assert_eq!(told.error_code, GROUP_ID_NOT_FOUND, "{told:?}");
    let source = Subtopology::default()
        .with_subtopology_id(StrBytes::from_static_str("0"))
        .with_source_topics(vec![name("t")]);
    let topology = Topology::default().with_subtopologies(vec![source]);
    let streams = StreamsGroupHeartbeatRequest::default()
        .with_group_id(group_id())
        .with_member_id(member())
        .with_rebalance_timeout_ms(30_000)
        .with_topology(Some(topology))
        .with_active_tasks(Some(Vec::new()))
        .with_standby_tasks(Some(Vec::new()))
        .with_warmup_tasks(Some(Vec::new()))
        .with_process_id(Some(member()));
    let told = client.ask(0, &streams);
    assert_eq!(told.error_code, GROUP_ID_NOT_FOUND, "{told:?}");
}

/// What others see: the group once, with all members, and the slowest one's offset.
fn shown(node: &Node) {
    let mut admin = node.client();
    // It calls itself as some members do.
    admin.send_as("admin", 2, &ListGroupsRequest::default());
    let (_, listed) = admin.receive::<ListGroupsRequest>(2);
    let listed: Vec<&str> = listed
        .groups
        .iter()
        .map(|group| &*group.group_id.0)
        .collect();
    assert_eq!(listed, [GROUP]);
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id()]);
    let described = &admin.ask(5, &request).groups[0];
    assert_eq!(&*described.group_state, "Stable");
    assert_eq!(described.members.len(), 4);
    for member in &described.members {
        assert_eq!(member.member_assignment.to_vec(), all_of("t"));
    }
    let told = metaq(node, &["group", "describe", GROUP]);
    let lags: Vec<Vec<&str>> = told
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() > 5 && words[0] == "t" && words[1] == "0")
        .map(|words| words[3..6].to_vec())
        .collect();
    assert_eq!(lags.len(), 4, "{told}");
    for expected in [["3", "3", "0"], ["2", "3", "1"], ["1", "3", "2"]] {
        assert!(lags.contains(&expected.to_vec()), "{told}");
    }
    let page = node.page(&format!("/groups/{GROUP}"));
    for expected in ["at 3 (0 behind)", "at 2 (1 behind)", "at 1 (2 behind)"] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let page = node.page(&format!("/api/groups/{GROUP}"));
    let group: serde_json::Value =
        serde_json::from_str(page.split("\r\n\r\n").last().unwrap()).unwrap();
    let of_partition_0 = group["partitions"].as_array().unwrap().iter();
    let mut of_partition_0 = of_partition_0.filter(|row| row["partition"] == 0);
    let row = of_partition_0.next().unwrap();
    assert_eq!((&row["committed"], &row["lag"]), (&1.into(), &2.into()));
}

#[test]
fn members_have_offsets_of_their_own_that_outlive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    each_member_has_offsets_of_its_own(&mut Node::start(dir.path(), 0, "", &[]));
}

#[test]
fn members_have_offsets_of_their_own_that_outlive_a_kill_on_zookeeper() {
    let mut cluster = Cluster::start(1, &[]);
    each_member_has_offsets_of_its_own(&mut cluster.nodes[0]);
    let tree = cluster.tree();
    for (of, offset) in [("instances/j", 2), ("clients/test", 1)] {
        let path = format!("/consumers/{GROUP}/broadcast/{of}/offsets/t/0-0");
        let node = tree.get(&path).unwrap();
        assert!(node.contains(&format!("\"offset\":{offset}")), "{node}");
    }
}

#[test]
fn offsets_are_set_for_all_members_from_outside_while_none_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 0, "", &[]);
    create(&mut node.client(), "t", 2);
    broadcast(&node);
    let mut admin = node.client();
    let nobody = (-1, "");
    assert_eq!(
        commit(&mut admin, GROUP, nobody, "t", 0, 7),
        22,
        "it has nobody yet"
    );
    let mut reader = Reader::join(&node, Some("i"));
    assert_eq!(reader.commit(9), 0);
    assert_eq!(commit(&mut admin, GROUP, nobody, "t", 0, 7), 25);
    reader.member.leave(&mut reader.client);
    assert_eq!(commit(&mut admin, GROUP, nobody, "t", 0, 7), 0);
    assert_eq!(Reader::join(&node, Some("i")).committed(), Ok(7));
}

/// A member that speaks KIP-848.
struct Newer {
    client: Client,
    id: &'static str,
    instance: Option<&'static str>,
    epoch: i32,
}

impl Newer {
    fn join(node: &Node, id: &'static str, instance: Option<&'static str>) -> Self {
        let mut member = Self {
            client: node.client(),
            id,
            instance,
            epoch: 0,
        };
        let answer = member.beat();
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        let assigned = &answer.assignment.unwrap().topic_partitions;
        assert_eq!(
            (assigned.len(), &assigned[0].partitions[..]),
            (1, &[0, 1][..])
        );
        member.epoch = answer.member_epoch;
        member
    }

    fn beat(&mut self) -> ConsumerGroupHeartbeatResponse {
        let joins = self.epoch == 0;
        // As librdkafka does.
        let instance = self.instance.filter(|_| self.epoch <= 0);
        let beat = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id())
            .with_member_id(StrBytes::from_static_str(self.id))
            .with_member_epoch(self.epoch)
            .with_instance_id(instance.map(StrBytes::from_static_str))
            .with_rebalance_timeout_ms(if joins { 30_000 } else { -1 })
            .with_subscribed_topic_names(joins.then(|| vec![name("t")]))
            .with_topic_partitions(joins.then(Vec::new));
        self.client.ask(1, &beat)
    }

    fn commit(&mut self, offset: i64) -> i16 {
        let one = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![one]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id())
            .with_generation_id_or_member_epoch(self.epoch)
            .with_member_id(StrBytes::from_static_str(self.id))
            .with_group_instance_id(self.instance.map(StrBytes::from_static_str))
            .with_topics(vec![topic]);
        let answer = self.client.ask(9, &request);
        answer.topics[0].partitions[0].error_code
    }

    fn committed(&mut self, epoch: i32) -> Result<i64, i16> {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group_id())
            .with_member_id(Some(StrBytes::from_static_str(self.id)))
            .with_member_epoch(epoch)
            .with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        let answer = self.client.ask(9, &request);
        match answer.groups[0].error_code {
            0 => Ok(answer.groups[0].topics[0].partitions[0].committed_offset),
            code => Err(code),
        }
    }
}

const STALE_MEMBER_EPOCH: i16 = 113;
const GROUP_ID_NOT_FOUND: i16 = 69;

fn members_of_the_newer_protocol_stand_alone_too(node: &mut Node) {
    create(&mut node.client(), "t", 2);
    for _ in 0..3 {
        until_produced(node, "t", 0);
    }
    broadcast(node);
    let instances = [("a", Some("i")), ("b", Some("j")), ("c", None), ("d", None)];
    let mut members = instances.map(|(id, instance)| Newer::join(node, id, instance));
    // One of the older protocol beside them, that calls itself as the last two do.
    let mut classic = Reader::join(node, None);
    for (member, offset) in members.iter_mut().zip([3, 2, 0, 1]) {
        assert_eq!(member.commit(offset), 0);
    }
    let own = members
        .each_mut()
        .map(|member| member.committed(member.epoch));
    assert_eq!(own, [Ok(3), Ok(2), Ok(1), Ok(1)]);
    assert_eq!(classic.committed(), Ok(1));
    let epoch = members[0].epoch;
    assert_eq!(members[0].committed(epoch + 1), Err(STALE_MEMBER_EPOCH));
    // Without its id, by its connection: as librdkafka does.
    let unnamed = members
        .each_mut()
        .map(|member| committed(&mut member.client, GROUP, "t", 0));
    assert_eq!(unnamed, [Ok(3), Ok(2), Ok(1), Ok(1)]);
    for member in &mut members {
        let answer = member.beat();
        assert_eq!((answer.error_code, answer.member_epoch), (0, member.epoch));
    }
    seen_as_a_consumer_group(node);
    node.kill();
    node.launch();
    within(LONG, "the group is there again", || {
        committed(&mut node.client(), GROUP, "u", 0) == Ok(-1)
    });
    for (member, expected) in members.iter_mut().zip([3, 2, 1, 1]) {
        member.client = node.client();
        assert_eq!(member.beat().error_code, 0, "not joined again");
        assert_eq!(member.committed(member.epoch), Ok(expected));
    }
    // All leave, and the offsets are those of the names.
    classic.client = node.client();
    assert_eq!(classic.member.leave(&mut classic.client), 0);
    for member in &mut members {
        member.epoch = -1;
        assert_eq!(member.beat().error_code, 0);
    }
    let mut back = [
        Newer::join(node, "e", Some("j")),
        Newer::join(node, "f", None),
    ];
    let own = back.each_mut().map(|member| member.committed(member.epoch));
    assert_eq!(own, [Ok(2), Ok(1)]);
}

/// What others see of members of both protocols.
fn seen_as_a_consumer_group(node: &Node) {
    let mut admin = node.client();
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id()]);
    let described = &admin.ask(6, &request).groups[0];
    assert_eq!(described.error_code, GROUP_ID_NOT_FOUND);
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id()]);
    let described = &admin.ask(1, &request).groups[0];
    assert_eq!(described.error_code, 0);
    assert_eq!(&*described.group_state, "Stable");
    assert_eq!(&*described.assignor_name, "broadcast");
    assert_eq!(described.members.len(), 5);
    for member in &described.members {
        let assigned = &member.assignment.topic_partitions;
        assert_eq!(
            (assigned.len(), &assigned[0].partitions[..]),
            (1, &[0, 1][..])
        );
        assert_eq!(member.target_assignment, member.assignment);
        let is_classic = member.member_type == 0;
        assert_eq!(
            is_classic,
            !["a", "b", "c", "d"].contains(&&*member.member_id)
        );
    }
    let told = metaq(node, &["group", "describe", GROUP]);
    let lines = told
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_partition_0: Vec<_> = lines
        .filter(|words| words.len() > 5 && words[0] == "t" && words[1] == "0")
        .map(|words| words[3..6].to_vec())
        .collect();
    assert_eq!(of_partition_0.len(), 5, "{told}");
    for expected in [["3", "3", "0"], ["2", "3", "1"], ["1", "3", "2"]] {
        assert!(of_partition_0.contains(&expected.to_vec()), "{told}");
    }
    assert!(!told.contains("is in epoch"), "{told}");
    let page = node.page(&format!("/groups/{GROUP}"));
    for expected in ["at 3 (0 behind)", "at 2 (1 behind)", "at 1 (2 behind)"] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
}

#[test]
fn members_of_the_newer_protocol_have_offsets_of_their_own_that_outlive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    members_of_the_newer_protocol_stand_alone_too(&mut Node::start(dir.path(), 0, "", &[]));
}

#[test]
fn members_of_the_newer_protocol_have_offsets_of_their_own_that_outlive_a_kill_on_zookeeper() {
    let mut cluster = Cluster::start(1, &[]);
    members_of_the_newer_protocol_stand_alone_too(&mut cluster.nodes[0]);
}
