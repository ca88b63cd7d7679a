//! TLS on the client port: certificates from files, re-read when they change, and sessions without sockets.
//!
//! In reading order: `files` loads and checks the configured files (`suites` knows their cipher suites by Go's names,
//! `self_signed` makes a pair where none is given); `clients` asks who a client is; `reload` notices changes; `session` turns
//! ciphertext into plaintext and back; `subject` and `fields` read what the library does not show of a certificate.
//!
//! Always true here: no cryptography of our own, no sockets; the clock is looked at only to tell that a certificate has expired. Used by
//! net cores: one `CertReloader` per core, one `TlsSession` per connection.

mod clients;
pub mod der;
mod fields;
mod files;
mod reload;
mod self_signed;
mod session;
mod subject;
mod suites;

pub use clients::AllowedClients;
pub use files::{TlsExtras, TlsFiles, TlsVersion};
pub use reload::CertReloader;
pub use self_signed::SelfSigned;
pub use session::{Alpn, TlsSession};
pub use suites::check_cipher_suites;

#[cfg(test)]
mod tests;
