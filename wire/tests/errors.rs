//! The error table against the list of texts and codes that client libraries know.

use std::collections::BTreeMap;

use wire::error::{EtcdError, Status, code};
use wire::kv::DecodeError;

/// Texts and code names of etcd 3.7, in the order of its reference.
const EXPECTED: &[(&str, &str)] = &[
    ("etcdserver: key is not provided", "InvalidArgument"),
    ("etcdserver: key not found", "InvalidArgument"),
    ("etcdserver: value is provided", "InvalidArgument"),
    ("etcdserver: lease is provided", "InvalidArgument"),
    (
        "etcdserver: too many operations in txn request",
        "InvalidArgument",
    ),
    (
        "etcdserver: duplicate key given in txn request",
        "InvalidArgument",
    ),
    ("etcdserver: invalid sort option", "InvalidArgument"),
    (
        "etcdserver: mvcc: required revision has been compacted",
        "OutOfRange",
    ),
    (
        "etcdserver: mvcc: required revision is a future revision",
        "OutOfRange",
    ),
    (
        "etcdserver: mvcc: database space exceeded",
        "ResourceExhausted",
    ),
    ("etcdserver: request is too large", "InvalidArgument"),
    ("etcdserver: too many requests", "Unknown"),
    (
        "RangeStream does not support custom sort orders",
        "Unimplemented",
    ),
    (
        "RangeStream does not support revision filters",
        "Unimplemented",
    ),
    ("etcdserver: requested lease not found", "NotFound"),
    ("etcdserver: lease already exists", "FailedPrecondition"),
    ("etcdserver: too large lease TTL", "OutOfRange"),
    ("not a primary lessor", "Unknown"),
    ("etcdserver: leader changed", "Unavailable"),
    (
        "etcdserver: request timed out, waiting for the applied index took too long",
        "Unavailable",
    ),
    ("etcdserver: request timed out", "Unavailable"),
    ("etcdserver: no leader", "Unavailable"),
    ("etcdserver: root user does not exist", "FailedPrecondition"),
    (
        "etcdserver: root user does not have root role",
        "FailedPrecondition",
    ),
    ("etcdserver: user name already exists", "FailedPrecondition"),
    ("etcdserver: user name is empty", "InvalidArgument"),
    ("etcdserver: user name not found", "FailedPrecondition"),
    ("etcdserver: role name already exists", "FailedPrecondition"),
    ("etcdserver: role name not found", "FailedPrecondition"),
    ("etcdserver: role name is empty", "InvalidArgument"),
    (
        "etcdserver: authentication failed, invalid user ID or password",
        "InvalidArgument",
    ),
    ("etcdserver: permission not given", "InvalidArgument"),
    ("etcdserver: permission denied", "PermissionDenied"),
    (
        "etcdserver: role is not granted to the user",
        "FailedPrecondition",
    ),
    (
        "etcdserver: permission is not granted to the role",
        "FailedPrecondition",
    ),
    (
        "etcdserver: authentication is not enabled",
        "FailedPrecondition",
    ),
    ("etcdserver: invalid auth token", "Unauthenticated"),
    ("etcdserver: invalid auth management", "InvalidArgument"),
    (
        "etcdserver: revision of auth store is old",
        "InvalidArgument",
    ),
    (
        "auth: authentication failed, password was given for no password user",
        "Unknown",
    ),
    ("etcdserver: member ID already exist", "FailedPrecondition"),
    ("etcdserver: Peer URLs already exists", "FailedPrecondition"),
    (
        "etcdserver: re-configuration failed due to not enough started members",
        "Unknown",
    ),
    (
        "etcdserver: given member URLs are invalid",
        "InvalidArgument",
    ),
    ("etcdserver: member not found", "NotFound"),
    (
        "etcdserver: can only promote a learner member",
        "FailedPrecondition",
    ),
    (
        "etcdserver: can only promote a learner member which is in sync with leader",
        "FailedPrecondition",
    ),
    (
        "etcdserver: too many learner members in cluster",
        "FailedPrecondition",
    ),
    ("etcdserver: unhealthy cluster", "Unavailable"),
    ("etcdserver: cluster ID mismatch", "FailedPrecondition"),
    ("etcdserver: corrupt cluster", "DataLoss"),
    ("etcdserver: not leader", "FailedPrecondition"),
    ("etcdserver: bad leader transferee", "FailedPrecondition"),
    (
        "etcdserver: request timed out, leader transfer took too long",
        "Unknown",
    ),
    (
        "etcdserver: wrong downgrade target version format",
        "InvalidArgument",
    ),
    (
        "etcdserver: invalid downgrade target version",
        "InvalidArgument",
    ),
    (
        "etcdserver: cluster version not found during downgrade",
        "FailedPrecondition",
    ),
    (
        "etcdserver: cluster has a downgrade job in progress",
        "FailedPrecondition",
    ),
    (
        "etcdserver: no inflight downgrade job",
        "FailedPrecondition",
    ),
    ("etcdserver: unknown method", "Unknown"),
    ("etcdserver: not capable", "FailedPrecondition"),
    (
        "etcdserver: rpc not supported for learner",
        "FailedPrecondition",
    ),
    ("etcdserver: invalid client api version", "InvalidArgument"),
    ("etcdserver: server stopped", "Unavailable"),
    (
        "etcdserver: request timed out, possibly due to previous leader failure",
        "Unavailable",
    ),
    (
        "etcdserver: request timed out, possibly due to connection lost",
        "Unavailable",
    ),
    ("etcdserver: request canceled", "Canceled"),
    ("etcdserver: context deadline exceeded", "DeadlineExceeded"),
    ("context deadline exceeded", "DeadlineExceeded"),
    ("context canceled", "Canceled"),
    ("raft proposal dropped", "Unknown"),
    ("raft: stopped", "Unknown"),
    ("unknown service", "NotFound"),
    ("mutex: session is expired", "Unknown"),
    ("lost watcher waiting for delete", "Unknown"),
    ("election: not leader", "Unknown"),
    ("election: no leader", "Unknown"),
    ("\"leader\" field must be provided", "Unknown"),
    ("etcdserver: watch canceled", "Canceled"),
];

