//! Which segments are written into one.

use std::ops::Range;
use std::sync::Arc;

use super::super::config::LogConfig;
use super::super::segment::Segment;

/// Bytes of an entry of `.index`, and of `.timeindex`.
const INDEX_ENTRY_BYTES: [usize; 2] = [8, 12];

/// Segments that follow each other and fit into one (Kafka's Cleaner.groupSegmentsBySize).
pub(super) fn groups(
    segments: &[Arc<Segment>],
    config: &LogConfig,
    range: Range<usize>,
    end: i64,
) -> Vec<Range<usize>> {
    let index_max = config.index_bytes_max as u64;
    let sizes = |at: usize| -> [u64; 3] {
        let segment = &segments[at];
        let entries = [
            segment.offsets.file.entries().unwrap_or(0),
            segment.times.file.entries().unwrap_or(0),
        ];
        [
            segment.bytes(),
            (entries[0] * INDEX_ENTRY_BYTES[0]) as u64,
            (entries[1] * INDEX_ENTRY_BYTES[1]) as u64,
        ]
    };
    let limits = [config.segment_bytes, index_max, index_max];
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut taken = [0; 3];
    for at in range {
        let size = sizes(at);
        let next = segments.get(at + 1);
        let last = next.map_or(end, |next| next.base_offset) - 1;
        let fits = groups.last().is_some_and(|group| {
            let span = last - segments[group.start].base_offset;
            let mut all = taken.iter().zip(size).zip(limits);
            span <= i64::from(i32::MAX) && all.all(|((taken, size), max)| taken + size <= max)
        });
        match groups.last_mut().filter(|_| fits) {
            Some(group) => {
                group.end = at + 1;
                taken
                    .iter_mut()
                    .zip(size)
                    .for_each(|(taken, size)| *taken += size);
            }
            None => {
                groups.push(at..at + 1);
                taken = size;
            }
        }
    }
    groups
}
