//! Who calls, and what he may do: tokens, passwords and the questions that requests raise.
//!
//! In reading order: [`gate`] (a net core's answer to *who is this*), [`tokens`] (simple tokens), [`checks`] (what rights
//! a request needs), [`jwt`] and [`jwt_keys`] (signed tokens), [`passwords`] (bcrypt on helper threads), [`secret`] (bytes that nobody prints).
//!
//! ```text
//! Authenticate: net ──job──> helper thread ──> net ──entry──> log ──> apply: token ──> net ──> client
//! any call:     net: token -> identity (name, revision) ──entry──> apply: rights in the view of that moment
//! ```
//!
//! Always true here: while authentication is off a request costs one look at the published view; a password is hashed on
//! no core; what an entry may do is decided on the apply core, from the view alone. Users and roles themselves are
//! [`storage::auth`]'s.

pub mod checks;
pub mod gate;
pub mod jwt;
pub mod jwt_keys;
pub mod passwords;
pub mod secret;
pub mod tokens;

use std::sync::Arc;

use arc_swap::ArcSwap;
use storage::auth::{AuthView, Refusal};
use wire::error::EtcdError;

use crate::config::TokenOptions;

pub use gate::{AuthGate, Identity};
pub use jwt::Jwt;
pub use jwt_keys::JwtKeyError;
pub use passwords::{PasswordDesk, PasswordDone, PasswordHelpers, PasswordJob, PasswordResult};
pub use secret::Secret;
pub use tokens::{TokenKeeper, TokenTable};

/// What all cores read of authentication; written by the apply core.
#[derive(Clone, Default)]
pub struct AuthShared {
    /// Replaced whole with every change of users and roles.
    pub view: Arc<ArcSwap<AuthView>>,
    /// Replaced whole with every simple token that comes or goes.
    pub tokens: Arc<ArcSwap<TokenTable>>,
}

/// What the configuration says about authentication.
#[derive(Clone)]
pub struct AuthSettings {
    /// `--auth-token`.
    pub tokens: TokenKind,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// `--client-cert-auth`: who shows no token is named by his certificate.
    pub uses_certificates: bool,
}

/// What a user gets for his password.
#[derive(Clone)]
pub enum TokenKind {
    Simple,
    Signed(Arc<Jwt>),
    /// Nothing: only certificates name users.
    Absent,
}

impl TokenKind {
    /// Reads what the options name.
    ///
    /// # Errors
    /// A key cannot be used.
    pub fn load(options: &TokenOptions) -> Result<TokenKind, JwtKeyError> {
        Ok(match options {
            TokenOptions::Simple => TokenKind::Simple,
            TokenOptions::Signed(options) => TokenKind::Signed(Arc::new(Jwt::load(options)?)),
            TokenOptions::Absent => TokenKind::Absent,
        })
    }
}

/// The answer to who may not.
pub fn refusal(refusal: Refusal) -> EtcdError {
    match refusal {
        Refusal::UserEmpty => EtcdError::UserEmpty,
        Refusal::OldRevision => EtcdError::AuthOldRevision,
        Refusal::Denied => EtcdError::PermissionDenied,
        Refusal::UserNotFound => EtcdError::UserNotFound,
    }
}
