//! The Auth service as the suites speak it: every request as a value, so that sequences of them can be generated and
//! compared, and what an answer says beside its header.

use bytes::Bytes;
use prost::Message;

use crate::pb::ResponseHeader;
use crate::raw::{Answer, Client};

/// etcd's numbers of what a permission allows.
pub const READ: i32 = 0;
pub const WRITE: i32 = 1;
pub const READWRITE: i32 = 2;

/// A request of the Auth service.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Enable,
    Disable,
    Status,
    Authenticate(String, String),
    UserAdd(String, String),
    /// Signs in by certificate alone.
    UserAddWithout(String),
    UserGet(String),
    UserList,
    UserDelete(String),
    Password(String, String),
    /// A hash of the client's own, in base64.
    Hash(String, String),
    GrantRole(String, String),
    RevokeRole(String, String),
    RoleAdd(String),
    RoleGet(String),
    RoleList,
    RoleDelete(String),
    /// Role, what it allows, and the interval.
    Grant(String, i32, Vec<u8>, Vec<u8>),
    GrantNothing(String),
    Revoke(String, Vec<u8>, Vec<u8>),
}

#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(string, tag = "2")]
    second: String,
    #[prost(string, tag = "3")]
    third: String,
}

#[derive(Clone, PartialEq, Message)]
struct UserAdd {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
    #[prost(message, optional, tag = "3")]
    options: Option<UserOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct UserOptions {
    #[prost(bool, tag = "1")]
    no_password: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Grant {
    #[prost(string, tag = "1")]
    role: String,
    #[prost(message, optional, tag = "2")]
    permission: Option<Permission>,
}

#[derive(Clone, PartialEq, Message)]
struct Permission {
    #[prost(int32, tag = "1")]
    access: i32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Revoke {
    #[prost(string, tag = "1")]
    role: String,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    range_end: Vec<u8>,
}

/// Only the header; the rest is looked at as bytes.
#[derive(Clone, PartialEq, Message)]
struct Headed {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, Message)]
struct Token {
    #[prost(string, tag = "2")]
    token: String,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// In its header.
    pub revision: i64,
    /// Everything behind the header, as it came.
    pub rest: Vec<u8>,
}

impl Told {
    /// The texts of a list of users or roles.
    pub fn names(&self) -> Vec<String> {
        #[derive(Clone, PartialEq, Message)]
        struct Names {
            #[prost(string, repeated, tag = "2")]
            names: Vec<String>,
        }
        Names::decode(&*self.rest).expect("an answer").names
    }

    /// Whether authentication is on, and the revision of users and roles, of an answer to [`Ask::Status`].
    pub fn status(&self) -> (bool, u64) {
        #[derive(Clone, PartialEq, Message)]
        struct Status {
            #[prost(bool, tag = "2")]
            enabled: bool,
            #[prost(uint64, tag = "3")]
            revision: u64,
        }
        let status = Status::decode(&*self.rest).expect("an answer");
        (status.enabled, status.revision)
    }

    /// What a role allows: access, key and range end.
    pub fn permissions(&self) -> Vec<(i32, Vec<u8>, Vec<u8>)> {
        #[derive(Clone, PartialEq, Message)]
        struct Permissions {
            #[prost(message, repeated, tag = "2")]
            permissions: Vec<Permission>,
        }
        let held = Permissions::decode(&*self.rest).expect("an answer");
        let held = held.permissions.into_iter();
        held.map(|held| (held.access, held.key, held.range_end))
            .collect()
    }
}

impl Ask {
    pub fn path(&self) -> &'static str {
        match self {
            Ask::Enable => "/etcdserverpb.Auth/AuthEnable",
            Ask::Disable => "/etcdserverpb.Auth/AuthDisable",
            Ask::Status => "/etcdserverpb.Auth/AuthStatus",
            Ask::Authenticate(..) => "/etcdserverpb.Auth/Authenticate",
            Ask::UserAdd(..) | Ask::UserAddWithout(_) => "/etcdserverpb.Auth/UserAdd",
            Ask::UserGet(_) => "/etcdserverpb.Auth/UserGet",
            Ask::UserList => "/etcdserverpb.Auth/UserList",
            Ask::UserDelete(_) => "/etcdserverpb.Auth/UserDelete",
            Ask::Password(..) | Ask::Hash(..) => "/etcdserverpb.Auth/UserChangePassword",
            Ask::GrantRole(..) => "/etcdserverpb.Auth/UserGrantRole",
            Ask::RevokeRole(..) => "/etcdserverpb.Auth/UserRevokeRole",
            Ask::RoleAdd(_) => "/etcdserverpb.Auth/RoleAdd",
            Ask::RoleGet(_) => "/etcdserverpb.Auth/RoleGet",
            Ask::RoleList => "/etcdserverpb.Auth/RoleList",
            Ask::RoleDelete(_) => "/etcdserverpb.Auth/RoleDelete",
            Ask::Grant(..) | Ask::GrantNothing(_) => "/etcdserverpb.Auth/RoleGrantPermission",
            Ask::Revoke(..) => "/etcdserverpb.Auth/RoleRevokePermission",
        }
    }

    pub fn body(&self) -> Vec<u8> {
        let texts = |texts: &[&String]| {
            let text = |at: usize| texts.get(at).map_or(String::new(), |text| (*text).clone());
            Texts {
                first: text(0),
                second: text(1),
                third: text(2),
            }
            .encode_to_vec()
        };
        let empty = String::new();
        match self {
            Ask::Enable | Ask::Disable | Ask::Status | Ask::UserList | Ask::RoleList => Vec::new(),
            Ask::Authenticate(name, second)
            | Ask::Password(name, second)
            | Ask::GrantRole(name, second)
            | Ask::RevokeRole(name, second) => texts(&[name, second]),
            Ask::Hash(name, hash) => texts(&[name, &empty, hash]),
            Ask::UserGet(name)
            | Ask::UserDelete(name)
            | Ask::RoleAdd(name)
            | Ask::RoleGet(name)
            | Ask::RoleDelete(name) => texts(&[name]),
            Ask::UserAdd(name, password) => UserAdd {
                name: name.clone(),
                password: password.clone(),
                options: None,
            }
            .encode_to_vec(),
            Ask::UserAddWithout(name) => UserAdd {
                name: name.clone(),
                password: String::new(),
                options: Some(UserOptions { no_password: true }),
            }
            .encode_to_vec(),
            Ask::Grant(role, access, key, range_end) => Grant {
                role: role.clone(),
                permission: Some(Permission {
                    access: *access,
                    key: key.clone(),
                    range_end: range_end.clone(),
                }),
            }
            .encode_to_vec(),
            Ask::GrantNothing(role) => Grant {
                role: role.clone(),
                permission: None,
            }
            .encode_to_vec(),
            Ask::Revoke(role, key, range_end) => Revoke {
                role: role.clone(),
                key: key.clone(),
                range_end: range_end.clone(),
            }
            .encode_to_vec(),
        }
    }
}

impl Client {
    pub async fn ask(&mut self, ask: &Ask) -> Answer<Told> {
        let bytes: Bytes = self.call_bytes(ask.path(), ask.body()).await?;
        let headed = Headed::decode(&*bytes).expect("an answer");
        let header = headed.header.as_ref().expect("every answer has a header");
        // The header is written first, by both servers.
        let rest = bytes[headed.encoded_len()..].to_vec();
        Ok(Told {
            revision: header.revision,
            rest,
        })
    }

    /// The token for a password.
    pub async fn token(&mut self, name: &str, password: &str) -> Answer<String> {
        let ask = Ask::Authenticate(name.to_owned(), password.to_owned());
        let told = self.ask(&ask).await?;
        Ok(Token::decode(&*told.rest).expect("an answer").token)
    }

    /// The same connection for a user who signs in.
    pub async fn sign_in(&mut self, name: &str, password: &str) -> Answer<Client> {
        let token = self.token(name, password).await?;
        Ok(self.with("token", &token))
    }
}
