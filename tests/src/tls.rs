//! Throw-away certificates: one authority, one for the server, one for clients, as PEM files in a scratch directory.
//!
//! Made afresh for each test that asks; the keys protect nothing and go with the directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rcgen::{DnType, KeyUsagePurpose};
use tempfile::TempDir;

use crate::server::scratch_dir;

/// Where the PEM files lie; removed with the last holder.
pub struct TlsFiles {
    pub ca_cert: PathBuf,
    pub server_cert: PathBuf,
    pub server_key: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
    /// Held so that the files stay; shared with what [`TlsFiles::trusting`] made from it.
    _dirs: Vec<Arc<TempDir>>,
}

impl TlsFiles {
    pub fn create() -> Arc<TlsFiles> {
        let dir = scratch_dir();
        let ca_key = KeyPair::generate().expect("key generation needs only random bytes");
        let mut ca = CertificateParams::new(Vec::new()).expect("no names, no bad names");
        ca.distinguished_name
            .push(DnType::CommonName, "suite authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = ca
            .self_signed(&ca_key)
            .expect("parameters of our own making")
            .pem();
        let issuer = Issuer::new(ca, ca_key);
        // One certificate serves both purposes, because etcd's own gateway dials its server with the server's certificate.
        let both = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (server_cert, server_key) = leaf(dir.path(), "server", &both, &issuer);
        let (client_cert, client_key) = leaf(dir.path(), "client", &both[1..], &issuer);
        let ca_cert = write(dir.path(), "ca.pem", &ca_pem);
        Arc::new(TlsFiles {
            ca_cert,
            server_cert,
            server_key,
            client_cert,
            client_key,
            _dirs: vec![Arc::new(dir)],
        })
    }

    /// These certificates for a client that trusts the authority of `other`: a stranger who knows whom to call.
    pub fn trusting(&self, other: &TlsFiles) -> TlsFiles {
        TlsFiles {
            ca_cert: other.ca_cert.clone(),
            server_cert: self.server_cert.clone(),
            server_key: self.server_key.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            _dirs: self._dirs.iter().chain(&other._dirs).cloned().collect(),
        }
    }
}

fn leaf(
    dir: &Path,
    name: &str,
    purposes: &[ExtendedKeyUsagePurpose],
    issuer: &Issuer<'_, KeyPair>,
) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().expect("key generation needs only random bytes");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("two good names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = purposes.to_vec();
    let cert = params
        .signed_by(&key, issuer)
        .expect("parameters of our own making");
    (
        write(dir, &format!("{name}.pem"), &cert.pem()),
        write(dir, &format!("{name}-key.pem"), &key.serialize_pem()),
    )
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    fs::write(&file, text).expect("a scratch directory is writable");
    file
}
