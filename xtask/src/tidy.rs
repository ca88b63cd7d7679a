//! Rules about the tree that no compiler checks. Each finding is one line with file and line number.
//!
//! - every Rust file opens with `//!`; a Go file opens with a comment;
//! - no unfinished marks, left-over debugging or machine-bound paths;
//! - every dependency of the workspace carries its sentence;
//! - no stray files: only kinds of file the project knows are under version control.
//!
//! Looks at the files git knows. Judges text, not meaning.

use std::path::Path;
use std::process::Command;

use crate::shell::{Done, output, read, root};

/// What a file under version control may end in; names without a dot are listed whole.
const KINDS: &[&str] = &[
    "rs",
    "toml",
    "lock",
    "md",
    "txt",
    "go",
    "mod",
    "sum",
    "proto",
    "pem",
    "service",
    "svg",
    "json",
    "hex",
    "bin",
    "db",
    "conf",
    "yaml",
    "yml",
    "golden",
    "proptest-regressions",
    "sh",
    "csv",
];
const NAMES: &[&str] = &[
    ".gitignore",
    ".gitattributes",
    ".editorconfig",
    ".mailmap",
    "LICENSE",
    "NOTICE",
    ".ci/run",
];

pub(crate) fn run() -> Done {
    let list = output(
        Command::new("git")
            .current_dir(root())
            .args(["ls-files", "-z"]),
    )?;
    let files: Vec<&str> = list.split('\0').filter(|file| !file.is_empty()).collect();
    let mut findings = Vec::new();
    for file in &files {
        check_kind(file, &mut findings);
        if !root().join(file).is_file() || !is_text(file) {
            continue;
        }
        let text = read(&root().join(file))?;
        check_opening(file, &text, &mut findings);
        check_words(file, &text, &mut findings);
    }
    check_dependencies(&read(&root().join("Cargo.toml"))?, &mut findings);
    println!("tidy: {} files, {} findings", files.len(), findings.len());
    if findings.is_empty() {
        Ok(())
    } else {
        Err(format!("tidy\n  {}", findings.join("\n  ")))
    }
}

fn extension(file: &str) -> &str {
    Path::new(file)
        .extension()
        .and_then(|end| end.to_str())
        .unwrap_or_default()
}

fn is_text(file: &str) -> bool {
    matches!(
        extension(file),
        "rs" | "toml" | "go" | "md" | "proto" | "sh"
    ) || file == ".ci/run"
}

fn check_kind(file: &str, findings: &mut Vec<String>) {
    let name = Path::new(file)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !KINDS.contains(&extension(file)) && !NAMES.contains(&name) && !NAMES.contains(&file) {
        findings.push(format!(
            "{file}: a kind of file the project does not keep; if it should, name it in tidy.rs"
        ));
    }
}

fn check_opening(file: &str, text: &str, findings: &mut Vec<String>) {
    let opening = match extension(file) {
        "rs" => "//!",
        "go" => "// ",
        _ => return,
    };
    if !text.starts_with(opening) {
        findings.push(format!("{file}:1: opens without `{opening}`; say what the file is, what holds in it, who calls it"));
    }
}

/// Words that must not be merged. Written in halves here, so that this file does not accuse itself.
fn check_words(file: &str, text: &str, findings: &mut Vec<String>) {
    let banned = [
        (
            concat!("FIX", "ME"),
            "finish it or say in a plain sentence when it starts to matter",
        ),
        (concat!("XX", "X:"), "say what is meant"),
        (concat!("dbg", "!("), "left-over debugging"),
        (
            concat!("#[ign", "ore"),
            "a test that does not run proves nothing",
        ),
        (concat!("/ho", "me/"), "a path of one machine"),
        (concat!("/ro", "ot/"), "a path of one machine"),
        (concat!("<<<<", "<<<"), "a merge left half done"),
    ];
    for (number, line) in text.lines().enumerate() {
        for (word, why) in banned {
            if line.contains(word) {
                findings.push(format!("{file}:{}: `{word}`: {why}", number + 1));
            }
        }
    }
}

/// In the root manifest each dependency that is not one of our folders stands under a comment.
fn check_dependencies(manifest: &str, findings: &mut Vec<String>) {
    let mut inside = false;
    let mut above = "";
    for (number, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        } else if inside
            && line.contains('=')
            && !line.contains("path =")
            && !above.starts_with('#')
        {
            findings.push(format!(
                "Cargo.toml:{}: no sentence above the dependency: {line}",
                number + 1
            ));
        }
        above = line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(check: impl Fn(&mut Vec<String>)) -> usize {
        let mut findings = Vec::new();
        check(&mut findings);
        findings.len()
    }

    #[test]
    fn each_rule_finds_its_breach_and_nothing_else() {
        assert_eq!(
            findings(|out| check_opening("a.rs", "fn main() {}", out)),
            1
        );
        assert_eq!(
            findings(|out| check_opening("a.rs", "//! What this is.", out)),
            0
        );
        assert_eq!(findings(|out| check_kind("a.orig", out)), 1);
        assert_eq!(findings(|out| check_kind(".ci/run", out)), 0);
        assert_eq!(
            findings(|out| check_words("a.rs", concat!("let a = dbg", "!(1);"), out)),
            1
        );
        assert_eq!(findings(|out| check_words("a.rs", "let a = 1;", out)), 0);
        let bare = "[workspace.dependencies]\nwire = { path = \"wire\" }\nbytes = \"1\"\n";
        assert_eq!(findings(|out| check_dependencies(bare, out)), 1);
        let good = "[workspace.dependencies]\n# Slices.\nbytes = \"1\"\n[other]\nx = 1\n";
        assert_eq!(findings(|out| check_dependencies(good, out)), 0);
    }
}
