//! Share groups (KIP-932) over the wire: members, what they are given, what they say of it, and what is stored.

mod common;
#[path = "common/share_members.rs"]
mod share_members;

use std::time::{Duration, Instant};

use common::{Client, Running, batch, wait_for};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use metaq_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
use metaq_protocol::messages::share_fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use metaq_protocol::messages::*;
use metaq_protocol::protocol::StrBytes;
use share_members::{GROUP, Member, Says, beat, broker, id_of, offset, set, text};
use uuid::Uuid;

#[test]
fn records_are_given_to_one_member_until_it_says_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    for _ in 0..2 {
        client.produce("t", batch(10));
    }
    let mut a = Member::join(&broker, "a", "t");
    let mut b = Member::join(&broker, "b", "t");
    let data = a.fetch(1000, &[]).unwrap();
    let acquired = &data.acquired_records;
    assert_eq!((acquired[0].first_offset, acquired[0].last_offset), (0, 19));
    let records = metaq_protocol::batch::Batches::new(&data.records);
    assert_eq!(records.count(), 2);
    assert_eq!(b.take(100, &[]), []);
    // One of each: the rest of what it said first counts as well.
    assert_eq!(
        a.take(1000, &[(0, 4, &[1]), (5, 5, &[2]), (6, 6, &[3])]),
        [(5, 5, 2)]
    );
    assert_eq!(offset(&mut client), (5, 14));
    assert_eq!(a.acknowledge(2, &[(5, 5, &[1]), (7, 19, &[1])]), (0, 0));
    assert_eq!(offset(&mut client), (20, 0));
    assert_eq!(b.take(0, &[]), []);
    broker.stop();
}

#[test]
fn a_broker_that_gives_nobody_messages_gives_a_member_none() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "numPartitions=1",
        "group.share.assignment.interval.ms=0",
        "acceptSubscribe=false",
    ];
    let broker = Running::start(dir.path(), &settings);
    let mut client = broker.client();
    client.create("t");
    set(&mut client, &[("share.auto.offset.reset", "earliest")]);
    client.produce("t", batch(10));
    let mut a = Member::join(&broker, "a", "t");
    let data = a.fetch(100, &[]).unwrap();
    let denied = ResponseError::TopicAuthorizationFailed.code();
    assert_eq!(
        (data.error_code, data.acquired_records.len()),
        (denied, 0),
        "{data:?}"
    );
    broker.stop();
}

#[test]
fn a_fetch_waits_for_records_and_for_what_others_give_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut a = Member::join(&broker, "a", "t");
    let mut b = Member::join(&broker, "b", "t");
    let began = Instant::now();
    assert_eq!(a.take(200, &[]), []);
    assert!(began.elapsed() >= Duration::from_millis(200));
    let request = a.request(20_000, &[]);
    a.next_epoch();
    a.client.send(2, &request);
    broker.client().produce("t", batch(3));
    let answer = a.client.receive::<ShareFetchRequest>(2).1;
    assert_eq!(
        answer.responses[0].partitions[0].acquired_records[0].last_offset,
        2
    );
    let request = b.request(20_000, &[]);
    b.next_epoch();
    b.client.send(2, &request);
    assert_eq!(a.acknowledge(2, &[(0, 2, &[1, 2, 1])]), (0, 0));
    let answer = b.client.receive::<ShareFetchRequest>(2).1;
    let acquired = &answer.responses[0].partitions[0].acquired_records;
    assert_eq!(
        (acquired[0].first_offset, acquired[0].delivery_count),
        (1, 2)
    );
    assert!(began.elapsed() < Duration::from_secs(15));
    broker.stop();
}

#[test]
fn a_record_that_is_released_is_given_out_again_when_its_pause_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    client.produce("t", batch(10));
    set(&mut client, &[("share.retry.backoff.ms", "700")]);
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    let began = Instant::now();
    assert_eq!(a.take(300, &[(0, 0, &[2])]), []);
    let mut b = Member::join(&broker, "b", "t");
    assert_eq!(b.take(5000, &[]), [(0, 0, 2)]);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    broker.stop();
}

