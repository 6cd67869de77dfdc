//! Who clients are, what protects their connections, and what they may do (KIP-11, KIP-290): plain types. Where users and access
//! control lists are stored is of the cluster; what each API asks is of the API.

mod acls;
mod authorizer;
mod bearer;
mod bearer_message;
mod binding;
mod distinguished_name;
mod filter;
mod host;
mod principal_mapping;
mod sasl;
mod sasl_client;
mod scram;
mod scram_exchange;
mod tls;
mod wanted_keys;

pub use acls::{Acls, Finding};
pub use authorizer::{Authorizer, SUPER_KIND, SuperUserError};
pub use bearer::{
    Bearer, BearerSettings, BearerTokens, KEYS_MAX, KeysError, TOKEN_BYTES_MAX, TokenError,
    expiry_of, text_claim,
};
pub use binding::{
    Binding, CLUSTER_NAME, Entry, Operation, Pattern, PatternKind, Permission, ResourceKind,
    WILDCARD,
};
pub use distinguished_name::subject;
pub use filter::{Filter, Wanted, WantedKind};
pub use host::{HostError, HostPattern};
pub use principal_mapping::{MappingError, PrincipalMapping};
pub use sasl::{
    Authenticated, Exchange, Failure, Mechanism, Progress, Proof, TokenLogin, Users, is_password_of,
};
pub use sasl_client::{SaslClient, SaslIdentity};
pub use scram::{
    Credential, ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, ScramMechanism, random_bytes,
    random_secret, salted_password,
};
pub use scram_exchange::{ScramClient, ScramError};
pub use tls::{ClientAuth, PemSource, ServerTls, TlsError, TlsSettings};
