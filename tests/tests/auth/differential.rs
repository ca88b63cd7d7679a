//! Two servers, the same calls by the same users, the same answers: generated sequences of changes of users and roles among
//! reads, writes, transactions, leases and watchers of users who have tokens, old tokens or none.
//!
//! A failing sequence names its seed; `--seed` runs that one alone.

use std::collections::BTreeMap;

use prost::Message;

use pilaster_tests::auth::Ask;
use pilaster_tests::lease::{LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest};
use pilaster_tests::pb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, MemberListRequest,
    PutRequest, RangeRequest, Request, RequestOp, StatusRequest, TxnRequest,
};
use pilaster_tests::random::Random;
use pilaster_tests::raw::block_on;
use pilaster_tests::watch::{WatchCreate, WatchStream};
use pilaster_tests::{Client, Kind, Options, Server};

use super::{CHEAP, text};

const SEQUENCES: u64 = 20;
const STEPS: usize = 120;

const USERS: [&str; 4] = ["root", "ann", "bob", "cid"];
const ROLES: [&str; 4] = ["root", "r", "s", "t"];
const KEYS: [&str; 7] = ["a", "b", "ba", "c", "d", "e", "f"];

#[derive(Clone, Debug)]
enum Step {
    /// By the user of this place; behind the last, by nobody.
    Auth(usize, Ask),
    SignIn(usize, bool),
    Unary(usize, &'static str, Vec<u8>, Shown),
    KeepAlive(usize, i64),
    Watch(usize, WatchCreate),
}

/// How much of an answer two servers must have alike.
#[derive(Clone, Copy, Debug)]
enum Shown {
    All,
    /// The rest has ids, sizes or times.
    Success,
}

struct Side {
    server: Server,
    nobody: Client,
    users: BTreeMap<usize, Client>,
}

impl Side {
    async fn new(kind: Kind) -> Side {
        let server = Server::start(Options::new(kind).flag(CHEAP));
        let nobody = Client::connect(&server).await;
        Side {
            server,
            nobody,
            users: BTreeMap::new(),
        }
    }

    fn client(&self, user: usize) -> Client {
        self.users.get(&user).unwrap_or(&self.nobody).clone()
    }

    async fn run(&mut self, step: &Step) -> String {
        match step {
            Step::Auth(user, ask) => format!("{:?}", self.client(*user).ask(ask).await),
            Step::SignIn(user, is_right) => {
                let password = password(*user, *is_right);
                let mut client = self.nobody.clone();
                match client.sign_in(USERS[*user], &password).await {
                    Ok(client) => {
                        self.users.insert(*user, client);
                        "signed in".to_owned()
                    }
                    Err(refusal) => format!("{refusal:?}"),
                }
            }
            Step::Unary(user, path, body, shown) => {
                let answer = self.client(*user).call_bytes(path, body.clone()).await;
                match (answer, shown) {
                    (Ok(bytes), Shown::All) => said(&bytes),
                    (Ok(_), Shown::Success) => "ok".to_owned(),
                    (Err(refusal), _) => format!("{refusal:?}"),
                }
            }
            Step::KeepAlive(user, id) => {
                let mut stream = self.client(*user).keep_alives().await;
                stream.send(*id);
                let answer = stream.next().await;
                format!("{:?}", answer.map(|answer| answer.map(|answer| answer.ttl)))
            }
            Step::Watch(user, create) => {
                let mut stream = WatchStream::open(&self.client(*user));
                let answer = stream.create(create.clone()).await;
                let (id, revision) = (answer.watch_id, answer.revision());
                format!("{id} at {revision}, {:?}", answer.cancel_reason)
            }
        }
    }
}

fn password(user: usize, is_right: bool) -> String {
    match is_right {
        true => format!("{}pw", USERS[user]),
        false => "wrong".to_owned(),
    }
}

/// An answer without what names its server: the header's ids and term.
fn said(bytes: &[u8]) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Headed {
        #[prost(message, optional, tag = "1")]
        header: Option<pilaster_tests::pb::ResponseHeader>,
    }
    let headed = Headed::decode(bytes).expect("an answer");
    let revision = headed.header.as_ref().map(|header| header.revision);
    let rest = &bytes[headed.encoded_len()..];
    format!("at {revision:?}: {:?}", rest.escape_ascii().to_string())
}

