//! The Auth service on a net core, and the questions of rights that other services ask before they begin.
//!
//! Everything becomes an entry, as in etcd, so that it is answered in the order of the log. Three calls need bcrypt first
//! ([`crate::auth::passwords`]): a new password is hashed before it is proposed, so the entry holds the hash and apply
//! stays deterministic; a sign-in waits until what was acknowledged is applied, has its password checked, and is checked
//! again if users or roles changed before its entry was applied.
//!
//! Always true here: a call that waits is in the table of calls until it is answered, cancelled or out of time; their
//! number is bounded; no password is in the log, in a proposal or in anything printed.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::Message;
use storage::command::{Auth, Body};
use wire::error::EtcdError;
use wire::grpc::{Call, Code, MethodId, Responder, StreamId};
use wire::kv::RequestEnvelope;
use wire::messages::etcdserverpb as pb;

use crate::auth::passwords::{PASSWORD_BYTES_MAX, PASSWORD_TOO_LONG, PasswordWork, TokenWork};
use crate::auth::{
    Identity, PasswordDesk, PasswordDone, PasswordJob, PasswordResult, Secret, TokenKind,
};
use crate::pipeline::Reply;
use crate::services::methods::id;

use super::calls::{CallError, Calls, Handled, answer_error};
use super::connection::ConnectionKey;
use super::core::{NetCore, fail};
use super::proposals::Pending;
use super::state::NetState;
use super::writes::Caller;

/// Calls of one net core that may wait for a password's hash.
const AUTH_CALLS_MAX: usize = 256;

/// Go's decoder: padding is demanded, stray bits behind it are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);
/// Bytes of a bcrypt hash in base64, as etcd's entry holds it.
const HASH_BASE64_BYTES: usize = 80;

/// Calls that wait for bcrypt, or for the entry that follows it.
pub struct AuthCalls {
    // Clients choose stream ids, so no map whose hash they could aim at.
    waiting: BTreeMap<(ConnectionKey, StreamId), AuthCall>,
    desk: PasswordDesk,
}

struct AuthCall {
    method: MethodId,
    started_ns: u64,
    deadline_ns: u64,
    step: Step,
}

enum Step {
    Authenticate {
        name: String,
        /// `None` while a thread has it.
        password: Option<Secret>,
        /// Signed for the user; where tokens are simple, the entry makes one.
        token: Option<Secret>,
        /// The revision of the view that the hash was taken from.
        checked: u64,
    },
    /// Of a new password.
    Hash {
        name: String,
        who: Option<Identity>,
        is_new_user: bool,
    },
}

impl AuthCalls {
    pub fn new(desk: PasswordDesk) -> AuthCalls {
        AuthCalls {
            waiting: BTreeMap::new(),
            desk,
        }
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The call is over.
    pub fn remove(&mut self, connection: ConnectionKey, stream: StreamId) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&(connection, stream));
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < AUTH_CALLS_MAX
    }

    /// The sign-in is over: the token that was signed for it.
    fn take_token(&mut self, connection: ConnectionKey, stream: StreamId) -> Option<Secret> {
        match self.waiting.remove(&(connection, stream))?.step {
            Step::Authenticate { token, .. } => token,
            Step::Hash { .. } => None,
        }
    }
}

/// Adds a token to an `AuthenticateResponse`, whose last field it is.
fn put_token(out: &mut Vec<u8>, token: &str) {
    let response = pb::AuthenticateResponse {
        header: None,
        token: token.to_owned(),
    };
    response.encode(out).expect("a Vec takes all bytes");
}

