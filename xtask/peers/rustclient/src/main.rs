//! Drives a server through the Rust client library etcd-client and checks every answer it gets back.
//!
//! Prints `PASS name` or `FAIL name: reason` per check; exit status 1 when one failed. Keys live under a prefix of its own,
//! which it empties first. Called with the endpoint and, for TLS, the authority, certificate and key files.

mod watch;

use std::process::ExitCode;

use etcd_client::{
    Certificate, Client, CompactionOptions, Compare, CompareOp, ConnectOptions, DeleteOptions,
    Error, GetOptions, GetResponse, Identity, PutOptions, SortOrder, SortTarget, TlsOptions, Txn,
    TxnOp, TxnOpResponse,
};

type Check = Result<(), String>;

const PREFIX: &str = "rustclient/";

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (endpoint, options) = match &arguments[..] {
        [endpoint] => (endpoint, None),
        [endpoint, ca, cert, key] => {
            let read = |file: &str| std::fs::read(file).expect("a readable PEM file");
            let tls = TlsOptions::new()
                .domain_name("localhost")
                .ca_certificate(Certificate::from_pem(read(ca)))
                .identity(Identity::from_pem(read(cert), read(key)));
            (endpoint, Some(ConnectOptions::new().with_tls(tls)))
        }
        _ => {
            eprintln!("usage: rustclient ENDPOINT [CA CERT KEY]");
            return ExitCode::from(2);
        }
    };
    let mut client = match Client::connect([endpoint], options).await {
        Ok(client) => client,
        Err(error) => {
            println!("FAIL connect: {error}");
            return ExitCode::FAILURE;
        }
    };
    let results = [
        ("put and get", put_and_get(&mut client).await),
        ("get options", get_options(&mut client).await),
        ("get revisions", get_revisions(&mut client).await),
        ("put options", put_options(&mut client).await),
        ("delete", delete(&mut client).await),
        ("txn", txn(&mut client).await),
        ("compact", compact(&mut client).await),
        ("watch", watch::watch(&mut client).await),
        ("status", status(&mut client, endpoint).await),
    ];
    let mut exit = ExitCode::SUCCESS;
    for (name, result) in results {
        match result {
            Ok(()) => println!("PASS {name}"),
            Err(reason) => {
                println!("FAIL {name}: {reason}");
                exit = ExitCode::FAILURE;
            }
        }
    }
    exit
}

