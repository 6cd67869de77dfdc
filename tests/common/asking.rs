//! A client of a listener with SASL or TLS, which says who it is step by step.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use metaq::security::{Mechanism, SaslClient, SaslIdentity};
use metaq_protocol::frame;
use metaq_protocol::messages::{MetadataRequest, SaslAuthenticateRequest, SaslHandshakeRequest};
use metaq_protocol::protocol::{Request, StrBytes};

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Both directions of a connection.
pub trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A connection that asks one thing after the other.
pub struct Asking(pub Box<dyn Stream>);

impl Asking {
    pub fn plain(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        let timeout = Some(Duration::from_secs(20));
        stream.set_read_timeout(timeout).unwrap();
        Self(Box::new(stream))
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        let framed = frame::encode_request(version, 1, "test", request).unwrap();
        self.0.write_all(&framed).unwrap();
        self.0.flush().unwrap();
    }

    /// The next frame; `None` where the broker closed the connection.
    pub fn receive(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).ok()?;
        Some(answer.into())
    }

    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        self.send(version, request);
        let decoded = frame::decode_response::<R>(version, self.receive()?);
        Some(decoded.unwrap().1)
    }

    pub fn choose(&mut self, mechanism: &str) -> Option<i16> {
        let request = SaslHandshakeRequest::default().with_mechanism(text(mechanism));
        Some(self.ask(1, &request)?.error_code)
    }

    /// Authenticates; the error's code and the lifetime.
    pub fn authenticate(
        &mut self,
        mechanism: Mechanism,
        (user, password): (&str, &str),
    ) -> (i16, i64) {
        self.log_in(&SaslIdentity {
            mechanism,
            user: user.to_owned(),
            password: password.to_owned(),
            is_token: false,
        })
    }

    /// The same, by a password or a delegation token.
    pub fn log_in(&mut self, identity: &SaslIdentity) -> (i16, i64) {
        assert_eq!(self.choose(identity.mechanism.name()), Some(0));
        let (mut client, first) = SaslClient::begin(identity);
        let (mut next, mut lifetime) = (Some(first), 0);
        while let Some(message) = next {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
            let answer = self.ask(1, &request).unwrap();
            if answer.error_code != 0 {
                return (answer.error_code, 0);
            }
            lifetime = answer.session_lifetime_ms;
            next = client.on(&answer.auth_bytes).unwrap();
        }
        (0, lifetime)
    }

    /// Whether the broker answers who it takes for known.
    pub fn is_served(&mut self) -> bool {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        self.ask(12, &request).is_some()
    }
}
