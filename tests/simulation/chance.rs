//! Makes what a thread takes from the system's random numbers follow from a seed: the order of hash maps, the choices
//! of tokio's `select!`, and every UUID.

use std::cell::RefCell;

use super::random::Random;

thread_local! {
    static CHANCE: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// Runs something on a thread of its own whose random numbers follow from the seed; `None` when it panicked.
pub fn seeded<T: Send>(seed: u64, work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Before anything on this thread asks for a random number.
            CHANCE.set(Some(Random::new(seed)));
            work()
        });
        thread.join().ok()
    })
}

/// Takes the place of the C library's: the standard library and the `getrandom` crate call it by name.
///
/// # Safety
///
/// As of getrandom(2): `buffer` must be good for `length` bytes.
// SAFETY: the name is that of the C library's function, and so are the parameters and what it does.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller promises that it is valid for so many bytes.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    let told = CHANCE.try_with(|chance| match &mut *chance.borrow_mut() {
        Some(random) => {
            for part in buffer.chunks_mut(8) {
                part.copy_from_slice(&random.next().to_le_bytes()[..part.len()]);
            }
            true
        }
        None => false,
    });
    if told == Ok(true) {
        return length as isize;
    }
    match rustix::rand::getrandom(buffer, rustix::rand::GetRandomFlags::empty()) {
        Ok(read) => read as isize,
        Err(_) => -1,
    }
}
