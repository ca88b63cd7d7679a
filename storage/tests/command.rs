//! Commands: what goes in comes out, the layout stays, damage is refused.

use proptest::prelude::*;
use storage::command::{
    Alarm, ArchivedAuth, ArchivedBody, ArchivedOp, Auth, Body, Branches, ClusterVersionSet,
    Command, CommandArena, CommandError, Compact, Compare, DeleteRange, DowngradeInfoSet, Header,
    LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke, MemberAttrSet, MemberPeerUrlsSet, Op,
    Put, Range, Span, Txn, Url, access,
};

const HEADER: Header<'static> = Header {
    request_id: 0x0102_0304_0506_0708,
    member_id: 9,
    auth_revision: 10,
    user: "root",
};

fn span(from: u32, len: u32) -> Span {
    Span { from, len }
}

/// One command of every kind.
fn samples() -> Vec<Command<'static>> {
    const COMPARES: &[Compare<'static>] = &[
        Compare {
            number: 5,
            key: b"a",
            range_end: b"b",
            value: b"",
            target: 2,
            result: 1,
        },
        Compare {
            number: 0,
            key: b"c",
            range_end: b"",
            value: b"v",
            target: 3,
            result: 0,
        },
    ];
    const OPS: &[Op<'static>] = &[
        Op::Put(Put {
            lease: 7,
            key: b"key",
            value: b"value",
            prev_kv: true,
            ignore_value: false,
            ignore_lease: false,
        }),
        Op::Txn(Branches {
            compares: Span { from: 1, len: 1 },
            success: Span { from: 3, len: 1 },
            failure: Span { from: 4, len: 0 },
        }),
        Op::Range(Range {
            limit: 1,
            revision: 2,
            min_mod_revision: 3,
            max_mod_revision: 4,
            min_create_revision: 5,
            max_create_revision: 6,
            key: b"r",
            range_end: b"\0",
            sort_order: 1,
            sort_target: 4,
            keys_only: true,
            count_only: false,
        }),
        Op::DeleteRange(DeleteRange {
            key: b"d",
            range_end: b"e",
            prev_kv: true,
        }),
    ];
    let bodies = [
        Body::Put(Put {
            lease: -1,
            key: b"key",
            value: b"value",
            prev_kv: true,
            ignore_value: false,
            ignore_lease: true,
        }),
        Body::DeleteRange(DeleteRange {
            key: b"from",
            range_end: b"to",
            prev_kv: false,
        }),
        Body::Txn(Txn {
            compares: COMPARES,
            ops: OPS,
            root: Branches {
                compares: Span { from: 0, len: 1 },
                success: Span { from: 0, len: 2 },
                failure: Span { from: 2, len: 1 },
            },
        }),
        Body::Compact(Compact {
            revision: 12,
            physical: true,
        }),
        Body::Alarm(Alarm {
            member_id: 3,
            action: 1,
            alarm: 2,
        }),
        Body::ClusterVersionSet(ClusterVersionSet { version: "3.7.0" }),
        Body::MemberAttrSet(MemberAttrSet {
            member_id: 4,
            name: "m",
            client_urls: &[
                Url {
                    url: "http://a:2379",
                },
                Url {
                    url: "http://b:2379",
                },
            ],
        }),
        Body::LeaseGrant(LeaseGrant { id: -7, ttl_s: 60 }),
        Body::LeaseRevoke(LeaseRevoke { id: 8 }),
        Body::LeaseCheckpoint(LeaseCheckpoint {
            leases: &[
                LeaseRemaining {
                    id: 9,
                    remaining_ttl_s: 300,
                },
                LeaseRemaining {
                    id: -9,
                    remaining_ttl_s: 0,
                },
            ],
        }),
        Body::DowngradeInfoSet(DowngradeInfoSet {
            is_enabled: true,
            target: "3.6.0",
        }),
        Body::MemberPeerUrlsSet(MemberPeerUrlsSet {
            member_id: 5,
            peer_urls: &[Url {
                url: "http://c:2380",
            }],
        }),
        Body::Auth(Auth::Enable),
        Body::Auth(Auth::Disable),
        Body::Auth(Auth::Status),
        Body::Auth(Auth::Authenticate {
            user: "ann",
            token: "abcd",
        }),
        Body::Auth(Auth::UserAdd {
            name: "ann",
            password: b"hash",
            is_without_password: false,
        }),
        Body::Auth(Auth::UserDelete { name: "ann" }),
        Body::Auth(Auth::UserGet { name: "ann" }),
        Body::Auth(Auth::UserChangePassword {
            name: "ann",
            password: b"hash",
            is_unreadable: true,
        }),
        Body::Auth(Auth::UserGrantRole {
            name: "ann",
            role: "r",
        }),
        Body::Auth(Auth::UserRevokeRole {
            name: "ann",
            role: "r",
        }),
        Body::Auth(Auth::UserList),
        Body::Auth(Auth::RoleList),
        Body::Auth(Auth::RoleAdd { role: "r" }),
        Body::Auth(Auth::RoleDelete { role: "r" }),
        Body::Auth(Auth::RoleGet { role: "r" }),
        Body::Auth(Auth::RoleGrantPermission {
            role: "r",
            has_permission: true,
            access: 2,
            key: b"a",
            range_end: b"b",
        }),
        Body::Auth(Auth::RoleRevokePermission {
            role: "r",
            key: b"a",
            range_end: b"b",
        }),
    ];
    bodies
        .into_iter()
        .map(|body| Command {
            header: HEADER,
            body,
        })
        .collect()
}

