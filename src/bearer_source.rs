//! Where bearer tokens of one's own come from, as brokers and the operator's commands log in with OAUTHBEARER: a file, or an identity
//! provider that gives them to who has a client id and its secret (KIP-768, KIP-1139; Kafka's DefaultJwtRetriever).

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Request, StatusCode, Uri};
use data_encoding::BASE64;
use tokio::sync::Mutex;

use crate::provider::{self, ProviderError, ProviderSource};
use crate::security::{Mechanism, PemSource, SaslIdentity, TOKEN_BYTES_MAX, expiry_of};

/// Of the time that a token is good so much is used, as of Kafka's sasl.login.refresh.window.factor.
const LIFETIME_USED: f64 = 0.8;
/// What a provider says of an error is cut, letters.
const WHY_LETTERS_MAX: usize = 200;

/// The configuration that says where tokens come from.
pub const URL_KEY: &str = "sasl.oauthbearer.token.endpoint.url";
/// And as whom they are asked for.
pub const ID_KEY: &str = "sasl.oauthbearer.client.credentials.client.id";
/// The secret of that.
pub const SECRET_KEY: &str = "sasl.oauthbearer.client.credentials.client.secret";

/// What is set of it; what is empty is not set.
#[derive(Clone, Default)]
pub struct BearerSourceSettings {
    /// `file:///…`, `https://…`, or `http://…` on this machine.
    pub url: String,
    /// The client's id at the provider.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// What is asked for.
    pub scope: String,
    /// Whether id, secret and scope are sent as URLs have them (sasl.oauthbearer.header.urlencode).
    pub is_encoded: bool,
    /// Authorities of the provider's certificate; those of the system where there are none.
    pub authorities: Option<PemSource>,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BearerSourceError {
    /// Nothing says where it comes from.
    #[error(
        "OAUTHBEARER needs {URL_KEY}: file:///… with a token, or https://… of an identity provider that gives them"
    )]
    NoUrl,
    /// It is none.
    #[error("{URL_KEY}={0} is none of file:///…, https://… and http://…")]
    Url(String),
    /// It goes through a network.
    #[error(
        "{URL_KEY}={0}: a client's secret goes over http to this machine alone; the identity provider needs https"
    )]
    Unprotected(String),
    /// Nothing says who asks.
    #[error(
        "{0} is not set: the identity provider gives tokens to who has a client id and its secret"
    )]
    Missing(&'static str),
    /// The file.
    #[error("cannot read the token in {0}: {1}")]
    File(String, String),
    /// The provider.
    #[error("the token endpoint {0} cannot be asked: {1}")]
    Unreached(String, ProviderError),
    /// The provider, which refuses.
    #[error("the token endpoint {0} gives no token: it answers {1}{2}")]
    Refused(String, StatusCode, String),
    /// The provider, which says something else.
    #[error("the answer of the token endpoint {0} has no access_token")]
    NoToken(String),
}

/// A token, and until when it is used.
struct Kept {
    token: String,
    until: Instant,
}

enum Place {
    File(std::path::PathBuf),
    Endpoint {
        uri: Uri,
        authorization: String,
        body: String,
        authorities: Option<PemSource>,
    },
}

/// See the module's documentation.
pub struct BearerSource {
    place: Place,
    kept: Mutex<Option<Kept>>,
}

impl std::fmt::Debug for BearerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "BearerSource({})", path.display()),
            Place::Endpoint { uri, .. } => write!(f, "BearerSource({uri})"),
        }
    }
}

impl BearerSource {
    /// The one that settings describe; nothing is read or asked yet.
    pub fn new(settings: BearerSourceSettings) -> Result<Self, BearerSourceError> {
        use BearerSourceError as E;
        let url = settings.url.trim();
        if url.is_empty() {
            return Err(E::NoUrl);
        }
        let source = ProviderSource::parse(url).ok_or_else(|| E::Url(url.to_owned()))?;
        let may_be_asked = source.is_here() || !source.is_unprotected();
        let place = match source {
            ProviderSource::File(path) => Place::File(path),
            ProviderSource::Url(_) if !may_be_asked => return Err(E::Unprotected(url.to_owned())),
            ProviderSource::Url(uri) => {
                let (authorization, body) = client_credentials(&settings)?;
                Place::Endpoint {
                    uri,
                    authorization,
                    body,
                    authorities: settings.authorities,
                }
            }
        };
        let kept = Mutex::default();
        Ok(Self { place, kept })
    }

