//! What brokers and the operator's commands log in with by SASL: user and password, or a bearer token, which a broker looks at before
//! it shows it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::bearer_source::{BearerSource, BearerSourceError};
use crate::security::{Mechanism, SaslIdentity, text_claim};

/// Whom the tokens of brokers have to name.
#[derive(Debug)]
pub struct TokenUser {
    /// The claim with the name.
    claim: String,
    /// inter.broker.user.
    user: String,
    /// What was said last of a token that names another one: it is said once.
    said: Mutex<Option<String>>,
}

impl TokenUser {
    /// The user that a claim names.
    pub fn new(claim: &str, user: &str) -> Self {
        Self {
            claim: claim.to_owned(),
            user: user.to_owned(),
            said: Mutex::default(),
        }
    }

    /// What is wrong with whom a token names, where that can be read.
    fn mistake(&self, token: &str) -> Option<String> {
        let named = text_claim(token, &self.claim)?;
        let user = &self.user;
        (named != *user).then(|| format!("the token names {named:?}, not inter.broker.user={user}"))
    }

    fn look_at(&self, token: &str) {
        let mistake = self.mistake(token);
        let mut said = self.said.lock();
        if let Some(mistake) = &mistake
            && *said != Some(mistake.clone())
        {
            tracing::error!("{mistake}: other brokers do not know this one by it");
        }
        *said = mistake;
    }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub enum Login {
    /// A user, or a delegation token.
    Password(SaslIdentity),
    /// Whatever token there is at the time, and whom it has to name, where that is known.
    Bearer(Arc<BearerSource>, Option<Arc<TokenUser>>),
}

impl Login {
    /// What is shown now.
    pub async fn identity(&self) -> Result<SaslIdentity, BearerSourceError> {
        let (source, user) = match self {
            Self::Password(identity) => return Ok(identity.clone()),
            Self::Bearer(source, user) => (source, user),
        };
        let token = source.token().await?;
        user.iter().for_each(|user| user.look_at(&token));
        Ok(SaslIdentity {
            mechanism: Mechanism::OAuthBearer,
            user: String::new(),
            password: token,
            is_token: false,
        })
    }

    /// Notes that what was shown is wrong.
    pub fn was_refused(&self, shown: &SaslIdentity) {
        if let Self::Bearer(source, _) = self {
            source.was_refused(&shown.password);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_names_somebody_else_is_told_from_the_brokers() {
        let token = |claims: &str| {
            let claims = data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes());
            format!("e30.{claims}.c2ln")
        };
        let user = TokenUser::new("sub", "broker");
        assert_eq!(user.mistake(&token(r#"{"sub":" broker "}"#)), None);
        let said = user.mistake(&token(r#"{"sub":"al\nice"}"#)).unwrap();
        assert_eq!(
            said,
            "the token names \"al\\nice\", not inter.broker.user=broker"
        );
        // What cannot be read may be all right.
        for other in ["opaque", &token("{}"), &token("[]")] {
            assert_eq!(user.mistake(other), None, "{other}");
        }
    }
}
