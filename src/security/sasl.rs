//! One connection's SASL exchanges: SaslHandshake chooses a mechanism, SaslAuthenticate carries its messages (KIP-43, KIP-152),
//! and a connection that is authenticated may do it again (KIP-368), as the same user by the same mechanism. By SCRAM with
//! `tokenauth=true` a client proves to have a delegation token, and is the token's owner (KIP-48).

use std::time::SystemTime;

use super::bearer::BearerTokens;
use super::bearer_message::{InitialResponse, is_acknowledgement, refusal};
use super::scram::{Credential, ScramMechanism};
use super::scram_exchange::{ClientFirst, ScramError, ScramServer};

/// The longest user name or password of PLAIN, bytes.
const PLAIN_BYTES_MAX: usize = 4096;

/// A mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// User and password as they are (RFC 4616).
    Plain,
    /// A proof of the password.
    Scram(ScramMechanism),
    /// A token of an identity provider (RFC 7628).
    OAuthBearer,
}

impl Mechanism {
    /// All there are.
    pub const ALL: [Self; 4] = [
        Self::Plain,
        Self::Scram(ScramMechanism::Sha256),
        Self::Scram(ScramMechanism::Sha512),
        Self::OAuthBearer,
    ];

    /// As SaslHandshake names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(mechanism) => mechanism.name(),
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// The mechanism of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// A delegation token that somebody may log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLogin {
    /// Who logs in with it.
    pub owner: String,
    /// What SCRAM needs to know of it.
    pub credential: Credential,
}

/// Who has which credentials.
pub trait Users: Send + Sync {
    /// What is kept of a user's password for a mechanism.
    fn credential(&self, user: &str, mechanism: ScramMechanism) -> Option<Credential>;

    /// A delegation token that is good, by its id. It may take milliseconds.
    fn token(&self, id: &str, mechanism: ScramMechanism) -> Option<TokenLogin>;

    /// Something that stays the same, on all brokers, and that nobody else knows.
    fn secret(&self) -> &[u8];

    /// Whether a credential is that of a password, as [`Credential::is_of_password`], which takes milliseconds.
    fn is_of_password(
        &self,
        mechanism: ScramMechanism,
        credential: &Credential,
        password: &str,
    ) -> bool {
        credential.is_of_password(mechanism, password)
    }
}

/// Who a client has proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// The user.
    pub user: String,
    /// What it was proved with.
    pub proof: Proof,
}

/// What a client has proved with who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A password that [`Users`] has a credential of.
    Password,
    /// A delegation token, by its id; it makes a client its owner.
    DelegationToken(String),
    /// A token of an identity provider, good until then.
    BearerToken(SystemTime),
}

impl Authenticated {
    fn by_password(user: String) -> Self {
        Self {
            user,
            proof: Proof::Password,
        }
    }
}

/// What a message brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The client has to answer this.
    Continue(Vec<u8>),
    /// The client's token is not taken; it is to say that it has read the answer.
    Refused {
        /// What it is told.
        answer: String,
        /// What is wrong with the token, for the operator.
        why: String,
    },
    /// The client is known; it gets the message.
    Done {
        /// Who it is.
        who: Authenticated,
        /// What is sent.
        message: Vec<u8>,
    },
}

/// Why authentication failed, as clients are told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// As SaslServerAuthenticator says it for whatever is wrong within a mechanism.
    #[error(
        "Authentication failed during {phase} due to invalid credentials with SASL mechanism {mechanism}"
    )]
    Credentials {
        /// The mechanism.
        mechanism: &'static str,
        /// `authentication` or `re-authentication`.
        phase: &'static str,
    },
    /// As PlainSaslServer says it.
    #[error("Authentication failed: Invalid username or password")]
    Password,
    /// No user in a message of PLAIN.
    #[error("Authentication failed: username not specified")]
    NoUser,
    /// No password in it.
    #[error("Authentication failed: password not specified")]
    NoPassword,
    /// It wants to be somebody else.
    #[error(
        "Authentication failed: Client requested an authorization id that is different from username"
    )]
    AnotherIdentity,
    /// Not what RFC 4616 says.
    #[error("Invalid SASL/PLAIN response: expected 3 tokens, got {0}")]
    Tokens(usize),
    /// A token that was not taken, as its client was told before.
    #[error("{0}")]
    Token(String),
    /// A token of somebody else than the client wants to be.
    #[error(
        "Authentication failed: Client requested an authorization id ({asked}) that is different from the token's principal name ({named})"
    )]
    OtherToken {
        /// Who it wants to be.
        asked: String,
        /// Whom the token names.
        named: String,
    },
    /// It comes back as somebody else (KIP-368).
    #[error("Cannot change principals during re-authentication from User.{from}: User.{to}")]
    AnotherUser {
        /// Who it was.
        from: String,
        /// Who it wants to be.
        to: String,
    },
}

