//! What comes after the kernel: everything an exemplar or a count goes through.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use tokio::{sync::Notify, time::Instant};
use turnaway_common::{ListenerStats, Reason, reason::errno};

use super::{
    Options,
    descriptors::Watched,
    output::{End, Output},
    watcher::{Reading, Short, Watcher},
};
use crate::{
    advice::{
        AboutConnect, AboutListener, Advice, Advised, System, advise_connect, advise_descriptors,
        advise_listener, advise_table,
    },
    aggregate::{Total, Totals},
    attribute::{Adopted, Attributor, Far, Who, holdings::Holdings},
    event::{AF_UNIX, Address, Count, Failure, Key, Listener, Process, ProcessId},
    kernel::{
        attach::{HookStatus, Missed},
        plan::HookName,
        session::Losses,
    },
    queues::Stall,
    record::{Clock, Listening, Seen},
    sink::stdout::Stdout,
    sockets::Poll,
};

/// How often the counters are read.
pub(super) const READING: Duration = Duration::from_secs(1);
/// Most counters whose growth is kept for a reader that is slow.
const UNWRITTEN: usize = 10_000;
/// Most listeners whose acceptor is remembered.
const ACCEPTORS: usize = 16_384;
/// Most listeners in a summary.
const LISTENING: usize = 1000;
/// Most processes whose descriptors are looked at.
const HELD: usize = 10_000;
/// Most time that looking at the descriptors of one process takes.
const HOLDINGS: Duration = Duration::from_millis(100);
/// Most time that looking at descriptors takes in a second: exemplars wait meanwhile.
const HOLDINGS_A_SECOND: Duration = Duration::from_millis(200);
/// How long the last lines may take to be written.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// Kept of a deadline for the last lines.
const LAST_LINES: Duration = Duration::from_millis(400);
/// An end that comes late, where finding out whose all was took long, has this for its lines all the same.
const PARTING: Duration = Duration::from_secs(1);

/// The state of that.
pub(super) struct Pipeline<'a> {
    options: &'a Options,
    attributor: Attributor,
    totals: Totals,
    pub(super) output: Output,
    stdout: Stdout,
    clock: Clock,
    system: System,
    /// Who accepts, by socket inode of the listener.
    acceptors: HashMap<u64, ProcessId>,
    /// Processes whose descriptors were looked at.
    held: HashSet<(ProcessId, Reason)>,
    /// Time left for that until the next reading.
    holdings_left: Duration,
    lines: u64,
    /// Growth that there was no room for.
    unwritten: HashMap<Key, Growth>,
    /// Lines that could not be written for want of a reader.
    lost_lines: u64,
    /// Exemplars so far.
    events: u64,
    watcher: Option<Box<dyn Watcher>>,
}

/// What the kernel side has counted for listeners.
pub(super) struct Listeners {
    pub(super) stats: Vec<(u64, ListenerStats)>,
    /// Those are all that there are.
    pub(super) all: bool,
    /// Those that accepted most are to be told with whose they are.
    pub(super) busiest: bool,
    pub(super) see: Seen,
    pub(super) jiffy: Option<Duration>,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) now_ns: u64,
}

/// How a run goes.
pub(super) struct State<'a> {
    pub(super) losses: Losses,
    pub(super) lag: Duration,
    pub(super) hooks: &'a [HookStatus],
}

/// What a counter grew by since it was last written.
struct Growth {
    count: Count,
    /// How many of them were not shown one by one.
    more: u64,
    since: Instant,
}

