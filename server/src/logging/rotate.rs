//! A log file that is put aside when it has become too large.
//!
//! Always true here: a line is in one file, whole; files that were put aside are named as etcd names them, after the moment
//! that it happened, so their order is that of their names; only files of that form are ever removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::line::utc_parts;

/// `--log-rotation-config-json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Rotation {
    /// Megabytes; 0 means 100.
    pub maxsize: u64,
    /// Days that files are kept; 0 keeps them for ever.
    pub maxage: u64,
    /// Files that are kept; 0 keeps all.
    pub maxbackups: usize,
    pub localtime: bool,
    pub compress: bool,
}

impl Rotation {
    fn bytes_max(self) -> u64 {
        let megabytes = if self.maxsize == 0 { 100 } else { self.maxsize };
        megabytes.saturating_mul(1 << 20)
    }
}

/// The file and its size.
pub(super) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
}

impl RotatingFile {
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<RotatingFile> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(RotatingFile {
            path: path.to_owned(),
            rotation,
            file,
            bytes,
        })
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let (stem, ending) = self.name();
        let [year, month, day, hour, minute, second, milli] = utc_parts(now);
        let aside = format!(
            "{stem}-{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{milli:03}{ending}"
        );
        fs::rename(&self.path, self.path.with_file_name(aside))?;
        *self = RotatingFile::open(&self.path, self.rotation)?;
        self.remove_old(now);
        Ok(())
    }

    /// The file's name before and from its last dot.
    fn name(&self) -> (String, String) {
        let name = self.path.file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        match name.rsplit_once('.') {
            Some((stem, ending)) => (stem.to_owned(), format!(".{ending}")),
            None => (name.into_owned(), String::new()),
        }
    }

    /// Removes what is too old or too much. What cannot be removed stays; there will be another try.
    fn remove_old(&self, now: SystemTime) {
        let (stem, ending) = self.name();
        let prefix = format!("{stem}-");
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut aside: Vec<(String, PathBuf)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let time = name.strip_prefix(&prefix)?.strip_suffix(&ending)?;
                is_time(time).then(|| (time.to_owned(), entry.path()))
            })
            .collect();
        aside.sort_unstable_by(|a, b| b.cmp(a));
        let kept = match self.rotation.maxbackups {
            0 => aside.len(),
            count => count,
        };
        let age = Duration::from_secs(self.rotation.maxage.saturating_mul(24 * 3600));
        let oldest = now.checked_sub(age).filter(|_| !age.is_zero());
        for (place, (_, path)) in aside.iter().enumerate() {
            let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
            let is_old = oldest.is_some_and(|oldest| changed.is_ok_and(|at| at < oldest));
            if place >= kept || is_old {
                let _stays = fs::remove_file(path);
            }
        }
    }
}

/// `2026-01-02T03-04-05.678`.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00-00-00.000";
    let fits = |(byte, form): (u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == *form,
    };
    text.len() == FORM.len() && text.bytes().zip(FORM).all(fits)
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bytes = line.len() as u64;
        if self.bytes > 0 && self.bytes + bytes > self.rotation.bytes_max() {
            self.rotate(SystemTime::now())?;
        }
        self.file.write_all(line)?;
        self.bytes += bytes;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("member.log");
        fs::write(dir.path().join("member-notes.log"), "not ours").unwrap();
        let rotation = Rotation {
            maxsize: 1,
            maxbackups: 2,
            ..Rotation::default()
        };
        let mut file = RotatingFile::open(&path, rotation).unwrap();
        let half = vec![b'x'; 1 << 19];
        for _ in 0..3 {
            file.write_all(&half).unwrap();
        }
        let mut now = SystemTime::UNIX_EPOCH;
        for _ in 0..4 {
            file.write_all(b"a line\n").unwrap();
            now += Duration::from_secs(1);
            file.rotate(now).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        // The one of today is the newest by its name.
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(
            names.contains(&"member-1970-01-01T00-00-04.000.log".to_owned()),
            "{names:?}"
        );
        assert!(names.contains(&"member-notes.log".to_owned()));
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
