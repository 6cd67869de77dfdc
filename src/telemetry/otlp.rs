//! What clients push: OpenTelemetry's `MetricsData` in protobuf (KIP-714), as far as it is shown.
//!
//! It is walked once, without building its messages, so that a payload takes no more memory than the points that are kept
//! of it.
//!
//! | message | fields that are read |
//! |---|---|
//! | MetricsData | 1 resource_metrics |
//! | ResourceMetrics | 1 resource, 2 scope_metrics |
//! | Resource | 1 attributes |
//! | ScopeMetrics | 2 metrics |
//! | Metric | 1 name, 3 unit, 5 gauge, 7 sum, 9 histogram |
//! | Gauge, Sum, Histogram | 1 data_points |
//! | NumberDataPoint | 4 as_double, 6 as_int, 7 attributes |
//! | HistogramDataPoint | 4 count, 5 sum, 9 attributes |
//! | KeyValue | 1 key, 2 value |
//! | AnyValue | 1 string, 2 bool, 3 int, 4 double |

use std::fmt::Write;

use serde::Serialize;

/// Labels that do not fit are left out.
const LABELS_BYTES_MAX: usize = 512;
/// Longer names are cut.
const NAME_BYTES_MAX: usize = 256;

/// One value of a client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Such as `org.apache.kafka.producer.connection.creation.rate`.
    pub name: String,
    /// `key=value`, separated by commas; empty for none.
    pub labels: String,
    /// Of a histogram, its mean.
    pub value: f64,
}

/// The payload is no `MetricsData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the metrics are not OpenTelemetry's: {what} at byte {position}")]
pub struct OtlpError {
    /// What is wrong.
    pub what: &'static str,
    /// Where, counted from the beginning of the message that is being read.
    pub position: usize,
}

/// A field's value.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Walks a message's fields.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn error(&self, what: &'static str) -> OtlpError {
        OtlpError {
            what,
            position: self.at,
        }
    }

    fn varint(&mut self) -> Result<u64, OtlpError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let Some(byte) = self.bytes.get(self.at) else {
                return Err(self.error("a number is cut off"));
            };
            self.at += 1;
            // The tenth byte has one bit left.
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("a number is too long"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], OtlpError> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.error("a field is cut off"));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The next field's number and value; none at the end.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, OtlpError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Value::Fixed64(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err(self.error("an unknown kind of field")),
        };
        Ok(Some((key >> 3, value)))
    }
}

/// Reads a payload: hands over point after point, and the resource's labels with each.
pub fn read(payload: &[u8], mut each: impl FnMut(Point)) -> Result<(), OtlpError> {
    let mut data = Fields::of(payload);
    while let Some((number, value)) = data.next()? {
        if let (1, Value::Bytes(resource)) = (number, value) {
            read_resource(resource, &mut each)?;
        }
    }
    Ok(())
}

fn read_resource(bytes: &[u8], each: &mut impl FnMut(Point)) -> Result<(), OtlpError> {
    // The resource may stand after its metrics.
    let mut labels = String::new();
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        if let (1, Value::Bytes(resource)) = (number, value) {
            add_labels(resource, 1, &mut labels)?;
        }
    }
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        if let (2, Value::Bytes(scope)) = (number, value) {
            let mut fields = Fields::of(scope);
            while let Some((number, value)) = fields.next()? {
                if let (2, Value::Bytes(metric)) = (number, value) {
                    read_metric(metric, &labels, each)?;
                }
            }
        }
    }
    Ok(())
}

fn read_metric(
    bytes: &[u8],
    resource: &str,
    each: &mut impl FnMut(Point),
) -> Result<(), OtlpError> {
    let mut name = String::new();
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        if let (1, Value::Bytes(text)) = (number, value) {
            name = text_of(text, NAME_BYTES_MAX);
        }
    }
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        let (Value::Bytes(data), 5 | 7 | 9) = (value, number) else {
            continue;
        };
        let mut points = Fields::of(data);
        while let Some((one, value)) = points.next()? {
            if let (1, Value::Bytes(point)) = (one, value) {
                let (value, labels) = match number {
                    9 => read_histogram(point, resource)?,
                    _ => read_number(point, resource)?,
                };
                each(Point {
                    name: name.clone(),
                    labels,
                    value,
                });
            }
        }
    }
    Ok(())
}

