//! Signed tokens (JSON Web Tokens, RFC 7519): a user and a revision, under a signature that every member can check.
//!
//! Always true here: the algorithm is the one that was configured, whatever a token says about itself; a token counts for
//! what it says and needs no state of the server; signing takes milliseconds, so helper threads do it. Signatures are the
//! library's; claims and their rules are those that etcd reads (`server/auth/jwt.go`).

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey};
use ring::{hmac, rand};
use serde_json::Value;

use super::Secret;

/// How tokens are signed; names as in RFC 7518.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignMethod {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl SignMethod {
    pub const ALL: [(SignMethod, &'static str); 12] = [
        (SignMethod::Hs256, "HS256"),
        (SignMethod::Hs384, "HS384"),
        (SignMethod::Hs512, "HS512"),
        (SignMethod::Rs256, "RS256"),
        (SignMethod::Rs384, "RS384"),
        (SignMethod::Rs512, "RS512"),
        (SignMethod::Ps256, "PS256"),
        (SignMethod::Ps384, "PS384"),
        (SignMethod::Ps512, "PS512"),
        (SignMethod::Es256, "ES256"),
        (SignMethod::Es384, "ES384"),
        (SignMethod::EdDsa, "EdDSA"),
    ];

    pub fn find(name: &str) -> Option<SignMethod> {
        let found = SignMethod::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(method, _)| *method)
    }

    pub fn name(self) -> &'static str {
        let found = SignMethod::ALL.iter().find(|(method, _)| *method == self);
        found.map_or("", |(_, name)| name)
    }
}

/// What signs. Dropped with the process: the library keeps its keys to itself.
pub enum Signer {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// What checks.
pub enum Verifier {
    Hmac(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
}

/// Makes and reads signed tokens.
pub struct Jwt {
    pub(super) method: SignMethod,
    /// Without it tokens are checked only.
    pub(super) signer: Option<Signer>,
    pub(super) verifier: Verifier,
    pub(super) ttl: Duration,
}

/// What a good token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    pub user: String,
    pub revision: u64,
    /// Not good from this second since 1970 on.
    pub expires_s: Option<i64>,
}

/// etcd's answer where a token is wanted and only the public key is there.
const VERIFY_ONLY: &str = "auth: token signing attempted with verify-only key";

impl Jwt {
    /// A token for `user` that holds for the revision.
    ///
    /// # Errors
    /// There is no private key, or it cannot sign; in words for the client.
    pub fn sign(&self, user: &str, revision: u64, now: SystemTime) -> Result<Secret, String> {
        let signer = self.signer.as_ref().ok_or(VERIFY_ONLY)?;
        let expires_s = unix_s(now) + self.ttl.as_secs() as i64;
        let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, self.method.name());
        let claims = serde_json::json!({
            "username": user,
            "revision": revision,
            "exp": expires_s,
        });
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = signer
            .sign(token.as_bytes())
            .map_err(|_| "auth: the private key cannot sign a token".to_owned())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(Secret::from(token))
    }

    /// What a token says, if it is good.
    pub fn verify(&self, token: &str, now: SystemTime) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header = read_part(header)?;
        // A token must not choose how it is checked.
        if header.get("alg")?.as_str()? != self.method.name() {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !self.verifier.is_good(signed.as_bytes(), &signature) {
            return None;
        }
        let claims = read_part(claims)?;
        let now_s = unix_s(now);
        let expires_s = date(&claims, "exp")?;
        if expires_s.is_some_and(|at| at <= now_s)
            || date(&claims, "nbf")?.is_some_and(|at| now_s < at)
        {
            return None;
        }
        Some(Claims {
            user: claims.get("username")?.as_str()?.to_owned(),
            revision: claims.get("revision")?.as_f64()? as u64,
            expires_s,
        })
    }
}

/// One of the first two parts of a token.
fn read_part(part: &str) -> Option<Value> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok().filter(Value::is_object)
}

/// A date among the claims. `None`: it is no number. Absent and 0 are no date.
fn date(claims: &Value, name: &str) -> Option<Option<i64>> {
    match claims.get(name) {
        None => Some(None),
        Some(value) => match value.as_f64()? as i64 {
            0 => Some(None),
            seconds => Some(Some(seconds)),
        },
    }
}

pub fn unix_s(now: SystemTime) -> i64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

impl Signer {
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let random = SystemRandom::new();
        Ok(match self {
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Signer::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &random, message, &mut signature)?;
                signature
            }
            Signer::Ecdsa(key) => key.sign(&random, message)?.as_ref().to_vec(),
            Signer::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        })
    }
}

impl Verifier {
    fn is_good(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifier::Public(key) => key.verify(message, signature).is_ok(),
        }
    }
}

/// The library's random numbers, for keys that want some when they are read.
pub(super) fn random() -> impl rand::SecureRandom {
    SystemRandom::new()
}

#[cfg(test)]
mod tests;
