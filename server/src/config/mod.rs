//! Configuration: flags, environment and file become one checked `Config`, before anything else runs.
//!
//! In reading order: `flags` is the table of every flag there is; `args`, `environment` and `file` fill
//! `raw` values from the three sources; `values` and `urls` parse them; `check` turns them into `Config`;
//! `data_dir` looks at the directory the member will own; `version` prints who we are.
//!
//! Always true here: names, precedence, defaults, accepted spellings and refusals are etcd's, so existing
//! unit files, manifests and scripts start this server unchanged or are told exactly what it lacks.
//! Called once, on the main thread, before any core exists. Logs nothing (logging is not set up yet); what
//! is worth saying comes back as notices.

mod args;
mod auth;
mod check;
mod checked;
mod data_dir;
mod environment;
mod file;
mod flags;
mod gates;
mod http;
mod raw;
mod tls;
mod urls;
mod values;
mod version;

use std::ffi::OsString;

pub use checked::{AutoCompaction, Config, CoreChoice, Quota, TokenOptions};
pub use data_dir::DataDir;
pub use gates::Features;
pub use urls::Url;
pub use version::version_text;

/// What the program should do next.
#[derive(Debug)]
pub enum Start {
    /// Start the server. Log the notices as soon as logging is set up.
    Run {
        config: Box<Config>,
        notices: Vec<Notice>,
    },
    /// Print this on stdout and exit with 0 (`--version`, `--help`).
    Print(String),
    /// Print the text on stderr and exit with the code.
    Refuse(Refusal),
}

/// Why the server does not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub text: String,
    /// 2 when the command line cannot be parsed (the text then ends with the usage), 1 otherwise.
    pub exit_code: i32,
}

/// Something found while configuring that the log should say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    pub is_warning: bool,
    pub message: String,
}

/// Reads all three sources. `args` has no program name; `variables` is the whole environment.
pub fn start(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Start {
    match read(args, variables) {
        Ok(start) => start,
        Err(refusal) => Start::Refuse(refusal),
    }
}

fn read(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Start, Refusal> {
    let mut raw = raw::RawConfig::default();
    let mut notices = Vec::new();
    match args::read(args, &mut raw)? {
        args::Asked::Help => return Ok(Start::Print(flags::help_text())),
        args::Asked::Version => return Ok(Start::Print(version_text())),
        args::Asked::Server => {}
    }
    let environment = environment::Environment::new(variables);
    let file = raw.text("config-file").to_owned();
    let file = if file.is_empty() {
        environment.config_file()
    } else {
        file
    };
    if file.is_empty() {
        environment.read(&mut raw, &mut notices)?;
    } else {
        raw = file::read(&file, &mut notices)?;
        notices.push(Notice::info(format!(
            "loaded server configuration from {file}; other flags and environment variables are ignored"
        )));
    }
    let config = check::check(&raw, &mut notices)?;
    Ok(Start::Run {
        config: Box::new(config),
        notices,
    })
}

impl Notice {
    fn info(message: impl Into<String>) -> Notice {
        Notice {
            is_warning: false,
            message: message.into(),
        }
    }

    fn warning(message: impl Into<String>) -> Notice {
        Notice {
            is_warning: true,
            message: message.into(),
        }
    }
}

impl Refusal {
    fn new(text: impl Into<String>) -> Refusal {
        Refusal {
            text: text.into(),
            exit_code: 1,
        }
    }

    /// The command line itself is wrong: the usage follows the text.
    fn usage(text: impl Into<String>) -> Refusal {
        Refusal {
            text: format!("{}\n{}", text.into(), flags::USAGE),
            exit_code: 2,
        }
    }
}

#[cfg(test)]
mod sheet_test;
#[cfg(test)]
mod tests;
