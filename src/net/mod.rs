//! Listeners and connections: frames in, answers out, in order, within limits.

mod connection;
mod frame_reader;
mod memory;
mod send;
mod server;

pub use server::{Endpoint, EndpointError, Server, listen_endpoints};

/// The network types in one place, so that a simulated network can take their place.
mod alias {
    pub(super) use tokio::net::{TcpListener, TcpStream};
}
