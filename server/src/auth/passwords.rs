//! Passwords are hashed and checked on helper threads: one takes tens of milliseconds, which no core can wait.
//!
//! ```text
//! net ──job──> bounded channel ──> thread: bcrypt ──ToNet::Password──> net
//! ```
//!
//! Always true here: a net core never waits: a full channel is an answer (`etcdserver: too many requests`); the ring
//! back has room for every job that may be under way. The threads run at a lower priority than cores and on no core of
//! their own.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::net::ConnectionKey;
use crate::pipeline::{Doorbell, Inlet, NetId, Outbox, ToNet, Watcher, ring};
use crate::runtime::BellRinger;
use wire::grpc::StreamId;

use super::jwt::Jwt;
use super::secret::Secret;
use super::tokens::{LETTERS, PREFIX_LETTERS};

/// Jobs that may wait for a thread, of all net cores together.
pub const PASSWORD_JOBS_MAX: usize = 256;
/// The longest password that bcrypt can tell from others.
pub const PASSWORD_BYTES_MAX: usize = 72;
/// What etcd answers to a longer one that is to be hashed.
pub const PASSWORD_TOO_LONG: &str = "bcrypt: password length exceeds 72 bytes";
/// Weight about a quarter of a core's, so that a flood of sign-ins takes little from requests and a sign-in still comes
/// through on a busy host.
const NICE: libc::c_int = 6;

/// What is asked of a thread.
pub struct PasswordJob {
    pub net: NetId,
    pub connection: ConnectionKey,
    pub stream: StreamId,
    pub work: PasswordWork,
}

pub enum PasswordWork {
    /// Does the password have this hash?
    Check {
        hash: Box<[u8]>,
        password: Secret,
        token: TokenWork,
    },
    Hash {
        password: Secret,
        cost: u32,
    },
}

/// What is to be made for who has the password.
pub enum TokenWork {
    /// Letters that make a token hard to guess.
    Letters,
    Sign {
        jwt: Arc<Jwt>,
        user: String,
        revision: u64,
    },
}

/// And what it says.
#[derive(Debug)]
pub struct PasswordDone {
    pub connection: ConnectionKey,
    pub stream: StreamId,
    pub result: PasswordResult,
}

#[derive(Debug)]
pub enum PasswordResult {
    /// It does not have that hash. The password comes back in both cases, as users may change meanwhile.
    Wrong,
    /// It has, and this is the token, or what makes it hard to guess.
    Right {
        password: Secret,
        token: Secret,
    },
    Hashed(Secret),
    Failed(String),
}

/// A net core's end.
#[derive(Clone)]
pub struct PasswordDesk(SyncSender<PasswordJob>);

