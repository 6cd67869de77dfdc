//! How quotas are measured.

use crate::config::key::{BrokerKey, key};
use crate::config::value::Kind;

/// The most samples that quotas are held by.
const QUOTA_SAMPLES_MAX: i64 = 3600;
/// The longest of them, s.
const QUOTA_SAMPLE_SECONDS_MAX: i64 = 3600;

pub(super) const KEYS: &[BrokerKey] = &[
    key!(
        "quota.window.num",
        None,
        Kind::Int(1, QUOTA_SAMPLES_MAX),
        "11",
        "Samples by which quotas of bytes, request time and connections are held: all but the one under way are counted."
    ),
    key!(
        "quota.window.size.seconds",
        None,
        Kind::Int(1, QUOTA_SAMPLE_SECONDS_MAX),
        "1",
        "How long such a sample is, s; a request's client waits for as long at most for the time that it took."
    ),
    key!(
        "controller.quota.window.num",
        None,
        Kind::Int(1, QUOTA_SAMPLES_MAX),
        "11",
        "Samples by which quotas of partitions are held: as many as come in all of them may be created or deleted at once."
    ),
    key!(
        "controller.quota.window.size.seconds",
        None,
        Kind::Int(1, QUOTA_SAMPLE_SECONDS_MAX),
        "1",
        "How long such a sample is, s."
    ),
];
