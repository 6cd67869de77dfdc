//! What parts of a broker are told of its configuration.

use std::time::Duration;

use crate::config::Config;
use crate::meta::FlushTransactions;
use crate::partition::{CleanerOptions, HousekeepingIntervals};
use crate::transaction::TransactionLimits;

/// Of transactions.
pub fn transaction_limits(config: &Config) -> TransactionLimits {
    TransactionLimits {
        timeout_ms_max: config.number("transaction.max.timeout.ms") as i32,
        expiration_ms: config.number("transactional.id.expiration.ms"),
        expiration_check_ms: config
            .number("transaction.remove.expired.transaction.cleanup.interval.ms"),
        timers_max: config.number("max.tx.timeout.timer.capacity") as usize,
        bytes_max: config.number("transactional.ids.max.bytes") as usize,
        two_phase: config.flag("transaction.two.phase.commit.enable"),
    }
}

/// Of the embedded store.
pub fn flush_transactions(config: &Config) -> FlushTransactions {
    match config.number("flush.tx.log.at.commit") {
        0 => FlushTransactions::BySystem,
        2 => FlushTransactions::EachSecond,
        _ => FlushTransactions::BeforeAnswer,
    }
}

/// Of compaction.
pub fn cleaner_options(config: &Config) -> CleanerOptions {
    CleanerOptions {
        is_enabled: config.flag("log.cleaner.enable"),
        threads: config.number("log.cleaner.threads") as usize,
        key_bytes: config.number("log.cleaner.dedupe.buffer.size") as u64,
        bytes_per_second: config.fraction("log.cleaner.io.max.bytes.per.second"),
        backoff: Duration::from_millis(config.number("log.cleaner.backoff.ms") as u64),
    }
}

/// Of what happens now and then.
pub fn housekeeping_intervals(config: &Config) -> HousekeepingIntervals {
    let ms = |name| Duration::from_millis(config.number(name) as u64);
    HousekeepingIntervals {
        retention: ms("log.retention.check.interval.ms"),
        checkpoint: ms("log.flush.offset.checkpoint.interval.ms"),
        producer_expiration_ms: config.number("producer.id.expiration.ms"),
        producer_bytes_max: config.number("producer.ids.max.bytes") as usize,
    }
}
