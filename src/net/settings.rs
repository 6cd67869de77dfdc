//! What connections have in common.

use std::time::Duration;

use crate::config::Config;

/// What connections have in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) frame_bytes_max: usize,
    /// As long as the client has to authenticate.
    pub(super) unknown_frame_bytes_max: usize,
    /// A frame that has begun may make no progress for this long.
    pub(super) stall_max: Duration,
    /// Handshakes may take this long together.
    pub(super) authentication_max: Duration,
    pub(super) in_flight_max: usize,
    /// `None` for never.
    pub(super) idle_max: Option<Duration>,
    pub(super) drain: Duration,
}

impl Settings {
    /// What the configuration says of a connection that begins.
    pub(super) fn of(config: &Config) -> Self {
        let ms = |name| Duration::from_millis(config.number(name) as u64);
        let idle_ms = config.number("connections.max.idle.ms");
        Self {
            frame_bytes_max: config.number("socket.request.max.bytes") as usize,
            unknown_frame_bytes_max: config.number("sasl.server.max.receive.size") as usize,
            stall_max: ms("socket.request.stall.ms"),
            authentication_max: ms("authentication.timeout.ms"),
            in_flight_max: config.number("max.inflight.requests.per.connection") as usize,
            idle_max: u64::try_from(idle_ms).ok().map(Duration::from_millis),
            drain: ms("controlled.shutdown.drain.ms"),
        }
    }
}
