//! What connections and listeners know of the shutdown.

use tokio::sync::watch;

/// Waits for the shutdown.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