#[test]
fn what_a_member_has_is_others_again_when_its_connection_or_its_session_ends() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    broker.client().produce("t", batch(3));
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 2, 1)]);
    drop(a);
    let mut b = Member::join(&broker, "b", "t");
    assert_eq!(b.take(10_000, &[]), [(0, 2, 2)]);
    // The last request of a session acknowledges some, and gives back the rest.
    assert_eq!(b.acknowledge(-1, &[(0, 0, &[1])]), (0, 0));
    let mut c = Member::join(&broker, "c", "t");
    assert_eq!(c.take(10_000, &[]), [(1, 2, 3)]);
    // A member that leaves its group.
    let left = c.client.ask(1, &beat("c", -1, None));
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
    let mut d = Member::join(&broker, "d", "t");
    let again: i64 = d.take(10_000, &[]).iter().map(|part| part.0).sum();
    assert_eq!(again, 1, "those that may be poison come one by one");
    broker.stop();
}

#[test]
fn what_was_accepted_is_done_after_a_restart_and_what_was_held_comes_again_with_its_count() {
    let dir = tempfile::tempdir().unwrap();
    let first = broker(&dir);
    first.client().produce("t", batch(10));
    let mut a = Member::join(&first, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    assert_eq!(
        a.acknowledge(1, &[(0, 1, &[1]), (5, 6, &[1]), (7, 7, &[2])]),
        (0, 0)
    );
    first.stop();
    let second = Running::start(dir.path(), &["numPartitions=1"]);
    let mut client = second.client();
    let described = client.ask(
        1,
        &ShareGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(GROUP))]),
    );
    assert_eq!(&*described.groups[0].group_state, "Stable");
    assert_eq!(&*described.groups[0].members[0].member_id, "a");
    let mut b = Member::join(&second, "b", "t");
    assert_eq!(b.take(1000, &[]), [(2, 4, 2), (7, 9, 2)]);
    second.stop();
}

#[test]
fn a_group_that_began_at_the_end_gets_what_came_while_nobody_read() {
    let dir = tempfile::tempdir().unwrap();
    let first = broker(&dir);
    let mut client = first.client();
    set(&mut client, &[("share.auto.offset.reset", "latest")]);
    client.produce("t", batch(5));
    // It begins, is given nothing, and says nothing.
    let mut a = Member::join(&first, "a", "t");
    assert_eq!(a.take(10, &[]), []);
    client.produce("t", batch(10));
    first.stop();
    let second = Running::start(dir.path(), &["numPartitions=1"]);
    let mut b = Member::join(&second, "b", "t");
    assert_eq!(b.take(1000, &[]), [(5, 14, 1)]);
    second.stop();
}

#[test]
fn a_request_that_names_too_many_partitions_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut a = Member::join(&broker, "a", "t");
    let partition = |n| FetchPartition::default().with_partition_index(n);
    let topic = FetchTopic::default()
        .with_topic_id(a.topic_id)
        .with_partitions((0..20_000).map(partition).collect());
    let request = a.request(0, &[]).with_topics(vec![topic]);
    let answer = a.client.ask(2, &request);
    assert_eq!(answer.error_code, ResponseError::InvalidRequest.code());
    broker.stop();
}

#[test]
fn requests_that_do_not_fit_are_refused_as_by_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    broker.client().produce("t", batch(3));
    let mut a = Member::join(&broker, "a", "t");
    let code = |error: ResponseError| error.code();
    assert_eq!(
        a.acknowledge(1, &[]).0,
        code(ResponseError::ShareSessionNotFound)
    );
    assert_eq!(
        a.acknowledge(0, &[]).0,
        code(ResponseError::InvalidShareSessionEpoch)
    );
    let first = a.request(0, &[(0, 0, &[1])]);
    let refused = a.client.ask(2, &first);
    assert_eq!(refused.error_code, code(ResponseError::InvalidRequest));
    assert_eq!(a.take(1000, &[]), [(0, 2, 1)]);
    assert_eq!(
        a.acknowledge(7, &[]).0,
        code(ResponseError::InvalidShareSessionEpoch)
    );
    let said: [(&[Says], ResponseError); 4] = [
        (&[(0, 3, &[1])], ResponseError::InvalidRequest),
        (&[(0, 1, &[1, 1, 1])], ResponseError::InvalidRequest),
        (&[(0, 0, &[4])], ResponseError::InvalidRequest),
        (&[(2, 1, &[1])], ResponseError::InvalidRequest),
    ];
    for (said, error) in said {
        let epoch = a.session_epoch;
        assert_eq!(a.acknowledge(epoch, said), (0, code(error)), "{said:?}");
    }
    let mut b = Member::join(&broker, "b", "t");
    b.take(0, &[]);
    let other = b.acknowledge(1, &[(0, 2, &[1])]);
    assert_eq!(other, (0, code(ResponseError::InvalidRecordState)));
    // A topic that is not there.
    a.topic_id = Uuid::from_u128(5);
    let unknown = a.fetch(0, &[]).unwrap();
    assert_eq!(unknown.error_code, code(ResponseError::UnknownTopicId));
    let no_member = ShareFetchRequest::default().with_group_id(Some(GroupId(text(GROUP))));
    let refused = a.client.ask(1, &no_member);
    assert_eq!(refused.error_code, code(ResponseError::InvalidRequest));
    broker.stop();
}

