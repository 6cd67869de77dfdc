//! How the cleaners work: Kafka's CleanerConfig, but for what means nothing here.

use std::time::Duration;

use crate::log::KEY_MAP_BYTES_MIN;

/// Settings of the cleaners; all but `is_enabled` may change while they work.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerOptions {
    /// `log.cleaner.enable`.
    pub is_enabled: bool,
    /// `log.cleaner.threads`.
    pub threads: usize,
    /// `log.cleaner.dedupe.buffer.size`: of all threads together.
    pub key_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`: of all threads together.
    pub bytes_per_second: f64,
    /// `log.cleaner.backoff.ms`: between two looks that found nothing to do.
    pub backoff: Duration,
}

impl CleanerOptions {
    /// How many threads there are to be.
    pub(super) fn threads_wanted(&self) -> usize {
        match self.is_enabled {
            true => self.threads,
            false => 0,
        }
    }

    /// What one of them has for its keys.
    pub(super) fn key_bytes_each(&self) -> usize {
        let each = self.key_bytes / self.threads.max(1) as u64;
        usize::try_from(each)
            .unwrap_or(usize::MAX)
            .max(KEY_MAP_BYTES_MIN)
    }
}

impl Default for CleanerOptions {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            is_enabled: true,
            threads: 1,
            key_bytes: 128 << 20,
            bytes_per_second: f64::MAX,
            backoff: Duration::from_secs(15),
        }
    }
}
