//! Work that goes on without its connection, in a task of its own: what it holds meanwhile, such as the lock for changes of the
//! cluster, is neither given back half way because the connection ends, nor kept because the client takes no answers.

use std::future::Future;
use std::pin::Pin;

use metaq_protocol::messages::ApiKey;

use super::is_sent_on;
use crate::cluster::NewTopic;
use crate::memory::Memory;

/// Beside what is sent on to the controller, what changes what all brokers see, or what later requests wait for.
const CHANGES: &[ApiKey] = &[
    ApiKey::AlterPartition,
    ApiKey::Envelope,
    ApiKey::InitProducerId,
    ApiKey::UnregisterBroker,
    ApiKey::UpdateFeatures,
];

/// Whether a request of an API goes on without its connection.
fn goes_on(key: i16) -> bool {
    is_sent_on(key) || CHANGES.iter().any(|change| *change as i16 == key)
}

/// Work on a request of an API: in a task of its own where that goes on without its connection.
pub fn detached<T: Send + 'static>(
    key: i16,
    work: impl Future<Output = T> + Send + 'static,
) -> Pin<Box<dyn Future<Output = T> + Send>> {
    match goes_on(key) {
        true => Box::pin(in_own_task(work)),
        false => Box::pin(work),
    }
}

/// Does work in a task of its own, which begins when this is polled first and goes on when this is dropped. What the work has
/// of the request memory belongs into it.
pub(super) async fn in_own_task<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and every connection with it.
        Err(_) => std::future::pending().await,
    }
}

/// As [`in_own_task`], for making topics; not where the request memory has no room for what says them.
pub(super) async fn make_in_own_task<T: Send + 'static>(
    memory: &Memory,
    topics: &[NewTopic],
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let bytes_of = |topic: &NewTopic| size_of::<NewTopic>() + topic.name.len();
    counted_in_own_task(memory, topics.iter().map(bytes_of).sum(), work).await
}

/// As [`in_own_task`], with what the work has of the request memory, bytes; not where that has no room for it.
pub(super) async fn counted_in_own_task<T: Send + 'static>(
    memory: &Memory,
    bytes: usize,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let share = memory.try_take(bytes)?;
    let counted = async move {
        let done = work.await;
        drop(share);
        done
    };
    Some(in_own_task(counted).await)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_begins_at_the_first_poll_and_goes_on_when_nobody_waits_for_it() {
        let began = Arc::new(AtomicBool::new(false));
        let (go, gone) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let is_begun = began.clone();
        let mut work = Box::pin(in_own_task(async move {
            is_begun.store(true, Ordering::SeqCst);
            let _ = gone.await;
            let _ = tell.send(1);
        }));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!began.load(Ordering::SeqCst));
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        go.send(()).unwrap();
        assert_eq!(told.await, Ok(1));
    }

    #[tokio::test]
    #[should_panic = "a handler's"]
    async fn a_panic_is_whose_waits_for_it() {
        in_own_task(async { panic!("a handler's") }).await
    }
}
