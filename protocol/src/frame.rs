//! Request and response frames: length prefix, header, body.
//!
//! A frame is i32 length, then the header: api key i16, version i16, correlation id i32, client id (nullable
//! string), and tagged fields in flexible versions. The wire crate's own header decoding panics on short input
//! and its body decoding trusts array lengths, so both are checked here first.

use crate::messages::ApiKey;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::shape::{self, ShapeError};
use crate::versions;

/// Bytes before the client id.
const FIXED_HEADER_BYTES: usize = 8;
const API_VERSIONS: i16 = ApiKey::ApiVersions as i16;

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such API here.
    #[error("API key {key} version {version} is not served")]
    UnknownApi {
        /// The key.
        key: i16,
        /// The version.
        version: i16,
        /// To answer with.
        correlation_id: i32,
    },
    /// The API is served, but not in this version.
    #[error("{name} version {version} is not served")]
    UnsupportedVersion {
        /// The API's name.
        name: &'static str,
        /// The key.
        key: i16,
        /// The version.
        version: i16,
        /// To answer with.
        correlation_id: i32,
    },
    /// The header does not fit.
    #[error("request header is malformed at byte {position}: {what}")]
    Header {
        /// Byte in the frame.
        position: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The body does not fit.
    #[error("{name} version {version} is malformed{}: {what}", .position.map_or(String::new(), |at| format!(" at body byte {at}")))]
    Body {
        /// The API's name.
        name: &'static str,
        /// The version.
        version: i16,
        /// Byte in the body, where known.
        position: Option<usize>,
        /// What is wrong, with the field's name where known.
        what: String,
    },
    /// An answer that cannot be encoded.
    #[error("cannot encode {name} version {version}: {what}")]
    Encode {
        /// The API's name.
        name: &'static str,
        /// The version.
        version: i16,
        /// What is wrong.
        what: String,
    },
}

/// Of a request's header: key, version, correlation id, and the length of the client id.
const HEADER_BYTES: usize = 2 + 2 + 4 + 2;

/// A request whose header was read.
#[derive(Debug, Clone)]
pub struct RequestFrame {
    /// The API.
    pub api_key: i16,
    /// Its version.
    pub version: i16,
    /// To be sent back.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<StrBytes>,
    /// What follows the header.
    pub body: Bytes,
    /// Whether the body was checked already.
    is_checked: bool,
}

impl RequestFrame {
    /// Its length on the wire, without what says it and without tagged fields of the header.
    pub fn bytes(&self) -> usize {
        let client_id = self.client_id.as_ref().map_or(0, |id| id.len());
        HEADER_BYTES + client_id + self.body.len()
    }

    /// With what [`check`] found in the same frame: its body is not checked again.
    pub fn with(mut self, checked: Option<Checked>) -> Self {
        self.is_checked = checked.is_some();
        self
    }
}

/// That a frame's body has its schema's shape.
#[derive(Debug, Clone, Copy)]
pub struct Checked {
    decoded_bytes: usize,
}

impl Checked {
    /// What the body takes in memory once it is decoded, bytes, roughly.
    pub fn decoded_bytes(&self) -> usize {
        self.decoded_bytes
    }
}

/// Reads the header of a frame (without its length prefix) and checks that the API and version are served.
pub fn parse_request(mut frame: Bytes) -> Result<RequestFrame, FrameError> {
    let bytes = frame.len();
    if bytes < FIXED_HEADER_BYTES {
        return Err(FrameError::Header {
            position: bytes,
            what: "fewer than 8 bytes",
        });
    }
    let (key, version, correlation_id) = (frame.get_i16(), frame.get_i16(), frame.get_i32());
    let row = versions::lookup(key).ok_or(FrameError::UnknownApi {
        key,
        version,
        correlation_id,
    })?;
    if !(row.min..=row.max).contains(&version) {
        return Err(FrameError::UnsupportedVersion {
            name: row.name,
            key,
            version,
            correlation_id,
        });
    }
    let flexible = header_version(key, version) >= 2;
    let header = |position, what| FrameError::Header { position, what };
    let client_id = read_client_id(&mut frame).map_err(|what| header(bytes - frame.len(), what))?;
    if flexible {
        skip_tagged_fields(&mut frame).map_err(|what| header(bytes - frame.len(), what))?;
    }
    Ok(RequestFrame {
        api_key: key,
        version,
        correlation_id,
        client_id,
        body: frame,
        is_checked: false,
    })
}

