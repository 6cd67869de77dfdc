//! How a generated message's fields stand on the wire.
//!
//! Texts, bytes and arrays have a length before them: in flexible versions an unsigned varint that is one larger, with 0
//! for null; before those an i32 (texts: an i16), with -1 for null. A struct that may be null has a byte before it that
//! is negative for null. In flexible versions a struct ends with its tagged fields (KIP-482).
//!
//! Tests: tests/own_messages.rs, tests/every_version.rs.

use std::collections::BTreeMap;

use anyhow::{Error, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{BrokerId, GroupId, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Message, StrBytes};
use uuid::Uuid;

/// In what form a message is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// The API's version.
    pub(super) version: i16,
    /// Whether lengths are varints and tagged fields follow.
    pub(super) is_flexible: bool,
}

impl Form {
    /// A field is set that the version has not, and that says too much to be left out.
    pub(super) fn lacks(self, field: &str) -> Error {
        Error::msg(format!("version {} has no field {field}", self.version))
    }

    /// For a field that may be null in some versions alone.
    pub(super) fn check_null<T>(self, value: &Option<T>, may_be: bool, field: &str) -> Result<()> {
        match value.is_some() || may_be {
            true => Ok(()),
            false => bail!("{field} is null in version {}", self.version),
        }
    }
}

/// Where a message is written to.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

/// Into a buffer.
pub(super) struct Buffer<'a, B>(pub(super) &'a mut B);

impl<B: BufMut> Sink for Buffer<'_, B> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }
}

/// Nowhere: counts the bytes.
pub(super) struct Size(pub(super) usize);

impl Sink for Size {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// A type of a message's field.
pub(super) trait Wire: Sized {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()>;

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self>;

    /// Where it may be null; as a struct, unless the type has a length that says so.
    fn write_nullable(value: Option<&Self>, out: &mut impl Sink, form: Form) -> Result<()> {
        match value {
            Some(value) => {
                out.put(&[1]);
                value.write(out, form)
            }
            None => {
                out.put(&[0xff]);
                Ok(())
            }
        }
    }

    /// See [`Self::write_nullable`].
    fn read_nullable(input: &mut impl ByteBuf, form: Form) -> Result<Option<Self>> {
        match i8::read(input, form)? {
            ..0 => Ok(None),
            _ => Self::read(input, form).map(Some),
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        T::write_nullable(self.as_ref(), out, form)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        T::read_nullable(input, form)
    }
}

fn take<const N: usize>(input: &mut impl ByteBuf) -> Result<[u8; N]> {
    if input.remaining() < N {
        bail!("the message ends before the field does");
    }
    let mut bytes = [0; N];
    input.copy_to_slice(&mut bytes);
    Ok(bytes)
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Wire for $number {
            fn write(&self, out: &mut impl Sink, _: Form) -> Result<()> {
                out.put(&self.to_be_bytes());
                Ok(())
            }

            fn read(input: &mut impl ByteBuf, _: Form) -> Result<Self> {
                take(input).map(Self::from_be_bytes)
            }
        })*
    };
}

numbers!(i8, i16, u16, i32, i64);

impl Wire for bool {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        i8::from(*self).write(out, form)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(i8::read(input, form)? != 0)
    }
}

impl Wire for Uuid {
    fn write(&self, out: &mut impl Sink, _: Form) -> Result<()> {
        out.put(self.as_bytes());
        Ok(())
    }

    fn read(input: &mut impl ByteBuf, _: Form) -> Result<Self> {
        take(input).map(Self::from_bytes)
    }
}

pub(super) fn write_unsigned_varint(out: &mut impl Sink, mut value: u32) {
    let mut bytes = [0; 5];
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    bytes[length] = value as u8;
    out.put(&bytes[..=length]);
}

fn read_unsigned_varint(input: &mut impl ByteBuf) -> Result<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let [byte] = take(input)?;
        if shift == 28 && byte > 0x0f {
            break;
        }
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a varint is longer than five bytes")
}

/// A length in the form before flexible versions.
trait Prefix: Wire + TryFrom<usize> + TryInto<usize> {
    const NULL: Self;
}

impl Prefix for i16 {
    const NULL: Self = -1;
}

impl Prefix for i32 {
    const NULL: Self = -1;
}

