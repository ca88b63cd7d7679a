//! Three generations of etcdctl: locks with and without a command, elections.

use std::process::{Child, Command, Stdio};

use pilaster_tests::{Client, Server, kind, tool};

use super::{run, start, until_queued};

#[test]
fn etcdctl_locks_and_elects() {
    for version in ["3.4.23", "3.5.1", "3.7.1"] {
        let Some(etcdctl) = kind::peer(&format!("{version}/etcdctl")) else {
            continue;
        };
        let server = start();
        let command = ["lock", "a", "--", "sh", "-c", "echo held; exit 3"];
        let output = tool::etcdctl(&etcdctl, &server, &command, "");
        assert_eq!(output.stdout, "held\n", "{output:?}");
        assert!(!output.status.success(), "the command failed");
        run(async {
            let mut client = Client::connect(&server).await;
            // Its session is closed and with it the lease.
            until_queued(&mut client, "a", 0).await;
            let mut holder = spawn(&etcdctl, &server, &["lock", "a"]);
            until_queued(&mut client, "a", 1).await;
            // It gives up when it is told to, and the lock of the service comes to its turn.
            let mut other = Client::connect(&server).await;
            let waiting = tokio::spawn(async move { other.lock("a", 0).await });
            until_queued(&mut client, "a", 2).await;
            terminate(&mut holder);
            waiting.await.expect("no panic").expect("its turn");

            let mut leader = spawn(&etcdctl, &server, &["elect", "e", "me"]);
            until_queued(&mut client, "e", 1).await;
            let kv = client.leader("e").await.expect("it leads").kv;
            assert_eq!(kv.expect("a pair").value, b"me");
            let mut other = Client::connect(&server).await;
            let next = tokio::spawn(async move { other.campaign("e", 0, "us").await });
            until_queued(&mut client, "e", 2).await;
            terminate(&mut leader);
            next.await.expect("no panic").expect("its turn");
            let mut listener = spawn(&etcdctl, &server, &["elect", "-l", "e"]);
            let mut heard = std::io::BufReader::new(listener.stdout.take().expect("piped"));
            let mut line = String::new();
            use std::io::BufRead;
            while !line.contains("us") {
                line.clear();
                assert_ne!(heard.read_line(&mut line).expect("readable"), 0, "no end");
            }
            terminate(&mut listener);
        });
        println!("etcdctl {version} locks and elects");
    }
}

fn spawn(etcdctl: &std::path::Path, server: &Server, arguments: &[&str]) -> Child {
    let mut command = Command::new(etcdctl);
    command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", server.url()))
        .args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().expect("it was there a moment ago")
}

fn terminate(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
    child.wait().expect("our own child");
}
