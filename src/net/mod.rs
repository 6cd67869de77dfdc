//! Listeners and connections: frames in, answers out, in order, within limits.

mod any_socket;
mod arrived;
mod bearer;
mod connection;
mod endpoint;
mod file_read;
mod frame_reader;
mod limits;
mod outcome;
mod send;
mod server;
mod settings;
mod shutdown;
mod socket;
mod tls_socket;

pub use any_socket::{AnyListener, AnySocket};
pub use bearer::provider_keys;
pub use endpoint::{
    BindError, Bound, Endpoint, EndpointError, bind, cannot_listen, inter_broker_listener,
    listen_endpoints, open_tls, tls_settings,
};
pub use server::Server;
pub use socket::{Listener, Socket};