fn write_length<P: Prefix>(length: Option<usize>, out: &mut impl Sink, form: Form) -> Result<()> {
    let too_long = || Error::msg("longer than the wire can say");
    match length {
        None if form.is_flexible => write_unsigned_varint(out, 0),
        None => P::NULL.write(out, form)?,
        Some(length) if form.is_flexible => {
            let one_more = u32::try_from(length + 1).map_err(|_| too_long())?;
            write_unsigned_varint(out, one_more);
        }
        Some(length) => P::try_from(length)
            .map_err(|_| too_long())?
            .write(out, form)?,
    }
    Ok(())
}

/// No longer than there are bytes: whatever has a length has at least a byte for each.
fn read_length<P: Prefix>(input: &mut impl ByteBuf, form: Form) -> Result<Option<usize>> {
    let length = match form.is_flexible {
        true => (read_unsigned_varint(input)? as usize).checked_sub(1),
        // A negative one is null.
        false => P::read(input, form)?.try_into().ok(),
    };
    match length {
        Some(length) if length > input.remaining() => bail!("longer than the message"),
        length => Ok(length),
    }
}

/// Of a type whose null is a length: by its nullable form, with a value.
macro_rules! by_length {
    () => {
        fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
            Self::write_nullable(Some(self), out, form)
        }

        fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
            let read = Self::read_nullable(input, form)?;
            read.ok_or_else(|| Error::msg("null where there must be a value"))
        }
    };
}

impl Wire for StrBytes {
    by_length!();

    fn write_nullable(value: Option<&Self>, out: &mut impl Sink, form: Form) -> Result<()> {
        write_length::<i16>(value.map(|text| text.len()), out, form)?;
        out.put(value.map_or(&[], |text| text.as_bytes()));
        Ok(())
    }

    fn read_nullable(input: &mut impl ByteBuf, form: Form) -> Result<Option<Self>> {
        let Some(length) = read_length::<i16>(input, form)? else {
            return Ok(None);
        };
        Ok(Some(Self::from_utf8(input.try_get_bytes(length)?)?))
    }
}

impl Wire for Bytes {
    by_length!();

    fn write_nullable(value: Option<&Self>, out: &mut impl Sink, form: Form) -> Result<()> {
        write_length::<i32>(value.map(Bytes::len), out, form)?;
        out.put(value.map_or(&[], |bytes| bytes));
        Ok(())
    }

    fn read_nullable(input: &mut impl ByteBuf, form: Form) -> Result<Option<Self>> {
        let Some(length) = read_length::<i32>(input, form)? else {
            return Ok(None);
        };
        Ok(Some(input.try_get_bytes(length)?))
    }
}

impl<T: Wire> Wire for Vec<T> {
    by_length!();

    fn write_nullable(value: Option<&Self>, out: &mut impl Sink, form: Form) -> Result<()> {
        write_length::<i32>(value.map(Vec::len), out, form)?;
        value
            .into_iter()
            .flatten()
            .try_for_each(|element| element.write(out, form))
    }

    fn read_nullable(input: &mut impl ByteBuf, form: Form) -> Result<Option<Self>> {
        let Some(length) = read_length::<i32>(input, form)? else {
            return Ok(None);
        };
        let mut elements = Self::with_capacity(length);
        for _ in 0..length {
            elements.push(T::read(input, form)?);
        }
        Ok(Some(elements))
    }
}

/// Types of their own for what is a text or a number on the wire.
macro_rules! as_inner {
    ($($outer:ident($inner:ty)),*) => {
        $(impl Wire for $outer {
            fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
                self.0.write(out, form)
            }

            fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
                <$inner>::read(input, form).map(Self)
            }

            fn write_nullable(value: Option<&Self>, out: &mut impl Sink, form: Form) -> Result<()> {
                <$inner>::write_nullable(value.map(|outer| &outer.0), out, form)
            }

            fn read_nullable(input: &mut impl ByteBuf, form: Form) -> Result<Option<Self>> {
                Ok(<$inner>::read_nullable(input, form)?.map(Self))
            }
        })*
    };
}

as_inner!(
    BrokerId(i32),
    GroupId(StrBytes),
    ProducerId(i64),
    TopicName(StrBytes),
    TransactionalId(StrBytes)
);

/// Tagged fields to be written: those that are known, in the order of their tags, then the unknown ones.
pub(super) struct Tags<'a> {
    form: Form,
    known: Vec<(u32, BytesMut)>,
    unknown: &'a BTreeMap<i32, Bytes>,
}

impl<'a> Tags<'a> {
    pub(super) fn new(unknown: &'a BTreeMap<i32, Bytes>, form: Form) -> Self {
        let known = Vec::new();
        Self {
            form,
            known,
            unknown,
        }
    }

