//! Proposes to the controller who is in sync (AlterPartition; Kafka's AlterPartitionManager).

use std::sync::Arc;

use crate::api::Context;

/// Sends what partitions want proposed, until the broker ends.
pub(super) async fn send(cx: Arc<Context>) {
    let _ = cx;
    std::future::pending::<()>().await;
}
