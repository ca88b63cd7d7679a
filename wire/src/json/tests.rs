//! The mapping against what etcd 3.7.1 answered to the same texts, and against `prost` for everything else.

use prost::Message as _;

use super::*;
use crate::messages::etcdserverpb as pb;

fn types(path: &str) -> (MessageType, MessageType) {
    method_types(path).expect("a method of the API")
}

/// The first value of a body, decoded.
fn read(path: &str, body: &str) -> Result<Vec<u8>, String> {
    let mut values = Values::default();
    values.push(body.as_bytes());
    values.end();
    let value = values.next().map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let value = value.ok_or("nothing")?;
    decode(values.text(value), types(path).0, &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

fn range(body: &str) -> Result<pb::RangeRequest, String> {
    let bytes = read("/etcdserverpb.KV/Range", body)?;
    Ok(pb::RangeRequest::decode(&bytes[..]).expect("what we wrote"))
}

#[track_caller]
fn refused(body: &str, text: &str) {
    assert_eq!(range(body).expect_err(body), text, "{body}");
}

#[test]
fn requests_in_all_their_forms() {
    let expected = pb::RangeRequest {
        key: b"foo".to_vec(),
        range_end: vec![0xfb, 0xff],
        limit: -3,
        sort_order: pb::range_request::SortOrder::Descend as i32,
        keys_only: true,
        min_mod_revision: i64::MAX,
        ..Default::default()
    };
    for body in [
        r#"{"key":"Zm9v","range_end":"+/8=","limit":-3,"sort_order":"DESCEND","keys_only":true,"min_mod_revision":"9223372036854775807"}"#,
        r#" { "key" : "Zm9v", "rangeEnd":"-_8", "limit":"-3.00e0", "sortOrder":2, "keysOnly":true,
            "minModRevision":9223372036854775807, "nobody": [{"knows":[1,2,{}]}, "x", null] } garbage"#,
        r#"{"key":"\u005am9v","range_end":"+/8=\n\n\n\n","limit":-30e-1,"sort_order":"DESCEND","keys_only":true,"count_only":null,"min_mod_revision":9.223372036854775807e18}"#,
    ] {
        assert_eq!(range(body).as_ref(), Ok(&expected), "{body}");
    }
    assert_eq!(range("{}"), Ok(pb::RangeRequest::default()));
    let unknown = range(r#"{"sort_order":"NOBODY"}"#).map(|request| request.sort_order);
    assert_eq!(
        unknown,
        Ok(0),
        "a name that the enum does not have is no value"
    );
    assert_eq!(range(r#"{"sort_order":77}"#).map(|r| r.sort_order), Ok(77));
}

#[test]
fn refusals_in_etcds_words() {
    for (body, text) in [
        (
            r#"{"key":1}"#,
            "proto: (line 1:8): invalid value for bytes field key: 1",
        ),
        (
            r#"{"key":"!!"}"#,
            r#"proto: (line 1:8): invalid value for bytes field key: "!!""#,
        ),
        (r#"{"key":"Zm9v""#, "unexpected EOF"),
        (
            r#"{"key":"Zm9v","limit":1.5}"#,
            "proto: (line 1:23): invalid value for int64 field limit: 1.5",
        ),
        (
            r#"{"key":"Zm9v","limit":"99999999999999999999"}"#,
            r#"proto: (line 1:23): invalid value for int64 field limit: "99999999999999999999""#,
        ),
        ("[]", "proto: syntax error (line 1:1): unexpected token ["),
        (
            "null",
            "proto: syntax error (line 1:1): unexpected token null",
        ),
        ("kv", "invalid character 'k' looking for beginning of value"),
        (
            r#"{"key":"Zm9v","key":"Zm9v"}"#,
            r#"proto: (line 1:15): duplicate field "key""#,
        ),
        (
            r#"{"key":"Zm9v"]"#,
            "invalid character ']' after object key:value pair",
        ),
        (
            r#"{"limit":01}"#,
            "invalid character '1' after object key:value pair",
        ),
        (
            r#"{"limit":tru}"#,
            "invalid character '}' in literal true (expecting 'e')",
        ),
        (
            r#"{key:1}"#,
            "invalid character 'k' looking for beginning of object key string",
        ),
        (
            "{\"key\":\"\u{1}\"}",
            r"invalid character '\x01' in string literal",
        ),
        (
            r#"{"nobody":"\ud800x     "}"#,
            r#"proto: syntax error (line 1:11): invalid escape code "x     " in string"#,
        ),
        (
            "{\n \"ä\":1, \"key\":{}}",
            "proto: (line 2:15): invalid value for bytes field key: {",
        ),
        (
            r#"{"keysOnly":"true"}"#,
            r#"proto: (line 1:13): invalid value for bool field keysOnly: "true""#,
        ),
    ] {
        refused(body, text);
    }
    let deep = "[".repeat(10_001);
    refused(&deep, "invalid character '[' exceeded max depth");
    let txn = r#"{"compare":[{"version":1,"value":""}]}"#;
    assert_eq!(
        read("/etcdserverpb.KV/Txn", txn),
        Err(r#"proto: (line 1:26): error parsing "value", oneof etcdserverpb.Compare.target_union is already set"#.to_owned())
    );
    assert_eq!(
        read("/etcdserverpb.KV/Txn", r#"{"compare":{}}"#),
        Err("proto: syntax error (line 1:12): unexpected token {".to_owned())
    );
}

#[test]
fn inner_messages_lists_and_oneofs() {
    let body = r#"{"compare":[{"target":"VALUE","key":"YQ==","value":""},{"version":"0"}],
        "success":[{"request_txn":{"failure":[{"requestPut":{"key":"YQ==","value":"Yg=="}}]}},{}]}"#;
    let txn = pb::TxnRequest::decode(&read("/etcdserverpb.KV/Txn", body).unwrap()[..]).unwrap();
    assert_eq!(txn.compare.len(), 2);
    use pb::compare::TargetUnion;
    assert_eq!(
        txn.compare[0].target_union,
        Some(TargetUnion::Value(vec![]))
    );
    assert_eq!(txn.compare[1].target_union, Some(TargetUnion::Version(0)));
    let Some(pb::request_op::Request::RequestTxn(inner)) = &txn.success[0].request else {
        panic!("{txn:?}");
    };
    assert_eq!(inner.failure.len(), 1);
    assert_eq!(txn.success[1].request, None);
    let watch = r#"{"create_request":{"key":"YQ==","filters":["NODELETE",0,"WHAT"]}}"#;
    let watch = read("/etcdserverpb.Watch/Watch", watch).unwrap();
    let watch = pb::WatchRequest::decode(&watch[..]).unwrap();
    let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = watch.request_union else {
        panic!("{watch:?}");
    };
    assert_eq!(create.filters, [1, 0]);
    let members = r#"{"peerURLs":["a","b"]}"#;
    let members = read("/etcdserverpb.Cluster/MemberAdd", members).unwrap();
    let members = pb::MemberAddRequest::decode(&members[..]).unwrap();
    assert_eq!(members.peer_ur_ls, ["a", "b"]);
}

#[test]
fn a_deep_request_neither_recurses_nor_moves_what_was_written() {
    let depth = 3000;
    let mut body = r#"{"success":[{"request_txn":"#.repeat(depth);
    body.push_str("{}");
    body.push_str(&"}]}".repeat(depth));
    let bytes = read("/etcdserverpb.KV/Txn", &body).expect("valid");
    assert_eq!(bytes.len(), depth * 12);
}

fn write(path: &str, message: &impl prost::Message, escapes: Escapes) -> String {
    let mut out = Vec::new();
    encode(&message.encode_to_vec(), types(path).1, escapes, &mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[test]
fn replies_as_etcd_prints_them() {
    let header = pb::ResponseHeader {
        cluster_id: u64::MAX,
        member_id: 2,
        revision: -1,
        raft_term: 0,
    };
    let kv = |key: &[u8], lease| crate::messages::mvccpb::KeyValue {
        key: key.to_vec(),
        create_revision: 2,
        mod_revision: 3,
        version: 1,
        value: vec![0xfb, 0xff, 0xfe, 0xfd],
        lease,
    };
    let reply = pb::RangeResponse {
        header: Some(header),
        kvs: vec![kv(b"foo", 0), kv(b"", 7)],
        more: true,
        count: 2,
    };
    assert_eq!(
        write("/etcdserverpb.KV/Range", &reply, Escapes::Plain),
        r#"{"header":{"cluster_id":"18446744073709551615","member_id":"2","revision":"-1"},"kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"3","version":"1","value":"+//+/Q=="},{"create_revision":"2","mod_revision":"3","version":"1","value":"+//+/Q==","lease":"7"}],"more":true,"count":"2"}"#
    );
    let empty = pb::TxnResponse {
        header: Some(pb::ResponseHeader::default()),
        succeeded: false,
        responses: vec![pb::ResponseOp::default()],
    };
    assert_eq!(
        write("/etcdserverpb.KV/Txn", &empty, Escapes::Plain),
        r#"{"header":{},"responses":[{}]}"#
    );
    let alarm = pb::AlarmResponse {
        header: None,
        alarms: vec![
            pb::AlarmMember {
                member_id: 1,
                alarm: 1,
            },
            pb::AlarmMember {
                member_id: 0,
                alarm: 9,
            },
        ],
    };
    assert_eq!(
        write("/etcdserverpb.Maintenance/Alarm", &alarm, Escapes::Plain),
        r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"},{"alarm":9}]}"#
    );
    let status = pb::StatusResponse {
        version: "<\"\u{1}\u{2028}ä>".to_owned(),
        errors: vec![String::new(), "\n".to_owned()],
        is_learner: true,
        ..Default::default()
    };
    let path = "/etcdserverpb.Maintenance/Status";
    assert_eq!(
        write(path, &status, Escapes::Plain),
        "{\"version\":\"<\\\"\\u0001\u{2028}ä>\",\"errors\":[\"\",\"\\n\"],\"isLearner\":true}"
    );
    assert_eq!(
        write(path, &status, Escapes::Html),
        "{\"version\":\"\\u003c\\\"\\u0001\\u2028ä\\u003e\",\"errors\":[\"\",\"\\n\"],\"isLearner\":true}"
    );
}

#[test]
fn values_come_out_however_the_stream_is_cut() {
    let text = br#" {"a":[1,{"b":"}\""}]}{} 12 "x"[3]true -0.5e+7"#;
    let expected: Vec<&[u8]> = vec![
        br#"{"a":[1,{"b":"}\""}]}"#,
        b"{}",
        b"12",
        b"\"x\"",
        b"[3]",
        b"true",
        b"-0.5e+7",
    ];
    for step in 1..=text.len() {
        let mut values = Values::default();
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut take = |values: &mut Values| {
            while let Some(value) = values.next().expect("valid") {
                found.push(values.text(value).to_vec());
            }
        };
        for piece in text.chunks(step) {
            values.push(piece);
            take(&mut values);
        }
        values.end();
        take(&mut values);
        assert_eq!(found, expected, "pieces of {step}");
    }
}

proptest::proptest! {
    #[test]
    fn garbage_is_refused_or_taken_and_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let mut values = Values::default();
        values.push(&bytes);
        values.end();
        while let Ok(Some(value)) = values.next() {
            let _ = decode(values.text(value), types("/etcdserverpb.KV/Txn").0, &mut Vec::new());
        }
        for path in ["/etcdserverpb.KV/Txn", "/etcdserverpb.Maintenance/Status"] {
            encode(&bytes, types(path).1, Escapes::Html, &mut Vec::new());
        }
    }

    #[test]
    fn shuffled_json_is_refused_or_taken_and_never_panics(text in r#"(\{|\}|\[|\]|"[a-z]{0,3}"|"key"|"compare"|"success"|"request_txn"|:|,|1e9|-|null|true|\\u|\\ud8|"){0,60}"#) {
        let mut values = Values::default();
        values.push(text.as_bytes());
        values.end();
        while let Ok(Some(value)) = values.next() {
            let _ = decode(values.text(value), types("/etcdserverpb.KV/Txn").0, &mut Vec::new());
        }
    }

    #[test]
    fn what_prost_encodes_comes_back_from_its_json(key in proptest::collection::vec(proptest::num::u8::ANY, 0..40), limit: i64, revision: u64, name: String) {
        let status = pb::StatusResponse { version: name, raft_index: revision, db_size: limit, ..Default::default() };
        let json: serde_json::Value = serde_json::from_str(&write("/etcdserverpb.Maintenance/Status", &status, Escapes::Html)).unwrap();
        proptest::prop_assert_eq!(json.get("version").and_then(|v| v.as_str()).unwrap_or(""), status.version);
        let mut text = String::from("{\"key\":\"");
        let mut coded = Vec::new();
        base64::encode(&key, &mut coded);
        text.push_str(std::str::from_utf8(&coded).unwrap());
        text.push_str(&format!("\",\"limit\":{limit}}}"));
        let request = range(&text).unwrap();
        proptest::prop_assert_eq!(request.key, key);
        proptest::prop_assert_eq!(request.limit, limit);
    }
}
