//! Listeners and connections: frames in, answers out, in order, within limits.

mod connection;
mod endpoint;
mod file_read;
mod frame_reader;
mod limits;
mod outcome;
mod send;
mod server;
mod shutdown;
mod socket;

pub use endpoint::{Bound, Endpoint, EndpointError, bind, listen_endpoints};
pub use server::Server;
pub use socket::{Listener, Socket};
