//! What this program is made of: where its dependencies come from, under which licenses, and what must not be among them.

use std::collections::BTreeSet;
use std::process::Command;

/// The only source.
const REGISTRY: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Licenses under which a dependency may be; one that offers several needs one of these.
const LICENSES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unlicense",
    "CC0-1.0",
    "BSL-1.0",
    "Unicode-3.0",
];

/// What must not come in: a second implementation of TLS, of its cryptography, of an allocator or of a runtime.
const BANNED: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "ring",
    "async-std",
    "smol",
    "mimalloc",
    "reqwest",
    "chrono",
];

/// Name, version and license of each package that is compiled in, on this system.
fn packages() -> BTreeSet<[String; 3]> {
    let words = "tree --locked --offline --edges normal,build --prefix none --no-dedupe --format";
    let output = Command::new(env!("CARGO"))
        .args(words.split(' '))
        .arg("{p}|{l}")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('|'));
    let packages = lines.filter_map(|(package, license)| {
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?);
        Some([name, version, license].map(str::to_owned))
    });
    packages.collect()
}

/// Whether one of the licenses that an expression offers is known, for each part that must be met.
fn is_licensed(expression: &str) -> bool {
    // The older form.
    let expression = expression.replace('/', " OR ");
    let expression = expression.replace(['(', ')'], "");
    let offers = |part: &str| part.split(" OR ").any(|one| LICENSES.contains(&one.trim()));
    expression.split(" AND ").all(offers)
}

#[test]
fn dependencies_have_known_licenses_and_none_is_banned() {
    let packages = packages();
    assert!(packages.len() > 100);
    for [name, _, license] in &packages {
        assert!(is_licensed(license), "{name}: {license}");
        assert!(!BANNED.contains(&name.as_str()), "{name} is banned");
    }
}

#[test]
fn dependencies_come_from_one_registry() {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    let sources = lock.lines().filter(|line| line.starts_with("source = "));
    let sources: BTreeSet<&str> = sources.collect();
    assert_eq!(sources, BTreeSet::from([REGISTRY]));
}

#[test]
fn what_authenticates_and_encrypts_is_there_once() {
    let packages = packages();
    for name in ["aws-lc-rs", "rustls", "rustls-webpki", "jsonwebtoken"] {
        let found = packages.iter().filter(|[found, _, _]| found == name);
        assert_eq!(found.count(), 1, "{name}");
    }
}

#[test]
fn a_license_that_is_not_known_is_refused() {
    assert!(is_licensed("MIT OR GPL-3.0"));
    assert!(is_licensed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!is_licensed("GPL-3.0"));
    assert!(!is_licensed("MIT AND GPL-3.0"));
    assert!(!is_licensed(""));
}
