//! Reads the command line by the rules of Go's flag package.
//!
//! Always true here: `-name`, `--name`, `=value` and a separate value mean what they mean to etcd; a
//! boolean takes its value only after `=`; reading stops at the first argument that is no flag, and that
//! is an error. A general command-line library was tried on paper and dropped: it does not stop there,
//! takes booleans differently, and words its refusals differently.
//!
//! Called once by `start`. Knows spelling only; what values mean together is `check`'s.

use std::ffi::OsString;

use super::Refusal;
use super::flags::{self, Flag, Kind};
use super::raw::RawConfig;

/// What the command line asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Server,
    Help,
    Version,
}

pub(super) fn read(
    args: impl IntoIterator<Item = OsString>,
    raw: &mut RawConfig,
) -> Result<Asked, Refusal> {
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = arg.into_string().map_err(|arg| {
            Refusal::usage(format!(
                "argument {arg:?} is not UTF-8 text; only UTF-8 is accepted"
            ))
        })?;
        let name = match arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
            Some("") if arg == "--" => match args.next() {
                Some(rest) => return Err(not_a_flag(&rest.to_string_lossy())),
                None => break,
            },
            Some(name) if !name.is_empty() => name,
            _ => return Err(not_a_flag(&arg)),
        };
        if name.starts_with(['-', '=']) {
            return Err(Refusal::usage(format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let Some(flag) = flags::find(name) else {
            if name == "help" || name == "h" {
                return Ok(Asked::Help);
            }
            return Err(unknown(name));
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, Kind::Ignored) => String::new(),
            (None, _) => next_value(&mut args, flag)?,
        };
        raw.set(flag, &value).map_err(|reason| {
            Refusal::usage(if flag.kind == Kind::Bool {
                format!("invalid boolean value {value:?} for -{name}: {reason}")
            } else {
                format!("invalid value {value:?} for flag -{name}: {reason}")
            })
        })?;
    }
    Ok(if raw.bool("version") {
        Asked::Version
    } else {
        Asked::Server
    })
}

fn next_value(args: &mut impl Iterator<Item = OsString>, flag: &Flag) -> Result<String, Refusal> {
    let missing = || Refusal::usage(format!("flag needs an argument: -{}", flag.name));
    args.next()
        .ok_or_else(missing)?
        .into_string()
        .map_err(|value| {
            Refusal::usage(format!(
                "value {value:?} for flag -{} is not UTF-8 text",
                flag.name
            ))
        })
}

fn not_a_flag(arg: &str) -> Refusal {
    Refusal::new(format!("{arg:?} is not a valid flag"))
}

fn unknown(name: &str) -> Refusal {
    let mut text = format!("flag provided but not defined: -{name}");
    if let Some(fate) = flags::removed(name) {
        text += &format!(" ({fate})");
    } else if let Some(nearest) = flags::nearest(name) {
        text += &format!(" (did you mean --{nearest}?)");
    }
    Refusal::usage(text)
}