struct Generator {
    random: Random,
}

impl Generator {
    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    fn user(&mut self) -> usize {
        match self.below(10) {
            0 => USERS.len(),
            1..=3 => 0,
            4..=6 => 1,
            _ => 2 + self.below(2),
        }
    }

    fn name(&mut self) -> String {
        let name: &&str = self.random.pick(&USERS);
        text(name)
    }

    fn role(&mut self) -> String {
        let name: &&str = self.random.pick(&ROLES);
        text(name)
    }

    fn key(&mut self) -> Vec<u8> {
        self.random.pick(&KEYS).as_bytes().to_vec()
    }

    /// Never an empty interval: what etcd answers to one follows from the shape of its tree.
    fn interval(&mut self) -> (Vec<u8>, Vec<u8>) {
        match self.below(6) {
            0 => (self.key(), vec![0]),
            1 => (vec![0], vec![0]),
            2 | 3 => (self.key(), Vec::new()),
            _ => {
                let (from, to) = (self.key(), self.key());
                match from.cmp(&to) {
                    std::cmp::Ordering::Less => (from, to),
                    std::cmp::Ordering::Equal => (from, Vec::new()),
                    std::cmp::Ordering::Greater => (to, from),
                }
            }
        }
    }

    fn step(&mut self) -> Step {
        match self.below(20) {
            0..=4 => {
                let ask = self.ask();
                // Mostly by root, or little would happen.
                let user = match self.below(4) {
                    0 => self.user(),
                    _ => 0,
                };
                Step::Auth(user, ask)
            }
            5..=7 => {
                let is_right = self.below(12) != 0;
                Step::SignIn(self.below(USERS.len()), is_right)
            }
            8 => {
                let (path, request) = ("/etcdserverpb.KV/Range", self.range());
                Step::Unary(self.user(), path, request.encode_to_vec(), Shown::All)
            }
            9 | 10 => {
                let (path, request) = ("/etcdserverpb.KV/Put", self.put());
                Step::Unary(self.user(), path, request.encode_to_vec(), Shown::All)
            }
            11 => {
                let (path, request) = ("/etcdserverpb.KV/DeleteRange", self.delete());
                Step::Unary(self.user(), path, request.encode_to_vec(), Shown::All)
            }
            12 | 13 => {
                let (path, request) = ("/etcdserverpb.KV/Txn", self.txn(2));
                Step::Unary(self.user(), path, request.encode_to_vec(), Shown::All)
            }
            14 => {
                let (key, range_end) = self.interval();
                let create = WatchCreate {
                    key,
                    range_end,
                    ..WatchCreate::default()
                };
                Step::Watch(self.user(), create)
            }
            15 => Step::KeepAlive(self.user(), self.lease()),
            16 | 17 => self.lease_call(),
            _ => self.service(),
        }
    }

