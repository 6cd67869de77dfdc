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
    /// Whether others may lead in need.
    pub eligible: Eligible,
}

/// Whether replicas that are not in sync are eligible as leaders (KIP-966). While there are some, the controller counts on it that
/// nothing is committed, whatever `min.insync.replicas` this broker has: brokers that are changed one after another may have
/// different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// None is.
    None,
    /// Some are.
    Some,
    /// The controller took a proposal of who is in sync, and it is not known yet what it made of the others.
    Unknown,
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
            eligible: Eligible::None,
        }
    }

    /// Whether this broker leads it.
    pub fn is_led_here(&self) -> bool {
        self.leader == self.own
    }

    /// How many have to be in sync for anything to be committed, where this broker's `min.insync.replicas` is this.
    pub fn needed_in_sync(&self, min_insync: usize) -> usize {
        let by_controller = match self.eligible {
            Eligible::None => 0,
            Eligible::Some | Eligible::Unknown => self.isr.len() + 1,
        };
        min_insync.max(by_controller).min(self.replicas.len())
    }

    /// Whether other brokers keep it too.
    pub fn is_replicated(&self) -> bool {
        self.replicas.iter().any(|id| *id != self.own)
    }
}
