//! Records of the buckets `authUsers` and `authRoles`: etcd's `authpb.User` and `authpb.Role` under their names.
//!
//! Always true: what is written here has the bytes that etcd writes, and what etcd wrote is read; fields that are empty
//! are left out, as its encoder does, but for the options, whose presence says something. Does not judge what a record
//! says.

use std::fmt;

use crate::protobuf::{
    BYTES, VARINT, put_bytes, put_varint, skip, take_bytes, take_tag, take_varint,
};

/// What a permission allows; etcd's numbers. One that is not known allows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access(pub i32);

impl Access {
    pub const READ: Access = Access(0);
    pub const WRITE: Access = Access(1);
    pub const READWRITE: Access = Access(2);

    pub fn reads(self) -> bool {
        matches!(self, Access::READ | Access::READWRITE)
    }

    pub fn writes(self) -> bool {
        matches!(self, Access::WRITE | Access::READWRITE)
    }
}

/// A right to the keys of one interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PermissionRecord {
    pub access: Access,
    pub key: Box<[u8]>,
    /// Empty: the key alone. One zero byte: no end.
    pub range_end: Box<[u8]>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    pub name: Box<str>,
    /// The bcrypt hash; empty for a user without a password.
    pub password: Box<[u8]>,
    /// Ascending.
    pub roles: Vec<Box<str>>,
    /// `None`: written by a release that knew no options.
    pub no_password: Option<bool>,
}

/// Without the hash: records may be printed.
impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .field("no_password", &self.no_password)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleRecord {
    pub name: Box<str>,
    /// Ascending by key.
    pub permissions: Vec<PermissionRecord>,
}

const NAME: u64 = 1;
const PASSWORD: u64 = 2;
const ROLES: u64 = 3;
const OPTIONS: u64 = 4;
const NO_PASSWORD: u64 = 1;
const KEY_PERMISSION: u64 = 2;
const TYPE: u64 = 1;
const KEY: u64 = 2;
const RANGE_END: u64 = 3;

fn put_present(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(out, field, bytes);
    }
}

fn text(bytes: &[u8]) -> Option<Box<str>> {
    Some(std::str::from_utf8(bytes).ok()?.into())
}

impl UserRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_present(&mut out, NAME, self.name.as_bytes());
        put_present(&mut out, PASSWORD, &self.password);
        for role in &self.roles {
            put_bytes(&mut out, ROLES, role.as_bytes());
        }
        match self.no_password {
            Some(true) => put_bytes(&mut out, OPTIONS, &[(NO_PASSWORD << 3 | VARINT) as u8, 1]),
            Some(false) => put_bytes(&mut out, OPTIONS, &[]),
            None => {}
        }
        out
    }

    /// `None` for bytes that are no such message.
    pub fn decode(mut bytes: &[u8]) -> Option<UserRecord> {
        let mut user = UserRecord {
            name: Box::default(),
            password: Box::default(),
            roles: Vec::new(),
            no_password: None,
        };
        while !bytes.is_empty() {
            match take_tag(&mut bytes)? {
                (NAME, BYTES) => user.name = text(take_bytes(&mut bytes)?)?,
                (PASSWORD, BYTES) => user.password = take_bytes(&mut bytes)?.into(),
                (ROLES, BYTES) => user.roles.push(text(take_bytes(&mut bytes)?)?),
                (OPTIONS, BYTES) => {
                    let mut options = take_bytes(&mut bytes)?;
                    let no_password = user.no_password.get_or_insert(false);
                    while !options.is_empty() {
                        match take_tag(&mut options)? {
                            (NO_PASSWORD, VARINT) => *no_password = take_varint(&mut options)? != 0,
                            (_, wire_type) => skip(&mut options, wire_type)?,
                        }
                    }
                }
                (_, wire_type) => skip(&mut bytes, wire_type)?,
            }
        }
        Some(user)
    }

    /// Signs in by certificate alone.
    pub fn is_without_password(&self) -> bool {
        self.no_password == Some(true)
    }
}

