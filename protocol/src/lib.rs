//! The Kafka wire protocol as metaq needs it: no I/O, no broker.
//!
//! - [`versions`]: the one table of APIs and versions
//! - [`shape`]: checks a message against Kafka's schema before it is decoded
//! - [`messages`]: requests and responses, the wire crate's and our own
//! - [`frame`]: request and response frames
//! - [`fetch_response`]: a Fetch response that leaves record bytes in files
//! - [`share_fetch_response`]: the same of a ShareFetch response
//! - [`batch`]: the record-batch header, and building batches
//! - [`fuzz_entry`]: where hostile bytes enter, for the fuzzers
//! - [`records`]: the records inside a batch
//! - [`record_stream`]: passing over records while they are unpacked
//! - [`compression`]: the codecs, capped

mod api_key;
pub mod batch;
pub mod compression;
pub mod fetch_response;
pub mod frame;
pub mod fuzz_entry;
pub mod messages;
pub mod record_stream;
pub mod records;
pub mod shape;
pub mod share_fetch_response;
pub mod versions;

pub use kafka_protocol::error::ResponseError;
pub use kafka_protocol::protocol;
