//! Handshakes in memory against a client of the same library, with certificates made for each test.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::files::TlsLoadError;
use super::session::TlsError;
use super::*;

/// A certificate authority with a directory to put files into.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority {
            issuer,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Certificate and key, both PEM.
    fn issue(&self, common_name: Option<&str>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "an organisation");
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn write(&self, name: &str, content: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn files(&self, with_ca: bool) -> TlsFiles {
        let (certificate, key) = self.issue(Some("server"));
        TlsFiles {
            cert_file: self.write("cert.pem", &certificate),
            key_file: self.write("key.pem", &key),
            trusted_ca_file: with_ca.then(|| self.write("ca.pem", &self.issuer.pem())),
            client_cert_auth: with_ca,
            min_version: TlsVersion::V1_2,
            extras: TlsExtras::default(),
        }
    }

    fn client(&self, alpn: &[&[u8]], identity: Option<(String, String)>) -> ClientConnection {
        self.client_of(rustls::ALL_VERSIONS, alpn, identity)
    }

    fn client_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
        identity: Option<(String, String)>,
    ) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
    }
}

/// Carries bytes both ways, `step` at a time, until nobody has any. Returns what the server decrypted,
/// then what the client did.
fn carry(
    client: &mut ClientConnection,
    server: &mut TlsSession,
    step: usize,
) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    loop {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let fed = up
            .chunks(step)
            .try_for_each(|piece| server.feed(piece, &mut at_server));
        server.take_output(&mut down);
        let mut rest = &down[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            // A client that was refused says so here; the test looks at the server's side.
            let Ok(state) = client.process_new_packets() else {
                break;
            };
            let begin = at_client.len();
            at_client.resize(begin + state.plaintext_bytes_to_read(), 0);
            std::io::Read::read_exact(&mut client.reader(), &mut at_client[begin..]).unwrap();
        }
        fed?;
        if up.is_empty() && down.is_empty() {
            return Ok((at_server, at_client));
        }
    }
}

fn session(files: &TlsFiles) -> TlsSession {
    TlsSession::new(files.load().unwrap())
}

#[test]
fn bytes_pass_both_ways_however_they_are_split() {
    let authority = Authority::new();
    let files = authority.files(false);
    for step in [1, 7, 100_000] {
        let (mut client, mut server) = (authority.client(&[b"h2"], None), session(&files));
        assert!(server.is_handshaking());
        assert_eq!(
            carry(&mut client, &mut server, step).unwrap(),
            (vec![], vec![])
        );
        assert!(!server.is_handshaking());
        assert_eq!(
            (server.alpn(), server.peer_common_name()),
            (Alpn::Http2, None)
        );

        let request: Vec<u8> = (0..40_000u32).map(|i| i as u8).collect();
        std::io::Write::write_all(&mut client.writer(), &request).unwrap();
        let reply: Vec<u8> = (0..300_000u32).map(|i| (i * 7) as u8).collect();
        server.send(&reply);
        assert!(server.has_output());
        assert!(carry(&mut client, &mut server, step).unwrap() == (request, reply));
        assert!(!server.has_output() && !server.is_peer_closed());

        client.send_close_notify();
        carry(&mut client, &mut server, step).unwrap();
        assert!(server.is_peer_closed());
        server.send_close();
        assert!(server.has_output());
    }
}

#[test]
fn alpn_decides_what_is_spoken() {
    let authority = Authority::new();
    let files = authority.files(false);
    let chosen = |offered: &[&[u8]]| {
        let (mut client, mut server) = (authority.client(offered, None), session(&files));
        carry(&mut client, &mut server, 4096).map(|_| server.alpn())
    };
    assert_eq!(chosen(&[b"http/1.1", b"h2"]).unwrap(), Alpn::Http2);
    assert_eq!(chosen(&[b"http/1.1"]).unwrap(), Alpn::Http1);
    assert_eq!(chosen(&[]).unwrap(), Alpn::Absent);
    assert_eq!(
        chosen(&[b"spdy"]).unwrap_err().reason(),
        "nothing_in_common"
    );
}