impl Calls<'_> {
    /// Who calls; nobody while authentication is off.
    pub(super) fn identify(&mut self, call: &Call<'_>) -> Result<Option<Identity>, EtcdError> {
        if let Some(who) = self.acts_for {
            return Ok(who.clone());
        }
        let now_ns = self.state.now_ns;
        self.state
            .auth
            .identify(&call.metadata, Some(self.common_name), now_ns)
    }

    /// For calls that anybody may make who has a name.
    pub(super) fn require_user(&mut self, call: &Call<'_>) -> Result<Option<Identity>, EtcdError> {
        let who = self.identify(call)?;
        self.state.auth.check_user(who.as_ref())?;
        Ok(who)
    }

    /// For calls that need the root role.
    pub(super) fn require_root(&mut self, call: &Call<'_>) -> Result<Option<Identity>, EtcdError> {
        let who = self.identify(call)?;
        self.state.auth.check_root(who.as_ref())?;
        Ok(who)
    }

    /// A call of the Auth service.
    pub(super) fn auth(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let len = message.len();
        match call.method {
            id::AUTH_AUTHENTICATE => self.authenticate(call, message),
            id::AUTH_USER_ADD => self.user_add(call, message),
            id::AUTH_USER_CHANGE_PASSWORD => self.user_change_password(call, message),
            id::AUTH_AUTH_ENABLE => {
                pb::AuthEnableRequest::decode(message)?;
                self.propose_auth(call, Auth::Enable, 1000, len)
            }
            id::AUTH_AUTH_DISABLE => {
                pb::AuthDisableRequest::decode(message)?;
                self.propose_auth(call, Auth::Disable, 1011, len)
            }
            id::AUTH_AUTH_STATUS => {
                pb::AuthStatusRequest::decode(message)?;
                self.propose_auth(call, Auth::Status, 1013, len)
            }
            id::AUTH_USER_GET => {
                let name = &pb::AuthUserGetRequest::decode(message)?.name;
                self.propose_auth(call, Auth::UserGet { name }, 1102, len)
            }
            id::AUTH_USER_LIST => {
                pb::AuthUserListRequest::decode(message)?;
                self.propose_auth(call, Auth::UserList, 1106, len)
            }
            id::AUTH_USER_DELETE => {
                let name = &pb::AuthUserDeleteRequest::decode(message)?.name;
                self.propose_auth(call, Auth::UserDelete { name }, 1101, len)
            }
            id::AUTH_USER_GRANT_ROLE => {
                let request = pb::AuthUserGrantRoleRequest::decode(message)?;
                let (name, role) = (&request.user, &request.role);
                self.propose_auth(call, Auth::UserGrantRole { name, role }, 1104, len)
            }
            id::AUTH_USER_REVOKE_ROLE => {
                let request = pb::AuthUserRevokeRoleRequest::decode(message)?;
                let (name, role) = (&request.name, &request.role);
                self.propose_auth(call, Auth::UserRevokeRole { name, role }, 1105, len)
            }
            id::AUTH_ROLE_ADD => {
                let role = &pb::AuthRoleAddRequest::decode(message)?.name;
                self.propose_auth(call, Auth::RoleAdd { role }, 1200, len)
            }
            id::AUTH_ROLE_GET => {
                let role = &pb::AuthRoleGetRequest::decode(message)?.role;
                self.propose_auth(call, Auth::RoleGet { role }, 1202, len)
            }
            id::AUTH_ROLE_LIST => {
                pb::AuthRoleListRequest::decode(message)?;
                self.propose_auth(call, Auth::RoleList, 1107, len)
            }
            id::AUTH_ROLE_DELETE => {
                let role = &pb::AuthRoleDeleteRequest::decode(message)?.role;
                self.propose_auth(call, Auth::RoleDelete { role }, 1201, len)
            }
            id::AUTH_ROLE_GRANT_PERMISSION => {
                let request = pb::AuthRoleGrantPermissionRequest::decode(message)?;
                let permission = request.perm.clone().unwrap_or_default();
                let auth = Auth::RoleGrantPermission {
                    role: &request.name,
                    has_permission: request.perm.is_some(),
                    access: permission.perm_type,
                    key: &permission.key,
                    range_end: &permission.range_end,
                };
                self.propose_auth(call, auth, 1203, len)
            }
            id::AUTH_ROLE_REVOKE_PERMISSION => {
                let request = pb::AuthRoleRevokePermissionRequest::decode(message)?;
                let auth = Auth::RoleRevokePermission {
                    role: &request.role,
                    key: &request.key,
                    range_end: &request.range_end,
                };
                self.propose_auth(call, auth, 1204, len)
            }
            method => unreachable!("{method:?} is no method of the Auth service"),
        }
    }

    /// `field` is etcd's in its raft request.
    fn propose_auth(&mut self, call: &Call<'_>, auth: Auth<'_>, field: u32, len: usize) -> Handled {
        let envelope = RequestEnvelope::Other { field, len };
        self.propose(call, Body::Auth(auth), envelope)
    }

    fn authenticate(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = pb::AuthenticateRequest::decode(message)?;
        let step = Step::Authenticate {
            name: request.name,
            password: Some(Secret::from(request.password)),
            token: None,
            checked: 0,
        };
        if !self.state.reads.has_room(0) {
            return Err(EtcdError::TooManyRequests.into());
        }
        self.wait(call, step)?;
        let state = &mut *self.state;
        let (connection, now_ns) = (self.connection, state.now_ns);
        state
            .reads
            .add(connection, call.stream, call.method, b"", now_ns, None);
        Ok(())
    }

    fn user_add(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = pb::AuthUserAddRequest::decode(message)?;
        if request.options.is_some_and(|options| options.no_password) {
            let auth = Auth::UserAdd {
                name: &request.name,
                password: b"",
                is_without_password: true,
            };
            return self.propose_auth(call, auth, 1100, message.len());
        }
        self.hash_password(call, request.name, Secret::from(request.password), true)
    }

    fn user_change_password(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = pb::AuthUserChangePasswordRequest::decode(message)?;
        if !request.password.is_empty() {
            return self.hash_password(call, request.name, Secret::from(request.password), false);
        }
        // Go's decoder skips the ends of lines.
        let mut hash = request.hashed_password;
        hash.retain(|letter| letter != '\n' && letter != '\r');
        let hash = BASE64.decode(hash);
        let auth = Auth::UserChangePassword {
            name: &request.name,
            password: hash.as_deref().unwrap_or_default(),
            is_unreadable: hash.is_err(),
        };
        self.propose_auth(call, auth, 1103, message.len())
    }

    /// Has a new password hashed. Who may not give one is told before that costs anything.
    fn hash_password(
        &mut self,
        call: &Call<'_>,
        name: String,
        password: Secret,
        is_new_user: bool,
    ) -> Handled {
        if password.bytes().len() > PASSWORD_BYTES_MAX {
            let text = PASSWORD_TOO_LONG.to_owned();
            return Err(CallError::Status(Code::Unknown, text));
        }
        let who = self.require_root(call)?;
        let cost = self.state.auth.settings().bcrypt_cost;
        self.wait(
            call,
            Step::Hash {
                name,
                who,
                is_new_user,
            },
        )?;
        let work = PasswordWork::Hash { password, cost };
        let state = &mut *self.state;
        if !state.submit(self.connection, call.stream, work) {
            state.auth_calls.remove(self.connection, call.stream);
            return Err(EtcdError::TooManyRequests.into());
        }
        Ok(())
    }

    fn wait(&mut self, call: &Call<'_>, step: Step) -> Result<(), EtcdError> {
        let state = &mut *self.state;
        if !state.auth_calls.has_room() {
            return Err(EtcdError::TooManyRequests);
        }
        let now_ns = state.now_ns;
        let waiting = AuthCall {
            method: call.method,
            started_ns: now_ns,
            deadline_ns: now_ns + state.settings.request_timeout_ns,
            step,
        };
        let key = (self.connection, call.stream);
        state.auth_calls.waiting.insert(key, waiting);
        Ok(())
    }
}

