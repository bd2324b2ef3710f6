//! Somebody who is shown what a run sees, beside what is written.

use std::time::Duration;

use crate::{
    attribute::Who,
    event::{Count, Failure},
    kernel::{attach::HookStatus, programs::Programs, session::Losses},
    record::{Clock, Listening},
};

/// Is shown everything after filters, in the order that it comes. It must return at once.
pub trait Watcher {
    /// Hooks are in place.
    fn begun(&mut self);
    /// Programs that begin and end, where they are watched.
    fn programs(&mut self, _programs: Programs) {}
    /// An exemplar, or a state that began or ended.
    fn failure(&mut self, failure: &Failure, who: &Who, clock: &Clock);
    /// A state that lasts, once a second.
    fn lasting(&mut self, failure: &Failure, who: &Who, clock: &Clock);
    /// What a counter grew by.
    fn count(&mut self, count: &Count, who: &Who, clock: &Clock);
    /// A second has passed: lines to be written.
    fn reading(&mut self, reading: &Reading<'_>) -> Vec<String>;
    /// Somebody asks for the configuration to be read again.
    fn reload(&mut self);
    /// The run is over: lines to be written.
    fn end(&mut self) -> Vec<String>;
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
    /// What went well at each listener, and how long ago the last connection was accepted;
    /// `None` where it was not looked at this time.
    pub listeners: Option<Vec<(Listening, Option<Duration>)>>,
}
