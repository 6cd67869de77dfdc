//! Reading files without holding up a thread that serves connections.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;

use crate::log::DiskFile;

/// Reads a whole range on a thread that may wait for the disk.
pub(super) async fn read_in_background(
    file: &Arc<dyn DiskFile>,
    position: u64,
    bytes: usize,
) -> io::Result<BytesMut> {
    let file = file.clone();
    let read = move || {
        let mut buffer = BytesMut::zeroed(bytes);
        match file.read_at(&mut buffer, position)? {
            read if read == bytes => Ok(buffer),
            _ => Err(too_short()),
        }
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
}

pub(super) fn too_short() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the segment is shorter than it was",
    )
}