    pub(super) fn add(&mut self, tag: u32, value: &impl Wire) -> Result<()> {
        let mut bytes = BytesMut::new();
        value.write(&mut Buffer(&mut bytes), self.form)?;
        self.known.push((tag, bytes));
        Ok(())
    }

    pub(super) fn write(self, out: &mut impl Sink) -> Result<()> {
        if self.form.is_flexible {
            write_unsigned_varint(out, u32::try_from(self.known.len() + self.unknown.len())?);
            let known = self.known.iter().map(|(tag, bytes)| (*tag, &bytes[..]));
            let unknown = self
                .unknown
                .iter()
                .map(|(tag, bytes)| (*tag as u32, &bytes[..]));
            for (tag, bytes) in known.chain(unknown) {
                write_unsigned_varint(out, tag);
                write_unsigned_varint(out, u32::try_from(bytes.len())?);
                out.put(bytes);
            }
        }
        Ok(())
    }
}

/// Reads tagged fields. `known` takes a field's value from the bytes, or says that it does not know the tag; those are kept.
pub(super) fn read_tags(
    input: &mut impl ByteBuf,
    form: Form,
    mut known: impl FnMut(u32, &mut Bytes) -> Result<bool>,
) -> Result<BTreeMap<i32, Bytes>> {
    let mut unknown = BTreeMap::new();
    if form.is_flexible {
        for _ in 0..read_unsigned_varint(input)? {
            let tag = read_unsigned_varint(input)?;
            let length = read_unsigned_varint(input)? as usize;
            let mut bytes = input.try_get_bytes(length)?;
            if !known(tag, &mut bytes)? {
                unknown.insert(tag as i32, bytes);
            } else if !bytes.is_empty() {
                bail!("tagged field {tag} has another length");
            }
        }
    }
    Ok(unknown)
}

/// The form of a message's version, when it has that version.
pub(super) fn form<M: Message>(version: i16, flexible_from: i16) -> Result<Form> {
    if !(M::VERSIONS.min..=M::VERSIONS.max).contains(&version) {
        bail!("the message has no version {version}");
    }
    let is_flexible = version >= flexible_from;
    Ok(Form {
        version,
        is_flexible,
    })
}

/// As [`read_tags`], of a struct that has none of its own.
pub(super) fn read_unknown_tags(
    input: &mut impl ByteBuf,
    form: Form,
) -> Result<BTreeMap<i32, Bytes>> {
    read_tags(input, form, |_, _| Ok(false))
}

/// A whole message: the wire crate's traits for it. Its header becomes another one with flexible versions.
macro_rules! message {
    ($name:ident, versions $min:literal to $max:literal, flexible from $flexible:literal, headers $old:literal and $new:literal) => {
        impl kafka_protocol::protocol::Message for $name {
            const VERSIONS: kafka_protocol::protocol::VersionRange =
                kafka_protocol::protocol::VersionRange {
                    min: $min,
                    max: $max,
                };
            const DEPRECATED_VERSIONS: Option<kafka_protocol::protocol::VersionRange> = None;
        }

        impl kafka_protocol::protocol::HeaderVersion for $name {
            fn header_version(version: i16) -> i16 {
                if version >= $flexible { $new } else { $old }
            }
        }

        impl kafka_protocol::protocol::Encodable for $name {
            fn encode<B: kafka_protocol::protocol::buf::ByteBufMut>(
                &self,
                buf: &mut B,
                version: i16,
            ) -> anyhow::Result<()> {
                let form = $crate::messages::wire::form::<Self>(version, $flexible)?;
                self.write(&mut $crate::messages::wire::Buffer(buf), form)
            }

            fn compute_size(&self, version: i16) -> anyhow::Result<usize> {
                let mut size = $crate::messages::wire::Size(0);
                self.write(
                    &mut size,
                    $crate::messages::wire::form::<Self>(version, $flexible)?,
                )?;
                Ok(size.0)
            }
        }

        impl kafka_protocol::protocol::Decodable for $name {
            fn decode<B: kafka_protocol::protocol::buf::ByteBuf>(
                buf: &mut B,
                version: i16,
            ) -> anyhow::Result<Self> {
                Self::read(
                    buf,
                    $crate::messages::wire::form::<Self>(version, $flexible)?,
                )
            }
        }
    };
}

/// Methods that give a struct back with one field set.
macro_rules! setters {
    ($name:ident { $($setter:ident => $field:ident: $kind:ty,)* }) => {
        impl $name {
            $(pub fn $setter(mut self, $field: $kind) -> Self {
                self.$field = $field;
                self
            })*
        }
    };
}

pub(super) use {message, setters};
