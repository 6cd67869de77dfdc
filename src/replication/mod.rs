//! Copies the partitions that this broker follows from their leaders, and tells the controller which followers of those that it
//! leads are in sync.
//!
//! ```text
//! run ─▶ {assignment, isr_proposals ─▶ {retries, isr_history}}      assignment ─▶ fetcher ─▶ {session, answer, out_of_range, connections} ─▶ followed
//! ```
//!
//! - `assignment` follows the cluster image: which partitions are copied from whom, by which connection.
//! - `connections` has the tasks, and starts one again that panicked.
//! - `fetcher` is one connection's loop: it fetches, has what came appended, and fetches again from where the logs end then. So
//!   what it asks for is what this broker has, durably where the topic syncs each message, and the leader may count on it.
//! - `isr_proposals` sends AlterPartition, and what was refused ever later again (`retries`).
//! - `isr_history` tells which replicas fell out of sync, why, and for how long.

mod answer;
mod assignment;
mod connections;
mod fetcher;
mod followed;
mod isr_history;
mod isr_proposals;
mod out_of_range;
mod retries;
mod session;

use std::sync::Arc;

use crate::api::Context;

/// Client id of what followers ask.
const REPLICATION: &str = "metaq-replication";

/// Follows the cluster until the broker ends.
pub async fn run(cx: Arc<Context>) {
    let laggards = Arc::default();
    tokio::join!(
        assignment::follow(cx.clone()),
        isr_proposals::send(cx.clone(), Arc::clone(&laggards)),
        isr_history::tell_of_changes(cx, laggards),
    );
}
