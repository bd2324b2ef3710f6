//! `turnaway trace`: from the kernel to the lines, until it is told to stop.

mod descriptors;
mod output;
mod pipeline;
mod taken;
mod watch;
mod watcher;

use std::{
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};
use turnaway_common::{ListenerStats, Reason};

use descriptors::Watched;
pub(crate) use output::hook;
pub use output::{Format, Shown};
pub(crate) use pipeline::advise;
use pipeline::{FAREWELL, Listeners, Pipeline, READING, State};
use taken::Taken;
use watch::{Look, Watch};
pub use watcher::{Reading, Short, Watcher};

use crate::{
    attribute::timens::monotonic_ns,
    event::{Count, Failure, Key, Op, ProcessId, Tier},
    filter::Filter,
    kernel::{
        attach::HookStatus,
        jiffies,
        plan::{HookName, Target},
        session::{self, Session},
        words,
    },
    privileges::{self, Duty},
    queues::{Drops, Served, Sheds, Stalls, Suspect, Tables},
    record::Seen,
    sink::stdout::Stdout,
};

/// Between two looks at least.
const SOONEST: Duration = Duration::from_millis(200);
/// Whoever watches is told what went well at listeners with each reading of so many.
const LISTENERS_EVERY: u64 = 5;
/// How long the first and the last look at queues may take.
const LOOK: Duration = Duration::from_secs(5);
/// How long the end of a run may take that somebody watches: of its five seconds, one is left to a
/// host that is busy. And how long the last look at queues may take then.
const END: Duration = Duration::from_millis(3900);
const LAST_LOOK: Duration = Duration::from_millis(700);

/// What to trace and how to show it.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the kernel side does.
    pub session: session::Options,
    /// What is wanted.
    pub filter: Filter,
    /// How it is shown.
    pub format: Format,
    /// What of it is shown.
    pub shown: Shown,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// Stop after this many lines of failures.
    pub lines: Option<u64>,
    /// Show no failures one by one.
    pub quiet: bool,
    /// Show how much each counter grew.
    pub counts: bool,
    /// From this long without an accept, a queue in which connections wait is stalled.
    pub stalled: Duration,
}

/// Traces until it is told to stop, by a signal or by the options.
pub fn run(options: &Options) -> Result<()> {
    run_with(options, None)
}

/// The same, and shows everything to somebody who watches.
pub fn run_with(options: &Options, watcher: Option<Box<dyn Watcher>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(trace(options, watcher))
}

async fn trace(options: &Options, mut watcher: Option<Box<dyn Watcher>>) -> Result<()> {
    // Without somebody who reloads, a terminal that goes away ends the run.
    let mut hangup = match watcher {
        Some(_) => Some(signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?),
        None => None,
    };
    let mut moved = match watcher {
        Some(_) => Some(signal(SignalKind::user_defined1()).context("cannot watch for SIGUSR1")?),
        None => None,
    };
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    // Before hooks take descriptors: where there are few, what is seen can be told all the same.
    let stdout = Stdout::start();
    let mut session = Session::start(&options.session)?;
    if let (Some(programs), Some(watcher)) = (session.take_programs(), &mut watcher) {
        watcher.programs(programs);
    }
    // A run that is blind to its main job would find nothing and look like good news.
    let blind = |hook: &HookStatus| hook.attached.is_none();
    let hooks = session.hooks();
    // Where none is wanted, what is polled is all that is.
    let wants = |reason: Reason| options.session.filter.reasons & (1 << reason as u16) != 0;
    if !hooks.is_empty() && hooks.iter().all(blind) && !wants(Reason::FdTablePressure)
        || hooks
            .iter()
            .any(|hook| hook.hook == HookName::Accept && blind(hook))
    {
        bail!(
            "failures cannot be seen here: no hook could be attached\n{}",
            words::refusals(hooks)
        );
    }
    let ring = readable(&session).context("cannot wait for the ring buffer")?;
    let mut run = Run::new(options, session, watcher, stdout)?;
    privileges::keep(Duty::Look);
    run.first_look().await?;
    let bell = run.pipeline.bell();
    run.announce();
    run.pipeline.begun(run.session.hooks());

    let deadline = options.duration.map(|duration| Instant::now() + duration);
    let mut readings = tokio::time::interval_at(Instant::now() + READING, READING);
    readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !run.done() {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = until(deadline) => break,
            () = next_of(&mut hangup) => run.pipeline.reload(),
            () = next_of(&mut moved) => run.pipeline.reopen(),
            () = rung(bell.as_ref()) => run.pipeline.asked(),
            ready = ring.readable() => {
                let mut ready = ready.context("cannot wait for the ring buffer")?;
                run.exemplars()?;
                ready.clear_ready();
            }
            () = until(run.queues.as_ref().map(|queues| queues.due)) => run.ask(),
            look = next_look(&mut run.queues) => run.look(&look),
            () = std::future::ready(()), if run.taken.waits() => run.tell_counts()?,
            due = readings.tick() => {
                run.counts()?;
                run.tell(due.elapsed())?;
            }
        }
    }
    run.finish().await
}

