//! One running server: its ports, its data directory, its log, and its end.
//!
//! Always true: the program is signalled and awaited by handle (pidfd), so never another one by a reused number; readiness is
//! the line it logs, read from its log pipe, never a guess; the data directory lies on the disk that holds the build.
//! A server that finds its port taken is started again on another one, a few times.
//!
//! Called by every suite. Does not look into the data directory and does not know what a log line means beyond readiness.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::kind::{Kind, scratch_root};
use crate::random::Random;
use crate::tls::TlsFiles;

/// A server that is not ready by then has failed.
const READY_MAX: Duration = Duration::from_secs(60);
/// A server that has not ended this long after SIGTERM or SIGKILL has failed.
const EXIT_MAX: Duration = Duration::from_secs(30);
/// Fresh ports tried before giving up.
const PORT_TRIES_MAX: u32 = 5;
/// What every kind of server logs once it answers clients.
const READY_TEXT: &str = "ready to serve client requests";

/// What to start.
#[derive(Clone)]
pub struct Options {
    pub kind: Kind,
    /// Added after the flags every server gets.
    pub flags: Vec<String>,
    /// Certificates for the client port; none means plain.
    pub tls: Option<Arc<TlsFiles>>,
    /// Used instead of a scratch directory; kept when the server goes.
    pub data_dir: Option<PathBuf>,
    /// The one core the process may run on; none leaves the choice to the kernel.
    pub core: Option<usize>,
    /// The hard limit of open files, and a tenth of it as the soft one; none leaves the limits as they are.
    pub open_files_max: Option<u64>,
}

impl Options {
    pub fn new(kind: Kind) -> Options {
        Options {
            kind,
            flags: Vec::new(),
            tls: None,
            data_dir: None,
            core: None,
            open_files_max: None,
        }
    }

    pub fn flag(mut self, flag: impl Into<String>) -> Options {
        self.flags.push(flag.into());
        self
    }

    pub fn tls(mut self, files: Arc<TlsFiles>) -> Options {
        self.tls = Some(files);
        self
    }

    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Options {
        self.data_dir = Some(dir.into());
        self
    }

    pub fn core(mut self, core: usize) -> Options {
        self.core = Some(core);
        self
    }

    pub fn open_files_max(mut self, limit: u64) -> Options {
        self.open_files_max = Some(limit);
        self
    }
}

/// A server that ended instead of becoming ready.
#[derive(Debug)]
pub struct Refused {
    pub status: ExitStatus,
    pub log: Vec<String>,
}

impl Refused {
    pub fn text(&self) -> String {
        self.log.join("\n")
    }
}

/// A server this test owns. Dropping it kills the program and removes the scratch directory.
pub struct Server {
    options: Options,
    client_port: u16,
    peer_port: u16,
    data_dir: PathBuf,
    /// Removes the scratch directory when dropped; absent when the caller gave one.
    _scratch: Option<TempDir>,
    running: Option<Running>,
}

impl Server {
    /// Starts a server and waits until it serves; panics with its log when it does not.
    pub fn start(options: Options) -> Server {
        match Server::try_start(options) {
            Ok(server) => server,
            Err(refused) => panic!(
                "server did not start ({})\n{}",
                refused.status,
                refused.text()
            ),
        }
    }

