//! Where bearer tokens of one's own come from, as brokers and the operator's commands log in with OAUTHBEARER: a file, or an identity
//! provider that gives them to who has a client id and its secret (KIP-768, KIP-1139; Kafka's DefaultJwtRetriever).

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Request, StatusCode, Uri};
use data_encoding::BASE64;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::provider::{self, ProviderError, ProviderSource, without_secrets};
use crate::security::{PemSource, TOKEN_BYTES_MAX, expiry_of};

/// After so much of the time that a token is good another one is asked for, as of Kafka's sasl.login.refresh.window.factor.
/// Where there is none the one before is used to its end.
const LIFETIME_USED: f64 = 0.8;
/// For how long a token is used that does not say until when it is good.
const UNSAID_LIFETIME: Duration = Duration::from_secs(30);
/// However many tokens are wanted, a provider is not asked more often; and after a failure not before this,
const ASKED_INTERVAL: Duration = Duration::from_secs(1);
/// twice as long after each that follows, up to this.
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(10);
/// After a broker did not take a token another one is asked for at once; where that is not taken either, not before
/// [`ASKED_INTERVAL`], and twice as long after each that follows, up to this.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// What a provider says of an error is cut, letters.
const SAID_LETTERS_MAX: usize = 200;

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
    #[error(
        "{URL_KEY}={0} is none of file:///…, https://… and http://…, without user and password in it"
    )]
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

/// A token, when another one is asked for, and when it is over.
struct Kept {
    token: String,
    until: Instant,
    expires: Instant,
    was_refused: bool,
}

impl Kept {
    /// `None` for one that is over.
    fn of(token: &str, now: Instant) -> Option<Self> {
        let (used, good) = match expiry_of(token) {
            None => (UNSAID_LIFETIME, UNSAID_LIFETIME),
            Some(expires) => {
                let left = expires.duration_since(SystemTime::now()).ok()?;
                (left.mul_f64(LIFETIME_USED), left)
            }
        };
        Some(Self {
            token: token.to_owned(),
            until: now.checked_add(used)?,
            expires: now.checked_add(good)?,
            was_refused: false,
        })
    }
}

/// What a question came to; `None` while it is on its way.
type Answer = Option<Result<String, BearerSourceError>>;

/// What is known of a provider's tokens.
#[derive(Default)]
struct State {
    kept: Option<Kept>,
    /// The question that is on its way: whoever wants a token meanwhile waits for the same answer.
    asking: Option<watch::Receiver<Answer>>,
    /// Before that it is not asked again.
    ask_at: Option<Instant>,
    /// Why the last question failed, and how long to wait then.
    failed: Option<BearerSourceError>,
    pause: Duration,
    /// How long the next token is used at least that is refused.
    refused_pause: Duration,
}

/// What becomes of who wants a token.
enum Turn {
    Over(Result<String, BearerSourceError>),
    /// For the answer: there is no token that is good.
    Waits(watch::Receiver<Answer>),
    /// Before anything is asked again.
    Pauses(Duration),
}

impl State {
    fn good(&self, now: Instant) -> Option<String> {
        let kept = self.kept.as_ref().filter(|kept| now < kept.expires)?;
        Some(kept.token.clone())
    }

    /// Keeps a token in the place of the one before.
    fn keep(&mut self, token: &str, now: Instant) {
        let Some(kept) = Kept::of(token, now) else {
            tracing::warn!(
                "the token that the provider gives is over by the clock of this machine"
            );
            return;
        };
        if self.kept.as_ref().is_some_and(|before| !before.was_refused) {
            self.refused_pause = Duration::ZERO;
        }
        self.kept = Some(kept);
    }

    /// A broker did not take it: another one is asked for. Others may take it, so that it stays until there is one.
    fn refuse(&mut self, token: &str, now: Instant) {
        let kept = self.kept.as_mut().filter(|kept| kept.token == token);
        let Some(kept) = kept.filter(|kept| !kept.was_refused) else {
            return;
        };
        kept.was_refused = true;
        kept.until = kept.until.min(now + self.refused_pause);
        self.refused_pause = (self.refused_pause * 2).clamp(ASKED_INTERVAL, REFUSED_PAUSE_MAX);
    }

