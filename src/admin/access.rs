//! Who may do what on the dashboard's port.
//!
//! Actions need the token: as `Authorization: Bearer`, as the field `token` of a form, or as a session that was opened with
//! it (a cookie that scripts cannot read and that other sites' pages cannot send). They must not come from another site:
//! a browser says where a request comes from in `Sec-Fetch-Site` and `Origin`, and what says that it comes from elsewhere
//! is refused whatever else it brings. Reading needs the token where `dashboard.read.token` says so.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::config::Config;

/// The file in the first data directory that holds a token that was made here.
pub(super) const TOKEN_FILE: &str = "dashboard.token";
/// The session's cookie, before what tells the broker: browsers send the cookies of all ports of a host.
const COOKIE: &str = "metaq_session_";
/// A session ends after this.
pub(super) const SESSION_MAX: Duration = Duration::from_secs(12 * 3600);
/// Sessions at a time; the oldest ends when another one begins.
const SESSIONS_MAX: usize = 64;
/// Who brings a wrong token is answered after this.
pub(super) const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(300);
/// A shorter token in the configuration is worth a warning.
const TOKEN_CHARS_WANTED: usize = 16;

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

/// The token, and who showed it.
pub(super) struct Access {
    token: String,
    pub(super) source: TokenSource,
    read_needs_token: bool,
    /// Name of the session's cookie.
    cookie: String,
    sessions: Mutex<VecDeque<(String, Instant)>>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this needs the dashboard's token: metaq start printed it, or dashboard.token sets it")]
    NoToken,
    #[error("the token is not the dashboard's")]
    WrongToken,
    #[error("the request comes from a page of another site")]
    OtherSite,
}

/// The cookie of a broker's dashboard.
pub(super) fn cookie_of(cluster_id: &str, broker_id: i32) -> String {
    let checksum = crc32c::crc32c(format!("{cluster_id}/{broker_id}").as_bytes());
    format!("{COOKIE}{checksum:08x}")
}

/// 244 random bits.
fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

impl Access {
    /// Takes the configured token, or the one of an earlier start, or makes one. `cookie` is the name of the session's.
    pub(super) fn open(config: &Config, cookie: String) -> io::Result<Self> {
        let (token, source) = match config.text("dashboard.token") {
            "" => kept_token(&config.data_paths())?,
            token => (token.to_owned(), TokenSource::Configuration),
        };
        if token.chars().count() < TOKEN_CHARS_WANTED {
            tracing::warn!(
                "dashboard.token has fewer than {TOKEN_CHARS_WANTED} characters and may be guessed"
            );
        }
        Ok(Self {
            token,
            source,
            read_needs_token: config.flag("dashboard.read.token") || config.is_secured(),
            cookie,
            sessions: Mutex::default(),
        })
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// In a time that does not tell how much of it is right.
    fn is_token(&self, given: &str) -> bool {
        given.as_bytes().ct_eq(self.token.as_bytes()).into()
    }

    /// Whether the request shows that it may do something. `form_token` is what a form brought.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        form_token: Option<&str>,
    ) -> Result<(), Refusal> {
        let bearer = headers.get(header::AUTHORIZATION);
        let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let form_token = form_token.filter(|token| !token.is_empty());
        if let Some(given) = bearer.or(form_token) {
            return match self.is_token(given.trim()) {
                true => Ok(()),
                false => Err(Refusal::WrongToken),
            };
        }
        match self.session_of(headers) {
            Some(id) if self.is_session(id) => Ok(()),
            _ => Err(Refusal::NoToken),
        }
    }

    /// Whether the request may change something.
    pub(super) fn check_action(
        &self,
        headers: &HeaderMap,
        form_token: Option<&str>,
    ) -> Result<(), Refusal> {
        match comes_from_elsewhere(headers) {
            true => Err(Refusal::OtherSite),
            false => self.check(headers, form_token),
        }
    }

    /// Whether the request may read.
    pub(super) fn check_reading(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self.read_needs_token {
            true => self.check(headers, None),
            false => Ok(()),
        }
    }