impl Growth {
    /// This growth and what came after it.
    fn and(mut self, after: &Count, more: u64) -> Self {
        self.count.count += after.count;
        self.count.last_ns = self.count.last_ns.max(after.last_ns);
        self.count.waited_max_ns = self.count.waited_max_ns.max(after.waited_max_ns);
        self.count.approximate |= after.approximate;
        self.more += more;
        self
    }
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(
        options: &'a Options,
        watcher: Option<Box<dyn Watcher>>,
        stdout: Stdout,
    ) -> Self {
        Self {
            options,
            attributor: Attributor::new(Path::new("/")),
            // Who watches on a terminal is told no totals at the end.
            totals: match &watcher {
                Some(watcher) if watcher.has_terminal() => Totals::untold(),
                Some(_) => Totals::for_long(),
                None => Totals::default(),
            },
            output: Output::new(options.format, &options.shown),
            stdout,
            clock: Clock::now(),
            system: System::read(Path::new("/")),
            acceptors: HashMap::new(),
            held: HashSet::new(),
            holdings_left: HOLDINGS_A_SECOND,
            lines: 0,
            unwritten: HashMap::new(),
            lost_lines: 0,
            events: 0,
            watcher,
        }
    }

    /// Sets the clocks against each other again.
    pub(super) fn tick(&mut self) {
        self.clock = self.clock.again();
        self.holdings_left = HOLDINGS_A_SECOND;
    }

    /// Notes who accepts on a listener.
    pub(super) fn accepts(&mut self, socket_inode: u64, acceptor: ProcessId) {
        // As many as the kernel side keeps; whoever comes back is noted again.
        if self.acceptors.len() >= ACCEPTORS {
            self.acceptors.clear();
        }
        self.acceptors.insert(socket_inode, acceptor);
    }

