//! What a handler answers, and how long its client is to send nothing more (KIP-219): the answer leaves at once and says
//! so, and the connection reads the next request after that time.
//!
//! A handler says what it was told of the quotas of what it did; that of the time that a request takes is charged when it
//! is done.

use std::time::Duration;

use metaq_protocol::messages::*;

/// A response of an API, decoded, with its throttle.
pub(super) struct Reply<R> {
    response: R,
    throttle: Duration,
    /// The connection ends after it.
    is_last: bool,
}

impl<R> From<R> for Reply<R> {
    fn from(response: R) -> Self {
        let throttle = Duration::ZERO;
        Self {
            response,
            throttle,
            is_last: false,
        }
    }
}

impl<R> Reply<R> {
    /// A response after which the connection ends.
    pub(super) fn last(response: R) -> Self {
        Self {
            is_last: true,
            ..Self::from(response)
        }
    }

    /// Whether the connection ends after it.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// A response whose client is to wait, because of partitions that it created or deleted.
    pub(super) fn with_throttle(response: R, throttle: Duration) -> Self {
        Self {
            throttle,
            ..Self::from(response)
        }
    }

    /// How long its client is to wait as far as its handler knows.
    pub(super) fn throttle(&self) -> Duration {
        self.throttle
    }

    /// The same, and how long it is to wait altogether.
    pub(super) fn throttled(self, throttle: Duration) -> Self {
        Self { throttle, ..self }
    }
}

impl<R: Throttled> Reply<R> {
    /// The response, which says its throttle, and the throttle.
    pub(super) fn finish(mut self) -> (R, Duration) {
        self.response.set_throttle_ms(throttle_ms(self.throttle));
        (self.response, self.throttle)
    }
}

/// As responses have it.
pub(super) fn throttle_ms(throttle: Duration) -> i32 {
    i32::try_from(throttle.as_millis()).unwrap_or(i32::MAX)
}

/// A response that can say how long its client is to send nothing more.
pub(super) trait Throttled {
    fn set_throttle_ms(&mut self, throttle_ms: i32);

    /// What it says.
    fn throttle_ms(&self) -> i32 {
        0
    }
}

/// The requests whose responses can: all but Fetch and ShareFetch, which have encoders of their own.
macro_rules! throttled {
    ($($request:ident => $response:ident),* $(,)?) => {
        $(impl Throttled for $response {
            fn set_throttle_ms(&mut self, throttle_ms: i32) {
                self.throttle_time_ms = throttle_ms;
            }

            fn throttle_ms(&self) -> i32 {
                self.throttle_time_ms
            }
        })*

        #[cfg(test)]
        fn check_all() -> Vec<i16> {
            vec![$(tests::check::<$request>()),*]
        }
    };
}

throttled!(
    ProduceRequest => ProduceResponse,
    ListOffsetsRequest => ListOffsetsResponse,
    MetadataRequest => MetadataResponse,
    OffsetCommitRequest => OffsetCommitResponse,
    OffsetFetchRequest => OffsetFetchResponse,
    FindCoordinatorRequest => FindCoordinatorResponse,
    JoinGroupRequest => JoinGroupResponse,
    HeartbeatRequest => HeartbeatResponse,
    LeaveGroupRequest => LeaveGroupResponse,
    SyncGroupRequest => SyncGroupResponse,
    DescribeGroupsRequest => DescribeGroupsResponse,
    ListGroupsRequest => ListGroupsResponse,
    ApiVersionsRequest => ApiVersionsResponse,
    CreateTopicsRequest => CreateTopicsResponse,
    DeleteTopicsRequest => DeleteTopicsResponse,
    DeleteRecordsRequest => DeleteRecordsResponse,
    InitProducerIdRequest => InitProducerIdResponse,
    OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse,
    AddPartitionsToTxnRequest => AddPartitionsToTxnResponse,
    AddOffsetsToTxnRequest => AddOffsetsToTxnResponse,
    EndTxnRequest => EndTxnResponse,
    TxnOffsetCommitRequest => TxnOffsetCommitResponse,
    DescribeUserScramCredentialsRequest => DescribeUserScramCredentialsResponse,
    AlterUserScramCredentialsRequest => AlterUserScramCredentialsResponse,
    DescribeAclsRequest => DescribeAclsResponse,
    CreateAclsRequest => CreateAclsResponse,
    DeleteAclsRequest => DeleteAclsResponse,
    DescribeConfigsRequest => DescribeConfigsResponse,
    AlterConfigsRequest => AlterConfigsResponse,
    AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse,
    AlterPartitionRequest => AlterPartitionResponse,
    AlterReplicaLogDirsRequest => AlterReplicaLogDirsResponse,
    DescribeLogDirsRequest => DescribeLogDirsResponse,
    CreatePartitionsRequest => CreatePartitionsResponse,
    CreateDelegationTokenRequest => CreateDelegationTokenResponse,
    RenewDelegationTokenRequest => RenewDelegationTokenResponse,
    ExpireDelegationTokenRequest => ExpireDelegationTokenResponse,
    DescribeDelegationTokenRequest => DescribeDelegationTokenResponse,
    DeleteGroupsRequest => DeleteGroupsResponse,
    ElectLeadersRequest => ElectLeadersResponse,
    IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse,
    ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse,
    OffsetDeleteRequest => OffsetDeleteResponse,
    DescribeClientQuotasRequest => DescribeClientQuotasResponse,
    AlterClientQuotasRequest => AlterClientQuotasResponse,
    UpdateFeaturesRequest => UpdateFeaturesResponse,
    DescribeClusterRequest => DescribeClusterResponse,
    DescribeProducersRequest => DescribeProducersResponse,
    UnregisterBrokerRequest => UnregisterBrokerResponse,
    DescribeTransactionsRequest => DescribeTransactionsResponse,
    ListTransactionsRequest => ListTransactionsResponse,
    GetTelemetrySubscriptionsRequest => GetTelemetrySubscriptionsResponse,
    PushTelemetryRequest => PushTelemetryResponse,
    ListConfigResourcesRequest => ListConfigResourcesResponse,
    ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse,
    ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse,
    DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse,
    ShareGroupHeartbeatRequest => ShareGroupHeartbeatResponse,
    ShareGroupDescribeRequest => ShareGroupDescribeResponse,
    ShareAcknowledgeRequest => ShareAcknowledgeResponse,
    DescribeShareGroupOffsetsRequest => DescribeShareGroupOffsetsResponse,
    AlterShareGroupOffsetsRequest => AlterShareGroupOffsetsResponse,
    DeleteShareGroupOffsetsRequest => DeleteShareGroupOffsetsResponse,
    StreamsGroupHeartbeatRequest => StreamsGroupHeartbeatResponse,
    StreamsGroupDescribeRequest => StreamsGroupDescribeResponse,
);

