//! The client's side of SASL, as brokers and the operator's commands authenticate: a message to send, until the server is done.

use super::bearer_message::{ACKNOWLEDGEMENT, initial_response};
use super::sasl::Mechanism;
use super::scram_exchange::{ScramClient, ScramError};

/// What somebody authenticates with.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslIdentity {
    /// How.
    pub mechanism: Mechanism,
    /// As whom; a bearer token says it itself.
    pub user: String,
    /// With which password, or bearer token.
    pub password: String,
    /// The user is the id of a delegation token, and the password its HMAC in base64 (KIP-48). Only SCRAM can say so.
    pub is_token: bool,
}

impl std::fmt::Debug for SaslIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SaslIdentity({} by {})",
            self.user,
            self.mechanism.name()
        )
    }
}

#[derive(Debug)]
enum Stage {
    /// What the server says next ends it.
    Last,
    /// What the server says next ends it, or says why the token is not taken.
    Token,
    Challenge(ScramClient),
    Proof(ScramClient),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct SaslClient {
    stage: Stage,
}

impl SaslClient {
    /// Begins: the first message beside it.
    pub fn begin(identity: &SaslIdentity) -> (Self, Vec<u8>) {
        let SaslIdentity {
            mechanism,
            user,
            password,
            is_token,
        } = identity;
        match mechanism {
            Mechanism::Plain => {
                let stage = Stage::Last;
                (Self { stage }, format!("\0{user}\0{password}").into_bytes())
            }
            Mechanism::OAuthBearer => {
                let stage = Stage::Token;
                (Self { stage }, initial_response(password))
            }
            Mechanism::Scram(mechanism) => {
                let begin = match is_token {
                    true => ScramClient::begin_with_token,
                    false => ScramClient::begin,
                };
                let (client, first) = begin(*mechanism, user, password);
                let stage = Stage::Challenge(client);
                (Self { stage }, first.into_bytes())
            }
        }
    }

    /// What to send next; `None` when it is done.
    pub fn on(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, ScramError> {
        match std::mem::replace(&mut self.stage, Stage::Last) {
            Stage::Last => Ok(None),
            Stage::Token if message.is_empty() => Ok(None),
            Stage::Token => Ok(Some(ACKNOWLEDGEMENT.to_vec())),
            Stage::Challenge(mut client) => {
                let proof = client.prove(message)?;
                self.stage = Stage::Proof(client);
                Ok(Some(proof.into_bytes()))
            }
            Stage::Proof(client) => client.verify(message).map(|()| None),
        }
    }
}
