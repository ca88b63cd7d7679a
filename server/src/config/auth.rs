//! Flags about users: what their tokens are, what a password costs, whose certificates name them.
//!
//! Always true here: spelling and rules are etcd's; files that the options name are read when the member starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::jwt::SignMethod;
use crate::auth::jwt_keys::JwtOptions;

use super::checked::{AuthConfig, TokenOptions};
use super::raw::RawConfig;
use super::{Notice, Refusal, values};

/// etcd's bounds of `--bcrypt-cost`, and what it takes instead of a number outside of them.
const BCRYPT_COSTS: std::ops::RangeInclusive<i64> = 4..=31;
const BCRYPT_COST_DEFAULT: u32 = 10;
/// How long a signed token is good, unless it is said.
const JWT_TTL_DEFAULT: Duration = Duration::from_secs(300);
/// And instead of no time to live of simple ones.
const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(300);

pub(super) fn auth(raw: &RawConfig, notices: &mut Vec<Notice>) -> Result<AuthConfig, Refusal> {
    let bcrypt_cost = match raw.integer("bcrypt-cost") {
        cost if BCRYPT_COSTS.contains(&cost) => cost as u32,
        cost => {
            notices.push(Notice::warning(format!(
                "--bcrypt-cost={cost} is not one of 4 to 31; {BCRYPT_COST_DEFAULT} is used instead"
            )));
            BCRYPT_COST_DEFAULT
        }
    };
    let token_ttl = match raw.integer("auth-token-ttl") {
        0 => TOKEN_TTL_DEFAULT,
        // More than that is as good as for ever, and stays countable in nanoseconds.
        seconds => Duration::from_secs((seconds as u64).min(u64::from(u32::MAX))),
    };
    Ok(AuthConfig {
        tokens: tokens(raw.text("auth-token"), notices)?,
        token_ttl,
        bcrypt_cost,
        uses_certificates: raw.bool("client-cert-auth"),
    })
}

/// `kind,option=value,...`
fn tokens(text: &str, notices: &mut Vec<Notice>) -> Result<TokenOptions, Refusal> {
    let refuse = |why: &str| Refusal::new(format!("--auth-token={text}: {why}"));
    let invalid = |why: String| refuse(&format!("auth: invalid auth options: {why}"));
    let mut options = BTreeMap::new();
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    for part in parts {
        let (name, value) = part
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or_else(|| invalid(format!("`{part}` is not of the form option=value")))?;
        if options.insert(name, value).is_some() {
            return Err(invalid(format!("`{name}` is given twice")));
        }
    }
    match kind {
        "simple" => Ok(TokenOptions::Simple),
        "" => Ok(TokenOptions::Absent),
        "jwt" => {
            let mut take = |name| options.remove(name).filter(|value| !value.is_empty());
            let method = take("sign-method").unwrap_or_default();
            let method = SignMethod::find(method).ok_or_else(|| {
                let known: Vec<&str> = SignMethod::ALL.iter().map(|(_, name)| *name).collect();
                refuse(&format!(
                    "auth: invalid auth signature method; sign-method is one of {}",
                    known.join(", ")
                ))
            })?;
            let ttl = match take("ttl") {
                None => JWT_TTL_DEFAULT,
                Some(ttl) => values::parse_duration_ns(ttl)
                    .ok()
                    .and_then(|ns| u64::try_from(ns).ok())
                    .map(Duration::from_nanos)
                    .ok_or_else(|| invalid(format!("ttl={ttl} is no time, such as 10m")))?,
            };
            let public_key = take("pub-key").map(PathBuf::from);
            let private_key = take("priv-key").map(PathBuf::from);
            for name in options.keys() {
                notices.push(Notice::warning(format!(
                    "--auth-token: unknown JWT option {name}; it has no effect"
                )));
            }
            Ok(TokenOptions::Signed(JwtOptions {
                method,
                public_key,
                private_key,
                ttl,
            }))
        }
        kind => Err(invalid(format!(
            "`{kind}` is no kind of token; `simple` and `jwt` are"
        ))),
    }
}