#[test]
fn old_versions_are_refused_when_told_so() {
    let authority = Authority::new();
    let mut files = authority.files(false);
    let tls12 = || authority.client_of(&[&rustls::version::TLS12], &[], None);
    carry(&mut tls12(), &mut session(&files), 4096).unwrap();
    files.min_version = TlsVersion::V1_3;
    let error = carry(&mut tls12(), &mut session(&files), 4096).unwrap_err();
    assert_eq!(error.reason(), "nothing_in_common");
}

#[test]
fn client_certificates_are_demanded_and_named() {
    let authority = Authority::new();
    let mut files = authority.files(true);
    let result = |identity| {
        let (mut client, mut server) = (authority.client(&[], identity), session(&files));
        carry(&mut client, &mut server, 4096).map(|_| server.peer_common_name())
    };
    assert_eq!(
        result(Some(authority.issue(Some("käthe"))))
            .unwrap()
            .as_deref(),
        Some("käthe")
    );
    assert_eq!(result(Some(authority.issue(None))).unwrap(), None);
    assert_eq!(result(None).unwrap_err().reason(), "no_client_certificate");
    let stranger = Authority::new().issue(Some("stranger"));
    assert_eq!(
        result(Some(stranger)).unwrap_err().reason(),
        "bad_client_certificate"
    );

    // The authority's file alone demands certificates, too; without it there is nothing to check with.
    files.client_cert_auth = false;
    let (mut client, mut server) = (authority.client(&[], None), session(&files));
    assert!(carry(&mut client, &mut server, 4096).is_err());
    files = TlsFiles {
        client_cert_auth: true,
        trusted_ca_file: None,
        ..files
    };
    assert!(matches!(files.load(), Err(TlsLoadError::NoTrustedCa)));
}

#[test]
fn plain_bytes_on_a_tls_port_are_told_apart() {
    let authority = Authority::new();
    let files = authority.files(false);
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let error = session(&files).feed(bytes, &mut Vec::new()).unwrap_err();
        assert_eq!(error.reason(), "not_tls", "{error}");
    }
}

#[test]
fn damaged_records_end_the_session_with_an_alert() {
    let authority = Authority::new();
    let (mut client, mut server) = (
        authority.client(&[], None),
        session(&authority.files(false)),
    );
    carry(&mut client, &mut server, 4096).unwrap();
    std::io::Write::write_all(&mut client.writer(), b"hello").unwrap();
    let mut ciphertext = Vec::new();
    client.write_tls(&mut ciphertext).unwrap();
    *ciphertext.last_mut().unwrap() ^= 1;
    let mut plaintext = Vec::new();
    assert_eq!(
        server
            .feed(&ciphertext, &mut plaintext)
            .unwrap_err()
            .reason(),
        "protocol"
    );
    assert!(plaintext.is_empty() && server.has_output());
}

#[test]
fn broken_files_are_named_with_a_remedy() {
    let authority = Authority::new();
    let good = authority.files(true);
    let refused = |files: TlsFiles| files.load().unwrap_err().to_string();
    let absent = Path::new("/nonexistent/cert.pem");
    let text = refused(TlsFiles {
        cert_file: absent.to_owned(),
        ..good.clone()
    });
    assert!(
        text.starts_with("--cert-file /nonexistent/cert.pem: cannot be read"),
        "{text}"
    );
    let junk = authority.write("junk.pem", "no certificate here");
    let text = refused(TlsFiles {
        cert_file: junk.clone(),
        ..good.clone()
    });
    assert_eq!(
        text,
        format!(
            "--cert-file {}: holds no certificate; give a PEM file",
            junk.display()
        )
    );
    let text = refused(TlsFiles {
        key_file: junk.clone(),
        ..good.clone()
    });
    assert!(
        text.starts_with(&format!("--key-file {}: holds no usable", junk.display())),
        "{text}"
    );
    let text = refused(TlsFiles {
        trusted_ca_file: Some(junk),
        ..good.clone()
    });
    assert!(text.starts_with("--trusted-ca-file "), "{text}");
    let other = authority.write("other.pem", &authority.issue(None).1);
    let text = refused(TlsFiles {
        key_file: other,
        ..good
    });
    assert!(text.contains("do not work together"), "{text}");
}

