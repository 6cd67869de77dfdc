//! A TCP proxy that a test can cut, slow down, or let forget answers.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

#[derive(Default)]
struct Faults {
    /// Nobody gets through.
    closed: AtomicBool,
    /// Answers are thrown away, and the connection is cut with the first one.
    deaf: AtomicBool,
    /// Each answer is held back this long.
    delay_ms: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
}

impl Proxy {
    /// Stands in front of a server; never ends before the process does.
    pub fn new(target: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults::default());
        let of_thread = faults.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of_thread.closed.load(Ordering::SeqCst) {
                    continue;
                }
                if let Ok(server) = TcpStream::connect(&target) {
                    join(client, server, &of_thread);
                }
            }
        });
        Self { address, faults }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Cuts all connections; new ones are closed at once until [`Self::open`].
    pub fn close(&self) {
        self.faults.closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    pub fn open(&self) {
        self.faults.closed.store(false, Ordering::SeqCst);
    }

    /// Cuts all connections there are.
    pub fn cut(&self) {
        for stream in self.faults.open.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts every connection with the next answer, which is lost: what was asked was done, but nobody knows.
    pub fn lose_next_answer(&self) {
        self.faults.deaf.store(true, Ordering::SeqCst);
    }

    /// Holds every answer back.
    pub fn delay(&self, delay: Duration) {
        let ms = delay.as_millis() as u64;
        self.faults.delay_ms.store(ms, Ordering::SeqCst);
    }
}

fn join(client: TcpStream, server: TcpStream, faults: &Arc<Faults>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let clones = [client.try_clone(), server.try_clone()];
    faults.open.lock().extend(clones.into_iter().flatten());
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let faults = faults.clone();
    std::thread::spawn(move || answer(client, server, &faults));
}

fn answer(mut client: TcpStream, mut server: TcpStream, faults: &Faults) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        if faults.deaf.swap(false, Ordering::SeqCst) {
            break;
        }
        match faults.delay_ms.load(Ordering::SeqCst) {
            0 => {}
            ms => std::thread::sleep(Duration::from_millis(ms)),
        }
        if client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
