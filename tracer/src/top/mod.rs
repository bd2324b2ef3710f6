//! `turnaway top`: listeners and their owners, live.
//!
//! A sample is taken once a second, live (`collect.rs`) or by the daemon (`attach.rs`); the model makes rates
//! of them; the views are made of that. What touches the terminal is in [`screen`], in a thread of its
//! own: capture does not wait for a slow terminal.

mod attach;
mod batch;
mod collect;
mod finder;
pub mod input;
mod live;
pub mod model;
pub mod sample;
pub mod screen;
pub mod ui;
pub mod view;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::sync::Notify;

pub(crate) use collect::Collector;
pub(crate) use live::incidents;
pub use model::Sort;

use crate::{filter::Filter, trace};
use sample::{RowId, Sample};

/// How `top` runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is traced.
    pub trace: trace::Options,
    /// What is shown.
    pub filter: Filter,
    /// How often the screen is drawn, or a table printed.
    pub delay: Duration,
    /// Tables are printed: so many, or without an end. `None` is a screen.
    pub tables: Option<Option<u64>>,
    /// How rows are sorted.
    pub sort: Sort,
    /// The other way around.
    pub reverse: bool,
    /// Only what fails or stalls.
    pub only_failing: bool,
    /// The mouse is used.
    pub mouse: bool,
    /// The daemon's socket, if its data is shown.
    pub attach: Option<PathBuf>,
}

/// Runs until it is told to stop.
pub fn run(options: &Options) -> Result<()> {
    match &options.attach {
        Some(socket) => attach::run(options, socket),
        None => live::run(options),
    }
}

/// What the screen is told.
#[derive(Debug)]
enum Update {
    /// How it is.
    Sample(Box<Sample>),
    /// Why there is no sample, in words.
    Silent(String),
}

/// What the screen and those who feed it say to each other besides.
#[derive(Debug, Default)]
struct Link {
    /// More is wanted of this row.
    wanted: Mutex<Option<RowId>>,
    /// It is over.
    done: AtomicBool,
    /// Rings when it is.
    bell: Arc<Notify>,
}

impl Link {
    fn want(&self, row: Option<&RowId>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.as_ref() != row {
            *wanted = row.cloned();
            self.bell.notify_one();
        }
    }

    fn wanted(&self) -> Option<RowId> {
        self.wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn end(&self) {
        self.done.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}