#[test]
fn a_forgotten_partition_gives_nothing_and_a_renewal_asks_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    broker.client().produce("t", batch(3));
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 2, 1)]);
    let renews = |a: &mut Member, max_records| {
        let request = a
            .request(0, &[(0, 2, &[4])])
            .with_is_renew_ack(true)
            .with_min_bytes(0)
            .with_max_bytes(0)
            .with_max_records(max_records);
        a.client.ask(2, &request)
    };
    let refused = renews(&mut a, 1);
    assert_eq!(refused.error_code, ResponseError::InvalidRequest.code());
    let renewed = renews(&mut a, 0);
    assert_eq!(renewed.error_code, 0);
    assert_eq!(renewed.responses[0].partitions[0].acknowledge_error_code, 0);
    a.next_epoch();
    broker.client().produce("t", batch(3));
    let forgotten = ForgottenTopic::default()
        .with_topic_id(a.topic_id)
        .with_partitions(vec![0]);
    let request = a
        .request(100, &[])
        .with_topics(Vec::new())
        .with_forgotten_topics_data(vec![forgotten]);
    a.next_epoch();
    assert_eq!(a.client.ask(2, &request).responses, []);
    assert_eq!(a.take(1000, &[]), [(3, 5, 1)]);
    broker.stop();
}

/// Sets the group's offset of the partition; the group's error and the partition's.
fn alter(client: &mut Client, start: i64) -> i16 {
    let partition = AlterShareGroupOffsetsRequestPartition::default().with_start_offset(start);
    let topic = AlterShareGroupOffsetsRequestTopic::default()
        .with_topic_name(common::name("t"))
        .with_partitions(vec![partition]);
    let request = AlterShareGroupOffsetsRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_topics(vec![topic]);
    let answer = client.ask(0, &request);
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let codes = partitions.map(|partition| partition.error_code);
    codes
        .chain([answer.error_code])
        .find(|code| *code != 0)
        .unwrap_or(0)
}

/// What a broker would tell the coordinator of the share partition.
fn initialize_state(client: &mut Client, topic_id: Uuid, state_epoch: i32) {
    let partition = initialize_share_group_state_request::PartitionData::default()
        .with_state_epoch(state_epoch)
        .with_start_offset(3);
    let topic = initialize_share_group_state_request::InitializeStateData::default()
        .with_topic_id(topic_id)
        .with_partitions(vec![partition]);
    let request = InitializeShareGroupStateRequest::default()
        .with_group_id(text(GROUP))
        .with_topics(vec![topic]);
    client.send_as(metaq::api::FORWARDED, 0, &request);
    let (_, answer) = client.receive::<InitializeShareGroupStateRequest>(0);
    assert_eq!(answer.results[0].partitions[0].error_code, 0);
}

fn delete_state(client: &mut Client, topic_id: Uuid) {
    let topic = delete_share_group_state_request::DeleteStateData::default()
        .with_topic_id(topic_id)
        .with_partitions(vec![Default::default()]);
    let request = DeleteShareGroupStateRequest::default()
        .with_group_id(text(GROUP))
        .with_topics(vec![topic]);
    client.send_as(metaq::api::FORWARDED, 0, &request);
    let (_, answer) = client.receive::<DeleteShareGroupStateRequest>(0);
    assert_eq!(answer.results[0].partitions[0].error_code, 0);
}

