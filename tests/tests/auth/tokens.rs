//! Tokens: simple and signed, forged, over, and taken back.

use std::path::Path;
use std::time::Duration;

use pilaster_tests::auth::Ask;
use pilaster_tests::raw::{self, block_on};
use pilaster_tests::{Client, Kind, Server};

use super::*;

fn invalid() -> Failure {
    refused(UNAUTHENTICATED, "invalid auth token")
}

#[test]
fn a_token_is_one_that_was_given() {
    let server = start();
    block_on(async {
        let mut nobody = Client::connect(&server).await;
        // Without authentication nobody looks at tokens.
        let mut forger = nobody.with("token", "nonsense");
        forger.put(&put("k")).await.expect("it is off");
        let mut root = turn_on(&mut nobody).await;
        let token = root.token("root", "rootpw").await.expect("root signs in");
        let (letters, index) = token.split_once('.').expect("letters and an index");
        assert_eq!(letters.len(), 16);
        assert!(letters.bytes().all(|letter| letter.is_ascii_alphabetic()));
        index.parse::<u64>().expect("the index of its entry");
        for (key, value) in [
            ("token", token.clone()),
            ("token", format!("Bearer {token}")),
            ("authorization", token.clone()),
            ("authorization", format!("Bearer {token}")),
        ] {
            let mut client = nobody.with(key, &value);
            client.put(&put("k")).await.expect("a good token");
        }
        // The first of the two is looked at alone.
        let mut two = nobody.with("token", "bad.1").with("authorization", &token);
        assert_eq!(refusal(two.put(&put("k")).await), invalid());
        for forged in [
            "",
            ".",
            "root",
            letters,
            &format!("{letters}.1"),
            &format!("{letters}.{index}.1"),
            &format!("{letters}.-1"),
            &format!("{}.{index}", letters.to_lowercase()),
            &format!("bearer {token}"),
            &token[1..],
        ] {
            if forged == token {
                continue;
            }
            let mut forger = nobody.with("token", forged);
            assert_eq!(
                refusal(forger.put(&put("k")).await),
                invalid(),
                "{forged:?}"
            );
            assert_eq!(refusal(forger.range(&raw::get("k")).await), invalid());
            assert_eq!(refusal(forger.status().await), invalid());
            assert_eq!(refusal(forger.ask(&Ask::Status).await), invalid());
            assert_eq!(refusal(forger.grant(0, 60).await), invalid());
        }
        assert!(nobody.ask(&Ask::Status).await.is_ok(), "nobody may ask");
    });
}

#[test]
fn tokens_end_with_what_they_stand_for() {
    let server = start();
    block_on(async {
        let mut nobody = Client::connect(&server).await;
        let mut root = turn_on(&mut nobody).await;
        let mut ann = add_user(&mut root, "ann", "a", "c").await;
        let mut bob = add_user(&mut root, "bob", "a", "c").await;
        ann.put(&put("a")).await.expect("her own");
        // Another's change leaves a token good, and its user's rights are those of now.
        all(&mut root, &[Ask::RoleAdd(text("x"))]).await;
        ann.put(&put("a")).await.expect("her own");
        all(&mut root, &[Ask::RevokeRole(text("ann"), text("ann"))]).await;
        assert_eq!(refusal(ann.put(&put("a")).await), denied());
        all(&mut root, &[Ask::Password(text("ann"), text("new"))]).await;
        assert_eq!(refusal(ann.put(&put("a")).await), invalid());
        let mut ann = nobody.sign_in("ann", "new").await.expect("the new one");
        assert_eq!(refusal(ann.put(&put("a")).await), denied());
        all(&mut root, &[Ask::UserDelete(text("bob"))]).await;
        assert_eq!(refusal(bob.put(&put("a")).await), invalid());
        all(&mut root, &[Ask::Disable]).await;
        bob.put(&put("z")).await.expect("it is off");
        all(&mut nobody, &[Ask::Enable]).await;
        assert_eq!(refusal(root.put(&put("a")).await), invalid(), "taken back");
        assert_eq!(refusal(ann.put(&put("a")).await), invalid(), "taken back");
    });
}

