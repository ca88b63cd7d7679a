//! Nothing secret is printed: not in the log at its most talkative, not in metrics, not on the pages that anybody reads.

use pilaster_tests::auth::Ask;
use pilaster_tests::raw::{self, block_on};
use pilaster_tests::{Client, Kind, Server, plain};

use super::*;

#[test]
fn passwords_and_tokens_are_nowhere() {
    if !Kind::subject().is_pilaster() {
        println!("left out: etcd prints the letters of tokens at level debug");
        return;
    }
    let flags = [
        "--log-level=debug",
        "--metrics=extensive",
        // Everything is slow, so every request is described.
        "--warning-apply-duration=1ns",
        "--warning-unary-request-duration=1ns",
    ];
    let options = flags
        .iter()
        .fold(options(), |options, flag| options.flag(*flag));
    let mut server = Server::start(options);
    let (secrets, metrics) = block_on(async {
        let mut secrets: Vec<String> = Vec::new();
        let mut nobody = Client::connect(&server).await;
        let mut hidden = |text: &str| secrets.push(text.to_owned());
        let role = Ask::GrantRole(text("root"), text("root"));
        let add = Ask::UserAdd(text("root"), text("hush-root-hush"));
        all(&mut nobody, &[add, role, Ask::Enable]).await;
        hidden("hush-root-hush");
        let token = nobody.token("root", "hush-root-hush").await.expect("known");
        hidden(token.split('.').next().expect("letters"));
        let mut root = nobody.with("token", &token);
        let asks = [
            Ask::UserAdd(text("ann"), text("hush-ann-hush")),
            Ask::Password(text("ann"), text("hush-new-hush")),
            Ask::Hash(text("ann"), text("aHVzaC1oYXNoLWh1c2g=")),
        ];
        all(&mut root, &asks).await;
        for secret in [
            "hush-ann-hush",
            "hush-new-hush",
            "aHVzaC1oYXNoLWh1c2g",
            "hush-hash-hush",
        ] {
            hidden(secret);
        }
        let wrong = nobody.token("ann", "hush-wrong-hush").await;
        assert!(wrong.is_err());
        hidden("hush-wrong-hush");
        let mut forger = nobody.with("token", "hushforgedhush.7");
        assert!(forger.put(&put("k")).await.is_err());
        hidden("hushforgedhush");
        let mut forger = nobody.with("authorization", "Bearer hushbearerhush.7");
        assert!(forger.range(&raw::get("k")).await.is_err());
        hidden("hushbearerhush");
        root.put(&put("k")).await.expect("root may");
        hidden("$2a$04$");
        (secrets, plain::get(&server, "/metrics").body)
    });
    assert!(
        metrics.contains("etcd_debugging_auth_revision 6"),
        "metrics"
    );
    let (_, log) = server.terminate();
    assert!(
        log.iter().any(|line| line.contains("took too long")),
        "all is slow"
    );
    for secret in &secrets {
        for line in log.iter().map(String::as_str).chain(metrics.lines()) {
            assert!(!line.contains(secret.as_str()), "{secret}: {line}");
        }
    }
}
