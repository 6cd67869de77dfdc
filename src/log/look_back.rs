//! Batches of producers from before a snapshot. A snapshot has the last batch of each producer alone, as Kafka's, but a
//! client that heard nothing before a crash may send any of its last five again. They are in the log, and looked for once,
//! when a batch comes that does not follow.

use std::io;

use super::LogError;
use super::partition_log::Log;
use super::producers::Producers;
use super::segment::{BatchAt, Segment};

/// How far is looked back, bytes: more than what is in flight when a broker dies.
const LOOK_BACK_BYTES: u64 = 16 << 20;

impl Log {
    /// Completes `producers`, which know one batch each of what lies before offset `before`.
    pub(super) fn look_back(&self, producers: &mut Producers, before: i64) -> io::Result<()> {
        let segments = self.segments.load();
        let older = segments.partition_point(|segment| segment.base_offset < before);
        let (mut first, mut bytes) = (older, 0);
        while first > 0 && bytes < LOOK_BACK_BYTES {
            first -= 1;
            bytes += segments[first].bytes();
        }
        let mut found = Producers::default();
        let mut skip = bytes.saturating_sub(LOOK_BACK_BYTES);
        for segment in &segments[first..older] {
            match look_through(segment, skip, before, &mut found) {
                Ok(()) => {}
                Err(LogError::Io(error)) => return Err(error),
                // What is damaged is as good as not there; readers say so.
                Err(error) => {
                    tracing::warn!(segment = %segment.path().display(), %error, "producers' last batches are not all known");
                }
            }
            skip = 0;
        }
        producers.precede(&found);
        Ok(())
    }
}

fn look_through(
    segment: &Segment,
    skip: u64,
    before: i64,
    found: &mut Producers,
) -> Result<(), LogError> {
    let start = segment.offsets.position_at_most(skip)?;
    let mut walk = segment.batches(u64::from(start), segment.bytes())?;
    while let Some(BatchAt { header, .. }) = walk.next()? {
        if header.base_offset >= before {
            break;
        }
        found.stored(&header);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use metaq_protocol::batch::{BatchBuilder, BatchHeader};

    use crate::log::{
        Appended, LeftAs, Log, LogConfig, LogError, OpenMode, ProducedBatch, RealDisk,
    };

    const NOW: i64 = 1_700_000_000_000;

    /// Small segments: a snapshot every two batches.
    fn open(dir: &std::path::Path, mode: OpenMode) -> Log {
        let config = LogConfig {
            segment_bytes: 250,
            index_interval_bytes: 0,
            ..LogConfig::default()
        };
        let left = LeftAs::new(mode);
        let opened = Log::open(Arc::new(RealDisk), dir, config, left, NOW);
        opened.unwrap().log
    }

    /// Record `n` of a producer, which is its sequence too.
    fn send(log: &Log, producer: i64, n: i32) -> Result<Appended, LogError> {
        let builder = BatchBuilder::new().producer(producer, 0, n);
        let bytes = builder
            .push(None, Some(&[7; 30]), &[], NOW)
            .finish()
            .unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        let batch = ProducedBatch { header, bytes };
        log.append(&[vec![batch]], 0, NOW).remove(0)
    }

    #[test]
    fn a_retried_batch_from_before_a_snapshot_is_recognised_after_a_restart() {
        for mode in [OpenMode::Clean, OpenMode::AfterCrash { recovery_point: 0 }] {
            for sent in 6..10 {
                let dir = tempfile::tempdir().unwrap();
                let log = open(dir.path(), OpenMode::Clean);
                for n in 0..sent {
                    send(&log, 7, n).unwrap();
                    send(&log, 8, n).unwrap();
                }
                if mode == OpenMode::Clean {
                    log.close(NOW).unwrap();
                }
                drop(log);
                let log = open(dir.path(), mode);
                let end = log.ends().log_end.offset;
                for n in sent - 5..sent {
                    let again = send(&log, 7, n).unwrap();
                    assert_eq!(again.base_offset, i64::from(n) * 2);
                }
                assert_eq!(log.ends().log_end.offset, end);
                // Of what is older nobody can tell whether it was stored.
                assert!(matches!(
                    send(&log, 7, sent - 6),
                    Err(LogError::Sequence(_))
                ));
                assert_eq!(send(&log, 7, sent).unwrap().base_offset, end);
            }
        }
    }
}