    fn take_answer(&mut self, asked: Result<String, BearerSourceError>) -> Answer {
        let now = Instant::now();
        self.asking = None;
        let error = match asked {
            Ok(token) => {
                (self.failed, self.pause) = (None, Duration::ZERO);
                self.keep(&token, now);
                return Some(Ok(token));
            }
            Err(error) => error,
        };
        self.pause = (self.pause * 2).clamp(ASKED_INTERVAL, FAILED_PAUSE_MAX);
        self.ask_at = Some(now + self.pause);
        self.failed = Some(error.clone());
        let good = self.good(now);
        match &good {
            Some(_) => tracing::warn!(%error, "the token before is used to its end"),
            None => tracing::warn!(%error, "there is no token to log in with at other brokers"),
        }
        Some(good.ok_or(error))
    }
}

/// A provider, and what it is asked.
struct Endpoint {
    uri: Uri,
    authorization: String,
    body: String,
    authorities: Option<PemSource>,
    state: Mutex<State>,
}

enum Place {
    File(PathBuf),
    Endpoint(Arc<Endpoint>),
}

/// See the module's documentation.
pub struct BearerSource {
    place: Place,
}

impl std::fmt::Debug for BearerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "BearerSource({})", path.display()),
            Place::Endpoint(endpoint) => write!(f, "BearerSource({})", endpoint.shown()),
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
        let source = ProviderSource::parse(url).ok_or_else(|| E::Url(without_secrets(url)))?;
        let may_be_asked = source.is_here() || !source.is_unprotected();
        let place = match source {
            ProviderSource::File(path) => Place::File(path),
            source if !may_be_asked => return Err(E::Unprotected(source.to_string())),
            ProviderSource::Url(uri) => {
                let (authorization, body) = client_credentials(&settings)?;
                Place::Endpoint(Arc::new(Endpoint {
                    uri,
                    authorization,
                    body,
                    authorities: settings.authorities,
                    state: Mutex::default(),
                }))
            }
        };
        Ok(Self { place })
    }

    /// A token: that in the file as it is now, or one of the provider, which is asked anew when most of its time is over. Whoever
    /// stops waiting stops nothing: the answer is kept for the next one.
    pub async fn token(&self) -> Result<String, BearerSourceError> {
        match &self.place {
            Place::File(path) => read_token(path.clone()).await,
            Place::Endpoint(endpoint) => token_of(endpoint).await,
        }
    }

    /// Notes that a broker did not take a token: another one is asked for, where it is the one that is kept.
    pub fn was_refused(&self, token: &str) {
        if let Place::Endpoint(endpoint) = &self.place {
            endpoint.state.lock().refuse(token, Instant::now());
        }
    }
}

async fn token_of(endpoint: &Arc<Endpoint>) -> Result<String, BearerSourceError> {
    loop {
        let mut asking = match turn_of(endpoint) {
            Turn::Over(answer) => return answer,
            Turn::Pauses(pause) => {
                tokio::time::sleep(pause).await;
                continue;
            }
            Turn::Waits(asking) => asking,
        };
        // It ends without an answer where its runtime does.
        let answered = asking.wait_for(Option::is_some).await;
        if let Some(answer) = answered.ok().and_then(|answer| answer.clone()) {
            return answer;
        }
    }
}

