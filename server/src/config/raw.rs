//! The raw configuration: for each flag that was given, its text.
//!
//! Always true here: every key is a flag of the table and its text parses as the flag's kind; relations
//! between flags are not checked yet. Filled by `args` and `environment`, or by `file`; read by `check`.

use std::collections::BTreeMap;

use super::flags::{self, Flag, Kind};
use super::gates::Features;
use super::urls::Url;
use super::values;

#[derive(Clone, Default, Debug)]
pub(super) struct RawConfig {
    given: BTreeMap<&'static str, String>,
    /// The values come from the configuration file.
    pub(super) is_from_file: bool,
}

impl RawConfig {
    pub(super) fn from_file() -> RawConfig {
        RawConfig {
            is_from_file: true,
            ..RawConfig::default()
        }
    }

    /// Stores a value after checking its spelling; the error is what is wrong with it.
    pub(super) fn set(&mut self, flag: &'static Flag, text: &str) -> Result<(), String> {
        check_spelling(flag.kind, text)?;
        self.given.insert(flag.name, text.to_owned());
        Ok(())
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// All flags given, in order of name.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static Flag, &str)> {
        self.given.iter().map(|(name, text)| {
            let flag = flags::find(name).expect("only flags of the table are stored");
            (flag, text.as_str())
        })
    }

    /// The text given, or the flag's default.
    pub(super) fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(text) => text,
            None => {
                flags::find(name)
                    .expect("asked for a flag of the table")
                    .default
            }
        }
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        values::parse_bool(self.text(name)).expect("spelling was checked")
    }

    pub(super) fn integer(&self, name: &str) -> i64 {
        let value = values::parse_integer(self.text(name)).expect("spelling was checked");
        i64::try_from(value).unwrap_or(i64::MAX)
    }

    /// In nanoseconds; may be negative.
    pub(super) fn duration_ns(&self, name: &str) -> i64 {
        values::parse_duration_ns(self.text(name)).expect("spelling was checked")
    }

    pub(super) fn features(&self) -> Features {
        Features::parse(self.text("feature-gates")).expect("spelling was checked")
    }

    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        match self.text(name) {
            "" => Vec::new(),
            text => Url::parse_list(text).expect("spelling was checked"),
        }
    }

    /// A comma-separated list, without empty parts, each once, in order of first mention.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let mut parts: Vec<String> = Vec::new();
        for part in self
            .text(name)
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            if !parts.iter().any(|known| known == part) {
                parts.push(part.to_owned());
            }
        }
        parts
    }
}

fn check_spelling(kind: Kind, text: &str) -> Result<(), String> {
    let in_range = |low: i128, high: i128| {
        let value = values::parse_integer(text)?;
        if (low..=high).contains(&value) {
            Ok(())
        } else {
            Err("value out of range".to_owned())
        }
    };
    match kind {
        Kind::Bool => values::parse_bool(text).map(drop),
        Kind::Integer => in_range(i64::MIN.into(), i64::MAX.into()),
        Kind::Unsigned => values::parse_integer(text).and_then(|value| {
            if value < 0 {
                Err("parse error".to_owned())
            } else {
                in_range(0, u64::MAX.into())
            }
        }),
        Kind::Unsigned32 => in_range(0, u32::MAX.into()),
        Kind::Duration => values::parse_duration_ns(text).map(drop),
        Kind::OptionalUrls if text.is_empty() => Ok(()),
        Kind::Origins if text == "*" => Ok(()),
        Kind::Urls | Kind::OptionalUrls | Kind::Origins => Url::parse_list(text).map(drop),
        Kind::Choice(choices) if !choices.contains(&text) => {
            Err(format!("{text:?} is not one of {}", choices.join(", ")))
        }
        Kind::Cores if text != "auto" => values::parse_cores(text).map(drop),
        Kind::Gates => Features::parse(text).map(drop),
        Kind::Text | Kind::Choice(_) | Kind::Cores | Kind::Ignored => Ok(()),
    }
}
