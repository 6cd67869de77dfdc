//! Telling whoever started the broker how it is: systemd's sd_notify protocol, datagrams to the socket that
//! NOTIFY_SOCKET names. `metaq server start` listens in the same way.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells; or does nothing, where nobody wants to know.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Whom the environment names.
    pub fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| open(name.as_bytes()).ok());
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        Self {
            socket,
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// How often [`Notify::alive`] is wanted: twice in the time after which the broker counts as hung.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// It serves.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// It reads its configuration again; [`Notify::ready`] follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// It is alive.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, to)) = &self.socket {
            // Who wanted to know may be gone.
            let _ = socket.send_to_addr(message.as_bytes(), to);
        }
    }
}

fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_as_systemd_expects_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let notify = Notify {
            socket: Some(open(path.as_os_str().as_bytes()).unwrap()),
            watchdog: Some(Duration::from_secs(10)),
        };
        assert_eq!(notify.watchdog_interval(), Some(Duration::from_secs(5)));
        let mut buffer = [0; 200];
        let mut received = || {
            let bytes = receiver.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..bytes].to_vec()).unwrap()
        };
        notify.ready("serving");
        assert_eq!(received(), "READY=1\nSTATUS=serving");
        notify.reloading();
        assert!(received().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notify.alive();
        assert_eq!(received(), "WATCHDOG=1");
        notify.stopping();
        assert!(received().starts_with("STOPPING=1"));
        Notify::default().ready("to nobody");
    }
}
