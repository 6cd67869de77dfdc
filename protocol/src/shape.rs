//! The shape guard: walks a message against Kafka's own schema before anything is allocated for it.
//!
//! The wire types take array lengths at their word: a six-byte Metadata body would ask for 154 GB and end the
//! process. So every length must fit the bytes that remain, and a message may hold only so many elements.
//! Strings, bytes and arrays of fixed-size elements are passed over in one step, so a walk costs nanoseconds.
//!
//! `shapes.txt` is dumped from Kafka's message classes by `schemas/dump.sh`: a line is api key, request or
//! response, first and last version, and the shape: `{name:TYPE,…(tag=name:TYPE,…)}` for a struct with its
//! tagged fields, `[T]` for an array, `<T>` for a compact one, `?` before what may be null.

use std::sync::LazyLock;

use crate::versions::{self, ENTRIES_MAX};

/// Elements of all arrays of one response; each becomes a value of up to some hundred bytes in memory. Requests have
/// limits of their own, by API ([`crate::versions::ApiRow::entries_max`]).
pub const ELEMENTS_MAX: usize = 1_000_000;

/// Why a message does not have its schema's shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {position}: {what}")]
pub struct ShapeError {
    /// Path of the field.
    pub field: String,
    /// Byte in the body.
    pub position: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Requests or responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client.
    Request,
    /// From a broker.
    Response,
}

/// A type of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// So many bytes.
    Fixed(usize),
    /// A string; the length is a varint plus one in compact form, else an i16.
    Text {
        /// Compact form.
        compact: bool,
        /// May be null.
        nullable: bool,
    },
    /// Bytes or records; the length is a varint plus one in compact form, else an i32.
    Bytes {
        /// Compact form.
        compact: bool,
        /// May be null.
        nullable: bool,
    },
    /// An array; the length as that of bytes.
    Array {
        /// Compact form.
        compact: bool,
        /// May be null.
        nullable: bool,
        /// What it holds.
        element: Box<Shape>,
        /// Of an element.
        sizes: Sizes,
    },
    /// Fields one after the other; a nullable one begins with a byte that is negative for null.
    Struct {
        /// May be null.
        nullable: bool,
        /// Names and types.
        fields: Vec<(String, Shape)>,
        /// Tagged fields in flexible versions: tag, name and type.
        tags: Option<Vec<(u32, String, Shape)>>,
    },
}

/// What a value takes, computed once for each type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The fewest bytes on the wire; never 0.
    pub bytes_min: usize,
    /// In memory itself, bytes, roughly; what arrays in it hold comes on top.
    pub decoded_bytes: usize,
}

/// One line of the table.
struct Row {
    first: i16,
    last: i16,
    shape: Shape,
    sizes: Sizes,
}

/// By API key: requests and responses.
static SHAPES: LazyLock<Vec<[Vec<Row>; 2]>> = LazyLock::new(|| {
    let mut shapes: Vec<[Vec<Row>; 2]> = Vec::new();
    for line in include_str!("shapes.txt").lines() {
        if let Some((key, direction, row)) = parse_line(line) {
            if shapes.len() <= key {
                shapes.resize_with(key + 1, Default::default);
            }
            shapes[key][direction as usize].push(row);
        }
    }
    shapes
});

/// The schema of a message, when its API and version are known.
pub fn shape_of(api_key: i16, direction: Direction, version: i16) -> Option<&'static Shape> {
    row_of(api_key, direction, version).map(|row| &row.shape)
}

fn row_of(api_key: i16, direction: Direction, version: i16) -> Option<&'static Row> {
    let rows = SHAPES.get(usize::try_from(api_key).ok()?)?;
    let mut rows = rows[direction as usize].iter();
    rows.find(|row| (row.first..=row.last).contains(&version))
}

/// Checks a request's body.
pub fn walk_request(api_key: i16, version: i16, body: &[u8]) -> Result<(), ShapeError> {
    decoded_bytes(api_key, version, body).map(drop)
}