    fn ask(&mut self) -> Ask {
        match self.below(22) {
            0 | 1 => Ask::Enable,
            2 => match self.below(4) {
                0 => Ask::Disable,
                _ => Ask::Enable,
            },
            3 => Ask::Status,
            4 | 5 => {
                let user = self.below(USERS.len());
                Ask::UserAdd(text(USERS[user]), password(user, true))
            }
            6 => match self.below(3) {
                0 => Ask::UserAddWithout(self.name()),
                1 => Ask::UserAdd(String::new(), text("x")),
                _ => Ask::Hash(self.name(), text("!")),
            },
            7 => Ask::UserGet(self.name()),
            8 => Ask::UserList,
            9 => match self.below(3) {
                0 => Ask::UserDelete(self.name()),
                _ => Ask::UserGet(self.name()),
            },
            10 => {
                let user = self.below(USERS.len());
                Ask::Password(text(USERS[user]), password(user, true))
            }
            11 | 12 => Ask::GrantRole(self.name(), self.role()),
            13 => Ask::RevokeRole(self.name(), self.role()),
            14 | 15 => Ask::RoleAdd(self.role()),
            16 => match self.below(3) {
                0 => Ask::RoleDelete(self.role()),
                _ => Ask::RoleGet(self.role()),
            },
            17 => Ask::RoleList,
            18 | 19 => {
                let (key, range_end) = self.interval();
                Ask::Grant(self.role(), self.below(3) as i32, key, range_end)
            }
            20 => match self.below(3) {
                // Also intervals that no role may have.
                0 => Ask::Grant(self.role(), 0, self.key(), self.key()),
                1 => Ask::Grant(self.role(), 0, Vec::new(), vec![0]),
                _ => Ask::GrantNothing(self.role()),
            },
            _ => {
                let (key, range_end) = self.interval();
                Ask::Revoke(self.role(), key, range_end)
            }
        }
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.interval();
        RangeRequest {
            key,
            range_end,
            serializable: self.below(2) == 0,
            ..RangeRequest::default()
        }
    }

    fn lease(&mut self) -> i64 {
        1 + self.below(3) as i64
    }

