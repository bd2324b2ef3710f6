//! Standard output.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
};

use super::{Outcome, Sink, encode::Encoder, took};
use crate::{
    notify::receiver::Failure,
    stream::{config::Framing, store::Numbered},
};

/// Standard output.
pub(super) struct Stdout {
    encoder: Encoder,
    /// A descriptor of its own: the lock of the library's would have everybody wait who writes.
    file: Option<File>,
}

impl Stdout {
    pub(super) fn new(encoder: Encoder) -> Self {
        Self {
            encoder,
            file: None,
        }
    }
}

impl Sink for Stdout {
    fn deliver(&mut self, batch: &[Numbered]) -> Result<Outcome, Failure> {
        let mut bytes = Vec::new();
        for (_, entry) in batch {
            self.encoder.frame(entry, Framing::Ndjson, &mut bytes);
        }
        let failed = |error: io::Error| Failure::later(format!("cannot write to stdout: {error}"));
        let file = match self.file.take() {
            Some(file) => file,
            None => File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?),
        };
        self.file.insert(file).write_all(&bytes).map_err(failed)?;
        Ok(took(batch))
    }
}