/// How far an exchange is.
#[derive(Debug)]
enum Stage {
    /// No mechanism is chosen.
    Idle,
    /// Its first message is to come.
    Chosen(Mechanism),
    /// Its last message is to come.
    Proving {
        mechanism: ScramMechanism,
        user: String,
        token: Option<String>,
        server: Box<ScramServer>,
    },
    /// Its token was not taken, and it is to say that it has read why.
    Refused(String),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Exchange {
    stage: Stage,
    /// Messages come without requests around them (SaslHandshake v0).
    is_raw: bool,
    /// Who the connection belongs to since its first authentication.
    known: Option<(String, Mechanism)>,
    /// Who it wants to be, as far as it is of a length that means well.
    tried: String,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            stage: Stage::Idle,
            is_raw: false,
            known: None,
            tried: String::new(),
        }
    }
}

/// A longer reason is cut, letters: clients have a say in it.
const REASON_LETTERS_MAX: usize = 200;
/// A longer name of a user who is tried is cut, letters.
const TRIED_LETTERS_MAX: usize = 256;

/// A message of PLAIN.
struct Password {
    user: String,
    password: String,
    /// It wants to be somebody else.
    is_other: bool,
}

impl Exchange {
    /// Chooses a mechanism; whether it may: a connection stays with its first one.
    pub fn choose(&mut self, mechanism: Mechanism, is_raw: bool) -> bool {
        self.is_raw = is_raw;
        let may = self
            .known
            .as_ref()
            .is_none_or(|(_, known)| *known == mechanism);
        self.stage = match may {
            true => Stage::Chosen(mechanism),
            false => Stage::Idle,
        };
        may
    }

    /// Takes it away to work on it; what stays takes no message, and knows whose the connection is.
    pub fn take(&mut self) -> Self {
        let stays = Self {
            known: self.known.clone(),
            ..Self::default()
        };
        std::mem::replace(self, stays)
    }

    /// Whether the next message comes without a request around it.
    pub fn expects_token(&self) -> bool {
        self.is_raw && self.mechanism().is_some()
    }

    /// The mechanism that was chosen and is not done.
    pub fn mechanism(&self) -> Option<Mechanism> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Chosen(mechanism) => Some(*mechanism),
            Stage::Proving { mechanism, .. } => Some(Mechanism::Scram(*mechanism)),
            Stage::Refused(_) => Some(Mechanism::OAuthBearer),
        }
    }

    /// The user that the last message which named one wants to be; empty where none did.
    pub fn tried(&self) -> &str {
        &self.tried
    }

    fn tries(&mut self, user: &str) {
        self.tried = user.chars().take(TRIED_LETTERS_MAX).collect();
    }

    fn phase(&self) -> &'static str {
        match self.known {
            None => "authentication",
            Some(_) => "re-authentication",
        }
    }

    /// Takes a message. `None` where no mechanism was chosen. It may take milliseconds. Without `tokens` no bearer token is taken.
    pub fn on(
        &mut self,
        message: &[u8],
        users: &dyn Users,
        tokens: Option<&BearerTokens>,
    ) -> Option<Result<Progress, Failure>> {
        let mechanism = self.mechanism()?.name();
        let phase = self.phase();
        let failed = |error: ScramError| {
            tracing::debug!(mechanism, %error, "an exchange of SASL failed");
            Failure::Credentials { mechanism, phase }
        };
        let progress = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => return None,
            Stage::Chosen(Mechanism::Plain) => Password::parse(message).and_then(|password| {
                self.tries(&password.user);
                plain(password, users)
            }),
            Stage::Chosen(Mechanism::Scram(mechanism)) => {
                self.begin_scram(mechanism, message, users).map_err(failed)
            }
            Stage::Proving {
                user,
                token,
                server,
                ..
            } => {
                let proved = server.finish(message).map_err(failed);
                proved.map(|proof| Progress::Done {
                    who: Authenticated {
                        user,
                        proof: token.map_or(Proof::Password, Proof::DelegationToken),
                    },
                    message: proof.into_bytes(),
                })
            }
            Stage::Chosen(Mechanism::OAuthBearer) => self.bearer(message, tokens),
            Stage::Refused(why) if is_acknowledgement(message) => Err(Failure::Token(why)),
            Stage::Refused(_) => Err(Failure::Credentials { mechanism, phase }),
        };
        Some(progress.and_then(|progress| self.check_user(progress, mechanism)))
    }

    /// Looks at a bearer token.
    fn bearer(
        &mut self,
        message: &[u8],
        tokens: Option<&BearerTokens>,
    ) -> Result<Progress, Failure> {
        let failed = || Failure::Credentials {
            mechanism: Mechanism::OAuthBearer.name(),
            phase: self.phase(),
        };
        let tokens = tokens.ok_or_else(failed)?;
        let first = InitialResponse::parse(message).map_err(|error| {
            tracing::debug!(%error, "an exchange of SASL failed");
            failed()
        })?;
        let bearer = match tokens.verify(first.token) {
            Ok(bearer) => bearer,
            Err(error) => {
                let error_text: String =
                    error.to_string().chars().take(REASON_LETTERS_MAX).collect();
                let (status, scope) = tokens.status(&error);
                let answer = refusal(status, scope.as_deref());
                self.stage = Stage::Refused(answer.clone());
                return Ok(Progress::Refused {
                    answer,
                    why: error_text,
                });
            }
        };
        if !first.identity.is_empty() && first.identity != bearer.user {
            return Err(Failure::OtherToken {
                asked: first.identity.to_owned(),
                named: bearer.user,
            });
        }
        let who = Authenticated {
            user: bearer.user,
            proof: Proof::BearerToken(bearer.expires),
        };
        let message = Vec::new();
        Ok(Progress::Done { who, message })
    }

    fn begin_scram(
        &mut self,
        mechanism: ScramMechanism,
        message: &[u8],
        users: &dyn Users,
    ) -> Result<Progress, ScramError> {
        let first = ClientFirst::parse(message)?;
        self.tries(&first.user);
        // A token and a user of the same name are never taken for each other.
        let (user, credential) = match first.is_token {
            true => users.token(&first.user, mechanism).map_or_else(
                || (first.user.clone(), None),
                |login| (login.owner, Some(login.credential)),
            ),
            false => {
                let credential = users.credential(&first.user, mechanism);
                (first.user.clone(), credential)
            }
        };
        let (server, answer) = ScramServer::begin(mechanism, &first, credential, users.secret());
        self.stage = Stage::Proving {
            mechanism,
            user,
            token: first.is_token.then_some(first.user),
            server: Box::new(server),
        };
        Ok(Progress::Continue(answer.into_bytes()))
    }

    /// A connection stays the same user's.
    fn check_user(
        &mut self,
        progress: Progress,
        mechanism: &'static str,
    ) -> Result<Progress, Failure> {
        let Progress::Done { who, .. } = &progress else {
            return Ok(progress);
        };
        let user = &who.user;
        match &self.known {
            Some((known, _)) if known != user => Err(Failure::AnotherUser {
                from: known.clone(),
                to: user.clone(),
            }),
            Some(_) => Ok(progress),
            None => {
                let mechanism = Mechanism::by_name(mechanism);
                self.known = mechanism.map(|mechanism| (user.clone(), mechanism));
                Ok(progress)
            }
        }
    }
}

