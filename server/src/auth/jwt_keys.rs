//! Reads the keys of signed tokens from PEM files, in the forms that etcd takes.
//!
//! Always true here: a key is usable or the start is refused with the file's name and the reason; a private and a public
//! key that are both given belong together. What a key is follows from its bytes, as with etcd: the label in the file is
//! not looked at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};

use crate::tls::der::{EXPLICIT_0, OBJECT_IDENTIFIER, SEQUENCE, element, expect};

use super::jwt::{Jwt, SignMethod, Signer, Verifier, random};

/// What `--auth-token=jwt,...` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwtOptions {
    pub method: SignMethod,
    pub public_key: Option<PathBuf>,
    pub private_key: Option<PathBuf>,
    pub ttl: Duration,
}

/// Why tokens cannot be signed or checked as configured.
#[derive(Debug, thiserror::Error)]
pub enum JwtKeyError {
    #[error("--auth-token: {path}: cannot be read ({reason}); check the path and its permissions")]
    Unreadable { path: PathBuf, reason: String },
    #[error("--auth-token: {path}: holds no usable key for {method} ({reason})")]
    Unusable {
        path: PathBuf,
        method: &'static str,
        reason: String,
    },
    #[error("--auth-token: auth: missing key data; name the file with pub-key= or priv-key=")]
    Missing,
    #[error("--auth-token: auth: public and private keys don't match")]
    Mismatch,
}

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const BITS: u8 = 0x03;
const EXPLICIT_1: u8 = 0xa1;

impl Jwt {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, holds no key of the method's kind, or the two do not belong together.
    pub fn load(options: &JwtOptions) -> Result<Jwt, JwtKeyError> {
        let private = read(options.private_key.as_deref())?;
        let public = read(options.public_key.as_deref())?;
        let method = options.method;
        let unusable = |path: &Option<PathBuf>, reason: String| JwtKeyError::Unusable {
            path: path.clone().unwrap_or_default(),
            method: method.name(),
            reason,
        };
        let (signer, verifier) = match hmac_algorithm(method) {
            Some(algorithm) => {
                let secret = private.filter(|secret| !secret.is_empty());
                let secret = secret.ok_or(JwtKeyError::Missing)?;
                let key = hmac::Key::new(algorithm, &secret);
                (Some(Signer::Hmac(key.clone())), Verifier::Hmac(key))
            }
            None => {
                let signer = private
                    .map(|bytes| read_private(method, &bytes))
                    .transpose()
                    .map_err(|reason| unusable(&options.private_key, reason))?;
                let named = public
                    .map(|bytes| read_public(method, &bytes))
                    .transpose()
                    .map_err(|reason| unusable(&options.public_key, reason))?;
                let own = signer.as_ref().map(|(_, public)| public.clone());
                let public = match (own, named) {
                    (Some(own), Some(named)) if own != named => return Err(JwtKeyError::Mismatch),
                    (Some(key), _) | (None, Some(key)) => key,
                    (None, None) => return Err(JwtKeyError::Missing),
                };
                let key = UnparsedPublicKey::new(verification(method), public);
                (signer.map(|(signer, _)| signer), Verifier::Public(key))
            }
        };
        Ok(Jwt {
            method,
            signer,
            verifier,
            ttl: options.ttl,
        })
    }
}