/// Whether it is a connection that was closed at once where that is nothing new.
fn is_usual(sheds: &Sheds, key: &Key) -> bool {
    key.reason == Reason::AcceptShed && key.socket_inode.is_some_and(|inode| sheds.is_usual(inode))
}

async fn next_of(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

async fn rung(bell: Option<&Arc<Notify>>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => std::future::pending().await,
    }
}

async fn next_look(queues: &mut Option<Queues>) -> Look {
    match queues {
        Some(queues) => queues.watch.next().await,
        None => std::future::pending().await,
    }
}

/// A descriptor of its own for the ring, to wait on while the session reads it.
fn readable(session: &Session) -> io::Result<AsyncFd<OwnedFd>> {
    let ring = session.ring().as_fd().try_clone_to_owned()?;
    // SAFETY: the AsyncFd owns the descriptor and nothing else closes it.
    unsafe { AsyncFd::register_with_interest(ring, tokio::io::Interest::READABLE) }
        .map_err(|error| error.into_parts().1)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

struct Run<'a> {
    options: &'a Options,
    session: Session,
    pipeline: Pipeline<'a>,
    /// What looks at queues, if that is wanted.
    queues: Option<Queues>,
    sheds: Sheds,
    descriptors: Watched,
    taken: Taken<Count>,
    jiffy: Option<Duration>,
    readings: u64,
}

/// Queues that are looked at once a second.
struct Queues {
    watch: Watch,
    /// Where hooks do not see what is dropped.
    drops: Option<Drops>,
    /// Tables of tracked connections, which no hook sees.
    tables: Option<Tables>,
    stalls: Stalls,
    /// Whether hooks see connections that are accepted.
    accepts_are_seen: bool,
    suspects: Vec<Suspect>,
    /// When to look again.
    due: Instant,
}

impl<'a> Run<'a> {
    fn new(
        options: &'a Options,
        session: Session,
        watcher: Option<Box<dyn Watcher>>,
        stdout: Stdout,
    ) -> Result<Self> {
        let polls = session.polls_queues();
        let wants = |reason| options.session.filter.reasons & (1 << reason as u16) != 0;
        let wants_tables = wants(Reason::NetConntrackFull);
        let queues = if polls || wants(Reason::QueueStalled) || wants_tables {
            Some(Queues {
                watch: Watch::start()?,
                drops: polls.then(Drops::default),
                tables: wants_tables.then(Tables::default),
                stalls: Stalls::new(options.stalled),
                accepts_are_seen: session.is_hooked(HookName::Accepted),
                suspects: Vec::new(),
                due: Instant::now() + READING,
            })
        } else {
            None
        };
        Ok(Self {
            options,
            session,
            pipeline: Pipeline::new(options, watcher, stdout),
            queues,
            sheds: Sheds::default(),
            descriptors: Watched::new(
                options.session.filter.reasons & (1 << Reason::FdTablePressure as u16) != 0,
            ),
            taken: Taken::new(Instant::now()),
            jiffy: jiffies::length(),
            readings: 0,
        })
    }

    /// Sees what was there before: only what comes from now on is counted.
    async fn first_look(&mut self) -> Result<()> {
        let Some(queues) = &mut self.queues else {
            return Ok(());
        };
        let look = tokio::time::timeout(LOOK, queues.watch.next())
            .await
            .context("the kernel does not tell which sockets listen (sock_diag)")?;
        for problem in look.problems() {
            log::warn!("{problem}");
        }
        self.look(&look);
        Ok(())
    }