/// Checks the body of a frame (without its length prefix); `None` for what will be refused.
pub fn check(frame: &[u8]) -> Option<Checked> {
    let [a, b, c, d] = *frame.first_chunk::<4>()?;
    let (key, version) = (i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d]));
    let row = versions::lookup(key).filter(|row| (row.min..=row.max).contains(&version))?;
    let (id_bytes, mut rest) = frame.get(FIXED_HEADER_BYTES..)?.split_first_chunk()?;
    let id_bytes = usize::try_from(i16::from_be_bytes(*id_bytes)).unwrap_or(0);
    rest = rest.get(id_bytes..)?;
    if header_version(key, version) >= 2 {
        skip_tagged_fields(&mut rest).ok()?;
    }
    let decoded_bytes = shape::decoded_bytes(row.key, version, rest).ok()?;
    Some(Checked { decoded_bytes })
}

/// Decodes a request's body; its lengths are checked before anything is allocated.
pub fn decode<R: Request>(frame: &RequestFrame) -> Result<R, FrameError> {
    let name = api_name(R::KEY);
    let version = frame.version;
    if !frame.is_checked || frame.api_key != R::KEY {
        shape::walk_request(R::KEY, version, &frame.body)
            .map_err(|error| misshapen(name, version, &error))?;
    }
    let mut body = frame.body.clone();
    R::decode(&mut body, version).map_err(|error| FrameError::Body {
        name,
        version,
        position: None,
        what: error.to_string(),
    })
}

/// Encodes a response with its length prefix and header.
pub fn encode_response<R: Encodable + HeaderVersion>(
    api_key: i16,
    version: i16,
    correlation_id: i32,
    response: &R,
) -> Result<Bytes, FrameError> {
    let failed = |what: String| FrameError::Encode {
        name: api_name(api_key),
        version,
        what,
    };
    let body = response
        .compute_size(version)
        .map_err(|error| failed(error.to_string()))?;
    let flexible = api_key != API_VERSIONS && R::header_version(version) >= 1;
    let mut out = BytesMut::with_capacity(9 + body);
    out.put_i32(0);
    out.put_i32(correlation_id);
    if flexible {
        out.put_u8(0);
    }
    response
        .encode(&mut out, version)
        .map_err(|error| failed(error.to_string()))?;
    let length =
        i32::try_from(out.len() - 4).map_err(|_| failed("larger than 2 GiB".to_owned()))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}

/// Encodes a request with its length prefix and header, for clients.
pub fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: &str,
    request: &R,
) -> Result<Bytes, FrameError> {
    let failed = |what: String| FrameError::Encode {
        name: api_name(R::KEY),
        version,
        what,
    };
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i16(R::KEY);
    out.put_i16(version);
    out.put_i32(correlation_id);
    out.put_i16(
        i16::try_from(client_id.len()).map_err(|_| failed("client id is too long".to_owned()))?,
    );
    out.put_slice(client_id.as_bytes());
    if R::header_version(version) >= 2 {
        out.put_u8(0);
    }
    request
        .encode(&mut out, version)
        .map_err(|error| failed(error.to_string()))?;
    let length =
        i32::try_from(out.len() - 4).map_err(|_| failed("larger than 2 GiB".to_owned()))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}

/// A received request as a frame to send on.
pub fn forward_request(request: &RequestFrame) -> Result<Bytes, FrameError> {
    let failed = |what: &str| FrameError::Encode {
        name: api_name(request.api_key),
        version: request.version,
        what: what.to_owned(),
    };
    let key = ApiKey::try_from(request.api_key).map_err(|()| failed("not a known API"))?;
    let client_id = request.client_id.as_deref();
    let id_bytes = client_id.map_or(Ok(-1), |id| i16::try_from(id.len()));
    let id_bytes = id_bytes.map_err(|_| failed("client id is too long"))?;
    let client_id = client_id.unwrap_or_default();
    let mut out = BytesMut::with_capacity(request.body.len() + client_id.len() + 32);
    out.put_i32(0);
    out.put_i16(request.api_key);
    out.put_i16(request.version);
    out.put_i32(request.correlation_id);
    out.put_i16(id_bytes);
    out.put_slice(client_id.as_bytes());
    if key.request_header_version(request.version) >= 2 {
        out.put_u8(0);
    }
    out.put_slice(&request.body);
    let length = i32::try_from(out.len() - 4).map_err(|_| failed("larger than 2 GiB"))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}

