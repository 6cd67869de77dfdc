//! An offset and where it is in a log's files.

/// See the module's documentation (Kafka's LogOffsetMetadata).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetPosition {
    /// The offset.
    pub offset: i64,
    /// Base offset of the segment that holds, or will hold, it.
    pub segment_base: i64,
    /// Byte position in that segment.
    pub position: u64,
}
