//! Somebody who is shown what a run sees, beside what is written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use turnaway_common::ListenerStats;

use crate::{
    attribute::Who,
    event::{Count, Descriptors, Failure, ProcessId},
    kernel::{attach::HookStatus, programs::Programs, session::Losses},
    record::{Clock, Listening, Seen, Summary},
    sockets::Poll,
};

/// Is shown everything after filters, in the order that it comes. It must return at once, except at the end.
pub trait Watcher {
    /// Hooks are in place.
    fn begun(&mut self, hooks: &[HookStatus]);
    /// Programs that begin and end, where they are watched.
    fn programs(&mut self, _programs: Programs) {}
    /// An exemplar, or a state that began or ended; `fd_used` is the number of open descriptors.
    fn failure(&mut self, failure: &Failure, who: &Who, fd_used: Option<u64>, clock: &Clock);
    /// A state that lasts, once a second.
    fn lasting(&mut self, failure: &Failure, who: &Who, clock: &Clock);
    /// What a counter grew by.
    fn count(&mut self, count: &Count, who: &Who, clock: &Clock);
    /// A second has passed: lines to be written.
    fn reading(&mut self, reading: &Reading<'_>) -> Vec<String>;
    /// Listeners, by socket inode, of which is wanted what went well with every reading.
    fn sockets(&self) -> Vec<u64>;
    /// What queues look like, about once a second.
    fn looked(&mut self, _poll: &Poll) {}
    /// Whether what went well at all listeners is wanted with every reading.
    fn wants_all(&self) -> bool {
        false
    }
    /// Whether whoever watches has the terminal: nothing else is written then, no summary either, and the
    /// one that [`Watcher::end`] gets has no totals.
    fn has_terminal(&self) -> bool {
        false
    }
    /// Whether whoever watches has seen enough: the run ends.
    fn done(&self) -> bool {
        false
    }
    /// Rings when somebody asks something of whoever watches.
    fn bell(&self) -> Arc<Notify>;
    /// The bell has rung.
    fn asked(&mut self);
    /// Somebody asks for the configuration to be read again.
    fn reload(&mut self);
    /// Somebody has moved files, which are to be opened anew.
    fn reopen(&mut self) {}
    /// The run is over, and came to this: lines to be written. What must still be done is given up at the
    /// deadline.
    fn end(&mut self, last: &Reading<'_>, summary: &Summary, deadline: Instant) -> Vec<String>;
}

/// A process that is near its limit of descriptors.
pub struct Short {
    /// Which.
    pub id: ProcessId,
    /// Who it is.
    pub who: Who,
    /// Open descriptors and their limit, when it was last looked at.
    pub descriptors: Descriptors,
}

/// How a run goes.
pub struct Reading<'a> {
    /// Exemplars so far.
    pub events: u64,
    /// What could not be kept so far.
    pub losses: Losses,
    /// Lines that could not be written so far.
    pub output: u64,
    /// How late this reading was.
    pub lag: Duration,
    /// What became of each hook.
    pub hooks: &'a [HookStatus],
    /// What hooks see of listeners.
    pub see: Seen,
    /// What went well at listeners so far, by socket inode: at all of them, or at those that
    /// [`Watcher::sockets`] names.
    pub stats: &'a [(u64, ListenerStats)],
    /// Those are all that there are.
    pub all: bool,
    /// The same for the listeners that accepted most, and how long ago the last connection was
    /// accepted; `None` where not all were looked at this time, and where
    /// [`Watcher::has_terminal`].
    pub listeners: Option<Vec<(Listening, Option<Duration>)>>,
    /// Processes that are near their limit of descriptors, those nearest first.
    pub short: Vec<Short>,
}
