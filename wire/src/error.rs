//! Every error a client can see: its exact text and its gRPC code, in one table.
//!
//! Always true: texts and codes are compatibility. Client libraries look the text up and derive the code from it, so a
//! text differs from etcd's in no byte. No status details exist. Built by the services on any core; a value is `Copy`
//! unless it carries text of its own. Does not decide when an error is raised; that is the business of the services.

use std::borrow::Cow;
use std::fmt;

use crate::kv::DecodeError;

/// Numbers of the gRPC status codes, as they go on the wire.
pub mod code {
    pub const OK: u8 = 0;
    pub const CANCELED: u8 = 1;
    pub const UNKNOWN: u8 = 2;
    pub const INVALID_ARGUMENT: u8 = 3;
    pub const DEADLINE_EXCEEDED: u8 = 4;
    pub const NOT_FOUND: u8 = 5;
    pub const ALREADY_EXISTS: u8 = 6;
    pub const PERMISSION_DENIED: u8 = 7;
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    pub const FAILED_PRECONDITION: u8 = 9;
    pub const ABORTED: u8 = 10;
    pub const OUT_OF_RANGE: u8 = 11;
    pub const UNIMPLEMENTED: u8 = 12;
    pub const INTERNAL: u8 = 13;
    pub const UNAVAILABLE: u8 = 14;
    pub const DATA_LOSS: u8 = 15;
    pub const UNAUTHENTICATED: u8 = 16;

    /// The name Go clients print for a code; it appears inside some watch cancel reasons.
    pub fn name(code: u8) -> &'static str {
        match code {
            OK => "OK",
            CANCELED => "Canceled",
            INVALID_ARGUMENT => "InvalidArgument",
            DEADLINE_EXCEEDED => "DeadlineExceeded",
            NOT_FOUND => "NotFound",
            ALREADY_EXISTS => "AlreadyExists",
            PERMISSION_DENIED => "PermissionDenied",
            RESOURCE_EXHAUSTED => "ResourceExhausted",
            FAILED_PRECONDITION => "FailedPrecondition",
            ABORTED => "Aborted",
            OUT_OF_RANGE => "OutOfRange",
            UNIMPLEMENTED => "Unimplemented",
            INTERNAL => "Internal",
            UNAVAILABLE => "Unavailable",
            DATA_LOSS => "DataLoss",
            UNAUTHENTICATED => "Unauthenticated",
            _ => "Unknown",
        }
    }
}

