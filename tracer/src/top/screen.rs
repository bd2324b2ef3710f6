//! The terminal: the only place that touches it.

use std::{
    io::{self, Stdout},
    panic, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use crossterm::{
    cursor,
    event::{self, DisableMouseCapture, EnableMouseCapture, Event, KeyEventKind},
    execute,
    terminal::{self, EnterAlternateScreen, LeaveAlternateScreen},
};
use ratatui::{Terminal, backend::CrosstermBackend};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use signal_hook::{
    consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP},
    flag, low_level,
};

use super::{
    Link, Options, Update, input,
    model::Model,
    sample::Sample,
    ui::{Do, Ui},
    view::{self, Look, Scene},
};
use crate::privileges::{self, Duty};

/// How long what is not a key may go unnoticed: signals, samples.
const GLANCE: Duration = Duration::from_millis(100);
/// A frame may be so much early.
const SLACK: Duration = Duration::from_millis(20);

/// Without a terminal, it may take so long to end in order.
const PARTING: Duration = Duration::from_secs(2);

/// The terminal is ours, and has to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back, if it was taken. What cannot be done is left: there is nobody to tell.
pub fn restore() {
    if TAKEN.swap(false, Ordering::AcqRel) {
        let _ = terminal::disable_raw_mode();
        let _ = execute!(
            io::stdout(),
            DisableMouseCapture,
            LeaveAlternateScreen,
            cursor::Show
        );
    }
}

/// Has a panic of any thread give the terminal back first, so that what it says can be read.
pub fn guard() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        restore();
        before(what);
    }));
}

/// Takes the terminal: keys come one by one, on a screen of its own.
pub fn take(mouse: bool) -> io::Result<()> {
    TAKEN.store(true, Ordering::Release);
    terminal::enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
    if mouse {
        execute!(io::stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

/// A terminal that is gone can be read without end, and has nothing: reading keys never comes back from that. Who looked
/// at the screen has gone, too, so the process ends.
fn end_with_terminal() -> io::Result<()> {
    thread::Builder::new()
        .name("turnaway-hangup".to_owned())
        .spawn(|| {
            privileges::keep(Duty::Serve);
            let keys = io::stdin();
            // That the other end is gone is told unasked.
            let mut watched = [PollFd::new(&keys, PollFlags::empty())];
            loop {
                match poll(&mut watched, None) {
                    Ok(0) | Err(Errno::INTR) => {}
                    Ok(_) => break,
                    Err(_) => return,
                }
            }
            // SIGHUP may have been enough.
            thread::sleep(PARTING);
            process::exit(0);
        })
        .map(drop)
}

/// Starts the screen in a thread of its own.
pub(super) fn start(
    options: Options,
    link: Arc<Link>,
    updates: Receiver<Update>,
) -> Result<JoinHandle<Result<()>>> {
    thread::Builder::new()
        .name("turnaway-screen".to_owned())
        .spawn(move || {
            privileges::keep(Duty::Serve);
            run(&options, &link, &updates)
        })
        .context("cannot start a thread for the screen")
}

/// Shows what comes until somebody quits, or nothing more comes.
pub(super) fn run(options: &Options, link: &Arc<Link>, updates: &Receiver<Update>) -> Result<()> {
    let shown = Screen::open(options).and_then(|mut screen| screen.show(link, updates));
    restore();
    link.end();
    shown
}

struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    signals: Signals,
    model: Model,
    ui: Ui,
    look: Look,
    mouse: bool,
    delay: Duration,
    /// When the last sample came.
    sampled: Instant,
    drawn: Option<Instant>,
    /// Something has changed since.
    stale: bool,
}

/// Signals that came.
struct Signals {
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    resume: Arc<AtomicBool>,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        let signals = Self {
            end: Arc::default(),
            stop: Arc::default(),
            resume: Arc::default(),
        };
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
            flag::register(signal, Arc::clone(&signals.end))?;
        }
        flag::register(SIGTSTP, Arc::clone(&signals.stop))?;
        flag::register(SIGCONT, Arc::clone(&signals.resume))?;
        Ok(signals)
    }
}

