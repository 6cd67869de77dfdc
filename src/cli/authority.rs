//! An authority of one's own, and the certificates that it signs: as files.
//!
//! Tests: tests/certificates.rs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::Failure;

/// How long the certificates are valid, days.
pub(super) const DAYS: u32 = 825;
/// Files that only their owner reads.
pub(super) const PRIVATE_MODE: u32 = 0o600;
pub(super) const PUBLIC_MODE: u32 = 0o644;
/// Names that every broker's certificate is for.
const OWN_NAMES: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// See the module's documentation.
pub(super) struct Authority {
    /// PEM.
    pub(super) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for.
pub(super) enum Certified<'a> {
    /// A broker, by the names and addresses that clients connect to, besides localhost.
    Broker { names: &'a [String] },
    /// A client: the user of that name.
    Client { name: &'a str },
}

/// A certificate that was signed, and its key; PEM.
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    /// A new one.
    pub(super) fn make(name: &str) -> Result<Self, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for_days(&mut params, DAYS * 4);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// The one whose files these are.
    pub(super) fn open(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let wrong = |path: &Path, error: rcgen::Error| format!("{}: {error}", path.display());
        let (text, key_text) = (read(certificate)?, read(key)?);
        let key_pair = KeyPair::from_pem(&key_text).map_err(|error| wrong(key, error))?;
        check_authority(certificate, &text, &key_pair).map_err(|why| {
            format!(
                "{} cannot sign with {}: {why}",
                certificate.display(),
                key.display()
            )
        })?;
        let issuer = Issuer::from_ca_cert_pem(&text, key_pair);
        Ok(Self {
            certificate: text,
            issuer: issuer.map_err(|error| wrong(certificate, error))?,
        })
    }

    /// Its key, PEM.
    pub(super) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate with a key of its own.
    pub(super) fn sign(&self, whom: Certified<'_>) -> Result<Signed, Failure> {
        use ExtendedKeyUsagePurpose as Purpose;
        let (name, names, purposes) = match whom {
            Certified::Broker { names } => {
                let first = names.first().map_or("localhost", String::as_str);
                let own = OWN_NAMES.iter().map(|name| (*name).to_owned());
                let all: Vec<String> = own.chain(names.iter().cloned()).collect();
                // Brokers are clients of each other.
                (first, all, vec![Purpose::ServerAuth, Purpose::ClientAuth])
            }
            Certified::Client { name } => (name, Vec::new(), vec![Purpose::ClientAuth]),
        };
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes;
        valid_for_days(&mut params, DAYS);
        let key = KeyPair::generate()?;
        Ok(Signed {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// What was signed with another key, by what is no authority or is over, nobody would trust.
fn check_authority(file: &Path, text: &str, key: &KeyPair) -> Result<(), String> {
    let der = CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let (_, certificate) =
        X509Certificate::from_der(&der).map_err(|error| format!("{}: {error}", file.display()))?;
    let own = certificate.public_key().subject_public_key.data.as_ref();
    match () {
        () if own != key.public_key_raw() => Err("the key is not the certificate's".to_owned()),
        () if !certificate.is_ca() => Err("the certificate is no authority's".to_owned()),
        () if !certificate.validity().is_valid() => {
            Err("the authority's certificate is over".to_owned())
        }
        () => Ok(()),
    }
}

/// From an hour ago, so that clocks may differ.
fn valid_for_days(params: &mut CertificateParams, days: u32) {
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);
    params.not_before = (now - hour).into();
    params.not_after = (now + hour * 24 * days).into();
}

pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file);
    text.map_err(|error| format!("cannot read {}: {error}", file.display()).into())
}

/// The files that a command makes, in the order in which it does.
pub(super) struct Files {
    pub(super) directory: PathBuf,
    /// Whether they take the place of those that are there.
    pub(super) replace: bool,
    pub(super) made: Vec<(String, &'static str)>,
}

impl Files {
    pub(super) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Before any is made: that none of these is there, unless they are to be replaced.
    pub(super) fn check_free(&self, names: &[String]) -> Result<(), Failure> {
        let mut taken = names
            .iter()
            .filter(|name| self.directory.join(name).exists());
        match taken.next() {
            Some(name) if !self.replace => Err(format!(
                "{} is there already: --replace takes its place",
                self.path(name)
            )
            .into()),
            _ => Ok(()),
        }
    }

    pub(super) fn write(
        &mut self,
        name: &str,
        what: &'static str,
        text: &str,
        mode: u32,
    ) -> Result<(), Failure> {
        let path = self.directory.join(name);
        let new = match self.replace {
            true => self.directory.join(format!(".{name}.new")),
            false => path.clone(),
        };
        if self.replace {
            let _ = fs::remove_file(&new);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)
            .map_err(|error| format!("cannot make {}: {error}", new.display()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if self.replace {
            fs::rename(&new, &path)?;
        }
        self.made.push((path.display().to_string(), what));
        Ok(())
    }
}
