//! Reads the YAML configuration file.
//!
//! Always true here: keys are flag names, but for a few that are grouped in maps, in capitals or small letters, as for
//! etcd's decoder; values have the types it demands (durations are nanoseconds, lists of URLs one text); unknown keys are
//! ignored as with etcd, and the log names them; an empty text means the default. The result goes through the same checks
//! as flags.
//!
//! Called once by `start`, with one blocking read. Knows spelling only.

use serde_yaml_ng::{Mapping, Value};

use super::flags::{self, Flag, Kind};
use super::raw::RawConfig;
use super::{Notice, Refusal};

/// Flags that have no key in the file.
const NO_KEY: &[&str] = &[
    "config-file",
    "version",
    "raft-read-timeout",
    "raft-write-timeout",
    "discovery-fallback",
    "client-crl-file",
    "peer-crl-file",
];

/// Keys of the two `*-transport-security` maps: key, client flag, peer flag.
const SECURITY_KEYS: &[(&str, &str, &str)] = &[
    ("cert-file", "cert-file", "peer-cert-file"),
    ("key-file", "key-file", "peer-key-file"),
    (
        "client-cert-file",
        "client-cert-file",
        "peer-client-cert-file",
    ),
    ("client-key-file", "client-key-file", "peer-client-key-file"),
    (
        "client-cert-auth",
        "client-cert-auth",
        "peer-client-cert-auth",
    ),
    ("trusted-ca-file", "trusted-ca-file", "peer-trusted-ca-file"),
    ("auto-tls", "auto-tls", "peer-auto-tls"),
    (
        "allowed-hostname",
        "client-cert-allowed-hostname",
        "peer-cert-allowed-hostname",
    ),
    (
        "allowed-cn",
        "client-cert-allowed-cn",
        "peer-cert-allowed-cn",
    ),
    (
        "skip-client-san-verification",
        "",
        "peer-skip-client-san-verification",
    ),
];

/// The maps, and what they may hold; the one for discovery has maps of its own, which nobody reads here.
const CLIENT_SECURITY: &str = "client-transport-security";
const PEER_SECURITY: &str = "peer-transport-security";
const SOCKET_OPTIONS: &str = "socket-options";
const DISCOVERY: &str = "discovery-config";
const SOCKET_KEYS: &[(&str, &str)] = &[
    ("reuse-port", "socket-reuse-port"),
    ("reuse-address", "socket-reuse-address"),
];

/// Flags whose values are lists in the file; those of all others are one text.
const LISTS: &[&str] = &[
    "log-outputs",
    "cipher-suites",
    "client-cert-allowed-hostname",
    "client-cert-allowed-cn",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
];

/// What is shown of a key; the longest known one is shorter.
const KEY_CHARACTERS_MAX: usize = 60;

pub(super) fn read(path: &str, notices: &mut Vec<Notice>) -> Result<RawConfig, Refusal> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Refusal::new(format!("--config-file {path}: cannot be read: {error}")))?;
    let (raw, ignored) =
        parse(&text).map_err(|why| Refusal::new(format!("--config-file {path}: {why}")))?;
    if raw.given().next().is_none() && !ignored.is_empty() {
        return Err(Refusal::new(format!(
            "--config-file {path}: none of its keys is known ({}); is this a configuration file?",
            ignored[0]
        )));
    }
    notices.extend(
        ignored
            .into_iter()
            .map(|what| Notice::warning(format!("--config-file {path}: {what}"))),
    );
    Ok(raw)
}

/// The values, and what was ignored.
fn parse(text: &str) -> Result<(RawConfig, Vec<String>), String> {
    let mut raw = RawConfig::from_file();
    let mut ignored = Vec::new();
    let document: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let map = match &document {
        Value::Null => return Ok((raw, ignored)),
        Value::Mapping(map) => map,
        _ => return Err("is not a map of flag names to values".to_owned()),
    };
    for (key, value) in map {
        let key = text_of_key(key);
        match key.as_str() {
            CLIENT_SECURITY => security(&mut raw, CLIENT_SECURITY, value, &mut ignored)?,
            PEER_SECURITY => security(&mut raw, PEER_SECURITY, value, &mut ignored)?,
            SOCKET_OPTIONS => {
                for (key, value) in submap(SOCKET_OPTIONS, value)? {
                    let key = text_of_key(key);
                    match SOCKET_KEYS.iter().find(|(name, _)| *name == key) {
                        Some((_, flag)) => set(&mut raw, &key, flag, value)?,
                        None => {
                            let names = SOCKET_KEYS.iter().map(|keys| keys.0);
                            ignored.push(unknown_in(SOCKET_OPTIONS, &key, names));
                        }
                    }
                }
            }
            DISCOVERY => {
                let client = submap(DISCOVERY, value)?.get("client");
                let endpoints = client.and_then(|client| client.get("endpoints"));
                if let Some(endpoints) = endpoints {
                    set(&mut raw, DISCOVERY, "discovery-endpoints", endpoints)?;
                }
                if let Some(token) = value.get("token") {
                    set(&mut raw, DISCOVERY, "discovery-token", token)?;
                }
            }
            key => match flags::find(key) {
                Some(flag) if flag.kind != Kind::Ignored && has_key(key) => {
                    set(&mut raw, key, key, value)?;
                }
                _ => ignored.push(unknown(key)),
            },
        }
    }
    Ok((raw, ignored))
}

