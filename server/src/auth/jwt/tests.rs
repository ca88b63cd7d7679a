//! Signed tokens: what one key signs the other checks, and nothing else is good.

use std::path::PathBuf;

use super::*;
use crate::auth::jwt_keys::{JwtKeyError, JwtOptions};

const TTL: Duration = Duration::from_secs(300);

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/testdata/jwt", name]
        .iter()
        .collect()
}

fn load(method: SignMethod, private: &str, public: &str) -> Result<Jwt, JwtKeyError> {
    let path = |name: &str| (!name.is_empty()).then(|| file(name));
    Jwt::load(&JwtOptions {
        method,
        public_key: path(public),
        private_key: path(private),
        ttl: TTL,
    })
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Files of the private and the public key, in every form they come in.
fn keys(method: SignMethod) -> (&'static [&'static str], &'static [&'static str]) {
    match &method.name()[..2] {
        "HS" => (&["hmac.txt"], &["hmac.txt"]),
        "RS" | "PS" => (
            &["rsa.pem", "rsa-pkcs8.pem"],
            &["rsa-pub.pem", "rsa-pub-pkcs1.pem", "rsa-cert.pem"],
        ),
        "ES" if method == SignMethod::Es256 => {
            (&["es256.pem", "es256-pkcs8.pem"], &["es256-pub.pem"])
        }
        "ES" => (&["es384.pem", "es384-pkcs8.pem"], &["es384-pub.pem"]),
        _ => (&["ed25519.pem"], &["ed25519-pub.pem"]),
    }
}

#[test]
fn what_one_key_signs_the_other_checks() {
    for (method, name) in SignMethod::ALL {
        let (private, public) = keys(method);
        for private in private {
            let signer = load(method, private, "").unwrap();
            let token = signer.sign("ann", 7, at(1000)).unwrap();
            let wanted = Claims {
                user: "ann".to_owned(),
                revision: 7,
                expires_s: Some(1300),
            };
            assert_eq!(
                signer.verify(token.text(), at(1299)),
                Some(wanted.clone()),
                "{name}"
            );
            assert_eq!(signer.verify(token.text(), at(1300)), None, "{name}: over");
            if method.name().starts_with("HS") {
                continue;
            }
            for public in public {
                let both = load(method, private, public).unwrap();
                assert!(
                    both.verify(token.text(), at(1000)).is_some(),
                    "{name} {public}"
                );
                let verifier = load(method, "", public).unwrap();
                assert_eq!(
                    verifier.verify(token.text(), at(1000)),
                    Some(wanted.clone())
                );
                let refused = verifier.sign("ann", 7, at(0)).unwrap_err();
                assert_eq!(refused, VERIFY_ONLY);
            }
        }
    }
}

#[test]
fn a_changed_token_is_refused() {
    let jwt = load(SignMethod::Es256, "es256.pem", "").unwrap();
    let token = jwt.sign("ann", 7, at(1000)).unwrap();
    let token = token.text();
    let verify = |token: &str| jwt.verify(token, at(1000));
    assert!(verify(token).is_some());
    for at in 0..token.len() {
        // The last letters of a part may hold bits that are not looked at; a change of the letter by one is of others.
        let mut changed = token.as_bytes().to_vec();
        changed[at] = match changed[at] {
            b'A' => b'q',
            b'.' => b'A',
            _ => b'A',
        };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(verify(&changed), None, "letter {at} of {token}");
    }
    for cut in [
        "",
        ".",
        "..",
        "a.b.c",
        &token[1..],
        &token[..token.len() - 1],
    ] {
        assert_eq!(verify(cut), None, "{cut:?}");
    }
    assert_eq!(verify(&format!("{token}.")), None);
}

