//! Logs and tree files on a real disk, as starts, crashes, restores and mistakes put them together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use storage::mvcc::{self, Applied, Store};
use storage::tree::{Snapshot, Tree, TreeFiles, TreeOptions, WriteBatch};
use storage::wal;

use super::find::{Found, find};
use super::fit::{Fit, Misfit};
use super::metadata::Metadata;
use super::open::{StartError, commit_now};
use crate::config::{self, Config, DataDir, Start};

/// Small segments: each test makes a few.
fn options() -> wal::Options {
    wal::Options {
        segment_bytes: 256 << 10,
        group_bytes: 8 << 10,
        entry_bytes_max: 16 << 10,
        pending_bytes_max: 256 << 10,
        ..wal::Options::default()
    }
}

/// A member's directories.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            home: tempfile::tempdir().expect("a scratch directory"),
        }
    }

    fn config(&self) -> Config {
        let args = ["--data-dir", self.home.path().to_str().expect("plain text")];
        match config::start(args.map(Into::into), []) {
            Start::Run { config, .. } => *config,
            other => panic!("{other:?}"),
        }
    }

    fn dir(&self) -> DataDir {
        let config = self.config();
        let dir = DataDir::inspect(&config.data_dir, &config.wal_dir, &mut Vec::new());
        let dir = dir.expect("nothing foreign");
        dir.create().expect("a scratch directory is writable");
        dir
    }

    fn wal(&self) -> PathBuf {
        self.home.path().join("member/wal")
    }

    fn snap(&self) -> PathBuf {
        self.home.path().join("member/snap")
    }

    fn find(&self) -> Result<Found, StartError> {
        find(&self.config(), &self.dir(), &options())
    }

    /// Why a start is refused, and that it left every file as it was.
    #[track_caller]
    fn refused(&self) -> StartError {
        self.dir();
        let before = self.files();
        let error = self.find().map(|_| ()).expect_err("they do not fit");
        assert_eq!(self.files(), before, "a refusal changed something");
        error
    }

    #[track_caller]
    fn misfit(&self) -> Misfit {
        match self.refused() {
            StartError::Misfit { why, wal, tree } => {
                assert_eq!(wal, self.wal().display().to_string());
                assert_eq!(tree, self.snap().join("db").display().to_string());
                why
            }
            other => panic!("{other}"),
        }
    }

    /// A life of the member: takes `entries`, applies those up to `applied`, and dies.
    #[track_caller]
    fn live(&self, entries: &[(u64, u64)], applied: (u64, u64)) -> Fit {
        let found = self.find().expect("they fit");
        let fit = found.fit;
        let (mut tree, snapshot, _) = found.tree.open().expect("sound");
        let mut store = open_store(snapshot);
        let (mut log, _) = found.log.open().expect("sound");
        store.set_log(found.metadata.log.map(|log| log.id));
        store.set_applied(found.applied);
        if fit == Fit::New {
            commit_now(&mut tree, &mut store).expect("room");
        }
        for (index, term) in entries {
            let (term, index) = (wal::Term(*term), wal::LogIndex(*index));
            log.append_entry(term, index, 0, b"x").expect("room");
        }
        log.close(|| 0).expect("a sound disk");
        store.set_applied(Applied {
            index: applied.0,
            term: applied.1,
        });
        commit_now(&mut tree, &mut store).expect("room");
        fit
    }

    fn move_log_from(&self, other: &Place) {
        fs::remove_dir_all(self.wal()).expect("there");
        copy(&other.wal(), &self.wal());
    }

    fn remove_log(&self) {
        for name in fs::read_dir(self.wal()).expect("there") {
            fs::remove_file(name.expect("readable").path()).expect("ours");
        }
    }

    /// What another program's transaction leaves: other records in `meta`, and a newest root without our mark.
    fn change_tree(&self, records: &[(&str, Option<&[u8]>)]) {
        let files = TreeFiles::open(&self.snap()).expect("there");
        let (mut tree, ..) = Tree::open(files, TreeOptions::default()).expect("sound");
        let mut batch = WriteBatch::new();
        for (key, value) in records {
            match value {
                Some(value) => batch.put(b"meta", key.as_bytes(), value),
                None => batch.delete(b"meta", key.as_bytes()),
            }
        }
        tree.commit(&batch).expect("room");
        drop(tree);
        fs::remove_file(self.snap().join("db.sum")).expect("there");
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in [self.wal(), self.snap()] {
            for entry in fs::read_dir(folder).expect("there") {
                let path = entry.expect("readable").path();
                let bytes = fs::read(&path).expect("readable");
                files.insert(path, bytes);
            }
        }
        files
    }
}

