//! One file a Kafka API, named for it. A handler gets a decoded request and gives the latest version's response
//! type; the loops that they share (look up, fill the error, keep order) live here and in `shared`.

mod acl_bindings;
mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod admission;
mod alter_client_quotas;
mod alter_configs;
mod alter_partition;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod alter_share_group_offsets;
mod alter_user_scram_credentials;
mod api_versions;
mod applied;
mod ask_here;
mod audit;
mod authorize;
mod charge;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod context;
mod create_acls;
mod create_delegation_token;
mod create_partitions;
mod create_topics;
mod dead_letter_batch;
mod dead_letters;
mod delegation_tokens;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_share_group_offsets;
mod delete_share_group_state;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_delegation_token;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_share_group_offsets;
mod describe_topic_partitions;
mod describe_transactions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod end_txn;
mod envelope;
mod errors;
mod expire_delegation_token;
mod fetch;
mod fetch_line;
mod fetch_read;
mod fetch_sessions;
mod fetch_throttle;
mod fetch_wait;
mod find_coordinator;
mod forward;
mod get_telemetry_subscriptions;
mod heartbeat;
mod in_transaction;
mod incremental_alter_configs;
mod init_producer_id;
mod initialize_share_group_state;
mod internal_topics;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod order;
mod own_task;
mod produce;
mod produce_queue;
mod produce_refusal;
mod produce_request;
mod push_telemetry;
mod read_share_group_state;
mod read_share_group_state_summary;
mod renew_delegation_token;
mod reply;
mod request_log;
mod room;
mod sasl_authenticate;
mod sasl_handshake;
mod share_acknowledge;
mod share_acknowledgements;
mod share_fetch;
mod share_group_describe;
mod share_group_heartbeat;
mod share_in_flight;
mod share_lost_state;
mod share_progress;
mod share_read;
mod share_settings;
mod share_state_admin;
mod share_state_requests;
mod share_state_tags;
mod share_states;
mod share_wait;
mod shared;
mod streams_group_describe;
mod streams_group_heartbeat;
mod sync_group;
mod thread_time;
mod transaction_check;
mod txn_offset_commit;
mod unregister_broker;
mod update_features;
mod write_share_group_state;
mod write_txn_markers;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use metaq_protocol::frame::{self, FrameError, RequestFrame};
use metaq_protocol::messages::ApiKey;
use metaq_protocol::protocol::Request;
use metaq_protocol::versions;

use crate::log::Slice;
use crate::quota::QuotaKind;

use authorize::Needs;
use order::Order;
use reply::{Reply, Throttled};

pub use admission::{expects_token, refusal, take_token};
pub use alter_partition::{alter_partitions_here, eligible_in};
pub use api_versions::unsupported_version;
pub use authorize::{Resource, has_all_rights, has_right};
pub use charge::charge_sending;
pub use context::{Caller, Context, wire_name as error_name};
pub use elect_leaders::FAIL_OVER;
pub use fetch_sessions::FetchSessions;
pub use forward::FORWARDED;
pub use in_transaction::TRANSACTIONS;
pub use in_transaction::{Membership, in_transaction};
pub use metadata::{CLI_CLIENT_ID, IDENTITY_TAG};
pub use order::{Gate, Stage};
pub use own_task::detached;
pub use produce_queue::UNPACKING_BYTES_MAX;
pub use request_log::{REQUEST_LOG_TIME_DEFAULT, REQUEST_LOG_TIME_MAX, RequestLog};
pub use share_in_flight::{
    AcquiredRange, IN_FLIGHT_VERSION, ShareInFlight, in_flight_answer, in_flight_request,
    share_in_flight,
};
pub use share_progress::{ShareProgress, share_progress};
pub use thread_time::ThreadTime;

/// A part of an answer.
pub enum Piece {
    /// Bytes to send.
    Bytes(Bytes),
    /// A range of a segment file to send.
    File(Slice),
}

impl Piece {
    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(slice) => slice.bytes,
        }
    }
}

/// What becomes of a request.
pub struct Response {
    /// What is sent.
    pub body: Body,
    /// For how long nothing more is read from the connection then (KIP-219).
    pub throttle: Duration,
}

/// What a request is answered with.
pub enum Body {
    /// Send these in order.
    Send(Vec<Piece>),
    /// Send this, and close the connection.
    Last(Piece),
    /// Nothing is to be sent (acks=0).
    Silence,
    /// The connection is to be closed; the text says why.
    Close(String),
}

impl From<Body> for Response {
    fn from(body: Body) -> Self {
        let throttle = Duration::ZERO;
        Self { body, throttle }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Send(vec![Piece::Bytes(bytes)])
    }
}

/// A request being worked on.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response, FrameError>> + Send>>;

