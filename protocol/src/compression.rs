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

/// The largest window that a zstd frame may ask for: what its library takes by itself, and Kafka with it. Compression level
/// 22 asks for as much.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// No frame is refused for a window up to this size.
const ZSTD_WINDOW_LOG_MIN: u32 = 21;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What every unpacker takes besides what its data asks for.
const UNPACKER_BYTES: usize = 128 << 10;

/// What an unpacker of this block takes in memory, without what it gives out, bytes, roughly. The data itself asks for it:
/// by a window, or by the size of a block.
pub fn working_bytes(codec: Compression, packed: &[u8]) -> usize {
    let asked = match codec {
        Compression::None => return 0,
        Compression::Gzip => 0,
        Compression::Lz4 => match packed.get(5).map(|descriptor| descriptor >> 4 & 7) {
            // 64 KiB, 256 KiB, 1 MiB, 4 MiB: as they come and as they are.
            Some(size @ 4..=7) => 2 << (2 * usize::from(size) + 8),
            _ => 0,
        },
        Compression::Zstd => 1 << zstd_window_log(packed),
        Compression::Snappy => packed.len().saturating_mul(SNAPPY_RATIO_MAX),
    };
    asked + UNPACKER_BYTES
}

/// The logarithm of the window that a zstd frame asks for, or of its content where that is its window (RFC 8878, 3.1.1.1):
/// magic (4), descriptor, window descriptor where there is no single segment, dictionary id, content size.
fn zstd_window_log(frame: &[u8]) -> u32 {
    let bytes = || {
        let descriptor = frame.strip_prefix(&ZSTD_MAGIC)?.first()?;
        let rest = frame.get(5..)?;
        if descriptor & 0x20 == 0 {
            let (exponent, mantissa) = (rest.first()? >> 3, rest.first()? & 7);
            let base = 1u64 << (10 + exponent);
            return Some(base + base / 8 * u64::from(mantissa));
        }
        let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size_bytes = 1 << (descriptor >> 6);
        let mut size = [0; 8];
        size[..size_bytes].copy_from_slice(rest.get(dictionary_bytes..)?.get(..size_bytes)?);
        let size = u64::from_le_bytes(size);
        Some(if size_bytes == 2 { size + 256 } else { size })
    };
    let log = |bytes: u64| u64::BITS - bytes.saturating_sub(1).leading_zeros();
    // What does not begin with a frame may have one further on.
    bytes()
        .map_or(ZSTD_WINDOW_LOG_MAX, log)
        .clamp(ZSTD_WINDOW_LOG_MIN, ZSTD_WINDOW_LOG_MAX)
}

/// A decoder that takes no larger windows than the first frame asks for.
fn zstd_decoder(
    packed: &[u8],
) -> Result<zstd::stream::read::Decoder<'_, io::BufReader<&[u8]>>, CompressionError> {
    let decoder = zstd::stream::read::Decoder::new(packed).and_then(|mut decoder| {
        decoder.window_log_max(zstd_window_log(packed))?;
        Ok(decoder)
    });
    decoder.map_err(|error| malformed(Compression::Zstd, error))
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
        Compression::Zstd => read_capped(codec, zstd_decoder(packed)?, bytes_max)?,
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
        Compression::Zstd => Box::new(zstd_decoder(packed)?),
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

/// Whether an LZ4 frame ends as it must: the decoder takes one that stops after a block for whole, Java's does not.
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

/// The first block of Java's snappy stream, and what follows it.
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

    /// Bytes that do not pack.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..bytes).map(next).collect()
    }

    fn zstd_packed(level: i32, window_log: Option<u32>, unpacked: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
        if let Some(log) = window_log {
            encoder.long_distance_matching(true).unwrap();
            encoder.window_log(log).unwrap();
        }
        encoder.write_all(unpacked).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_window_of_a_zstd_frame_is_what_it_takes() {
        let text = noise(100_000);
        for (level, window_log, expected) in [
            (3, None, 21),
            (19, None, 23),
            (22, None, 27),
            (3, Some(24), 24),
            (3, Some(27), 27),
        ] {
            let packed = zstd_packed(level, window_log, &text);
            let working = working_bytes(Compression::Zstd, &packed);
            assert_eq!(working - UNPACKER_BYTES, 1 << expected, "level {level}");
            let unpacked = decompress(Compression::Zstd, &packed, text.len()).unwrap();
            assert!(*unpacked == text, "level {level}");
        }
        // Its size stands in front.
        let whole = zstd::bulk::compress(&noise(5 << 20), 19).unwrap();
        assert_eq!(
            working_bytes(Compression::Zstd, &whole) - UNPACKER_BYTES,
            8 << 20
        );
    }

    #[test]
    fn a_window_larger_than_the_first_frames_is_refused() {
        let mut frames = zstd_packed(3, None, b"small");
        frames.extend(zstd_packed(3, Some(27), &noise(100_000)));
        let refused = decompress(Compression::Zstd, &frames, 1 << 20);
        assert!(matches!(refused, Err(CompressionError::Malformed { .. })));
        let beyond = zstd_packed(3, Some(28), &noise(100_000));
        let refused = decompress(Compression::Zstd, &beyond, 1 << 20);
        assert!(matches!(refused, Err(CompressionError::Malformed { .. })));
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
