//! Cipher suites and versions by the names that Go gives them.
//!
//! Always true here: a name that Go does not know is refused in etcd's words. What Go knows and our library leaves out
//! (RSA key exchange, CBC, RC4, 3DES) is not offered, because none of it is safe.

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite;

/// Known to Go, and here if there is a suite beside the name.
const NAMES: &[(&str, Option<SupportedCipherSuite>)] = &[
    (
        "TLS_AES_128_GCM_SHA256",
        Some(cipher_suite::TLS13_AES_128_GCM_SHA256),
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        Some(cipher_suite::TLS13_AES_256_GCM_SHA384),
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        Some(cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        Some(cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        Some(cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        Some(cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", None),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", None),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", None),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", None),
    ("TLS_RSA_WITH_RC4_128_SHA", None),
];

/// The names of `--cipher-suites` that are known and not offered here.
///
/// # Errors
/// A name that nobody knows.
pub fn check_cipher_suites(names: &[String]) -> Result<Vec<&str>, String> {
    let mut absent = Vec::new();
    for name in names {
        match NAMES.iter().find(|(known, _)| known == name) {
            None => return Err(format!("unexpected TLS cipher suite {name:?}")),
            Some((_, None)) => absent.push(name.as_str()),
            Some((_, Some(_))) => {}
        }
    }
    Ok(absent)
}

/// The suites to offer. As with Go, the list chooses among those of TLS 1.2; those of TLS 1.3 are always there.
pub(super) fn choose(names: &[String], all: &[SupportedCipherSuite]) -> Vec<SupportedCipherSuite> {
    if names.is_empty() {
        return all.to_vec();
    }
    let is_newest = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    let mut chosen: Vec<_> = all.iter().copied().filter(is_newest).collect();
    for name in names {
        let found = NAMES.iter().find(|(known, _)| known == name);
        if let Some((_, Some(suite))) = found
            && !chosen.contains(suite)
        {
            chosen.push(*suite);
        }
    }
    chosen
}
