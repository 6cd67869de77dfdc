//! Changes of the embedded store that are answered before they are synced (`flush.tx.log.at.commit` 0 and 2), in a file beside
//! the store's own. A kill loses nothing of it; a power failure takes its end, or all of it.
//!
//! The file is appended to, and emptied once the store's own file has what is in it. Frames are numbered without a gap, and the
//! store's own file says up to which number it has them: a frame of an earlier number is not applied again.
//!
//! A frame: length u32 and crc32c u32 of what comes then: number u64, and for each node: length of the path u32, the path, and 0
//! for a removed node, or 1, version i32, length of the data u32, the data. All numbers are big-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes};

use super::Node;
use super::tree::Overlay;

/// Of this file and the store's own.
pub(super) const MODE: u32 = 0o600;
const HEAD_BYTES: usize = 8;

/// See the module's documentation.
pub(super) struct UnsyncedFile {
    file: File,
    /// Of the frame that was written last.
    number: u64,
    bytes: u64,
    /// It may end in half a frame, so nothing is appended until it was emptied.
    is_torn: bool,
}

impl UnsyncedFile {
    /// Opens or creates it, and reads what comes after the frame of number `synced`.
    pub(super) fn open(path: &Path, synced: u64) -> io::Result<(Self, Overlay)> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(MODE).open(path)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let bytes = content.len() as u64;
        let (changes, number) = decode(content.into(), synced);
        let opened = Self {
            file,
            number,
            bytes,
            is_torn: true,
        };
        Ok((opened, changes))
    }

    /// Of the frame that was written last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of its frames.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands changes to the system, to be written when it likes.
    pub(super) fn append(&mut self, changes: &Overlay) -> io::Result<()> {
        if self.is_torn {
            return Err(io::Error::other("the file ends in half a frame"));
        }
        let frame = encode(self.number + 1, changes);
        if let Err(error) = self.file.write_all(&frame) {
            self.is_torn = true;
            return Err(error);
        }
        self.number += 1;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Empties it: all that is in it is in the store's own file.
    pub(super) fn clear(&mut self) {
        if self.bytes == 0 && !self.is_torn {
            return;
        }
        let emptied = self.file.set_len(0);
        match emptied.and_then(|()| self.file.seek(SeekFrom::Start(0))) {
            Ok(_) => {
                self.bytes = 0;
                self.is_torn = false;
            }
            // Its frames are of numbers that are not applied again.
            Err(error) => {
                self.is_torn = true;
                tracing::warn!(%error, "cannot empty the file of changes that are not synced");
            }
        }
    }
}

