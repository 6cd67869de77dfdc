//! Keeps the keys of identity providers (`sasl.oauthbearer.jwks.endpoint.url`) up to date: read from a file when it changes, or
//! asked for over HTTP(S) from time to time, and earlier when a token names a key that is not there (Kafka's RefreshingHttpsJwks).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use axum::http::header::{ACCEPT, HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::security::{BearerTokens, PemSource};

/// Keys' files are looked at so often.
const FILE_INTERVAL: Duration = Duration::from_secs(5);
/// A provider that does not answer in time has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest set of keys, bytes.
pub const JWKS_BYTES_MAX: usize = 1 << 20;
/// Whatever key ids tokens make up, a provider is not asked more often.
const WANTED_INTERVAL: Duration = Duration::from_secs(1);

/// Where a provider's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file, of a URL like `file:///etc/keys.json`.
    File(PathBuf),
    /// `http://` or `https://`.
    Url(Uri),
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct ProviderKeys {
    /// Where they come from.
    pub source: KeySource,
    /// How often they are asked for.
    pub refresh: Duration,
    /// How long to wait after the first failure, and twice as long after each that follows,
    pub backoff: Duration,
    /// up to this.
    pub backoff_max: Duration,
    /// Authorities of the provider's certificate; those of the system where there are none.
    pub authorities: Option<PemSource>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[error("keys of {0} cannot be used: {1}")]
pub struct JwksError(String, String);

impl KeySource {
    /// The source that a URL names.
    pub fn parse(url: &str) -> Option<Self> {
        if let Some(path) = url.strip_prefix("file://") {
            return Path::new(path)
                .is_absolute()
                .then(|| Self::File(path.into()));
        }
        let uri: Uri = url.parse().ok()?;
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        (is_known && uri.host().is_some()).then_some(Self::Url(uri))
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(uri) => write!(f, "{uri}"),
        }
    }
}

impl ProviderKeys {
    fn wrong(&self, why: impl std::fmt::Display) -> JwksError {
        JwksError(self.source.to_string(), why.to_string())
    }

    /// Whether whoever is on the way could give others.
    pub fn is_unprotected(&self) -> bool {
        matches!(&self.source, KeySource::Url(uri) if uri.scheme_str() == Some("http"))
    }

    /// Reads a file for the first time: one that cannot be used is a mistake of the configuration. A provider may come later.
    pub fn begin(&self, tokens: &BearerTokens) -> Result<(), JwksError> {
        let KeySource::File(path) = &self.source else {
            return Ok(());
        };
        let text = read_file(path).map_err(|error| self.wrong(error))?;
        tokens.set_keys(&text).map_err(|error| self.wrong(error))?;
        Ok(())
    }

    /// Keeps them up to date for as long as the broker runs.
    pub async fn follow(self, tokens: Arc<BearerTokens>) {
        match self.source.clone() {
            KeySource::File(path) => self.follow_file(&path, &tokens).await,
            KeySource::Url(uri) => self.follow_url(&uri, &tokens).await,
        }
    }

    async fn follow_file(&self, path: &Path, tokens: &BearerTokens) {
        let mut seen = None;
        loop {
            let read = path.to_owned();
            let read = tokio::task::spawn_blocking(move || read_file(&read)).await;
            let text = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            let text = text.map_err(|error| error.to_string());
            // What is wrong is said once.
            if seen.as_ref() != Some(&text) {
                let _ = text
                    .as_deref()
                    .map_err(|error| self.say(error))
                    .map(|text| self.take(text, tokens));
                seen = Some(text);
            }
            tokio::time::sleep(FILE_INTERVAL).await;
        }
    }

    fn take(&self, text: &str, tokens: &BearerTokens) -> bool {
        match tokens.set_keys(text) {
            Ok(0) => {
                tracing::error!(source = %self.source, "no key of the identity provider can be used, and no token is taken");
            }
            Ok(count) => {
                tracing::debug!(source = %self.source, count, "keys of the identity provider were read")
            }
            Err(error) => {
                self.say(error);
                return false;
            }
        }
        true
    }