macro_rules! error_table {
    ($($(#[$doc:meta])* $variant:ident = $code:ident, $text:literal;)+) => {
        /// An error whose text never varies.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum EtcdError {
            $($(#[$doc])* $variant,)+
        }

        impl EtcdError {
            /// Every error of the table, in its order.
            pub const ALL: &[EtcdError] = &[$(EtcdError::$variant,)+];

            /// The gRPC status code.
            pub const fn code(self) -> u8 {
                match self {
                    $(EtcdError::$variant => code::$code,)+
                }
            }

            /// The gRPC status message.
            pub const fn text(self) -> &'static str {
                match self {
                    $(EtcdError::$variant => $text,)+
                }
            }
        }
    };
}

error_table! {
    // Key-value, txn, compaction.
    EmptyKey = INVALID_ARGUMENT, "etcdserver: key is not provided";
    KeyNotFound = INVALID_ARGUMENT, "etcdserver: key not found";
    ValueProvided = INVALID_ARGUMENT, "etcdserver: value is provided";
    LeaseProvided = INVALID_ARGUMENT, "etcdserver: lease is provided";
    TooManyOps = INVALID_ARGUMENT, "etcdserver: too many operations in txn request";
    DuplicateKey = INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request";
    InvalidSortOption = INVALID_ARGUMENT, "etcdserver: invalid sort option";
    Compacted = OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted";
    FutureRevision = OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision";
    NoSpace = RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded";
    RequestTooLarge = INVALID_ARGUMENT, "etcdserver: request is too large";
    /// Unknown on the wire: etcd maps it to the client-side twin, which carries no status.
    TooManyRequests = UNKNOWN, "etcdserver: too many requests";
    RangeStreamSort = UNIMPLEMENTED, "RangeStream does not support custom sort orders";
    RangeStreamFilters = UNIMPLEMENTED, "RangeStream does not support revision filters";

    // Lease.
    LeaseNotFound = NOT_FOUND, "etcdserver: requested lease not found";
    LeaseExists = FAILED_PRECONDITION, "etcdserver: lease already exists";
    LeaseTtlTooLarge = OUT_OF_RANGE, "etcdserver: too large lease TTL";
    NotPrimaryLessor = UNKNOWN, "not a primary lessor";
    TimeoutWaitAppliedIndex = UNAVAILABLE,
        "etcdserver: request timed out, waiting for the applied index took too long";

    // Auth.
    RootUserNotExist = FAILED_PRECONDITION, "etcdserver: root user does not exist";
    RootRoleNotExist = FAILED_PRECONDITION, "etcdserver: root user does not have root role";
    UserAlreadyExist = FAILED_PRECONDITION, "etcdserver: user name already exists";
    UserEmpty = INVALID_ARGUMENT, "etcdserver: user name is empty";
    UserNotFound = FAILED_PRECONDITION, "etcdserver: user name not found";
    RoleAlreadyExist = FAILED_PRECONDITION, "etcdserver: role name already exists";
    RoleNotFound = FAILED_PRECONDITION, "etcdserver: role name not found";
    RoleEmpty = INVALID_ARGUMENT, "etcdserver: role name is empty";
    AuthFailed = INVALID_ARGUMENT,
        "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven = INVALID_ARGUMENT, "etcdserver: permission not given";
    PermissionDenied = PERMISSION_DENIED, "etcdserver: permission denied";
    RoleNotGranted = FAILED_PRECONDITION, "etcdserver: role is not granted to the user";
    PermissionNotGranted = FAILED_PRECONDITION,
        "etcdserver: permission is not granted to the role";
    AuthNotEnabled = FAILED_PRECONDITION, "etcdserver: authentication is not enabled";
    InvalidAuthToken = UNAUTHENTICATED, "etcdserver: invalid auth token";
    InvalidAuthMgmt = INVALID_ARGUMENT, "etcdserver: invalid auth management";
    AuthOldRevision = INVALID_ARGUMENT, "etcdserver: revision of auth store is old";
    NoPasswordUser = UNKNOWN,
        "auth: authentication failed, password was given for no password user";

    // Cluster membership.
    MemberExist = FAILED_PRECONDITION, "etcdserver: member ID already exist";
    PeerUrlExist = FAILED_PRECONDITION, "etcdserver: Peer URLs already exists";
    /// Unknown on the wire, for the same reason as `TooManyRequests`.
    MemberNotEnoughStarted = UNKNOWN,
        "etcdserver: re-configuration failed due to not enough started members";
    MemberBadUrls = INVALID_ARGUMENT, "etcdserver: given member URLs are invalid";
    MemberNotFound = NOT_FOUND, "etcdserver: member not found";
    MemberNotLearner = FAILED_PRECONDITION, "etcdserver: can only promote a learner member";
    MemberLearnerNotReady = FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners = FAILED_PRECONDITION,
        "etcdserver: too many learner members in cluster";
    Unhealthy = UNAVAILABLE, "etcdserver: unhealthy cluster";
    ClusterIdMismatch = FAILED_PRECONDITION, "etcdserver: cluster ID mismatch";

    // Maintenance, downgrade, corruption.
    Corrupt = DATA_LOSS, "etcdserver: corrupt cluster";
    NotLeader = FAILED_PRECONDITION, "etcdserver: not leader";
    BadLeaderTransferee = FAILED_PRECONDITION, "etcdserver: bad leader transferee";
    TimeoutLeaderTransfer = UNKNOWN,
        "etcdserver: request timed out, leader transfer took too long";
    WrongDowngradeVersionFormat = INVALID_ARGUMENT,
        "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion = INVALID_ARGUMENT,
        "etcdserver: invalid downgrade target version";
    ClusterVersionUnavailable = FAILED_PRECONDITION,
        "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess = FAILED_PRECONDITION,
        "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade = FAILED_PRECONDITION, "etcdserver: no inflight downgrade job";
    UnknownMethod = UNKNOWN, "etcdserver: unknown method";

    // Availability, limits, interceptors.
    NotCapable = FAILED_PRECONDITION, "etcdserver: not capable";
    NotSupportedForLearner = FAILED_PRECONDITION,
        "etcdserver: rpc not supported for learner";
    InvalidClientApiVersion = INVALID_ARGUMENT, "etcdserver: invalid client api version";
    NoLeader = UNAVAILABLE, "etcdserver: no leader";
    LeaderChanged = UNAVAILABLE, "etcdserver: leader changed";
    Stopped = UNAVAILABLE, "etcdserver: server stopped";
    Timeout = UNAVAILABLE, "etcdserver: request timed out";
    TimeoutDueToLeaderFail = UNAVAILABLE,
        "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost = UNAVAILABLE,
        "etcdserver: request timed out, possibly due to connection lost";
    Canceled = CANCELED, "etcdserver: request canceled";
    /// Known to client tables; the server normally sends `ContextDeadlineExceeded`.
    DeadlineExceeded = DEADLINE_EXCEEDED, "etcdserver: context deadline exceeded";
    ContextDeadlineExceeded = DEADLINE_EXCEEDED, "context deadline exceeded";
    ContextCanceled = CANCELED, "context canceled";
    ProposalDropped = UNKNOWN, "raft proposal dropped";
    RaftStopped = UNKNOWN, "raft: stopped";
    HealthUnknownService = NOT_FOUND, "unknown service";

    // Watch.
    WatchCanceled = CANCELED, "etcdserver: watch canceled";

    // Lock and election.
    SessionExpired = UNKNOWN, "mutex: session is expired";
    LostWatcher = UNKNOWN, "lost watcher waiting for delete";
    ElectionNotLeader = UNKNOWN, "election: not leader";
    ElectionNoLeader = UNKNOWN, "election: no leader";
    LeaderFieldMissing = UNKNOWN, "\"leader\" field must be provided";
}

impl EtcdError {
    /// The text, in the form the generic [`Status`] also offers.
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(self.text())
    }

    /// The text a watcher gets when its creation fails with this error: the status in Go's printed form.
    ///
    /// Only authentication and permission failures are wrapped; a negative start revision is reported by
    /// [`EtcdError::text`] alone.
    pub fn watch_cancel_reason(self) -> String {
        format!(
            "rpc error: code = {} desc = {}",
            code::name(self.code()),
            self.text()
        )
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for EtcdError {}

/// `cancel_reason` of a watcher whose interval can hold no key.
pub const WATCH_RANGE_EMPTY: &str = "mvcc: watcher range is empty";
/// `cancel_reason` of a watcher whose id is already taken on its stream.
pub const WATCH_DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// A gRPC status: one of the table, or one whose text depends on the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    Etcd(EtcdError),
    /// A text of its own; `code` is a number of [`code`].
    Text {
        code: u8,
        message: Cow<'static, str>,
    },
}

impl Status {
    /// The gRPC message is longer than the server accepts.
    pub fn message_too_large(received_bytes: usize, bytes_max: usize) -> Self {
        Status::Text {
            code: code::RESOURCE_EXHAUSTED,
            message: format!(
                "grpc: received message larger than max ({received_bytes} vs. {bytes_max})"
            )
            .into(),
        }
    }

    /// No such service, for example `etcdserverpb.Nothing`.
    pub fn unknown_service(service: &str) -> Self {
        Status::Text {
            code: code::UNIMPLEMENTED,
            message: format!("unknown service {service}").into(),
        }
    }

    /// The service exists, the method does not.
    pub fn unknown_method(method: &str, service: &str) -> Self {
        Status::Text {
            code: code::UNIMPLEMENTED,
            message: format!("unknown method {method} for service {service}").into(),
        }
    }

    /// The message could not be decoded; `detail` says why.
    pub fn unmarshal(detail: impl fmt::Display) -> Self {
        Status::Text {
            code: code::INTERNAL,
            message: format!("grpc: failed to unmarshal the received message: {detail}").into(),
        }
    }

    /// Free text of a lower layer, which etcd passes on with code Unknown.
    pub fn unknown(message: impl Into<Cow<'static, str>>) -> Self {
        Status::Text {
            code: code::UNKNOWN,
            message: message.into(),
        }
    }

    /// The gRPC status code.
    pub fn code(&self) -> u8 {
        match self {
            Status::Etcd(error) => error.code(),
            Status::Text { code, .. } => *code,
        }
    }

    /// The gRPC status message.
    pub fn message(&self) -> &str {
        match self {
            Status::Etcd(error) => error.text(),
            Status::Text { message, .. } => message,
        }
    }
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Self {
        Status::Etcd(error)
    }
}

impl From<DecodeError> for Status {
    fn from(error: DecodeError) -> Self {
        match error {
            // Whatever else such a transaction holds, it has more operations than any may have.
            DecodeError::TooDeep => EtcdError::TooManyOps.into(),
            DecodeError::Malformed | DecodeError::WireType(_) => Status::unmarshal(error),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Status {}
