//! A file that is appended to and makes room for the next when it is full: FILE becomes FILE.1, what was
//! FILE.1 becomes FILE.2, and so on.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The file that is written to, and those before it.
#[derive(Debug)]
pub(crate) struct Rotating {
    path: PathBuf,
    keep: u32,
    file: File,
    /// Up to where there are whole lines.
    good: u64,
}

impl Rotating {
    /// Opens it behind what is in it. So many full ones are kept.
    pub(crate) fn open(path: &Path, keep: u32) -> io::Result<Self> {
        let file = open(path)?;
        let good = file.metadata()?.len();
        let mut rotating = Self {
            path: path.to_owned(),
            keep,
            file,
            good,
        };
        rotating.end_line()?;
        Ok(rotating)
    }

    #[cfg(test)]
    pub(crate) fn of(file: File) -> Self {
        Self {
            path: PathBuf::new(),
            keep: 1,
            file,
            good: 0,
        }
    }

    /// Bytes in the file.
    pub(crate) fn len(&self) -> u64 {
        self.good
    }

    /// A writer that was killed may have left half a line, which would spoil the next.
    fn end_line(&mut self) -> io::Result<()> {
        let mut last = [b'\n'];
        if self.good > 0 {
            self.file.read_exact_at(&mut last, self.good - 1)?;
        }
        self.file.seek(SeekFrom::Start(self.good))?;
        if last != [b'\n'] {
            self.file.write_all(b"\n")?;
            self.good += 1;
        }
        Ok(())
    }

    /// All of it or nothing.
    pub(crate) fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(piece);
        if written.is_err() {
            // A full disk takes a part. What cannot be taken back is a broken line, which is counted
            // by whoever reads it.
            let _ = self.file.set_len(self.good);
            let _ = self.file.seek(SeekFrom::Start(self.good));
        } else {
            self.good += piece.len() as u64;
        }
        written
    }

    /// Begins the next file.
    pub(crate) fn next(&mut self) -> io::Result<()> {
        for number in (1..=self.keep).rev() {
            let from = match number {
                1 => self.path.clone(),
                _ => numbered(&self.path, number - 1),
            };
            match fs::rename(&from, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        }
        self.file = open(&self.path)?;
        self.good = self.file.metadata()?.len();
        Ok(())
    }

    /// Has the disk itself keep it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

/// What a file is called when so many newer ones have come.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
