//! Command-line peers: runs a program to its end, bounded in time, and keeps what it printed.
//!
//! A program that overruns is killed and fails the test. Standard input is given whole and closed.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::server::{Server, die_with_parent, wait_exit};

/// No single command of the suites takes near this long.
const RUN_MAX: Duration = Duration::from_secs(300);

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output of a run that must have succeeded.
    pub fn expect_ok(self, what: &str) -> String {
        assert!(self.status.success(), "{what}: {self:?}");
        self.stdout
    }
}

/// Runs `program` with `arguments`, `input` on its standard input.
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], input: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, input)
}

/// As [`run`], for a command the caller has dressed up (environment, folder).
pub fn run_command(mut command: Command, input: &str) -> Output {
    die_with_parent(&mut command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
        .expect("our own child has a handle");
    let mut stdin = child.stdin.take().expect("stdin was piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that does not read its input is allowed to go without it.
        let _ = stdin.write_all(input.as_bytes());
    });
    let stdout = collect(child.stdout.take().expect("stdout was piped"));
    let stderr = collect(child.stderr.take().expect("stderr was piped"));
    let in_time = wait_exit(&handle, RUN_MAX);
    if !in_time {
        child.kill().expect("our own child can be killed");
    }
    let status = child.wait().expect("our own child can be awaited");
    writer.join().expect("the writer does not panic");
    let output = Output {
        status,
        stdout: stdout.join().expect("the reader does not panic"),
        stderr: stderr.join().expect("the reader does not panic"),
    };
    assert!(
        in_time,
        "{:?} did not end within {RUN_MAX:?}: {output:?}",
        command.get_program()
    );
    output
}

/// Runs an `etcdctl` against `server`, with its certificates when it has them.
pub fn etcdctl(program: &Path, server: &Server, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", server.url()));
    if let Some(tls) = server.tls() {
        command.arg("--cacert").arg(&tls.ca_cert);
        command.arg("--cert").arg(&tls.client_cert);
        command.arg("--key").arg(&tls.client_key);
    }
    command.args(arguments);
    run_command(command, input)
}

fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        // A broken pipe ends the collection like an end of file; the exit status tells the rest.
        let _ = pipe.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    })
}