/// Checks a request's body, and tells what it takes in memory once it is decoded, bytes, roughly: texts and bytes stay
/// slices of it.
pub fn decoded_bytes(api_key: i16, version: i16, body: &[u8]) -> Result<usize, ShapeError> {
    let elements_max = versions::lookup(api_key).map_or(ENTRIES_MAX, |row| row.entries_max);
    walk(api_key, Direction::Request, version, body, elements_max)
}

/// Checks a response's body.
pub fn walk_response(api_key: i16, version: i16, body: &[u8]) -> Result<(), ShapeError> {
    walk(api_key, Direction::Response, version, body, ELEMENTS_MAX).map(drop)
}

fn walk(
    api_key: i16,
    direction: Direction,
    version: i16,
    body: &[u8],
    elements_max: usize,
) -> Result<usize, ShapeError> {
    let unknown = || ShapeError {
        field: "version".to_owned(),
        position: 0,
        what: "no schema is known",
    };
    let row = row_of(api_key, direction, version).ok_or_else(unknown)?;
    let mut walker = Walker {
        body,
        at: 0,
        elements: 0,
        elements_max,
        decoded: row.sizes.decoded_bytes,
    };
    // Bytes after the message are ignored, as Kafka does: librdkafka's Metadata v13 has some.
    let walked = walker.walk(&row.shape);
    walked.map(|()| walker.decoded).map_err(|fault| {
        let path: Vec<&str> = fault.path.iter().rev().copied().collect();
        let field = if path.is_empty() {
            "message".to_owned()
        } else {
            path.join(".")
        };
        ShapeError {
            field,
            position: walker.at,
            what: fault.what,
        }
    })
}

impl Shape {
    fn sizes(&self) -> Sizes {
        let length_bytes = |compact: bool, bytes| if compact { 1 } else { bytes };
        let (bytes_min, decoded_bytes) = match self {
            Self::Fixed(bytes) => (*bytes, (*bytes).max(4)),
            Self::Text { compact, .. } => (length_bytes(*compact, 2), 32),
            Self::Bytes { compact, .. } => (length_bytes(*compact, 4), 32),
            Self::Array { compact, .. } => (length_bytes(*compact, 4), 24),
            Self::Struct {
                nullable,
                fields,
                tags,
            } => {
                let mut bytes_min = usize::from(tags.is_some());
                let mut decoded = 0;
                for sizes in fields.iter().map(|(_, shape)| shape.sizes()) {
                    bytes_min += sizes.bytes_min;
                    decoded += sizes.decoded_bytes;
                }
                let tags = tags.iter().flatten();
                decoded += tags
                    .map(|(_, _, shape)| shape.sizes().decoded_bytes)
                    .sum::<usize>();
                let bytes_min = if *nullable { 1 } else { bytes_min };
                // With a map of unknown tagged fields, and fields of other versions.
                (bytes_min, 2 * decoded + 32)
            }
        };
        Sizes {
            bytes_min: bytes_min.max(1),
            decoded_bytes,
        }
    }
}

/// An unknown tagged field is kept in a tree: a node, where it is the first one of its struct.
const UNKNOWN_TAG_BYTES: usize = 600;

struct Fault {
    what: &'static str,
    /// Field names from the inside out.
    path: Vec<&'static str>,
}

impl Fault {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            path: Vec::new(),
        }
    }
}

struct Walker<'a> {
    body: &'a [u8],
    at: usize,
    elements: usize,
    elements_max: usize,
    /// What the message takes in memory, of what was walked so far.
    decoded: usize,
}

