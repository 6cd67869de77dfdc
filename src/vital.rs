//! Threads and tasks that a broker cannot do without. One that ends by a panic is remembered and told by `/healthz`,
//! so that whoever watches the process can start it anew.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;

/// What ended unexpectedly so far; clones share it.
#[derive(Clone, Default)]
pub struct Vital {
    ended: Arc<Mutex<Vec<String>>>,
}

impl Vital {
    /// The names of what ended.
    pub fn ended(&self) -> Vec<String> {
        self.ended.lock().clone()
    }

    /// Runs a thread's work; when it panics, that is noted and `afterwards` is done.
    pub fn run(&self, name: &str, work: impl FnOnce(), afterwards: impl FnOnce()) {
        if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.ended.lock().push(name.to_owned());
            afterwards();
            tell(name);
        }
    }

    /// Runs a task; when it panics, that is noted.
    pub async fn watch(self, name: &'static str, task: impl Future<Output = ()>) {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            self.ended.lock().push(name.to_owned());
            tell(name);
        }
    }
}

fn tell(name: &str) {
    tracing::error!(
        name,
        "ended by a panic; this is a bug, and the broker must be restarted"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_remembered_and_what_ends_is_not() {
        let vital = Vital::default();
        let mut told = false;
        vital.run("a", || {}, || panic!("it did not end unexpectedly"));
        vital.run("b", || panic!("on purpose"), || told = true);
        assert_eq!((vital.ended(), told), (vec!["b".to_owned()], true));
    }
}