impl RoleRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut inner = Vec::new();
        put_present(&mut out, NAME, self.name.as_bytes());
        for permission in &self.permissions {
            inner.clear();
            if permission.access != Access::READ {
                put_varint(&mut inner, TYPE << 3 | VARINT);
                // A negative number takes ten bytes, as in every protocol buffer.
                put_varint(&mut inner, i64::from(permission.access.0) as u64);
            }
            put_present(&mut inner, KEY, &permission.key);
            put_present(&mut inner, RANGE_END, &permission.range_end);
            put_bytes(&mut out, KEY_PERMISSION, &inner);
        }
        out
    }

    /// `None` for bytes that are no such message.
    pub fn decode(mut bytes: &[u8]) -> Option<RoleRecord> {
        let mut role = RoleRecord {
            name: Box::default(),
            permissions: Vec::new(),
        };
        while !bytes.is_empty() {
            match take_tag(&mut bytes)? {
                (NAME, BYTES) => role.name = text(take_bytes(&mut bytes)?)?,
                (KEY_PERMISSION, BYTES) => {
                    let permission = PermissionRecord::decode(take_bytes(&mut bytes)?)?;
                    role.permissions.push(permission);
                }
                (_, wire_type) => skip(&mut bytes, wire_type)?,
            }
        }
        Some(role)
    }
}

impl PermissionRecord {
    fn decode(mut bytes: &[u8]) -> Option<PermissionRecord> {
        let mut permission = PermissionRecord {
            access: Access::READ,
            key: Box::default(),
            range_end: Box::default(),
        };
        while !bytes.is_empty() {
            match take_tag(&mut bytes)? {
                (TYPE, VARINT) => permission.access = Access(take_varint(&mut bytes)? as i32),
                (KEY, BYTES) => permission.key = take_bytes(&mut bytes)?.into(),
                (RANGE_END, BYTES) => permission.range_end = take_bytes(&mut bytes)?.into(),
                (_, wire_type) => skip(&mut bytes, wire_type)?,
            }
        }
        Some(permission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_etcd() {
        let user = UserRecord {
            name: "ann".into(),
            password: b"$2".as_slice().into(),
            roles: vec!["r".into(), "root".into()],
            no_password: Some(false),
        };
        let bytes = b"\x0a\x03ann\x12\x02$2\x1a\x01r\x1a\x04root\x22\x00";
        assert_eq!(user.encode(), bytes);
        assert_eq!(UserRecord::decode(bytes), Some(user.clone()));
        assert!(!format!("{user:?}").contains('$'), "a hash is not printed");
        let by_certificate = UserRecord {
            password: Box::default(),
            roles: Vec::new(),
            no_password: Some(true),
            ..user
        };
        let bytes = b"\x0a\x03ann\x22\x02\x08\x01";
        assert_eq!(by_certificate.encode(), bytes);
        assert_eq!(UserRecord::decode(bytes), Some(by_certificate));

        let permission = |access, key: &[u8], range_end: &[u8]| PermissionRecord {
            access,
            key: key.into(),
            range_end: range_end.into(),
        };
        let role = RoleRecord {
            name: "r".into(),
            permissions: vec![
                permission(Access::READ, b"a", b""),
                permission(Access::READWRITE, b"b", b"\0"),
            ],
        };
        let bytes = b"\x0a\x01r\x12\x03\x12\x01a\x12\x08\x08\x02\x12\x01b\x1a\x01\0";
        assert_eq!(role.encode(), bytes);
        assert_eq!(RoleRecord::decode(bytes), Some(role));
    }

    #[test]
    fn what_is_no_message_is_refused_and_unknown_fields_are_skipped() {
        assert!(UserRecord::decode(b"\x0a\x03an").is_none());
        assert!(UserRecord::decode(b"\x0a\x02\xff\xfe").is_none(), "no text");
        assert!(RoleRecord::decode(b"\x12\x03\x12\x05a").is_none());
        let user = UserRecord::decode(b"\x0a\x01a\x2a\x01x\x30\x07").unwrap();
        assert_eq!((&*user.name, user.no_password), ("a", None));
    }
}
