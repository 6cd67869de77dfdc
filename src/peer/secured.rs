//! Connections to other brokers over TLS and SASL, as the listener between brokers asks for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metaq_protocol::ResponseError;
use metaq_protocol::frame::{decode_response, encode_request};
use metaq_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use metaq_protocol::protocol::{Request, StrBytes};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Connect, PeerAddress, PeerStream};
use crate::login::Login;
use crate::security::{SaslClient, SaslIdentity, TlsSettings};

/// What this broker calls itself before it is known.
const CLIENT_ID: &str = "metaq-broker";
const HANDSHAKE_VERSION: i16 = 1;
const AUTHENTICATE_VERSION: i16 = 1;
/// Largest answer that is taken while authenticating, bytes.
const ANSWER_BYTES_MAX: u32 = 64 << 10;

/// What protects the connections to other brokers.
#[derive(Debug, Clone, Default)]
pub struct PeerSecurity {
    /// There where they are encrypted.
    pub tls: Option<TlsSettings>,
    /// There where brokers authenticate.
    pub login: Option<Login>,
}

/// Makes connections that are protected so. Certificates are read for each: they may change.
pub fn secured(security: PeerSecurity) -> Connect {
    let security = Arc::new(security);
    Arc::new(move |address| Box::pin(connect(security.clone(), address.clone())))
}

async fn connect(security: Arc<PeerSecurity>, address: PeerAddress) -> io::Result<PeerStream> {
    let identity = match &security.login {
        Some(login) => Some(login.identity().await.map_err(io::Error::other)?),
        None => None,
    };
    let connected = connect_as(&security, address, identity.as_ref()).await;
    if let (Err(error), Some(login), Some(identity)) = (&connected, &security.login, &identity)
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        login.was_refused(identity);
    }
    connected
}

async fn connect_as(
    security: &PeerSecurity,
    address: PeerAddress,
    identity: Option<&SaslIdentity>,
) -> io::Result<PeerStream> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    let _ = stream.set_nodelay(true);
    let Some(tls) = &security.tls else {
        let (mut reader, mut writer) = stream.into_split();
        let lifetime = authenticate(identity, &mut reader, &mut writer).await?;
        let stream = PeerStream::lasting(reader, writer);
        return Ok(PeerStream { lifetime, ..stream });
    };
    let config = tls.client_config().map_err(io::Error::other)?;
    let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let lifetime = authenticate(identity, &mut reader, &mut writer).await?;
    let stream = PeerStream::lasting(reader, writer);
    Ok(PeerStream { lifetime, ..stream })
}

/// Says who this broker is; for how long the other one takes its word.
async fn authenticate(
    identity: Option<&SaslIdentity>,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<Option<Duration>> {
    let Some(identity) = identity else {
        return Ok(None);
    };
    let mechanism = StrBytes::from_static_str(identity.mechanism.name());
    let handshake = SaslHandshakeRequest::default().with_mechanism(mechanism);
    let answer = ask(reader, writer, HANDSHAKE_VERSION, &handshake).await?;
    refused(answer.error_code, None)?;
    let (mut client, first) = SaslClient::begin(identity);
    let (mut next, mut lifetime_ms) = (Some(first), 0);
    while let Some(message) = next {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let answer = ask(reader, writer, AUTHENTICATE_VERSION, &request).await?;
        refused(answer.error_code, answer.error_message.as_deref())?;
        lifetime_ms = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
        next = client.on(&answer.auth_bytes).map_err(io::Error::other)?;
    }
    Ok((lifetime_ms > 0).then(|| Duration::from_millis(lifetime_ms)))
}

/// Permission is denied where what was shown is wrong, and by no other answer.
fn refused(code: i16, why: Option<&str>) -> io::Result<()> {
    if code == 0 {
        return Ok(());
    }
    let kind = match code == ResponseError::SaslAuthenticationFailed.code() {
        true => io::ErrorKind::PermissionDenied,
        false => io::ErrorKind::Unsupported,
    };
    let why = why.unwrap_or("the mechanism is not enabled there");
    let text = format!("the broker refused to authenticate this one ({code}): {why}");
    Err(io::Error::new(kind, text))
}

async fn ask<R: Request>(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    version: i16,
    request: &R,
) -> io::Result<R::Response> {
    let frame = encode_request(version, 0, CLIENT_ID, request).map_err(io::Error::other)?;
    writer.write_all(&frame).await?;
    writer.flush().await?;
    let length = reader.read_u32().await?;
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is too large",
        ));
    }
    let mut answer = vec![0; length as usize];
    reader.read_exact(&mut answer).await?;
    let decoded = decode_response::<R>(version, Bytes::from(answer));
    Ok(decoded.map_err(io::Error::other)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_shown_and_is_wrong_denies_permission() {
        let kind = |code: i16| refused(code, None).unwrap_err().kind();
        assert!(refused(0, None).is_ok());
        assert_eq!(kind(58), io::ErrorKind::PermissionDenied);
        for other in [33, 34, -1] {
            assert_eq!(kind(other), io::ErrorKind::Unsupported);
        }
    }
}
