//! Listeners and connections: frames in, answers out, in order, within limits.

mod connection;
mod file_read;
mod frame_reader;
mod send;
mod server;
mod shutdown;
mod socket;

pub use server::{Endpoint, EndpointError, Server, bind, listen_endpoints};
pub use socket::{Listener, Socket};
