//! Who visits the dashboard's port: who has its token, or a user with password.
//!
//! The dashboard's token comes as `Authorization: Bearer`, as the field `token` of a form, or as a session that was opened with it; where
//! clients have to say who they are (`Config::is_secured`), users come as `Authorization: Basic` or as a session, with a
//! password or with a delegation token (its id, and its HMAC in base64: KIP-48), and where a listener has OAUTHBEARER with an
//! identity provider's token in the place of the dashboard's. A session is
//! a cookie that scripts cannot read and that other sites' pages cannot send. Actions must not come from another site: a
//! browser says where a request comes from in `Sec-Fetch-Site` and `Origin`, and what says that it comes from elsewhere is
//! refused whatever else it brings.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, header};
use data_encoding::BASE64;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::attempts::Attempts;
use super::sessions::{Evidence, SESSION_MAX, Sessions, Who, random};
use crate::config::Config;
use crate::security::{BearerTokens, TokenError, is_password_of};
use crate::users::LiveUsers;

/// The file in the first data directory that holds a token that was made here.
pub(super) const TOKEN_FILE: &str = "dashboard.token";
/// The session's cookie, before what tells the broker: browsers send the cookies of all ports of a host.
const COOKIE: &str = "metaq_session_";
/// Who brings a wrong token or password is answered after this.
pub(super) const WRONG_PAUSE: Duration = Duration::from_millis(300);
/// A shorter token in the configuration is worth a warning.
const TOKEN_CHARS_WANTED: usize = 16;
/// Passwords that are looked at at a time: each takes a processor for milliseconds.
const CHECKS_MAX: usize = 2;

/// Where the token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// `dashboard.token`.
    Configuration,
    /// The file, from an earlier start.
    File,
    /// Made now, and kept in the file.
    New,
}

/// The token, the users, and who logged in.
pub(super) struct Access {
    token: String,
    pub(super) source: TokenSource,
    read_needs_token: bool,
    /// There where users are asked for.
    users: Option<Arc<LiveUsers>>,
    /// Whose tokens users may bring, where they may.
    provider: Option<Arc<BearerTokens>>,
    /// Name of the session's cookie.
    cookie: String,
    /// Whether the cookie goes over TLS alone.
    has_tls: bool,
    sessions: Sessions,
    attempts: Attempts,
    checks: Semaphore,
}

/// What a dashboard's access is made of, beside the configuration.
pub(super) struct AccessParts {
    /// Name of the session's cookie.
    pub(super) cookie: String,
    /// Whether the port has TLS.
    pub(super) has_tls: bool,
    /// Who may authenticate.
    pub(super) users: Option<Arc<LiveUsers>>,
    /// Whose bearer tokens are taken, beside the dashboard's own.
    pub(super) provider: Option<Arc<BearerTokens>>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this needs the dashboard's token: metaq start printed it, or dashboard.token sets it")]
    NoToken,
    #[error("log in as a user, or with the dashboard's token")]
    NotKnown,
    #[error("the token is not the dashboard's")]
    WrongToken,
    /// What is wrong with it is for the operator alone.
    #[error("the token is neither the dashboard's nor one of the identity provider that is taken")]
    BearerToken(TokenError),
    #[error("user or password is wrong")]
    WrongPassword,
    #[error("too many logins from this address failed: wait {0} s")]
    TooMany(u64),
    #[error("the request comes from a page of another site")]
    OtherSite,
}

/// What the operator is told is cut, letters: visitors have a say in it.
const WHY_LETTERS_MAX: usize = 200;

impl Refusal {
    /// Whether somebody tried to be who it is not.
    pub(super) fn is_failure(&self) -> bool {
        use Refusal as R;
        matches!(
            self,
            R::WrongToken | R::BearerToken(_) | R::WrongPassword | R::TooMany(_)
        )
    }

    /// What the operator is told of it.
    pub(super) fn why(&self) -> String {
        let why = match self {
            Self::BearerToken(error) => format!("bearer token: {error}"),
            other => other.to_string(),
        };
        why.chars().take(WHY_LETTERS_MAX).collect()
    }
}

/// Who is known, and by which session, where it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) who: Who,
    pub(super) session: Option<String>,
}

impl From<Who> for Known {
    fn from(who: Who) -> Self {
        Self { who, session: None }
    }
}

/// The cookie of a broker's dashboard.
pub(super) fn cookie_of(cluster_id: &str, broker_id: i32) -> String {
    let checksum = crc32c::crc32c(format!("{cluster_id}/{broker_id}").as_bytes());
    format!("{COOKIE}{checksum:08x}")
}

