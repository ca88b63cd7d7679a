//! The Python client `etcd3gw`, which speaks nothing but the JSON API: one whole round.

use pilaster_tests::kind::peer;
use pilaster_tests::{Kind, Options, Server, tool};

/// Everything the client can do, with the answers checked there. Its arguments are host and port.
const ROUND: &str = r#"import sys
from etcd3gw.client import Etcd3Client
from etcd3gw import exceptions

host, port = sys.argv[1], int(sys.argv[2])
client = Etcd3Client(host=host, port=port, api_path="/v3/", timeout=20)

status = client.status()
assert status["version"].startswith("3."), status
assert len(client.members()) == 1
print("api path", Etcd3Client(host=host, port=port).api_path)

assert client.put("a", "1") and client.put(b"a/b", b"\x00\xff") and client.put("a/c", "3")
assert client.get("a") == [b"1"] and client.get("nothing") == []
assert [value for value, _ in client.get_prefix("a/")] == [b"\x00\xff", b"3"]
everything = client.get_all(sort_order="descend")
assert [meta["key"] for _, meta in everything] == [b"a/c", b"a/b", b"a"], everything
assert client.create("new", "x") and not client.create("new", "y")
assert client.replace("new", "x", "z") and not client.replace("new", "x", "w")
assert client.get("new") == [b"z"]
value, meta = client.get("new", metadata=True)[0]
assert meta["version"] == "2", meta
print("keys and transactions")

lease = client.lease(ttl=60)
assert client.put("leased", "v", lease=lease)
assert 0 < lease.ttl() <= 60 and lease.keys() == [b"leased"]
assert lease.refresh() == 60
assert lease.revoke() and client.get("leased") == []
print("leases")

lock = client.lock("door", ttl=60)
assert lock.acquire() and lock.is_acquired()
other = client.lock("door", ttl=60)
assert not other.acquire()
assert lock.refresh() == 60
assert lock.release() and not lock.is_acquired()
with client.lock("door", ttl=60) as held:
    assert held.is_acquired()
print("locks of the client's own making")

events, cancel = client.watch("seen")
client.put("seen", "1")
client.delete("seen")
first, second = next(events), next(events)
assert first["kv"]["value"] == b"1" and second["type"] == "DELETE", (first, second)
cancel()
events, cancel = client.watch_prefix("many/", start_revision=1)
for number in range(100):
    client.put(f"many/{number}", str(number))
values = [next(events)["kv"]["value"] for _ in range(100)]
assert values == [str(number).encode() for number in range(100)], values
cancel()
print("watches")

assert client.delete("a") and not client.delete("a")
assert client.delete_prefix("a/") and client.get_prefix("a/") == []
try:
    client.put("", "x")
    raise SystemExit("an empty key was taken")
except exceptions.Etcd3Exception as refused:
    print("refused:", type(refused).__name__)
print("all done")
"#;

#[test]
fn one_round_of_etcd3gw() {
    let Some(python) = peer("etcd3gw/venv/bin/python") else {
        return;
    };
    let server = Server::start(Options::new(Kind::subject()));
    let address = server.address();
    let (host, port) = address.rsplit_once(':').expect("an address has a port");
    let said = tool::run(&python, &["-c", ROUND, host, port], "").expect_ok("etcd3gw");
    assert!(said.trim_end().ends_with("all done"), "{said}");
    println!("{said}");
}
