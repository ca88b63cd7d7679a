//! HTTP/1.1 requests and bare bytes on the client port, without any HTTP library in between.
//!
//! Each request uses a connection of its own and asks the server to close it; reads are bounded in time.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::server::Server;
use crate::tls::TlsFiles;

/// A peer that sends nothing for this long has failed the test.
const READ_MAX: Duration = Duration::from_secs(20);

/// A parsed HTTP/1.1 answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// `GET path`, over TLS when the server has it.
pub fn get(server: &Server, path: &str) -> Reply {
    request(server, "GET", path)
}

/// A request without a body.
pub fn request(server: &Server, method: &str, path: &str) -> Reply {
    let stream = connect(server);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.address()
    );
    let bytes = match server.tls() {
        Some(tls) => exchange(tls_stream(stream, tls), head.as_bytes()),
        None => exchange(stream, head.as_bytes()),
    };
    parse(&bytes)
}

/// Sends `bytes` to the client port as they are, nothing more, and returns everything until the server closes.
pub fn send_bytes(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(server);
    // A server may close before it has read all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    exchange(stream, b"")
}

/// A bare connection to the client port, reads bounded in time.
pub fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).expect("a ready server accepts");
    stream
        .set_read_timeout(Some(READ_MAX))
        .expect("a bound above zero");
    stream
}

fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> Vec<u8> {
    // A server may refuse while we still write; what it said before is what counts.
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("connection neither answered nor closed within {READ_MAX:?}");
            }
            Err(_) => return all,
        }
    }
}

fn parse(bytes: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP: {text:?}"));
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut reply = Reply {
        status: status.unwrap_or_else(|| panic!("no status line: {first:?}")),
        headers,
        body: body.to_owned(),
    };
    if reply.header("transfer-encoding") == Some("chunked") {
        reply.body = join_chunks(body);
    }
    reply
}

fn join_chunks(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        if size == 0 {
            break;
        }
        whole.push_str(&tail[..size]);
        rest = tail[size..].trim_start_matches("\r\n");
    }
    whole
}

fn tls_stream(stream: TcpStream, tls: &TlsFiles) -> StreamOwned<ClientConnection, TcpStream> {
    let open = |file| BufReader::new(File::open(file).expect("the suite wrote its certificates"));
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_reader_iter(open(&tls.ca_cert)) {
        roots
            .add(cert.expect("our own PEM"))
            .expect("our own authority");
    }
    let chain = CertificateDer::pem_reader_iter(open(&tls.client_cert));
    let chain = chain.map(|cert| cert.expect("our own PEM")).collect();
    let key = PrivateKeyDer::from_pem_reader(open(&tls.client_key)).expect("our own PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("our own pair");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").expect("a good name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a good configuration");
    StreamOwned::new(session, stream)
}
