//! The five codecs of record batches, with a cap on what unpacking may produce.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use crate::batch::Compression;

/// Java's snappy stream: this magic, two version words, then blocks of length and raw snappy.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
const READ_BYTES: usize = 64 << 10;
/// No snappy block gives more bytes than this for each of its own.
const SNAPPY_RATIO_MAX: usize = 22;

/// Why a block does not pack or unpack.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// More than the cap comes out.
    #[error("the batch unpacks to more than {0} bytes")]
    TooLarge(usize),
    /// Not valid data of that codec.
    #[error("{codec} data is malformed: {what}")]
    Malformed {
        /// The codec's name.
        codec: &'static str,
        /// What it said.
        what: String,
    },
}

/// Unpacks a block; never to more than `bytes_max` bytes.
pub fn decompress(
    codec: Compression,
    packed: &[u8],
    bytes_max: usize,
) -> Result<Cow<'_, [u8]>, CompressionError> {
    let unpacked = match codec {
        Compression::None => return Ok(Cow::Borrowed(packed)),
        Compression::Gzip => {
            read_capped(codec, flate2::read::MultiGzDecoder::new(packed), bytes_max)?
        }
        Compression::Lz4 => {
            read_capped(codec, lz4_flex::frame::FrameDecoder::new(packed), bytes_max)?
        }
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::new(packed)
                .map_err(|error| malformed(codec, error))?;
            read_capped(codec, decoder, bytes_max)?
        }
        Compression::Snappy => unpack_snappy(packed, bytes_max)?,
    };
    Ok(Cow::Owned(unpacked))
}

/// Unpacks a block piece by piece. What one piece holds in memory is bounded by `bytes_max` too.
pub(crate) fn unpacker(
    codec: Compression,
    packed: &[u8],
    bytes_max: usize,
) -> Result<Box<dyn Read + '_>, CompressionError> {
    Ok(match codec {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        Compression::Lz4 if !has_end_mark(packed) => {
            return Err(malformed(codec, "the frame has no end"));
        }
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
        Compression::Zstd => Box::new(
            zstd::stream::read::Decoder::new(packed).map_err(|error| malformed(codec, error))?,
        ),
        Compression::Snappy if packed.starts_with(&XERIAL_MAGIC) => Box::new(XerialUnpacker {
            rest: packed
                .get(XERIAL_HEADER_BYTES..)
                .ok_or_else(|| malformed(codec, "no header"))?,
            block: Vec::new(),
            at: 0,
            bytes_max,
        }),
        Compression::Snappy => {
            let mut unpacked = Vec::new();
            unpack_raw_snappy(packed, bytes_max, &mut unpacked)?;
            Box::new(io::Cursor::new(unpacked))
        }
    })
}

/// Whether an LZ4 frame ends as it must: the decoder takes one that stops behind a block for whole, Java's does not.
///
/// A frame: magic (4), flags, block size, content size (8) where flag 3 is set, dictionary (4) where flag 0 is, header
/// checksum; then blocks, each its length (4, little-endian, the highest bit aside), its bytes, and a checksum (4) where
/// flag 4 is set; a length of 0 ends it, and a checksum (4) follows where flag 2 is set.
fn has_end_mark(frame: &[u8]) -> bool {
    let Some(flags) = frame.get(4) else {
        return false;
    };
    let is_set = |flag: u8| usize::from(flags >> flag & 1);
    let mut at = 7 + 8 * is_set(3) + 4 * is_set(0);
    loop {
        let Some(length) = frame.get(at..).and_then(|rest| rest.first_chunk::<4>()) else {
            return false;
        };
        let length = (u32::from_le_bytes(*length) & 0x7fff_ffff) as usize;
        at += 4;
        if length == 0 {
            return at + 4 * is_set(2) <= frame.len();
        }
        at += length + 4 * is_set(4);
    }
}

/// Unpacks Java's snappy stream block by block.
struct XerialUnpacker<'a> {
    rest: &'a [u8],
    block: Vec<u8>,
    at: usize,
    bytes_max: usize,
}

impl Read for XerialUnpacker<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            let (block, rest) = next_block(self.rest).map_err(io::Error::other)?;
            self.rest = rest;
            self.at = 0;
            self.block.clear();
            unpack_raw_snappy(block, self.bytes_max, &mut self.block).map_err(io::Error::other)?;
        }
        let some = out.len().min(self.block.len() - self.at);
        out[..some].copy_from_slice(&self.block[self.at..self.at + some]);
        self.at += some;
        Ok(some)
    }
}

/// The first block of Java's snappy stream, and what is behind it.
fn next_block(stream: &[u8]) -> Result<(&[u8], &[u8]), CompressionError> {
    let cut = || malformed(Compression::Snappy, "a block is cut off");
    let (length, after) = stream.split_first_chunk::<4>().ok_or_else(cut)?;
    after
        .split_at_checked(u32::from_be_bytes(*length) as usize)
        .ok_or_else(cut)
}

