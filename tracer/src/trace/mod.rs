//! `turnaway trace`: from the kernel to the lines, until it is told to stop.

mod output;

use std::{
    collections::HashMap,
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior},
};
use turnaway_common::Reason;

pub use output::Format;
use output::{End, Output};

use crate::{
    advice::{AboutListener, Advice, Advised, System, advise_listener},
    aggregate::{Total, Totals},
    attribute::{Adopted, Attributor, Who},
    event::{AF_UNIX, Address, Count, Failure, Key, Listener, Process, ProcessId},
    filter::Filter,
    kernel::{
        attach::HookStatus,
        plan::HookName,
        session::{self, Losses, Session},
        words,
    },
    record::Clock,
    sink::stdout::Stdout,
};

/// How often the counters are read.
const READING: Duration = Duration::from_secs(1);
/// Most counters whose growth is kept for a reader that is slow.
const UNWRITTEN: usize = 10_000;
/// How long the last lines may take to be written.
const FAREWELL: Duration = Duration::from_millis(500);

/// What to trace and how to show it.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the kernel side does.
    pub session: session::Options,
    /// What is wanted.
    pub filter: Filter,
    /// How it is shown.
    pub format: Format,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// Stop after this many lines of failures.
    pub lines: Option<u64>,
    /// Show no failures one by one.
    pub quiet: bool,
    /// Show how much each counter grew.
    pub counts: bool,
}

/// Traces until it is told to stop, by a signal or by the options.
pub fn run(options: &Options) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(trace(options))
}

async fn trace(options: &Options) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let session = Session::start(&options.session)?;
    // The main job: a run without it would find nothing and look like good news.
    if session
        .hooks()
        .iter()
        .any(|hook| hook.hook == HookName::Accept && hook.attached.is_none())
    {
        bail!(
            "failed accepts cannot be seen here: no hook could be attached\n{}",
            words::refusals(session.hooks())
        );
    }
    let ring = readable(&session).context("cannot wait for the ring buffer")?;
    let mut run = Run::new(options, session);
    run.announce();

    let deadline = options.duration.map(|duration| Instant::now() + duration);
    let mut readings = tokio::time::interval_at(Instant::now() + READING, READING);
    readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !run.done() {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = until(deadline) => break,
            ready = ring.readable() => {
                let mut ready = ready.context("cannot wait for the ring buffer")?;
                run.exemplars();
                ready.clear_ready();
            }
            _ = readings.tick() => run.counts()?,
        }
    }
    run.finish()
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
}

/// What comes after the kernel: everything an exemplar or a count goes through.
struct Pipeline<'a> {
    options: &'a Options,
    attributor: Attributor,
    totals: Totals,
    output: Output,
    stdout: Stdout,
    clock: Clock,
    system: System,
    /// Who accepts, by socket inode of the listener.
    acceptors: HashMap<u64, ProcessId>,
    lines: u64,
    /// Growth that there was no room for.
    unwritten: HashMap<Key, Growth>,
    /// Lines that could not be written for want of a reader.
    lost_lines: u64,
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
        self.count.last_ns = after.last_ns;
        self.count.waited_max_ns = self.count.waited_max_ns.max(after.waited_max_ns);
        self.more += more;
        self
    }
}

impl<'a> Run<'a> {
    fn new(options: &'a Options, session: Session) -> Self {
        Self {
            options,
            session,
            pipeline: Pipeline {
                options,
                attributor: Attributor::new(Path::new("/")),
                totals: Totals::default(),
                output: Output::new(options.format),
                stdout: Stdout::start(),
                clock: Clock::now(),
                system: System::read(Path::new("/")),
                acceptors: HashMap::new(),
                lines: 0,
                unwritten: HashMap::new(),
                lost_lines: 0,
            },
        }
    }

    /// Says on stderr that hooks are in place, and what cannot be seen.
    fn announce(&mut self) {
        let hooks = self.session.hooks();
        let targets: Vec<String> = hooks
            .iter()
            .filter_map(|hook| {
                let (tier, _) = hook.attached.as_ref()?;
                Some(format!("{} ({})", words::targets(hook), tier.name()))
            })
            .collect();
        let mut said: Vec<String> = Vec::new();
        for hook in hooks.iter().filter(|hook| hook.attached.is_none()) {
            said.push(format!("not seen: {}", hook.hook.unseen()));
            for (tier, why) in &hook.refused {
                said.push(format!("  {}: {why}", tier.name()));
            }
        }
        said.push(format!(
            "tracing with {}; Ctrl-C stops\n",
            targets.join(", ")
        ));
        // In one piece: the same terminal may show stdout.
        let _ = io::stderr().write_all(said.join("\n").as_bytes());
        if !self.options.quiet
            && let Some(header) = self.pipeline.output.header()
        {
            self.pipeline.must(header);
        }
    }

