//! What the host allows: too few open files, and a limit that is just enough.

use pilaster_tests::{Client, Kind, Options, Server, raw};

/// A real etcd wants more than 150 open files; here the refusal names the number that would do, and that number does.
#[test]
fn too_few_open_files_are_refused_with_the_number_that_would_do() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd has a fixed bound of 150");
        return;
    }
    let mut least = 0;
    for limit in [20, 40, 60] {
        let options = Options::new(Kind::subject()).open_files_max(limit);
        let refused = Server::try_start(options).expect_err("too few open files");
        let text = refused.text();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        for wanted in [&limit.to_string(), "LimitNOFILE", "ulimit"] {
            assert!(text.contains(wanted), "{wanted} is not named: {text}");
        }
        let (_, rest) = text.split_once("needs at least ").expect("a number");
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        least = number.parse().expect("a number of files");
    }
    let too_few = Options::new(Kind::subject()).open_files_max(least - 1);
    Server::try_start(too_few).expect_err("one too few");
    // The soft limit, a tenth of it, is raised; then clients find room.
    let server = Server::start(Options::new(Kind::subject()).open_files_max(least));
    raw::block_on(async {
        let mut clients = Vec::new();
        for number in 0..16 {
            let mut client = Client::connect(&server).await;
            client
                .put(&raw::put(format!("key {number}"), "x"))
                .await
                .expect("a put");
            clients.push(client);
        }
    });
    println!("refused below {least} open files; {least} carry 16 clients");
}
