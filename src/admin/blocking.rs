//! Reading what may wait for a lock or the disk, on a thread that may.

use super::errors::ApiError;

/// Runs `read` on a thread that may wait.
pub(super) async fn blocking<S: Clone + Send + 'static, T: Send + 'static>(
    source: &S,
    read: impl FnOnce(&S) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let source = source.clone();
    let done = tokio::task::spawn_blocking(move || read(&source)).await;
    done.map_err(|_| ApiError::failed("a read panicked; this is a bug"))
}
