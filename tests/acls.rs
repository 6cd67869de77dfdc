//! Access control lists of a running broker. Everybody is User:ANONYMOUS here, so who may do what is told apart by where they
//! come from: 127.0.0.1 may do everything, 127.0.0.2 what a test gives it. What each API answers is held against Kafka by
//! compat-tests/acls.

mod common;

use std::path::Path;

use common::{Client, Running, batch, fetch_request, name, wait_for};
use metaq_protocol::ResponseError;
use metaq_protocol::messages::create_acls_request::AclCreation;
use metaq_protocol::messages::delete_acls_request::DeleteAclsFilter;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, InitProducerIdRequest,
    ListGroupsRequest, MetadataRequest,
};
use metaq_protocol::protocol::StrBytes;

const ADMIN: &str = "127.0.0.1";
const OTHER: &str = "127.0.0.2";
const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
const TRANSACTIONAL_ID: i8 = 5;
const ALL: i8 = 2;
const READ: i8 = 3;
const WRITE: i8 = 4;
const DENY: i8 = 2;
const ALLOW: i8 = 3;
const DENIED: i16 = ResponseError::TopicAuthorizationFailed.code();

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A literal binding of everybody at a host.
fn binding(host: &str, resource: i8, of: &str, operation: i8, permission: i8) -> AclCreation {
    AclCreation::default()
        .with_resource_type(resource)
        .with_resource_name(text(of))
        .with_resource_pattern_type(3)
        .with_principal(text("User:*"))
        .with_host(text(host))
        .with_operation(operation)
        .with_permission_type(permission)
}

fn create(client: &mut Client, bindings: Vec<AclCreation>) -> Vec<i16> {
    let request = CreateAclsRequest::default().with_creations(bindings);
    let answer = client.ask(3, &request);
    let codes = answer.results.iter().map(|result| result.error_code);
    codes.collect()
}

fn allow(client: &mut Client, resource: i8, of: &str, operation: i8) {
    let one = binding(OTHER, resource, of, operation, ALLOW);
    assert_eq!(create(client, vec![one]), [0]);
}

/// How many bindings are deleted of a resource that has this name.
fn delete(client: &mut Client, of: &str) -> usize {
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(1)
        .with_resource_name_filter(Some(text(of)))
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    let request = DeleteAclsRequest::default().with_filters(vec![filter]);
    let mut answer = client.ask(3, &request);
    let result = answer.filter_results.remove(0);
    assert_eq!((result.error_code, result.error_message), (0, None));
    result.matching_acls.len()
}

const AUTHORIZER: &str =
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";

/// A broker where 127.0.0.1 alone may do anything, with a topic `t`.
fn closed(data: &Path) -> Running {
    let open_until_closed = "allow.everyone.if.no.acl.found=true";
    let broker = Running::start(data, &[AUTHORIZER, open_until_closed]);
    let mut admin = broker.client();
    let all = [
        (CLUSTER, "kafka-cluster"),
        (TOPIC, "*"),
        (GROUP, "*"),
        (TRANSACTIONAL_ID, "*"),
    ];
    let all = all.map(|(resource, of)| binding(ADMIN, resource, of, ALL, ALLOW));
    assert_eq!(create(&mut admin, all.into()), [0; 4]);
    admin.create("t");
    broker
}

/// The code of a topic in the other one's metadata, and how many topics it sees.
fn seen(client: &mut Client, topic: &str) -> (i16, usize) {
    let one = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![one]))
        .with_allow_auto_topic_creation(true);
    let named = client.ask(12, &request);
    let all = client.ask(12, &MetadataRequest::default().with_topics(None));
    (named.topics[0].error_code, all.topics.len())
}

fn fetched(client: &mut Client) -> i16 {
    let answer = client.ask(12, &fetch_request("t", 0, 0));
    answer.responses[0].partitions[0].error_code
}

#[test]
fn who_has_no_right_sees_nothing_and_who_is_given_one_has_it_at_once_until_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let broker = closed(dir.path());
    let (mut admin, mut other) = (broker.client(), broker.client_from([127, 0, 0, 2]));
    assert_eq!(seen(&mut other, "t"), (DENIED, 0));
    assert_eq!(seen(&mut other, "nowhere"), (DENIED, 0));
    assert_eq!(other.produce("t", batch(1)).0, DENIED);
    assert_eq!(fetched(&mut other), DENIED);
    allow(&mut admin, TOPIC, "t", WRITE);
    assert_eq!(seen(&mut other, "t"), (0, 1));
    assert_eq!(other.produce("t", batch(1)).0, 0);
    assert_eq!(fetched(&mut other), DENIED);
    allow(&mut admin, TOPIC, "t", READ);
    assert_eq!(fetched(&mut other), 0);
    let deny = binding("*", TOPIC, "t", READ, DENY);
    assert_eq!(create(&mut admin, vec![deny]), [0]);
    assert_eq!((fetched(&mut other), fetched(&mut admin)), (DENIED, DENIED));
    assert_eq!(delete(&mut admin, "t"), 3);
    assert_eq!(seen(&mut other, "t"), (DENIED, 0));
    assert_eq!(fetched(&mut admin), 0);
    broker.stop();
}