impl NetState {
    fn submit(&self, connection: ConnectionKey, stream: StreamId, work: PasswordWork) -> bool {
        self.auth_calls.desk.submit(PasswordJob {
            net: self.id,
            connection,
            stream,
            work,
        })
    }

    /// Everything acknowledged before the sign-in is applied: its password is checked against the user of now.
    pub(super) fn check_password(
        &mut self,
        connection: ConnectionKey,
        stream: StreamId,
        out: &mut Responder<'_>,
    ) {
        if let Err(error) = self.begin_check(connection, stream) {
            self.auth_calls.remove(connection, stream);
            fail(out, stream, error);
        }
    }

    fn begin_check(
        &mut self,
        connection: ConnectionKey,
        stream: StreamId,
    ) -> Result<(), EtcdError> {
        let view = self.auth.view().clone();
        let waiting = self.auth_calls.waiting.get_mut(&(connection, stream));
        let Some(AuthCall {
            step:
                Step::Authenticate {
                    name,
                    password,
                    checked,
                    ..
                },
            ..
        }) = waiting
        else {
            // The client has gone.
            return Ok(());
        };
        if !view.is_enabled {
            return Err(EtcdError::AuthNotEnabled);
        }
        let refused = match view.user(name) {
            None => EtcdError::AuthFailed,
            Some(user) if user.is_without_password => EtcdError::NoPasswordUser,
            Some(user) => {
                *checked = view.revision;
                let Some(password) = password.take() else {
                    return Ok(());
                };
                let work = PasswordWork::Check {
                    hash: user.password.clone(),
                    password,
                    token: match &self.auth.settings().tokens {
                        TokenKind::Simple => TokenWork::Letters,
                        TokenKind::Signed(jwt) => TokenWork::Sign {
                            jwt: jwt.clone(),
                            user: name.clone(),
                            revision: view.revision,
                        },
                        TokenKind::Absent => return Err(EtcdError::AuthFailed),
                    },
                };
                return match self.submit(connection, stream, work) {
                    true => Ok(()),
                    false => Err(EtcdError::TooManyRequests),
                };
            }
        };
        log_refusal(name, refused);
        Err(refused)
    }