/// One API's entry in the registry.
pub(crate) struct Api {
    key: ApiKey,
    order: Order,
    /// What a client must be allowed to do, in the words of [`authorize`].
    needs: Needs,
    start: fn(Arc<Context>, Caller, RequestFrame, Stage) -> Answer,
}

const APIS: &[Api] = &[
    produce::API,
    fetch::API,
    list_offsets::API,
    metadata::API,
    offset_commit::API,
    offset_fetch::API,
    find_coordinator::API,
    join_group::API,
    heartbeat::API,
    consumer_group_heartbeat::API,
    consumer_group_describe::API,
    leave_group::API,
    sync_group::API,
    describe_groups::API,
    sasl_handshake::API,
    list_groups::API,
    api_versions::API,
    create_topics::API,
    delete_topics::API,
    delete_records::API,
    init_producer_id::API,
    offset_for_leader_epoch::API,
    add_partitions_to_txn::API,
    add_offsets_to_txn::API,
    end_txn::API,
    txn_offset_commit::API,
    write_txn_markers::API,
    describe_acls::API,
    create_acls::API,
    delete_acls::API,
    describe_configs::API,
    alter_configs::API,
    alter_replica_log_dirs::API,
    sasl_authenticate::API,
    describe_log_dirs::API,
    create_partitions::API,
    create_delegation_token::API,
    renew_delegation_token::API,
    expire_delegation_token::API,
    describe_delegation_token::API,
    delete_groups::API,
    elect_leaders::API,
    incremental_alter_configs::API,
    alter_partition_reassignments::API,
    list_partition_reassignments::API,
    offset_delete::API,
    describe_client_quotas::API,
    alter_client_quotas::API,
    describe_user_scram_credentials::API,
    alter_user_scram_credentials::API,
    describe_quorum::API,
    envelope::API,
    alter_partition::API,
    update_features::API,
    describe_cluster::API,
    describe_producers::API,
    unregister_broker::API,
    describe_transactions::API,
    list_transactions::API,
    get_telemetry_subscriptions::API,
    push_telemetry::API,
    list_config_resources::API,
    describe_topic_partitions::API,
    share_group_heartbeat::API,
    share_group_describe::API,
    share_fetch::API,
    share_acknowledge::API,
    initialize_share_group_state::API,
    read_share_group_state::API,
    write_share_group_state::API,
    delete_share_group_state::API,
    read_share_group_state_summary::API,
    describe_share_group_offsets::API,
    alter_share_group_offsets::API,
    delete_share_group_offsets::API,
    streams_group_heartbeat::API,
    streams_group_describe::API,
];

/// What [`serve_by_controller`] serves.
const SENT_ON: &[ApiKey] = &[
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::AlterConfigs,
    ApiKey::CreatePartitions,
    ApiKey::CreateDelegationToken,
    ApiKey::RenewDelegationToken,
    ApiKey::ExpireDelegationToken,
    ApiKey::ElectLeaders,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::AlterPartitionReassignments,
    ApiKey::AlterClientQuotas,
    ApiKey::AlterUserScramCredentials,
];