fn turn_of(endpoint: &Arc<Endpoint>) -> Turn {
    let now = Instant::now();
    let mut state = endpoint.state.lock();
    let good = state.good(now);
    if let (Some(good), Some(kept)) = (&good, &state.kept)
        && now < kept.until
    {
        return Turn::Over(Ok(good.clone()));
    }
    // While it is asked for another one, and nobody waits where this one is good. Nobody answers any more whose runtime has ended.
    let turn = |asking: watch::Receiver<Answer>| match good.clone() {
        Some(good) => Turn::Over(Ok(good)),
        None => Turn::Waits(asking),
    };
    let mut asking = state.asking.iter();
    if let Some(asking) = asking.find(|asking| asking.has_changed().is_ok()) {
        return turn(asking.clone());
    }
    if let Some(at) = state.ask_at.filter(|at| now < *at) {
        return match (good, &state.failed) {
            (Some(good), _) => Turn::Over(Ok(good)),
            (None, Some(error)) => Turn::Over(Err(error.clone())),
            (None, None) => Turn::Pauses(at - now),
        };
    }
    let (answered, asking) = watch::channel(None);
    (state.ask_at, state.asking) = (Some(now + ASKED_INTERVAL), Some(asking.clone()));
    let asked = endpoint.clone();
    tokio::spawn(async move {
        let answer = asked.ask().await;
        let answer = asked.state.lock().take_answer(answer);
        answered.send_replace(answer);
    });
    turn(asking)
}

impl Endpoint {
    fn shown(&self) -> String {
        provider::shown(&self.uri)
    }

    async fn ask(&self) -> Result<String, BearerSourceError> {
        use BearerSourceError as E;
        let request = Request::post("/")
            .header(AUTHORIZATION, &self.authorization)
            .header(CACHE_CONTROL, "no-cache")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let question = (request, self.body.clone());
        let answered = provider::ask(&self.uri, self.authorities.as_ref(), question).await;
        let (status, text) = answered.map_err(|error| E::Unreached(self.shown(), error))?;
        match status {
            StatusCode::OK | StatusCode::CREATED => {
                token_in(&text).ok_or_else(|| E::NoToken(self.shown()))
            }
            _ => Err(E::Refused(self.shown(), status, why_in(&text))),
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

/// The token in a file, as Kafka's FileJwtRetriever takes it; a disk that is slow holds up nothing else.
async fn read_token(path: PathBuf) -> Result<String, BearerSourceError> {
    let shown = path.display().to_string();
    let wrong = |why: String| BearerSourceError::File(shown.clone(), why);
    let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
    let text = read.unwrap_or_else(|error| Err(io::Error::other(error)));
    let text = text.map_err(|error| wrong(error.to_string()))?;
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        _ if text.len() > TOKEN_BYTES_MAX => Err(wrong("it is too long".to_owned())),
        token if !is_token(token) => Err(wrong("it is more than a token".to_owned())),
        token => Ok(token.to_owned()),
    }
}

/// A little more than a token may have, at most. A pipe would keep who opens it, so it is none.
fn read_file(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    let mut file = fs::File::open(path)?.take(TOKEN_BYTES_MAX as u64 + 1);
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Whether it can be one: it goes over the wire as it is.
fn is_token(text: &str) -> bool {
    let is_graphic = text.bytes().all(|letter| letter.is_ascii_graphic());
    is_graphic && (1..=TOKEN_BYTES_MAX).contains(&text.len())
}

/// The token in an answer (Kafka's JwtResponseParser).
fn token_in(answer: &str) -> Option<String> {
    let read: serde_json::Value = serde_json::from_str(answer).ok()?;
    let mut found = ["access_token", "id_token"].iter().filter_map(|name| {
        let token = read.get(name)?.as_str()?.trim();
        is_token(token).then(|| token.to_owned())
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
            said.chars().take(SAID_LETTERS_MAX).collect::<String>()
        ),
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

    #[tokio::test]
    async fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let source = BearerSource::new(settings(&format!("file://{}", pipe.display()))).unwrap();
        let error = source.token().await.unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn what_is_said_of_a_url_has_neither_user_nor_query() {
        for wrong in [
            "https://me:planted@id.example/t",
            "ftp://id.example/t?planted",
            "http://10.0.0.1/t?code=planted",
        ] {
            let why = refused(settings(wrong));
            assert!(why.contains(URL_KEY) && !why.contains("planted"), "{why}");
        }
        let source = BearerSource::new(settings("https://id.example/t?code=planted")).unwrap();
        assert_eq!(format!("{source:?}"), "BearerSource(https://id.example/t)");
    }
}
