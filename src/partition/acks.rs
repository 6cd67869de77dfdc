//! What a producer waits for (`acks`).

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// 0: nothing; it gets no answer.
    None,
    /// 1: the leader has it.
    Leader,
    /// -1: every replica that is in sync has it, and of those there are `min.insync.replicas`, or all.
    All,
}

impl Acks {
    /// As a produce request says it.
    pub fn of_wire(acks: i16) -> Option<Self> {
        match acks {
            0 => Some(Self::None),
            1 => Some(Self::Leader),
            -1 => Some(Self::All),
            _ => None,
        }
    }

    /// How many replicas have to be in sync before anything is appended; of `min.insync.replicas` no more than the topic has
    /// (Kafka's Partition.effectiveMinIsr).
    pub fn needed_in_sync(self, min_insync_replicas: usize, replicas: usize) -> usize {
        match self {
            Self::All => min_insync_replicas.min(replicas),
            Self::None | Self::Leader => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_all_needs_no_more_replicas_than_there_are() {
        assert_eq!(Acks::All.needed_in_sync(2, 1), 1);
        assert_eq!(Acks::All.needed_in_sync(2, 3), 2);
        assert_eq!(Acks::Leader.needed_in_sync(2, 3), 0);
        assert_eq!(Acks::None.needed_in_sync(2, 3), 0);
    }
}
