//! The stories under `testdata/`: each is a text that tells what members do, gives commands and
//! holds what came of them. A run compares; `PILASTER_RECORD=1 cargo test -p consensus --test
//! scripts` writes the outcomes anew, to be read as a diff.
//!
//! A line that begins with `>` is a command, the lines below it through the next empty line are its
//! outcome, everything else is told and stays as it is. `scripts/commands.rs` says what can be said.

#[path = "scripts/cluster.rs"]
mod cluster;
#[path = "scripts/commands.rs"]
mod commands;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use commands::Script;

fn stories() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("testdata is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    files.sort();
    files
}

/// The story with the outcomes that the commands have now.
fn told_anew(story: &str) -> String {
    let mut script = Script::default();
    let mut out = String::new();
    let mut lines = story.lines().peekable();
    while let Some(line) = lines.next() {
        let _ = writeln!(out, "{line}");
        let Some(command) = line.strip_prefix("> ") else {
            continue;
        };
        while lines
            .next_if(|line| !line.is_empty() && !line.starts_with('>'))
            .is_some()
        {}
        for outcome in script.run(command) {
            let _ = writeln!(out, "{outcome}");
        }
    }
    out
}

#[test]
fn every_story_ends_as_it_is_told() {
    let stories = stories();
    assert!(stories.len() >= 13, "stories are missing: {stories:?}");
    let is_recording = std::env::var_os("PILASTER_RECORD").is_some();
    let mut differing = Vec::new();
    for path in stories {
        let story = std::fs::read_to_string(&path).expect("a story");
        let now = told_anew(&story);
        if is_recording {
            std::fs::write(&path, now).expect("testdata is writable");
        } else if let Some((line, (told, is))) = (1..)
            .zip(story.lines().zip(now.lines()))
            .find(|(_, (told, is))| told != is)
        {
            let name = path.display();
            differing.push(format!("{name}:{line}\n  told: {told}\n  is:   {is}"));
        } else if story != now {
            differing.push(format!("{}: another length", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// An interpreter that says nothing would agree with everything.
#[test]
fn a_wrong_outcome_is_noticed() {
    let story = "> cluster 1 2 3\n\n> campaign 1\nnothing happens\n";
    let now = told_anew(story);
    assert_ne!(now, story);
    assert_eq!(told_anew(&now), now);
}
