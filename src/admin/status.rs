//! The cluster as this broker sees it, for people and tools.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::Context;

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

/// A broker of the cluster.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct BrokerStatus {
    pub(super) id: i32,
    /// Empty where each client is given the address that it connected to.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) rack: Option<String>,
    /// Counts its registrations.
    pub(super) epoch: i64,
    pub(super) controller: bool,
    /// Whether it leads and coordinates only what no other one can (metaq cluster drain).
    pub(super) drained: bool,
    /// Whether it is there; one that is away is shown as long as it has partitions.
    pub(super) live: bool,
    /// Partitions that it leads, or will when it is back.
    pub(super) partitions: usize,
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
    /// Partitions whose broker is away.
    pub(super) partitions_without_leader: usize,
}

impl ClusterStatus {
    pub(super) fn of(cx: &Context) -> Self {
        let image = cx.cluster.image();
        let partitions = || image.topics().flat_map(|topic| &topic.partitions);
        let led_by = |id: i32| partitions().filter(|info| info.leader == id).count();
        let slots_of = |id: i32| image.slots.iter().filter(|slot| slot.owner == id).count();
        let brokers = image.brokers.values().map(|broker| BrokerStatus {
            id: broker.id,
            host: broker
                .first_endpoint()
                .map_or_else(String::new, |at| at.host.clone()),
            port: broker.first_endpoint().map_or(0, |at| at.port),
            rack: broker.rack.clone(),
            epoch: broker.epoch,
            controller: broker.id == image.controller_id,
            drained: image.drained.contains(&broker.id),
            live: true,
            partitions: led_by(broker.id),
            slots: slots_of(broker.id),
        });
        let mut brokers: Vec<BrokerStatus> = brokers.collect();
        let homes: std::collections::BTreeSet<i32> = partitions().map(|info| info.leader).collect();
        for id in homes
            .into_iter()
            .filter(|id| !image.brokers.contains_key(id))
        {
            brokers.push(BrokerStatus {
                id,
                host: String::new(),
                port: 0,
                rack: None,
                epoch: 0,
                controller: false,
                drained: image.drained.contains(&id),
                live: false,
                partitions: led_by(id),
                slots: 0,
            });
        }
        let away = partitions().filter(|info| !image.brokers.contains_key(&info.leader));
        Self {
            cluster_id: image.cluster_id.clone(),
            broker_id: cx.cluster.broker_id(),
            version: env!("CARGO_PKG_VERSION"),
            controller_id: image.controller_id,
            coordination: CoordinationStatus::of(cx),
            brokers,
            topics: image.topics().count(),
            partitions: partitions().count(),
            partitions_without_leader: away.count(),
        }
    }
}
