//! What the configuration says of a share group at this moment: of the group itself, or of all by the broker's.

use super::context::Context;
use crate::cluster::Configured;
use crate::config::{GroupOverrides, OffsetReset};
use crate::partition::Isolation;
use crate::share::ShareLimits;

/// See the module's documentation.
pub(super) struct ShareSettings {
    pub(super) limits: ShareLimits,
    pub(super) isolation: Isolation,
    pub(super) reset: OffsetReset,
}

impl ShareSettings {
    pub(super) fn of(cx: &Context, group_id: &str) -> Self {
        let (image, config) = (cx.cluster.image(), cx.config.load());
        let at_run_time = image.configs.get(Configured::Group, group_id);
        let set = GroupOverrides::of(&config, group_id, at_run_time);
        Self {
            limits: ShareLimits {
                lock_ms: set.number("share.record.lock.duration.ms"),
                delivery_count_max: set.number("share.delivery.count.limit") as i16,
                retry_backoff_ms: set
                    .own("share.retry.backoff.ms")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_default(),
                locks_max: set.number("share.partition.max.record.locks"),
                has_dead_letters: set
                    .own("errors.deadletterqueue.topic.name")
                    .is_some_and(|name| !name.is_empty()),
                may_renew: set.own("share.renew.acknowledge.enable") != Some("false"),
            },
            isolation: match set.own("share.isolation.level") {
                Some("read_committed") => Isolation::ReadCommitted,
                _ => Isolation::ReadUncommitted,
            },
            reset: set
                .own("share.auto.offset.reset")
                .and_then(|text| text.parse().ok())
                .unwrap_or(OffsetReset::Latest),
        }
    }

    /// As answers say it, ms.
    pub(super) fn lock_timeout_ms(&self) -> i32 {
        i32::try_from(self.limits.lock_ms).unwrap_or(i32::MAX)
    }
}