impl Walker<'_> {
    fn remaining(&self) -> usize {
        self.body.len() - self.at
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Fault> {
        if bytes > self.remaining() {
            return Err(Fault::new("the message ends before the field does"));
        }
        self.at += bytes;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self.body[self.at..].first_chunk::<N>().copied();
        let bytes = bytes.ok_or_else(|| Fault::new("the message ends before the field does"))?;
        self.at += N;
        Ok(bytes)
    }

    fn unsigned_varint(&mut self) -> Result<u32, Fault> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take::<1>()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::new("a varint is longer than five bytes"))
    }

    /// A length, or `None` for null.
    fn length(
        &mut self,
        compact: bool,
        nullable: bool,
        short: bool,
    ) -> Result<Option<usize>, Fault> {
        let length = match (compact, short) {
            (true, _) => i64::from(self.unsigned_varint()?) - 1,
            (false, true) => i64::from(i16::from_be_bytes(self.take()?)),
            (false, false) => i64::from(i32::from_be_bytes(self.take()?)),
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 && nullable => Ok(None),
            Err(_) if length == -1 => Err(Fault::new("null where there must be a value")),
            Err(_) => Err(Fault::new("a negative length")),
        }
    }

    fn walk(&mut self, shape: &'static Shape) -> Result<(), Fault> {
        match shape {
            Shape::Fixed(bytes) => self.skip(*bytes),
            Shape::Text { compact, nullable } => match self.length(*compact, *nullable, true)? {
                Some(length) => {
                    let start = self.at;
                    self.skip(length)?;
                    let text = std::str::from_utf8(&self.body[start..self.at]);
                    text.map(drop).map_err(|_| Fault::new("not UTF-8"))
                }
                None => Ok(()),
            },
            Shape::Bytes { compact, nullable } => match self.length(*compact, *nullable, false)? {
                Some(length) => self.skip(length),
                None => Ok(()),
            },
            Shape::Array {
                compact,
                nullable,
                element,
                sizes,
            } => match self.length(*compact, *nullable, false)? {
                Some(length) => self.walk_elements(length, element, *sizes),
                None => Ok(()),
            },
            Shape::Struct {
                nullable,
                fields,
                tags,
            } => {
                if *nullable && i8::from_be_bytes(self.take()?) < 0 {
                    return Ok(());
                }
                for (name, field) in fields {
                    self.walk(field).map_err(|fault| within(fault, name))?;
                }
                tags.as_ref().map_or(Ok(()), |tags| self.walk_tags(tags))
            }
        }
    }

    fn count(&mut self, elements: usize) -> Result<(), Fault> {
        self.elements = self.elements.saturating_add(elements);
        match self.elements > self.elements_max {
            true => Err(Fault::new("more elements than a message may have")),
            false => Ok(()),
        }
    }

    fn walk_elements(
        &mut self,
        length: usize,
        element: &'static Shape,
        sizes: Sizes,
    ) -> Result<(), Fault> {
        if length > self.remaining() / sizes.bytes_min {
            return Err(Fault::new("more elements than the message has bytes for"));
        }
        self.count(length)?;
        self.decoded += length * sizes.decoded_bytes;
        if let Shape::Fixed(bytes) = element {
            return self.skip(length * bytes);
        }
        (0..length).try_for_each(|_| self.walk(element))
    }

    fn walk_tags(&mut self, known: &'static [(u32, String, Shape)]) -> Result<(), Fault> {
        let count = self.unsigned_varint()? as usize;
        if count > self.remaining() / 2 {
            return Err(Fault::new(
                "more tagged fields than the message has bytes for",
            ));
        }
        self.count(count)?;
        let mut previous = None;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()? as usize;
            if previous.is_some_and(|previous| previous >= tag) {
                return Err(Fault::new("tagged fields are not in order"));
            }
            previous = Some(tag);
            if length > self.remaining() {
                return Err(Fault::new("the message ends before the tagged field does"));
            }
            let end = self.at + length;
            match known.iter().find(|(number, _, _)| *number == tag) {
                Some((_, name, shape)) => {
                    self.walk(shape).map_err(|fault| within(fault, name))?;
                    if self.at != end {
                        return Err(within(
                            Fault::new("the tagged field has another length"),
                            name,
                        ));
                    }
                }
                None => {
                    self.decoded += UNKNOWN_TAG_BYTES;
                    self.at = end;
                }
            }
        }
        Ok(())
    }
}

fn within(mut fault: Fault, name: &'static str) -> Fault {
    fault.path.push(name);
    fault
}

fn parse_line(line: &str) -> Option<(usize, Direction, Row)> {
    let mut words = line.splitn(5, ' ');
    let key = words.next()?.parse().ok()?;
    let direction = if words.next()? == "request" {
        Direction::Request
    } else {
        Direction::Response
    };
    let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mut rest = words.next()?;
    let shape = parse_type(&mut rest)?;
    let sizes = shape.sizes();
    let row = Row {
        first,
        last,
        shape,
        sizes,
    };
    rest.is_empty().then_some((key, direction, row))
}

