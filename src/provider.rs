//! Identity providers: where they are, and how they are asked over HTTP(S), one question a connection, within limits of time and
//! size.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT, HOST};
use axum::http::request::Builder;
use axum::http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::security::PemSource;

/// A provider that does not answer in time has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, bytes.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Where something of a provider comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum ProviderSource {
    /// A file, of a URL like `file:///etc/keys.json`.
    File(PathBuf),
    /// `http://` or `https://`, without user and password: they would be shown wherever the URL is.
    Url(Uri),
}

/// Why a provider did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProviderError(String);

impl ProviderError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl ProviderSource {
    /// The source that a URL names.
    pub fn parse(url: &str) -> Option<Self> {
        if let Some(path) = url.strip_prefix("file://") {
            return Path::new(path)
                .is_absolute()
                .then(|| Self::File(path.into()));
        }
        let uri: Uri = url.parse().ok()?;
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        let names_user = uri.authority().is_some_and(|at| at.as_str().contains('@'));
        (is_known && !names_user && uri.host().is_some()).then_some(Self::Url(uri))
    }

    /// Whether whoever is on the way could read and change what is said.
    pub fn is_unprotected(&self) -> bool {
        matches!(self, Self::Url(uri) if uri.scheme_str() == Some("http"))
    }

    /// Whether it is on this machine.
    pub fn is_here(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Url(uri) => {
                let host = bare(uri);
                let address = host.parse::<std::net::IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl std::fmt::Display for ProviderSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(uri) => f.write_str(&shown(uri)),
        }
    }
}

impl std::fmt::Debug for ProviderSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProviderSource({self})")
    }
}

/// A URL as it is shown: see [`without_secrets`].
pub fn shown(uri: &Uri) -> String {
    without_secrets(&uri.to_string())
}

/// A URL, or what was meant for one, without user, password and query, which may be secret.
pub fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.rsplit('@').next().unwrap_or_default();
    match scheme {
        "" => rest.to_owned(),
        "file" => url.to_owned(),
        scheme => format!("{scheme}://{rest}"),
    }
}

/// The host of a URL, an IPv6 address without its brackets.
fn bare(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Asks a provider; `request` says what, its method, headers and body. Without authorities those of the system are believed.
/// Status and body of the answer.
pub async fn ask(
    uri: &Uri,
    authorities: Option<&PemSource>,
    request: (Builder, String),
) -> Result<(StatusCode, String), ProviderError> {
    let (builder, body) = request;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = builder
        .uri(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(ProviderError::of)?;
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, connect(uri, authorities, request)).await;
    answered.unwrap_or_else(|_| Err(ProviderError::of("no answer in time")))
}

async fn connect(
    uri: &Uri,
    authorities: Option<&PemSource>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), ProviderError> {
    let is_secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let host = bare(uri);
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(ProviderError::of)?;
    if !is_secure {
        return ask_over(stream, request).await;
    }
    let config = tls(authorities.cloned()).await?;
    let name = ServerName::try_from(host.to_owned()).map_err(ProviderError::of)?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    ask_over(stream.map_err(ProviderError::of)?, request).await
}

/// Certificates are read for each question: they may change.
async fn tls(authorities: Option<PemSource>) -> Result<Arc<ClientConfig>, ProviderError> {
    let roots = tokio::task::spawn_blocking(move || match authorities {
        Some(source) => source.roots().map_err(ProviderError::of),
        None => Ok(system_roots()),
    });
    let roots = roots.await.map_err(ProviderError::of)??;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(ProviderError::of)?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

async fn ask_over<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), ProviderError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(ProviderError::of)?;
    let answered = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(ProviderError::of)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(ProviderError::of)?.to_bytes();
        let text = String::from_utf8(body.to_vec()).map_err(ProviderError::of)?;
        Ok((status, text))
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        // What came before the end counts, also where the other side says nothing at its end.
        ended = connection => match (answered.await, ended) {
            (Err(_), Err(error)) => Err(ProviderError::of(error)),
            (answer, _) => answer,
        },
    }
}

/// Those that can be read; where there are none, no provider is believed.
fn system_roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_providers_give_comes_from_files_and_from_the_web() {
        let file = ProviderSource::parse("file:///etc/keys.json");
        assert_eq!(file, Some(ProviderSource::File("/etc/keys.json".into())));
        assert!(matches!(
            ProviderSource::parse("https://id.example/keys?x=1"),
            Some(ProviderSource::Url(_))
        ));
        assert!(matches!(
            ProviderSource::parse("http://[::1]:8080/keys"),
            Some(ProviderSource::Url(_))
        ));
        for none in [
            "",
            "/etc/keys.json",
            "file://etc/keys.json",
            "ftp://x/y",
            "https://",
            "keys.json",
            "https://me:planted@id.example/keys",
            "https://me@id.example/keys",
        ] {
            assert_eq!(ProviderSource::parse(none), None, "{none}");
        }
    }

    #[test]
    fn neither_a_query_nor_a_user_is_shown() {
        let source = ProviderSource::parse("https://id.example:8443/keys?code=planted").unwrap();
        assert_eq!(source.to_string(), "https://id.example:8443/keys");
        assert!(!format!("{source:?}").contains("planted"));
        for (url, shown) in [
            (
                "https://me:planted@id.example/keys?a=@",
                "https://id.example/keys",
            ),
            ("me:planted@id.example/keys", "id.example/keys"),
            ("ftp://planted@x#planted", "ftp://x"),
            ("file:///etc/a@b", "file:///etc/a@b"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_provider_on_this_machine_is_told_from_others() {
        let is_here = |url: &str| ProviderSource::parse(url).unwrap().is_here();
        for here in [
            "http://127.0.0.1:1/t",
            "http://[::1]/t",
            "http://localhost/t",
            "file:///t",
        ] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in ["http://10.0.0.1/t", "http://127.0.0.1.example/t"] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