fn read(path: Option<&Path>) -> Result<Option<Vec<u8>>, JwtKeyError> {
    let Some(path) = path else { return Ok(None) };
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => Err(JwtKeyError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

fn hmac_algorithm(method: SignMethod) -> Option<hmac::Algorithm> {
    match method {
        SignMethod::Hs256 => Some(hmac::HMAC_SHA256),
        SignMethod::Hs384 => Some(hmac::HMAC_SHA384),
        SignMethod::Hs512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa_encoding(method: SignMethod) -> Option<&'static dyn signature::RsaEncoding> {
    Some(match method {
        SignMethod::Rs256 => &signature::RSA_PKCS1_SHA256,
        SignMethod::Rs384 => &signature::RSA_PKCS1_SHA384,
        SignMethod::Rs512 => &signature::RSA_PKCS1_SHA512,
        SignMethod::Ps256 => &signature::RSA_PSS_SHA256,
        SignMethod::Ps384 => &signature::RSA_PSS_SHA384,
        SignMethod::Ps512 => &signature::RSA_PSS_SHA512,
        _ => return None,
    })
}

fn ecdsa_signing(method: SignMethod) -> Option<&'static EcdsaSigningAlgorithm> {
    match method {
        SignMethod::Es256 => Some(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        SignMethod::Es384 => Some(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        _ => None,
    }
}

fn verification(method: SignMethod) -> &'static dyn VerificationAlgorithm {
    match method {
        SignMethod::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SignMethod::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SignMethod::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        SignMethod::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        SignMethod::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        SignMethod::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        SignMethod::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        SignMethod::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        SignMethod::EdDsa => &signature::ED25519,
        SignMethod::Hs256 | SignMethod::Hs384 | SignMethod::Hs512 => {
            unreachable!("secrets are not public")
        }
    }
}

/// What signs, and the public key that belongs to it.
fn read_private(method: SignMethod, file: &[u8]) -> Result<(Signer, Vec<u8>), String> {
    let der = pem(file)?;
    if let Some(encoding) = rsa_encoding(method) {
        let key = RsaKeyPair::from_der(&der).or_else(|_| RsaKeyPair::from_pkcs8(&der));
        let key = key.map_err(|error| {
            format!("{error}; an RSA key of 2048 to 8192 bits in PKCS #1 or PKCS #8")
        })?;
        let public = key.public_key().as_ref().to_vec();
        return Ok((Signer::Rsa(key, encoding), public));
    }
    if let Some(algorithm) = ecdsa_signing(method) {
        let key = match sec1(&der) {
            Some((secret, public)) => {
                EcdsaKeyPair::from_private_key_and_public_key(algorithm, secret, public, &random())
            }
            None => EcdsaKeyPair::from_pkcs8(algorithm, &der, &random()),
        };
        let key = key.map_err(|error| {
            format!(
                "{error}; a key of the method's curve, with its public half, in SEC 1 or PKCS #8"
            )
        })?;
        let public = key.public_key().as_ref().to_vec();
        return Ok((Signer::Ecdsa(key), public));
    }
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
        .map_err(|error| format!("{error}; an Ed25519 key in PKCS #8"))?;
    let public = key.public_key().as_ref().to_vec();
    Ok((Signer::Ed25519(key), public))
}

/// The key as the library takes it: RSA's two numbers, a point of a curve.
fn read_public(method: SignMethod, file: &[u8]) -> Result<Vec<u8>, String> {
    let der = pem(file)?;
    let (wanted, is_rsa) = match method {
        SignMethod::EdDsa => (ED25519, false),
        SignMethod::Es256 | SignMethod::Es384 => (EC, false),
        _ => (RSA, true),
    };
    let found = public_info(&der).or_else(|| public_info(certified(&der)?));
    match found {
        Some((kind, key)) if kind == wanted => Ok(key.to_vec()),
        Some(_) => Err("it is of another kind".to_owned()),
        // PKCS #1 has the numbers alone.
        None if is_rsa && expect(&der, SEQUENCE).is_some() => Ok(der),
        None => Err("neither a public key nor a certificate".to_owned()),
    }
}

/// The first block of a PEM file (RFC 7468), whatever its label.
fn pem(file: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(file).map_err(|_| "not a PEM file".to_owned())?;
    let mut lines = text.lines().map(str::trim);
    lines
        .by_ref()
        .find(|line| line.starts_with("-----BEGIN ") && line.ends_with("-----"))
        .ok_or("not a PEM file")?;
    let body: String = lines
        .take_while(|line| !line.starts_with("-----END "))
        // Headers of old encrypted keys; what is encrypted is refused below.
        .filter(|line| !line.contains(':'))
        .collect();
    STANDARD
        .decode(body)
        .map_err(|error| format!("not a PEM file: {error}"))
}

/// `ECPrivateKey` of RFC 5915: the number and the point.
fn sec1(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (fields, _) = expect(der, SEQUENCE)?;
    let (version, fields) = expect(fields, INTEGER)?;
    if version != [1] {
        return None;
    }
    let (secret, mut fields) = expect(fields, OCTETS)?;
    if let Some((_, rest)) = expect(fields, EXPLICIT_0) {
        fields = rest; // the curve's name
    }
    let (public, _) = expect(fields, EXPLICIT_1)?;
    Some((secret, bits(public)?))
}

/// `SubjectPublicKeyInfo` of RFC 5280: the kind and the key.
fn public_info(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (fields, _) = expect(der, SEQUENCE)?;
    let (algorithm, fields) = expect(fields, SEQUENCE)?;
    let (kind, _) = expect(algorithm, OBJECT_IDENTIFIER)?;
    Some((kind, bits(fields)?))
}

/// The `SubjectPublicKeyInfo` in a certificate.
fn certified(der: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(fields, EXPLICIT_0) {
        fields = rest; // version
    }
    for _ in [
        "serial number",
        "signature algorithm",
        "issuer",
        "validity",
        "subject",
    ] {
        (_, _, fields) = element(fields)?;
    }
    Some(fields)
}

/// A bit string of whole bytes.
fn bits(der: &[u8]) -> Option<&[u8]> {
    let (content, _) = expect(der, BITS)?;
    content.strip_prefix(&[0])
}
