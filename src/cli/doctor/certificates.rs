//! The certificates of listeners with TLS, and the dashboard's: whether they can be read, and until when they are good.

use jiff::Timestamp;

use super::super::Failure;
use super::Finding;
use crate::broker_security::{DASHBOARD, open_dashboard_tls};
use crate::certificates::{CertificateLeft, EXPIRES_SOON_DAYS};
use crate::config::Config;
use crate::net::{Endpoint, listen_endpoints, tls_settings};
use crate::security::ServerTls;

const CHECK: &str = "certificate";

/// All of them.
pub(super) fn check(config: &Config) -> Result<Vec<Finding>, Failure> {
    let (listeners, _) = listen_endpoints(config)?;
    let with_tls = listeners
        .iter()
        .filter(|endpoint| endpoint.listener.protocol.has_tls());
    let findings = with_tls.map(|endpoint| of_listener(config, &endpoint.listener.name));
    Ok(findings.chain(of_dashboard(config, &listeners)).collect())
}

fn of_listener(config: &Config, listener: &str) -> Finding {
    let opened = ServerTls::open(tls_settings(config, listener));
    of_tls(listener, opened.map_err(|error| error.to_string()).as_ref())
}

fn of_tls(listener: &str, opened: Result<&ServerTls, &String>) -> Finding {
    let remedy = "see docs/security.md, Certificates";
    match opened {
        Ok(tls) => until(listener, tls.expires_s(), Timestamp::now().as_second()),
        Err(error) => Finding::failed(CHECK, format!("{listener}: {error}"), remedy),
    }
}

/// That of the dashboard's port, where it has TLS.
fn of_dashboard(config: &Config, listeners: &[Endpoint]) -> Option<Finding> {
    match open_dashboard_tls(config, listeners) {
        Ok(tls) => Some(of_tls(DASHBOARD, Ok(&*tls?))),
        Err(error) => Some(of_tls(DASHBOARD, Err(&error.to_string()))),
    }
}

fn until(listener: &str, expires_s: i64, now_s: i64) -> Finding {
    let remedy =
        "replace its files: a running broker reads them within seconds, and no connection ends";
    match CertificateLeft::of(expires_s, now_s) {
        CertificateLeft::Expired => {
            Finding::failed(CHECK, format!("{listener}: it has expired"), remedy)
        }
        CertificateLeft::Days(days) if days < EXPIRES_SOON_DAYS => {
            let found = format!("{listener}: it is good for {days} days only");
            Finding::warning(CHECK, found, remedy)
        }
        CertificateLeft::Days(days) => {
            Finding::ok(CHECK, format!("{listener}: good for {days} days"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    const SECONDS_A_DAY: i64 = 86_400;

    #[test]
    fn a_certificate_is_spoken_of_before_it_is_over() {
        let level = |left_s| until("SSL", 1_000_000 + left_s, 1_000_000).level;
        assert_eq!(level(0), Level::Failed);
        assert_eq!(level(1), Level::Warning);
        assert_eq!(level(EXPIRES_SOON_DAYS * SECONDS_A_DAY - 1), Level::Warning);
        assert_eq!(level(EXPIRES_SOON_DAYS * SECONDS_A_DAY), Level::Ok);
    }
}