/// A token must not choose the algorithm: no signature at all, or the public key taken for a shared secret.
#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let jwt = load(SignMethod::Rs256, "", "rsa-pub.pem").unwrap();
    let claims = r#"{"username":"root","revision":99}"#;
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    for header in [
        r#"{"alg":"none","typ":"JWT"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":""}"#,
        r#"{}"#,
        r#"{"alg":null}"#,
        r#"{"alg":"RS256"}"#,
    ] {
        let signed = format!("{}.{}", part(header), part(claims));
        assert_eq!(jwt.verify(&format!("{signed}."), at(0)), None, "{header}");
        assert_eq!(
            jwt.verify(&format!("{signed}.AAAA"), at(0)),
            None,
            "{header}"
        );
    }
    let public = std::fs::read(file("rsa-pub.pem")).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &public);
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"RS256"}"#] {
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
        assert_eq!(
            jwt.verify(&format!("{signed}.{signature}"), at(0)),
            None,
            "{header}"
        );
    }
    let other = load(SignMethod::Rs512, "rsa.pem", "").unwrap();
    let token = other.sign("root", 99, at(0)).unwrap();
    assert_eq!(
        jwt.verify(token.text(), at(0)),
        None,
        "the right key, another algorithm"
    );
    let stranger = load(SignMethod::Rs256, "other-rsa.pem", "").unwrap();
    let token = stranger.sign("root", 99, at(0)).unwrap();
    assert_eq!(jwt.verify(token.text(), at(0)), None, "another key");
}

#[test]
fn claims_are_read_as_etcd_reads_them() {
    let jwt = load(SignMethod::Hs256, "hmac.txt", "").unwrap();
    let Some(Signer::Hmac(key)) = &jwt.signer else {
        panic!("a shared secret signs");
    };
    let verify = |claims: &str| {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(key, signed.as_bytes()));
        jwt.verify(&format!("{signed}.{signature}"), at(1000))
    };
    let good = verify(r#"{"username":"ann","revision":3.0,"other":[1]}"#).unwrap();
    assert_eq!(
        (good.user.as_str(), good.revision, good.expires_s),
        ("ann", 3, None)
    );
    assert!(verify(r#"{"username":"ann","revision":3,"exp":1001,"nbf":1000}"#).is_some());
    assert!(verify(r#"{"username":"ann","revision":3,"exp":0}"#).is_some());
    for claims in [
        r#"{"username":"ann","revision":3,"exp":1000}"#,
        r#"{"username":"ann","revision":3,"exp":"1001"}"#,
        r#"{"username":"ann","revision":3,"nbf":1001}"#,
        r#"{"username":"ann","revision":"3"}"#,
        r#"{"username":"ann"}"#,
        r#"{"username":7,"revision":3}"#,
        r#"{"revision":3}"#,
        r#"["username"]"#,
        "no json",
    ] {
        assert_eq!(verify(claims), None, "{claims}");
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_their_file() {
    let text = |loaded: Result<Jwt, JwtKeyError>| match loaded {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    };
    let missing = text(load(SignMethod::Rs256, "", ""));
    assert!(missing.contains("missing key data"), "{missing}");
    let missing = text(load(SignMethod::Hs256, "", "hmac.txt"));
    assert!(missing.contains("missing key data"), "{missing}");
    let mismatch = text(load(SignMethod::Rs256, "other-rsa.pem", "rsa-pub.pem"));
    assert!(mismatch.contains("don't match"), "{mismatch}");
    for (method, private, public) in [
        (SignMethod::Rs256, "es256.pem", ""),
        (SignMethod::Es256, "rsa.pem", ""),
        (SignMethod::Es256, "es384.pem", ""),
        (SignMethod::EdDsa, "es256.pem", ""),
        (SignMethod::EdDsa, "", "rsa-pub.pem"),
        (SignMethod::Rs256, "", "es256-pub.pem"),
        (SignMethod::Rs256, "hmac.txt", ""),
        (SignMethod::Rs256, "README.md", ""),
        (SignMethod::Rs256, "no-such-file", ""),
    ] {
        let refusal = text(load(method, private, public));
        let name = [private, public].concat();
        assert!(refusal.contains(&name), "{refusal}");
    }
}
