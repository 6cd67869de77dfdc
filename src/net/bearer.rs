//! What is set of OAUTHBEARER for a listener.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::bearer_source::URL_KEY;
use crate::config::{Config, LOCAL_USERS, Value};
use crate::jwks::ProviderKeys;
use crate::provider::ProviderSource;
use crate::security::{BearerSettings, BearerTokens, PemSource};

const URL_MISSING: &str = "OAUTHBEARER needs sasl.oauthbearer.jwks.endpoint.url, the identity provider's keys as https://…, http://… or file:///…, without user and password in it";
const AUDIENCE_MISSING: &str = "OAUTHBEARER needs sasl.oauthbearer.expected.audience, so that tokens for other services are not taken, or sasl.oauthbearer.allow.unverified.audience=true";
const ISSUER_MISSING: &str = "OAUTHBEARER needs sasl.oauthbearer.expected.issuer, so that it is known who made a token, or sasl.oauthbearer.allow.unverified.issuer=true";

struct Of<'a> {
    config: &'a Config,
    listener: &'a str,
}

impl Of<'_> {
    fn text(&self, key: &'static str) -> &str {
        self.config.listener_text(self.listener, key)
    }

    fn flag(&self, key: &'static str) -> bool {
        Value::boolean(self.text(key)).unwrap_or(false)
    }

    fn number(&self, key: &'static str) -> u64 {
        Value::integer(self.text(key)).unwrap_or(0).unsigned_abs()
    }
}

/// The tokens that a listener takes, or what is missing for that. They may name the brokers' own user on the listener
/// between brokers alone, where brokers have tokens and signatures are looked at.
pub(super) fn bearer_tokens(
    config: &Config,
    listener: &str,
    is_between_brokers: bool,
) -> Result<Arc<BearerTokens>, &'static str> {
    let of = Of { config, listener };
    let is_unsecured = of.flag("sasl.oauthbearer.unsecured");
    let audiences = config.listener_words(listener, "sasl.oauthbearer.expected.audience");
    let issuer = Some(of.text("sasl.oauthbearer.expected.issuer").to_owned());
    let issuer = issuer.filter(|issuer| !issuer.is_empty());
    if !is_unsecured {
        let may_be_anybodys = of.flag("sasl.oauthbearer.allow.unverified.audience");
        let may_be_of_anybody = of.flag("sasl.oauthbearer.allow.unverified.issuer");
        match () {
            () if provider_keys(config, listener).is_none() => return Err(URL_MISSING),
            () if audiences.is_empty() && !may_be_anybodys => return Err(AUDIENCE_MISSING),
            () if issuer.is_none() && !may_be_of_anybody => return Err(ISSUER_MISSING),
            () => {}
        }
    }
    let names_brokers = is_between_brokers && !is_unsecured && !config.text(URL_KEY).is_empty();
    let local = LOCAL_USERS
        .iter()
        .filter(|(user, _)| !(names_brokers && *user == "inter.broker.user"))
        .map(|(user, _)| config.text(user).to_owned());
    Ok(Arc::new(BearerTokens::new(BearerSettings {
        audiences,
        issuer,
        clock_skew: Duration::from_secs(of.number("sasl.oauthbearer.clock.skew.seconds")),
        scope_claim: of.text("sasl.oauthbearer.scope.claim.name").to_owned(),
        user_claim: of.text("sasl.oauthbearer.sub.claim.name").to_owned(),
        scopes: config.listener_words(listener, "sasl.oauthbearer.required.scope"),
        is_unsecured,
        reserved: local.filter(|user| !user.is_empty()).collect(),
    })))
}

/// Where the keys of a listener's identity provider come from; `None` where nothing that can be understood says it.
pub fn provider_keys(config: &Config, listener: &str) -> Option<ProviderKeys> {
    let of = Of { config, listener };
    let ms = |key| Duration::from_millis(of.number(key));
    let authorities = of.text("sasl.oauthbearer.jwks.ca");
    Some(ProviderKeys {
        source: ProviderSource::parse(of.text("sasl.oauthbearer.jwks.endpoint.url"))?,
        refresh: ms("sasl.oauthbearer.jwks.endpoint.refresh.ms"),
        backoff: ms("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms"),
        backoff_max: ms("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms"),
        authorities: (!authorities.is_empty()).then(|| PemSource::File(PathBuf::from(authorities))),
    })
}