    /// Finds out who holds the listeners of failures that are told next, all at once.
    pub(super) fn look_for_owners<'k>(&mut self, keys: impl Iterator<Item = &'k Key>) {
        let nobodys = keys.filter(|key| key.process.is_none());
        self.attributor
            .look_for(nobodys.filter_map(|key| key.socket_inode));
    }

    pub(super) fn done(&self) -> bool {
        self.stdout.failed()
            || self.watcher.as_ref().is_some_and(|watcher| watcher.done())
            || self.options.lines.is_some_and(|most| self.lines >= most)
    }

    pub(super) fn exemplar(&mut self, mut failure: Failure) {
        if self.is_of_no_matter(&failure.key) {
            return;
        }
        self.totals.target(&failure);
        let mut who = self.who(&mut failure.key, &mut failure.process);
        who.far = self.far(&failure.key, &failure.listener, failure.monotonic_ns);
        if !self
            .options
            .filter
            .wants(&failure.key, &failure.listener, &who)
        {
            return;
        }
        self.events += 1;
        let show = !self.options.quiet && !self.done();
        let used = match failure.descriptors {
            Some(descriptors) => Some(descriptors.used),
            // Counting them is for those who read that.
            None if show || is_full(&failure) => who
                .party
                .as_ref()
                .and_then(|party| self.attributor.open_descriptors(party.id)),
            None => None,
        };
        if let Some(watcher) = &mut self.watcher {
            watcher.failure(&failure, &who, used, &self.clock);
        }
        let mut shown = false;
        if show {
            let holdings = self.holdings(&failure);
            let attributor = &self.attributor;
            let system = self.system;
            let line =
                self.output
                    .event(&failure, &who, used, holdings.as_ref(), &self.clock, || {
                        advise(attributor, system, &failure.key, &failure.listener, &who)
                    });
            // One that has none of the fields that are asked for is left out, not lost.
            shown = line.is_none_or(|line| {
                let written = self.stdout.offer(line);
                if written {
                    self.lines += 1;
                } else {
                    self.lost_lines += 1;
                }
                written
            });
        }
        self.totals.exemplar(&failure, shown && !failure.ended);
    }

    /// What holds the descriptors of a process that ran out of them or soon will, once for each
    /// of these reasons.
    fn holdings(&mut self, failure: &Failure) -> Option<Holdings> {
        let id = failure.key.process?;
        if !is_full(failure)
            || self.holdings_left.is_zero()
            || self.held.len() >= HELD
            || !self.held.insert((id, failure.key.reason))
        {
            return None;
        }
        let begun = Instant::now();
        let holdings = self
            .attributor
            .holdings(id, HOLDINGS.min(self.holdings_left));
        self.holdings_left = self.holdings_left.saturating_sub(begun.elapsed());
        holdings
    }

    pub(super) fn count(&mut self, mut count: Count, now: Instant) {
        if self.is_of_no_matter(&count.key) {
            return;
        }
        let mut who = self.who(&mut count.key, &mut count.process);
        who.far = self.far(&count.key, &count.listener, count.last_ns);
        self.name(&mut count.listener, &count.key);
        if !self.options.filter.wants(&count.key, &count.listener, &who) {
            return;
        }
        let more = self.totals.count(&count);
        if let Some(watcher) = &mut self.watcher {
            watcher.count(&count, &who, &self.clock);
        }
        if !self.options.counts {
            return;
        }
        let growth = match self.unwritten.remove(&count.key) {
            Some(before) => before.and(&count, more),
            None => Growth {
                count,
                more,
                since: now.checked_sub(READING).unwrap_or(now),
            },
        };
        self.write_growth(growth, &who, now);
    }

    /// The end of a listener is of interest only if it had failures.
    fn is_of_no_matter(&self, key: &Key) -> bool {
        key.reason == Reason::ListenerClosed
            && !key
                .socket_inode
                .is_some_and(|inode| self.totals.has_failures_of(inode))
    }

    /// Writes what a counter grew by. What there is no room for is kept, and written with
    /// the next growth: no record is left out of the sum.
    fn write_growth(&mut self, growth: Growth, who: &Who, now: Instant) {
        let Growth { count, more, since } = &growth;
        let period = now.saturating_duration_since(*since);
        let line = self.output.count(count, *more, period, who, &self.clock);
        if let Some(line) = line
            && !self.stdout.offer(line)
        {
            if self.unwritten.len() < UNWRITTEN {
                self.unwritten.insert(growth.count.key, growth);
            } else {
                self.lost_lines += 1;
            }
        }
    }

    /// Tries again to write what there was no room for.
    pub(super) fn write_rest(&mut self, now: Instant) {
        for (_, mut growth) in std::mem::take(&mut self.unwritten) {
            let count = &mut growth.count;
            let mut who = self.who(&mut count.key, &mut count.process);
            who.far = self.far(&count.key, &count.listener, count.last_ns);
            self.write_growth(growth, &who, now);
        }
    }

    /// Whose a failure is. One that a kernel worker met is given to the program that it
    /// worked for, where that can be found; one that was nobody's call is its listener's.
    fn who(&mut self, key: &mut Key, process: &mut Option<Process>) -> Who {
        let (Some(id), Some(facts)) = (key.process, process.as_mut()) else {
            return match key.socket_inode {
                Some(inode) => {
                    let acceptor = self.acceptors.get(&inode).copied();
                    self.attributor.of_listener(inode, acceptor)
                }
                None => Who::default(),
            };
        };
        let mut id = id;
        if facts.kernel_worker
            && let Some(inode) = key.socket_inode
            && let Some(Adopted {
                id: found,
                facts: of,
            }) = self.attributor.adopt(inode, facts)
        {
            id = found;
            key.process = Some(found);
            *facts = of;
        }
        let identity = self.attributor.process(id, facts);
        Who::process(id, facts.clone(), identity)
    }

    /// The other end of a connection that could not be made.
    fn far(&mut self, key: &Key, socket: &Listener, at_ns: u64) -> Option<Far> {
        let target = key.target.filter(|_| key.reason.is_of_connect())?;
        let path = self.totals.target_path(target);
        Some(
            self.attributor
                .far(key.process?, socket.netns, target, path, at_ns),
        )
    }

    /// Counts come without the names of AF_UNIX listeners: an exemplar has them, or procfs
    /// where none got through.
    fn name(&self, listener: &mut Listener, key: &Key) {
        if listener.family == Some(AF_UNIX)
            && let Some(inode) = key.socket_inode
        {
            listener.address = self.totals.path(inode).cloned().or_else(|| {
                let path = self.attributor.unix_path(key.process?, inode)?;
                Some(Address::Unix(path))
            });
        }
    }

    /// A process that may be near its limit of descriptors, and how many it has open; `None` if it
    /// has ended.
    pub(super) fn near_limit(&self, id: ProcessId) -> Option<(Process, Option<u64>)> {
        let process = self.attributor.facts(id)?;
        Some((process, self.attributor.open_descriptors(id)))
    }

    /// A stall that began is a failure; what ended is told, and counted no more.
    /// `since_ns` is when it was last looked at before.
    pub(super) fn stall(&mut self, stall: Stall, since_ns: Option<u64>, now: Instant) {
        let failure = stall.failure;
        if stall.ended {
            self.totals.waited(&failure);
            self.exemplar(failure);
            return;
        }
        let count = Count {
            key: failure.key,
            count: 1,
            first_ns: since_ns.unwrap_or(failure.monotonic_ns),
            last_ns: failure.monotonic_ns,
            process: failure.process.clone(),
            listener: failure.listener.clone(),
            waited_max_ns: failure.waited_ns,
            approximate: false,
        };
        self.exemplar(failure);
        self.count(count, now);
    }

    /// A stall that lasts: how long it does by now.
    pub(super) fn still_stalled(&mut self, failure: &Failure) {
        self.totals.waited(failure);
    }

    /// Shows a state that lasts to whoever watches.
    pub(super) fn lasting(&mut self, failure: &Failure) {
        if self.watcher.is_none() {
            return;
        }
        let mut key = failure.key;
        let who = self.who(&mut key, &mut failure.process.clone());
        if let Some(watcher) = &mut self.watcher
            && self.options.filter.wants(&key, &failure.listener, &who)
        {
            watcher.lasting(failure, &who, &self.clock);
        }
    }

    /// Hooks are in place.
    pub(super) fn begun(&mut self, hooks: &[HookStatus]) {
        if let Some(watcher) = &mut self.watcher {
            watcher.begun(hooks);
        }
    }

    /// The configuration is to be read again.
    pub(super) fn reopen(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.reopen();
        }
    }

    pub(super) fn reload(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.reload();
        }
    }

    /// Rings when somebody asks something of whoever watches; `None` where nobody does.
    pub(super) fn bell(&self) -> Option<Arc<Notify>> {
        Some(self.watcher.as_ref()?.bell())
    }

    /// The bell has rung.
    pub(super) fn asked(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.asked();
        }
    }

    /// The listeners that whoever watches wants to know of each time; `None` where nobody watches.
    pub(super) fn sockets(&self) -> Option<Vec<u64>> {
        Some(self.watcher.as_ref()?.sockets())
    }

    /// Whether whoever watches has the terminal.
    pub(super) fn has_terminal(&self) -> bool {
        self.watcher
            .as_ref()
            .is_some_and(|watcher| watcher.has_terminal())
    }

    /// Whether whoever watches wants to know of all listeners with every reading.
    pub(super) fn wants_all(&self) -> bool {
        self.watcher
            .as_ref()
            .is_some_and(|watcher| watcher.wants_all())
    }

    /// Shows what queues look like to whoever watches.
    pub(super) fn looked(&mut self, poll: &Poll) {
        if let Some(watcher) = &mut self.watcher {
            watcher.looked(poll);
        }
    }

    /// Tells whoever watches how it goes.
    pub(super) fn reading(&mut self, state: &State<'_>, listeners: &Listeners, watched: &Watched) {
        let Some(mut watcher) = self.watcher.take() else {
            return;
        };
        let lines = watcher.reading(&self.reading_of(state, listeners, watched));
        self.watcher = Some(watcher);
        for line in lines {
            // Capture does not wait for a reader.
            if !self.stdout.offer(line) {
                self.lost_lines += 1;
            }
        }
    }

    fn reading_of<'b>(
        &mut self,
        state: &State<'b>,
        listeners: &'b Listeners,
        watched: &Watched,
    ) -> Reading<'b> {
        let mut short: Vec<Short> = watched
            .short()
            .map(|(id, process, descriptors)| Short {
                id,
                who: Who::process(id, process.clone(), self.attributor.process(id, process)),
                descriptors,
            })
            .collect();
        let left = |short: &Short| {
            let limit = short.descriptors.limit.unwrap_or(u64::MAX);
            limit.saturating_sub(short.descriptors.used)
        };
        short.sort_by_key(|short| (left(short), short.id.pid));
        Reading {
            events: self.events,
            losses: state.losses,
            output: self.lost_lines,
            lag: state.lag,
            hooks: state.hooks,
            see: listeners.see,
            stats: &listeners.stats,
            all: listeners.all,
            listeners: (listeners.busiest && !self.has_terminal()).then(|| self.busiest(listeners)),
            short,
        }
    }

    /// The listeners that accepted most. Their owners are not searched for: there may be many.
    fn busiest(&mut self, listeners: &Listeners) -> Vec<(Listening, Option<Duration>)> {
        let Listeners {
            stats,
            see,
            jiffy,
            now_ns,
            ..
        } = listeners;
        let mut busiest: Vec<&(u64, ListenerStats)> = stats.iter().collect();
        busiest.sort_by_key(|(inode, stats)| (Reverse(stats.accepted), *inode));
        busiest.truncate(LISTENING);
        // One process may have thousands.
        let mut acceptors: HashMap<ProcessId, Who> = HashMap::new();
        busiest
            .into_iter()
            .map(|(inode, stats)| {
                let mut one = Listening::new(*inode, stats, *see, *jiffy);
                if let Some(acceptor) = one.acceptor {
                    let who = acceptors
                        .entry(acceptor)
                        .or_insert_with(|| self.attributor.acceptor(acceptor));
                    one.who = who.clone();
                }
                let last = stats.last_accept_ns;
                let since = (last > 0).then(|| now_ns.saturating_sub(last));
                (one, since.map(Duration::from_nanos))
            })
            .collect()
    }

    /// Writes the summary and what is left, and ends: soon, where there is a deadline.
    pub(super) fn finish(
        mut self,
        state: &State<'_>,
        missed: &[(HookName, Missed)],
        listeners: &Listeners,
        watched: &Watched,
        deadline: Option<std::time::Instant>,
    ) -> Result<()> {
        self.lost_lines += self.unwritten.len() as u64;
        let silent = self.has_terminal();
        // Whose they all are takes long to find out, and nobody would read it.
        let (totals, listening) = if silent {
            (Vec::new(), Vec::new())
        } else {
            let (see, jiffy) = (listeners.see, listeners.jiffy);
            let listening = self.listening(listeners.stats.clone(), see, jiffy);
            (self.whose(), listening)
        };
        let deadline = deadline.map(|deadline| deadline.max(std::time::Instant::now() + PARTING));
        let left = |reserve: Duration| {
            deadline.map_or(FAREWELL, |deadline| {
                let left = deadline.saturating_duration_since(std::time::Instant::now());
                left.saturating_sub(reserve).min(FAREWELL)
            })
        };
        if let (Some(mut watcher), Some(deadline)) = (self.watcher.take(), deadline) {
            let reading = self.reading_of(state, listeners, watched);
            let until = deadline.checked_sub(LAST_LINES * 2).unwrap_or(deadline);
            let end = self.ended(&totals, state, missed, &listening);
            let record = self.output.record(&end, &self.clock);
            for line in watcher.end(&reading, &record, until) {
                self.must(line, left(LAST_LINES));
            }
        }
        if silent {
            return self.stdout.finish(left(Duration::ZERO));
        }
        let end = self.ended(&totals, state, missed, &listening);
        let (attributor, system) = (&self.attributor, self.system);
        let summary = self.output.summary(&end, &self.clock, |key, total, who| {
            advise(attributor, system, key, &total.listener, who)
        });
        if let Some(summary) = summary {
            self.must(summary, left(LAST_LINES));
        }
        self.stdout.finish(left(Duration::ZERO))
    }

    /// What went well at the listeners that are wanted, those that accepted most first.
    fn listening(
        &mut self,
        listeners: Vec<(u64, ListenerStats)>,
        see: Seen,
        jiffy: Option<Duration>,
    ) -> Vec<Listening> {
        let mut listening: Vec<Listening> = listeners
            .into_iter()
            .map(|(inode, stats)| Listening::new(inode, &stats, see, jiffy))
            .collect();
        listening.sort_by_key(|one| (Reverse(one.accepted), one.inode));
        let filter = &self.options.filter;
        let attributor = &mut self.attributor;
        listening.truncate(LISTENING);
        attributor.look_for(listening.iter().map(|one| one.inode));
        listening.retain_mut(|one| {
            let who = attributor.of_listener(one.inode, one.acceptor);
            let wanted = filter.wants_listener(&one.listener, &who);
            one.who = who;
            wanted
        });
        listening
    }

    /// The totals, and whose they are.
    fn whose(&mut self) -> Vec<(Key, Total, Who)> {
        let totals = self.totals.sorted();
        let totals: Vec<(Key, Total)> = totals
            .into_iter()
            .map(|(key, total)| (*key, total.clone()))
            .collect();
        self.look_for_owners(totals.iter().map(|(key, _)| key));
        totals
            .into_iter()
            .map(|(key, total)| {
                let mut who = self.who(&mut { key }, &mut total.process.clone());
                who.far = self.far(&key, &total.listener, total.last_ns);
                (key, total, who)
            })
            .collect()
    }

    fn ended<'b>(
        &self,
        totals: &'b [(Key, Total, Who)],
        state: &State<'b>,
        missed: &'b [(HookName, Missed)],
        listeners: &'b [Listening],
    ) -> End<'b> {
        End {
            totals,
            other: self.totals.other(),
            losses: state.losses,
            lost_lines: self.lost_lines,
            hooks: state.hooks,
            missed,
            listeners,
        }
    }

    /// Writes what should not be left out: waits for room, but not for longer than that.
    pub(super) fn must(&mut self, text: String, patience: Duration) {
        if !self.stdout.must(text, patience) {
            self.lost_lines += 1;
        }
    }
}