    /// A token: that in the file as it is now, or one of the provider, which is asked anew when most of its time is over.
    pub async fn token(&self) -> Result<String, BearerSourceError> {
        let uri = match &self.place {
            Place::File(path) => return read_token(path),
            Place::Endpoint { uri, .. } => uri,
        };
        // Whoever else wants one meanwhile gets the same.
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Ok(kept.token.clone());
        }
        let token = self.ask(uri).await?;
        *kept = time_to_use(&token).map(|time| Kept {
            token: token.clone(),
            until: Instant::now() + time,
        });
        Ok(token)
    }

    /// Forgets a token that was not taken: the next one is asked for.
    pub fn forget(&self) {
        // Who holds it asks for another one just now.
        if let Ok(mut kept) = self.kept.try_lock() {
            kept.take();
        }
    }

    async fn ask(&self, uri: &Uri) -> Result<String, BearerSourceError> {
        use BearerSourceError as E;
        let Place::Endpoint {
            authorization,
            body,
            authorities,
            ..
        } = &self.place
        else {
            return Err(E::NoUrl);
        };
        let request = Request::post("/")
            .header(AUTHORIZATION, authorization)
            .header(CACHE_CONTROL, "no-cache")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answered = provider::ask(uri, authorities.as_ref(), (request, body.clone())).await;
        let (status, text) = answered.map_err(|error| E::Unreached(uri.to_string(), error))?;
        match status {
            StatusCode::OK | StatusCode::CREATED => {
                token_in(&text).ok_or_else(|| E::NoToken(uri.to_string()))
            }
            _ => Err(E::Refused(uri.to_string(), status, why_in(&text))),
        }
    }
}

/// Header and body of the request (Kafka's ClientSecretRequestFormatter).
fn client_credentials(
    settings: &BearerSourceSettings,
) -> Result<(String, String), BearerSourceError> {
    let encoded = |text: &str| match settings.is_encoded {
        true => form_encoded(text.trim()),
        false => text.trim().to_owned(),
    };
    let needed = |text: &str, key| match text.trim() {
        "" => Err(BearerSourceError::Missing(key)),
        text => Ok(encoded(text)),
    };
    let id = needed(&settings.id, ID_KEY)?;
    let secret = needed(&settings.secret, SECRET_KEY)?;
    let pair = BASE64.encode(format!("{id}:{secret}").as_bytes());
    let mut body = "grant_type=client_credentials".to_owned();
    if !settings.scope.trim().is_empty() {
        body.push_str("&scope=");
        body.push_str(&encoded(&settings.scope));
    }
    Ok((format!("Basic {pair}"), body))
}

/// As Java's URLEncoder.
fn form_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => {
                out.push(byte as char);
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The token in a file, as Kafka's FileJwtRetriever takes it.
fn read_token(path: &Path) -> Result<String, BearerSourceError> {
    let wrong = |why: String| BearerSourceError::File(path.display().to_string(), why);
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| {
            file.take(TOKEN_BYTES_MAX as u64 + 1)
                .read_to_string(&mut text)
        })
        .map_err(|error| wrong(error.to_string()))?;
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        _ if text.len() > TOKEN_BYTES_MAX => Err(wrong("it is too long".to_owned())),
        token => Ok(token.to_owned()),
    }
}

/// For how long a token is used; `None` where it does not say until when it is good.
fn time_to_use(token: &str) -> Option<Duration> {
    let left = expiry_of(token)?.duration_since(SystemTime::now()).ok()?;
    Some(left.mul_f64(LIFETIME_USED))
}

/// The token in an answer (Kafka's JwtResponseParser).
fn token_in(answer: &str) -> Option<String> {
    let read: serde_json::Value = serde_json::from_str(answer).ok()?;
    let mut found = ["access_token", "id_token"].iter().filter_map(|name| {
        let token = read.get(name)?.as_str()?.trim();
        (!token.is_empty()).then(|| token.to_owned())
    });
    found.next()
}

/// What an answer that is none says (RFC 6749, 5.2).
fn why_in(answer: &str) -> String {
    let read: Option<serde_json::Value> = serde_json::from_str(answer).ok();
    let text = |name: &str| read.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let parts: Vec<String> = ["error", "error_description"]
        .iter()
        .filter_map(|name| text(name))
        .collect();
    let said = parts.join(": ");
    let said: String = said.chars().filter(|letter| !letter.is_control()).collect();
    match said.is_empty() {
        true => said,
        false => format!(
            " ({})",
            said.chars().take(WHY_LETTERS_MAX).collect::<String>()
        ),
    }
}

