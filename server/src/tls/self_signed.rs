//! A certificate of the member's own making, for `--auto-tls`.
//!
//! Always true here: files that are there are used as they are; the key is readable by its owner alone; the pair is written
//! as etcd would, in `<data-dir>/fixtures/client`, so either program finds the other's.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How to make the pair, should it not be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelfSigned {
    /// Addresses and names that it is for.
    pub hosts: Vec<String>,
    /// At least one.
    pub years: u32,
}

impl SelfSigned {
    /// Makes certificate and key, unless both are there.
    ///
    /// # Errors
    /// A file or its folder cannot be written; the text names it.
    pub fn ensure(&self, cert_file: &Path, key_file: &Path) -> Result<(), String> {
        if cert_file.exists() && key_file.exists() {
            return Ok(());
        }
        let (cert, key) = self.make().map_err(|error| error.to_string())?;
        let told = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| format!("--auto-tls: {path}: cannot be written: {error}")
        };
        if let Some(folder) = cert_file.parent() {
            let mut folders = fs::DirBuilder::new();
            let made = folders.recursive(true).mode(0o700).create(folder);
            made.map_err(told(folder))?;
        }
        fs::write(cert_file, cert).map_err(told(cert_file))?;
        tracing::info!(path = %cert_file.display(), "created cert file");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let key_written = options
            .open(key_file)
            .and_then(|mut file| file.write_all(key.as_bytes()));
        key_written.map_err(told(key_file))?;
        tracing::info!(path = %key_file.display(), "created key file");
        Ok(())
    }

    fn make(&self) -> Result<(String, String), rcgen::Error> {
        let mut hosts = self.hosts.clone();
        hosts.sort_unstable();
        hosts.dedup();
        let mut params = CertificateParams::new(hosts)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "etcd");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
        params.not_after = params.not_before + YEAR * self.years;
        tracing::warn!(
            "certificate-validity-bound-not-after" = %params.not_after,
            "automatically generate certificates"
        );
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}