/// What a request shows in its header.
enum Shown<'a> {
    Token(&'a str),
    Password(String, String),
    Nothing,
}

impl<'a> Shown<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let value = headers.get(header::AUTHORIZATION);
        let value = value.and_then(|value| value.to_str().ok());
        let Some((scheme, rest)) = value.and_then(|value| value.split_once(' ')) else {
            return Self::Nothing;
        };
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Self::Token(rest.trim()),
            "basic" => {
                let decoded = BASE64.decode(rest.trim().as_bytes()).unwrap_or_default();
                let text = String::from_utf8(decoded).unwrap_or_default();
                let (user, password) = text.split_once(':').unwrap_or_default();
                Self::Password(user.to_owned(), password.to_owned())
            }
            _ => Self::Nothing,
        }
    }
}

impl Access {
    /// Takes the configured token, or the one of an earlier start, or makes one.
    pub(super) fn open(config: &Config, parts: AccessParts) -> io::Result<Self> {
        let (token, source) = match config.text("dashboard.token") {
            "" => kept_token(&config.data_paths())?,
            token => (token.to_owned(), TokenSource::Configuration),
        };
        if token.chars().count() < TOKEN_CHARS_WANTED {
            tracing::warn!(
                "dashboard.token has fewer than {TOKEN_CHARS_WANTED} characters and may be guessed"
            );
        }
        let idle_ms = config.number("dashboard.session.idle.ms").unsigned_abs();
        Ok(Self {
            token,
            source,
            read_needs_token: config.flag("dashboard.read.token"),
            users: parts.users.filter(|_| config.is_secured()),
            provider: parts.provider.filter(|_| config.is_secured()),
            cookie: parts.cookie,
            has_tls: parts.has_tls,
            sessions: Sessions::new(Duration::from_millis(idle_ms)),
            attempts: Attempts::default(),
            checks: Semaphore::new(CHECKS_MAX),
        })
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Whether users may log in, and everybody has to.
    pub(super) fn takes_users(&self) -> bool {
        self.users.is_some()
    }

    /// Whether an identity provider's tokens are taken.
    pub(super) fn takes_bearer_tokens(&self) -> bool {
        self.provider.is_some()
    }

    /// Who asks to read or to act; nobody where that is not told and need not be. Where everybody may read, a token that comes
    /// along is not looked at: a page would tell at once whether it is right.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
        from: IpAddr,
        acts: bool,
    ) -> Result<Known, Refusal> {
        let is_asked = acts || self.takes_users() || self.read_needs_token;
        let known = match Shown::of(headers) {
            _ if !is_asked => self.of_session(headers),
            Shown::Token(token) => Some(self.check_token(token, from)?.into()),
            Shown::Password(user, password) if self.takes_users() => {
                Some(self.check_password(&user, password, from).await?.into())
            }
            _ => self.of_session(headers),
        };
        match known {
            Some(known) => Ok(known),
            None if self.takes_users() => Err(Refusal::NotKnown),
            None if self.read_needs_token => Err(Refusal::NoToken),
            None => Ok(Who::Nobody.into()),
        }
    }

    /// Who logged in, by the session that a request belongs to.
    pub(super) fn of_session(&self, headers: &HeaderMap) -> Option<Known> {
        let id = self.session_of(headers)?;
        let who = self.sessions.find(id, Instant::now(), true)?;
        let session = Some(id.to_owned());
        self.is_who(&who).then_some(Known { who, session })
    }

    /// Whether somebody is still who it was: the user is there and has the same password, its token is good, the session goes
    /// on.
    pub(super) fn is_still(&self, known: &Known) -> bool {
        let goes_on = |id: &String| self.sessions.find(id, Instant::now(), false).is_some();
        self.is_who(&known.who) && known.session.as_ref().is_none_or(goes_on)
    }

    fn is_who(&self, who: &Who) -> bool {
        let Who::User { name, shown } = who else {
            return true;
        };
        let users = self.users.as_ref();
        users.is_some_and(|users| match shown {
            Evidence::Password(mark) => users.mark_of(name).as_ref() == Some(mark),
            Evidence::DelegationToken(id) => users.tokens().left(id).is_some(),
            Evidence::BearerToken(expires) => SystemTime::now() < *expires,
        })
    }