/// Whether a process ran out of descriptors, or soon will.
fn is_full(failure: &Failure) -> bool {
    match failure.key.reason {
        Reason::AcceptEmfile => true,
        Reason::FdExhausted => failure.key.errno != Some(errno::ENFILE),
        Reason::FdPressure => !failure.ended,
        _ => false,
    }
}

/// What to do about a failure.
pub(crate) fn advise(
    attributor: &Attributor,
    system: System,
    key: &Key,
    listener: &Listener,
    who: &Who,
) -> Advice {
    let party = who.party.as_ref();
    if key.reason == Reason::NetConntrackFull {
        let max = listener.queue.map(|queue| u64::from(queue.backlog));
        return crate::advice::conntrack(max);
    }
    if key.reason.is_of_connect() {
        return advise_connect(
            key.reason,
            &AboutConnect {
                target: key.target,
                path: who.far.as_ref().and_then(|far| far.path.as_deref()),
                listens: who.far.as_ref().is_some_and(|far| far.listener.is_some()),
                errno: key.errno,
                pid: party
                    .filter(|party| !party.identity.exited)
                    .map(|party| party.id.pid),
            },
        );
    }
    if key.reason == Reason::FdTablePressure {
        return advise_table(system);
    }
    if let Some(party) = party {
        let about = |errno| Advised {
            pid: party.id.pid,
            identity: &party.identity,
            errno,
            op: key.op,
            nofile: party.facts.nofile,
            limits: attributor.nofile_limits(party.id),
            system,
        };
        if key.reason.is_of_descriptors() {
            return advise_descriptors(key.reason, &about(key.errno.unwrap_or(0)), key.call);
        }
        if let Some(errno) = key.errno {
            return crate::advice::advise(key.reason, &about(errno));
        }
    }
    advise_listener(
        key.reason,
        &AboutListener {
            listener,
            pid: party.map(|party| party.id.pid),
        },
    )
}