#[test]
fn an_offset_beyond_the_end_of_the_log_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    client.produce("t", batch(10));
    assert_eq!(alter(&mut client, 1000), 0);
    assert_eq!(offset(&mut client).0, 10);
    assert_eq!(alter(&mut client, -2), ResponseError::InvalidRequest.code());
    client.produce("t", batch(10));
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(10, 19, 1)]);
    broker.stop();
}

#[test]
fn what_an_earlier_group_of_the_name_left_is_not_in_the_way_of_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    let topic_id = id_of(&mut client, "t");
    client.produce("t", batch(10));
    initialize_state(&mut client, topic_id, 50);
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    assert_eq!(a.client.ask(1, &beat("a", -1, None)).error_code, 0);
    initialize_state(&mut client, topic_id, 90);
    assert_eq!(alter(&mut client, 6), 0);
    assert_eq!(offset(&mut client).0, 6);
    broker.stop();
}

#[test]
fn a_group_goes_on_where_what_is_stored_of_a_partition_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    let topic_id = id_of(&mut client, "t");
    client.produce("t", batch(10));
    let mut a = Member::join(&broker, "a", "t");
    delete_state(&mut client, topic_id);
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    assert_eq!(a.acknowledge(1, &[(0, 9, &[1])]), (0, 0));
    assert_eq!(offset(&mut client).0, 10);
    broker.stop();
}

#[test]
fn offsets_are_set_and_deleted_while_the_group_has_no_members() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    client.produce("t", batch(10));
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    assert_eq!(a.acknowledge(1, &[(0, 9, &[1])]), (0, 0));
    let delete = |client: &mut Client| {
        let topic =
            DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(common::name("t"));
        let request = DeleteShareGroupOffsetsRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_topics(vec![topic]);
        let answer = client.ask(0, &request);
        (
            answer.error_code,
            answer.responses.first().map(|topic| topic.error_code),
        )
    };
    let busy = ResponseError::NonEmptyGroup.code();
    assert_eq!(alter(&mut client, 4), busy);
    assert_eq!(delete(&mut client), (busy, None));
    assert_eq!(a.client.ask(1, &beat("a", -1, None)).error_code, 0);
    assert_eq!(alter(&mut client, 4), 0);
    assert_eq!(offset(&mut client), (4, 6));
    let mut b = Member::join(&broker, "b", "t");
    assert_eq!(
        b.take(1000, &[]),
        [(4, 9, 1)],
        "also where a leader knew better"
    );
    assert_eq!(b.client.ask(1, &beat("b", -1, None)).error_code, 0);
    assert_eq!(delete(&mut client), (0, Some(0)));
    assert_eq!(offset(&mut client), (-1, -1));
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(delete(&mut client), (0, Some(unknown)));
    broker.stop();
}

#[test]
fn a_share_group_is_listed_described_and_deleted_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    let a = Member::join(&broker, "a", "t");
    let listed = client.ask(5, &ListGroupsRequest::default());
    assert_eq!(listed.groups.len(), 1);
    assert_eq!(&*listed.groups[0].group_type, "share");
    let page = broker.page("/api/groups/g");
    assert!(page.contains(r#""kind":"share""#), "{page}");
    assert!(page.contains(r#""owner":"a""#), "{page}");
    let describe = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(GROUP))]);
    let classic = client.ask(6, &describe);
    assert_eq!(
        classic.groups[0].error_code,
        ResponseError::GroupIdNotFound.code()
    );
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(GROUP))]);
    let busy = client.ask(2, &delete).results[0].error_code;
    assert_eq!(busy, ResponseError::NonEmptyGroup.code());
    drop(a);
    assert_eq!(client.ask(1, &beat("a", -1, None)).error_code, 0);
    assert_eq!(client.ask(2, &delete).results[0].error_code, 0);
    let unknown = client.ask(1, &beat("a", 1, None));
    assert_eq!(unknown.error_code, ResponseError::GroupIdNotFound.code());
    assert_eq!(client.ask(5, &ListGroupsRequest::default()).groups, []);
    broker.stop();
}

#[test]
fn a_topic_that_is_deleted_takes_what_groups_did_with_it_along() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    client.produce("t", batch(3));
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 2, 1)]);
    assert_eq!(a.acknowledge(1, &[(0, 2, &[1])]), (0, 0));
    let topic =
        delete_topics_request::DeleteTopicState::default().with_name(Some(common::name("t")));
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    assert_eq!(client.ask(6, &request).responses[0].error_code, 0);
    wait_for("the group forgets it", || offset(&mut client) == (-1, -1));
    client.create("t");
    client.produce("t", batch(2));
    let again = a.client.ask(1, &beat("a", 0, Some(&["t"])));
    assert_eq!(again.error_code, 0);
    a.topic_id = id_of(&mut client, "t");
    a.session_epoch = 0;
    assert_eq!(a.take(1000, &[]), [(0, 1, 1)]);
    broker.stop();
}

