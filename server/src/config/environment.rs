//! Reads `ETCD_*` variables: `--some-flag` is `ETCD_SOME_FLAG`.
//!
//! Always true here: an empty variable counts as absent; a variable whose flag was also given refuses the
//! start, even if both say the same; an unknown `ETCD_` variable is only worth a warning. Works on a copy
//! of the environment; reads nothing else and sets nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::flags::{FLAGS, Kind};
use super::raw::RawConfig;
use super::{Notice, Refusal};

const PREFIX: &str = "ETCD_";

/// Variables that are not flags but mean something to etcd, or to the tools around it.
const SPECIAL: &[&str] = &["ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY"];

pub(super) struct Environment {
    /// `ETCD_*` only.
    variables: BTreeMap<String, String>,
}

impl Environment {
    pub(super) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
        let variables = variables
            .into_iter()
            .filter_map(|(name, value)| {
                Some((
                    name.into_string().ok()?,
                    value.to_string_lossy().into_owned(),
                ))
            })
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        Environment { variables }
    }

    /// `ETCD_CONFIG_FILE`, or empty text.
    pub(super) fn config_file(&self) -> String {
        self.variables
            .get("ETCD_CONFIG_FILE")
            .cloned()
            .unwrap_or_default()
    }

    pub(super) fn read(
        mut self,
        raw: &mut RawConfig,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Refusal> {
        if let Some(value) = self.variables.remove("ETCD_VERSION") {
            notices.push(Notice::warning(format!(
                "cannot set special environment variable ETCD_VERSION={value}"
            )));
        }
        for flag in FLAGS.iter().filter(|flag| flag.kind != Kind::Ignored) {
            let name = variable_name(flag.name);
            let Some(value) = self.variables.remove(&name) else {
                continue;
            };
            if raw.is_given(flag.name) {
                return Err(Refusal::new(format!(
                    "conflicting environment variable {name} is shadowed by corresponding command-line flag --{} \
                     (either unset environment variable or disable flag)",
                    flag.name
                )));
            }
            raw.set(flag, &value).map_err(|why| {
                Refusal::new(format!("invalid value {value:?} for {name}: {why}"))
            })?;
            notices.push(Notice::info(format!(
                "recognized and used environment variable {name}={value}"
            )));
        }
        for (name, value) in self.variables {
            if !SPECIAL.contains(&name.as_str()) {
                notices.push(Notice::warning(format!(
                    "unrecognized environment variable {name}={value}"
                )));
            }
        }
        Ok(())
    }
}

fn variable_name(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_ascii_uppercase().replace('-', "_"))
}
