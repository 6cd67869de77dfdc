//! What the cluster says of a partition: who leads it, and which brokers have it.

/// See the module's documentation (Kafka's PartitionRegistration).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// This broker.
    pub own: i32,
    /// The leader, -1 for none.
    pub leader: i32,
    /// Counts leaders.
    pub leader_epoch: i32,
    /// Counts changes of all this.
    pub partition_epoch: i32,
    /// Brokers that keep it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
}

impl PartitionState {
    /// Of a partition that has one replica, which leads it.
    pub fn alone(leader_epoch: i32) -> Self {
        Self {
            own: 0,
            leader: 0,
            leader_epoch,
            partition_epoch: 0,
            replicas: vec![0],
            isr: vec![0],
        }
    }

    /// Whether this broker leads it.
    pub fn is_led_here(&self) -> bool {
        self.leader == self.own
    }

    /// Whether other brokers keep it too.
    pub fn is_replicated(&self) -> bool {
        self.replicas.iter().any(|id| *id != self.own)
    }
}
