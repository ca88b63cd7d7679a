//! What is configured of TLS for clients.
//!
//! Always true here: refusals are worded as etcd words them; no file is read yet.

use std::path::Path;

use super::raw::RawConfig;
use super::urls::Url;
use super::{Notice, Refusal};
use crate::tls::{
    AllowedClients, SelfSigned, TlsExtras, TlsFiles, TlsVersion, check_cipher_suites,
};

/// The files and rules for the addresses that want TLS; `None` if none does.
pub(super) fn client(
    raw: &RawConfig,
    listen: &[Url],
    metrics: &[Url],
    data_dir: &Path,
    notices: &mut Vec<Notice>,
) -> Result<Option<TlsFiles>, Refusal> {
    let (min_version, max_version) = versions(raw)?;
    let cipher_suites = cipher_suites(raw, min_version, notices)?;
    let (cert, key) = (raw.text("cert-file"), raw.text("key-file"));
    if cert.is_empty() != key.is_empty() {
        return Err(Refusal::new(format!(
            "KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"
        )));
    }
    let own = (raw.text("client-cert-file"), raw.text("client-key-file"));
    if own.0.is_empty() != own.1.is_empty() {
        return Err(Refusal::new(format!(
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: {}, cert: {}]",
            own.1, own.0
        )));
    }
    let has_files = !cert.is_empty();
    let makes_files = raw.bool("auto-tls") && !has_files;
    if raw.bool("auto-tls") && has_files {
        let text = "ignoring client auto TLS since certs given";
        notices.push(Notice::warning(text));
    }
    check_schemes(raw, listen, (has_files, has_files || makes_files), notices)?;
    if !has_files && !makes_files && metrics.iter().any(Url::is_tls) {
        return Err(Refusal::new(
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ));
    }
    let self_signed = match makes_files {
        true => Some(self_signed(raw, listen)?),
        false => None,
    };
    if !listen.iter().chain(metrics).any(Url::is_tls) {
        return Ok(None);
    }
    let folder = data_dir.join("fixtures").join("client");
    let (cert_file, key_file) = match makes_files {
        true => (folder.join("cert.pem"), folder.join("key.pem")),
        false => (cert.into(), key.into()),
    };
    let given = |name: &str| match raw.text(name) {
        "" => None,
        path => Some(path.into()),
    };
    Ok(Some(TlsFiles {
        cert_file,
        key_file,
        trusted_ca_file: given("trusted-ca-file"),
        client_cert_auth: raw.bool("client-cert-auth"),
        min_version,
        extras: TlsExtras {
            max_version,
            cipher_suites,
            crl_file: given("client-crl-file"),
            allowed: allowed(raw)?,
            self_signed,
        },
    }))
}

/// `(given, there)`: whether files were given, and whether there will be some.
fn check_schemes(
    raw: &RawConfig,
    listen: &[Url],
    (given, there): (bool, bool),
    notices: &mut Vec<Notice>,
) -> Result<(), Refusal> {
    for url in listen {
        if url.is_tls() && !there {
            return Err(Refusal::new(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            )));
        }
        if !url.is_tls() && given {
            notices.push(Notice::warning(format!(
                "scheme is http or unix while key and cert files are present; ignoring key and cert files for {url}"
            )));
        }
        if !url.is_tls() && raw.bool("client-cert-auth") {
            notices.push(Notice::warning(format!(
                "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for {url}"
            )));
        }
    }
    Ok(())
}

fn versions(raw: &RawConfig) -> Result<(TlsVersion, Option<TlsVersion>), Refusal> {
    let version = |name: &str| match raw.text(name) {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(TlsVersion::V1_2)),
        "TLS1.3" => Ok(Some(TlsVersion::V1_3)),
        other => Err(Refusal::new(format!(
            "unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)"
        ))),
    };
    let min = version("tls-min-version")?;
    let max = version("tls-max-version")?;
    if (min, max) == (Some(TlsVersion::V1_3), Some(TlsVersion::V1_2)) {
        return Err(Refusal::new(
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ));
    }
    Ok((min.unwrap_or(TlsVersion::V1_2), max))
}

fn cipher_suites(
    raw: &RawConfig,
    min_version: TlsVersion,
    notices: &mut Vec<Notice>,
) -> Result<Vec<String>, Refusal> {
    let names = raw.list("cipher-suites");
    if !names.is_empty() && min_version == TlsVersion::V1_3 {
        return Err(Refusal::new(
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ));
    }
    let absent = check_cipher_suites(&names).map_err(Refusal::new)?;
    if !absent.is_empty() {
        notices.push(Notice::warning(format!(
            "--cipher-suites: {} not offered: they are not safe, and the TLS library has none of them",
            absent.join(", ")
        )));
    }
    Ok(names)
}

fn self_signed(raw: &RawConfig, listen: &[Url]) -> Result<SelfSigned, Refusal> {
    let years = u32::try_from(raw.integer("self-signed-cert-validity")).unwrap_or(u32::MAX);
    if years == 0 {
        return Err(Refusal::new(
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ));
    }
    let hosts = listen.iter().filter(|url| !url.is_unix());
    Ok(SelfSigned {
        hosts: hosts.map(|url| url.host.clone()).collect(),
        // Beyond this the date has no form any more.
        years: years.min(1000),
    })
}

fn allowed(raw: &RawConfig) -> Result<AllowedClients, Refusal> {
    let hostnames = raw.list("client-cert-allowed-hostname");
    let names = raw.list("client-cert-allowed-cn");
    match (hostnames.is_empty(), names.is_empty()) {
        (true, true) => Ok(AllowedClients::Anybody),
        (false, true) => Ok(AllowedClients::Hostnames(hostnames)),
        (true, false) => Ok(AllowedClients::CommonNames(names)),
        (false, false) => Err(Refusal::new(format!(
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns={names:?}, hostnames={hostnames:?})"
        ))),
    }
}