fn open_store(snapshot: Snapshot) -> Store<Snapshot> {
    Store::open(snapshot, mvcc::Options::default())
        .expect("sound")
        .0
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("there") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("room");
    }
}

const ONE: [u8; 8] = 1u64.to_be_bytes();

#[test]
fn a_member_finds_its_own_log_again() {
    let place = Place::new();
    assert_eq!(place.live(&[(2, 2), (3, 2), (4, 2)], (3, 2)), Fit::New);
    let found = place.find().expect("they fit");
    assert_eq!(found.fit, Fit::Known);
    assert!(!found.is_founding);
    let indices: Vec<u64> = found.log.entries().iter().map(|e| e.index.0).collect();
    assert_eq!(indices, [3, 4]);
    drop(found);
    assert_eq!(place.live(&[(5, 3)], (5, 3)), Fit::Known);
    place.find().expect("and again");
}

#[test]
fn a_start_that_was_cut_short_before_the_first_commit_is_made_again() {
    let place = Place::new();
    for _ in 0..3 {
        let found = place.find().expect("new");
        assert_eq!(found.fit, Fit::New);
        assert!(found.is_founding);
    }
    assert_eq!(place.live(&[(2, 2)], (2, 2)), Fit::New);
    // The same for a tree that was adopted.
    place.change_tree(&[("consistent_index", Some(&9u64.to_be_bytes()))]);
    place.remove_log();
    for _ in 0..3 {
        let found = place.find().expect("adopted");
        assert_eq!((found.fit, found.applied.index), (Fit::New, 9));
    }
    assert_eq!(place.live(&[(10, 2)], (10, 2)), Fit::New);
    assert_eq!(place.find().expect("known").fit, Fit::Known);
}

#[test]
fn another_members_log_is_refused() {
    let (one, two) = (Place::new(), Place::new());
    for place in [&one, &two] {
        place.live(&[(2, 2), (3, 2), (4, 2)], (3, 2));
    }
    let kept = Place::new();
    copy(&one.wal(), &kept.wal());
    one.move_log_from(&two);
    assert!(matches!(one.misfit(), Misfit::OtherLog { .. }));
    one.move_log_from(&kept);
    assert_eq!(one.find().expect("its own again").fit, Fit::Known);
}

#[test]
fn a_log_that_is_gone_is_missed_unless_the_tree_is_taken_as_a_backup() {
    let place = Place::new();
    place.live(&[(2, 2), (3, 2)], (2, 2));
    place.remove_log();
    let error = place.refused();
    assert!(matches!(error, StartError::LogMissing { .. }), "{error}");
    let text = error.to_string();
    for wanted in [place.wal().display().to_string(), "db.sum".into()] {
        assert!(text.contains(&wanted), "{text}");
    }
    fs::remove_file(place.snap().join("db.sum")).expect("there");
    assert_eq!(place.live(&[(3, 3)], (3, 3)), Fit::New);
    assert_eq!(place.find().expect("known").fit, Fit::Known);
}