    fn done(&self) -> bool {
        self.pipeline.done()
    }

    fn exemplars(&mut self) {
        let pipeline = &mut self.pipeline;
        self.session.drain(|failure| pipeline.exemplar(failure));
    }

    fn counts(&mut self) -> Result<()> {
        self.pipeline.clock = self.pipeline.clock.again();
        let counts = self.session.take_counts()?;
        // Those of the reading are all in the ring by now: names and lines come first.
        self.exemplars();
        let now = Instant::now();
        for count in counts {
            self.pipeline.count(count, now);
        }
        self.pipeline.write_rest(now);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.session.detach()?;
        self.counts()?;
        self.pipeline.lost_lines += self.pipeline.unwritten.len() as u64;
        let losses = self.session.losses()?;
        let summary = self.pipeline.summary(losses, self.session.hooks());
        self.pipeline.must(summary);
        self.pipeline.stdout.finish(FAREWELL)
    }
}

impl Pipeline<'_> {
    fn done(&self) -> bool {
        self.stdout.failed() || self.options.lines.is_some_and(|most| self.lines >= most)
    }

    fn exemplar(&mut self, mut failure: Failure) {
        if self.is_of_no_matter(&failure.key) {
            return;
        }
        let who = self.who(&mut failure.key, &mut failure.process);
        if !self.options.filter.wants(&failure.key, &failure.listener, &who) {
            return;
        }
        let show = !self.options.quiet && !self.done();
        let mut shown = false;
        if show {
            let used = who
                .party
                .as_ref()
                .and_then(|party| self.attributor.open_descriptors(party.id));
            let attributor = &self.attributor;
            let system = self.system;
            let line = self.output.event(&failure, &who, used, &self.clock, || {
                advise(attributor, system, &failure.key, &failure.listener, &who)
            });
            shown = self.stdout.offer(line);
            if shown {
                self.lines += 1;
            } else {
                self.lost_lines += 1;
            }
        }
        self.totals.exemplar(&failure, shown);
    }

    fn count(&mut self, mut count: Count, now: Instant) {
        if self.is_of_no_matter(&count.key) {
            return;
        }
        let who = self.who(&mut count.key, &mut count.process);
        self.name(&mut count.listener, &count.key);
        if !self.options.filter.wants(&count.key, &count.listener, &who) {
            return;
        }
        let more = self.totals.count(&count);
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
    fn write_rest(&mut self, now: Instant) {
        for (_, mut growth) in std::mem::take(&mut self.unwritten) {
            let who = self.who(&mut growth.count.key, &mut growth.count.process);
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
            && let Some(Adopted { id: found, facts: of }) = self.attributor.adopt(inode, facts)
        {
            id = found;
            key.process = Some(found);
            *facts = of;
        }
        let identity = self.attributor.process(id, facts);
        Who::process(id, facts.clone(), identity)
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

    fn summary(&mut self, losses: Losses, hooks: &[HookStatus]) -> String {
        let totals: Vec<(Key, Total)> = self
            .totals
            .sorted()
            .into_iter()
            .map(|(key, total)| (*key, total.clone()))
            .collect();
        let totals = totals
            .iter()
            .map(|(key, total)| (key, total, self.who(&mut { *key }, &mut total.process.clone())))
            .collect();
        let end = End {
            totals,
            other: self.totals.other(),
            losses,
            lost_lines: self.lost_lines,
            hooks,
        };
        let attributor = &self.attributor;
        let system = self.system;
        self.output.summary(&end, &self.clock, |key, total, who| {
            advise(attributor, system, key, &total.listener, who)
        })
    }

    fn must(&mut self, text: String) {
        if !self.stdout.must(text, FAREWELL) {
            self.lost_lines += 1;
        }
    }
}

fn advise(
    attributor: &Attributor,
    system: System,
    key: &Key,
    listener: &Listener,
    who: &Who,
) -> Advice {
    let party = who.party.as_ref();
    if let (Some(party), Some(errno)) = (party, key.errno) {
        return crate::advice::advise(
            key.reason,
            &Advised {
                pid: party.id.pid,
                identity: &party.identity,
                errno,
                op: key.op,
                nofile: party.facts.nofile,
                limits: attributor.nofile_limits(party.id),
                system,
            },
        );
    }
    advise_listener(
        key.reason,
        &AboutListener {
            listener,
            pid: party.map(|party| party.id.pid),
        },
    )
}
