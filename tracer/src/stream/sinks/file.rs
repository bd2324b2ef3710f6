//! A file that is rotated.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{Outcome, Sink, encode::Encoder};
use crate::{
    notify::receiver::Failure,
    rotating::Rotating,
    stream::{
        config::{FileTarget, Framing, Fsync},
        store::Numbered,
    },
};

/// The disk itself is asked to keep it so often.
const SYNC: Duration = Duration::from_secs(1);

/// A file.
pub(super) struct File {
    of: FileTarget,
    encoder: Encoder,
    open: Option<Rotating>,
    /// When the file began.
    began: Instant,
    /// What was written since this is not yet sure to be on disk.
    dirty: Option<Instant>,
}

impl File {
    pub(super) fn new(of: FileTarget, encoder: Encoder) -> Self {
        Self {
            of,
            encoder,
            open: None,
            began: Instant::now(),
            dirty: None,
        }
    }

    fn write(&mut self, batch: &[Numbered]) -> io::Result<usize> {
        let now = Instant::now();
        let open = if let Some(open) = self.open.take() {
            open
        } else {
            self.began = now;
            Rotating::open(&self.of.path, self.of.keep)?
        };
        let file = self.open.insert(open);
        let is_old = self
            .of
            .every
            .is_some_and(|every| now.saturating_duration_since(self.began) >= every);
        if file.len() >= self.of.size || is_old && file.len() > 0 {
            if self.of.fsync != Fsync::Never && self.dirty.is_some() {
                file.sync()?;
            }
            file.next()?;
            self.began = now;
        }
        let left = self.of.size.saturating_sub(file.len());
        let (mut piece, mut count) = (Vec::new(), 0);
        for (_, entry) in batch {
            let whole = piece.len();
            self.encoder.frame(entry, Framing::Ndjson, &mut piece);
            if count > 0 && piece.len() as u64 > left {
                piece.truncate(whole);
                break;
            }
            count += 1;
        }
        file.append(&piece)?;
        match self.of.fsync {
            Fsync::Never => {}
            Fsync::Second => self.dirty = self.dirty.or(Some(now)),
            Fsync::Always => file.sync()?,
        }
        Ok(count)
    }
}

impl Sink for File {
    fn deliver(&mut self, batch: &[Numbered]) -> Result<Outcome, Failure> {
        match self.write(batch) {
            Ok(records) => Ok(Outcome::Took {
                records,
                refused: 0,
            }),
            Err(error) => {
                // Its folder may be another by now.
                self.open = None;
                Err(Failure::later(format!("cannot write: {error}")))
            }
        }
    }

    fn arrived(&mut self) -> Result<Option<u64>, Failure> {
        if let (Some(since), Some(file)) = (self.dirty, &self.open)
            && since.elapsed() >= SYNC
        {
            self.dirty = None;
            if let Err(error) = file.sync() {
                log::warn!("{}: {error}", self.of.path.display());
            }
        }
        Ok(None)
    }

    fn reopen(&mut self) {
        self.open = None;
    }

    fn due(&self) -> Option<Instant> {
        self.open.as_ref()?;
        Some(self.dirty? + SYNC)
    }
}