/// The layout is a promise to every log on a disk. This file may grow; a changed line breaks old logs.
#[test]
fn the_layout_is_the_recorded_one() {
    let mut arena = CommandArena::default();
    let mut text = String::new();
    for command in samples() {
        let payload = arena.encode(&command).unwrap();
        for (at, byte) in payload.iter().enumerate() {
            let end = if at % 32 == 31 { "\n" } else { " " };
            text += &format!("{byte:02x}{end}");
        }
        text = format!("{}\n\n", text.trim_end());
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/commands.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap());
}

#[test]
fn every_kind_is_read_back() {
    let mut arena = CommandArena::default();
    for command in samples() {
        let payload = arena.encode(&command).unwrap();
        assert!(payload.len() <= command.archived_bytes_max() + 8);
        let read = access(&payload).unwrap();
        assert_eq!(read.header.request_id, HEADER.request_id);
        assert_eq!(read.header.member_id, 9);
        assert_eq!(read.header.auth_revision, 10);
        assert_eq!(&*read.header.user, "root");
        match (&read.body, &command.body) {
            (ArchivedBody::Put(read), Body::Put(put)) => {
                assert_eq!((&*read.key, &*read.value), (put.key, put.value));
                assert_eq!(read.lease, put.lease);
                assert_eq!(
                    (read.prev_kv, read.ignore_value, read.ignore_lease),
                    (true, false, true)
                );
            }
            (ArchivedBody::DeleteRange(read), Body::DeleteRange(delete)) => {
                assert_eq!(
                    (&*read.key, &*read.range_end),
                    (delete.key, delete.range_end)
                );
            }
            (ArchivedBody::Txn(read), Body::Txn(txn)) => {
                assert_eq!(read.compares.len(), txn.compares.len());
                assert_eq!(&*read.compares[1].value, b"v");
                let ArchivedOp::Range(range) = &read.ops[2] else {
                    panic!("third is a range")
                };
                assert_eq!(range.max_create_revision, 6);
                assert_eq!(&*range.range_end, b"\0");
            }
            (ArchivedBody::Compact(read), _) => assert_eq!(read.revision, 12),
            (ArchivedBody::Alarm(read), _) => {
                assert_eq!((read.action, read.alarm), (1.into(), 2.into()))
            }
            (ArchivedBody::ClusterVersionSet(read), _) => assert_eq!(&*read.version, "3.7.0"),
            (ArchivedBody::MemberAttrSet(read), _) => {
                let urls: Vec<&str> = read.client_urls.iter().map(|url| &*url.url).collect();
                assert_eq!(urls, ["http://a:2379", "http://b:2379"]);
            }
            (ArchivedBody::LeaseGrant(read), _) => {
                assert_eq!((read.id, read.ttl_s), ((-7).into(), 60.into()));
            }
            (ArchivedBody::LeaseRevoke(read), _) => assert_eq!(read.id, 8),
            (ArchivedBody::LeaseCheckpoint(read), _) => {
                let leases: Vec<(i64, i64)> = read
                    .leases
                    .iter()
                    .map(|lease| (lease.id.to_native(), lease.remaining_ttl_s.to_native()))
                    .collect();
                assert_eq!(leases, [(9, 300), (-9, 0)]);
            }
            (ArchivedBody::DowngradeInfoSet(read), _) => {
                assert_eq!((read.is_enabled, &*read.target), (true, "3.6.0"));
            }
            (ArchivedBody::MemberPeerUrlsSet(read), _) => {
                let urls: Vec<&str> = read.peer_urls.iter().map(|url| &*url.url).collect();
                assert_eq!(
                    (read.member_id, &urls[..]),
                    (5.into(), &["http://c:2380"][..])
                );
            }
            (ArchivedBody::Auth(read), Body::Auth(auth)) => {
                let (kind, whom) = read.describe();
                assert_eq!(format!("{auth:?}"), format!("{kind}({whom:?})"));
                check_auth(read);
            }
            _ => panic!("another kind came back"),
        }
    }
}

fn check_auth(read: &ArchivedAuth<'_>) {
    match read {
        ArchivedAuth::Authenticate { user, token } => {
            assert_eq!((&**user, &**token), ("ann", "abcd"));
        }
        ArchivedAuth::UserAdd {
            name,
            password,
            is_without_password,
        } => assert_eq!(
            (&**name, &**password, *is_without_password),
            ("ann", &b"hash"[..], false)
        ),
        ArchivedAuth::UserGrantRole { name, role }
        | ArchivedAuth::UserRevokeRole { name, role } => {
            assert_eq!((&**name, &**role), ("ann", "r"));
        }
        ArchivedAuth::RoleGrantPermission {
            role,
            has_permission,
            access,
            key,
            range_end,
        } => {
            assert_eq!(
                (&**role, *has_permission, access.to_native()),
                ("r", true, 2)
            );
            assert_eq!((&**key, &**range_end), (&b"a"[..], &b"b"[..]));
        }
        _ => {}
    }
}