    /// Whether the visitor has logged in. A token that comes along is not looked at here: a page would tell at once, and to
    /// the one who asks, whether it is right.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        self.session_of(headers)
            .is_some_and(|id| self.is_session(id))
    }

    fn is_session(&self, id: &str) -> bool {
        let sessions = self.sessions.lock();
        let is_it = |(known, until): &(String, Instant)| {
            *until > Instant::now() && bool::from(known.as_bytes().ct_eq(id.as_bytes()))
        };
        sessions.iter().any(is_it)
    }

    /// Opens a session; its cookie.
    pub(super) fn open_session(&self) -> String {
        let id = random();
        let mut sessions = self.sessions.lock();
        let now = Instant::now();
        sessions.retain(|(_, until)| *until > now);
        if sessions.len() >= SESSIONS_MAX {
            sessions.pop_front();
        }
        sessions.push_back((id.clone(), now + SESSION_MAX));
        let seconds = SESSION_MAX.as_secs();
        let name = &self.cookie;
        format!("{name}={id}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}")
    }

    /// Ends a session; the cookie that takes it from the browser.
    pub(super) fn close_session(&self, headers: &HeaderMap) -> String {
        if let Some(id) = self.session_of(headers) {
            self.sessions.lock().retain(|(known, _)| known != id);
        }
        let name = &self.cookie;
        format!("{name}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0")
    }

    fn session_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|line| line.split(';'));
        let name = self.cookie.as_str();
        cookies.find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
    }
}

/// Whether a browser says that another site's page sends this. Programs that are no browsers say nothing.
fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
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

    fn access(settings: &[&str]) -> Access {
        let settings: Vec<String> = settings.iter().map(|text| (*text).to_owned()).collect();
        Access::open(&Config::load(None, &settings).unwrap(), "c".to_owned()).unwrap()
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
        let first = access(&[&data]);
        let second = access(&[&data]);
        assert_eq!(
            (first.source, second.source),
            (TokenSource::New, TokenSource::File)
        );
        assert_eq!(first.token(), second.token());
        assert!(first.token().len() >= 60);
        let mode = std::fs::metadata(dir.path().join(TOKEN_FILE)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_token_is_taken_as_bearer_form_field_or_session_and_nothing_else_is() {
        let access = access(&["dashboard.token=open sesame, please"]);
        let none = headers(&[]);
        assert_eq!(access.check(&none, None), Err(Refusal::NoToken));
        assert_eq!(access.check(&none, Some("open")), Err(Refusal::WrongToken));
        assert_eq!(access.check(&none, Some("open sesame, please")), Ok(()));
        let bearer = headers(&[("authorization", "Bearer open sesame, please")]);
        assert_eq!(access.check(&bearer, None), Ok(()));
        let cookie = access.open_session();
        let cookie = cookie.split(';').next().unwrap();
        let known = headers(&[("cookie", &format!("a=b; {cookie}"))]);
        assert_eq!(access.check(&known, None), Ok(()));
        access.close_session(&known);
        assert_eq!(access.check(&known, None), Err(Refusal::NoToken));
    }

    #[test]
    fn what_another_site_sends_is_refused_with_any_token() {
        let access = access(&["dashboard.token=0123456789abcdef"]);
        let token = ("authorization", "Bearer 0123456789abcdef");
        let host = ("host", "broker:8120");
        for elsewhere in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let asked = headers(&[token, host, elsewhere]);
            assert_eq!(access.check_action(&asked, None), Err(Refusal::OtherSite));
        }
        for own in [
            ("origin", "http://broker:8120"),
            ("sec-fetch-site", "same-origin"),
        ] {
            assert_eq!(
                access.check_action(&headers(&[token, host, own]), None),
                Ok(())
            );
        }
        assert_eq!(access.check_action(&headers(&[token, host]), None), Ok(()));
    }

    #[test]
    fn sessions_are_bounded() {
        let access = access(&["dashboard.token=0123456789abcdef"]);
        for _ in 0..SESSIONS_MAX * 2 {
            access.open_session();
        }
        assert_eq!(access.sessions.lock().len(), SESSIONS_MAX);
    }
}