fn text(error: Error) -> String {
    error.to_string()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Check {
    if got == want {
        Ok(())
    } else {
        Err(format!("{what}: got {got:?}, want {want:?}"))
    }
}

/// The call must fail with this text and code.
fn refused<T>(what: &str, got: Result<T, Error>, code: i32, message: &str) -> Check {
    match got {
        Ok(_) => Err(format!("{what}: was accepted")),
        Err(Error::GRpcStatus(status)) => same(
            what,
            (status.code() as i32, status.message()),
            (code, message),
        ),
        Err(other) => Err(format!("{what}: {other}")),
    }
}

async fn empty(client: &mut Client) -> Result<i64, String> {
    let all = DeleteOptions::new().with_prefix();
    let gone = client.delete(PREFIX, Some(all)).await.map_err(text)?;
    Ok(gone.header().expect("a header").revision())
}

fn names(got: &GetResponse) -> String {
    got.kvs()
        .iter()
        .map(|kv| &kv.key_str().expect("UTF-8")[PREFIX.len()..])
        .collect()
}

async fn put_and_get(client: &mut Client) -> Check {
    let base = empty(client).await?;
    for (value, revision) in [("1", base + 1), ("2", base + 2)] {
        let put = client.put(key("a"), value, None).await.map_err(text)?;
        same(
            "put revision",
            put.header().expect("a header").revision(),
            revision,
        )?;
    }
    let got = client.get(key("a"), None).await.map_err(text)?;
    same(
        "count",
        (got.count(), got.more(), got.kvs().len()),
        (1, false, 1),
    )?;
    let kv = &got.kvs()[0];
    same("value", kv.value(), b"2")?;
    let numbers = (
        kv.version(),
        kv.create_revision(),
        kv.mod_revision(),
        kv.lease(),
    );
    same("numbers", numbers, (2, base + 1, base + 2, 0))?;
    refused(
        "empty key",
        client.put("", "x", None).await,
        3,
        "etcdserver: key is not provided",
    )
}

async fn get_options(client: &mut Client) -> Check {
    empty(client).await?;
    for (name, value) in [("c", "w"), ("a", "z"), ("b", "y"), ("d", "x"), ("b", "y")] {
        client.put(key(name), value, None).await.map_err(text)?;
    }
    let all = || GetOptions::new().with_prefix();
    let sorted = |target, order| all().with_sort(target, order);
    let cases = [
        ("prefix", all(), "abcd", false),
        ("limit", all().with_limit(3), "abc", true),
        ("limit met", all().with_limit(4), "abcd", false),
        ("serializable", all().with_serializable(), "abcd", false),
        ("keys only", all().with_keys_only(), "abcd", false),
        ("count only", all().with_count_only(), "", false),
        (
            "key down",
            sorted(SortTarget::Key, SortOrder::Descend),
            "dcba",
            false,
        ),
        (
            "value up",
            sorted(SortTarget::Value, SortOrder::Ascend),
            "cdba",
            false,
        ),
        (
            "mod up",
            sorted(SortTarget::Mod, SortOrder::Ascend),
            "cadb",
            false,
        ),
        (
            "create down",
            sorted(SortTarget::Create, SortOrder::Descend),
            "dbac",
            false,
        ),
        (
            "version",
            sorted(SortTarget::Version, SortOrder::Descend).with_limit(1),
            "b",
            true,
        ),
    ];
    for (what, options, wanted, more) in cases {
        let got = client.get(PREFIX, Some(options)).await.map_err(text)?;
        same(
            what,
            (names(&got).as_str(), got.more(), got.count()),
            (wanted, more, 4),
        )?;
    }
    let until = GetOptions::new().with_range(key("c"));
    let got = client.get(key("a"), Some(until)).await.map_err(text)?;
    same("range", names(&got).as_str(), "ab")
}

async fn get_revisions(client: &mut Client) -> Check {
    let base = empty(client).await?;
    for (name, value) in [("a", "old"), ("b", "1"), ("a", "new"), ("c", "1")] {
        client.put(key(name), value, None).await.map_err(text)?;
    }
    let all = || GetOptions::new().with_prefix();
    let cases = [
        ("at revision", all().with_revision(base + 2), "ab"),
        ("min mod", all().with_min_mod_revision(base + 3), "ac"),
        ("max mod", all().with_max_mod_revision(base + 3), "ab"),
        ("min create", all().with_min_create_revision(base + 2), "bc"),
        ("max create", all().with_max_create_revision(base + 1), "a"),
    ];
    for (what, options, wanted) in cases {
        let got = client.get(PREFIX, Some(options)).await.map_err(text)?;
        same(what, names(&got).as_str(), wanted)?;
    }
    let future = GetOptions::new().with_revision(base + 1000);
    let text = "etcdserver: mvcc: required revision is a future revision";
    refused("future", client.get(key("a"), Some(future)).await, 11, text)
}

async fn put_options(client: &mut Client) -> Check {
    empty(client).await?;
    client.put(key("a"), "1", None).await.map_err(text)?;
    let prev = PutOptions::new().with_prev_key();
    let put = client.put(key("a"), "2", Some(prev)).await.map_err(text)?;
    same(
        "prev",
        put.prev_key().map(|kv| kv.value().to_vec()),
        Some(b"1".to_vec()),
    )?;
    let keep = || Some(PutOptions::new().with_ignore_value());
    client.put(key("a"), "", keep()).await.map_err(text)?;
    let got = client.get(key("a"), None).await.map_err(text)?;
    same(
        "kept",
        (got.kvs()[0].value(), got.kvs()[0].version()),
        (&b"2"[..], 3),
    )?;
    let missing = client.put(key("missing"), "", keep()).await;
    refused("missing", missing, 3, "etcdserver: key not found")?;
    let both = client.put(key("a"), "x", keep()).await;
    refused("both", both, 3, "etcdserver: value is provided")
}

async fn delete(client: &mut Client) -> Check {
    empty(client).await?;
    for name in ["a", "b", "c"] {
        client.put(key(name), name, None).await.map_err(text)?;
    }
    let none = client.delete(key("x"), None).await.map_err(text)?;
    same("none", none.deleted(), 0)?;
    let prev = DeleteOptions::new().with_prev_key();
    let one = client.delete(key("b"), Some(prev)).await.map_err(text)?;
    same("one", (one.deleted(), one.prev_kvs().len()), (1, 1))?;
    let all = DeleteOptions::new().with_prefix();
    let rest = client.delete(PREFIX, Some(all)).await.map_err(text)?;
    same("rest", rest.deleted(), 2)
}

async fn txn(client: &mut Client) -> Check {
    empty(client).await?;
    client.put(key("a"), "1", None).await.map_err(text)?;
    let nested = Txn::new()
        .when([Compare::version(key("a"), CompareOp::Equal, 1)])
        .and_then([TxnOp::put(key("c"), "inner", None)]);
    let whole = Txn::new()
        .when([
            Compare::value(key("a"), CompareOp::Equal, "1"),
            Compare::create_revision(key("b"), CompareOp::Equal, 0),
        ])
        .and_then([
            TxnOp::put(key("b"), "2", None),
            TxnOp::txn(nested),
            TxnOp::get(PREFIX, Some(GetOptions::new().with_prefix())),
            TxnOp::delete(key("a"), None),
        ])
        .or_else([TxnOp::get(key("a"), None)]);
    let done = client.txn(whole.clone()).await.map_err(text)?;
    same("succeeded", done.succeeded(), true)?;
    match &done.op_responses()[..] {
        [
            TxnOpResponse::Put(_),
            TxnOpResponse::Txn(inner),
            TxnOpResponse::Get(got),
            TxnOpResponse::Delete(gone),
        ] => {
            same("inner", inner.succeeded(), true)?;
            same("own writes", names(got).as_str(), "abc")?;
            same("deleted", gone.deleted(), 1)?;
        }
        other => return Err(format!("answers: {other:?}")),
    }
    let again = client.txn(whole).await.map_err(text)?;
    same(
        "second time",
        (again.succeeded(), again.op_responses().len()),
        (false, 1),
    )?;
    let twice = [
        TxnOp::put(key("a"), "1", None),
        TxnOp::put(key("a"), "2", None),
    ];
    let twice = client.txn(Txn::new().and_then(twice)).await;
    refused(
        "twice",
        twice,
        3,
        "etcdserver: duplicate key given in txn request",
    )
}

async fn compact(client: &mut Client) -> Check {
    let base = empty(client).await?;
    for value in ["1", "2"] {
        client.put(key("a"), value, None).await.map_err(text)?;
    }
    let physical = Some(CompactionOptions::new().with_physical());
    client.compact(base + 2, physical).await.map_err(text)?;
    let old = Some(GetOptions::new().with_revision(base + 1));
    let text = "etcdserver: mvcc: required revision has been compacted";
    refused("compacted", client.get(key("a"), old).await, 11, text)?;
    refused("again", client.compact(base + 1, None).await, 11, text)
}

async fn status(client: &mut Client, endpoint: &str) -> Check {
    let status = client.status().await.map_err(text)?;
    same("version", status.version().is_empty(), false)?;
    same("size", 0 < status.db_size(), true)?;
    same("errors", status.errors().len(), 0)?;
    let list = client.member_list().await.map_err(text)?;
    same("members", list.members().len(), 1)?;
    let member = &list.members()[0];
    same("leader", status.leader(), member.id())?;
    same("client URLs", member.client_urls(), &[endpoint.to_owned()])
}
