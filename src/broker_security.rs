//! What a broker makes of its configuration's security: the way to other brokers, and certificates that follow their files.
//!
//! Tests: tests/authentication.rs, tests/token_endpoint.rs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::api::Context;
use crate::bearer_source::{
    BearerSource, BearerSourceError, BearerSourceSettings, ID_KEY, SECRET_KEY, URL_KEY,
};
use crate::certificates::{CertificateLeft, CertificateState, EXPIRES_SOON_DAYS, ListenerTls};
use crate::cluster::unknown_users_secret;
use crate::config::{Config, LOCAL_USERS};
use crate::jwks::{JwksError, ProviderKeys};
use crate::login::{Login, TokenUser};
use crate::meta::{MetaError, MetaStore, paths};
use crate::net::{
    AnyListener, Bound, Endpoint, listen_endpoints, open_tls, provider_keys, tls_settings,
};
use crate::peer::{PeerSecurity, Peers, secured};
use crate::security::{
    BearerTokens, ClientAuth, Mechanism, PemSource, SaslIdentity, ServerTls, TlsError, TlsSettings,
    random_secret,
};
use crate::session::ListenerInfo;
use crate::users::check_local_users;

/// How often certificates' files are looked at.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is said that a certificate is about to be over, or is over.
const EXPIRY_TOLD_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Why a broker cannot speak to others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerSecurityError {
    /// It has to authenticate.
    #[error(
        "the listener between brokers has SASL: inter.broker.user and inter.broker.password say who this broker is"
    )]
    NoUser,
    /// It has to authenticate with a token.
    #[error("sasl.mechanism.inter.broker.protocol: {0}")]
    Bearer(#[from] BearerSourceError),
    /// It is not said whom tokens of brokers are about.
    #[error(
        "sasl.mechanism.inter.broker.protocol=OAUTHBEARER: inter.broker.user has to say whom the tokens of brokers name"
    )]
    NoTokenUser,
    /// It is somebody who logs in with a password.
    #[error(
        "sasl.mechanism.inter.broker.protocol=OAUTHBEARER: inter.broker.user is {0}, as admin.user is; tokens of brokers have to name somebody else"
    )]
    AdminUser(String),
    /// Its tokens could name it, and so could everybody's.
    #[error(
        "sasl.mechanism.inter.broker.protocol=OAUTHBEARER: the listener between brokers, {0}, takes tokens without a signature (sasl.oauthbearer.unsecured), which anybody can make; none of those names inter.broker.user"
    )]
    Unsecured(String),
    /// The listener would refuse it.
    #[error(
        "sasl.mechanism.inter.broker.protocol={mechanism} has to be among the sasl.enabled.mechanisms of the listener between brokers, {listener}: it has {has}"
    )]
    Mechanism {
        /// How this broker logs in.
        mechanism: String,
        /// Where.
        listener: String,
        /// What can be done there.
        has: String,
    },
}

/// What makes the salts of users who are not known: the same on all brokers where clients log in by a listener.
pub async fn salt_secret(meta: &MetaStore, has_sasl: bool) -> Result<Vec<u8>, MetaError> {
    match has_sasl {
        true => unknown_users_secret(meta).await,
        // Nobody says who they are, but on the dashboard.
        false => Ok(random_secret()),
    }
}

/// Nodes that say who may do what: whoever can change them can be anybody.
const NODES_OF_SECURITY: &[&str] = &["/", paths::CONFIG, paths::ACLS, paths::TOKENS];

/// Says that everybody who reaches ZooKeeper can change who may do what, where clients have to say who they are.
pub async fn warn_of_open_nodes(config: &Config, meta: &MetaStore) -> Result<(), MetaError> {
    if !config.is_secured() {
        return Ok(());
    }
    let open = meta.open_nodes(NODES_OF_SECURITY).await?;
    let makes_open = !config.text("zookeeper.auth").is_empty() && !config.flag("zookeeper.set.acl");
    if makes_open && config.flag("zookeeper.enable") {
        tracing::warn!(
            "what this broker makes in ZooKeeper is open to everybody (zk.zkSetAcl=false)"
        );
    }
    if !open.is_empty() {
        tracing::warn!(
            nodes = open.join(" "),
            "whoever reaches ZooKeeper can read users and change rights: set zk.zkAuth, then metaq meta protect"
        );
    }
    Ok(())
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
    // A broker that is alone speaks to nobody.
    let is_alone = !config.flag("zookeeper.enable");
    let login = match protocol.has_sasl() {
        true => own_login(config, listener).map(Some),
        false => Ok(None),
    };
    let login = login.or_else(|error| if is_alone { Ok(None) } else { Err(error) })?;
    Ok(Peers::over(secured(PeerSecurity {
        tls: protocol
            .has_tls()
            .then(|| tls_settings(config, &listener.name)),
        login,
    })))
}

