//! The certificates that this broker shows: until when they are good, and whether what is in their files can be used.

use std::sync::{Arc, OnceLock};

use crate::security::ServerTls;

/// One that is good for fewer days should be replaced.
pub const EXPIRES_SOON_DAYS: i64 = 14;

/// By the listener that shows it.
pub type ListenerTls = (String, Arc<ServerTls>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Certificates {
    all: OnceLock<Vec<ListenerTls>>,
}

/// A listener's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateState {
    /// The listener.
    pub listener: String,
    /// Until when it is good, s since 1970.
    pub expires_s: i64,
    /// Why what is in its files now cannot be used; what was read before is shown on.
    pub failure: Option<String>,
}

/// For how long a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateLeft {
    /// It is over.
    Expired,
    /// Whole days.
    Days(i64),
}

impl CertificateLeft {
    /// Of one that is good until then, s since 1970.
    pub fn of(expires_s: i64, now_s: i64) -> Self {
        match expires_s - now_s {
            ..=0 => Self::Expired,
            left => Self::Days(left / 86_400),
        }
    }
}

impl CertificateState {
    /// For how long it is good.
    pub fn left(&self, now: jiff::Timestamp) -> CertificateLeft {
        CertificateLeft::of(self.expires_s, now.as_second())
    }
}

impl Certificates {
    /// These are they, from now on.
    pub fn set(&self, all: Vec<ListenerTls>) {
        let _ = self.all.set(all);
    }

    /// Each with its listener.
    pub fn states(&self) -> Vec<CertificateState> {
        let all = self.all.get().into_iter().flatten();
        let state = |(listener, tls): &ListenerTls| CertificateState {
            listener: listener.clone(),
            expires_s: tls.expires_s(),
            failure: tls.failure(),
        };
        all.map(state).collect()
    }
}
