//! The cluster as this broker sees it, for people and tools.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::Context;
use crate::cluster::{Image, Topic};

/// This broker's session with the coordination store.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct CoordinationStatus {
    /// `embedded` or `zookeeper`.
    pub(super) kind: &'static str,
    /// `connected`, `suspended`, `lost` or `closed`.
    pub(super) session: &'static str,
    /// Counts sessions since the start.
    pub(super) session_number: u64,
    /// How long this broker may still lead and coordinate without an answer, ms; none where that does not end.
    pub(super) lease_ms_left: Option<u64>,
    /// Whether it leads and coordinates at this moment.
    pub(super) may_act: bool,
}

impl CoordinationStatus {
    pub(super) fn of(cx: &Context) -> Self {
        let meta = cx.cluster.meta();
        let session = *meta.session().borrow();
        Self {
            kind: meta.kind(),
            session: session.state.name(),
            session_number: session.number,
            lease_ms_left: meta.lease().left().map(|left| left.as_millis() as u64),
            may_act: cx.cluster.may_act(),
        }
    }
}

/// Whether a broker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BrokerState {
    /// It is registered.
    Live,
    /// It is registered, and about to stop.
    Stopping,
    /// It is not registered, and keeps replicas.
    Away,
}

impl BrokerState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stopping => "stopping",
            Self::Away => "away",
        }
    }
}

/// A broker of the cluster: one that is registered, or that keeps a replica.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct BrokerStatus {
    pub(super) id: i32,
    pub(super) state: BrokerState,
    /// Empty where each client is given the address that it connected to.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) rack: Option<String>,
    /// Counts its registrations.
    pub(super) epoch: i64,
    pub(super) controller: bool,
    /// Whether it leads and coordinates only what no other one can (metaq cluster drain).
    pub(super) drained: bool,
    /// Partitions that it leads; of one that is away, those of one replica, which it will lead when it is back.
    pub(super) leads: usize,
    /// Partitions that it keeps a replica of.
    pub(super) replicas: usize,
    /// Replicas of its that are in sync; where no replica of a partition is there, the one that is waited for counts.
    pub(super) in_sync: usize,
    /// Slots of groups that it coordinates.
    pub(super) slots: usize,
}

/// The whole.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct ClusterStatus {
    pub(super) cluster_id: String,
    /// The broker that was asked.
    pub(super) broker_id: i32,
    pub(super) version: &'static str,
    /// -1 for none.
    pub(super) controller_id: i32,
    pub(super) coordination: CoordinationStatus,
    pub(super) brokers: Vec<BrokerStatus>,
    pub(super) topics: usize,
    pub(super) partitions: usize,
    /// Partitions that nobody leads, or whose leader is away.
    pub(super) partitions_without_leader: usize,
    /// Partitions of which not all replicas are in sync; those that a reassignment adds do not count.
    pub(super) partitions_under_replicated: usize,
    /// Partitions with fewer replicas in sync than min.insync.replicas: acks=all is refused.
    pub(super) partitions_under_min_isr: usize,
}

/// What a broker has of the partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    leads: usize,
    replicas: usize,
    in_sync: usize,
}

/// What each broker that is named by a partition has.
fn shares(image: &Image) -> BTreeMap<i32, Share> {
    let mut shares: BTreeMap<i32, Share> = BTreeMap::new();
    for info in image.topics().flat_map(|topic| &topic.partitions) {
        for id in &info.replicas {
            let share = shares.entry(*id).or_default();
            share.leads += usize::from(info.leader == *id);
            share.replicas += 1;
            share.in_sync += usize::from(info.isr.contains(id));
        }
    }
    shares
}

impl BrokerStatus {
    pub(super) fn is_away(&self) -> bool {
        self.state == BrokerState::Away
    }

    fn of(image: &Image, id: i32, share: Share) -> Self {
        let known = image.brokers.get(&id);
        let endpoint = known.and_then(|broker| broker.first_endpoint());
        Self {
            id,
            state: match known {
                None => BrokerState::Away,
                Some(broker) if broker.shutting_down => BrokerState::Stopping,
                Some(_) => BrokerState::Live,
            },
            host: endpoint.map_or_else(String::new, |at| at.host.clone()),
            port: endpoint.map_or(0, |at| at.port),
            rack: known.and_then(|broker| broker.rack.clone()),
            epoch: known.map_or(0, |broker| broker.epoch),
            controller: id == image.controller_id,
            drained: image.drained.contains(&id),
            leads: share.leads,
            replicas: share.replicas,
            in_sync: share.in_sync,
            slots: image.slots.iter().filter(|slot| slot.owner == id).count(),
        }
    }
}