impl PasswordDesk {
    /// False when so many jobs wait that one more must not.
    pub fn submit(&self, job: PasswordJob) -> bool {
        match self.0.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// The threads before they run.
pub struct PasswordHelpers {
    desk: PasswordDesk,
    work: Arc<Mutex<Receiver<PasswordJob>>>,
    /// By thread and net core.
    rings: Vec<Vec<(Outbox<ToNet>, BellRinger)>>,
}

impl PasswordHelpers {
    /// As many threads as `threads`, and what each net core reads from them, in the order of `nets`.
    pub fn new(threads: usize, nets: &[BellRinger]) -> (PasswordHelpers, Vec<Vec<Inlet<ToNet>>>) {
        let (jobs, work) = sync_channel(PASSWORD_JOBS_MAX);
        let mut inlets: Vec<Vec<Inlet<ToNet>>> = nets.iter().map(|_| Vec::new()).collect();
        let rings = (0..threads)
            .map(|_| {
                let nets = nets.iter().zip(&mut inlets);
                nets.map(|(ringer, inlets)| {
                    let (outbox, inlet) = ring(2 * PASSWORD_JOBS_MAX);
                    inlets.push(inlet);
                    (outbox, ringer.clone())
                })
                .collect()
            })
            .collect();
        let helpers = PasswordHelpers {
            desk: PasswordDesk(jobs),
            work: Arc::new(Mutex::new(work)),
            rings,
        };
        (helpers, inlets)
    }

    pub fn desk(&self) -> PasswordDesk {
        self.desk.clone()
    }

    /// Starts the threads; they end when the last desk is gone.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(self) -> std::io::Result<()> {
        for rings in self.rings {
            let work = self.work.clone();
            std::thread::Builder::new()
                .name("passwords".to_owned())
                .spawn(move || {
                    lower_priority();
                    let rings = rings.into_iter();
                    let mut rings: Vec<Watcher<ToNet>> = rings
                        .map(|(ring, ringer)| ring.with_doorbell(Doorbell::Bell(ringer)))
                        .collect();
                    loop {
                        let job = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = job else { return };
                        let net = usize::from(job.net.0);
                        let (connection, stream) = (job.connection, job.stream);
                        let done = PasswordDone {
                            connection,
                            stream,
                            result: carry_out(job.work),
                        };
                        let mut message = ToNet::Password(done);
                        // The ring is larger than all that may be under way; only a core that stands still lets it fill.
                        while let Err(back) = rings[net].push(message) {
                            message = back;
                            std::thread::sleep(std::time::Duration::from_millis(1));
                        }
                        rings[net].flush();
                    }
                })?;
        }
        Ok(())
    }
}

fn carry_out(work: PasswordWork) -> PasswordResult {
    match work {
        PasswordWork::Check {
            hash,
            password,
            token,
        } => {
            // A record that etcd's bcrypt cannot read is a wrong password there, too.
            let hash = std::str::from_utf8(&hash).unwrap_or_default();
            match bcrypt::verify(password.bytes(), hash) {
                Ok(true) => match token.carry_out() {
                    Ok(token) => PasswordResult::Right { password, token },
                    Err(text) => PasswordResult::Failed(text),
                },
                Ok(false) | Err(_) => PasswordResult::Wrong,
            }
        }
        PasswordWork::Hash { password, cost } => {
            match bcrypt::hash_with_result(password.bytes(), cost) {
                // The version that etcd writes.
                Ok(hash) => PasswordResult::Hashed(Secret::from(
                    hash.format_for_version(bcrypt::Version::TwoA),
                )),
                Err(error) => PasswordResult::Failed(format!("bcrypt: {error}")),
            }
        }
    }
}

impl TokenWork {
    fn carry_out(self) -> Result<Secret, String> {
        match self {
            TokenWork::Letters => token_prefix().map_err(|error| error.to_string()),
            TokenWork::Sign {
                jwt,
                user,
                revision,
            } => jwt.sign(&user, revision, SystemTime::now()),
        }
    }
}

/// Letters drawn evenly by the system.
fn token_prefix() -> std::io::Result<Secret> {
    let mut prefix = String::with_capacity(PREFIX_LETTERS);
    let mut drawn = [0u8; 32];
    while prefix.len() < PREFIX_LETTERS {
        let filled = rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty())?;
        for byte in &drawn[..filled] {
            // Four times the letters fit into a byte; what is above would make some of them likelier.
            let letter = usize::from(*byte);
            if letter < 4 * LETTERS.len() && prefix.len() < PREFIX_LETTERS {
                prefix.push(char::from(LETTERS[letter % LETTERS.len()]));
            }
        }
    }
    Ok(Secret::from(prefix))
}

/// Where the system refuses, passwords merely compete a little more.
fn lower_priority() {
    // SAFETY: takes numbers and changes this thread only.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(password: &str) -> String {
        let password = Secret::from(password.to_owned());
        match carry_out(PasswordWork::Hash { password, cost: 4 }) {
            PasswordResult::Hashed(hash) => hash.text().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn is_right(hash: &str, password: &str) -> bool {
        let work = PasswordWork::Check {
            hash: hash.as_bytes().into(),
            password: Secret::from(password.to_owned()),
            token: TokenWork::Letters,
        };
        match carry_out(work) {
            PasswordResult::Right { token, .. } => {
                assert_eq!(token.bytes().len(), PREFIX_LETTERS);
                assert!(token.bytes().iter().all(u8::is_ascii_alphabetic));
                true
            }
            PasswordResult::Wrong => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_password_has_its_own_hash_alone() {
        for password in ["", "a", "pass\0word", "ü", &"x".repeat(72)] {
            let hash = hash(password);
            assert!(hash.starts_with("$2a$04$"), "{hash}");
            assert!(is_right(&hash, password), "{password:?}");
            assert!(!is_right(&hash, "other"), "{password:?}");
        }
    }

    #[test]
    fn hashes_of_etcd_are_read_and_garbage_has_no_password() {
        // Made by golang.org/x/crypto/bcrypt.
        let allmine = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        assert!(is_right(allmine, "allmine"));
        assert!(!is_right(allmine, "allmin"));
        for garbage in ["", "$2a$", "$2a$10$short", "plain"] {
            assert!(!is_right(garbage, ""), "{garbage:?}");
            assert!(!is_right(garbage, garbage), "{garbage:?}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let password = Secret::from("hush".to_owned());
        let token = Secret::from("quiet".to_owned());
        let shown = format!("{:?}", PasswordResult::Right { password, token });
        assert!(
            !shown.contains("hush") && !shown.contains("quiet"),
            "{shown}"
        );
    }
}
