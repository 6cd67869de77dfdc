//! Every API in every version: what the schema allows is decoded and encoded to the same bytes, and what it
//! does not allow is an error that costs no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use metaq_protocol::messages::{AnyRequest, AnyResponse};
use metaq_protocol::shape::{self, Direction, Shape, shape_of, walk_request, walk_response};
use metaq_protocol::versions::{self, ApiRow, ENTRIES_MAX, HandlerGroup};
use proptest::prelude::*;

/// Counts what the current thread allocates, so that a decoder that believes a length is caught.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED
            .try_with(|allocated| allocated.set(allocated.get().saturating_add(layout.size())));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Most that decoding may allocate: a fixed sum, and so much for every byte of the message.
const ALLOCATED_MAX: usize = 1 << 20;
const ALLOCATED_PER_BYTE_MAX: usize = 512;

/// A small deterministic generator; proptest varies its seed and prints it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> usize {
        (self.next() % limit) as usize
    }
}

fn unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn length(out: &mut BytesMut, compact: bool, short: bool, length: Option<usize>) {
    match (compact, short) {
        (true, _) => unsigned_varint(out, length.map_or(0, |length| length as u32 + 1)),
        (false, true) => out.put_i16(length.map_or(-1, |length| length as i16)),
        (false, false) => out.put_i32(length.map_or(-1, |length| length as i32)),
    }
}

/// Writes a random valid value.
fn generate(shape: &Shape, random: &mut Random, out: &mut BytesMut, boolean: bool) {
    let chosen = |random: &mut Random, nullable: bool, most: u64| {
        if nullable && random.below(4) == 0 {
            None
        } else {
            Some(random.below(most + 1))
        }
    };
    match shape {
        // Booleans are not told apart from other bytes in the shapes; 0 and 1 are right for both.
        Shape::Fixed(1) if boolean => out.put_u8(random.below(2) as u8),
        Shape::Fixed(bytes) => (0..*bytes).for_each(|_| out.put_u8(random.next() as u8)),
        Shape::Text { compact, nullable } => {
            let count = chosen(random, *nullable, 9);
            length(out, *compact, true, count);
            (0..count.unwrap_or(0)).for_each(|_| out.put_u8(b'a' + random.below(26) as u8));
        }
        Shape::Bytes { compact, nullable } => {
            let count = chosen(random, *nullable, 40);
            length(out, *compact, false, count);
            (0..count.unwrap_or(0)).for_each(|_| out.put_u8(random.next() as u8));
        }
        Shape::Array {
            compact,
            nullable,
            element,
            ..
        } => {
            let count = chosen(random, *nullable, 3);
            length(out, *compact, false, count);
            (0..count.unwrap_or(0)).for_each(|_| generate(element, random, out, boolean));
        }
        Shape::Struct {
            nullable,
            fields,
            tags,
        } => {
            if *nullable {
                let null = random.below(3) == 0;
                out.put_i8(if null { -1 } else { 1 });
                if null {
                    return;
                }
            }
            fields
                .iter()
                .for_each(|(_, field)| generate(field, random, out, boolean));
            if tags.is_some() {
                // An unknown tag, far behind the known ones, is kept and given back.
                let unknown = random.below(3) == 0;
                unsigned_varint(out, u32::from(unknown));
                if unknown {
                    unsigned_varint(out, 9000);
                    unsigned_varint(out, 2);
                    out.put_slice(b"xy");
                }
            }
        }
    }
}

const fn later(key: i16, name: &'static str, min: i16, max: i16) -> ApiRow {
    ApiRow {
        key,
        name,
        advertised_min: min,
        min,
        max,
        group: HandlerGroup::Producer,
        entries_max: ENTRIES_MAX,
        is_offered: true,
    }
}

/// What is not served yet, or not in these versions.
const LATER: &[ApiRow] = &[
    later(22, "InitProducerId", 6, 6),
    later(27, "WriteTxnMarkers", 1, 2),
    later(28, "TxnOffsetCommit", 0, 6),
    later(78, "ShareFetch", 1, 2),
    later(79, "ShareAcknowledge", 1, 2),
    later(88, "StreamsGroupHeartbeat", 0, 1),
    later(89, "StreamsGroupDescribe", 0, 1),
    later(90, "DescribeShareGroupOffsets", 0, 1),
];

fn all_rows() -> impl Iterator<Item = &'static ApiRow> {
    versions::TABLE.iter().chain(LATER)
}

fn rows() -> impl Strategy<Value = (&'static ApiRow, i16, u64)> {
    let row = proptest::sample::select(all_rows().collect::<Vec<_>>());
    (row, any::<u16>(), any::<u64>()).prop_map(|(row, pick, seed)| {
        (
            row,
            row.min + (pick as i16).rem_euclid(row.max - row.min + 1),
            seed,
        )
    })
}

