//! Supervised threads and tasks: those that a broker cannot do without. One that ends by a panic is remembered, and `/healthz`
//! reports it, so that whatever supervises the process can restart it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;

/// Knows which supervised threads and tasks have panicked; clones share it.
#[derive(Clone, Default)]
pub struct Supervisor {
    ended: Arc<Mutex<Vec<String>>>,
}

impl Supervisor {
    /// The names of those that have panicked.
    pub fn ended(&self) -> Vec<String> {
        self.ended.lock().clone()
    }

    /// Runs a thread's work; when it panics, that is noted and `on_panic` runs.
    pub fn run(&self, name: &str, work: impl FnOnce(), on_panic: impl FnOnce()) {
        if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.ended.lock().push(name.to_owned());
            on_panic();
            report(name);
        }
    }

    /// Runs a task; when it panics, that is noted.
    pub async fn watch(self, name: &'static str, task: impl Future<Output = ()>) {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            self.ended.lock().push(name.to_owned());
            report(name);
        }
    }
}

fn report(name: &str) {
    tracing::error!(
        name,
        "ended by a panic; this is a bug, and the broker must be restarted"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_remembered_and_what_merely_ends_is_not() {
        let supervisor = Supervisor::default();
        let mut is_handled = false;
        supervisor.run("a", || {}, || panic!("it did not end unexpectedly"));
        supervisor.run("b", || panic!("on purpose"), || is_handled = true);
        assert_eq!(
            (supervisor.ended(), is_handled),
            (vec!["b".to_owned()], true)
        );
    }
}