#[test]
fn an_unused_token_ends() {
    let server = Server::start(options().flag("--auth-token-ttl=1"));
    block_on(async {
        let mut nobody = Client::connect(&server).await;
        let root = turn_on(&mut nobody).await;
        // Until it is refused; each look must come later than its time to live, as looking uses it.
        let mut pause = Duration::from_millis(1200);
        for look in 0.. {
            assert!(look < 6, "a token of one second is never over");
            tokio::time::sleep(pause).await;
            match root.clone().put(&put("k")).await {
                Err(refusal) => {
                    assert_eq!(refusal, invalid());
                    break;
                }
                Ok(_) => pause *= 2,
            }
        }
        nobody.sign_in("root", "rootpw").await.expect("once more");
    });
}

fn key(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("testdata/jwt").join(name).display().to_string()
}

/// Method, private key and public key.
const METHODS: &[(&str, &str, &str)] = &[
    ("HS256", "hmac.txt", ""),
    ("HS384", "hmac.txt", ""),
    ("HS512", "hmac.txt", ""),
    ("RS256", "rsa.pem", "rsa-pub.pem"),
    ("RS384", "rsa-pkcs8.pem", "rsa-pub-pkcs1.pem"),
    ("RS512", "rsa.pem", "rsa-cert.pem"),
    ("PS256", "rsa.pem", "rsa-pub.pem"),
    ("PS384", "rsa.pem", "rsa-pub.pem"),
    ("PS512", "rsa.pem", "rsa-pub.pem"),
    ("ES256", "es256.pem", "es256-pub.pem"),
    ("ES384", "es384-pkcs8.pem", "es384-pub.pem"),
    ("EdDSA", "ed25519.pem", "ed25519-pub.pem"),
];

fn signed(kind: Kind, (method, private, public): (&str, &str, &str)) -> Server {
    let mut flag = format!("--auth-token=jwt,sign-method={method},ttl=10m");
    for (option, name) in [("priv-key", private), ("pub-key", public)] {
        if !name.is_empty() {
            flag.push_str(&format!(",{option}={}", key(name)));
        }
    }
    Server::start(Options::new(kind).flag(CHEAP).flag(flag))
}

/// Every method: a token of one server is good at another that has the key, be it etcd's or ours.
#[test]
fn signed_tokens_are_those_of_etcd() {
    for &(method, private, public) in METHODS {
        let etcd = Kind::Etcd371.found().map(|_| Kind::Etcd371);
        let subject = signed(Kind::subject(), (method, private, public));
        let other = signed(etcd.unwrap_or(Kind::subject()), (method, private, ""));
        block_on(async {
            let mut here = Client::connect(&subject).await;
            let mut there = Client::connect(&other).await;
            let mut root = turn_on(&mut here).await;
            let mut root_there = turn_on(&mut there).await;
            root.put(&put("k")).await.expect("our own token");
            root_there.put(&put("k")).await.expect("their own token");
            let ours = here.token("root", "rootpw").await.expect("signed here");
            let theirs = there.token("root", "rootpw").await.expect("signed there");
            assert_eq!(ours.split('.').count(), 3);
            there
                .with("token", &ours)
                .put(&put("k"))
                .await
                .expect("ours, there");
            here.with("token", &theirs)
                .put(&put("k"))
                .await
                .expect("theirs, here");
            // One more change, and both are of an old revision.
            all(&mut root, &[Ask::RoleAdd(text("r"))]).await;
            let old = refused(INVALID_ARGUMENT, "revision of auth store is old");
            let mut late = here.with("token", &ours);
            assert_eq!(refusal(late.put(&put("k")).await), old, "{method}");
            assert_eq!(refusal(late.range(&raw::get("k")).await), old, "{method}");
            let mut cut = here.with("token", &ours[..ours.len() - 2]);
            assert_eq!(refusal(cut.put(&put("k")).await), invalid(), "{method}");
        });
    }
}

