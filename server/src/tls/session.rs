//! One TLS connection without a socket: ciphertext in, plaintext out, and back.
//!
//! Always true here: plaintext comes out in the order it was encrypted and only after its record was
//! authenticated; after an error nothing more comes out, and the alert for the peer waits in the output.
//! Nothing is held back: after `feed` the library keeps at most one incomplete record, after
//! `take_output` nothing.
//!
//! Owned by the net core of the connection, which brings ciphertext, decides by `alpn` what speaks inside,
//! and bounds the output by taking it before it sends more. Knows no protocol above TLS and no clock;
//! handshake timeouts are the caller's.

use std::io::{BufRead, Write};
use std::sync::Arc;

use rustls::{AlertDescription, InvalidMessage, ServerConfig, ServerConnection};

use super::subject;

/// What the client chose to speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alpn {
    Http2,
    Http1,
    /// The client offered nothing; look at the first plaintext bytes.
    Absent,
}

/// Why a TLS connection ended early. All are the peer's doing; `reason` is a label for counting.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("plain HTTP or other bytes that are not TLS, on a TLS port")]
    NotTls,
    #[error("the client presented no certificate")]
    NoClientCertificate,
    #[error("the client's certificate was refused: {0}")]
    BadClientCertificate(String),
    #[error("the client refused our side: {0}")]
    RefusedByPeer(String),
    #[error("no protocol, version or cipher in common: {0}")]
    NothingInCommon(String),
    #[error("broken TLS: {0}")]
    Protocol(String),
}

impl TlsError {
    pub fn reason(&self) -> &'static str {
        match self {
            TlsError::NotTls => "not_tls",
            TlsError::NoClientCertificate => "no_client_certificate",
            TlsError::BadClientCertificate(_) => "bad_client_certificate",
            TlsError::RefusedByPeer(_) => "refused_by_peer",
            TlsError::NothingInCommon(_) => "nothing_in_common",
            TlsError::Protocol(_) => "protocol",
        }
    }
}

pub struct TlsSession {
    connection: ServerConnection,
    peer_closed: bool,
}

impl TlsSession {
    pub fn new(config: Arc<ServerConfig>) -> TlsSession {
        let mut connection =
            ServerConnection::new(config).expect("a checked configuration makes a session");
        // The caller takes the output after each pass; a second limit inside would only cut replies.
        connection.set_buffer_limit(None);
        TlsSession {
            connection,
            peer_closed: false,
        }
    }

    /// Takes ciphertext and appends the plaintext it completes to `plaintext`. Afterwards there may be
    /// output (handshake, alerts) even if no plaintext came, and also after an error.
    pub fn feed(&mut self, mut ciphertext: &[u8], plaintext: &mut Vec<u8>) -> Result<(), TlsError> {
        while !ciphertext.is_empty() && !self.peer_closed {
            self.connection
                .read_tls(&mut ciphertext)
                .map_err(|error| TlsError::Protocol(error.to_string()))?;
            let state = self.connection.process_new_packets().map_err(classify)?;
            self.peer_closed = state.peer_has_closed();
            let mut waiting = state.plaintext_bytes_to_read();
            plaintext.reserve(waiting);
            let mut reader = self.connection.reader();
            while waiting != 0 {
                let chunk = reader
                    .fill_buf()
                    .expect("the library just counted these bytes");
                let taken = chunk.len();
                assert!(
                    taken != 0 && taken <= waiting,
                    "{taken} of {waiting} plaintext bytes"
                );
                plaintext.extend_from_slice(chunk);
                reader.consume(taken);
                waiting -= taken;
            }
        }
        Ok(())
    }

    /// Encrypts `plaintext` into the output. During the handshake it is kept and encrypted after it.
    pub fn send(&mut self, plaintext: &[u8]) {
        self.connection
            .writer()
            .write_all(plaintext)
            .expect("the session's buffer has no limit");
    }

    /// Moves all ciphertext that waits to the end of `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection
                .write_tls(out)
                .expect("a Vec takes all bytes");
        }
    }

    #[cfg(test)]
    pub fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Tells the peer that nothing more follows. Take the output afterwards.
    pub fn send_close(&mut self) {
        self.connection.send_close_notify();
    }

    /// The peer said that it sends nothing more (a proper end, unlike a cut connection).
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The host name the client asked for, once its hello was read.
    pub fn server_name(&self) -> Option<&str> {
        self.connection.server_name()
    }

    /// What the client chose; meaningful once the handshake is over.
    pub fn alpn(&self) -> Alpn {
        match self.connection.alpn_protocol() {
            Some(b"h2") => Alpn::Http2,
            Some(_) => Alpn::Http1,
            None => Alpn::Absent,
        }
    }

    /// The common name in the client's verified certificate, if it presented one that has it.
    pub fn peer_common_name(&self) -> Option<String> {
        let certificate = self.connection.peer_certificates()?.first()?;
        subject::common_name(certificate)
    }
}

/// What is wrong with a certificate, in the words of Go's library where it has some.
fn worded(error: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Wrong;
    let text = match error {
        Wrong::Expired | Wrong::ExpiredContext { .. } => {
            "x509: certificate has expired or is not yet valid"
        }
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            "x509: certificate has expired or is not yet valid"
        }
        Wrong::UnknownIssuer => "x509: certificate signed by unknown authority",
        Wrong::BadSignature => "x509: its signature is not its issuer's",
        Wrong::BadEncoding => "x509: malformed certificate",
        Wrong::InvalidPurpose | Wrong::InvalidPurposeContext { .. } => {
            "x509: certificate specifies an incompatible key usage; a client's needs clientAuth"
        }
        Wrong::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is the certificate of an authority (CA:TRUE), not one issued to a client"
        }
        other => return other.to_string(),
    };
    text.to_owned()
}

fn classify(error: rustls::Error) -> TlsError {
    let text = error.to_string();
    match error {
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => TlsError::NotTls,
        rustls::Error::NoCertificatesPresented => TlsError::NoClientCertificate,
        rustls::Error::InvalidCertificate(error) => TlsError::BadClientCertificate(worded(&error)),
        // Our own questions to a certificate.
        rustls::Error::General(text) => TlsError::BadClientCertificate(text),
        rustls::Error::AlertReceived(AlertDescription::CloseNotify) => TlsError::Protocol(text),
        rustls::Error::AlertReceived(_) => TlsError::RefusedByPeer(text),
        rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => {
            TlsError::NothingInCommon(text)
        }
        _ => TlsError::Protocol(text),
    }
}
