//! Loads the configured certificate files into a ready TLS configuration.
//!
//! Always true here: a configuration is built whole or not at all, from one reading of the files; every
//! error names the file and what to do. `--trusted-ca-file` alone already demands client certificates,
//! as in etcd.
//!
//! Called at start-up and by `reload`; blocking reads of a few kilobytes. Does not watch anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::clients::{AllowedClients, ClientVerifier};
use super::self_signed::SelfSigned;
use super::{fields, suites};

/// Protocols offered in ALPN, in order of preference.
pub(super) const ALPN_OFFERED: [&[u8]; 2] = [b"h2", b"http/1.1"];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// The files and rules of one TLS listener, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Whom client certificates must be signed by; given, every client must present one.
    pub trusted_ca_file: Option<PathBuf>,
    pub client_cert_auth: bool,
    pub min_version: TlsVersion,
    pub extras: TlsExtras,
}

/// Rules that few operators give.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsExtras {
    /// `None`: the newest.
    pub max_version: Option<TlsVersion>,
    /// Go's names, checked; empty for all.
    pub cipher_suites: Vec<String>,
    /// Revoked certificates; matters where clients present theirs.
    pub crl_file: Option<PathBuf>,
    pub allowed: AllowedClients,
    /// The pair is made where it is not there.
    pub self_signed: Option<SelfSigned>,
}

/// A TLS file that cannot be used; the text says which and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsLoadError {
    #[error("{flag} {path}: cannot be read ({reason}); check the path and its permissions")]
    Unreadable {
        flag: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error("{flag} {path}: {reason}; give a PEM file")]
    Malformed {
        flag: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error(
        "--cert-file {cert} and --key-file {key} do not work together ({reason}); \
         give the key the certificate was made for"
    )]
    Mismatch {
        cert: PathBuf,
        key: PathBuf,
        reason: String,
    },
    #[error(
        "--cert-file {cert} holds a private key and --key-file {key} a certificate: they are swapped; give each its own file"
    )]
    Swapped { cert: PathBuf, key: PathBuf },
    #[error("{0}")]
    SelfSigned(String),
    #[error("--client-cert-auth needs --trusted-ca-file to check client certificates against")]
    NoTrustedCa,
}