    fn say(&self, error: impl std::fmt::Display) {
        let error = self.wrong(error);
        tracing::error!(%error, "those read before stay");
    }

    async fn follow_url(&self, uri: &Uri, tokens: &BearerTokens) {
        let mut backoff = self.backoff;
        loop {
            let answered = tokio::time::timeout(ANSWER_TIMEOUT, self.ask(uri)).await;
            let answered = answered.unwrap_or_else(|_| Err(self.wrong("no answer in time")));
            let is_taken = match answered {
                Ok(text) => self.take(&text, tokens),
                Err(error) => {
                    tracing::error!(%error, "those read before stay");
                    false
                }
            };
            if !is_taken {
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(self.backoff_max);
                continue;
            }
            backoff = self.backoff;
            tokio::select! {
                () = tokio::time::sleep(self.refresh) => {}
                () = async {
                    tokio::time::sleep(WANTED_INTERVAL).await;
                    tokens.key_is_wanted().await;
                } => {}
            }
        }
    }

    async fn ask(&self, uri: &Uri) -> Result<String, JwksError> {
        let wrong = |error: &dyn std::fmt::Display| self.wrong(error);
        let host = uri.host().unwrap_or_default();
        let is_secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port))
            .await
            .map_err(|error| wrong(&error))?;
        if !is_secure {
            return self.ask_over(uri, stream).await;
        }
        let config = self.tls().await?;
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| wrong(&error))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        self.ask_over(uri, stream.map_err(|error| wrong(&error))?)
            .await
    }

    /// Certificates are read for each question: they may change.
    async fn tls(&self) -> Result<Arc<ClientConfig>, JwksError> {
        let authorities = self.authorities.clone();
        let roots = tokio::task::spawn_blocking(move || match authorities {
            Some(source) => source.roots().map_err(|error| error.to_string()),
            None => Ok(system_roots()),
        });
        let roots = roots.await.map_err(|error| self.wrong(error))?;
        let roots = roots.map_err(|error| self.wrong(error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| self.wrong(error))?;
        Ok(Arc::new(
            builder.with_root_certificates(roots).with_no_client_auth(),
        ))
    }

    async fn ask_over<S>(&self, uri: &Uri, stream: S) -> Result<String, JwksError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wrong = |error: &dyn std::fmt::Display| self.wrong(error);
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| wrong(&error))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let request = axum::http::Request::get(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json");
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| wrong(&error))?;
        let answered = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| wrong(&error))?;
            if !response.status().is_success() {
                return Err(wrong(&format!("it answers {}", response.status())));
            }
            let body = Limited::new(response.into_body(), JWKS_BYTES_MAX)
                .collect()
                .await;
            let body = body.map_err(|error| wrong(&error))?.to_bytes();
            String::from_utf8(body.to_vec()).map_err(|error| wrong(&error))
        };
        tokio::pin!(answered);
        tokio::select! {
            answer = &mut answered => answer,
            ended = connection => match ended {
                Ok(()) => answered.await,
                Err(error) => Err(wrong(&error)),
            },
        }
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let bytes = std::fs::metadata(path)?.len();
    match bytes > JWKS_BYTES_MAX as u64 {
        true => Err(io::Error::other("the file is too large")),
        false => std::fs::read_to_string(path),
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
    fn keys_come_from_files_and_from_the_web() {
        let file = KeySource::parse("file:///etc/keys.json");
        assert_eq!(file, Some(KeySource::File("/etc/keys.json".into())));
        assert!(matches!(
            KeySource::parse("https://id.example/keys?x=1"),
            Some(KeySource::Url(_))
        ));
        assert!(matches!(
            KeySource::parse("http://[::1]:8080/keys"),
            Some(KeySource::Url(_))
        ));
        for none in [
            "",
            "/etc/keys.json",
            "file://etc/keys.json",
            "ftp://x/y",
            "https://",
            "keys.json",
        ] {
            assert_eq!(KeySource::parse(none), None, "{none}");
        }
    }
}
