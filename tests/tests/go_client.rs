//! The official Go client drives the subject, plain and over TLS (`xtask/peers/goclient` holds what it checks).
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
    let Some(program) = kind::peer("goclient/goclient") else {
        return;
    };
    let server = Server::start(options);
    let mut arguments = vec!["-endpoint".to_owned(), server.url()];
    if let Some(tls) = server.tls() {
        for (flag, file) in [
            ("-ca", &tls.ca_cert),
            ("-cert", &tls.client_cert),
            ("-key", &tls.client_key),
        ] {
            arguments.extend([flag.to_owned(), file.display().to_string()]);
        }
    }
    let output = tool::run(&program, &arguments, "");
    println!("{}", output.stdout.trim_end());
    assert!(
        output.status.success() && output.stdout.contains("PASS "),
        "{}",
        output.stderr
    );
}