impl TlsFiles {
    /// Every file named here, in a fixed order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [
            Some(&self.cert_file),
            Some(&self.key_file),
            self.trusted_ca_file.as_ref(),
            self.extras.crl_file.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
    }

    /// Reads all files and builds the configuration for new sessions.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsLoadError> {
        self.refuse_swapped()?;
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites =
            suites::choose(&self.extras.cipher_suites, &provider.cipher_suites);
        let provider = Arc::new(provider);
        let certificates = read_certificates("--cert-file", &self.cert_file)?;
        let key = read_key(&self.key_file)?;
        self.warn_of_end(&certificates);
        let versions: &[_] = match (self.min_version, self.extras.max_version) {
            (_, Some(TlsVersion::V1_2)) => &[&rustls::version::TLS12],
            (TlsVersion::V1_2, _) => &[&rustls::version::TLS13, &rustls::version::TLS12],
            (TlsVersion::V1_3, _) => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| TlsLoadError::Malformed {
                flag: "--cipher-suites",
                path: self.extras.cipher_suites.join(",").into(),
                reason: format!("leaves no suite for the TLS versions asked for ({error})"),
            })?;
        let builder = match &self.trusted_ca_file {
            Some(path) => {
                let inner = client_verifier(path, provider)?;
                builder.with_client_cert_verifier(Arc::new(ClientVerifier {
                    inner,
                    allowed: self.extras.allowed.clone(),
                    revoked: self.revoked()?,
                }))
            }
            None if self.client_cert_auth => return Err(TlsLoadError::NoTrustedCa),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| TlsLoadError::Mismatch {
                cert: self.cert_file.clone(),
                key: self.key_file.clone(),
                reason: error.to_string(),
            })?;
        config.alpn_protocols = ALPN_OFFERED.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl TlsFiles {
    /// Whether the pair is not there yet and will be made.
    pub fn is_missing(&self) -> bool {
        self.extras.self_signed.is_some() && !(self.cert_file.exists() && self.key_file.exists())
    }

    /// Makes the pair that is not given, if that is asked for.
    pub fn make_missing(&self) -> Result<(), TlsLoadError> {
        match &self.extras.self_signed {
            Some(pair) => pair
                .ensure(&self.cert_file, &self.key_file)
                .map_err(TlsLoadError::SelfSigned),
            None => Ok(()),
        }
    }

    fn refuse_swapped(&self) -> Result<(), TlsLoadError> {
        let holds = |path: &Path, what: &str| {
            // What cannot be read is said by who reads it for good.
            let text = std::fs::read(path).unwrap_or_default();
            text.windows(what.len())
                .any(|window| window == what.as_bytes())
        };
        let is_key = |path: &Path| holds(path, "PRIVATE KEY-----");
        let is_cert = |path: &Path| holds(path, "-----BEGIN CERTIFICATE-----");
        let (cert, key) = (&self.cert_file, &self.key_file);
        if is_key(cert) && !is_cert(cert) && is_cert(key) && !is_key(key) {
            return Err(TlsLoadError::Swapped {
                cert: cert.clone(),
                key: key.clone(),
            });
        }
        Ok(())
    }

    /// Clients will refuse it, and nothing else would say why.
    fn warn_of_end(&self, certificates: &[CertificateDer<'_>]) {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .map_or(0, |now| now.as_secs() as i64);
        let end = certificates
            .first()
            .and_then(|leaf| fields::not_after(leaf));
        if end.is_some_and(|end| end < now) {
            tracing::warn!(
                "cert-file" = %self.cert_file.display(),
                "the server's certificate has expired: clients that check it will not connect; renew it"
            );
        }
    }

    fn revoked(&self) -> Result<std::collections::BTreeSet<Vec<u8>>, TlsLoadError> {
        let Some(path) = &self.extras.crl_file else {
            return Ok(Default::default());
        };
        const FLAG: &str = "--client-crl-file";
        let mut bytes = read(FLAG, path)?;
        if let Ok(list) = rustls::pki_types::CertificateRevocationListDer::from_pem_slice(&bytes) {
            bytes = list.to_vec();
        }
        let serials = fields::revoked_serials(&bytes);
        let serials = serials.ok_or_else(|| TlsLoadError::Malformed {
            flag: FLAG,
            path: path.clone(),
            reason: "is no revocation list".to_owned(),
        })?;
        Ok(serials.into_iter().collect())
    }
}

fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsLoadError> {
    const FLAG: &str = "--trusted-ca-file";
    let malformed = |reason: String| TlsLoadError::Malformed {
        flag: FLAG,
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(FLAG, path)? {
        roots
            .add(certificate)
            .map_err(|error| malformed(format!("holds an unusable certificate ({error})")))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| malformed(error.to_string()))
}

fn read_certificates(
    flag: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsLoadError> {
    let bytes = read(flag, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let malformed = |reason: String| TlsLoadError::Malformed {
        flag,
        path: path.to_owned(),
        reason,
    };
    let certificates =
        certificates.map_err(|error| malformed(format!("is not valid PEM ({error})")))?;
    if certificates.is_empty() {
        return Err(malformed("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsLoadError> {
    const FLAG: &str = "--key-file";
    let bytes = read(FLAG, path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| TlsLoadError::Malformed {
        flag: FLAG,
        path: path.to_owned(),
        reason: format!("holds no usable private key ({error}); it must not be encrypted: `openssl pkey -in FILE -out PLAIN` decrypts one"),
    })
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsLoadError> {
    std::fs::read(path).map_err(|error| TlsLoadError::Unreadable {
        flag,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}