#[test]
fn every_error_has_its_text_and_code() {
    let table: BTreeMap<&str, u8> = EtcdError::ALL
        .iter()
        .map(|error| (error.text(), error.code()))
        .collect();
    assert_eq!(
        table.len(),
        EtcdError::ALL.len(),
        "a text stands for one error"
    );
    for (text, name) in EXPECTED {
        let code = table
            .get(text)
            .unwrap_or_else(|| panic!("no error says {text:?}"));
        assert_eq!(code::name(*code), *name, "{text:?}");
    }
}

#[test]
fn no_error_is_invented() {
    for error in EtcdError::ALL {
        assert!(
            EXPECTED.iter().any(|(text, _)| *text == error.text()),
            "{error:?} is not in the reference"
        );
    }
}

#[test]
fn codes_have_their_numbers() {
    let numbers: Vec<u8> = [
        code::OK,
        code::CANCELED,
        code::UNKNOWN,
        code::INVALID_ARGUMENT,
        code::DEADLINE_EXCEEDED,
        code::NOT_FOUND,
        code::ALREADY_EXISTS,
        code::PERMISSION_DENIED,
        code::RESOURCE_EXHAUSTED,
        code::FAILED_PRECONDITION,
        code::ABORTED,
        code::OUT_OF_RANGE,
        code::UNIMPLEMENTED,
        code::INTERNAL,
        code::UNAVAILABLE,
        code::DATA_LOSS,
        code::UNAUTHENTICATED,
    ]
    .to_vec();
    assert_eq!(numbers, (0..17).collect::<Vec<u8>>());
}

#[test]
fn texts_that_depend_on_the_request() {
    let check = |status: Status, code: u8, message: &str| {
        assert_eq!((status.code(), status.message()), (code, message));
    };
    check(
        Status::message_too_large(2_097_153, 2_097_152),
        8,
        "grpc: received message larger than max (2097153 vs. 2097152)",
    );
    check(
        Status::unknown_service("pkg.Svc"),
        12,
        "unknown service pkg.Svc",
    );
    check(
        Status::unknown_method("M", "pkg.Svc"),
        12,
        "unknown method M for service pkg.Svc",
    );
    check(
        Status::unmarshal("x"),
        13,
        "grpc: failed to unmarshal the received message: x",
    );
    check(
        Status::unknown("bcrypt: password length exceeds 72 bytes"),
        2,
        "bcrypt: password length exceeds 72 bytes",
    );
    check(
        DecodeError::TooDeep.into(),
        3,
        "etcdserver: too many operations in txn request",
    );
    check(
        DecodeError::Malformed.into(),
        13,
        "grpc: failed to unmarshal the received message: \
         proto: cannot parse invalid wire-format data",
    );
    check(
        EtcdError::TooManyRequests.into(),
        2,
        "etcdserver: too many requests",
    );
}

#[test]
fn watchers_get_the_printed_status() {
    assert_eq!(
        EtcdError::PermissionDenied.watch_cancel_reason(),
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    );
    assert_eq!(
        EtcdError::AuthOldRevision.watch_cancel_reason(),
        "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
    );
}