/// etcd's decoder does not tell capitals from small letters.
fn text_of_key(key: &Value) -> String {
    let mut text = match key.as_str() {
        Some(text) => text.to_ascii_lowercase(),
        None => format!("{key:?}"),
    };
    // Another kind of file may have anything here, and the log is no place for it.
    if let Some((end, _)) = text.char_indices().nth(KEY_CHARACTERS_MAX) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Whether a flag is a key of the file's top level; some live in maps only, some nowhere.
fn has_key(flag: &str) -> bool {
    place_of(flag).is_none() && !NO_KEY.contains(&flag)
}

/// The map and the key in it of a flag that lives in one.
fn place_of(flag: &str) -> Option<(&'static str, &'static str)> {
    let in_sockets = SOCKET_KEYS
        .iter()
        .map(|(key, name)| (SOCKET_OPTIONS, *key, *name));
    let in_security = SECURITY_KEYS.iter().flat_map(|(key, client, peer)| {
        [
            (CLIENT_SECURITY, *key, *client),
            (PEER_SECURITY, *key, *peer),
        ]
    });
    in_sockets
        .chain(in_security)
        .find(|(.., name)| *name == flag)
        .map(|(map, key, _)| (map, key))
}

fn unknown(key: &str) -> String {
    if let Some((map, inside)) = place_of(key) {
        return format!(
            "the key {key:?} is ignored; in a file it is {inside:?} in the map {map:?}"
        );
    }
    let maps = [CLIENT_SECURITY, PEER_SECURITY, SOCKET_OPTIONS, DISCOVERY];
    let names = flags::names().filter(|name| has_key(name)).chain(maps);
    format!(
        "the key {key:?} is not known and ignored{}",
        hint(key, names)
    )
}

fn unknown_in(map: &str, key: &str, names: impl Iterator<Item = &'static str>) -> String {
    format!(
        "the key {key:?} in {map:?} is not known and ignored{}",
        hint(key, names)
    )
}

fn hint(key: &str, names: impl Iterator<Item = &'static str>) -> String {
    flags::nearest_of(key, names)
        .map(|nearest| format!("; did you mean {nearest:?}?"))
        .unwrap_or_default()
}

fn security(
    raw: &mut RawConfig,
    section: &str,
    value: &Value,
    ignored: &mut Vec<String>,
) -> Result<(), String> {
    let is_peer = section == PEER_SECURITY;
    for (given, value) in submap(section, value)? {
        let given = text_of_key(given);
        let Some((key, client, peer)) = SECURITY_KEYS.iter().find(|(key, ..)| *key == given) else {
            let names = SECURITY_KEYS.iter().map(|keys| keys.0);
            ignored.push(unknown_in(section, &given, names));
            continue;
        };
        let name = if is_peer { peer } else { client };
        if name.is_empty() {
            ignored.push(format!(
                "the key {key:?} in {section:?} has no effect and is ignored"
            ));
        } else {
            set(raw, &format!("{section}.{key}"), name, value)?;
        }
    }
    Ok(())
}

fn submap<'a>(key: &str, value: &'a Value) -> Result<&'a Mapping, String> {
    static EMPTY: std::sync::OnceLock<Mapping> = std::sync::OnceLock::new();
    match value {
        Value::Mapping(map) => Ok(map),
        Value::Null => Ok(EMPTY.get_or_init(Mapping::new)),
        _ => Err(format!("invalid {key}: it must be a map")),
    }
}

fn set(raw: &mut RawConfig, key: &str, name: &str, value: &Value) -> Result<(), String> {
    let flag = flags::find(name).expect("keys of this module are flags");
    match text_of(flag, value).map_err(|why| format!("{key}: {why}"))? {
        Some(text) => raw
            .set(flag, &text)
            .map_err(|why| format!("{key}: {text:?}: {why}")),
        None => Ok(()),
    }
}

/// The flag's text for a YAML value; `None` where the value means the default.
fn text_of(flag: &Flag, value: &Value) -> Result<Option<String>, String> {
    let wanted = match (flag.kind, value) {
        (_, Value::Null) => return Ok(None),
        (Kind::Bool, Value::Bool(value)) => return Ok(Some(value.to_string())),
        (Kind::Bool, _) => "true or false",
        (Kind::Duration, Value::Number(number)) if !number.is_f64() => {
            return Ok(Some(format!("{number}ns")));
        }
        (Kind::Duration, _) => "a whole number of nanoseconds, such as 5000000000 for 5s",
        (Kind::Integer | Kind::Unsigned | Kind::Unsigned32, Value::Number(number))
            if !number.is_f64() =>
        {
            return Ok(Some(number.to_string()));
        }
        (Kind::Integer | Kind::Unsigned | Kind::Unsigned32, _) => "a whole number",
        (_, Value::String(text)) if !LISTS.contains(&flag.name) => {
            return Ok((!text.is_empty()).then(|| text.clone()));
        }
        (_, Value::Sequence(items)) if LISTS.contains(&flag.name) => {
            return list_text(items).map(Some);
        }
        _ if LISTS.contains(&flag.name) => "a list of texts",
        (_, Value::Sequence(_)) => "one text, its parts separated by commas",
        _ => "text, in quotation marks if it looks like a number",
    };
    Err(format!("must be {wanted}"))
}

fn list_text(items: &[Value]) -> Result<String, String> {
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    Ok(texts.ok_or("must be a list of texts")?.join(","))
}