/// Decodes as the broker and the clients do: walk first.
fn decode(direction: Direction, row: &ApiRow, version: i16, body: &Bytes) -> Result<Bytes, String> {
    let mut rest = body.clone();
    let mut out = BytesMut::new();
    match direction {
        Direction::Request => {
            walk_request(row.key, version, body).map_err(|error| error.to_string())?;
            let decoded = AnyRequest::decode(row.key, &mut rest, version)
                .map_err(|error| error.to_string())?;
            decoded
                .encode(&mut out, version)
                .map_err(|error| error.to_string())?;
        }
        Direction::Response => {
            walk_response(row.key, version, body).map_err(|error| error.to_string())?;
            let decoded = AnyResponse::decode(row.key, &mut rest, version)
                .map_err(|error| error.to_string())?;
            decoded
                .encode(&mut out, version)
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(out.freeze())
}

fn allocated_by<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.with(Cell::get);
    let result = work();
    (result, ALLOCATED.with(Cell::get) - before)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_schema_allows_is_decoded_and_encoded_to_the_same_bytes(
        (row, version, seed) in rows(), request in any::<bool>()
    ) {
        let direction = if request { Direction::Request } else { Direction::Response };
        let mut body = BytesMut::new();
        generate(shape_of(row.key, direction, version).unwrap(), &mut Random(seed), &mut body, true);
        let body = body.freeze();
        let encoded = decode(direction, row, version, &body);
        prop_assert_eq!(encoded.as_ref(), Ok(&body), "{} {} {:?}", row.name, version, direction);
    }

    #[test]
    fn damaged_messages_are_errors_or_messages_but_never_costly(
        (row, version, seed) in rows(), request in any::<bool>(), damage in 0usize..4, at in any::<prop::sample::Index>()
    ) {
        let direction = if request { Direction::Request } else { Direction::Response };
        let mut random = Random(seed);
        let mut body = BytesMut::new();
        generate(shape_of(row.key, direction, version).unwrap(), &mut random, &mut body, false);
        let mut body = body.to_vec();
        if !body.is_empty() {
            let at = at.index(body.len());
            match damage {
                0 => body.truncate(at),
                1 => body[at] = random.next() as u8,
                2 => body[at..].fill(0xff),
                _ => body.iter_mut().skip(at).take(4).zip([0x7f, 0xff, 0xff, 0xff]).for_each(|(b, hostile)| *b = hostile),
            }
        }
        let body = Bytes::from(body);
        let (_, allocated) = allocated_by(|| decode(direction, row, version, &body));
        let most = ALLOCATED_MAX + body.len() * ALLOCATED_PER_BYTE_MAX;
        prop_assert!(allocated <= most, "{} {version}: {allocated} bytes for {}", row.name, body.len());
    }

    #[test]
    fn a_request_takes_no_more_memory_than_was_foretold((row, version, seed) in rows()) {
        let mut body = BytesMut::new();
        generate(shape_of(row.key, Direction::Request, version).unwrap(), &mut Random(seed), &mut body, true);
        let body = body.freeze();
        let foretold = shape::decoded_bytes(row.key, version, &body).unwrap();
        let mut rest = body.clone();
        let (decoded, allocated) = allocated_by(|| AnyRequest::decode(row.key, &mut rest, version));
        prop_assert!(decoded.is_ok());
        // A slice of the message is counted by itself once it is shared.
        prop_assert!(allocated <= foretold + 100, "{} {version}: {allocated} bytes, foretold {foretold}", row.name);
    }

    #[test]
    fn garbage_is_never_costly((row, version, seed) in rows(), length in 0usize..200) {
        let mut random = Random(seed);
        let body: Bytes = (0..length).map(|_| random.next() as u8).collect::<Vec<_>>().into();
        let (_, allocated) = allocated_by(|| decode(Direction::Request, row, version, &body));
        prop_assert!(allocated <= ALLOCATED_MAX + length * ALLOCATED_PER_BYTE_MAX);
    }
}

/// Every place where an array's length stands gets 2^31-1, in every API and version.
#[test]
fn every_hostile_array_length_is_refused() {
    fn lengths(shape: &Shape, out: &mut BytesMut, places: &mut Vec<(usize, bool)>) {
        match shape {
            Shape::Fixed(bytes) => out.put_bytes(0, *bytes),
            Shape::Text { compact, .. } => length(out, *compact, true, Some(0)),
            Shape::Bytes { compact, .. } => {
                places.push((out.len(), *compact));
                length(out, *compact, false, Some(0));
            }
            Shape::Array {
                compact, element, ..
            } => {
                places.push((out.len(), *compact));
                length(out, *compact, false, Some(1));
                lengths(element, out, places);
            }
            Shape::Struct {
                nullable,
                fields,
                tags,
            } => {
                if *nullable {
                    out.put_i8(1);
                }
                fields
                    .iter()
                    .for_each(|(_, field)| lengths(field, out, places));
                if tags.is_some() {
                    out.put_u8(0);
                }
            }
        }
    }
    let mut tried = 0;
    for row in all_rows() {
        for version in row.min..=row.max {
            let (mut body, mut places) = (BytesMut::new(), Vec::new());
            lengths(
                shape_of(row.key, Direction::Request, version).unwrap(),
                &mut body,
                &mut places,
            );
            for (at, compact) in places {
                let hostile: &[u8] = if compact {
                    &[0xff, 0xff, 0xff, 0xff, 0x07]
                } else {
                    &[0x7f, 0xff, 0xff, 0xff]
                };
                let mut bytes = body.to_vec();
                bytes.splice(
                    at..at + if compact { 1 } else { 4 },
                    hostile.iter().copied(),
                );
                let bytes = Bytes::from(bytes);
                let (result, allocated) =
                    allocated_by(|| decode(Direction::Request, row, version, &bytes));
                assert!(result.is_err(), "{} {version} at {at}", row.name);
                assert!(
                    allocated < ALLOCATED_MAX,
                    "{} {version} at {at}: {allocated}",
                    row.name
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
}
