//! How a log was left, as far as that is known when it is opened.

/// What is known about how the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Closed cleanly: everything is as the files say.
    Clean,
    /// Not closed, but the system has run on since: only the end may be torn.
    AfterKill {
        /// As below.
        recovery_point: i64,
    },
    /// Not closed: synced up to this offset, anything after it may be torn.
    AfterCrash {
        /// From `recovery-point-offset-checkpoint`, 0 when it says nothing.
        recovery_point: i64,
    },
}

impl OpenMode {
    /// What is known to be on stable storage; all of it, after a clean close.
    pub(super) fn recovery_point(self) -> i64 {
        match self {
            Self::Clean => i64::MAX,
            Self::AfterKill { recovery_point } | Self::AfterCrash { recovery_point } => {
                recovery_point
            }
        }
    }
}

/// How a log was left, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftAs {
    /// Whether it was closed.
    pub mode: OpenMode,
    /// The checkpointed start, 0 when unknown.
    pub log_start: i64,
    /// Up to here it was compacted, so that offsets may be missing; 0 for nowhere.
    pub cleaned_until: i64,
}

impl LeftAs {
    /// With nothing else known.
    pub fn new(mode: OpenMode) -> Self {
        Self {
            mode,
            log_start: 0,
            cleaned_until: 0,
        }
    }

    pub(super) fn after_crash(self) -> Self {
        let recovery_point = self.mode.recovery_point();
        Self {
            mode: OpenMode::AfterCrash { recovery_point },
            ..self
        }
    }
}