/// What one logs in with by SASL.
#[derive(Debug, Clone)]
pub enum Login {
    /// A user, or a delegation token.
    Password(SaslIdentity),
    /// Whatever token there is at the time.
    Bearer(Arc<BearerSource>),
}

impl Login {
    /// What is shown now.
    pub async fn identity(&self) -> Result<SaslIdentity, BearerSourceError> {
        match self {
            Self::Password(identity) => Ok(identity.clone()),
            Self::Bearer(source) => Ok(SaslIdentity {
                mechanism: Mechanism::OAuthBearer,
                user: String::new(),
                password: source.token().await?,
                is_token: false,
            }),
        }
    }

    /// Notes that it was not taken.
    pub fn was_refused(&self) {
        if let Self::Bearer(source) = self {
            source.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> BearerSourceSettings {
        BearerSourceSettings {
            url: url.to_owned(),
            id: "me".to_owned(),
            secret: "a+b c".to_owned(),
            ..BearerSourceSettings::default()
        }
    }

    fn refused(settings: BearerSourceSettings) -> String {
        BearerSource::new(settings).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(refused(settings("")).contains(URL_KEY));
        assert!(refused(settings("ftp://x")).contains("none of file:///"));
        assert!(refused(settings("http://10.0.0.1/token")).contains("needs https"));
        for here in ["http://127.0.0.1:1/t", "https://id.example/t", "file:///t"] {
            assert!(BearerSource::new(settings(here)).is_ok(), "{here}");
        }
        let url = "https://id.example/t";
        let (id, secret) = (String::new(), " ".to_owned());
        assert!(
            refused(BearerSourceSettings {
                id,
                ..settings(url)
            })
            .contains(ID_KEY)
        );
        assert!(
            refused(BearerSourceSettings {
                secret,
                ..settings(url)
            })
            .contains(SECRET_KEY)
        );
    }

    #[test]
    fn a_client_says_who_it_is_as_kafkas_does() {
        let mut asked = settings("https://id.example/t");
        asked.scope = "read write".to_owned();
        let (header, body) = client_credentials(&asked).unwrap();
        assert_eq!(header, format!("Basic {}", BASE64.encode(b"me:a+b c")));
        assert_eq!(body, "grant_type=client_credentials&scope=read write");
        asked.is_encoded = true;
        let (header, body) = client_credentials(&asked).unwrap();
        assert_eq!(header, format!("Basic {}", BASE64.encode(b"me:a%2Bb+c")));
        assert_eq!(body, "grant_type=client_credentials&scope=read+write");
    }

    #[test]
    fn a_token_is_found_in_an_answer_and_what_is_wrong_in_another_one() {
        let found = |answer: &str| token_in(answer);
        assert_eq!(found(r#"{"access_token":" t "}"#).as_deref(), Some("t"));
        assert_eq!(found(r#"{"id_token":"i"}"#).as_deref(), Some("i"));
        let both = r#"{"id_token":"i","access_token":"t"}"#;
        assert_eq!(found(both).as_deref(), Some("t"));
        for none in [
            "",
            "t",
            "{}",
            r#"{"access_token":" "}"#,
            r#"{"access_token":1}"#,
        ] {
            assert_eq!(found(none), None, "{none}");
        }
        let said = why_in(r#"{"error":"invalid_client","error_description":"no\nsuch client"}"#);
        assert_eq!(said, " (invalid_client: nosuch client)");
        assert_eq!(why_in("<html>"), "");
    }

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let source = BearerSource::new(settings(&format!("file://{}", file.display()))).unwrap();
        let error = source.token().await.unwrap_err().to_string();
        assert!(error.contains("cannot read the token in"), "{error}");
        for token in ["a.b.c", "d.e.f"] {
            fs::write(&file, format!("{token}\n")).unwrap();
            assert_eq!(source.token().await.unwrap(), token);
        }
        fs::write(&file, "\n").unwrap();
        assert!(source.token().await.is_err());
        fs::write(&file, "x".repeat(TOKEN_BYTES_MAX + 1)).unwrap();
        assert!(source.token().await.is_err());
    }
}
