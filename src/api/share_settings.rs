//! What the configuration says of a share group at this moment: of the group itself, or of all by the broker's.

use super::context::Context;
use crate::cluster::Configured;
use crate::config::OffsetReset;
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
        let image = cx.cluster.image();
        let set = image.configs.get(Configured::Group, group_id);
        let config = cx.config.load();
        let in_file = config.defaults_for_group(group_id);
        let own = |name: &str| {
            let set = set.and_then(|set| set.get(name));
            set.or_else(|| in_file.get(name)).map(String::as_str)
        };
        let number = |name: &str| {
            let own = own(name).and_then(|text| text.parse::<i64>().ok());
            own.unwrap_or_else(|| config.number(&format!("group.{name}")))
        };
        Self {
            limits: ShareLimits {
                lock_ms: number("share.record.lock.duration.ms"),
                delivery_count_max: number("share.delivery.count.limit") as i16,
                locks_max: number("share.partition.max.record.locks"),
                may_renew: own("share.renew.acknowledge.enable") != Some("false"),
            },
            isolation: match own("share.isolation.level") {
                Some("read_committed") => Isolation::ReadCommitted,
                _ => Isolation::ReadUncommitted,
            },
            reset: own("share.auto.offset.reset")
                .and_then(|text| text.parse().ok())
                .unwrap_or(OffsetReset::Latest),
        }
    }

    /// As answers say it, ms.
    pub(super) fn lock_timeout_ms(&self) -> i32 {
        i32::try_from(self.limits.lock_ms).unwrap_or(i32::MAX)
    }
}
