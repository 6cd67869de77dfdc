//! What a broker makes of its configuration's security: the way to other brokers, and certificates that follow their files.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::jwks::{JwksError, ProviderKeys};
use crate::net::{AnyListener, Bound, Endpoint, provider_keys, tls_settings};
use crate::peer::{PeerSecurity, Peers, secured};
use crate::security::{BearerTokens, Mechanism, SaslIdentity, ServerTls};

/// How often certificates' files are looked at.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Why a broker cannot speak to others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerSecurityError {
    /// It has to authenticate.
    #[error(
        "the listener between brokers has SASL: inter.broker.user and inter.broker.password say who this broker is"
    )]
    NoUser,
}

/// The way to other brokers, as the listener between them asks for.
pub fn peers(config: &Config, listeners: &[Endpoint]) -> Result<Peers, PeerSecurityError> {
    let mut found = listeners.iter().map(|endpoint| &endpoint.listener);
    let Some(listener) = found.find(|listener| listener.is_between_brokers) else {
        return Ok(Peers::default());
    };
    let protocol = listener.protocol;
    if !protocol.has_tls() && !protocol.has_sasl() {
        return Ok(Peers::default());
    }
    let user = config.text("inter.broker.user");
    let password = config.password("inter.broker.password");
    let mechanism = Mechanism::by_name(config.text("sasl.mechanism.inter.broker.protocol"));
    let identity = match (mechanism, password) {
        (Some(mechanism), Some(password)) if !user.is_empty() => Some(SaslIdentity {
            mechanism,
            user: user.to_owned(),
            password,
            is_token: false,
        }),
        _ => None,
    };
    // A broker that is alone speaks to nobody.
    if protocol.has_sasl() && identity.is_none() && config.flag("zookeeper.enable") {
        return Err(PeerSecurityError::NoUser);
    }
    Ok(Peers::over(secured(PeerSecurity {
        tls: protocol
            .has_tls()
            .then(|| tls_settings(config, &listener.name)),
        identity: identity.filter(|_| protocol.has_sasl()),
    })))
}

/// The certificates of listeners, by the listener's name.
pub fn certificates(listeners: &[Bound<AnyListener>]) -> Vec<(String, Arc<ServerTls>)> {
    let with_tls = listeners.iter().filter_map(|bound| {
        let tls = bound.socket.tls()?;
        Some((bound.info.name.clone(), tls.clone()))
    });
    with_tls.collect()
}

/// Whose bearer tokens listeners take, with the keys that are there from the start.
pub fn token_providers(
    config: &Config,
    listeners: &[Endpoint],
) -> Result<Vec<(ProviderKeys, Arc<BearerTokens>)>, JwksError> {
    let with_tokens = listeners.iter().filter_map(|endpoint| {
        let listener = &endpoint.listener;
        let tokens = listener.authentication.tokens.clone()?;
        if tokens.is_unsecured() {
            tracing::warn!(
                listener = listener.name,
                "takes bearer tokens without a signature, which anybody can make"
            );
            return None;
        }
        let keys = provider_keys(config, &listener.name)?;
        Some((listener, keys, tokens))
    });
    let begun = with_tokens.map(|(listener, keys, tokens)| {
        tracing::info!(listener = listener.name, provider = %keys.source, "takes bearer tokens");
        keys.begin(&tokens).map(|()| (keys, tokens))
    });
    begun.collect()
}

/// Reads certificates again when their files change. Connections that are there stay.
pub async fn follow_certificates(certificates: Vec<(String, Arc<ServerTls>)>) {
    loop {
        tokio::time::sleep(REFRESH_INTERVAL).await;
        for (listener, tls) in &certificates {
            let tls = tls.clone();
            let refreshed = tokio::task::spawn_blocking(move || tls.refresh()).await;
            match refreshed {
                Ok(Ok(true)) => tracing::info!(listener, "certificates were read again"),
                Ok(Err(error)) => {
                    tracing::error!(listener, %error, "certificates cannot be read; those read before stay");
                }
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }
}
