//! A net core's answer to *who is this*: a token, or the name in a certificate.
//!
//! Always true here: while authentication is off nobody has a name and nothing is looked up. Asked once for each
//! request, when it comes. Does not decide what somebody may do; that is [`super::checks`].

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, Cache};
use rustc_hash::FxHashMap;
use storage::auth::{AuthView, Rights};
use wire::error::EtcdError;
use wire::grpc::Metadata;

use super::jwt::{Jwt, unix_s};
use super::tokens::TokenCache;
use super::{AuthSettings, AuthShared, TokenKind, refusal};

/// Metadata keys that may carry a token, in the order they are looked at.
const TOKEN_KEYS: [&[u8]; 2] = [b"token", b"authorization"];
/// What may stand before it.
const BEARER: &[u8] = b"Bearer ";
/// Calls of the JSON gateway, which speak for others: their certificate names nobody.
const GATEWAY_KEY: &[u8] = b"grpcgateway-accept";

/// The common name in a connection's certificate, once its handshake is over.
pub type CommonName = OnceCell<Option<Arc<str>>>;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: Arc<str>,
    /// The revision that a signed token was made at; everybody else is known at the revision of the moment.
    pub claimed: Option<u64>,
}

impl Identity {
    /// The revision that a request made now is checked at.
    pub fn revision(&self, view: &AuthView) -> u64 {
        self.claimed.unwrap_or(view.revision)
    }
}

/// Name and revision as they travel in an entry; nobody is empty, at revision 0.
pub fn named<'a>(who: Option<&'a Identity>, view: &AuthView) -> (&'a str, u64) {
    match who {
        Some(identity) => (&identity.user, identity.revision(view)),
        None => ("", 0),
    }
}

/// Signed tokens a net core remembers; more than that, and it begins anew.
const SIGNED_MAX: usize = 8192;

/// A signed token that was found good.
struct SignedToken {
    identity: Identity,
    expires_s: Option<i64>,
}

/// A net core's view of authentication.
pub struct AuthGate {
    view: Cache<Arc<ArcSwap<AuthView>>, Arc<AuthView>>,
    tokens: TokenCache,
    /// Only good ones, so that nobody fills it or chooses colliding ones without the key.
    signed: FxHashMap<Box<str>, SignedToken>,
    settings: AuthSettings,
}

impl AuthGate {
    pub fn new(shared: &AuthShared, settings: AuthSettings) -> AuthGate {
        AuthGate {
            view: Cache::new(shared.view.clone()),
            tokens: TokenCache::new(shared.tokens.clone()),
            signed: FxHashMap::default(),
            settings,
        }
    }

    /// Users and roles as they are now.
    pub fn view(&mut self) -> &Arc<AuthView> {
        self.view.load()
    }

    pub fn settings(&self) -> &AuthSettings {
        &self.settings
    }

    /// Who makes this call; nobody while authentication is off.
    ///
    /// # Errors
    /// It carries a token that is not good.
    pub fn identify(
        &mut self,
        metadata: &Metadata<'_>,
        common_name: Option<&CommonName>,
        now_ns: u64,
    ) -> Result<Option<Identity>, EtcdError> {
        if !self.view().is_enabled {
            return Ok(None);
        }
        let token = TOKEN_KEYS.iter().find_map(|key| metadata.get(key));
        let Some(token) = token else {
            return Ok(self.certified(metadata, common_name));
        };
        let token = token.strip_prefix(BEARER).unwrap_or(token);
        let named = match (std::str::from_utf8(token), &self.settings.tokens) {
            (Ok(token), TokenKind::Simple) => {
                let user = self.tokens.user(token, now_ns);
                user.map(|user| Identity {
                    user,
                    claimed: None,
                })
            }
            (Ok(token), TokenKind::Signed(jwt)) => {
                let jwt = jwt.clone();
                self.signed(&jwt, token)
            }
            _ => None,
        };
        if named.is_none() {
            tracing::warn!("invalid auth token");
        }
        named.map(Some).ok_or(EtcdError::InvalidAuthToken)
    }

    /// Checking a signature costs as much as many requests, so it is done once for each token.
    fn signed(&mut self, jwt: &Jwt, token: &str) -> Option<Identity> {
        let now = SystemTime::now();
        if let Some(known) = self.signed.get(token) {
            if known.expires_s.is_none_or(|at| unix_s(now) < at) {
                return Some(known.identity.clone());
            }
            self.signed.remove(token);
            return None;
        }
        let claims = jwt.verify(token, now)?;
        let known = SignedToken {
            identity: Identity {
                user: claims.user.into(),
                claimed: Some(claims.revision),
            },
            expires_s: claims.expires_s,
        };
        if self.signed.len() == SIGNED_MAX {
            self.signed.clear();
        }
        let identity = known.identity.clone();
        self.signed.insert(token.into(), known);
        Some(identity)
    }

    fn certified(
        &self,
        metadata: &Metadata<'_>,
        common_name: Option<&CommonName>,
    ) -> Option<Identity> {
        if !self.settings.uses_certificates || metadata.get(GATEWAY_KEY).is_some() {
            return None;
        }
        let user = common_name?.get()?.clone()?;
        Some(Identity {
            user,
            claimed: None,
        })
    }

    /// The root role is needed.
    pub fn check_root(&mut self, who: Option<&Identity>) -> Result<(), EtcdError> {
        let user = who.map_or("", |identity| &identity.user);
        self.view().check_root(user).map_err(refusal)
    }

    /// Anybody will do who has a name.
    pub fn check_user(&mut self, who: Option<&Identity>) -> Result<(), EtcdError> {
        match who {
            None if self.view().is_enabled => Err(EtcdError::UserEmpty),
            _ => Ok(()),
        }
    }

    /// What the caller may do now, and the revision that this is said at (0: nobody's, so it need not be looked at again).
    pub fn rights(&mut self, who: Option<&Identity>) -> (Rights<'_>, u64) {
        let view = self.view.load();
        let (user, revision) = named(who, view);
        (Rights::of(view, user, revision), revision)
    }

    /// A read that began under rights of this revision has seen nothing that came after a change of rights.
    pub fn is_current(&mut self, revision: u64) -> bool {
        revision == 0 || revision == self.view().revision
    }
}