/// Packs a block.
pub fn compress(codec: Compression, unpacked: &[u8]) -> Result<Cow<'_, [u8]>, CompressionError> {
    let packed = match codec {
        Compression::None => return Ok(Cow::Borrowed(unpacked)),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder
                .write_all(unpacked)
                .and_then(|()| encoder.finish())
                .map_err(|error| malformed(codec, error))?
        }
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder
                .write_all(unpacked)
                .map_err(|error| malformed(codec, error))?;
            encoder.finish().map_err(|error| malformed(codec, error))?
        }
        Compression::Zstd => {
            zstd::stream::encode_all(unpacked, 3).map_err(|error| malformed(codec, error))?
        }
        Compression::Snappy => pack_snappy(unpacked)?,
    };
    Ok(Cow::Owned(packed))
}

fn malformed(codec: Compression, what: impl ToString) -> CompressionError {
    CompressionError::Malformed {
        codec: codec.name(),
        what: what.to_string(),
    }
}

fn read_capped(
    codec: Compression,
    mut from: impl Read,
    bytes_max: usize,
) -> Result<Vec<u8>, CompressionError> {
    let mut unpacked = Vec::new();
    let mut chunk = vec![0; READ_BYTES.min(bytes_max.max(1))];
    loop {
        match from.read(&mut chunk) {
            // A batch holds at least one record, so nothing at all means that there was no whole frame.
            Ok(0) if unpacked.is_empty() => return Err(malformed(codec, "nothing comes out")),
            Ok(0) => return Ok(unpacked),
            Ok(read) if unpacked.len() + read > bytes_max => {
                return Err(CompressionError::TooLarge(bytes_max));
            }
            Ok(read) => unpacked.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(malformed(codec, error)),
        }
    }
}

fn unpack_snappy(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut unpacked = Vec::new();
    if !packed.starts_with(&XERIAL_MAGIC) {
        unpack_raw_snappy(packed, bytes_max, &mut unpacked)?;
        return Ok(unpacked);
    }
    let mut rest = packed
        .get(XERIAL_HEADER_BYTES..)
        .ok_or_else(|| malformed(Compression::Snappy, "no header"))?;
    while !rest.is_empty() {
        let (block, after) = next_block(rest)?;
        unpack_raw_snappy(block, bytes_max, &mut unpacked)?;
        rest = after;
    }
    Ok(unpacked)
}

fn unpack_raw_snappy(
    block: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let bytes =
        snap::raw::decompress_len(block).map_err(|error| malformed(Compression::Snappy, error))?;
    let start = out.len();
    if bytes > bytes_max - start {
        return Err(CompressionError::TooLarge(bytes_max));
    }
    // Three bytes of snappy give 64 at the most: a larger claim is a lie that costs memory.
    if bytes > block.len().saturating_mul(SNAPPY_RATIO_MAX) + 64 {
        return Err(malformed(
            Compression::Snappy,
            "the claimed size is impossible",
        ));
    }
    out.resize(start + bytes, 0);
    let mut decoder = snap::raw::Decoder::new();
    decoder
        .decompress(block, &mut out[start..])
        .map_err(|error| malformed(Compression::Snappy, error))?;
    Ok(())
}

fn pack_snappy(unpacked: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut packed = Vec::with_capacity(XERIAL_HEADER_BYTES + unpacked.len() / 2);
    packed.extend_from_slice(&XERIAL_MAGIC);
    packed.extend_from_slice(&1u32.to_be_bytes());
    packed.extend_from_slice(&1u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in unpacked.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder
            .compress_vec(block)
            .map_err(|error| malformed(Compression::Snappy, error))?;
        packed.extend_from_slice(&(block.len() as u32).to_be_bytes());
        packed.extend_from_slice(&block);
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let text: Vec<u8> = (0..200_000u32)
            .flat_map(|n| (n % 1000).to_be_bytes())
            .collect();
        for codec in CODECS {
            let packed = compress(codec, &text).unwrap().into_owned();
            assert_eq!(
                &*decompress(codec, &packed, text.len()).unwrap(),
                &text[..],
                "{codec:?}"
            );
        }
    }

    #[test]
    fn the_cap_holds_for_every_codec() {
        let zeros = vec![0; 4 << 20];
        for codec in &CODECS[1..] {
            let packed = compress(*codec, &zeros).unwrap().into_owned();
            let refused = decompress(*codec, &packed, 1 << 20);
            assert!(
                matches!(refused, Err(CompressionError::TooLarge(_))),
                "{codec:?}"
            );
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let packed = snap::raw::Encoder::new()
            .compress_vec(b"hello hello")
            .unwrap();
        assert_eq!(
            &*decompress(Compression::Snappy, &packed, 100).unwrap(),
            b"hello hello"
        );
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        for codec in &CODECS[1..] {
            for length in 1..64usize {
                let garbage: Vec<u8> = (0..length).map(|n| (n * 37 + length) as u8).collect();
                assert!(
                    decompress(*codec, &garbage, 1 << 20).is_err(),
                    "{codec:?} {length}"
                );
            }
        }
    }
}
