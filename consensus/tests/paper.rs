//! One test a claim of "In Search of an Understandable Consensus Algorithm" (the extended paper)
//! and of Ongaro's thesis, as far as the core rests on it. The section stands in the test's name:
//! `s` of the paper, `t` of the thesis.

#[path = "paper/disk.rs"]
mod disk;
#[path = "paper/elections.rs"]
mod elections;
#[path = "paper/membership.rs"]
mod membership;
#[path = "paper/node.rs"]
mod node;
#[path = "paper/reads.rs"]
mod reads;
#[path = "paper/replication.rs"]
mod replication;
#[path = "paper/snapshots.rs"]
mod snapshots;

use std::collections::BTreeSet;

/// The names of the tests of claims: `s5_1_...`, `t6_4_...`.
fn names(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_word(c))
        .filter(|word| {
            let mut letters = word.chars();
            matches!(letters.next(), Some('s' | 't'))
                && letters.next().is_some_and(|c| c.is_ascii_digit())
                && word.contains('_')
        })
        .map(str::to_owned)
        .collect()
}

/// `docs/consensus-proof.md` lists every claim with its test, and no test that is not there.
#[test]
fn the_list_of_claims_is_complete() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect(file);
    let listed = names(&read("../docs/consensus-proof.md"));
    let mut tests = BTreeSet::new();
    for room in [
        "disk",
        "elections",
        "membership",
        "reads",
        "replication",
        "snapshots",
    ] {
        let text = read(&format!("tests/paper/{room}.rs"));
        let mut is_test = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn ").filter(|_| is_test) {
                tests.extend(names(name));
            }
            is_test = line == "#[test]";
        }
    }
    assert!(tests.len() > 60, "{tests:?}");
    let missing: Vec<_> = tests.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "in one of the two only: {missing:?}");
}