/// What this broker logs in with at others, which have the same listener (Kafka's KafkaConfig.validateValues).
fn own_login(config: &Config, listener: &ListenerInfo) -> Result<Login, PeerSecurityError> {
    let user = config.text("inter.broker.user");
    let name = config.text("sasl.mechanism.inter.broker.protocol");
    let mechanism = Mechanism::by_name(name);
    let enabled = &listener.authentication.mechanisms;
    if !mechanism.is_some_and(|mechanism| enabled.contains(&mechanism)) {
        let has: Vec<&str> = enabled.iter().map(|known| known.name()).collect();
        return Err(PeerSecurityError::Mechanism {
            mechanism: name.to_owned(),
            listener: listener.name.clone(),
            has: has.join(", "),
        });
    }
    if mechanism == Some(Mechanism::OAuthBearer) {
        return own_tokens(config, listener);
    }
    match (mechanism, config.password("inter.broker.password")) {
        (Some(mechanism), Some(password)) if !user.is_empty() => {
            Ok(Login::Password(SaslIdentity {
                mechanism,
                user: user.to_owned(),
                password,
                is_token: false,
            }))
        }
        _ => Err(PeerSecurityError::NoUser),
    }
}

/// The tokens of the brokers' user.
fn own_tokens(config: &Config, listener: &ListenerInfo) -> Result<Login, PeerSecurityError> {
    let tokens = listener.authentication.tokens.as_ref();
    if tokens.is_some_and(|tokens| tokens.is_unsecured()) {
        return Err(PeerSecurityError::Unsecured(listener.name.clone()));
    }
    let source = BearerSource::new(bearer_source(config, &listener.name))?;
    let claim = config.listener_text(&listener.name, "sasl.oauthbearer.sub.claim.name");
    match config.text("inter.broker.user") {
        "" => Err(PeerSecurityError::NoTokenUser),
        user if user == config.text("admin.user") => {
            Err(PeerSecurityError::AdminUser(user.to_owned()))
        }
        user => {
            let user = TokenUser::new(claim, user);
            Ok(Login::Bearer(Arc::new(source), Some(Arc::new(user))))
        }
    }
}

/// Where the tokens of brokers come from.
fn bearer_source(config: &Config, listener: &str) -> BearerSourceSettings {
    let text = |key| config.text(key).to_owned();
    let authorities = config.listener_text(listener, "sasl.oauthbearer.jwks.ca");
    BearerSourceSettings {
        url: text(URL_KEY),
        id: text(ID_KEY),
        secret: config.password(SECRET_KEY).unwrap_or_default(),
        scope: text("sasl.oauthbearer.scope"),
        is_encoded: config.flag("sasl.oauthbearer.header.urlencode"),
        authorities: (!authorities.is_empty()).then(|| PemSource::File(PathBuf::from(authorities))),
    }
}

/// Why the dashboard has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum DashboardTlsError {
    /// Half of it is set.
    #[error("dashboard.tls.certificate and dashboard.tls.key go together: one of them is not set")]
    Half,
    /// What is set cannot be used.
    #[error("dashboard.tls: {0}")]
    Tls(#[from] TlsError),
}

/// The name that certificates of the dashboard's port have in the log.
pub const DASHBOARD: &str = "dashboard";

/// The listener whose certificate is the dashboard's, where that has none of its own.
fn certified_by(listeners: &[Endpoint]) -> String {
    let mut found = listeners.iter().map(|endpoint| &endpoint.listener);
    let listener = found.find(|listener| listener.protocol.has_tls());
    listener.map_or_else(|| DASHBOARD.to_owned(), |found| found.name.clone())
}

/// What is set of TLS for the dashboard's port; `None` where it has none. Its certificate is its own, or that of the first
/// listener with TLS; who visits is not asked for one.
fn dashboard_tls(
    config: &Config,
    listeners: &[Endpoint],
) -> Result<Option<TlsSettings>, DashboardTlsError> {
    if !config.flag("dashboard.tls") {
        return Ok(None);
    }
    let settings = tls_settings(config, &certified_by(listeners));
    let file = |key| {
        let path = Some(config.text(key)).filter(|path| !path.is_empty())?;
        Some(PemSource::File(PathBuf::from(path)))
    };
    let own = (file("dashboard.tls.certificate"), file("dashboard.tls.key"));
    let identity = match own {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => settings.identity,
        _ => return Err(DashboardTlsError::Half),
    };
    Ok(Some(TlsSettings {
        identity,
        authorities: None,
        client_auth: ClientAuth::None,
        ..settings
    }))
}