    /// As [`Server::start`], for starts that should fail.
    pub fn try_start(options: Options) -> Result<Server, Refused> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut server = Server::prepare(options.clone());
            match server.try_launch() {
                Ok(()) => return Ok(server),
                Err(refused) => {
                    let text = refused.text().to_lowercase();
                    if tries == PORT_TRIES_MAX || !text.contains("address already in use") {
                        return Err(refused);
                    }
                }
            }
        }
    }

    /// Chooses ports and a data directory; starts nothing.
    pub fn prepare(options: Options) -> Server {
        let (data_dir, scratch) = match &options.data_dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let scratch = scratch_dir();
                (scratch.path().join("data"), Some(scratch))
            }
        };
        let [client_port, peer_port] = free_ports();
        Server {
            options,
            client_port,
            peer_port,
            data_dir,
            _scratch: scratch,
            running: None,
        }
    }

    /// Starts the prepared or stopped server again on the same ports and data; panics when it does not become ready.
    pub fn launch(&mut self) {
        if let Err(refused) = self.try_launch() {
            panic!(
                "server did not start ({})\n{}",
                refused.status,
                refused.text()
            );
        }
    }

    pub fn try_launch(&mut self) -> Result<(), Refused> {
        self.spawn();
        self.await_ready()
    }

    /// Starts the program and returns at once, for tests that stop it before it is ready.
    pub fn spawn(&mut self) {
        assert!(self.running.is_none(), "one process at a time");
        self.running = Some(Running::spawn(self.command()));
    }

    /// Waits until the spawned program serves.
    pub fn await_ready(&mut self) -> Result<(), Refused> {
        let running = self.running.as_mut().expect("await_ready follows spawn");
        if running
            .log
            .wait_for(READY_MAX, |line| line.contains(READY_TEXT))
        {
            return Ok(());
        }
        if !running.log.has_ended() {
            let log = running.log.lines().join("\n");
            panic!("server neither ready nor ended within {READY_MAX:?}\n{log}");
        }
        let running = self.running.take().expect("present above");
        let (status, log) = running.end();
        Err(Refused { status, log })
    }

    /// Waits until the log has `count` lines or says ready: a moment of the start to kill the program at.
    pub fn await_log_lines(&mut self, count: usize) {
        let is_ready =
            |lines: &[String]| lines.last().is_some_and(|line| line.contains(READY_TEXT));
        let log = &self.running().log;
        log.wait_until(READY_MAX, |lines| count <= lines.len() || is_ready(lines));
    }

    /// Waits for a log line that `wanted` accepts.
    pub fn await_log(&mut self, wanted: impl Fn(&str) -> bool) -> bool {
        self.running().log.wait_for(READY_MAX, wanted)
    }

    /// Stops the process where it stands. Returns its log.
    pub fn kill9(&mut self) -> Vec<String> {
        let running = self.running.take().expect("a running server");
        running.signal(Signal::KILL);
        running.end().1
    }

    /// Sends SIGTERM and does not wait.
    pub fn send_term(&mut self) {
        self.running().signal(Signal::TERM);
    }

    /// Waits for the end of a server that was told to end. Returns how it ended and its log.
    pub fn await_exit(&mut self) -> (ExitStatus, Vec<String>) {
        self.running.take().expect("a running server").end()
    }

    /// Asks the server to stop (SIGTERM) and waits until it has.
    pub fn terminate(&mut self) -> (ExitStatus, Vec<String>) {
        self.send_term();
        self.await_exit()
    }

    pub fn log(&mut self) -> Vec<String> {
        self.running().log.lines()
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("a running server").child.id()
    }

    pub fn kind(&self) -> Kind {
        self.options.kind
    }

    /// The options of the next start; the present process keeps the old ones.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    pub fn tls(&self) -> Option<&TlsFiles> {
        self.options.tls.as_deref()
    }

    /// `127.0.0.1:port` of the client side.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// `http://127.0.0.1:port` or its `https` twin.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address())
    }

    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The B+tree file.
    pub fn db_file(&self) -> PathBuf {
        self.data_dir.join("member/snap/db")
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("a running server")
    }

    fn command(&self) -> Command {
        let program = self.options.kind.program();
        let mut command = match self.options.core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(core.to_string()).arg(program);
                command
            }
            None => Command::new(program),
        };
        // Settings of the host must not reach the server under test.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"ETCD_") {
                command.env_remove(name);
            }
        }
        let (client, peer) = (self.url(), self.peer_url());
        command
            .args(["--name", "one"])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("one={peer}")]);
        if let Some(tls) = &self.options.tls {
            command.arg("--cert-file").arg(&tls.server_cert);
            command.arg("--key-file").arg(&tls.server_key);
            command
                .arg("--trusted-ca-file")
                .arg(&tls.ca_cert)
                .arg("--client-cert-auth");
        }
        command.args(&self.options.flags);
        if let Some(limit) = self.options.open_files_max {
            limit_open_files(&mut command, limit);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.signal(Signal::KILL);
            let (_, log) = running.end();
            if std::thread::panicking() {
                let from = log.len().saturating_sub(40);
                eprintln!(
                    "last log lines of {}:\n{}",
                    self.kind().name(),
                    log[from..].join("\n")
                );
            }
        }
    }
}

