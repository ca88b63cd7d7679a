//! Reads the YAML configuration file.
//!
//! Always true here: keys are flag names, but for a few that are grouped in maps; values have the types
//! etcd's decoder demands (durations are nanoseconds, lists of URLs one text); unknown keys are ignored;
//! an empty text means the default. The result goes through the same checks as flags.
//!
//! Called once by `start`, with one blocking read. Knows spelling only.

use serde_yaml_ng::{Mapping, Value};

use super::Refusal;
use super::flags::{self, Flag, Kind};
use super::raw::RawConfig;

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
    ("allowed-cn", "", "peer-cert-allowed-cn"),
    (
        "skip-client-san-verification",
        "",
        "peer-skip-client-san-verification",
    ),
];

pub(super) fn read(path: &str) -> Result<RawConfig, Refusal> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Refusal::new(format!("--config-file {path}: cannot be read: {error}")))?;
    parse(&text).map_err(|why| Refusal::new(format!("--config-file {path}: {why}")))
}

fn parse(text: &str) -> Result<RawConfig, String> {
    let mut raw = RawConfig::from_file();
    let document: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let map = match &document {
        Value::Null => return Ok(raw),
        Value::Mapping(map) => map,
        _ => return Err("is not a map of flag names to values".to_owned()),
    };
    for (key, value) in map {
        let Some(key) = key.as_str() else { continue };
        match key {
            "client-transport-security" => security(&mut raw, key, value, false)?,
            "peer-transport-security" => security(&mut raw, key, value, true)?,
            "socket-options" => {
                for (key, flag) in [
                    ("reuse-port", "socket-reuse-port"),
                    ("reuse-address", "socket-reuse-address"),
                ] {
                    if let Some(value) = submap("socket-options", value)?.get(key) {
                        set(&mut raw, key, flag, value)?;
                    }
                }
            }
            "discovery-config" => {
                let client = submap(key, value)?.get("client");
                let endpoints = client.and_then(|client| client.get("endpoints"));
                if let Some(endpoints) = endpoints {
                    set(&mut raw, key, "discovery-endpoints", endpoints)?;
                }
                if let Some(token) = value.get("token") {
                    set(&mut raw, key, "discovery-token", token)?;
                }
            }
            // In the file these live in the maps above only.
            _ if SECURITY_KEYS
                .iter()
                .any(|(_, client, peer)| *client == key || *peer == key) => {}
            _ if NO_KEY.contains(&key) || key.starts_with("socket-reuse-") => {}
            _ => {
                if flags::find(key).is_some_and(|flag| flag.kind != Kind::Ignored) {
                    set(&mut raw, key, key, value)?;
                }
            }
        }
    }
    Ok(raw)
}

fn security(
    raw: &mut RawConfig,
    section: &str,
    value: &Value,
    is_peer: bool,
) -> Result<(), String> {
    let map = submap(section, value)?;
    for (key, client, peer) in SECURITY_KEYS {
        let name = if is_peer { peer } else { client };
        if let (Some(value), false) = (map.get(*key), name.is_empty()) {
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
        (Kind::Duration, _) => "a whole number of nanoseconds",
        (Kind::Integer | Kind::Unsigned | Kind::Unsigned32, Value::Number(number))
            if !number.is_f64() =>
        {
            return Ok(Some(number.to_string()));
        }
        (Kind::Integer | Kind::Unsigned | Kind::Unsigned32, _) => "a whole number",
        (_, Value::String(text)) if flag.name != "log-outputs" => {
            return Ok((!text.is_empty()).then(|| text.clone()));
        }
        (_, Value::Sequence(items)) => return list_text(items).map(Some),
        _ if flag.name == "log-outputs" => "a list of texts",
        _ => "text",
    };
    Err(format!("must be {wanted}"))
}

fn list_text(items: &[Value]) -> Result<String, String> {
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    Ok(texts.ok_or("must be a list of texts")?.join(","))
}
