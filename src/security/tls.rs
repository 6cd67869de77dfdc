//! Certificates and keys of listeners and of this broker's own connections, as PEM: read, checked, and read again when the
//! files change, without ending a connection.
//!
//! Tests: tests/authentication.rs, tests/certificates.rs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};

use super::distinguished_name::expires_s;

/// Where PEM comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// A file.
    File(PathBuf),
    /// The value of a setting.
    Text {
        /// The setting.
        key: &'static str,
        /// Its value.
        pem: String,
    },
}

/// Whether clients show certificates (`ssl.client.auth`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// Those that show one must own it.
    Requested,
    /// All must.
    Required,
}

/// What is said of TLS for one listener, or for this broker's own connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate with those that stand between it and the authority, and its key.
    pub identity: Option<(PemSource, PemSource)>,
    /// Authorities that are trusted.
    pub authorities: Option<PemSource>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// `TLSv1.2`, `TLSv1.3`.
    pub versions: Vec<String>,
    /// Suites that may be used; all of rustls' where there are none.
    pub suites: Vec<String>,
    /// Whether a server's certificate must be for the name that was connected to.
    pub verify_host: bool,
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Not what it should be.
    #[error("{0}: {1}")]
    Pem(String, String),
    /// A setting is missing.
    #[error("{0}")]
    Missing(&'static str),
    /// A suite that is not there.
    #[error("ssl.cipher.suites: {0} is not there; there are {1}")]
    Suite(String, String),
    /// What rustls says.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// It is over already.
    #[error("{0}: the certificate has expired, {1}")]
    Expired(String, String),
    /// No authority, or none that can be one.
    #[error("the trusted authorities cannot be used: {0}")]
    Authorities(String),
}

const IDENTITY_MISSING: &str = "a listener with TLS needs ssl.keystore.location (a PEM file with key and certificates), or tls.certificate and tls.key";
const AUTHORITIES_MISSING: &str = "ssl.client.auth needs the authorities of clients' certificates: ssl.truststore.location (a PEM file), or tls.ca";
const TRUST_MISSING: &str = "connections with TLS need the authorities of brokers' certificates: ssl.truststore.location (a PEM file), or tls.ca";

/// Without what it holds, which may be a key.
impl std::fmt::Debug for PemSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PemSource({})", self.name())
    }
}

impl PemSource {
    fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::File(path) => {
                std::fs::read(path).map_err(|error| TlsError::Read(path.clone(), error))
            }
            // Lines of a setting may be written as \n.
            Self::Text { pem, .. } => Ok(pem.replace("\\n", "\n").into_bytes()),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text { key, .. } => (*key).to_owned(),
        }
    }

    fn wrong(&self, what: impl Into<String>) -> TlsError {
        TlsError::Pem(self.name(), what.into())
    }

    /// Says how to make PEM of what is something else.
    fn check_form(&self, content: &[u8]) -> Result<(), TlsError> {
        let path = self.name();
        let to_pem = format!("openssl pkcs12 -in {path} -nodes -out {path}.pem");
        match content {
            [0xfe, 0xed, 0xfe, 0xed, ..] => Err(self.wrong(format!(
                "this is a JKS keystore; convert it: keytool -importkeystore -srckeystore {path} -destkeystore {path}.p12 -deststoretype PKCS12 && openssl pkcs12 -in {path}.p12 -nodes -out {path}.pem"
            ))),
            [0x30, 0x80..=0x84, ..] => Err(self.wrong(format!(
                "this is a PKCS#12 keystore; convert it: {to_pem}"
            ))),
            _ => Ok(()),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let content = self.read()?;
        self.check_form(&content)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
        match read {
            Ok(found) if found.is_empty() => Err(self.wrong("there is no certificate in it")),
            Ok(found) => Ok(found),
            Err(error) => Err(self.wrong(error.to_string())),
        }
    }

    /// Its certificates as authorities that are trusted.
    pub fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| self.wrong(error.to_string()))?;
        }
        Ok(Arc::new(roots))
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let content = self.read()?;
        self.check_form(&content)?;
        let is_encrypted = String::from_utf8_lossy(&content).contains("ENCRYPTED PRIVATE KEY");
        PrivateKeyDer::from_pem_slice(&content).map_err(|error| {
            self.wrong(match is_encrypted {
                true => format!(
                    "the private key is encrypted; decrypt it into a file that only the broker can read: openssl pkcs8 -in {} -out key.pem",
                    self.name()
                ),
                false => format!("there is no private key in it: {error}"),
            })
        })
    }
}

