//! The Rust client library etcd-client drives the subject, plain and over TLS (`xtask/peers/rustclient` holds what it checks).
//!
//! Each of its checks prints a line; a failed one fails this suite with that line.

use pilaster_tests::{Kind, Options, Server, kind, tls, tool};

#[test]
fn plain() {
    drive(Options::new(Kind::subject()));
}

#[test]
fn over_tls() {
    drive(Options::new(Kind::subject()).tls(tls::TlsFiles::create()));
}

fn drive(options: Options) {
    let Some(program) = kind::peer("rustclient/rustclient") else {
        return;
    };
    let server = Server::start(options);
    let mut arguments = vec![server.url()];
    if let Some(tls) = server.tls() {
        let files = [&tls.ca_cert, &tls.client_cert, &tls.client_key];
        arguments.extend(files.map(|file| file.display().to_string()));
    }
    let output = tool::run(&program, &arguments, "");
    println!("{}", output.stdout.trim_end());
    assert!(
        output.status.success() && output.stdout.contains("PASS "),
        "{}",
        output.stderr
    );
}
