//! What the running daemon sees, over its control socket: no hooks of its own.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Link, Options, Update,
    batch::Batch,
    sample::{RowId, Sample},
    screen,
};
use crate::{
    control::{self, Answer, Request},
    privileges::{self, Duty},
};

/// Between two questions.
const BETWEEN: Duration = Duration::from_secs(1);
/// The end is noticed within.
const GLANCE: Duration = Duration::from_millis(100);
/// Samples that may wait for a terminal.
const WAITING: usize = 4;

pub(super) fn run(options: &Options, socket: &Path) -> Result<()> {
    // Whether there is a daemon is said before the screen is taken.
    let first = ask(socket, None)?;
    match options.tables {
        Some(tables) => print(options, socket, tables, first),
        None => show(options, socket, first),
    }
}

fn ask(socket: &Path, detail: Option<RowId>) -> Result<Sample> {
    match control::ask(socket, &Request::Top { detail })? {
        Answer::Top(sample) => Ok(*sample),
        other => bail!("the daemon answered something else: {other:?}; is it another version?"),
    }
}

fn print(options: &Options, socket: &Path, tables: Option<u64>, first: Sample) -> Result<()> {
    let mut batch = Batch::new(options, tables);
    let mut text = batch.take(first);
    loop {
        if let Some(text) = text {
            let mut stdout = io::stdout().lock();
            match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                other => other.context("cannot write to stdout")?,
            }
        }
        if batch.is_over() {
            return Ok(());
        }
        thread::sleep(BETWEEN);
        text = batch.take(ask(socket, None)?);
    }
}

fn show(options: &Options, socket: &Path, first: Sample) -> Result<()> {
    let link = Arc::new(Link::default());
    let (samples, updates) = mpsc::sync_channel(WAITING);
    let _ = samples.try_send(Update::Sample(Box::new(first)));
    let (asker, path) = (Arc::clone(&link), socket.to_owned());
    thread::Builder::new()
        .name("turnaway-ask".to_owned())
        .spawn(move || {
            privileges::keep(Duty::Serve);
            let mut asked = Instant::now();
            let mut detail = None;
            while !asker.is_done() {
                thread::sleep(GLANCE);
                let wanted = asker.wanted();
                // Who wants to know more does not wait for the next second.
                if asked.elapsed() < BETWEEN && wanted == detail {
                    continue;
                }
                asked = Instant::now();
                detail.clone_from(&wanted);
                let update = match ask(&path, wanted) {
                    Ok(sample) => Update::Sample(Box::new(sample)),
                    // It may come back.
                    Err(error) => Update::Silent(format!("{error:#}")),
                };
                // A slow screen misses some.
                let _ = samples.try_send(update);
            }
        })
        .context("cannot start a thread to ask the daemon")?;
    screen::guard();
    screen::run(options, &link, &updates)
}