#[test]
fn changed_files_are_used_without_a_restart_and_broken_ones_are_not() {
    let authority = Authority::new();
    let files = authority.files(false);
    let start = Instant::now();
    let mut reloader = CertReloader::new(files.clone(), start).unwrap();
    let first = Arc::clone(reloader.current(start));
    let later = |seconds| start + Duration::from_secs(seconds);

    // Unchanged: the same configuration, however often it is asked for.
    assert!(Arc::ptr_eq(&first, reloader.current(later(2))));

    // Changed, but looked at too soon.
    let (certificate, key) = authority.issue(Some("renewed"));
    authority.write("cert.pem", &certificate);
    assert!(Arc::ptr_eq(&first, reloader.current(later(2))));

    // The certificate was replaced and the key was not yet: the old pair stays.
    assert!(Arc::ptr_eq(&first, reloader.current(later(4))));
    authority.write("key.pem", &key);
    let second = Arc::clone(reloader.current(later(6)));
    assert!(!Arc::ptr_eq(&first, &second));
    let (mut client, mut server) = (authority.client(&[], None), TlsSession::new(second.clone()));
    carry(&mut client, &mut server, 4096).unwrap();
    let shown = client.peer_certificates().unwrap()[0].clone();
    assert_eq!(subject::common_name(&shown).as_deref(), Some("renewed"));

    // Gone and back again.
    fs::remove_file(&files.cert_file).unwrap();
    assert!(Arc::ptr_eq(&second, reloader.current(later(8))));
    authority.write("cert.pem", &certificate);
    assert!(!Arc::ptr_eq(&second, reloader.current(later(10))));
}

#[test]
fn any_bytes_are_safe_to_read_a_name_from() {
    let authority = Authority::new();
    let (pem, _) = authority.issue(Some("name"));
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(subject::common_name(&der).as_deref(), Some("name"));
    for cut in 0..der.len() {
        assert_eq!(subject::common_name(&der[..cut]), None, "cut at {cut}");
    }
    for position in 0..der.len() {
        let mut damaged = der.to_vec();
        damaged[position] = 0xff;
        let _ = subject::common_name(&damaged);
    }
    assert_eq!(subject::common_name(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
}

#[test]
fn clients_are_asked_for_names_and_revocation() {
    let authority = Authority::new();
    let mut files = authority.files(true);
    let identity = authority.issue(Some("käthe"));
    let result = |files: &TlsFiles, identity: &(String, String)| {
        let identity = Some(identity.clone());
        let (mut client, mut server) = (authority.client(&[], identity), session(files));
        carry(&mut client, &mut server, 4096).map(drop)
    };
    let refused = |files: &TlsFiles, identity: &(String, String), text: &str| {
        let error = result(files, identity).unwrap_err();
        assert_eq!(error.reason(), "bad_client_certificate");
        assert!(error.to_string().ends_with(text), "{error}");
    };
    let failed = "client certificate authentication failed";
    for (allowed, is_in) in [
        (
            AllowedClients::CommonNames(vec!["x".to_owned(), "käthe".to_owned()]),
            true,
        ),
        (AllowedClients::CommonNames(vec!["kathe".to_owned()]), false),
        (
            AllowedClients::Hostnames(vec!["x".to_owned(), "localhost".to_owned()]),
            true,
        ),
        (
            AllowedClients::Hostnames(vec!["example.com".to_owned()]),
            false,
        ),
        // A common name is no host name.
        (AllowedClients::Hostnames(vec!["käthe".to_owned()]), false),
    ] {
        files.extras.allowed = allowed;
        match is_in {
            true => result(&files, &identity).unwrap(),
            false => refused(&files, &identity, failed),
        }
    }
    files.extras.allowed = AllowedClients::Anybody;

    let der = CertificateDer::from_pem_slice(identity.0.as_bytes()).unwrap();
    let serial = fields::serial(&der).unwrap().to_vec();
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2024, 1, 2),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from(serial.clone()),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&authority.issuer).unwrap();
    let shown: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
    let revoked = format!("transport: certificate serial {shown} revoked");
    for bytes in [list.der().to_vec(), list.pem().unwrap().into_bytes()] {
        let path = authority.dir.path().join("list");
        fs::write(&path, bytes).unwrap();
        files.extras.crl_file = Some(path);
        refused(&files, &identity, &revoked);
        result(&files, &authority.issue(Some("another"))).unwrap();
    }
    files.extras.crl_file = Some(authority.write("junk.crl", "no list"));
    let text = files.load().unwrap_err().to_string();
    assert!(text.contains("junk.crl: is no revocation list"), "{text}");
}

