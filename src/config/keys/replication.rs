//! Replicas, leaders, and what copying may take.

use super::INT_MAX;
use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

pub(super) const KEYS: &[BrokerKey] = &[
    key!(
        "default.replication.factor",
        None,
        Kind::Int(1, 32_767),
        "1",
        "Replicas of a topic that is created without a number."
    ),
    key!(
        "auto.leader.rebalance.enable",
        None,
        Kind::Bool,
        "true",
        "Whether the preferred leaders, the first of their lists of replicas, get the lead back once they are in sync."
    ),
    key!(
        "broker.follows.only",
        None,
        Kind::Bool,
        "false",
        "Whether this broker copies what others lead and never leads what they keep too (metaq start slave)."
    ),
    key!(
        "broker.drained",
        None,
        Kind::Bool,
        "false",
        "Whether this broker leads and coordinates only what no other one can. Set for a broker at run time by metaq cluster drain; in a file it means nothing."
    ),
    key!(
        "leader.imbalance.check.interval.seconds",
        None,
        Kind::Long(1, 86_400),
        "300",
        "How often that is looked for, seconds."
    ),
    key!(
        "num.replica.fetchers",
        None,
        Kind::Int(1, 64),
        "1",
        "Connections that this broker copies from each other broker by; partitions are spread over them."
    ),
    key!(
        "leader.replication.throttled.rate",
        None,
        Kind::Long(0, i64::MAX),
        "9223372036854775807",
        "What this broker gives followers of throttled replicas as their leader (leader.replication.throttled.replicas of topics), bytes a second; those that are in sync count, and do not wait."
    ),
    key!(
        "follower.replication.throttled.rate",
        None,
        Kind::Long(0, i64::MAX),
        "9223372036854775807",
        "What this broker takes of throttled replicas as a follower (follower.replication.throttled.replicas of topics), bytes a second; those that are in sync count, and do not wait."
    ),
    key!(
        "replica.lag.time.max.ms",
        None,
        Kind::Long(1, i64::MAX),
        "30000",
        "A replica that has not had all that its leader has for longer falls out of sync, ms."
    ),
    key!(
        "replica.fetch.max.bytes",
        None,
        Kind::Int(0, INT_MAX),
        "1048576",
        "What a follower fetches of a partition at a time, bytes; a batch that is larger comes whole."
    ),
    key!(
        "replica.fetch.response.max.bytes",
        None,
        Kind::Int(0, INT_MAX),
        "10485760",
        "What a follower fetches at a time of all partitions of a connection, bytes."
    ),
    key!(
        "replica.fetch.min.bytes",
        None,
        Kind::Int(0, INT_MAX),
        "1",
        "A follower's fetch waits at its leader until there are so many bytes, or for replica.fetch.wait.max.ms."
    ),
    key!(
        "replica.fetch.wait.max.ms",
        None,
        Kind::Int(0, INT_MAX),
        "500",
        "How long a follower's fetch waits at its leader for records, ms; less than replica.lag.time.max.ms."
    ),
    key!(
        "replica.fetch.backoff.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "Pause of a partition that could not be fetched, ms."
    ),
    key!(
        "replica.selector.class",
        None,
        Kind::Choice(&[
            "",
            "org.apache.kafka.common.replica.LeaderSelector",
            "org.apache.kafka.common.replica.RackAwareReplicaSelector"
        ]),
        "",
        "Whom a consumer that says its client.rack is sent to (KIP-392): with RackAwareReplicaSelector to a replica in sync whose broker.rack it is, else to the leader."
    ),
];