fn read_number(bytes: &[u8], resource: &str) -> Result<(f64, String), OtlpError> {
    let (mut number, mut labels) = (0.0, resource.to_owned());
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (4, Value::Fixed64(bits)) => number = f64::from_bits(bits),
            (6, Value::Fixed64(bits)) => number = bits as i64 as f64,
            _ => {}
        }
    }
    add_labels(bytes, 7, &mut labels)?;
    Ok((number, labels))
}

fn read_histogram(bytes: &[u8], resource: &str) -> Result<(f64, String), OtlpError> {
    let (mut count, mut sum, mut labels) = (0, 0.0, resource.to_owned());
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (4, Value::Fixed64(bits)) => count = bits,
            (5, Value::Fixed64(bits)) => sum = f64::from_bits(bits),
            _ => {}
        }
    }
    add_labels(bytes, 9, &mut labels)?;
    Ok((if count == 0 { 0.0 } else { sum / count as f64 }, labels))
}

/// Appends the attributes in a message's field, as long as there is room.
fn add_labels(bytes: &[u8], number: u64, labels: &mut String) -> Result<(), OtlpError> {
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        let Value::Bytes(pair) = value else { continue };
        if field != number {
            continue;
        }
        let (mut key, mut text) = (String::new(), String::new());
        let mut fields = Fields::of(pair);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(name)) => key = text_of(name, NAME_BYTES_MAX),
                (2, Value::Bytes(any)) => text = any_value(any)?,
                _ => {}
            }
        }
        if labels.len() + key.len() + text.len() + 2 > LABELS_BYTES_MAX {
            break;
        }
        if !labels.is_empty() {
            labels.push(',');
        }
        let _ = write!(labels, "{key}={text}");
    }
    Ok(())
}

fn any_value(bytes: &[u8]) -> Result<String, OtlpError> {
    let mut text = String::new();
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        text = match (field, value) {
            (1, Value::Bytes(string)) => text_of(string, NAME_BYTES_MAX),
            (2, Value::Varint(bool)) => (bool != 0).to_string(),
            (3, Value::Varint(int)) => (int as i64).to_string(),
            (4, Value::Fixed64(bits)) => f64::from_bits(bits).to_string(),
            _ => continue,
        };
    }
    Ok(text)
}

/// Text of at most so many bytes.
fn text_of(bytes: &[u8], bytes_max: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(bytes_max)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A field of a message.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
        out
    }

    fn fixed64(number: u8, bits: u64) -> Vec<u8> {
        let mut out = vec![number << 3 | 1];
        out.extend_from_slice(&bits.to_le_bytes());
        out
    }

    fn attribute(number: u8, key: &str, value: &str) -> Vec<u8> {
        let value = field(2, &field(1, value.as_bytes()));
        field(number, &[field(1, key.as_bytes()), value].concat())
    }

    fn payload(metrics: &[Vec<u8>]) -> Vec<u8> {
        let resource = field(1, &attribute(1, "group_id", "g"));
        let scope = field(2, &metrics.concat());
        field(1, &[scope, resource].concat())
    }

    fn points(payload: &[u8]) -> Result<Vec<Point>, OtlpError> {
        let mut points = Vec::new();
        read(payload, |point| points.push(point)).map(|()| points)
    }

    #[test]
    fn gauges_sums_and_histograms_are_read_with_their_labels() {
        let number = [fixed64(4, 1.5f64.to_bits()), attribute(7, "topic", "t")].concat();
        let gauge = [field(1, b"a"), field(5, &field(1, &number))].concat();
        let sum = [field(1, b"b"), field(7, &field(1, &fixed64(6, 7)))].concat();
        let data = [fixed64(4, 4), fixed64(5, 10f64.to_bits())].concat();
        let histogram = [field(9, &field(1, &data)), field(1, b"c")].concat();
        let metrics = [field(2, &gauge), field(2, &sum), field(2, &histogram)];
        let point = |name: &str, labels: &str, value| Point {
            name: name.to_owned(),
            labels: labels.to_owned(),
            value,
        };
        assert_eq!(
            points(&payload(&metrics)).unwrap(),
            [
                point("a", "group_id=g,topic=t", 1.5),
                point("b", "group_id=g", 7.0),
                point("c", "group_id=g", 2.5),
            ]
        );
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let number = field(1, &fixed64(4, 0));
        let whole = payload(&[field(2, &[field(1, b"a"), field(5, &number)].concat())]);
        assert_eq!(points(&whole).unwrap().len(), 1);
        assert!(points(&whole[..whole.len() - 1]).is_err());
        assert!(points(&[0xff; 11]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_end_in_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = points(&bytes);
            let _ = points(&payload(&[field(2, &bytes)]));
        }
    }
}