#[test]
fn payloads_are_aligned_and_share_blocks() {
    let mut arena = CommandArena::new(4096);
    let value = vec![1u8; 9000];
    let mut payloads = Vec::new();
    for len in (0..200).chain([4000, 5000, 9000]) {
        let put = Put {
            key: b"k",
            value: &value[..len],
            ..Put::default()
        };
        let command = Command {
            header: Header::default(),
            body: Body::Put(put),
        };
        payloads.push((len, arena.encode(&command).unwrap()));
    }
    for (len, payload) in &payloads {
        assert_eq!(payload.as_ptr().addr() % 16, 0);
        let ArchivedBody::Put(put) = &access(payload).unwrap().body else {
            panic!("a put")
        };
        assert_eq!(put.value.len(), *len);
    }
}

#[test]
fn another_version_is_named() {
    let payload = CommandArena::default().encode(&samples()[0]).unwrap();
    let mut bytes = rkyv::util::AlignedVec::<16>::new();
    bytes.extend_from_slice(&payload);
    let at = bytes.len() - 8;
    bytes[at] = 2;
    assert_eq!(access(&bytes).err(), Some(CommandError::Version(2)));
    assert_eq!(access(&bytes[1..]).err(), Some(CommandError::Version(2)));
    bytes[at] = 1;
    assert!(access(&bytes).is_ok());
    assert_eq!(access(&bytes[1..]).err(), Some(CommandError::Misaligned));
    assert_eq!(access(&[]).err(), Some(CommandError::TooShort));
    bytes[at + 2] = 1;
    assert_eq!(access(&bytes).err(), Some(CommandError::Damaged));
}

fn encode_txn(ops: &[Op<'_>], compares: &[Compare<'_>], root: Branches) -> bytes::Bytes {
    let body = Body::Txn(Txn {
        compares,
        ops,
        root,
    });
    CommandArena::default()
        .encode(&Command {
            header: Header::default(),
            body,
        })
        .expect("small enough")
}

#[test]
fn tables_that_are_not_a_tree_are_refused() {
    let put = Op::Put(Put {
        key: b"k",
        ..Put::default()
    });
    let txn = |from, len| {
        Op::Txn(Branches {
            compares: span(0, 0),
            success: span(from, len),
            failure: span(from + len, 0),
        })
    };
    let root = |len| Branches {
        compares: span(0, 0),
        success: span(0, len),
        failure: span(len, 0),
    };
    let check = |ops: &[Op<'_>], root, expected: Option<CommandError>| {
        assert_eq!(
            access(&encode_txn(ops, &[], root)).err(),
            expected,
            "{ops:?}"
        );
    };
    check(&[put], root(1), None);
    check(&[txn(1, 1), put], root(1), None);
    // Itself, an entry beyond the end, an entry nobody owns, one with two owners.
    check(&[txn(0, 1)], root(1), Some(CommandError::Damaged));
    check(&[txn(1, 1)], root(1), Some(CommandError::Damaged));
    check(&[put, put], root(1), Some(CommandError::Damaged));
    check(
        &[txn(2, 1), txn(2, 1), put],
        root(2),
        Some(CommandError::Damaged),
    );
    let mut with_compares = root(1);
    with_compares.compares = span(0, 1);
    check(&[put], with_compares, Some(CommandError::Damaged));
}

#[test]
fn nesting_is_bounded() {
    let chain = |depth: u32| {
        let ops: Vec<Op<'_>> = (1..depth)
            .map(|level| {
                let len = u32::from(level + 1 < depth);
                Op::Txn(Branches {
                    compares: span(0, 0),
                    success: span(level, len),
                    failure: span(level + len, 0),
                })
            })
            .collect();
        let len = u32::from(!ops.is_empty());
        let root = Branches {
            compares: span(0, 0),
            success: span(0, len),
            failure: span(len, 0),
        };
        access(&encode_txn(&ops, &[], root)).err()
    };
    assert_eq!(chain(1), None);
    assert_eq!(chain(256), None);
    assert_eq!(chain(257), Some(CommandError::TooDeep));
}

proptest! {
    #[test]
    fn damage_is_an_error_or_a_readable_command(
        which in 0..7usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let payload = CommandArena::default().encode(&samples()[which]).unwrap();
        let mut bytes = rkyv::util::AlignedVec::<16>::new();
        bytes.extend_from_slice(&payload);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(command) = access(&bytes) {
            // Touch everything that apply would.
            if let ArchivedBody::Txn(txn) = &command.body {
                let len: usize = txn.compares.iter().map(|c| c.key.len() + c.value.len()).sum();
                prop_assert!(len <= 2 * bytes.len() * txn.compares.len());
            }
        }
    }
}