impl Password {
    fn parse(message: &[u8]) -> Result<Self, Failure> {
        let text = std::str::from_utf8(message).map_err(|_| Failure::Tokens(0))?;
        let tokens: Vec<&str> = text.splitn(4, '\0').collect();
        let [identity, user, password] = tokens[..] else {
            return Err(Failure::Tokens(tokens.len()));
        };
        match () {
            () if user.is_empty() => Err(Failure::NoUser),
            () if password.is_empty() => Err(Failure::NoPassword),
            () if user.len() > PLAIN_BYTES_MAX || password.len() > PLAIN_BYTES_MAX => {
                Err(Failure::Password)
            }
            () => Ok(Self {
                is_other: !identity.is_empty() && identity != user,
                user: user.to_owned(),
                password: password.to_owned(),
            }),
        }
    }
}

/// Whether a password is a user's, by whichever credential is kept. It takes as long for a user who is not known:
/// milliseconds.
pub fn is_password_of(users: &dyn Users, user: &str, password: &str) -> bool {
    if user.len() > PLAIN_BYTES_MAX || password.len() > PLAIN_BYTES_MAX {
        return false;
    }
    let mut mechanisms = ScramMechanism::ALL.into_iter();
    let found = mechanisms.find_map(|mechanism| {
        let credential = users.credential(user, mechanism)?;
        Some((mechanism, credential))
    });
    match found {
        Some((mechanism, credential)) => users.is_of_password(mechanism, &credential, password),
        None => {
            let mechanism = ScramMechanism::Sha256;
            Credential::of_nobody(mechanism, users.secret(), user)
                .is_of_password(mechanism, password)
        }
    }
}

/// Looks whether the password of a message of PLAIN is right.
fn plain(asked: Password, users: &dyn Users) -> Result<Progress, Failure> {
    let Password {
        user,
        password,
        is_other,
    } = asked;
    match is_password_of(users, &user, &password) {
        true if is_other => Err(Failure::AnotherIdentity),
        true => Ok(Progress::Done {
            who: Authenticated::by_password(user),
            message: Vec::new(),
        }),
        false => Err(Failure::Password),
    }
}

#[cfg(test)]
mod tests;