#[test]
fn a_client_that_shows_its_authority_is_told_so() {
    let authority = Authority::new();
    let files = authority.files(true);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let identity = (certificate.pem(), key.serialize_pem());
    let (mut client, mut server) = (authority.client(&[], Some(identity)), session(&files));
    let error = carry(&mut client, &mut server, 4096)
        .unwrap_err()
        .to_string();
    assert!(error.contains("certificate of an authority"), "{error}");
}

#[test]
fn suites_and_the_newest_version_are_chosen() {
    let authority = Authority::new();
    let mut files = authority.files(false);
    let tls12 = || authority.client_of(&[&rustls::version::TLS12], &[], None);
    let suite = |files: &TlsFiles, mut client: ClientConnection| {
        carry(&mut client, &mut session(files), 4096)
            .map(|_| format!("{:?}", client.negotiated_cipher_suite().unwrap().suite()))
    };
    files.extras.cipher_suites = vec![
        "TLS_RSA_WITH_AES_128_CBC_SHA".to_owned(),
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305".to_owned(),
    ];
    let chosen = suite(&files, tls12()).unwrap();
    assert_eq!(chosen, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
    assert!(
        suite(&files, authority.client(&[], None))
            .unwrap()
            .starts_with("TLS13_")
    );
    files.extras.max_version = Some(TlsVersion::V1_2);
    let newest = suite(&files, authority.client(&[], None)).unwrap();
    assert_eq!(newest, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
    let tls13 = authority.client_of(&[&rustls::version::TLS13], &[], None);
    assert_eq!(
        suite(&files, tls13).unwrap_err().reason(),
        "nothing_in_common"
    );
    files.extras.cipher_suites = vec!["TLS_RSA_WITH_AES_128_CBC_SHA".to_owned()];
    let text = files.load().unwrap_err().to_string();
    assert!(text.contains("leaves no suite"), "{text}");
    let names = ["TLS_NOBODY".to_owned()];
    let unknown = check_cipher_suites(&names);
    assert_eq!(
        unknown,
        Err("unexpected TLS cipher suite \"TLS_NOBODY\"".to_owned())
    );
}

#[test]
fn a_pair_of_its_own_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("fixtures").join("client");
    let files = TlsFiles {
        cert_file: folder.join("cert.pem"),
        key_file: folder.join("key.pem"),
        trusted_ca_file: None,
        client_cert_auth: false,
        min_version: TlsVersion::V1_2,
        extras: TlsExtras {
            self_signed: Some(SelfSigned {
                hosts: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
                years: 1,
            }),
            ..TlsExtras::default()
        },
    };
    files.make_missing().unwrap();
    let made = fs::read(&files.cert_file).unwrap();
    files.make_missing().unwrap();
    assert_eq!(fs::read(&files.cert_file).unwrap(), made);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(&files.key_file).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let der = CertificateDer::from_pem_slice(&made).unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let left = fields::not_after(&der).unwrap() - now.as_secs() as i64;
    assert!(
        (364 * 24 * 3600..=365 * 24 * 3600).contains(&left),
        "{left} seconds"
    );
    files.load().unwrap();
}

#[test]
fn swapped_files_are_told_apart() {
    let authority = Authority::new();
    let files = authority.files(false);
    let swapped = TlsFiles {
        cert_file: files.key_file.clone(),
        key_file: files.cert_file.clone(),
        ..files
    };
    let text = swapped.load().unwrap_err().to_string();
    assert!(
        text.ends_with("they are swapped; give each its own file"),
        "{text}"
    );
}
