//! The state of a record for a share group, and what is stored of ranges of records.

/// As share groups store it (Kafka's RecordState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordState {
    /// It may be given to a member.
    Available,
    /// A member has it, until its lock expires.
    Acquired,
    /// A member has processed it.
    Acknowledged,
    /// It is being copied to the dead-letter topic (KIP-1191).
    Archiving,
    /// It is given to nobody any more: rejected, delivered too often, or not in the log.
    Archived,
}

impl RecordState {
    /// As on the wire.
    pub fn id(self) -> i8 {
        match self {
            Self::Available => 0,
            Self::Acquired => 1,
            Self::Acknowledged => 2,
            Self::Archiving => 3,
            Self::Archived => 4,
        }
    }

    /// The state of a number.
    pub fn of_id(id: i8) -> Option<Self> {
        let all = [
            Self::Available,
            Self::Acquired,
            Self::Acknowledged,
            Self::Archiving,
            Self::Archived,
        ];
        all.into_iter().find(|state| state.id() == id)
    }

    /// Whether nothing follows it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Archived)
    }
}

/// What is stored of a range of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateBatch {
    /// First offset.
    pub first: i64,
    /// Last offset.
    pub last: i64,
    /// Of all of them.
    pub state: RecordState,
    /// How often each of them was given to a member.
    pub delivery_count: i16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_numbers_of_kafka() {
        let ids: Vec<i8> = (0..5)
            .map(|id| RecordState::of_id(id).unwrap().id())
            .collect();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        assert_eq!(RecordState::of_id(5), None);
        assert_eq!(RecordState::of_id(-1), None);
        let terminal: Vec<i8> = ids
            .into_iter()
            .filter(|id| RecordState::of_id(*id).unwrap().is_terminal())
            .collect();
        assert_eq!(terminal, [2, 4]);
    }
}
