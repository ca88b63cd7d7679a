//! HTTP/1.1 requests and bare bytes on the client port, without any HTTP library in between.
//!
//! Each request uses a connection of its own and asks the server to close it; reads are bounded in time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
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
    ask(server, method, path, &[], b"")
}

/// `POST path` with a JSON body.
pub fn post(server: &Server, path: &str, body: &str) -> Reply {
    ask(server, "POST", path, &[], body.as_bytes())
}

/// A request with headers and a body; a header `Host` replaces the usual one.
pub fn ask(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let stream = connect(server);
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head += &format!("Host: {}\r\n", server.address());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let bytes = [head.as_bytes(), b"\r\n", body].concat();
    let bytes = match server.tls() {
        Some(tls) => exchange(tls_stream(stream, tls), &bytes),
        None => exchange(stream, &bytes),
    };
    parse(&bytes)
}

/// A request and an answer that go on beside each other, in chunks.
pub struct Stream {
    reader: BufReader<TcpStream>,
    /// Of the answer, once its head has come.
    pub status: u16,
    rest: Vec<u8>,
    is_over: bool,
}

impl Stream {
    /// Sends a POST whole; its answer may go on for as long as it likes.
    pub fn open(server: &Server, path: &str, body: &str) -> Stream {
        let mut stream = Stream::begin(server, path, body);
        stream.end_body();
        stream
    }

    /// Sends the head of a POST, and `body` as the first chunk of its body. A real etcd answers no such request before its
    /// body has ended.
    pub fn begin(server: &Server, path: &str, body: &str) -> Stream {
        let stream = connect(server);
        let mut stream = Stream {
            reader: BufReader::new(stream),
            status: 0,
            rest: Vec::new(),
            is_over: false,
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            server.address()
        );
        stream.write(head.as_bytes());
        stream.send(body);
        stream
    }

    /// Sends one more piece of the body.
    pub fn send(&mut self, body: &str) {
        self.write(format!("{:x}\r\n{body}\r\n", body.len()).as_bytes());
    }

    /// Ends the body; the answer may go on.
    pub fn end_body(&mut self) {
        self.write(b"0\r\n\r\n");
    }

    fn write(&mut self, bytes: &[u8]) {
        let socket = self.reader.get_mut();
        socket.write_all(bytes).expect("the server reads");
    }

    /// The next line of the answer, without its end; `None` at the end of the answer.
    pub fn line(&mut self) -> Option<String> {
        if self.status == 0 {
            self.read_head();
        }
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.is_over {
                assert!(self.rest.is_empty(), "half a line: {:?}", self.rest);
                return None;
            }
            let size = self.head_line();
            let size = usize::from_str_radix(&size, 16).expect("a chunk size");
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk).expect("a whole chunk");
            self.rest.extend_from_slice(&chunk[..size]);
            self.is_over = size == 0;
        }
    }

    fn read_head(&mut self) {
        let first = self.head_line();
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        self.status = status.unwrap_or_else(|| panic!("no status line: {first:?}"));
        let mut is_chunked = false;
        loop {
            let line = self.head_line().to_lowercase();
            if line.is_empty() {
                break;
            }
            is_chunked |= line == "transfer-encoding: chunked";
            if let Some(length) = line.strip_prefix("content-length: ") {
                let mut body = vec![0; length.parse().expect("a length")];
                // The empty line before the body.
                while !self.head_line().is_empty() {}
                self.reader.read_exact(&mut body).expect("a whole body");
                self.rest = body;
                self.is_over = true;
                return;
            }
        }
        assert!(is_chunked, "neither a length nor chunks");
    }

    fn head_line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }
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