    /// Says on stderr that hooks are in place, and what cannot be seen.
    fn announce(&mut self) {
        if self.pipeline.has_terminal() {
            return;
        }
        let hooks = self.session.hooks();
        let mut said: Vec<String> = Vec::new();
        for hook in hooks.iter().filter(|hook| hook.attached.is_none()) {
            said.push(format!("not seen: {}", hook.hook.unseen()));
            for (tier, why) in &hook.refused {
                said.push(format!("  {}: {why}", tier.name()));
            }
        }
        said.extend(privileges::unseen());
        let mut names: Vec<String> = hooks
            .iter()
            .filter_map(|hook| {
                let (tier, targets) = hook.attached.as_ref()?;
                let how = if targets.contains(&Target::SockDiag) {
                    Tier::Poll
                } else {
                    *tier
                };
                Some(format!("{} ({})", hook.hook.name(), how.name()))
            })
            .collect();
        if self
            .queues
            .as_ref()
            .is_some_and(|queues| queues.tables.is_some())
        {
            names.push(format!("conntrack ({})", Tier::Poll.name()));
        }
        said.push(format!("tracing with {}; Ctrl-C stops\n", names.join(", ")));
        // In one piece: the same terminal may show stdout.
        let _ = io::stderr().write_all(said.join("\n").as_bytes());
        if !self.options.quiet
            && let Some(header) = self.pipeline.output.header()
        {
            self.pipeline.must(header, FAREWELL);
        }
    }

    fn done(&self) -> bool {
        self.pipeline.done()
    }

    fn exemplars(&mut self) -> Result<()> {
        let mut failures: Vec<Failure> = Vec::new();
        self.session.drain(|failure| failures.push(failure));
        self.pipeline
            .look_for_owners(failures.iter().map(|failure| &failure.key));
        for failure in failures {
            if is_usual(&self.sheds, &failure.key) {
                continue;
            }
            self.note_acceptor(failure.key.op, failure.key.socket_inode);
            self.pipeline.exemplar(failure);
            self.take_if_due()?;
        }
        Ok(())
    }

    /// Reads the counters, for what they say to be told later.
    fn take(&mut self) -> Result<()> {
        let counts = self.session.take_counts()?;
        self.taken.add(counts, Instant::now());
        Ok(())
    }

    /// The same in the middle of what may take long.
    fn take_if_due(&mut self) -> Result<()> {
        if self.taken.is_due(Instant::now()) {
            self.take()?;
        }
        Ok(())
    }

    fn counts(&mut self) -> Result<()> {
        self.pipeline.tick();
        if !self.taken.waits() || self.taken.is_due(Instant::now()) {
            self.take()?;
        }
        self.tell_counts()?;
        let noted = self.session.take_pressed();
        let since_ns = self.descriptors.looked_ns();
        let now = Instant::now();
        for stall in self.descriptors.look(noted, &mut self.pipeline) {
            self.pipeline.stall(stall, Some(since_ns), now);
        }
        self.pipeline.write_rest(now);
        Ok(())
    }

    /// Tells the reading of the counters that has waited longest.
    fn tell_counts(&mut self) -> Result<()> {
        let Some(counts) = self.taken.next() else {
            return Ok(());
        };
        let session = &self.session;
        self.sheds.reading(&counts, |inode| {
            session.listener(inode).map(|stats| stats.accepted)
        });
        // Those of the reading are all in the ring by now: names and lines come first.
        self.exemplars()?;
        self.pipeline
            .look_for_owners(counts.iter().map(|count| &count.key));
        let now = Instant::now();
        for count in counts {
            if is_usual(&self.sheds, &count.key) {
                continue;
            }
            self.note_acceptor(count.key.op, count.key.socket_inode);
            self.pipeline.count(count, now);
            self.take_if_due()?;
        }
        Ok(())
    }

    /// Looks up who accepts at a listener that had a failure which was nobody's call.
    fn note_acceptor(&mut self, op: Op, socket_inode: Option<u64>) {
        if op == Op::Network
            && let Some(inode) = socket_inode
            && let Some(stats) = self.session.listener(inode)
            && stats.acceptor_tgid != 0
        {
            self.pipeline.accepts(
                inode,
                ProcessId {
                    pid: stats.acceptor_tgid,
                    start_boottime_ns: stats.acceptor_start_ns,
                },
            );
        }
    }

    /// Has the queues looked at.
    fn ask(&mut self) {
        if let Some(queues) = &mut self.queues {
            queues.due = Instant::now() + READING;
            queues.watch.ask(queues.suspects.clone());
        }
    }

