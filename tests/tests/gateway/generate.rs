//! Requests made at random, right and slightly wrong, in lockstep on both servers.

use pilaster_tests::random::Random;

use super::Pair;

/// One of a few keys, so that requests meet.
fn key(random: &mut Random) -> &'static str {
    const KEYS: &[&str] = &[
        "\"YQ==\"", "\"YWE=\"", "\"Yg==\"", "\"Yw\"", "\"AA==\"", "\"\"", "\"_-8=\"",
    ];
    KEYS[random.below(KEYS.len() as u64) as usize]
}

fn number(random: &mut Random) -> String {
    match random.below(8) {
        0 => "0".to_owned(),
        1 => format!("\"{}\"", random.below(20)),
        2 => format!("{}.0", random.below(5)),
        3 => format!("{}e1", random.below(2)),
        4 => format!("-{}", random.below(3)),
        5 => "\"nan\"".to_owned(),
        _ => random.below(20).to_string(),
    }
}

fn truth(random: &mut Random) -> String {
    random
        .pick(&["true", "false", "true", "false", "null", "\"true\""])
        .to_string()
}

fn choice(random: &mut Random, names: &[&str]) -> String {
    match random.below(6) {
        0 => random.below(6).to_string(),
        1 => "\"NOBODY\"".to_owned(),
        _ => format!("\"{}\"", random.pick(names)),
    }
}

/// An object of some of `fields`, whose names are now and then written the other way.
fn object(random: &mut Random, fields: Vec<(&str, String)>) -> String {
    let mut parts = Vec::new();
    for (name, value) in fields {
        if random.chance(1, 2) {
            continue;
        }
        let name = match random.chance(1, 4) {
            true => camel(name),
            false => name.to_owned(),
        };
        let colon = random.pick(&[":", ": ", " :\n"]);
        parts.push(format!("\"{name}\"{colon}{value}"));
    }
    format!("{{{}}}", parts.join(*random.pick(&[",", ", ", "\n,"])))
}

fn camel(name: &str) -> String {
    let mut out = String::new();
    let mut is_upper = false;
    for character in name.chars() {
        match character {
            '_' => is_upper = true,
            _ if is_upper => {
                out.push(character.to_ascii_uppercase());
                is_upper = false;
            }
            _ => out.push(character),
        }
    }
    out
}

fn range(random: &mut Random) -> String {
    let fields = vec![
        ("key", key(random).to_owned()),
        ("key_of_nobody", "[{}]".to_owned()),
        ("range_end", key(random).to_owned()),
        ("limit", number(random)),
        (
            "revision",
            if random.chance(1, 3) {
                number(random)
            } else {
                "0".to_owned()
            },
        ),
        ("sort_order", choice(random, &["NONE", "ASCEND", "DESCEND"])),
        (
            "sort_target",
            choice(random, &["KEY", "VERSION", "CREATE", "MOD", "VALUE"]),
        ),
        ("serializable", truth(random)),
        ("keys_only", truth(random)),
        ("count_only", truth(random)),
        ("min_mod_revision", number(random)),
        ("max_create_revision", number(random)),
    ];
    object(random, fields)
}

fn put(random: &mut Random) -> String {
    let fields = vec![
        ("key", key(random).to_owned()),
        ("value", key(random).to_owned()),
        (
            "lease",
            if random.chance(1, 4) {
                number(random)
            } else {
                "0".to_owned()
            },
        ),
        ("prev_kv", truth(random)),
        (
            "ignore_value",
            if random.chance(1, 4) {
                truth(random)
            } else {
                "false".to_owned()
            },
        ),
    ];
    object(random, fields)
}

fn delete(random: &mut Random) -> String {
    let fields = vec![
        ("key", key(random).to_owned()),
        (
            "range_end",
            if random.chance(1, 3) {
                key(random).to_owned()
            } else {
                "\"\"".to_owned()
            },
        ),
        ("prev_kv", truth(random)),
    ];
    object(random, fields)
}

fn list(random: &mut Random, mut make: impl FnMut(&mut Random) -> String) -> String {
    let parts: Vec<String> = (0..random.below(3)).map(|_| make(random)).collect();
    format!("[{}]", parts.join(","))
}

fn operation(random: &mut Random, depth: u32) -> String {
    match random.below(if depth == 0 { 3 } else { 4 }) {
        0 => format!("{{\"request_range\":{}}}", range(random)),
        1 => format!("{{\"requestPut\":{}}}", put(random)),
        2 => format!("{{\"request_delete_range\":{}}}", delete(random)),
        _ => format!("{{\"request_txn\":{}}}", txn(random, depth - 1)),
    }
}

fn compare(random: &mut Random) -> String {
    let target = ["version", "create_revision", "mod_revision", "lease"];
    let fields = vec![
        (
            "result",
            choice(random, &["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]),
        ),
        (
            "target",
            choice(random, &["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]),
        ),
        ("key", key(random).to_owned()),
        (*random.pick(&target), number(random)),
        (
            "value",
            if random.chance(1, 2) {
                key(random).to_owned()
            } else {
                "null".to_owned()
            },
        ),
        (
            "range_end",
            if random.chance(1, 4) {
                key(random).to_owned()
            } else {
                "\"\"".to_owned()
            },
        ),
    ];
    object(random, fields)
}

fn txn(random: &mut Random, depth: u32) -> String {
    let fields = vec![
        ("compare", list(random, compare)),
        ("success", list(random, |random| operation(random, depth))),
        ("failure", list(random, |random| operation(random, depth))),
    ];
    object(random, fields)
}

fn lease(random: &mut Random) -> (&'static str, String) {
    let id = random.below(4).to_string();
    match random.below(4) {
        0 => (
            "/v3/lease/grant",
            format!("{{\"ID\":\"{}\",\"TTL\":{}}}", random.below(3) + 1, 1000),
        ),
        1 => ("/v3/lease/revoke", format!("{{\"ID\":{id}}}")),
        2 => ("/v3/kv/lease/leases", String::new()),
        _ => (
            "/v3/lease/timetolive",
            "{\"ID\":\"77\",\"keys\":true}".to_owned(),
        ),
    }
}

/// Breaks a request somewhere.
fn break_text(random: &mut Random, body: String) -> String {
    let mut bytes = body.into_bytes();
    if bytes.is_empty() {
        return String::new();
    }
    let at = random.below(bytes.len() as u64) as usize;
    match random.below(3) {
        0 => drop(bytes.remove(at)),
        1 => bytes.truncate(at),
        _ => bytes[at] = *random.pick(b"{}[]\":,0tn\\"),
    }
    String::from_utf8(bytes).expect("all of it is ASCII")
}

#[test]
fn generated_requests_are_answered_the_same() {
    let pair = Pair::start();
    let seed = std::env::var("PILASTER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(1);
    println!("seed {seed}");
    let mut random = Random::new(seed);
    const REQUESTS: u32 = 3000;
    for _ in 0..REQUESTS {
        let (path, body) = match random.below(10) {
            0..4 => ("/v3/kv/range", range(&mut random)),
            4..6 => ("/v3/kv/put", put(&mut random)),
            6 => ("/v3/kv/deleterange", delete(&mut random)),
            7..9 => ("/v3/kv/txn", txn(&mut random, 2)),
            _ => lease(&mut random),
        };
        // A grant that loses its id is given one, and no two servers give the same.
        let body = match path != "/v3/lease/grant" && random.chance(1, 6) {
            true => break_text(&mut random, body),
            false => body,
        };
        pair.check(path, &body);
    }
    println!("{REQUESTS} requests");
}