    /// A thread is done: the call goes on with its entry.
    fn go_on(&mut self, done: PasswordDone) -> Handled {
        let key = (done.connection, done.stream);
        let Some(waiting) = self.auth_calls.waiting.get_mut(&key) else {
            return Ok(());
        };
        let caller = Caller {
            connection: done.connection,
            stream: done.stream,
            method: waiting.method,
            started_ns: waiting.started_ns,
        };
        match (&mut waiting.step, done.result) {
            (_, PasswordResult::Failed(text)) => Err(CallError::Status(Code::Unknown, text)),
            (Step::Authenticate { name, .. }, PasswordResult::Wrong) => {
                log_refusal(name, EtcdError::AuthFailed);
                Err(EtcdError::AuthFailed.into())
            }
            (
                Step::Authenticate {
                    name,
                    password,
                    token,
                    ..
                },
                PasswordResult::Right {
                    password: checked,
                    token: made,
                },
            ) => {
                *password = Some(checked);
                let name = name.clone();
                let letters = match self.auth.settings().tokens {
                    TokenKind::Simple => made,
                    _ => {
                        *token = Some(made);
                        Secret::from(String::new())
                    }
                };
                let auth = Auth::Authenticate {
                    user: &name,
                    token: letters.text(),
                };
                let len = name.len() + letters.bytes().len() + 4;
                self.propose_auth(caller, None, auth, 1012, len)
            }
            (
                Step::Hash {
                    name,
                    who,
                    is_new_user,
                },
                PasswordResult::Hashed(hash),
            ) => {
                let (name, who, is_new_user) = (std::mem::take(name), who.take(), *is_new_user);
                let password = hash.bytes();
                let len = name.len() + HASH_BASE64_BYTES + 4;
                let (auth, field) = match is_new_user {
                    true => (
                        Auth::UserAdd {
                            name: &name,
                            password,
                            is_without_password: false,
                        },
                        1100,
                    ),
                    false => (
                        Auth::UserChangePassword {
                            name: &name,
                            password,
                            is_unreadable: false,
                        },
                        1103,
                    ),
                };
                self.propose_auth(caller, who.as_ref(), auth, field, len)?;
                // Its reply needs nothing that is kept here.
                self.auth_calls.waiting.remove(&key);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn propose_auth(
        &mut self,
        caller: Caller,
        who: Option<&Identity>,
        auth: Auth<'_>,
        field: u32,
        len: usize,
    ) -> Handled {
        let body = Body::Auth(auth);
        self.check_room(&body)?;
        let envelope = RequestEnvelope::Other { field, len };
        self.propose(caller, who, body, envelope, None)
    }

    /// A sign-in's entry was applied. True if users or roles are as they were when its password was checked; else it is
    /// checked again.
    fn is_still_right(&mut self, connection: ConnectionKey, stream: StreamId) -> bool {
        let revision = self.auth.view().revision;
        match self.auth_calls.waiting.get(&(connection, stream)) {
            Some(AuthCall {
                step: Step::Authenticate { checked, .. },
                ..
            }) => *checked == revision,
            _ => true,
        }
    }
}

impl NetCore {
    pub(super) fn on_password(&self, done: PasswordDone) {
        let (connection, stream) = (done.connection, done.stream);
        let state = &mut *self.state.borrow_mut();
        if let Err(error) = state.go_on(done) {
            state.auth_calls.remove(connection, stream);
            self.respond(connection, |out| answer_error(stream, error, out));
        }
        state.end_pass();
    }

    /// The entry of a sign-in was applied.
    pub(super) fn on_authenticated(&self, pending: &Pending, reply: &Reply, bytes: &[u8]) {
        let (connection, stream) = (pending.connection, pending.stream);
        let state = &mut *self.state.borrow_mut();
        state.books.ended(pending.ended(true));
        if reply.result.is_ok() && !state.is_still_right(connection, stream) {
            tracing::info!(
                "users or roles changed while a password was checked; checking it again"
            );
            return self.respond(connection, |out| {
                state.check_password(connection, stream, out);
            });
        }
        let token = state.auth_calls.take_token(connection, stream);
        self.respond(connection, |out| match &reply.result {
            Ok(range) => {
                let message = &bytes[range.clone()];
                out.unary(stream, |buffer| {
                    buffer.extend_from_slice(message);
                    if let Some(token) = token {
                        put_token(buffer, token.text());
                    }
                });
            }
            Err(error) => fail(out, stream, *error),
        });
    }

    /// Ends calls that waited too long for a thread.
    pub(super) fn expire_auth_calls(&self, now_ns: u64) {
        let state = &mut *self.state.borrow_mut();
        if !state.auth_calls.is_waiting() {
            return;
        }
        let expired: Vec<(ConnectionKey, StreamId)> = state
            .auth_calls
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.deadline_ns <= now_ns)
            .map(|(key, _)| *key)
            .collect();
        for (connection, stream) in expired {
            state.auth_calls.remove(connection, stream);
            self.respond(connection, |out| fail(out, stream, EtcdError::Timeout));
        }
    }
}

fn log_refusal(user: &str, error: EtcdError) {
    tracing::warn!(
        user,
        error = error.text(),
        "invalid authentication was requested"
    );
}
