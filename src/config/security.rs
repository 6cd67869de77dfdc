//! Broker configurations of listeners, TLS and SASL.
//!
//! Tests: tests/bearer_tokens.rs, tests/advice.rs.

use super::key::{BrokerKey, key};
use super::value::Kind;

const INT_MAX: i64 = i32::MAX as i64;

/// None, and what Kafka calls the one that there is.
const AUTHORIZERS: &[&str] = &[
    "",
    "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "kafka.security.authorizer.AclAuthorizer",
];

/// What protects the connections of a listener.
const PROTOCOLS: &[&str] = &["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// The table.
pub(super) const SECURITY_KEYS: &[BrokerKey] = &[
    key!(
        "authorizer.class.name",
        None,
        Kind::Choice(AUTHORIZERS),
        "",
        "Who decides what clients may do: Kafka's StandardAuthorizer by access control lists (its older AclAuthorizer is the same here), or nobody, and everything is allowed."
    ),
    key!(
        "super.users",
        None,
        Kind::Text,
        "",
        "Principals that may do everything whatever the access control lists say, as User:a;User:b."
    ),
    key!(
        "allow.everyone.if.no.acl.found",
        None,
        Kind::Bool,
        "false",
        "Whether everybody may do everything to a resource that no access control list is of."
    ),
    key!(
        "listener.security.protocol.map",
        None,
        Kind::Text,
        "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        "What protects the connections of each listener, as NAME:PROTOCOL separated by commas: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    ),
    key!(
        "inter.broker.listener.name",
        None,
        Kind::Text,
        "",
        "The listener that brokers speak to each other by. Empty: the first one of security.inter.broker.protocol."
    ),
    key!(
        "security.inter.broker.protocol",
        None,
        Kind::Choice(PROTOCOLS),
        "PLAINTEXT",
        "What protects the connections between brokers, where inter.broker.listener.name is not set."
    ),
    key!(
        "inter.broker.user",
        None,
        Kind::Text,
        "",
        "The user that this broker is to other brokers, on an inter-broker listener with SASL: by inter.broker.password, or by tokens that name it (sasl.oauthbearer.token.endpoint.url). It is a super user on this broker."
    ),
    key!(
        "inter.broker.password",
        None,
        Kind::Text,
        "",
        "Its password, the same on all brokers. METAQ_INTER_BROKER_PASSWORD in the environment is another place for it."
    ),
    key!(
        "admin.user",
        None,
        Kind::Text,
        "",
        "A user that is there without the coordination tree, to make the first others: a super user on this broker, with admin.password."
    ),
    key!(
        "admin.password",
        None,
        Kind::Text,
        "",
        "Its password. METAQ_ADMIN_PASSWORD in the environment is another place for it."
    ),
    key!(
        "tls.certificate",
        None,
        Kind::Text,
        "",
        "PEM file with this broker's certificate and those between it and the authority. Read again when it changes."
    ),
    key!(
        "tls.key",
        None,
        Kind::Text,
        "",
        "PEM file with the certificate's private key, not encrypted."
    ),
    key!(
        "tls.ca",
        None,
        Kind::Text,
        "",
        "PEM file with the authorities of clients' and other brokers' certificates."
    ),
    key!(
        "ssl.keystore.location",
        None,
        Kind::Text,
        "",
        "PEM file with private key and certificates, as Kafka has it; instead of tls.certificate and tls.key."
    ),
    key!(
        "ssl.keystore.type",
        None,
        Kind::Choice(&["PEM"]),
        "PEM",
        "PEM alone: openssl pkcs12 -in KEYSTORE -nodes -out KEYSTORE.pem converts a PKCS#12 keystore, and keytool -importkeystore -deststoretype PKCS12 a JKS one into that."
    ),
    key!(
        "ssl.keystore.certificate.chain",
        None,
        Kind::Text,
        "",
        "The certificates themselves as PEM, lines separated by \\n; instead of a file."
    ),
    key!(
        "ssl.keystore.key",
        None,
        Kind::Text,
        "",
        "The private key itself as PEM, lines separated by \\n; instead of a file."
    ),
    key!(
        "ssl.truststore.location",
        None,
        Kind::Text,
        "",
        "PEM file with authorities, as Kafka has it; instead of tls.ca."
    ),
    key!(
        "ssl.truststore.type",
        None,
        Kind::Choice(&["PEM"]),
        "PEM",
        "PEM alone: keytool -exportcert -rfc -alias NAME -keystore TRUSTSTORE converts each authority of a JKS truststore."
    ),
    key!(
        "ssl.truststore.certificates",
        None,
        Kind::Text,
        "",
        "The authorities themselves as PEM, lines separated by \\n; instead of a file."
    ),
    key!(
        "ssl.client.auth",
        None,
        Kind::Choice(&["none", "requested", "required"]),
        "none",
        "Whether clients show certificates: then each is the user that its certificate names."
    ),
    key!(
        "ssl.enabled.protocols",
        None,
        Kind::List(&["TLSv1.2", "TLSv1.3"]),
        "TLSv1.2,TLSv1.3",
        "Versions of TLS."
    ),
    key!(
        "ssl.cipher.suites",
        None,
        Kind::Words,
        "",
        "Cipher suites by their names of RFC 8446 and 5289; empty for all that are safe."
    ),
    key!(
        "ssl.principal.mapping.rules",
        None,
        Kind::Text,
        "DEFAULT",
        "What makes a user's name of a certificate's subject: DEFAULT, or RULE:pattern/replacement/[LU], separated by commas (KIP-371)."
    ),
    key!(
        "ssl.endpoint.identification.algorithm",
        None,
        Kind::Choice(&["https", ""]),
        "https",
        "https: another broker's certificate must be for the name that was connected to. Empty: any certificate of the authorities will do."
    ),
    key!(
        "dashboard.tls",
        None,
        Kind::Bool,
        "false",
        "Whether the dashboard's port has TLS: it is https then, and nothing else."
    ),
    key!(
        "dashboard.tls.certificate",
        None,
        Kind::Text,
        "",
        "PEM file with the dashboard's certificate and those between it and the authority. Empty: certificate and key of the first listener with TLS, or without one those that are set for all. Read again when it changes."
    ),
    key!(
        "dashboard.tls.key",
        None,
        Kind::Text,
        "",
        "PEM file with that certificate's private key, not encrypted."
    ),
    key!(
        "dashboard.session.idle.ms",
        None,
        Kind::Long(1000, i64::MAX),
        "3600000",
        "A visitor who logged in on the dashboard and asks for nothing for this long has to log in again, ms; after 12 hours everybody has to."
    ),
    key!(
        "sasl.enabled.mechanisms",
        None,
        Kind::List(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
        "SCRAM-SHA-512,SCRAM-SHA-256",
        "How clients of listeners with SASL may authenticate."
    ),
    key!(
        "sasl.mechanism.inter.broker.protocol",
        None,
        Kind::Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
        "SCRAM-SHA-512",
        "How this broker authenticates to others: as inter.broker.user, with its password, or with a token that names it. It has to be among the sasl.enabled.mechanisms of the listener between brokers."
    ),
    key!(
        "sasl.oauthbearer.token.endpoint.url",
        None,
        Kind::Text,
        "",
        "Where this broker's own tokens come from, with sasl.mechanism.inter.broker.protocol=OAUTHBEARER: file:///… with one, read for each connection, or https://… of an identity provider that gives them; http://… on this machine alone."
    ),
    key!(
        "sasl.oauthbearer.client.credentials.client.id",
        None,
        Kind::Text,
        "",
        "As whom this broker asks the identity provider for its own tokens."
    ),
    key!(
        "sasl.oauthbearer.client.credentials.client.secret",
        None,
        Kind::Text,
        "",
        "The secret of that. METAQ_SASL_OAUTHBEARER_CLIENT_CREDENTIALS_CLIENT_SECRET in the environment is another place for it."
    ),
    key!(
        "sasl.oauthbearer.scope",
        None,
        Kind::Text,
        "",
        "The scope that this broker asks for in its own tokens. Empty: whatever the identity provider gives."
    ),
    key!(
        "sasl.oauthbearer.header.urlencode",
        None,
        Kind::Bool,
        "false",
        "Whether client id, secret and scope are sent URL-encoded, as RFC 6749 says and not all identity providers expect."
    ),
    key!(
        "sasl.oauthbearer.jwks.endpoint.url",
        None,
        Kind::Text,
        "",
        "Where the identity provider's keys are, as a JSON Web Key Set: https://…, http://… or file:///…. OAUTHBEARER needs it."
    ),
    key!(
        "sasl.oauthbearer.jwks.ca",
        None,
        Kind::Text,
        "",
        "PEM file with the authorities of the identity provider's certificate. Empty: those of the system."
    ),
    key!(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms",
        None,
        Kind::Long(1, i64::MAX),
        "3600000",
        "How often the identity provider is asked for its keys, ms. It is asked at once when a token names a key that is not there."
    ),
    key!(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
        None,
        Kind::Long(1, i64::MAX),
        "100",
        "How long to wait after the identity provider could not be asked, ms; twice as long after each further time."
    ),
    key!(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
        None,
        Kind::Long(1, i64::MAX),
        "10000",
        "The longest of these waits, ms."
    ),
    key!(
        "sasl.oauthbearer.expected.audience",
        None,
        Kind::Words,
        "",
        "Whom tokens are for: one of these is in their claim aud. OAUTHBEARER needs it, or sasl.oauthbearer.allow.unverified.audience."
    ),
    key!(
        "sasl.oauthbearer.expected.issuer",
        None,
        Kind::Text,
        "",
        "Who made tokens: their claim iss. OAUTHBEARER needs it, or sasl.oauthbearer.allow.unverified.issuer."
    ),
    key!(
        "sasl.oauthbearer.allow.unverified.audience",
        None,
        Kind::Bool,
        "false",
        "Whether tokens that were made for others are taken too, where sasl.oauthbearer.expected.audience is empty."
    ),
    key!(
        "sasl.oauthbearer.allow.unverified.issuer",
        None,
        Kind::Bool,
        "false",
        "Whether tokens of whatever issuer are taken, where sasl.oauthbearer.expected.issuer is empty."
    ),
    key!(
        "sasl.oauthbearer.clock.skew.seconds",
        None,
        Kind::Int(0, 86_400),
        "30",
        "How far the identity provider's clock may differ, s."
    ),
    key!(
        "sasl.oauthbearer.scope.claim.name",
        None,
        Kind::Text,
        "scope",
        "The claim with a token's scopes, as text with spaces or as a list."
    ),
    key!(
        "sasl.oauthbearer.sub.claim.name",
        None,
        Kind::Text,
        "sub",
        "The claim with the user's name."
    ),
    key!(
        "sasl.oauthbearer.required.scope",
        None,
        Kind::Words,
        "",
        "Scopes that each token must have. Empty: none."
    ),
    key!(
        "sasl.oauthbearer.unsecured",
        None,
        Kind::Bool,
        "false",
        "Whether tokens without a signature are taken, and no others: anybody can make those, for tests."
    ),
    key!(
        "sasl.server.max.receive.size",
        None,
        Kind::Int(1024, INT_MAX),
        "524288",
        "Largest request of a client that has not authenticated, bytes."
    ),
    key!(
        "authentication.timeout.ms",
        None,
        Kind::Int(1, INT_MAX),
        "10000",
        "A connection whose handshakes of TLS and SASL take longer is closed, ms."
    ),
    key!(
        "connection.failed.authentication.delay.ms",
        None,
        Kind::Int(0, 60_000),
        "100",
        "How long a client waits for the answer that it could not be authenticated, ms."
    ),
    key!(
        "audit.log.path",
        None,
        Kind::Text,
        "",
        "File of the audit log: who changed what, and what was refused to whom, as lines of JSON. Empty for none."
    ),
    key!(
        "audit.log.max.bytes",
        None,
        Kind::Long(1024, i64::MAX),
        "104857600",
        "Size at which it is rotated, bytes."
    ),
    key!(
        "audit.log.files.max",
        None,
        Kind::Int(0, 1000),
        "10",
        "Older files of it that are kept, as PATH.1 and so on."
    ),
    key!(
        "delegation.token.secret.key",
        None,
        Kind::Text,
        "",
        "The key that delegation tokens are made and checked with, the same on all brokers; empty for no tokens. METAQ_DELEGATION_TOKEN_SECRET_KEY in the environment is another place for it."
    ),
    key!(
        "delegation.token.max.lifetime.ms",
        None,
        Kind::Long(1, i64::MAX),
        "604800000",
        "How long a delegation token can be renewed at most, ms; its maker may ask for less."
    ),
    key!(
        "delegation.token.expiry.time.ms",
        None,
        Kind::Long(1, i64::MAX),
        "86400000",
        "How long a delegation token is good before it has to be renewed, ms."
    ),
    key!(
        "delegation.token.expiry.check.interval.ms",
        None,
        Kind::Long(1, i64::MAX),
        "3600000",
        "How often the controller removes delegation tokens that have expired, ms. They are good for nothing before that too."
    ),
    key!(
        "connections.max.reauth.ms",
        None,
        Kind::Long(0, i64::MAX),
        "0",
        "A connection with SASL must authenticate again within this time, ms (KIP-368); 0 for never."
    ),
];

/// What a listener may have of its own, as `listener.name.NAME.KEY` or in its section.
const OF_LISTENERS: &[&str] = &[
    "tls.certificate",
    "tls.key",
    "tls.ca",
    "ssl.keystore.location",
    "ssl.keystore.type",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.truststore.location",
    "ssl.truststore.type",
    "ssl.truststore.certificates",
    "ssl.client.auth",
    "ssl.enabled.protocols",
    "ssl.cipher.suites",
    "ssl.principal.mapping.rules",
    "sasl.enabled.mechanisms",
    "sasl.oauthbearer.jwks.endpoint.url",
    "sasl.oauthbearer.jwks.ca",
    "sasl.oauthbearer.jwks.endpoint.refresh.ms",
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
    "sasl.oauthbearer.expected.audience",
    "sasl.oauthbearer.expected.issuer",
    "sasl.oauthbearer.allow.unverified.audience",
    "sasl.oauthbearer.allow.unverified.issuer",
    "sasl.oauthbearer.clock.skew.seconds",
    "sasl.oauthbearer.scope.claim.name",
    "sasl.oauthbearer.sub.claim.name",
    "sasl.oauthbearer.required.scope",
    "sasl.oauthbearer.unsecured",
    "connections.max.reauth.ms",
];

/// The users that are there without the coordination tree, and their passwords: who makes the others, and who brokers are to each
/// other. They may do everything.
pub const LOCAL_USERS: [(&str, &str); 2] = [
    ("admin.user", "admin.password"),
    ("inter.broker.user", "inter.broker.password"),
];

/// What is never shown.
const SECRETS: &[&str] = &[
    "admin.password",
    "delegation.token.secret.key",
    "inter.broker.password",
    "sasl.oauthbearer.client.credentials.client.secret",
    "ssl.keystore.key",
];

/// Whether a listener may have its own.
pub(super) fn is_of_listeners(name: &str) -> bool {
    OF_LISTENERS.contains(&name)
}

/// Whether a value is never shown.
pub(super) fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name)
}

/// The protocols' names.
pub(super) fn is_protocol(name: &str) -> bool {
    PROTOCOLS.contains(&name)
}
