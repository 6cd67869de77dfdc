//! What a producer waits for (`acks`).

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// 0: nothing; it gets no answer.
    None,
    /// 1: the leader has it.
    Leader,
    /// -1: every replica that is in sync has it, and of those there are `min.insync.replicas`.
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
}