impl TlsSettings {
    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let known = [
            ("TLSv1.3", &rustls::version::TLS13),
            ("TLSv1.2", &rustls::version::TLS12),
        ];
        let is_enabled = |name: &str| self.versions.iter().any(|enabled| enabled == name);
        let enabled = known.into_iter().filter(|(name, _)| is_enabled(name));
        enabled.map(|(_, version)| version).collect()
    }

    fn provider(&self) -> Result<Arc<CryptoProvider>, TlsError> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let name = |suite: &rustls::SupportedCipherSuite| {
            format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
        };
        if !self.suites.is_empty() {
            let all: Vec<String> = provider.cipher_suites.iter().map(name).collect();
            if let Some(unknown) = self.suites.iter().find(|suite| !all.contains(suite)) {
                return Err(TlsError::Suite(unknown.clone(), all.join(", ")));
            }
            provider
                .cipher_suites
                .retain(|suite| self.suites.contains(&name(suite)));
        }
        Ok(Arc::new(provider))
    }

    fn authorities(&self) -> Result<Option<Arc<RootCertStore>>, TlsError> {
        let Some(source) = &self.authorities else {
            return Ok(None);
        };
        source.roots().map(Some)
    }

    fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let provider = self.provider()?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions())?;
        let builder = match (self.client_auth, self.authorities()?) {
            (ClientAuth::None, _) => builder.with_no_client_auth(),
            (_, None) => return Err(TlsError::Missing(AUTHORITIES_MISSING)),
            (asked, Some(roots)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match asked {
                    ClientAuth::Requested => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let wrong = |error: rustls::server::VerifierBuilderError| {
                    TlsError::Authorities(error.to_string())
                };
                builder.with_client_cert_verifier(verifier.build().map_err(wrong)?)
            }
        };
        let (certificate, key) = match &self.identity {
            Some((certificate, key)) => (certificate.certificates()?, key.key()?),
            None => return Err(TlsError::Missing(IDENTITY_MISSING)),
        };
        let config = builder.with_single_cert(certificate, key);
        let mut config = config.map_err(|error| self.of_identity(error))?;
        if self.client_auth != ClientAuth::None {
            // A certificate is looked at anew for each connection.
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        }
        Ok(config)
    }

    /// For connections to other brokers: a certificate is shown where there is one.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let provider = self.provider()?;
        let roots = self
            .authorities()?
            .ok_or(TlsError::Missing(TRUST_MISSING))?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions())?;
        let builder = match self.verify_host {
            true => builder.with_root_certificates(roots),
            false => {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider);
                let wrong = |error: rustls::client::VerifierBuilderError| {
                    TlsError::Authorities(error.to_string())
                };
                let inner = verifier.build().map_err(wrong)?;
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(AnyName(inner)))
            }
        };
        match &self.identity {
            Some((certificate, key)) => {
                let config = builder.with_client_auth_cert(certificate.certificates()?, key.key()?);
                config.map_err(|error| self.of_identity(error))
            }
            None => Ok(builder.with_no_client_auth()),
        }
    }

    /// Until when the certificate is good, s since 1970. Others in its file may be there for nothing.
    pub fn expires_s(&self) -> Result<i64, TlsError> {
        let Some((source, _)) = &self.identity else {
            return Err(TlsError::Missing(IDENTITY_MISSING));
        };
        let certificates = source.certificates()?;
        let leaf = certificates.first().and_then(|first| expires_s(first));
        leaf.ok_or_else(|| source.wrong("there is no certificate in it that can be read"))
    }

    /// An error about certificate and key, with the names of both where they do not fit.
    fn of_identity(&self, error: rustls::Error) -> TlsError {
        match (&error, &self.identity) {
            (rustls::Error::InconsistentKeys(_), Some((certificate, key))) => key.wrong(format!(
                "the private key does not fit the certificate in {}",
                certificate.name()
            )),
            _ => error.into(),
        }
    }

    /// What the files hold now, as a digest.
    fn fingerprint(&self) -> Vec<u8> {
        let mut all = digest::Context::new(&digest::SHA256);
        let identity = self.identity.iter().flat_map(|(a, b)| [a, b]);
        for source in identity.chain(&self.authorities) {
            all.update(&source.read().unwrap_or_default());
        }
        all.finish().as_ref().to_vec()
    }
}

/// A time as people write it.
fn told(s: i64) -> String {
    jiff::Timestamp::from_second(s).map_or_else(|_| s.to_string(), |time| time.to_string())
}

/// Trusts an authority's certificate whatever name it is for (`ssl.endpoint.identification.algorithm=`).
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The TLS of a listener: new connections get what was read last.
#[derive(Debug)]
pub struct ServerTls {
    settings: TlsSettings,
    current: ArcSwap<ServerConfig>,
    /// Until when what is shown is good, s since 1970.
    expires_s: AtomicI64,
    /// What was read last.
    seen: Mutex<Vec<u8>>,
    /// Why that cannot be used.
    failure: Mutex<Option<String>>,
}

impl ServerTls {
    /// Reads certificates and key.
    pub fn open(settings: TlsSettings) -> Result<Self, TlsError> {
        let seen = settings.fingerprint();
        Ok(Self {
            current: ArcSwap::from_pointee(settings.server_config()?),
            expires_s: settings.expires_s()?.into(),
            seen: Mutex::new(seen),
            failure: Mutex::default(),
            settings,
        })
    }

    /// What a new connection is served with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Until when the certificate is good that is shown, s since 1970.
    pub fn expires_s(&self) -> i64 {
        self.expires_s.load(Ordering::Relaxed)
    }

    /// Why what is in the files now cannot be used.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Reads the files again where they hold something else; whether they did. What is wrong, or over while what is shown is
    /// not, leaves all as it was, and is told once.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let now = self.settings.fingerprint();
        let mut seen = self.seen.lock();
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        let read = self.read_again();
        *self.failure.lock() = read.as_ref().err().map(TlsError::to_string);
        read.map(|()| true)
    }

    fn read_again(&self) -> Result<(), TlsError> {
        let config = self.settings.server_config()?;
        let expires_s = self.settings.expires_s()?;
        let now_s = jiff::Timestamp::now().as_second();
        if expires_s <= now_s && self.expires_s() > now_s {
            let name = self
                .settings
                .identity
                .as_ref()
                .map(|(source, _)| source.name());
            return Err(TlsError::Expired(name.unwrap_or_default(), told(expires_s)));
        }
        self.current.store(Arc::new(config));
        self.expires_s.store(expires_s, Ordering::Relaxed);
        Ok(())
    }
}