/// What is not signed with the key by the method counts for nothing.
#[test]
fn signed_tokens_are_not_forged() {
    let server = signed(Kind::subject(), ("RS256", "rsa.pem", ""));
    let stranger = signed(Kind::subject(), ("RS256", "other-rsa.pem", ""));
    let method = signed(Kind::subject(), ("PS256", "rsa.pem", ""));
    block_on(async {
        let mut client = Client::connect(&server).await;
        turn_on(&mut client).await;
        for other in [&stranger, &method] {
            let mut there = Client::connect(other).await;
            turn_on(&mut there).await;
            let token = there.token("root", "rootpw").await.expect("signed there");
            let mut forger = client.with("token", &token);
            assert_eq!(refusal(forger.put(&put("k")).await), invalid());
        }
        // {"alg":"none"} and {"username":"root","revision":99}
        let unsigned = "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6OTl9.";
        for token in [unsigned, "a.b.c", "..", "x.1"] {
            let mut forger = client.with("token", token);
            assert_eq!(refusal(forger.put(&put("k")).await), invalid(), "{token}");
        }
    });
}

/// A member that has the public key alone knows users and makes no tokens.
#[test]
fn a_public_key_makes_no_tokens() {
    let server = signed(Kind::subject(), ("ES256", "", "es256-pub.pem"));
    let signer = signed(Kind::subject(), ("ES256", "es256.pem", ""));
    block_on(async {
        let mut client = Client::connect(&server).await;
        let role = Ask::GrantRole(text("root"), text("root"));
        all(&mut client, &[user("root"), role, Ask::Enable]).await;
        let refusal = refusal(client.token("root", "rootpw").await);
        assert_eq!(refusal.code, UNKNOWN);
        assert_eq!(
            refusal.text,
            "auth: token signing attempted with verify-only key"
        );
        let mut there = Client::connect(&signer).await;
        turn_on(&mut there).await;
        let token = there.token("root", "rootpw").await.expect("signed there");
        client
            .with("token", &token)
            .put(&put("k"))
            .await
            .expect("checked here");
    });
}

#[test]
fn options_that_make_no_sense_refuse_the_start() {
    for option in [
        "nonsense",
        "jwt",
        "jwt,sign-method=none",
        "jwt,sign-method=RS256",
        "jwt,sign-method=HS256,sign-method=HS256",
        "jwt,sign-method",
        "jwt,sign-method=RS256,priv-key=/no/such/file",
        &format!("jwt,sign-method=RS256,priv-key={}", key("es256.pem")),
        &format!(
            "jwt,sign-method=RS256,priv-key={},pub-key={}",
            key("other-rsa.pem"),
            key("rsa-pub.pem")
        ),
        &format!(
            "jwt,sign-method=HS256,ttl=soon,priv-key={}",
            key("hmac.txt")
        ),
    ] {
        let started = Server::try_start(options().flag(format!("--auth-token={option}")));
        assert!(started.is_err(), "{option}");
    }
}

/// A client that shows no token is who its certificate says, unless it is the gateway, which speaks for others.
#[test]
fn certificates_name_users() {
    let tls = pilaster_tests::tls::TlsFiles::create();
    let server = Server::start(options().tls(tls));
    block_on(async {
        // Its common name is `client`.
        let mut client = Client::connect(&server).await;
        let mut root = turn_on(&mut client).await;
        assert_eq!(
            refusal(client.put(&put("a")).await),
            denied(),
            "no such user"
        );
        let asks = [
            Ask::UserAddWithout(text("client")),
            Ask::RoleAdd(text("r")),
            grant("r", READWRITE, "a", "c"),
            Ask::GrantRole(text("client"), text("r")),
        ];
        all(&mut root, &asks).await;
        client
            .put(&put("a"))
            .await
            .expect("named by the certificate");
        assert_eq!(refusal(client.put(&put("c")).await), denied());
        client
            .range(&raw::get("b"))
            .await
            .expect("named by the certificate");
        let mut gateway = client.with("grpcgateway-accept", "*/*");
        let empty = refused(INVALID_ARGUMENT, "user name is empty");
        assert_eq!(refusal(gateway.put(&put("a")).await), empty);
        let mut bad = client.with("token", "bad.1");
        assert_eq!(
            refusal(bad.put(&put("a")).await),
            invalid(),
            "a token comes first"
        );
        root.put(&put("z")).await.expect("a token comes first");
    });
}
