//! The queue on disk: a folder for each receiver, a file for each alert that waits.
//!
//! A file is written under another name, synchronised and only then given its own: what has a
//! name is whole. Its first line holds a checksum all the same, since disks and people damage files.
//!
//! | name | holds |
//! |---|---|
//! | `NUMBER.alert` | one alert; smaller numbers came first |
//! | `NUMBER.new` | one that is being written, or was when turnaway was killed |

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::alert::Alert;

/// The first line begins so; the number is the layout's version.
const MAGIC: &str = "turnaway-alert/1";
/// Bytes of a file at most: no alert is nearly as large.
const MAX: u64 = 1024 * 1024;
const DONE: &str = "alert";
const NEW: &str = "new";

/// What a folder held.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Alerts by number, oldest first.
    pub(super) alerts: Vec<(u64, Alert)>,
    /// Files that could not be understood, and were removed, or not be read.
    pub(super) damaged: u64,
}

impl Found {
    fn take(&mut self, path: &Path) {
        match read(path) {
            Ok(Some(alert)) => self.alerts.push(alert),
            Ok(None) => {
                self.damaged += 1;
                let _ = fs::remove_file(path);
            }
            // It may be whole, and costs no other.
            Err(error) => {
                self.damaged += 1;
                log::warn!("cannot read {}: {error}", path.display());
            }
        }
    }
}

/// The folder of one receiver.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    dir: PathBuf,
}

impl Spool {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Reads all there is, and tidies up.
    pub(super) fn load(&self) -> io::Result<Found> {
        let mut found = Found::default();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(NEW) => drop(fs::remove_file(&path)),
                Some(DONE) => found.take(&path),
                _ => {}
            }
        }
        found.alerts.sort_unstable_by_key(|(number, _)| *number);
        Ok(found)
    }

    /// Writes alerts, oldest first, until one cannot be written. How many were, and why no more.
    pub(super) fn write<'a>(
        &self,
        alerts: impl IntoIterator<Item = (u64, &'a Alert)>,
    ) -> (usize, Option<io::Error>) {
        let mut written = 0;
        let result = self.make().and_then(|()| {
            for (number, alert) in alerts {
                self.write_one(number, alert)?;
                written += 1;
            }
            Ok(())
        });
        // Names are in the folder, which has to reach the disk too.
        let synced = match (written, &result) {
            (0, _) => Ok(()),
            _ => self.sync(),
        };
        match (result, synced) {
            (result, Ok(())) => (written, result.err()),
            (_, Err(error)) => (0, Some(error)),
        }
    }

    /// Removes alerts; those that could not be are returned.
    pub(super) fn remove(&self, numbers: &[u64]) -> (Vec<u64>, Option<io::Error>) {
        let (mut left, mut why) = (Vec::new(), None);
        for number in numbers {
            match fs::remove_file(self.path(*number, DONE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    left.push(*number);
                    why = Some(error);
                }
                _ => {}
            }
        }
        (left, why)
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn write_one(&self, number: u64, alert: &Alert) -> io::Result<()> {
        let new = self.path(number, NEW);
        let result =
            write_file(&new, alert).and_then(|()| fs::rename(&new, self.path(number, DONE)));
        if result.is_err() {
            let _ = fs::remove_file(&new);
        }
        result
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        // As many digits as any number has, so that names sort as numbers do.
        self.dir.join(format!("{number:020}.{extension}"))
    }
}

fn write_file(path: &Path, alert: &Alert) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // Nobody but root is to read who talks to whom, nor to point the name elsewhere.
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    file.write_all(&encode(alert)?)?;
    file.sync_all()
}

/// The alert with the number in the file's name; none if it is damaged.
fn read(path: &Path) -> io::Result<Option<(u64, Alert)>> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let Some(number) = stem.and_then(|stem| stem.parse().ok()) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    file.take(MAX).read_to_end(&mut bytes)?;
    Ok(decode(&bytes).map(|alert| (number, alert)))
}

fn encode(alert: &Alert) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(alert)?;
    let sum = crc32fast::hash(&body);
    let mut bytes = format!("{MAGIC} {sum:08x} {}\n", body.len()).into_bytes();
    bytes.extend(body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Alert> {
    let end = memchr::memchr(b'\n', bytes)?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 1..];
    let mut words = head.split(' ');
    let is_ours = words.next()? == MAGIC;
    let sum = u32::from_str_radix(words.next()?, 16).ok()?;
    let length: usize = words.next()?.parse().ok()?;
    if !is_ours || body.len() != length || crc32fast::hash(body) != sum {
        return None;
    }
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{Spool, decode, encode};
    use crate::{alert::Status, notify::sample};

    fn ids(spool: &Spool) -> Vec<(u64, String)> {
        let found = spool.load().unwrap();
        found
            .alerts
            .into_iter()
            .map(|(number, alert)| (number, alert.id))
            .collect()
    }

    #[test]
    fn what_is_written_is_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(dir.path().join("a/b"));
        assert!(ids(&spool).is_empty());
        let alerts: Vec<_> = (0..12)
            .map(|index| sample(&index.to_string(), Status::Firing))
            .collect();
        let (written, error) = spool.write((9..).zip(&alerts));
        assert_eq!(written, 12, "{error:?}");
        let found = spool.load().unwrap();
        assert_eq!(found.alerts.len(), 12);
        for (index, (number, alert)) in found.alerts.iter().enumerate() {
            assert_eq!(*number, index as u64 + 9);
            assert_eq!(alert, &alerts[index]);
        }
        for (path, mode) in [("a/b", 0o700), ("a/b/00000000000000000009.alert", 0o600)] {
            let permissions = fs::metadata(dir.path().join(path)).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode);
        }
        assert!(spool.remove(&[9, 20, 21]).0.is_empty());
        assert_eq!(ids(&spool).len(), 10);
    }

    #[test]
    fn a_file_cut_or_changed_anywhere_is_known_and_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(dir.path().to_owned());
        let alert = sample("a", Status::Firing);
        let bytes = encode(&alert).unwrap();
        assert_eq!(decode(&bytes).as_ref(), Some(&alert));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "cut at {cut}");
            let mut changed = bytes.clone();
            changed[cut] ^= 1;
            assert_eq!(decode(&changed), None, "changed at {cut}");
        }
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let last = sample("last", Status::Firing);
            assert_eq!(spool.write([(1, &alert), (2, &last)]).0, 2);
            let path = dir.path().join("00000000000000000002.alert");
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..cut]).unwrap();
            let found = spool.load().unwrap();
            assert_eq!(found.damaged, 1);
            assert_eq!(found.alerts, [(1, alert.clone())]);
            assert_eq!(spool.load().unwrap().damaged, 0);
        }
    }

    #[test]
    fn what_was_never_finished_is_tidied_up() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(dir.path().to_owned());
        let new = dir.path().join("00000000000000000003.new");
        fs::write(&new, "turnaway-alert/1 00").unwrap();
        fs::write(dir.path().join("other"), "not ours").unwrap();
        let found = spool.load().unwrap();
        assert_eq!((found.alerts.len(), found.damaged), (0, 0));
        assert!(!new.exists());
        assert!(dir.path().join("other").exists());
        // A number that was left half written can be written again.
        fs::write(&new, "half").unwrap();
        assert_eq!(spool.write([(3, &sample("a", Status::Firing))]).0, 1);
    }
}