fn eat(rest: &mut &str, letter: char) -> bool {
    rest.strip_prefix(letter)
        .inspect(|after| *rest = after)
        .is_some()
}

fn word<'a>(rest: &mut &'a str, end: impl Fn(char) -> bool) -> &'a str {
    let at = rest.find(end).unwrap_or(rest.len());
    let (word, after) = rest.split_at(at);
    *rest = after;
    word
}

fn parse_type(rest: &mut &str) -> Option<Shape> {
    let nullable = eat(rest, '?');
    if eat(rest, '{') {
        return parse_struct(rest, nullable);
    }
    for (open, close, compact) in [('[', ']', false), ('<', '>', true)] {
        if eat(rest, open) {
            let element = Box::new(parse_type(rest)?);
            let sizes = element.sizes();
            return eat(rest, close).then_some(Shape::Array {
                compact,
                nullable,
                element,
                sizes,
            });
        }
    }
    let name = word(rest, |c| {
        !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    });
    let compact = name.starts_with("COMPACT_");
    Some(match name.trim_start_matches("COMPACT_") {
        "BOOLEAN" | "INT8" => Shape::Fixed(1),
        "INT16" | "UINT16" => Shape::Fixed(2),
        "INT32" | "UINT32" => Shape::Fixed(4),
        "INT64" | "FLOAT64" => Shape::Fixed(8),
        "UUID" => Shape::Fixed(16),
        "STRING" => Shape::Text { compact, nullable },
        "BYTES" | "RECORDS" => Shape::Bytes { compact, nullable },
        _ => return None,
    })
}

fn parse_struct(rest: &mut &str, nullable: bool) -> Option<Shape> {
    let (mut fields, mut tags) = (Vec::new(), None);
    while !eat(rest, '}') {
        if eat(rest, '(') {
            let mut all = Vec::new();
            while !eat(rest, ')') {
                let tag = word(rest, |c| c == '=').parse().ok()?;
                eat(rest, '=').then_some(())?;
                let name = word(rest, |c| c == ':').to_owned();
                eat(rest, ':').then_some(())?;
                all.push((tag, name, parse_type(rest)?));
                eat(rest, ',').then_some(())?;
            }
            tags = Some(all);
        } else {
            let name = word(rest, |c| c == ':').to_owned();
            eat(rest, ':').then_some(())?;
            fields.push((name, parse_type(rest)?));
            eat(rest, ',').then_some(())?;
        }
    }
    Some(Shape::Struct {
        nullable,
        fields,
        tags,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let lines = include_str!("shapes.txt").lines().count();
        assert_eq!(SHAPES.iter().flatten().map(Vec::len).sum::<usize>(), lines);
    }

    #[test]
    fn every_version_served_has_a_shape() {
        for row in versions::TABLE {
            for version in row.min..=row.max {
                assert!(
                    shape_of(row.key, Direction::Request, version).is_some(),
                    "{} {version}",
                    row.name
                );
                assert!(
                    shape_of(row.key, Direction::Response, version).is_some(),
                    "{} {version}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn six_hostile_bytes_of_metadata_are_refused_with_field_and_position() {
        let error = walk_request(3, 1, &[0x7f, 0xff, 0xff, 0xff, 0, 0]).unwrap_err();
        assert_eq!((error.field.as_str(), error.position), ("topics", 4));
    }

    #[test]
    fn a_message_may_hold_only_so_many_elements() {
        let metadata = |topics: usize| {
            let mut body = (topics as i32).to_be_bytes().to_vec();
            body.resize(4 + 2 * topics, 0);
            walk_request(3, 1, &body)
        };
        let most = versions::lookup(3).unwrap().entries_max;
        assert_eq!(metadata(most), Ok(()));
        assert_eq!(
            metadata(most + 1).unwrap_err().what,
            "more elements than a message may have"
        );
    }
}