/// A fresh directory on the disk that holds the build; removed with its guard.
pub fn scratch_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("suite-")
        .tempdir_in(scratch_root())
        .expect("the build folder is writable")
}

/// One process and the thread that reads its log.
struct Running {
    child: Child,
    handle: rustix::fd::OwnedFd,
    log: Arc<Log>,
    reader: JoinHandle<()>,
}

impl Running {
    fn spawn(mut command: Command) -> Running {
        die_with_parent(&mut command);
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {:?}: {error}", command.get_program());
        });
        let pid = Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).expect("our own child has a handle");
        let pipe = child.stderr.take().expect("stderr was piped");
        let log = Arc::new(Log::default());
        let sink = log.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                sink.push(String::from_utf8_lossy(&line).into_owned());
            }
            sink.end();
        });
        Running {
            child,
            handle,
            log,
            reader,
        }
    }

    fn signal(&self, signal: Signal) {
        // A process that has already ended is as stopped as it will ever be.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Waits for the end, at most [`EXIT_MAX`], and returns how it ended and all it logged.
    fn end(mut self) -> (ExitStatus, Vec<String>) {
        let in_time = wait_exit(&self.handle, EXIT_MAX);
        if !in_time {
            self.signal(Signal::KILL);
        }
        let status = self.child.wait().expect("our own child can be awaited");
        self.reader.join().expect("the log reader does not panic");
        assert!(in_time, "server did not end within {EXIT_MAX:?}");
        (status, self.log.lines())
    }
}

/// True when the process behind `handle` ends within `limit`.
pub(crate) fn wait_exit(handle: &rustix::fd::OwnedFd, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a bound of seconds fits");
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return 0 < ready,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll of a process handle: {error}"),
        }
    }
}

/// Lets the kernel kill the process when the thread that started it is gone, however that thread ends.
pub(crate) fn die_with_parent(command: &mut Command) {
    let hook = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec the hook makes one system call and nothing else: it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Lets the process open at most `limit` files, and a tenth of that before it asks for more.
fn limit_open_files(command: &mut Command, limit: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let wanted = Rlimit {
        // The loader opens the program's libraries under the soft one.
        current: Some((limit / 10).max(8)),
        maximum: Some(limit),
    };
    let hook = move || Ok(setrlimit(Resource::Nofile, wanted)?);
    // SAFETY: between fork and exec the hook makes one system call and nothing else: it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Log lines so far, and a bell for each new one.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    bell: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    has_ended: bool,
}

impl Log {
    fn push(&self, line: String) {
        self.lock().lines.push(line);
        self.bell.notify_all();
    }

    fn end(&self) {
        self.lock().has_ended = true;
        self.bell.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    fn wait_for(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> bool {
        let mut seen = 0;
        self.wait_until(limit, |lines| {
            let found = lines[seen..].iter().any(|line| wanted(line));
            seen = lines.len();
            found
        })
    }

    /// True once `done` accepts the lines; false at the end of the log or of the time.
    fn wait_until(&self, limit: Duration, mut done: impl FnMut(&[String]) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if done(&state.lines) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.has_ended || left.is_zero() {
                return false;
            }
            state = self
                .bell
                .wait_timeout(state, left)
                .expect("no holder panics")
                .0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LogState> {
        self.state.lock().expect("no holder panics")
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind().name(), self.url())
    }
}

/// Two ports nobody holds, below the range from which the kernel picks ports for outgoing connections, so that none of those
/// takes one while its server is down.
fn free_ports() -> [u16; 2] {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .expect("the kernel has random bytes");
    let mut random = Random::new(u64::from_ne_bytes(seed));
    let mut next = || loop {
        let port = 11_000 + random.below(20_000) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return (port, listener);
        }
    };
    let (first, second) = (next(), next());
    [first.0, second.0]
}
