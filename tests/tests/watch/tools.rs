//! Three generations of etcdctl watch: from a revision, a prefix, previous pairs, progress, interactive.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use pilaster_tests::{Kind, Options, Server, kind, tls, tool};

/// A running `etcdctl watch`; ends with its guard.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watching {
    fn start(program: &std::path::Path, server: &Server, arguments: &[&str]) -> Watching {
        let mut command = Command::new(program);
        command.args(["--endpoints", &server.url()]);
        if let Some(tls) = server.tls() {
            command.arg("--cacert").arg(&tls.ca_cert);
            command.arg("--cert").arg(&tls.client_cert);
            command.arg("--key").arg(&tls.client_key);
        }
        command.arg("watch").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("etcdctl runs");
        let out = child.stdout.take().expect("it was piped");
        Watching {
            child,
            lines: BufReader::new(out).lines(),
        }
    }

    fn expect(&mut self, lines: &[&str]) {
        for wanted in lines {
            let line = self.lines.next().expect("a line").expect("text");
            assert_eq!(line, *wanted);
        }
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("it was piped");
        writeln!(stdin, "{line}").expect("it reads");
    }
}

fn drive(program: &str, range_flags: &[&str]) {
    let Some(program) = kind::peer(program) else {
        return;
    };
    let options = Options::new(Kind::subject());
    for options in [options.clone(), options.tls(tls::TlsFiles::create())] {
        let server = Server::start(options);
        let etcdctl = |arguments: &[&str]| {
            let output = tool::etcdctl(&program, &server, arguments, "");
            output.expect_ok("etcdctl");
        };
        let start = |arguments: &[&str]| Watching::start(&program, &server, arguments);
        etcdctl(&["put", "a", "1"]);
        etcdctl(&["put", "ab", "2"]);
        etcdctl(&["put", "b", "3"]);
        let mut one = start(&["a", "--rev", "2"]);
        let mut prefix = start(&["a", "--prefix", "--prev-kv", "--rev=2"]);
        let mut range = start(&[&["ab", "c", "--rev=1"], range_flags].concat());
        one.expect(&["PUT", "a", "1"]);
        prefix.expect(&["PUT", "a", "1", "PUT", "ab", "2"]);
        range.expect(&["PUT", "ab", "2", "PUT", "b", "3"]);
        etcdctl(&["put", "a", "4"]);
        etcdctl(&["del", "ab"]);
        one.expect(&["PUT", "a", "4"]);
        prefix.expect(&["PUT", "a", "1", "a", "4", "DELETE", "ab", "2", "ab", ""]);
        range.expect(&["DELETE", "ab", ""]);
        let mut typed = start(&["-i"]);
        typed.type_line("watch a --rev=5");
        typed.expect(&["PUT", "a", "4"]);
        typed.type_line("watch b --rev=1");
        typed.expect(&["PUT", "b", "3"]);
        typed.type_line("progress");
        typed.expect(&["progress notify: 6"]);
        // What it reads from a compacted revision ends it.
        etcdctl(&["compact", "6"]);
        let old = tool::etcdctl(&program, &server, &["watch", "a", "--rev=2"], "");
        assert!(!old.status.success(), "{old:?}");
        let text = "watch was canceled (etcdserver: mvcc: required revision has been compacted)";
        assert!(old.stderr.contains(text), "{old:?}");
    }
}

#[test]
fn etcdctl_3_4() {
    drive("3.4.23/etcdctl", &[]);
}

#[test]
fn etcdctl_3_5() {
    drive("3.5.1/etcdctl", &["--progress-notify"]);
}

#[test]
fn etcdctl_3_7() {
    drive("3.7.1/etcdctl", &["--progress-notify"]);
}
