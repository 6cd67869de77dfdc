//! Keeps the keys of identity providers (`sasl.oauthbearer.jwks.endpoint.url`) up to date: read from a file when it changes, or
//! asked for over HTTP(S) from time to time, and earlier when a token names a key that is not there (Kafka's RefreshingHttpsJwks).
//!
//! Tests: tests/bearer_tokens.rs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Uri};

use crate::provider::{self, ProviderSource};
use crate::security::{BearerTokens, PemSource};

/// Keys' files are looked at so often.
const FILE_INTERVAL: Duration = Duration::from_secs(5);
/// The largest set of keys, bytes.
pub const JWKS_BYTES_MAX: usize = provider::ANSWER_BYTES_MAX;
/// Whatever key ids tokens make up, a provider is not asked more often.
const WANTED_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct ProviderKeys {
    /// Where they come from.
    pub source: ProviderSource,
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

impl ProviderKeys {
    fn wrong(&self, why: impl std::fmt::Display) -> JwksError {
        JwksError(self.source.to_string(), why.to_string())
    }

    /// Whether whoever is on the way could give others.
    pub fn is_unprotected(&self) -> bool {
        self.source.is_unprotected()
    }

    /// Reads a file for the first time: one that cannot be used is a mistake of the configuration. A provider may come later.
    pub fn begin(&self, tokens: &BearerTokens) -> Result<(), JwksError> {
        let ProviderSource::File(path) = &self.source else {
            return Ok(());
        };
        let text = read_file(path).map_err(|error| self.wrong(error))?;
        tokens.set_keys(&text).map_err(|error| self.wrong(error))?;
        Ok(())
    }

    /// Keeps them up to date for as long as the broker runs.
    pub async fn follow(self, tokens: Arc<BearerTokens>) {
        match self.source.clone() {
            ProviderSource::File(path) => self.follow_file(&path, &tokens).await,
            ProviderSource::Url(uri) => self.follow_url(&uri, &tokens).await,
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
            let is_taken = match self.ask(uri).await {
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
        let request = (Request::builder(), String::new());
        let answered = provider::ask(uri, self.authorities.as_ref(), request).await;
        match answered.map_err(|error| self.wrong(error))? {
            (status, text) if status.is_success() => Ok(text),
            (status, _) => Err(self.wrong(format!("it answers {status}"))),
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