/// What this machine trusts to ask the dashboard, where it has TLS and authorities are set.
pub fn dashboard_trust(config: &Config) -> Option<TlsSettings> {
    let (listeners, _) = listen_endpoints(config).ok()?;
    let settings = tls_settings(config, &certified_by(&listeners));
    let is_known = config.flag("dashboard.tls") && settings.authorities.is_some();
    is_known.then_some(TlsSettings {
        identity: None,
        ..settings
    })
}

/// Reads the certificates of the dashboard's port, where it has TLS.
pub fn open_dashboard_tls(
    config: &Config,
    listeners: &[Endpoint],
) -> Result<Option<Arc<ServerTls>>, DashboardTlsError> {
    let settings = dashboard_tls(config, listeners)?;
    let opened = settings.map(ServerTls::open).transpose()?;
    Ok(opened.map(Arc::new))
}

/// The certificates of listeners and of the dashboard, by the name that they have in the log.
pub fn certificates(
    listeners: &[Bound<AnyListener>],
    dashboard: Option<&Arc<ServerTls>>,
) -> Vec<ListenerTls> {
    let with_tls = listeners.iter().filter_map(|bound| {
        let tls = bound.socket.tls()?;
        Some((bound.info.name.clone(), tls.clone()))
    });
    let dashboard = dashboard.map(|tls| (DASHBOARD.to_owned(), tls.clone()));
    with_tls.chain(dashboard).collect()
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
        if keys.is_unprotected() {
            tracing::warn!(
                listener = listener.name,
                "the identity provider's keys come over http: whoever is on the way can make tokens"
            );
        }
        tracing::info!(listener = listener.name, provider = %keys.source, "takes bearer tokens");
        keys.begin(&tokens).map(|()| (keys, tokens))
    });
    begun.collect()
}

/// Whose bearer tokens the dashboard takes: those of the first listener that takes signed ones, and of the one between brokers
/// where there is no other. None of them names a user of the configuration here, also where brokers log in so.
pub fn dashboard_provider(config: &Config, listeners: &[Endpoint]) -> Option<Arc<BearerTokens>> {
    let signed = |is_between_brokers: bool| {
        let found = listeners.iter().map(|endpoint| &endpoint.listener);
        let mut found = found
            .filter(|listener| listener.is_between_brokers == is_between_brokers)
            .filter_map(|listener| listener.authentication.tokens.as_ref());
        found.find(|tokens| !tokens.is_unsecured())
    };
    let tokens = signed(false).or_else(|| signed(true))?;
    let local = LOCAL_USERS.iter().map(|(user, _)| config.text(user));
    let local = local.filter(|user| !user.is_empty()).map(str::to_owned);
    Some(Arc::new(tokens.reserving(local.collect())))
}

/// What is wrong with what a configuration says of listeners, certificates, keys and users: what keeps a broker from starting,
/// told without binding anything.
pub fn mistakes(config: &Config) -> Vec<String> {
    let (listeners, _) = match listen_endpoints(config) {
        Ok(endpoints) => endpoints,
        Err(error) => return vec![error.to_string()],
    };
    let of_certificates = listeners.iter().filter_map(|endpoint| {
        let opened = open_tls(config, &endpoint.listener);
        opened.err().map(|error| error.to_string())
    });
    let mut mistakes: Vec<String> = of_certificates.collect();
    let others = [
        open_dashboard_tls(config, &listeners)
            .err()
            .map(|error| error.to_string()),
        token_providers(config, &listeners)
            .err()
            .map(|error| error.to_string()),
        peers(config, &listeners)
            .err()
            .map(|error| error.to_string()),
        check_local_users(config)
            .err()
            .map(|error| error.to_string()),
    ];
    mistakes.extend(others.into_iter().flatten());
    mistakes.dedup();
    mistakes
}

/// Reads certificates again when their files change, and says when they are about to be over. Connections that are there stay.
pub async fn follow_certificates(cx: Arc<Context>, certificates: Vec<ListenerTls>) {
    cx.certificates.set(certificates.clone());
    let mut told_at: Option<Instant> = None;
    while !certificates.is_empty() {
        if told_at.is_none_or(|at| at.elapsed() >= EXPIRY_TOLD_EVERY) {
            told_at = Some(Instant::now());
            cx.certificates.states().iter().for_each(tell_of_expiry);
        }
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

fn tell_of_expiry(certificate: &CertificateState) {
    let listener = &certificate.listener;
    match certificate.left(Timestamp::now()) {
        CertificateLeft::Expired => {
            tracing::error!(
                listener,
                "the certificate has expired: no client that looks at it connects"
            );
        }
        CertificateLeft::Days(days) if days < EXPIRES_SOON_DAYS => {
            tracing::warn!(listener, days, "the certificate expires soon");
        }
        CertificateLeft::Days(_) => {}
    }
}
