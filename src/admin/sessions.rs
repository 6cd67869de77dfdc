//! Sessions of visitors who logged in: bounded in number and in time, and each that of one who is who it says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// A session ends after this.
pub(super) const SESSION_MAX: Duration = Duration::from_secs(12 * 3600);
/// Sessions at a time of one user, or of the token; its oldest ends when another one begins.
const SESSIONS_OF_ONE_MAX: usize = 64;
/// And of all together; the oldest ends when another one begins.
const SESSIONS_MAX: usize = 1024;

/// Who visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// Somebody who need not say it.
    Nobody,
    /// Who has the dashboard's token.
    Token,
    /// A user.
    User {
        /// Its name.
        name: Arc<str>,
        /// What it showed.
        shown: Evidence,
    },
}

/// What a user showed to say who it is, as far as it has to be known later on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Its password: what stands for that.
    Password(Vec<u8>),
    /// A delegation token of its own, by its id.
    DelegationToken(Arc<str>),
    /// A token of an identity provider, good until then.
    BearerToken(SystemTime),
}

struct Open {
    id: String,
    who: Who,
    begun: Instant,
    used: Instant,
}

/// See the module's documentation.
pub(super) struct Sessions {
    idle_max: Duration,
    open: Mutex<VecDeque<Open>>,
}

/// 244 random bits.
pub(super) fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

impl Who {
    /// Whether it is the same user, or the token.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::User { name, .. }, Self::User { name: other, .. }) => name == other,
            _ => self == other,
        }
    }
}

impl Sessions {
    /// They end when nothing is asked for so long.
    pub(super) fn new(idle_max: Duration) -> Self {
        Self {
            idle_max,
            open: Mutex::default(),
        }
    }

    fn is_alive(&self, session: &Open, now: Instant) -> bool {
        now - session.begun < SESSION_MAX && now - session.used < self.idle_max
    }

    /// Whose session it is, where it goes on; whether it is used is noted on `used`.
    pub(super) fn find(&self, id: &str, now: Instant, used: bool) -> Option<Who> {
        let mut open = self.open.lock();
        let is_it = |known: &&mut Open| bool::from(known.id.as_bytes().ct_eq(id.as_bytes()));
        let found = open.iter_mut().find(is_it)?;
        if !self.is_alive(found, now) {
            return None;
        }
        if used {
            found.used = now;
        }
        Some(found.who.clone())
    }

    /// Opens one; its id.
    pub(super) fn open(&self, who: Who, now: Instant) -> String {
        let id = random();
        let mut open = self.open.lock();
        open.retain(|session| self.is_alive(session, now));
        let own = open.iter().filter(|session| session.who.is_same(&who));
        if own.count() >= SESSIONS_OF_ONE_MAX
            && let Some(oldest) = open.iter().position(|session| session.who.is_same(&who))
        {
            open.remove(oldest);
        }
        if open.len() >= SESSIONS_MAX {
            open.pop_front();
        }
        open.push_back(Open {
            id: id.clone(),
            who,
            begun: now,
            used: now,
        });
        id
    }

    /// Ends one.
    pub(super) fn close(&self, id: &str) {
        self.open.lock().retain(|session| session.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(600);

    fn user(name: &str) -> Who {
        Who::User {
            name: name.into(),
            shown: Evidence::Password(vec![1]),
        }
    }

    #[test]
    fn a_session_ends_when_it_is_not_used_and_when_it_is_old() {
        let sessions = Sessions::new(IDLE);
        let begun = Instant::now();
        let id = sessions.open(user("a"), begun);
        let mut now = begun;
        while now - begun < SESSION_MAX {
            assert_eq!(sessions.find(&id, now, true), Some(user("a")));
            now += IDLE - Duration::from_secs(1);
        }
        assert_eq!(sessions.find(&id, now, true), None);
        let id = sessions.open(Who::Token, begun);
        // Looking at it is no use of it.
        assert!(sessions.find(&id, begun + IDLE / 2, false).is_some());
        assert_eq!(sessions.find(&id, begun + IDLE, true), None);
    }

    #[test]
    fn who_opens_many_ends_its_own() {
        let sessions = Sessions::new(IDLE);
        let now = Instant::now();
        let other = sessions.open(user("b"), now);
        let first = sessions.open(user("a"), now);
        for _ in 0..SESSIONS_OF_ONE_MAX {
            sessions.open(user("a"), now);
        }
        assert_eq!(sessions.find(&first, now, false), None);
        assert_eq!(sessions.find(&other, now, false), Some(user("b")));
        for n in 0..SESSIONS_MAX {
            sessions.open(user(&n.to_string()), now);
        }
        assert_eq!(sessions.open.lock().len(), SESSIONS_MAX);
        assert_eq!(sessions.find(&other, now, false), None);
    }
}
