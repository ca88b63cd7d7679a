//! Starting other programs: run to the end, or run and keep what was printed; and the few paths every chore needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A reason fit to print after `cargo xtask: `.
pub(crate) type Done<T = ()> = Result<T, String>;

/// The root of the source tree.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the root").to_path_buf()
}

/// The cargo target folder in use.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => root().join("target"),
    }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command whose output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Done {
    let status = command
        .status()
        .map_err(|error| format!("{}: {error}", name(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{}: {status}", name(command)))
    }
}

/// Runs a command and returns what it printed on standard output; on failure the reason holds all it printed.
pub(crate) fn output(command: &mut Command) -> Done<String> {
    command.stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", name(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{}: {}\n{stdout}{stderr}",
        name(command),
        output.status
    ))
}

/// True when a program of this name can be started.
pub(crate) fn has(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Reads a file; the reason names it.
pub(crate) fn read(file: &Path) -> Done<String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Turns an I/O error into a reason that names the file.
pub(crate) fn at<T>(file: &Path, result: std::io::Result<T>) -> Done<T> {
    result.map_err(|error| format!("{}: {error}", file.display()))
}

/// The command line, for messages.
fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