#[test]
fn who_says_that_it_is_a_broker_and_may_not_be_one_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = closed(dir.path());
    let (mut admin, mut other) = (broker.client(), broker.client_from([127, 0, 0, 2]));
    admin.produce("t", batch(1));
    allow(&mut admin, TOPIC, "t", READ);
    let as_broker = fetch_request("t", 0, 0).with_replica_id(0.into());
    let answer = other.ask(12, &as_broker);
    assert_eq!(answer.error_code, 0);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, DENIED);
    assert!(
        partition
            .records
            .as_ref()
            .is_none_or(|records| records.is_empty())
    );
    broker.stop();
}

#[test]
fn a_missing_topic_is_created_for_who_may_create_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = closed(dir.path());
    let (mut admin, mut other) = (broker.client(), broker.client_from([127, 0, 0, 2]));
    allow(&mut admin, TOPIC, "u", READ);
    assert_eq!(seen(&mut other, "u"), (DENIED, 0));
    allow(&mut admin, TOPIC, "u", 5);
    assert_eq!(seen(&mut other, "u"), (0, 1));
    broker.stop();
}

#[test]
fn who_may_write_to_any_topic_may_do_so_idempotently() {
    let dir = tempfile::tempdir().unwrap();
    let broker = closed(dir.path());
    let (mut admin, mut other) = (broker.client(), broker.client_from([127, 0, 0, 2]));
    let idempotent = InitProducerIdRequest::default().with_transactional_id(None);
    let code = ResponseError::ClusterAuthorizationFailed.code();
    assert_eq!(other.ask(4, &idempotent).error_code, code);
    allow(&mut admin, TOPIC, "t", WRITE);
    assert_eq!(other.ask(4, &idempotent).error_code, 0);
    let transactional = idempotent.with_transactional_id(Some(text("x").into()));
    let code = ResponseError::TransactionalIdAuthorizationFailed.code();
    assert_eq!(other.ask(4, &transactional).error_code, code);
    broker.stop();
}

#[test]
fn bindings_are_there_after_a_restart_and_a_super_user_needs_none() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path()).stop();
    let broker = Running::start(dir.path(), &[AUTHORIZER]);
    let mut other = broker.client_from([127, 0, 0, 2]);
    assert_eq!(seen(&mut other, "t"), (DENIED, 0));
    assert_eq!(seen(&mut broker.client(), "t"), (0, 1));
    broker.stop();
    let super_user = "super.users=User:admin;User:ANONYMOUS";
    let broker = Running::start(dir.path(), &[AUTHORIZER, super_user]);
    let mut other = broker.client_from([127, 0, 0, 2]);
    assert_eq!(seen(&mut other, "t"), (0, 1));
    broker.stop();
}

#[test]
fn without_an_authorizer_nothing_is_denied_and_no_binding_is_made() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path()).stop();
    let broker = Running::start(dir.path(), &[]);
    let mut other = broker.client_from([127, 0, 0, 2]);
    assert_eq!(seen(&mut other, "t"), (0, 1));
    assert_eq!(other.ask(4, &ListGroupsRequest::default()).error_code, 0);
    let one = binding("*", TOPIC, "t", READ, ALLOW);
    let disabled = ResponseError::SecurityDisabled.code();
    assert_eq!(create(&mut other, vec![one]), [disabled]);
    broker.stop();
}

#[test]
fn what_is_wrong_with_one_binding_is_told_of_it_alone_and_code_zero_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = closed(dir.path());
    let (mut admin, mut other) = (broker.client(), broker.client_from([127, 0, 0, 2]));
    let right = binding(OTHER, TOPIC, "t", READ, ALLOW);
    let wrong = binding(OTHER, CLUSTER, "t", READ, ALLOW);
    let invalid = ResponseError::InvalidRequest.code();
    let both = vec![wrong, right.clone()];
    assert_eq!(create(&mut admin, both), [invalid, 0]);
    let code = ResponseError::ClusterAuthorizationFailed.code();
    assert_eq!(create(&mut other, vec![right.clone(); 2]), [code; 2]);
    let of_unknown_kind = DescribeAclsRequest::default()
        .with_resource_type_filter(99)
        .with_resource_name_filter(None)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    let none = admin.ask(3, &of_unknown_kind);
    assert_eq!((none.error_code, none.resources.len()), (0, 0));
    let every = of_unknown_kind.clone().with_resource_type_filter(1);
    assert_eq!(admin.ask(3, &every).resources.len(), 5);
    admin.send(3, &of_unknown_kind.with_resource_type_filter(0));
    assert!(admin.is_closed());
    let unreadable = CreateAclsRequest::default();
    let unreadable = unreadable.with_creations(vec![right.with_operation(0)]);
    other.send(3, &unreadable);
    assert!(other.is_closed());
    broker.stop();
}

#[test]
fn who_has_the_dashboards_token_is_above_bindings() {
    let dir = tempfile::tempdir().unwrap();
    let broker = closed(dir.path());
    wait_for("the topic's page", || {
        broker.page("/api/topics").contains("\"t\"")
    });
    broker.stop();
}