    /// Whether a token is the dashboard's, in a time that does not tell how much of it is right; or whom an identity provider
    /// says that it is about. One of a provider that is not taken, such as an expired one that a program goes on to send, is
    /// no guess, and does not count as one.
    pub(super) fn check_token(&self, given: &str, from: IpAddr) -> Result<Who, Refusal> {
        self.check_attempts(from)?;
        let is_own = bool::from(given.as_bytes().ct_eq(self.token.as_bytes()));
        let checked = match &self.provider {
            _ if is_own => Ok(Who::Token),
            None => Err(Refusal::WrongToken),
            Some(provider) => of_provider(provider, given).map_err(Refusal::BearerToken),
        };
        checked.inspect_err(|refusal| match refusal {
            // A known key has signed it.
            Refusal::BearerToken(TokenError::Claim(..) | TokenError::Scope(_)) => {}
            _ => self.attempts.failed(from, Instant::now()),
        })
    }

    /// Whether a password is a user's, or what logs in with a delegation token.
    pub(super) async fn check_password(
        &self,
        user: &str,
        password: String,
        from: IpAddr,
    ) -> Result<Who, Refusal> {
        let Some(users) = self.users.clone() else {
            return Err(Refusal::WrongPassword);
        };
        let Ok(_turn) = self.checks.acquire().await else {
            return Err(Refusal::WrongPassword);
        };
        self.check_attempts(from)?;
        if let Some(owner) = users.tokens().owner_of(user, &password) {
            return Ok(Who::User {
                name: owner.into(),
                shown: Evidence::DelegationToken(user.into()),
            });
        }
        // Before the password is looked at: it may change meanwhile.
        let mark = users.mark_of(user);
        let name: Arc<str> = user.into();
        let asked = name.clone();
        let checked =
            tokio::task::spawn_blocking(move || is_password_of(&*users, &asked, &password));
        match (checked.await, mark) {
            (Ok(true), Some(mark)) => Ok(Who::User {
                name,
                shown: Evidence::Password(mark),
            }),
            _ => {
                self.attempts.failed(from, Instant::now());
                Err(Refusal::WrongPassword)
            }
        }
    }

    fn check_attempts(&self, from: IpAddr) -> Result<(), Refusal> {
        match self.attempts.wait_of(from, Instant::now()) {
            None => Ok(()),
            Some(wait) => Err(Refusal::TooMany(wait.as_secs() + 1)),
        }
    }

    fn set_cookie(&self, id: &str, seconds: u64) -> String {
        let name = &self.cookie;
        let secure = if self.has_tls { "; Secure" } else { "" };
        format!("{name}={id}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}")
    }

    /// Opens a session; its cookie.
    pub(super) fn open_session(&self, who: Who) -> String {
        let id = self.sessions.open(who, Instant::now());
        self.set_cookie(&id, SESSION_MAX.as_secs())
    }

    /// Ends a session; the cookie that takes it from the browser.
    pub(super) fn close_session(&self, headers: &HeaderMap) -> String {
        if let Some(id) = self.session_of(headers) {
            self.sessions.close(id);
        }
        self.set_cookie("", 0)
    }

    fn session_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|line| line.split(';'));
        let name = self.cookie.as_str();
        cookies.find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
    }
}

/// Whom a token of an identity provider is about. Listeners allow for clocks that differ; what has expired by this broker's
/// clock opens nothing here, as a session with it would be over at once.
fn of_provider(provider: &BearerTokens, token: &str) -> Result<Who, TokenError> {
    let bearer = provider.verify(token)?;
    match SystemTime::now() < bearer.expires {
        true => Ok(Who::User {
            name: bearer.user.into(),
            shown: Evidence::BearerToken(bearer.expires),
        }),
        false => Err(TokenError::Claim("exp".to_owned(), "the token has expired")),
    }
}

/// Whether a browser says that another site's page sends this. Programs that are no browsers say nothing.
pub(super) fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site"))
        && !matches!(site, "same-origin" | "none")
    {
        return true;
    }
    let Some(origin) = text(header::ORIGIN) else {
        return false;
    };
    let origin = origin.split_once("://").map(|(_, host)| host);
    let host = text(header::HOST);
    origin.is_none() || origin != host
}

/// The token of a broker with this configuration, where it is set or was made.
pub fn token_of(config: &Config) -> Option<String> {
    let set = Some(config.text("dashboard.token").to_owned()).filter(|token| !token.is_empty());
    set.or_else(|| {
        let kept = std::fs::read_to_string(config.data_paths().first()?.join(TOKEN_FILE)).ok()?;
        Some(kept.trim().to_owned()).filter(|token| !token.is_empty())
    })
}

