//! Groups of every kind, and their offsets.
//!
//! Tests: tests/docs.rs, group_settings.rs.

use super::INT_MAX;
use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

pub(super) const KEYS: &[BrokerKey] = &[
    key!(
        "errors.deadletterqueue.auto.create.topics.enable",
        None,
        Kind::Bool,
        "false",
        "Whether a dead-letter topic that a share group names and that is not there is created."
    ),
    key!(
        "errors.deadletterqueue.topic.name.prefix",
        None,
        Kind::Text,
        "dlq.",
        "What names of dead-letter topics begin with; records go to no other one. Empty: any name will do."
    ),
    key!(
        "group.initial.rebalance.delay.ms",
        None,
        Kind::Int(0, INT_MAX),
        "3000",
        "How long an empty group waits for more members, ms."
    ),
    key!(
        "group.min.session.timeout.ms",
        None,
        Kind::Int(0, INT_MAX),
        "6000",
        "Shortest session timeout a member may ask for, ms."
    ),
    key!(
        "group.max.session.timeout.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1800000",
        "Longest session timeout a member may ask for, ms."
    ),
    key!(
        "group.max.size",
        None,
        Kind::Int(1, INT_MAX),
        "2147483647",
        "Members a group may have."
    ),
    key!(
        "group.consumer.assignors",
        None,
        Kind::List(&[
            "uniform",
            "range",
            "org.apache.kafka.coordinator.group.assignor.UniformAssignor",
            "org.apache.kafka.coordinator.group.assignor.RangeAssignor"
        ]),
        "uniform,range",
        "Assignors that members of KIP-848 groups may prefer, by their names or Kafka's classes; the first is the default."
    ),
    key!(
        "group.consumer.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "At least so long between two assignments of a KIP-848 group, ms; the default of consumer.assignment.interval.ms."
    ),
    key!(
        "group.consumer.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "How often members of KIP-848 groups report, ms; the default of consumer.heartbeat.interval.ms."
    ),
    key!(
        "group.consumer.max.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "15000",
        "The longest interval between assignments that a group may have, ms."
    ),
    key!(
        "group.consumer.max.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "15000",
        "The longest heartbeat interval that a KIP-848 group may have, ms."
    ),
    key!(
        "group.consumer.max.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "60000",
        "The longest session timeout that a KIP-848 group may have, ms."
    ),
    key!(
        "group.consumer.max.size",
        None,
        Kind::Int(1, INT_MAX),
        "2147483647",
        "Members that a KIP-848 group may have."
    ),
    key!(
        "group.consumer.migration.policy",
        None,
        Kind::Choice(&["bidirectional", "upgrade", "downgrade", "disabled"]),
        "bidirectional",
        "Whether a group with members may go from the classic protocol to that of KIP-848 (upgrade) and back (downgrade)."
    ),
    key!(
        "group.consumer.min.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "0",
        "The shortest interval between assignments that a group may have, ms."
    ),
    key!(
        "group.consumer.min.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "The shortest heartbeat interval that a KIP-848 group may have, ms."
    ),
    key!(
        "group.consumer.min.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "The shortest session timeout that a KIP-848 group may have, ms."
    ),
    key!(
        "group.consumer.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "A silent member of a KIP-848 group is thrown out after this, ms; the default of consumer.session.timeout.ms."
    ),
    key!(
        "group.consumer.unsettled.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "500",
        "How often members of a KIP-848 group report that have not got their partitions yet, ms: they are told this instead of the usual interval, or 1 ms a member where that is more. As large as the usual interval: Kafka's way."
    ),
    key!(
        "group.share.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "At least so long between two assignments of a share group, ms; the default of share.assignment.interval.ms."
    ),
    key!(
        "group.share.assignors",
        None,
        Kind::List(&[
            "simple",
            "org.apache.kafka.coordinator.group.assignor.SimpleAssignor"
        ]),
        "simple",
        "The assignor of share groups, by its name or Kafka's class: there is one."
    ),
    key!(
        "group.share.delivery.count.limit",
        None,
        Kind::Int(2, 10),
        "5",
        "How often a record is given to members of a share group at most; then it is given to nobody any more. share.delivery.count.limit of a group wins."
    ),
    key!(
        "group.share.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "How often members of share groups report, ms; the default of share.heartbeat.interval.ms."
    ),
    key!(
        "group.share.max.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "15000",
        "The longest assignment interval that a share group may have, ms."
    ),
    key!(
        "group.share.max.groups",
        None,
        Kind::Int(1, INT_MAX),
        "10000",
        "Share groups that a broker coordinates at most: a member that would begin another one is refused."
    ),
    key!(
        "group.share.max.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "15000",
        "The longest heartbeat interval that a share group may have, ms."
    ),
    key!(
        "group.share.max.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "60000",
        "The longest session timeout that a share group may have, ms."
    ),
    key!(
        "group.share.max.share.sessions",
        None,
        Kind::Int(1, INT_MAX),
        "2000",
        "Share sessions that a broker keeps, one a member of a share group that fetches from it."
    ),
    key!(
        "group.share.max.size",
        None,
        Kind::Int(1, 1000),
        "200",
        "Members that a share group may have."
    ),
    key!(
        "group.share.min.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "0",
        "The shortest assignment interval that a share group may have, ms."
    ),
    key!(
        "group.share.min.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "The shortest heartbeat interval that a share group may have, ms."
    ),
    key!(
        "group.share.min.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "The shortest session timeout that a share group may have, ms."
    ),
    key!(
        "group.share.partition.max.record.locks",
        None,
        Kind::Int(100, 10_000),
        "2000",
        "How many records of a partition may be under way in a share group: from the first that is not done to the last one given out. share.partition.max.record.locks of a group wins."
    ),
    key!(
        "group.share.record.lock.duration.ms",
        None,
        Kind::Int(1000, 3_600_000),
        "30000",
        "How long a record is one member's of a share group before it is given to another, ms. share.record.lock.duration.ms of a group wins."
    ),
    key!(
        "group.share.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "A silent member of a share group is thrown out after this, ms; the default of share.session.timeout.ms."
    ),
    key!(
        "group.streams.acceptable.recovery.lag",
        None,
        Kind::Long(0, i64::MAX),
        "10000",
        "Records that a copy of state in a streams group may be behind to count as up to date."
    ),
    key!(
        "group.streams.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "1000",
        "At least so long between two assignments of a streams group, ms; the default of streams.assignment.interval.ms."
    ),
    key!(
        "group.streams.assignors",
        None,
        Kind::List(&[
            "sticky",
            "org.apache.kafka.coordinator.group.streams.assignor.StickyTaskAssignor"
        ]),
        "sticky",
        "The assignors of streams groups, by their names or Kafka's classes; the first is the default of streams.assignor.name."
    ),
    key!(
        "group.streams.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "How often members of streams groups report, ms; the default of streams.heartbeat.interval.ms."
    ),
    key!(
        "group.streams.initial.rebalance.delay.ms",
        None,
        Kind::Int(0, INT_MAX),
        "3000",
        "How long a streams group waits for more members after the first one before it gives out tasks, ms; the default of streams.initial.rebalance.delay.ms."
    ),
    key!(
        "group.streams.max.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "15000",
        "The longest interval between assignments that a streams group may have, ms."
    ),
    key!(
        "group.streams.max.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "15000",
        "The longest heartbeat interval that a streams group may have, ms."
    ),
    key!(
        "group.streams.max.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "60000",
        "The longest session timeout that a streams group may have, ms."
    ),
    key!(
        "group.streams.max.size",
        None,
        Kind::Int(1, INT_MAX),
        "2147483647",
        "Members (threads) that a streams group may have."
    ),
    key!(
        "group.streams.max.standby.replicas",
        None,
        Kind::Int(0, INT_MAX),
        "2",
        "The most standby replicas that a streams group may have."
    ),
    key!(
        "group.streams.min.assignment.interval.ms",
        None,
        Kind::Int(0, INT_MAX),
        "0",
        "The shortest interval between assignments that a streams group may have, ms."
    ),
    key!(
        "group.streams.min.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "5000",
        "The shortest heartbeat interval that a streams group may have, ms."
    ),
    key!(
        "group.streams.min.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "The shortest session timeout that a streams group may have, ms."
    ),
    key!(
        "group.streams.num.standby.replicas",
        None,
        Kind::Int(0, INT_MAX),
        "0",
        "Copies of each task's state that a streams group keeps besides the one in use; the default of streams.num.standby.replicas."
    ),
    key!(
        "group.streams.rack.aware.assignment.tags",
        None,
        Kind::Words,
        "",
        "Client tags that members of streams groups are to have; the default of streams.rack.aware.assignment.tags."
    ),
    key!(
        "group.streams.session.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "45000",
        "A silent member of a streams group is thrown out after this, ms; the default of streams.session.timeout.ms."
    ),
    key!(
        "group.streams.task.offset.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "60000",
        "How often members of streams groups say how far their copies of state are, ms."
    ),
    key!(
        "group.streams.unsettled.heartbeat.interval.ms",
        None,
        Kind::Int(1, INT_MAX),
        "500",
        "How often members of a streams group report that have not got their tasks yet, ms: they are told this instead of the usual interval. As large as the usual interval: Kafka's way."
    ),
    key!(
        "group.members.max.bytes",
        None,
        Kind::Long(1 << 20, i64::MAX),
        "50331648",
        "What the members of all groups may hold in memory together, bytes; about 4096 each, three times what they bring, and 300 for each partition or task that they are given (what a leader assigns, three times its bytes); a join beyond is GROUP_MAX_SIZE_REACHED, an assignment COORDINATOR_NOT_AVAILABLE."
    ),
    key!(
        "group.offsets.max.bytes",
        None,
        Kind::Long(1 << 20, i64::MAX),
        "67108864",
        "What the committed offsets of all groups may take in memory together, bytes; about 1000 each, and three times their metadata. A commit of a new one above it is INVALID_COMMIT_OFFSET_SIZE; those that are known can be committed on."
    ),
    key!(
        "offset.metadata.max.bytes",
        None,
        Kind::Int(0, INT_MAX),
        "4096",
        "Largest text committed with an offset, bytes."
    ),
    key!(
        "offsets.retention.minutes",
        None,
        Kind::Int(1, INT_MAX),
        "10080",
        "Offsets of an empty group are kept this long, minutes."
    ),
    key!(
        "offsets.retention.check.interval.ms",
        None,
        Kind::Long(1, i64::MAX),
        "600000",
        "How often expired offsets are looked for, ms."
    ),
    key!(
        "offsets.topic.mirror",
        None,
        Kind::Bool,
        "false",
        "Also append what groups commit to __consumer_offsets, in Kafka's record format, for tools that read it (Burrow, kafka-console-consumer). The same at all brokers of a cluster. On disk each of its 64 partitions takes up to five times what its groups have, or 8 MiB, and what they commit while it is kept (offsets.topic.mirror.keep.ms)."
    ),
    key!(
        "offsets.topic.mirror.keep.ms",
        None,
        Kind::Long(0, i64::MAX),
        "60000",
        "How long what a newer copy of all offsets supersedes stays in __consumer_offsets, for readers that are not there yet, ms."
    ),
];
