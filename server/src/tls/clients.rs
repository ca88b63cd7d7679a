//! What is asked of a client's certificate beyond a known signer: that it is not revoked, and whom it names.
//!
//! Always true here: the library's own checks come first; a refusal is worded as etcd words it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{fields, subject};

/// Whom a client's certificate must name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum AllowedClients {
    #[default]
    Anybody,
    /// One of these as an alternative name.
    Hostnames(Vec<String>),
    /// One of these as the common name.
    CommonNames(Vec<String>),
}

impl AllowedClients {
    fn lets_in(&self, certificate: &CertificateDer<'_>) -> bool {
        match self {
            AllowedClients::Anybody => true,
            AllowedClients::CommonNames(names) => {
                let name = subject::common_name(certificate).unwrap_or_default();
                names.contains(&name)
            }
            AllowedClients::Hostnames(names) => {
                let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
                    return false;
                };
                names
                    .iter()
                    .filter_map(|name| ServerName::try_from(name.as_str()).ok())
                    .any(|name| verify_server_name(&parsed, &name).is_ok())
            }
        }
    }
}

/// The library's verifier and our questions behind it.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) allowed: AllowedClients,
    /// Serial numbers.
    pub(super) revoked: BTreeSet<Vec<u8>>,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(certificate, intermediates, now)?;
        if !self.allowed.lets_in(certificate) {
            let text = "client certificate authentication failed".to_owned();
            return Err(Error::General(text));
        }
        for certificate in std::iter::once(certificate).chain(intermediates) {
            let serial = fields::serial(certificate).unwrap_or_default();
            if self.revoked.contains(serial) {
                let shown: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
                let text = format!("transport: certificate serial {shown} revoked");
                return Err(Error::General(text));
            }
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