/// Partitions that are not as they are to be: without a leader, under-replicated, below min.insync.replicas.
fn lacking(image: &Image, needed: impl Fn(&Topic) -> usize) -> (usize, usize, usize) {
    let (mut without_leader, mut under_replicated, mut under_min_isr) = (0, 0, 0);
    for topic in image.topics() {
        let needed = needed(topic);
        for info in &topic.partitions {
            // Kafka's Partition.isUnderReplicated: those that a reassignment adds are not missed.
            let wanted = info.replicas.len() - info.adding.len();
            let in_sync = info.isr.len();
            without_leader += usize::from(!image.brokers.contains_key(&info.leader));
            under_replicated += usize::from(in_sync < wanted);
            under_min_isr += usize::from(in_sync < needed);
        }
    }
    (without_leader, under_replicated, under_min_isr)
}

impl ClusterStatus {
    pub(super) fn of(cx: &Context) -> Self {
        let image = cx.cluster.image();
        let mut shares = shares(&image);
        for id in image.brokers.keys() {
            shares.entry(*id).or_default();
        }
        let brokers = shares
            .into_iter()
            .map(|(id, share)| BrokerStatus::of(&image, id, share));
        let needed = |topic: &Topic| cx.cluster.controller().min_in_sync(topic);
        let (without_leader, under_replicated, under_min_isr) = lacking(&image, needed);
        Self {
            cluster_id: image.cluster_id.clone(),
            broker_id: cx.cluster.broker_id(),
            version: env!("CARGO_PKG_VERSION"),
            controller_id: image.controller_id,
            coordination: CoordinationStatus::of(cx),
            brokers: brokers.collect(),
            topics: image.topics().count(),
            partitions: image.topics().map(|topic| topic.partitions.len()).sum(),
            partitions_without_leader: without_leader,
            partitions_under_replicated: under_replicated,
            partitions_under_min_isr: under_min_isr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::PartitionInfo;
    use crate::config::TopicOverrides;
    use crate::partition::Identity;

    /// Replicas, of which these are in sync; the first of those leads.
    fn partition(replicas: &[i32], isr: &[i32], leader: i32) -> PartitionInfo {
        let identity = Identity {
            broker_id: replicas[0],
            number: 0,
        };
        PartitionInfo {
            isr: isr.to_vec(),
            leader,
            ..PartitionInfo::new(identity, replicas.to_vec(), 0)
        }
    }

    fn image(partitions: Vec<PartitionInfo>) -> Image {
        Image::of_topics([Topic {
            name: "t".into(),
            id: uuid::Uuid::from_u128(1),
            overrides: TopicOverrides::default(),
            partitions,
        }])
    }

    #[test]
    fn whoever_keeps_a_replica_is_counted_and_nobody_is_broker_minus_one() {
        let led = partition(&[1, 2], &[1], 1);
        let unled = partition(&[2, 3], &[2], -1);
        let shares = shares(&image(vec![led, unled]));
        let of = |leads, replicas, in_sync| Share {
            leads,
            replicas,
            in_sync,
        };
        let expected = [(1, of(1, 1, 1)), (2, of(0, 2, 1)), (3, of(0, 1, 0))];
        assert_eq!(shares, expected.into());
    }

    #[test]
    fn a_replica_that_a_reassignment_adds_is_not_missed() {
        let mut moving = partition(&[3, 1, 2], &[1, 2], 1);
        moving.adding = vec![3];
        let image = image(vec![
            moving,
            partition(&[1, 2], &[1], 1),
            partition(&[1, 2], &[2], -1),
        ]);
        // No broker is registered: none is led by one that is there.
        assert_eq!(lacking(&image, |_| 2), (3, 2, 2));
        assert_eq!(lacking(&image, |_| 1), (3, 2, 0));
    }
}
