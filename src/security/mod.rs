//! Who clients are, what protects their connections, and what they may do: plain types. What each API asks is of the API;
//! where users and access control lists are kept is of the cluster.

mod distinguished_name;
mod principal_mapping;
mod sasl;
mod sasl_client;
mod scram;
mod tls;

pub use distinguished_name::subject;
pub use principal_mapping::{MappingError, PrincipalMapping};
pub use sasl::{Exchange, Failure, Mechanism, Progress, TOKEN_BYTES_MAX, Users};
pub use sasl_client::{SaslClient, SaslIdentity};
pub use scram::{
    Credential, ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, ScramClient, ScramError,
    ScramMechanism, random_bytes, salted_password,
};
pub use tls::{ClientAuth, PemSource, ServerTls, TlsError, TlsSettings};