/// A code, and the text beside it.
fn refused(error: ResponseError, why: Option<&str>) -> (i16, Option<StrBytes>) {
    (error.code(), why.map(text))
}

#[test]
fn what_is_no_share_group_is_refused_in_kafkas_words() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("c")))
        .with_topics(vec![
            offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(common::name("t"))
                .with_partitions(vec![Default::default()]),
        ]);
    let committed = &client.ask(8, &commit).topics[0].partitions[0];
    assert_eq!(committed.error_code, 0);
    let mut alter = |group: &str| {
        let request = AlterShareGroupOffsetsRequest::default().with_group_id(GroupId(text(group)));
        let answer = client.ask(0, &request);
        (answer.error_code, answer.error_message)
    };
    let (nameless, other) = (
        refused(
            ResponseError::InvalidGroupId,
            Some("The group id is invalid."),
        ),
        refused(
            ResponseError::GroupIdNotFound,
            Some("Group c is not a share group."),
        ),
    );
    assert_eq!(alter(""), nameless);
    assert_eq!(alter("c"), other);
    let mut delete = |group: &str| {
        let topics = ["t", "nowhere"].map(|name| {
            DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(common::name(name))
        });
        let request = DeleteShareGroupOffsetsRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(topics.to_vec());
        let answer = client.ask(0, &request);
        let of_topics = answer.responses.into_iter();
        let of_topics = of_topics.map(|topic| (topic.topic_id, topic.error_message));
        let of_topics: Vec<_> = of_topics.collect();
        ((answer.error_code, answer.error_message), of_topics)
    };
    assert_eq!(delete("").0, nameless);
    assert_eq!(delete("c").0, other);
    let unknown = refused(ResponseError::GroupIdNotFound, Some("Group u not found."));
    assert_eq!(delete("u").0, unknown);
    let a = Member::join(&broker, "a", "t");
    let busy = refused(
        ResponseError::NonEmptyGroup,
        Some("The group is not empty."),
    );
    assert_eq!(delete(GROUP).0, busy);
    drop(a);
    assert_eq!(broker.client().ask(1, &beat("a", -1, None)).error_code, 0);
    assert_eq!(delete(GROUP).0, (0, None));
    let nothing = "There is no offset information to delete.";
    let nowhere = "This server does not host this topic-partition.";
    let nil = Uuid::nil();
    let of_topics = vec![(nil, Some(text(nothing))), (nil, Some(text(nowhere)))];
    assert_eq!(delete(GROUP), ((0, None), of_topics));
    broker.stop();
}

#[test]
fn what_describes_no_share_group_or_names_no_member_is_refused_as_by_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    let _a = Member::join(&broker, "a", "t");
    let names = [GROUP, ""].map(|name| GroupId(text(name)));
    let request = ShareGroupDescribeRequest::default()
        .with_group_ids(names.to_vec())
        .with_include_authorized_operations(true);
    let groups = client.ask(1, &request).groups;
    assert_eq!(groups[0].error_code, 0);
    assert_ne!(groups[0].authorized_operations, i32::MIN);
    assert_eq!(groups[1].authorized_operations, i32::MIN);
    let described = (groups[1].error_code, groups[1].error_message.clone());
    assert_eq!(described, refused(ResponseError::InvalidGroupId, None));
    let invalid = refused(ResponseError::InvalidRequest, None);
    let nobody = beat("", 0, Some(&["t"])).with_group_id(GroupId(text("")));
    let answer = client.ask(1, &nobody);
    assert_eq!((answer.error_code, answer.error_message), invalid);
    let answer = client.ask(2, &ShareFetchRequest::default().with_group_id(None));
    assert_eq!((answer.error_code, answer.error_message), invalid);
    let answer = client.ask(2, &ShareAcknowledgeRequest::default().with_group_id(None));
    assert_eq!((answer.error_code, answer.error_message), invalid);
    broker.stop();
}
