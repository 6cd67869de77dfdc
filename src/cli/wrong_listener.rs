//! What the end of a connection says of its listener, where that is set up otherwise than the file of client properties, and
//! what to set then.

use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, Error};

/// Where it is set.
const FILE: &str = "in the file of --command-config";

/// Whether an answer begins as an alert of TLS does, which is no answer to something plain.
pub(super) fn is_alert(begin: [u8; 4]) -> bool {
    matches!(begin, [0x15, 3, ..])
}

/// Of one with TLS, which was asked in plain text.
pub(super) fn has_tls(address: &str) -> String {
    format!("{address} has TLS: set security.protocol=SSL or SASL_SSL {FILE}")
}

/// Of one that takes no messages of SASL.
pub(super) fn has_no_sasl(address: &str, has_tls: bool) -> String {
    let protocol = if has_tls { "SSL" } else { "PLAINTEXT" };
    format!("the listener at {address} has no SASL: set security.protocol={protocol} {FILE}")
}

/// Of one that closed the connection instead of a first answer.
pub(super) fn closed(address: &str, has_tls: bool, has_sasl: bool) -> String {
    let wanted = match (has_tls, has_sasl) {
        (false, false) => {
            "a listener with SASL wants security.protocol=SASL_PLAINTEXT, one with TLS wants SSL or SASL_SSL"
        }
        (true, false) => "a listener with SASL wants security.protocol=SASL_SSL",
        (false, true) => "a listener with TLS wants security.protocol=SASL_SSL",
        (true, true) => return format!("{address} closed the connection before it answered"),
    };
    format!("{address} closed the connection before it answered: {wanted}, {FILE}")
}

/// Whether the other side ended the connection.
pub(super) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}

/// What rustls found, where it is that.
pub(super) fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// An error of a connection with TLS, and what to set.
pub(super) fn tls_in_words(error: &io::Error) -> String {
    use AlertDescription as Alert;
    use CertificateError as Certificate;
    let what = match of_tls(error) {
        Some(Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature)) => {
            "the broker's certificate is signed by none of the authorities in ssl.truststore.location"
        }
        Some(Error::AlertReceived(Alert::CertificateRequired)) => {
            "the listener asks for a certificate: ssl.keystore.location names a PEM file with it and its key"
        }
        Some(Error::AlertReceived(
            Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown,
        )) => "the broker does not take the certificate of ssl.keystore.location",
        Some(Error::InvalidMessage(_)) => {
            return format!(
                "the listener speaks no TLS: set security.protocol=PLAINTEXT or SASL_PLAINTEXT {FILE}"
            );
        }
        None if is_end(error) => {
            return format!(
                "the connection was closed; perhaps the listener speaks no TLS: set security.protocol=PLAINTEXT or SASL_PLAINTEXT {FILE}"
            );
        }
        _ => return error.to_string(),
    };
    what.to_owned()
}