/// The token of the file in the first data directory; made when there is none.
fn kept_token(paths: &[std::path::PathBuf]) -> io::Result<(String, TokenSource)> {
    let Some(dir) = paths.first() else {
        return Ok((random(), TokenSource::New));
    };
    let path = dir.join(TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(kept) if !kept.trim().is_empty() => {
            return Ok((kept.trim().to_owned(), TokenSource::File));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&path, error)),
        _ => {}
    }
    let token = random();
    write_private(&path, &token).map_err(|error| named(&path, error))?;
    Ok((token, TokenSource::New))
}

/// Readable by its owner alone from the first moment on.
fn write_private(path: &Path, token: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    writeln!(options.open(path)?, "{token}")
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Shares it with handlers.
pub(super) type SharedAccess = Arc<Access>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn access(settings: &[&str], has_tls: bool) -> Access {
        let settings: Vec<String> = settings.iter().map(|text| (*text).to_owned()).collect();
        let parts = AccessParts {
            cookie: "c".to_owned(),
            has_tls,
            users: None,
            provider: None,
        };
        Access::open(&Config::load(None, &settings).unwrap(), parts).unwrap()
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_that_was_made_is_kept_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = format!("dataPath={}", dir.path().display());
        let first = access(&[&data], false);
        let second = access(&[&data], false);
        assert_eq!(
            (first.source, second.source),
            (TokenSource::New, TokenSource::File)
        );
        assert_eq!(first.token(), second.token());
        assert!(first.token().len() >= 60);
        let mode = std::fs::metadata(dir.path().join(TOKEN_FILE)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn the_token_is_taken_as_bearer_or_session_and_nothing_else_is() {
        let access = access(&["dashboard.token=open sesame, please"], false);
        let who = async |headers: &HeaderMap| {
            let known = access.identify(headers, FROM, true).await;
            known.map(|known| known.who)
        };
        assert_eq!(who(&headers(&[])).await, Ok(Who::Nobody));
        let bearer = headers(&[("authorization", "Bearer open sesame, please")]);
        assert_eq!(who(&bearer).await, Ok(Who::Token));
        let wrong = headers(&[("authorization", "Bearer open")]);
        assert_eq!(who(&wrong).await, Err(Refusal::WrongToken));
        // Users are not asked for here.
        let basic = headers(&[("authorization", "Basic YTpi")]);
        assert_eq!(who(&basic).await, Ok(Who::Nobody));
        let cookie = access.open_session(Who::Token);
        let cookie = cookie.split(';').next().unwrap();
        let known = headers(&[("cookie", &format!("a=b; {cookie}"))]);
        assert_eq!(who(&known).await, Ok(Who::Token));
        access.close_session(&known);
        assert_eq!(who(&known).await, Ok(Who::Nobody));
    }

    #[tokio::test]
    async fn an_address_with_too_many_wrong_tokens_is_not_listened_to() {
        let access = access(&["dashboard.token=0123456789abcdef"], false);
        let right = headers(&[("authorization", "Bearer 0123456789abcdef")]);
        for _ in 0..super::super::attempts::FAILED_MAX {
            assert!(access.identify(&right, FROM, true).await.is_ok());
            assert_eq!(access.check_token("x", FROM), Err(Refusal::WrongToken));
        }
        let refused = access.identify(&right, FROM, true).await;
        assert!(matches!(refused, Err(Refusal::TooMany(1..=61))));
        let elsewhere = IpAddr::from([10, 0, 0, 1]);
        assert!(access.identify(&right, elsewhere, true).await.is_ok());
    }

    #[test]
    fn a_cookie_is_for_its_site_alone_and_under_tls_for_nothing_else() {
        let attributes = "; HttpOnly; SameSite=Strict; Path=/; Max-Age=43200";
        let plain = access(&["dashboard.token=0123456789abcdef"], false).open_session(Who::Token);
        assert!(plain.ends_with(attributes), "{plain}");
        let tls = access(&["dashboard.token=0123456789abcdef"], true).open_session(Who::Token);
        assert!(tls.ends_with(&format!("{attributes}; Secure")), "{tls}");
    }

    #[test]
    fn what_another_site_sends_is_seen() {
        let host = ("host", "broker:8120");
        for elsewhere in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(comes_from_elsewhere(&headers(&[host, elsewhere])));
        }
        for own in [
            ("origin", "http://broker:8120"),
            ("sec-fetch-site", "same-origin"),
        ] {
            assert!(!comes_from_elsewhere(&headers(&[host, own])));
        }
        assert!(!comes_from_elsewhere(&headers(&[host])));
    }
}