    fn put(&mut self) -> PutRequest {
        PutRequest {
            key: self.key(),
            value: b"v".to_vec(),
            lease: match self.below(3) {
                0 => self.lease(),
                _ => 0,
            },
            prev_kv: self.below(3) == 0,
            ..PutRequest::default()
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.interval();
        DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.below(3) == 0,
        }
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let compare = (0..self.below(2))
            .map(|_| {
                let (key, range_end) = self.interval();
                Compare {
                    target: 1,
                    result: self.below(3) as i32,
                    key,
                    range_end,
                    ..Compare::default()
                }
            })
            .collect();
        TxnRequest {
            compare,
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: usize) -> Vec<RequestOp> {
        let count = self.below(3);
        let mut ops = Vec::new();
        for _ in 0..count {
            let request = match self.below(5) {
                0 | 1 => Request::Range(self.range()),
                2 => Request::Put(self.put()),
                3 => Request::DeleteRange(self.delete()),
                _ if depth > 0 => Request::Txn(self.txn(depth - 1)),
                _ => Request::Range(self.range()),
            };
            ops.push(RequestOp {
                request: Some(request),
            });
        }
        ops
    }

    fn lease_call(&mut self) -> Step {
        let (user, id) = (self.user(), self.lease());
        match self.below(5) {
            0 | 1 => {
                let request = LeaseGrantRequest { ttl: 600, id };
                let path = "/etcdserverpb.Lease/LeaseGrant";
                Step::Unary(user, path, request.encode_to_vec(), Shown::All)
            }
            2 => {
                let request = LeaseRevokeRequest { id };
                let path = "/etcdserverpb.Lease/LeaseRevoke";
                Step::Unary(user, path, request.encode_to_vec(), Shown::All)
            }
            3 => {
                let keys = self.below(2) == 0;
                let request = LeaseTimeToLiveRequest { id, keys };
                let path = "/etcdserverpb.Lease/LeaseTimeToLive";
                Step::Unary(user, path, request.encode_to_vec(), Shown::Success)
            }
            _ => {
                let path = "/etcdserverpb.Lease/LeaseLeases";
                Step::Unary(user, path, Vec::new(), Shown::Success)
            }
        }
    }

    fn service(&mut self) -> Step {
        let user = self.user();
        let (path, body) = match self.below(6) {
            0 => {
                let status = StatusRequest {}.encode_to_vec();
                ("/etcdserverpb.Maintenance/Status", status)
            }
            1 => {
                let alarm = AlarmRequest {
                    action: [0, 2][self.below(2)],
                    member_id: 1,
                    alarm: 1,
                };
                ("/etcdserverpb.Maintenance/Alarm", alarm.encode_to_vec())
            }
            2 => {
                let hash = HashKvRequest { revision: 0 };
                ("/etcdserverpb.Maintenance/HashKV", hash.encode_to_vec())
            }
            // It has no fields.
            3 => ("/etcdserverpb.Maintenance/Defragment", Vec::new()),
            4 => {
                let list = MemberListRequest {
                    linearizable: self.below(2) == 0,
                };
                ("/etcdserverpb.Cluster/MemberList", list.encode_to_vec())
            }
            _ => {
                let compaction = CompactionRequest {
                    revision: 1 + self.below(4) as i64,
                    physical: false,
                };
                ("/etcdserverpb.KV/Compact", compaction.encode_to_vec())
            }
        };
        Step::Unary(user, path, body, Shown::Success)
    }
}

#[test]
fn answers_are_those_of_etcd() {
    if Kind::Etcd371.found().is_none() {
        println!("left out: what needs etcd 3.7.1; `cargo xtask peers` says why it is missing");
        return;
    }
    let given = std::env::var("PILASTER_SEED").ok();
    let seeds: Vec<u64> = match given.as_deref().map(str::parse) {
        Some(Ok(seed)) => vec![seed],
        Some(Err(error)) => panic!("PILASTER_SEED: {error}"),
        None => (1..=SEQUENCES).collect(),
    };
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds {
        block_on(run(seed, &mut kinds));
    }
    println!("answers by kind: {kinds:#?}");
}

/// How a server answered, for the summary that shows that the sequences come everywhere.
fn kind(answer: &str) -> String {
    let texts = ["etcdserver: ", "auth: "];
    let from = texts.iter().filter_map(|text| answer.find(text)).min();
    match from.map(|from| &answer[from..]) {
        Some(text) => text.split('"').next().unwrap_or_default().to_owned(),
        None => "answered".to_owned(),
    }
}

async fn run(seed: u64, kinds: &mut BTreeMap<String, u64>) {
    let mut subject = Side::new(Kind::subject()).await;
    let mut etcd = Side::new(Kind::Etcd371).await;
    let mut generator = Generator {
        random: Random::new(seed),
    };
    let mut begin = vec![
        Step::Auth(0, Ask::UserAdd(text("root"), password(0, true))),
        Step::Auth(0, Ask::GrantRole(text("root"), text("root"))),
        Step::Auth(0, Ask::UserAdd(text("ann"), password(1, true))),
        Step::Auth(0, Ask::RoleAdd(text("r"))),
        Step::Auth(0, Ask::GrantRole(text("ann"), text("r"))),
        Step::Auth(0, Ask::UserAdd(text("bob"), password(2, true))),
        Step::Auth(0, Ask::RoleAdd(text("s"))),
        Step::Auth(0, Ask::GrantRole(text("bob"), text("s"))),
        Step::Auth(0, super::grant("s", 2, "b", "d")),
        Step::Auth(0, super::grant("r", 0, "a", "\0")),
        Step::Auth(0, super::grant("r", 1, "a", "c")),
        Step::Auth(0, Ask::Enable),
        Step::SignIn(0, true),
        Step::SignIn(1, true),
        Step::SignIn(2, true),
    ];
    begin.reverse();
    for number in 0..STEPS {
        let step = begin.pop().unwrap_or_else(|| generator.step());
        let (ours, theirs) = (subject.run(&step).await, etcd.run(&step).await);
        assert_eq!(ours, theirs, "seed {seed}, step {number}: {step:?}");
        *kinds.entry(kind(&ours)).or_default() += 1;
        // Without a root who can sign in the rest is dull.
        if number % 10 == 9 {
            begin.push(Step::SignIn(0, true));
        }
    }
    // What is left, with authentication off or by whoever is root.
    let last = [
        Step::SignIn(0, true),
        Step::Auth(0, Ask::UserList),
        Step::Auth(0, Ask::RoleList),
        Step::Auth(0, Ask::Status),
    ];
    for step in last {
        let (ours, theirs) = (subject.run(&step).await, etcd.run(&step).await);
        assert_eq!(ours, theirs, "seed {seed}, at the end: {step:?}");
    }
    drop((subject.server, etcd.server));
}