impl Screen {
    fn open(options: &Options) -> Result<Self> {
        let signals = Signals::watch().context("cannot watch for signals")?;
        take(options.mouse).context("cannot take the terminal: use --batch without one")?;
        end_with_terminal().context("cannot watch the terminal")?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))
            .context("cannot use the terminal")?;
        let mut ui = Ui::new(options.sort, options.reverse);
        ui.only_failing = options.only_failing;
        Ok(Self {
            terminal,
            signals,
            model: Model::new(options.filter.clone()),
            ui,
            look: Look::of_environment(),
            mouse: options.mouse,
            delay: options.delay,
            sampled: Instant::now(),
            drawn: None,
            stale: true,
        })
    }

    fn show(&mut self, link: &Link, updates: &Receiver<Update>) -> Result<()> {
        loop {
            // A panic of another thread has given the terminal back.
            if self.signals.end.load(Ordering::Acquire)
                || link.is_done()
                || !TAKEN.load(Ordering::Acquire)
            {
                return Ok(());
            }
            if self.signals.stop.swap(false, Ordering::AcqRel) {
                self.suspend()?;
            }
            if self.signals.resume.swap(false, Ordering::AcqRel) {
                self.resume()?;
            }
            loop {
                match updates.try_recv() {
                    Ok(update) => self.take(update),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            let wait = self.due().map_or(Duration::ZERO, |left| left.min(GLANCE));
            if wait.is_zero() {
                self.draw()?;
                continue;
            }
            if event::poll(wait).context("cannot read keys")? && self.events(link)? == Do::Quit {
                return Ok(());
            }
        }
    }

    /// How long until the next frame; `None` is now.
    fn due(&self) -> Option<Duration> {
        let left = (self.drawn? + self.delay).saturating_duration_since(Instant::now());
        let soon = if self.stale { SLACK } else { Duration::ZERO };
        (left > soon).then_some(left)
    }

    fn take(&mut self, update: Update) {
        if self.ui.paused {
            return;
        }
        match update {
            Update::Sample(sample) => self.sample(*sample),
            Update::Silent(why) => self.model.problems = vec![why],
        }
        self.stale = true;
    }

    fn sample(&mut self, sample: Sample) {
        self.model.take(sample);
        self.sampled = Instant::now();
        self.ui.arrange(&self.model);
    }

    /// Takes in all keys that were pressed, and draws once.
    fn events(&mut self, link: &Link) -> Result<Do> {
        let mut all = false;
        loop {
            let action = match event::read().context("cannot read keys")? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    input::key(key, self.ui.typing)
                }
                Event::Mouse(event) => input::mouse(event),
                Event::Resize(..) => {
                    all = true;
                    None
                }
                _ => None,
            };
            match action.map(|action| self.ui.act(action, &self.model)) {
                Some(Do::Quit) => return Ok(Do::Quit),
                Some(Do::Suspend) => self.suspend()?,
                Some(Do::Redraw) => all = true,
                Some(Do::Draw) | None => {}
            }
            if !event::poll(Duration::ZERO).context("cannot read keys")? {
                break;
            }
        }
        link.want(self.ui.detail.as_ref());
        if all {
            self.terminal.clear().context("cannot clear the terminal")?;
        }
        self.draw()?;
        Ok(Do::Draw)
    }

    fn draw(&mut self) -> Result<()> {
        let since = if self.ui.paused {
            Duration::ZERO
        } else {
            self.sampled.elapsed()
        };
        let since = u64::try_from(since.as_nanos()).unwrap_or(0);
        let scene = Scene {
            model: &self.model,
            now_ns: self.model.at_ns.saturating_add(since),
            look: self.look,
        };
        let ui = &mut self.ui;
        self.terminal
            .draw(|frame| view::draw(frame, scene, ui))
            .context("cannot write to the terminal")?;
        self.drawn = Some(Instant::now());
        self.stale = false;
        Ok(())
    }

    /// Gives the terminal to the shell, and stops until it is told to go on.
    fn suspend(&mut self) -> Result<()> {
        restore();
        low_level::emulate_default_handler(SIGTSTP).context("cannot stop")?;
        self.resume()
    }

    /// Takes the terminal as whoever had it meanwhile has left it.
    fn resume(&mut self) -> Result<()> {
        self.signals.resume.store(false, Ordering::Release);
        restore();
        take(self.mouse).context("cannot take the terminal again")?;
        self.terminal.clear().context("cannot clear the terminal")?;
        self.draw()
    }
}
