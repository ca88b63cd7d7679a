//! What speaks on a connection: optional TLS, and the protocol that its first bytes chose.
//!
//! Always true here: the protocol is chosen once; bytes go down and up in order. Knows no socket: the
//! connection brings bytes and takes them away.

use std::rc::Rc;

use wire::grpc::Service;

use crate::http1::{Http1Session, SNIFF_BYTES_MAX, Sniff, sniff};
use crate::tls::{Alpn, TlsSession};

use super::connection::SPARE_BYTES_MAX;
use super::http_client::{HttpClient, Serves};

pub struct Stack {
    pub tls: Option<TlsSession>,
    pub plaintext: Vec<u8>,
    pub protocol: Protocol,
    /// Output of the protocol on its way into TLS, and spare memory for the protocol.
    spare: Vec<u8>,
}

pub enum Protocol {
    /// Bytes so far, too few to tell.
    Sniffing(Vec<u8>),
    Grpc(Box<wire::grpc::Connection>),
    Http1(Http1Session<HttpClient>),
    Over,
}

/// What a connection needs to know to choose its protocol.
pub struct Protocols<'a> {
    pub limits: &'a std::sync::Arc<wire::grpc::Limits>,
    pub serves: Serves,
    /// Makes the client that requests over HTTP/1.1 come from.
    pub client: &'a dyn Fn() -> Rc<HttpClient>,
}

/// What the reading task does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    Read,
    /// The first bytes chose HTTP/1.1: its driving task is to be started.
    StartHttp1,
    /// Send what is left and close; the text is the counted reason.
    End(&'static str),
}

impl Stack {
    /// Gives memory back that output does not need now.
    pub(super) fn release_spare(&mut self) {
        self.spare = Vec::new();
        if let Protocol::Grpc(grpc) = &mut self.protocol {
            grpc.release_spare();
        }
    }

    pub fn new(tls: Option<TlsSession>) -> Stack {
        Stack {
            tls,
            plaintext: Vec::new(),
            protocol: Protocol::Sniffing(Vec::new()),
            spare: Vec::new(),
        }
    }

    /// Appends to `out` what is ready to leave.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        match &mut self.tls {
            None => self.protocol.take_output(&mut self.spare, out),
            Some(tls) => {
                if tls.is_handshaking() {
                    tls.take_output(out);
                    return;
                }
                let mut plain = std::mem::take(&mut self.plaintext);
                plain.clear();
                self.protocol.take_output(&mut self.spare, &mut plain);
                if !plain.is_empty() {
                    tls.send(&plain);
                }
                self.plaintext = plain;
                if self.plaintext.capacity() > SPARE_BYTES_MAX {
                    self.plaintext = Vec::new();
                }
                tls.take_output(out);
            }
        }
    }

    /// The same, and what waits in its streams.
    pub fn waiting_bytes(&self) -> usize {
        match &self.protocol {
            Protocol::Grpc(grpc) => grpc.output_bytes() + grpc.parked_bytes(),
            _ => 0,
        }
    }

    /// Output that was not taken from the protocol.
    pub fn held_bytes(&self) -> usize {
        match &self.protocol {
            Protocol::Grpc(grpc) => grpc.output_bytes(),
            _ => 0,
        }
    }
}

impl Protocol {
    pub fn receive<S: Service>(
        &mut self,
        bytes: &[u8],
        alpn: Option<Alpn>,
        now_ns: u64,
        protocols: &Protocols<'_>,
        service: &mut S,
    ) -> Next {
        match self {
            Protocol::Grpc(grpc) => match grpc.receive(bytes, now_ns, service) {
                Ok(()) => Next::Read,
                Err(_) => Next::End("http2_error"),
            },
            Protocol::Http1(session) => {
                session.feed(bytes);
                Next::Read
            }
            Protocol::Over => Next::End("over"),
            Protocol::Sniffing(seen) => {
                seen.extend_from_slice(bytes);
                let sniffed = match alpn {
                    Some(Alpn::Http2) => Sniff::Http2,
                    _ => sniff(seen),
                };
                let seen = std::mem::take(seen);
                match sniffed {
                    Sniff::NeedMore => {
                        assert!(
                            seen.len() < SNIFF_BYTES_MAX,
                            "{} bytes tell nothing",
                            seen.len()
                        );
                        *self = Protocol::Sniffing(seen);
                        Next::Read
                    }
                    Sniff::Http2 => {
                        let grpc = wire::grpc::Connection::new(protocols.limits.clone(), now_ns);
                        *self = Protocol::Grpc(Box::new(grpc));
                        self.receive(&seen, None, now_ns, protocols, service)
                    }
                    Sniff::Http1 if !protocols.serves.has_http() => Next::End("http_on_grpc_port"),
                    Sniff::Http1 => {
                        let mut session = Http1Session::new((protocols.client)());
                        session.feed(&seen);
                        *self = Protocol::Http1(session);
                        Next::StartHttp1
                    }
                    Sniff::TlsClientHello => Next::End("tls_on_plain_port"),
                    Sniff::Garbage(reason) => Next::End(reason),
                }
            }
        }
    }

    fn take_output(&mut self, spare: &mut Vec<u8>, out: &mut Vec<u8>) {
        match self {
            Protocol::Grpc(grpc) if grpc.has_output() => {
                if out.is_empty() {
                    // The usual case: hand over the memory instead of copying.
                    *out = grpc.take_output(std::mem::take(out));
                } else {
                    let made = grpc.take_output(std::mem::take(spare));
                    out.extend_from_slice(&made);
                    *spare = made;
                    spare.clear();
                }
            }
            Protocol::Http1(session) => session.take_output(out),
            _ => {}
        }
    }
}
