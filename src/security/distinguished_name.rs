//! The subject of a certificate as Java writes it (X500Principal.getName, RFC 2253), which is who a client of a listener
//! with TLS is by default: `CN=client,OU=staff,O=Example,C=DE`.

use std::fmt::Write;

use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

/// The keywords of RFC 2253, by object identifier; everything else is written as the identifier itself.
const KEYWORDS: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// The subject of a certificate in DER; `None` where it is no certificate.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names: Vec<String> = Vec::new();
    for name in certificate.subject().iter_rdn() {
        let parts: Vec<String> = name.iter().map(attribute).collect();
        names.push(parts.join("+"));
    }
    names.reverse();
    Some(names.join(","))
}

/// Until when a certificate in DER is good, s since 1970; `None` where it is no certificate.
pub fn expires_s(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let identifier = attribute.attr_type().to_id_string();
    let keyword = KEYWORDS.iter().find(|(known, _)| *known == identifier);
    match (keyword, attribute.as_str()) {
        (Some((_, keyword)), Ok(value)) => format!("{keyword}={}", escaped(value)),
        _ => {
            let value = attribute.attr_value();
            let mut text = format!("{identifier}=#");
            let content = value.data;
            let tag = value.header.tag().0;
            // Strings are short: one byte of tag, and one or a few of length.
            let _ = write!(text, "{tag:02x}");
            text.push_str(&der_length(content.len()));
            for byte in content {
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

fn der_length(length: usize) -> String {
    match length {
        0..=0x7f => format!("{length:02x}"),
        0x80..=0xff => format!("81{length:02x}"),
        _ => format!("82{:04x}", length & 0xffff),
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::new();
    let last = value.chars().count().saturating_sub(1);
    for (at, letter) in value.chars().enumerate() {
        let is_edge_space = letter == ' ' && (at == 0 || at == last);
        let is_first_hash = letter == '#' && at == 0;
        if is_edge_space || is_first_hash || ",+\"\\<>;=".contains(letter) {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_separates_names_is_escaped() {
        assert_eq!(escaped("a, b"), "a\\, b");
        assert_eq!(escaped(" a "), "\\ a\\ ");
        assert_eq!(escaped("#1"), "\\#1");
    }

    #[test]
    fn a_subject_is_written_as_java_writes_it() {
        use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CountryName, "DE");
        name.push(DnType::OrganizationName, "Example, Inc");
        name.push(DnType::CommonName, "client");
        params.distinguished_name = name;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let subject = subject(certificate.der()).unwrap();
        assert_eq!(subject, "CN=client,O=Example\\, Inc,C=DE");
        assert_eq!(super::subject(b"x"), None);
    }
}