    /// Takes in what the queues look like.
    fn look(&mut self, look: &Look) {
        self.pipeline.looked(&look.poll);
        let Some(queues) = &mut self.queues else {
            return;
        };
        let mut counts = Vec::new();
        if let Some(drops) = &mut queues.drops {
            counts = drops.poll(&look.poll, look.at_ns);
            counts.extend(drops.closed(self.session.take_closed(), false));
        }
        if let Some(tables) = &mut queues.tables {
            counts.extend(tables.poll(&look.poll, look.at_ns));
        }
        let session = &self.session;
        let seen = queues.accepts_are_seen;
        let served = |inode| match session.listener(inode) {
            _ if !seen => Served::Unknown,
            Some(stats) if stats.last_accept_ns > 0 => Served::At(stats.last_accept_ns),
            _ => Served::Never,
        };
        let stalls = queues
            .stalls
            .poll(&look.poll, &look.waiting, served, look.at_ns);
        queues.suspects = queues.stalls.suspects(&look.poll);
        if let Some(soon) = queues.stalls.next(look.at_ns) {
            let soon = Instant::now() + soon.max(SOONEST);
            queues.due = queues.due.min(soon);
        }
        let stalled = stalls.iter().map(|stall| &stall.failure.key);
        self.pipeline
            .look_for_owners(counts.iter().map(|count| &count.key).chain(stalled));
        let now = Instant::now();
        for count in counts {
            self.note_acceptor(count.key.op, count.key.socket_inode);
            self.pipeline.count(count, now);
        }
        for stall in stalls {
            self.note_acceptor(Op::Network, stall.failure.key.socket_inode);
            self.pipeline.stall(stall, None, now);
        }
    }

    fn sees(&self) -> Seen {
        Seen {
            accepts: self.session.is_hooked(HookName::Accepted),
            shed: self.session.is_hooked(HookName::Shed)
                && self.session.is_hooked(HookName::Accepted),
            cookies: self.session.is_hooked(HookName::ListenQueue) && !self.session.polls_queues(),
        }
    }

    /// Tells whoever watches how it goes, and what lasts.
    fn tell(&mut self, lag: Duration) -> Result<()> {
        self.readings += 1;
        if let Some(queues) = &self.queues {
            for failure in queues.stalls.lasting() {
                self.pipeline.lasting(&failure);
            }
        }
        let Some(sockets) = self.pipeline.sockets() else {
            return Ok(());
        };
        let due = self.readings.is_multiple_of(LISTENERS_EVERY);
        let all = due || self.pipeline.wants_all();
        let stats = if all {
            self.session.listeners()
        } else {
            let session = &self.session;
            let one = |inode: u64| Some((inode, session.listener(inode)?));
            sockets.into_iter().filter_map(one).collect()
        };
        let listeners = Listeners {
            busiest: due,
            ..self.listeners(stats, all)
        };
        let state = State {
            losses: self.session.losses()?,
            lag,
            hooks: self.session.hooks(),
        };
        self.pipeline.reading(&state, &listeners, &self.descriptors);
        Ok(())
    }

    fn listeners(&self, stats: Vec<(u64, ListenerStats)>, all: bool) -> Listeners {
        Listeners {
            stats,
            all,
            busiest: all,
            see: self.sees(),
            jiffy: self.jiffy,
            now_ns: monotonic_ns(),
        }
    }

    /// Counts what listeners dropped that were closed while the last look was under way.
    fn last_closed(&mut self) {
        let Some(drops) = self
            .queues
            .as_mut()
            .and_then(|queues| queues.drops.as_mut())
        else {
            return;
        };
        let now = Instant::now();
        for count in drops.closed(self.session.take_closed(), true) {
            self.pipeline.count(count, now);
        }
    }

    async fn finish(mut self) -> Result<()> {
        // Somebody who watches has things to do in that time.
        let is_watched = self.pipeline.bell().is_some();
        let deadline = is_watched.then(|| std::time::Instant::now() + END);
        let patience = if is_watched { LAST_LOOK } else { LOOK };
        if let Some(queues) = &mut self.queues {
            let suspects = queues.suspects.clone();
            match queues.watch.last(suspects, patience).await {
                Some(look) => self.look(&look),
                None => log::warn!("the last look at queues took too long: totals may be too low"),
            }
        }
        let stats = self.session.listeners();
        let listeners = self.listeners(stats, true);
        self.session.detach()?;
        // The last, and whatever waits before it.
        self.take()?;
        while self.taken.waits() {
            self.tell_counts()?;
        }
        self.counts()?;
        self.last_closed();
        if let Some(queues) = &self.queues {
            for failure in queues.stalls.lasting() {
                self.pipeline.still_stalled(&failure);
            }
        }
        let losses = self.session.losses()?;
        let missed = self.session.missed();
        let hooks = self.session.hooks().to_vec();
        let state = State {
            losses,
            lag: Duration::ZERO,
            hooks: &hooks,
        };
        self.pipeline
            .finish(&state, &missed, &listeners, &self.descriptors, deadline)
    }
}
