//! Who we are: the text of `--version` and the version numbers others read.
//!
//! Always true here: the first line is the etcd version this server is compatible with, in etcd's own
//! form, because scripts parse it; the other lines are ours and true.

use std::env::consts::{ARCH, OS};

use crate::version::COMPATIBLE_VERSION;

const PILASTER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit this was built from, when the build was told (`PILASTER_GIT_SHA`).
const GIT_SHA: &str = match option_env!("PILASTER_GIT_SHA") {
    Some(sha) => sha,
    None => "Not provided",
};

/// The oldest compiler this builds with; the exact one is pinned in `rust-toolchain.toml`.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

pub fn version_text() -> String {
    format!(
        "etcd Version: {COMPATIBLE_VERSION}\n\
         Pilaster Version: {PILASTER_VERSION}\n\
         Git SHA: {GIT_SHA}\n\
         Rust Version: {RUST_VERSION}\n\
         OS/Arch: {OS}/{}\n",
        go_arch()
    )
}

/// The architecture's name as Go, and so most tools around etcd, write it.
fn go_arch() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_what_scripts_parse() {
        assert!(version_text().starts_with("etcd Version: 3.7.1\nPilaster Version: "));
    }
}