fn encode(number: u64, changes: &Overlay) -> Vec<u8> {
    let mut frame = vec![0; HEAD_BYTES];
    frame.put_u64(number);
    for (path, node) in &changes.0 {
        frame.put_u32(path.len() as u32);
        frame.put_slice(path.as_bytes());
        match node {
            Some(node) if !node.ephemeral => {
                frame.put_u8(1);
                frame.put_i32(node.version);
                frame.put_u32(node.data.len() as u32);
                frame.put_slice(&node.data);
            }
            _ => frame.put_u8(0),
        }
    }
    let length = (frame.len() - HEAD_BYTES) as u32;
    let crc = crc32c::crc32c(&frame[HEAD_BYTES..]);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame[4..HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
    frame
}

/// What the frames after `synced` change, up to the first that is not whole or not the next; and the last one's number.
fn decode(mut content: Bytes, synced: u64) -> (Overlay, u64) {
    let mut changes = Overlay::default();
    let mut number = synced;
    while let Some((found, frame)) = next_frame(&mut content) {
        if found <= synced {
            continue;
        }
        let Some(nodes) = decode_nodes(frame).filter(|_| found == number + 1) else {
            break;
        };
        changes.0.extend(nodes);
        number = found;
    }
    (changes, number)
}

/// The number of a whole frame, and its nodes.
fn next_frame(content: &mut Bytes) -> Option<(u64, Bytes)> {
    let length = content.try_get_u32().ok()? as usize;
    let crc = content.try_get_u32().ok()?;
    let mut frame = (length <= content.len()).then(|| content.split_to(length))?;
    if crc32c::crc32c(&frame) != crc {
        return None;
    }
    Some((frame.try_get_u64().ok()?, frame))
}

fn decode_nodes(mut frame: Bytes) -> Option<Vec<(String, Option<Node>)>> {
    let mut nodes = Vec::new();
    while frame.has_remaining() {
        let path = String::from_utf8(part(&mut frame)?.into()).ok()?;
        let node = match frame.try_get_u8().ok()? {
            0 => None,
            _ => Some(Node {
                version: frame.try_get_i32().ok()?,
                data: part(&mut frame)?,
                ephemeral: false,
            }),
        };
        nodes.push((path, node));
    }
    Some(nodes)
}

fn part(frame: &mut Bytes) -> Option<Bytes> {
    let length = frame.try_get_u32().ok()? as usize;
    (length <= frame.len()).then(|| frame.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, content: Option<&str>) -> Overlay {
        let node = content.map(|content| Node {
            data: Bytes::copy_from_slice(content.as_bytes()),
            version: 3,
            ephemeral: false,
        });
        Overlay([(path.to_owned(), node)].into())
    }

    fn opened(path: &Path, synced: u64) -> (UnsyncedFile, Overlay) {
        UnsyncedFile::open(path, synced).unwrap()
    }

    /// A file with three frames.
    fn written(path: &Path) {
        let (mut file, found) = opened(path, 0);
        assert!(found.0.is_empty());
        file.clear();
        for changes in [
            change("/a", Some("x")),
            change("/ü", Some("")),
            change("/a", None),
        ] {
            file.append(&changes).unwrap();
        }
        assert_eq!(file.number(), 3);
        assert_eq!(file.bytes(), std::fs::metadata(path).unwrap().len());
    }

    #[test]
    fn what_was_appended_is_found_and_what_the_store_has_is_not_applied_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unsynced");
        written(&path);
        let (file, found) = opened(&path, 0);
        assert_eq!(file.number(), 3);
        let mut all = change("/ü", Some(""));
        all.0.extend(change("/a", None).0);
        assert_eq!(found.0, all.0);
        assert_eq!(opened(&path, 2).1.0, change("/a", None).0);
        assert!(opened(&path, 3).1.0.is_empty());
        // Of a store that is ahead, and of one that lacks a frame before.
        assert_eq!(opened(&path, 9).0.number(), 9);
        let content = std::fs::read(&path).unwrap();
        let second = encode(1, &change("/a", Some("x"))).len();
        std::fs::write(&path, &content[second..]).unwrap();
        assert!(opened(&path, 0).1.0.is_empty());
        assert_eq!(opened(&path, 1).0.number(), 3);
    }

    #[test]
    fn a_file_cut_or_damaged_anywhere_has_its_whole_frames_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unsynced");
        written(&path);
        let whole = std::fs::read(&path).unwrap();
        let first = encode(1, &change("/a", Some("x"))).len();
        let second = first + encode(2, &change("/ü", Some(""))).len();
        let frames = |at: usize| match at {
            _ if at < first => 0,
            _ if at < second => 1,
            _ if at < whole.len() => 2,
            _ => 3,
        };
        for at in 0..=whole.len() {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(opened(&path, 0).0.number(), frames(at), "cut at {at}");
            let mut damaged = whole.clone();
            damaged
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 0x55);
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(opened(&path, 0).0.number(), frames(at), "damaged at {at}");
        }
    }

    #[test]
    fn nothing_is_appended_after_half_a_frame() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unsynced");
        written(&path);
        let (mut file, _) = opened(&path, 0);
        assert!(file.append(&change("/b", None)).is_err());
        file.clear();
        file.append(&change("/b", None)).unwrap();
        assert_eq!(opened(&path, 3).1.0, change("/b", None).0);
    }
}
