//! Blocking work of tasks.

/// Runs blocking work on a thread for it. Propagates its panic to the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}