/// They have no field for it: a client that authenticates is not known yet.
impl Throttled for SaslHandshakeResponse {
    fn set_throttle_ms(&mut self, _: i32) {}
}

impl Throttled for SaslAuthenticateResponse {
    fn set_throttle_ms(&mut self, _: i32) {}
}

/// It has no field for it: what is inside has.
impl Throttled for EnvelopeResponse {
    fn set_throttle_ms(&mut self, _: i32) {}
}

/// It has no field for it (Kafka's DescribeQuorumResponse.maybeSetThrottleTimeMs).
impl Throttled for DescribeQuorumResponse {
    fn set_throttle_ms(&mut self, _: i32) {}
}

/// It has no field for it: brokers are not throttled (Kafka's WriteTxnMarkersResponse.throttleTimeMs).
impl Throttled for WriteTxnMarkersResponse {
    fn set_throttle_ms(&mut self, _: i32) {}
}

/// Those that brokers ask each other for have no field for it: brokers are not throttled.
macro_rules! of_brokers {
    ($($response:ident),* $(,)?) => {
        $(impl Throttled for $response {
            fn set_throttle_ms(&mut self, _: i32) {}
        })*
    };
}

of_brokers!(
    InitializeShareGroupStateResponse,
    ReadShareGroupStateResponse,
    WriteShareGroupStateResponse,
    DeleteShareGroupStateResponse,
    ReadShareGroupStateSummaryResponse,
);

#[cfg(test)]
mod tests {
    use metaq_protocol::frame;
    use metaq_protocol::protocol::Request;
    use metaq_protocol::versions;

    use super::*;

    const THROTTLE: Duration = Duration::from_millis(0x0102_0304);

    /// Encodes an API's response with a throttle in every version; its key.
    pub(super) fn check<R: Request>() -> i16
    where
        R::Response: Throttled + Default,
    {
        let row = versions::TABLE
            .iter()
            .find(|row| row.key == R::KEY)
            .unwrap();
        let mut newest = Vec::new();
        for version in row.min..=row.max {
            let response = R::Response::default();
            let reply = Reply {
                response,
                throttle: THROTTLE,
                is_last: false,
            };
            let (response, throttle) = reply.finish();
            assert_eq!(throttle, THROTTLE);
            let encoded = frame::encode_response(R::KEY, version, 1, &response);
            newest = encoded.unwrap().to_vec();
        }
        // As an i32.
        let says = newest.windows(4).any(|bytes| bytes == [1, 2, 3, 4]);
        assert!(says, "key {}: {newest:?}", R::KEY);
        R::KEY
    }

    #[test]
    fn every_api_of_the_version_table_can_say_that_its_client_is_throttled_but_some() {
        let mut keys = check_all();
        // Two have encoders of their own, the others have no field for it.
        let others = [
            ApiKey::Fetch,
            ApiKey::DescribeQuorum,
            ApiKey::WriteTxnMarkers,
            ApiKey::ShareFetch,
            ApiKey::InitializeShareGroupState,
            ApiKey::ReadShareGroupState,
            ApiKey::WriteShareGroupState,
            ApiKey::DeleteShareGroupState,
            ApiKey::ReadShareGroupStateSummary,
            ApiKey::SaslHandshake,
            ApiKey::SaslAuthenticate,
            ApiKey::Envelope,
        ];
        keys.extend(others.map(|key| key as i16));
        keys.sort_unstable();
        let all: Vec<i16> = versions::TABLE.iter().map(|row| row.key).collect();
        assert_eq!(keys, all);
    }

    #[test]
    fn what_no_field_can_hold_is_the_longest_that_one_can() {
        assert_eq!(throttle_ms(Duration::from_secs(u64::MAX)), i32::MAX);
    }
}
