//! Three generations of etcdctl: grant, put with a lease, time to live with keys, list, keep alive, revoke.

use pilaster_tests::{Server, kind, tool};

use super::start;

#[test]
fn etcdctl_3_4() {
    drive("3.4.23/etcdctl");
}

#[test]
fn etcdctl_3_5() {
    drive("3.5.1/etcdctl");
}

#[test]
fn etcdctl_3_7() {
    drive("3.7.1/etcdctl");
}

fn drive(program: &str) {
    let Some(program) = kind::peer(program) else {
        return;
    };
    let server = start();
    let run = |arguments: &[&str]| -> String {
        let output = tool::etcdctl(&program, &server, arguments, "");
        output.expect_ok(&arguments.join(" ")).trim_end().to_owned()
    };
    assert_eq!(run(&["lease", "list"]), "found 0 leases");
    let granted = run(&["lease", "grant", "600"]);
    let id = granted.split(' ').nth(1).expect("an id").to_owned();
    assert_eq!(id.len(), 16, "{granted}");
    assert_eq!(granted, format!("lease {id} granted with TTL(600s)"));
    assert_eq!(run(&["lease", "list"]), format!("found 1 leases\n{id}"));
    run(&["put", "--lease", &id, "k1", "v"]);
    run(&["put", "--lease", &id, "k2", "v"]);
    let text = run(&["lease", "timetolive", "--keys", &id]);
    assert!(text.starts_with(&format!("lease {id} granted with TTL(600s), remaining(")));
    let keys = [", attached keys([k1 k2])", ", attached keys([k2 k1])"];
    assert!(keys.iter().any(|keys| text.ends_with(keys)), "{text}");
    assert_eq!(
        run(&["lease", "keep-alive", "--once", &id]),
        format!("lease {id} keepalived with TTL(600)")
    );
    assert_eq!(
        run(&["lease", "revoke", &id]),
        format!("lease {id} revoked")
    );
    assert_eq!(run(&["get", "--prefix", "k"]), "");
    assert_eq!(
        run(&["lease", "timetolive", &id]),
        format!("lease {id} already expired")
    );
    is_refused(
        &program,
        &server,
        &["lease", "revoke", &id],
        "requested lease not found",
    );
    is_refused(
        &program,
        &server,
        &["put", "--lease", &id, "k", "v"],
        "requested lease not found",
    );
    is_refused(
        &program,
        &server,
        &["lease", "grant", "9000000001"],
        "too large lease TTL",
    );
    // Ends by itself once its lease is gone.
    let text = run(&["lease", "keep-alive", &id]);
    assert_eq!(text, format!("lease {id} expired or revoked."));
}

fn is_refused(program: &std::path::Path, server: &Server, arguments: &[&str], why: &str) {
    let output = tool::etcdctl(program, server, arguments, "");
    assert!(!output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.contains(why), "{arguments:?}: {output:?}");
}