#[test]
fn a_tree_that_was_restored_in_place_does_not_go_on_with_the_old_log() {
    let place = Place::new();
    place.live(&[(2, 2), (3, 2), (4, 2)], (4, 2));
    // As `etcdutl snapshot restore` leaves it: at the founders' position, our record carried along.
    let meta = [("consistent_index", Some(&ONE[..])), ("term", Some(&ONE))];
    place.change_tree(&meta);
    assert_eq!(place.misfit(), Misfit::Changed);
    // From a file of etcd, which never had our record.
    place.change_tree(&[("pilasterLog", None)]);
    assert_eq!(place.misfit(), Misfit::Unnamed { last_index: 4 });
    place.remove_log();
    assert_eq!(place.live(&[(2, 2)], (2, 2)), Fit::New);
}

#[test]
fn a_backup_of_the_same_member_goes_on_with_its_log() {
    let place = Place::new();
    place.live(&[(2, 2), (3, 2)], (2, 2));
    let backup = fs::read(place.snap().join("db")).expect("there");
    place.live(&[(4, 2)], (4, 2));
    fs::write(place.snap().join("db"), backup).expect("ours");
    let found = place.find().expect("the log holds the rest");
    assert_eq!((found.fit, found.applied.index), (Fit::Known, 2));
    assert_eq!(found.log.last_index().0, 4);
}

#[test]
fn an_older_copy_of_the_log_is_refused() {
    let place = Place::new();
    place.live(&[(2, 2)], (2, 2));
    let older = Place::new();
    copy(&place.wal(), &older.wal());
    place.live(&[(3, 2)], (3, 2));
    place.move_log_from(&older);
    let error = place.refused();
    let is_short = matches!(error, StartError::Log(wal::OpenError::EndsTooEarly { .. }));
    assert!(is_short, "{error}");
}

#[test]
fn a_lost_tree_is_made_again_from_a_whole_log_only() {
    let place = Place::new();
    place.live(&[(2, 2), (3, 2)], (3, 2));
    for name in ["db", "db.sum"] {
        fs::remove_file(place.snap().join(name)).expect("there");
    }
    let found = place.find().expect("the log holds everything");
    assert_eq!((found.fit, found.log.entries().len()), (Fit::New, 2));
    drop(found);

    let adopted = Place::new();
    adopted.live(&[], (1, 1));
    let meta = [("consistent_index", Some(&ONE[..])), ("term", Some(&ONE))];
    adopted.change_tree(&meta);
    adopted.remove_log();
    adopted.live(&[(2, 2)], (2, 2));
    for name in ["db", "db.sum"] {
        fs::remove_file(adopted.snap().join(name)).expect("there");
    }
    let refused = adopted.refused();
    assert!(
        matches!(refused, StartError::TreeMissing { .. }),
        "{refused}"
    );
    assert!(!adopted.snap().join("db").exists(), "nothing is made");
}

/// A release before the ids wrote neither; position alone decides, and refuses what used to end in a panic.
#[test]
fn files_without_ids_go_by_position() {
    let place = Place::new();
    place.dir();
    let old = Metadata {
        member_id: 7,
        cluster_id: 8,
        log: None,
    };
    let mark = wal::SnapshotMark {
        index: wal::LogIndex(1),
        term: wal::Term(1),
        kind: wal::MarkKind::Install,
        data: Default::default(),
    };
    let folder = wal::open_folder(&place.wal()).expect("there");
    wal::create_behind(&*folder, &options(), &old.encode(), 3, mark).expect("room");
    assert_eq!(place.live(&[(2, 2), (3, 2), (4, 2)], (3, 2)), Fit::Known);
    assert_eq!(place.live(&[(5, 2)], (4, 2)), Fit::Known);
    let text = place.find().expect("known").metadata;
    assert_eq!(text, old);
    // A tree of another member, further in its terms.
    let term = 7u64.to_be_bytes();
    place.change_tree(&[("term", Some(&term))]);
    let other_term = Misfit::OtherTerm {
        index: 4,
        in_log: 2,
        in_tree: 7,
    };
    assert_eq!(place.misfit(), other_term);
}
