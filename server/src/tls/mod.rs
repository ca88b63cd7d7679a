//! TLS on the client port: certificates from files, re-read when they change, and sessions without sockets.
//!
//! In reading order: `files` loads and checks the configured files; `reload` notices changes; `session`
//! turns ciphertext into plaintext and back; `subject` reads the common name of a client's certificate.
//!
//! Always true here: no cryptography of our own, no sockets, no clock (the caller passes `now`). Used by
//! net cores: one `CertReloader` per core, one `TlsSession` per connection.

mod files;
mod reload;
mod session;
mod subject;

pub use files::{TlsFiles, TlsVersion};
pub use reload::CertReloader;
pub use session::{Alpn, TlsSession};

#[cfg(test)]
mod tests;