/// Decodes a response frame (without its length prefix), for clients: correlation id and body.
pub fn decode_response<R: Request>(
    version: i16,
    mut frame: Bytes,
) -> Result<(i32, R::Response), FrameError> {
    let bytes = frame.len();
    if bytes < 4 {
        return Err(FrameError::Header {
            position: bytes,
            what: "fewer than 4 bytes",
        });
    }
    let correlation_id = frame.get_i32();
    if R::KEY != API_VERSIONS && <R::Response as HeaderVersion>::header_version(version) >= 1 {
        skip_tagged_fields(&mut frame).map_err(|what| FrameError::Header {
            position: bytes - frame.len(),
            what,
        })?;
    }
    let name = api_name(R::KEY);
    shape::walk_response(R::KEY, version, &frame)
        .map_err(|error| misshapen(name, version, &error))?;
    let response = R::Response::decode(&mut frame, version).map_err(|error| FrameError::Body {
        name,
        version,
        position: None,
        what: error.to_string(),
    })?;
    Ok((correlation_id, response))
}

fn misshapen(name: &'static str, version: i16, error: &ShapeError) -> FrameError {
    let what = format!("{}: {}", error.field, error.what);
    FrameError::Body {
        name,
        version,
        position: Some(error.position),
        what,
    }
}

/// An API's name, for messages.
pub fn api_name(key: i16) -> &'static str {
    versions::lookup(key).map_or("unknown API", |row| row.name)
}

fn header_version(key: i16, version: i16) -> i16 {
    ApiKey::try_from(key).map_or(1, |key| key.request_header_version(version))
}

fn read_client_id(frame: &mut Bytes) -> Result<Option<StrBytes>, &'static str> {
    if frame.len() < 2 {
        return Err("no client id");
    }
    match frame.get_i16() {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| "negative client id length")?;
            if length > frame.len() {
                return Err("the client id is cut off");
            }
            StrBytes::from_utf8(frame.split_to(length))
                .map(Some)
                .map_err(|_| "the client id is not UTF-8")
        }
    }
}

fn skip_tagged_fields(frame: &mut impl Buf) -> Result<(), &'static str> {
    for _ in 0..read_unsigned_varint(frame)? {
        read_unsigned_varint(frame)?;
        let length = read_unsigned_varint(frame)? as usize;
        if length > frame.remaining() {
            return Err("a tagged field is cut off");
        }
        frame.advance(length);
    }
    Ok(())
}

fn read_unsigned_varint(frame: &mut impl Buf) -> Result<u32, &'static str> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        if !frame.has_remaining() {
            return Err("a varint is cut off");
        }
        let byte = frame.get_u8();
        if shift == 28 && byte > 0x0f {
            break;
        }
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a varint is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{ApiVersionsRequest, MetadataRequest};

    #[test]
    fn a_request_is_read_back_as_sent_in_every_version() {
        for version in 0..=13 {
            let sent = encode_request(version, 7, "me", &MetadataRequest::default()).unwrap();
            let frame = parse_request(sent.slice(4..)).unwrap();
            assert_eq!(
                (
                    frame.version,
                    frame.correlation_id,
                    frame.client_id.as_deref()
                ),
                (version, 7, Some("me"))
            );
            decode::<MetadataRequest>(&frame).unwrap();
        }
    }

    #[test]
    fn headers_cut_anywhere_are_errors() {
        let sent = encode_request(4, 7, "me", &ApiVersionsRequest::default())
            .unwrap()
            .slice(4..);
        for cut in 0..11 {
            assert!(
                matches!(
                    parse_request(sent.slice(..cut)),
                    Err(FrameError::Header { .. })
                ),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn unknown_apis_and_versions_keep_the_correlation_id() {
        let frame = |key: i16, version: i16| {
            Bytes::from(
                [
                    &key.to_be_bytes()[..],
                    &version.to_be_bytes(),
                    &[0, 0, 0, 9, 255, 255],
                ]
                .concat(),
            )
        };
        assert!(matches!(
            parse_request(frame(999, 0)),
            Err(FrameError::UnknownApi {
                correlation_id: 9,
                ..
            })
        ));
        assert!(matches!(
            parse_request(frame(18, 99)),
            Err(FrameError::UnsupportedVersion {
                correlation_id: 9,
                ..
            })
        ));
        assert!(matches!(
            parse_request(frame(0, 2)),
            Err(FrameError::UnsupportedVersion { .. })
        ));
    }
}