fn api_of(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

/// Whether brokers send a client's request of an API on to the controller (`forwardable` of Kafka's ApiKeys).
fn is_sent_on(key: i16) -> bool {
    SENT_ON.iter().any(|sent| *sent as i16 == key)
}

/// What may begin before a request of an API is done.
fn order_of(key: i16) -> Order {
    api_of(key).map_or(Order::Alone, |api| api.order)
}

/// What an API asks [`authorize::authorize`] for.
fn needs_of(key: i16) -> Needs {
    api_of(key).map_or(&[], |api| api.needs)
}

/// Starts work on a request whose header was read. Nothing happens before the answer is polled first. The stage tells the
/// request's connection what may begin next.
pub fn start(cx: &Arc<Context>, caller: Caller, frame: RequestFrame, stage: Stage) -> Answer {
    // What brokers ask each other is not known to anybody else.
    let is_served = forward::is_of_broker(&caller) || versions::is_offered(frame.api_key);
    match api_of(frame.api_key).filter(|_| is_served) {
        Some(api) => {
            if !caller.is_forwarded {
                audit::asked(&cx.audit, &caller.asker(), &frame, &cx.tokens);
            }
            (api.start)(cx.clone(), caller, frame, stage)
        }
        None => {
            let (key, version, correlation_id) =
                (frame.api_key, frame.version, frame.correlation_id);
            Box::pin(async move {
                Err(FrameError::UnknownApi {
                    key,
                    version,
                    correlation_id,
                })
            })
        }
    }
}

/// Decodes a request, hands it to its handler, and encodes the answer in the version that was asked.
fn serve<R, F>(
    cx: Arc<Context>,
    caller: Caller,
    frame: RequestFrame,
    stage: Stage,
    handle: impl FnOnce(Arc<Context>, Caller, R) -> F + Send + 'static,
) -> Answer
where
    R: Request + Send + 'static,
    R::Response: Throttled + Send,
    F: Future<Output: Into<Reply<R::Response>>> + Send,
{
    Box::pin(async move {
        let request = frame::decode::<R>(&frame)?;
        let (key, version, correlation_id) = (frame.api_key, frame.version, frame.correlation_id);
        drop(frame);
        // Without any quota nobody is charged.
        let charged = cx.quotas.has_any().then(|| (cx.clone(), caller.clone()));
        let mut reply = handle(cx, caller, request).await.into();
        let is_last = reply.is_last();
        if let Some((cx, caller)) = charged {
            let of_partitions = (QuotaKind::ControllerMutation, reply.throttle());
            let of_time = charge::charge_time(&cx, &caller);
            let throttle = charge::settle(&cx, &caller, of_partitions, of_time);
            reply = reply.throttled(throttle);
        }
        let (response, throttle) = reply.finish();
        drop(stage);
        let bytes = frame::encode_response(key, version, correlation_id, &response)?;
        let body = match is_last {
            true => Body::Last(Piece::Bytes(bytes)),
            false => bytes.into(),
        };
        Ok(Response { body, throttle })
    })
}

/// As [`serve`], by the controller: on any other broker the request is sent on to it. Where that fails, the handler
/// answers NOT_CONTROLLER in the API's own way, and the client asks again.
fn serve_by_controller<R, F>(
    cx: Arc<Context>,
    caller: Caller,
    frame: RequestFrame,
    stage: Stage,
    handle: impl FnOnce(Arc<Context>, Caller, R) -> F + Send + 'static,
) -> Answer
where
    R: Request + Send + 'static,
    R::Response: Throttled + Send,
    F: Future<Output: Into<Reply<R::Response>>> + Send + 'static,
{
    debug_assert!(is_sent_on(caller.key), "{} is not in SENT_ON", caller.key);
    Box::pin(async move {
        match forward::to_controller(&cx, &caller, &frame).await {
            Some(bytes) if cx.quotas.has_any() => {
                let charged = charge_forwarded::<R>(&cx, &caller, bytes.clone());
                Ok(charged.unwrap_or_else(|| Body::from(bytes).into()))
            }
            Some(bytes) => Ok(Body::from(bytes).into()),
            None => serve(cx, caller, frame, stage, handle).await,
        }
    })
}

/// Ends the connection of a request that is not to be read any further, and starts any other one.
fn unless<R: Request>(
    is_unreadable: fn(&R) -> bool,
    why: &str,
    frame: RequestFrame,
    start: impl FnOnce(RequestFrame) -> Answer,
) -> Answer {
    match frame::decode::<R>(&frame) {
        Ok(request) if is_unreadable(&request) => {
            let why = why.to_owned();
            Box::pin(async { Ok(Body::Close(why).into()) })
        }
        _ => start(frame),
    }
}

/// The controller's answer, with the longer of what it and this broker say of the client's quotas (Kafka's
/// RequestHandlerHelper.sendForwardedResponse). `None` where it says nothing that is understood.
fn charge_forwarded<R>(cx: &Context, caller: &Caller, mut answer: Bytes) -> Option<Response>
where
    R: Request,
    R::Response: Throttled,
{
    answer.advance(forward::LENGTH_BYTES.min(answer.len()));
    let (_, response) = frame::decode_response::<R>(caller.version, answer).ok()?;
    let by_controller = u64::try_from(response.throttle_ms()).unwrap_or(0);
    let by_controller = Duration::from_millis(by_controller);
    let of_time = charge::charge_time(cx, caller);
    let by_controller = (QuotaKind::ControllerMutation, by_controller);
    let throttle = charge::settle(cx, caller, by_controller, of_time);
    let (response, throttle) = Reply::with_throttle(response, throttle).finish();
    let (key, version, id) = (caller.key, caller.version, caller.correlation_id);
    let body = frame::encode_response(key, version, id, &response)
        .ok()?
        .into();
    Some(Response { body, throttle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_of_the_version_table_has_a_handler_and_no_other() {
        let mut served: Vec<i16> = APIS.iter().map(|api| api.key as i16).collect();
        served.sort_unstable();
        assert_eq!(
            served,
            versions::TABLE
                .iter()
                .map(|row| row.key)
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn only_what_kafka_gives_to_everybody_needs_no_right() {
        let for_everybody = APIS.iter().filter(|api| api.needs.is_empty());
        assert_eq!(
            for_everybody.map(|api| api.key).collect::<Vec<_>>(),
            [
                ApiKey::SaslHandshake,
                ApiKey::ApiVersions,
                ApiKey::SaslAuthenticate,
                // A token's owner and renewers may.
                ApiKey::RenewDelegationToken,
                ApiKey::ExpireDelegationToken,
                ApiKey::DescribeCluster,
                ApiKey::GetTelemetrySubscriptions,
                ApiKey::PushTelemetry,
            ]
        );
    }
}
