//! Waking the writer thread once for all that one turn of a connection queues: a wake costs more than a batch.

use std::cell::RefCell;
use std::sync::Arc;

use super::writer::Queue;

thread_local! {
    /// The queues to be woken at the end of the turn, while there is one.
    static PUT_OFF: RefCell<Option<Vec<Arc<Queue>>>> = const { RefCell::new(None) };
}

/// Wakes at the end, also when the turn panics.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        let queues = PUT_OFF.take().unwrap_or_default();
        queues.iter().for_each(|queue| queue.wake());
    }
}

/// Runs a turn; writer threads that it gives work to are woken when it ends.
pub fn wakes_together<T>(turn: impl FnOnce() -> T) -> T {
    PUT_OFF.set(Some(Vec::new()));
    let _wakes = Turn;
    turn()
}

/// Whether the queue will be woken at the end of the turn that is under way.
pub(super) fn put_off(queue: &Arc<Queue>) -> bool {
    PUT_OFF.with_borrow_mut(|put_off| match put_off {
        Some(queues) => {
            queues.push(queue.clone());
            true
        }
        None => false,
    })
}
