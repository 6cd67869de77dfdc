//! How far a look-up may go.

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It may wait for the disk.
    Disk,
    /// What is in memory alone: a thread that serves connections does not wait for a disk.
    Cache,
}
