//! Looks at queues from a thread of its own: going through every network namespace blocks,
//! and takes the thread there.

use std::{
    collections::HashMap,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    attribute::timens::monotonic_ns,
    privileges::{self, Duty},
    queues::Suspect,
    sockets::{Poll, Poller, Waiting},
};

/// Said where tables of tracked connections cannot be watched.
const SILENT: &str = "not seen: net.conntrack_full: the kernel does not tell what nf_conntrack \
    drops (CONFIG_NF_CONNTRACK_PROCFS)";

/// What was found, and when.
pub(super) struct Look {
    /// All listeners.
    pub(super) poll: Poll,
    /// What waits at those that were asked for, oldest first.
    pub(super) waiting: HashMap<Suspect, Vec<Waiting>>,
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) at_ns: u64,
}

impl Look {
    /// What could not be looked at, in words.
    pub(super) fn problems(&self) -> Vec<String> {
        let inside = self.poll.namespaces.iter().filter_map(|namespace| {
            let problem = namespace.problem.as_ref()?;
            Some(format!("net:[{}]: {problem}", namespace.inode))
        });
        // The kernel tells of all namespaces or of none.
        let silent = self
            .poll
            .namespaces
            .first()
            .and_then(|own| own.conntrack.as_ref())
            .is_some_and(|table| table.processors.is_none());
        let silent = silent.then(|| SILENT.to_owned());
        self.poll
            .unreachable
            .iter()
            .cloned()
            .chain(inside)
            .chain(silent)
            .collect()
    }
}

/// The thread. It ends when this is dropped.
pub(super) struct Watch {
    requests: Sender<Vec<Suspect>>,
    looks: UnboundedReceiver<Look>,
    /// A look was asked for and is not there yet.
    pending: bool,
}

impl Watch {
    /// Starts the thread, and has it take a first look.
    pub(super) fn start() -> Result<Self> {
        let (requests, asked) = channel();
        let (answer, looks) = unbounded_channel();
        thread::Builder::new()
            .name("turnaway-poll".to_owned())
            .spawn(move || work(&asked, &answer))
            .context("cannot start a thread to look at queues")?;
        let mut watch = Self {
            requests,
            looks,
            pending: false,
        };
        watch.ask(Vec::new());
        Ok(watch)
    }

    /// Asks for a look, and for what waits at `suspects`.
    pub(super) fn ask(&mut self, suspects: Vec<Suspect>) {
        if !self.pending {
            // It fails only if the thread has ended, which `next` tells.
            self.pending = self.requests.send(suspects).is_ok();
        }
    }

    /// The look that was asked for; never, if there is none.
    pub(super) async fn next(&mut self) -> Look {
        match self.looks.recv().await {
            Some(look) => {
                self.pending = false;
                look
            }
            None => std::future::pending().await,
        }
    }

    /// One more look, or none if it takes too long. One that is under way began too early.
    pub(super) async fn last(
        &mut self,
        suspects: Vec<Suspect>,
        patience: Duration,
    ) -> Option<Look> {
        let last = async {
            if self.pending {
                self.next().await;
            }
            self.ask(suspects);
            self.next().await
        };
        tokio::time::timeout(patience, last).await.ok()
    }
}

fn work(asked: &Receiver<Vec<Suspect>>, answer: &UnboundedSender<Look>) {
    privileges::keep(Duty::Look);
    let mut poller = Poller::new(Path::new("/"));
    while let Ok(suspects) = asked.recv() {
        let at_ns = monotonic_ns();
        let poll = poller.poll();
        let waiting = suspects
            .into_iter()
            .filter_map(|suspect| {
                let waiting = poller.waiting(suspect.netns, suspect.port)?;
                Some((suspect, waiting))
            })
            .collect();
        let look = Look {
            poll,
            waiting,
            at_ns,
        };
        if answer.send(look).is_err() {
            return;
        }
    }
}
