//! Return probes that can follow many calls at once.
//!
//! A return probe needs an instance for every call in progress, and accept is a call
//! that blocks: with the kernel's default of ten or so, a prefork server's idle workers
//! use up all of them and failures elsewhere are missed. Only a probe that is made by
//! name in tracefs can ask for more, and only such a probe's misses are listed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use perf_event_open_sys as perf;

/// `KRETPROBE_MAXACTIVE_MAX` of kernel/trace/trace_kprobe.c: the most that may be asked for.
const INSTANCES: u32 = 4096;
/// Every probe's group is this and the pid of the tracer that made it.
const GROUP: &str = "turnaway_";

/// A return probe in place; dropping it removes it.
#[derive(Debug)]
pub struct Kretprobe {
    tracefs: PathBuf,
    group: String,
    event: String,
    perf: Option<OwnedFd>,
}

impl Kretprobe {
    /// Probes the return of `function` and runs `program` (named `event`) at each.
    pub fn attach(
        tracefs: &Path,
        event: &str,
        function: &str,
        program: BorrowedFd<'_>,
    ) -> Result<Self> {
        remove_orphans(tracefs);
        let pid = std::process::id();
        let mut probe = Self {
            tracefs: tracefs.to_owned(),
            group: format!("{GROUP}{pid}"),
            // A program may sit at several functions.
            event: format!("{event}_{function}_{pid}"),
            perf: None,
        };
        let definition = format!("r{INSTANCES}:{}/{} {function}\n", probe.group, probe.event);
        command(tracefs, &definition)
            .with_context(|| format!("cannot add the probe {:?}", definition.trim_end()))?;
        let id = tracefs
            .join("events")
            .join(&probe.group)
            .join(&probe.event)
            .join("id");
        let id = fs::read_to_string(&id)
            .with_context(|| format!("cannot read {}", id.display()))?
            .trim()
            .parse()
            .context("the probe's id is no number")?;
        probe.perf = Some(run_on(id, program).context("cannot attach to the probe")?);
        Ok(probe)
    }

    /// How many returns the kernel could not follow; `None` where it does not say.
    #[must_use]
    pub fn missed(&self) -> Option<u64> {
        let profile = fs::read_to_string(self.tracefs.join("kprobe_profile")).ok()?;
        misses(&profile, &self.event)
    }
}

impl Drop for Kretprobe {
    fn drop(&mut self) {
        // An event in use cannot be removed.
        self.perf = None;
        let _ = command(&self.tracefs, &format!("-:{}/{}\n", self.group, self.event));
    }
}

/// The misses of one event in `kprobe_profile`, whose lines are "event hits misses".
fn misses(profile: &str, event: &str) -> Option<u64> {
    profile.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == event).then(|| words.nth(1)?.parse().ok())?
    })
}

fn command(tracefs: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .open(tracefs.join("kprobe_events"))?
        .write_all(line.as_bytes())
}

/// Removes what tracers that were killed left behind.
fn remove_orphans(tracefs: &Path) {
    let Ok(events) = fs::read_to_string(tracefs.join("kprobe_events")) else {
        return;
    };
    for (group, event) in events.lines().filter_map(ours) {
        let pid = &group[GROUP.len()..];
        if !Path::new("/proc").join(pid).exists() {
            let _ = command(tracefs, &format!("-:{group}/{event}\n"));
        }
    }
}

/// Group and event of a line of `kprobe_events`, if a tracer of ours made it.
fn ours(line: &str) -> Option<(&str, &str)> {
    let (_, name) = line.split_whitespace().next()?.split_once(':')?;
    let (group, event) = name.split_once('/')?;
    let pid = group.strip_prefix(GROUP)?;
    (!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())).then_some((group, event))
}

/// Runs a program each time the trace event `id` fires, on every CPU.
fn run_on(id: u64, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = perf::bindings::perf_event_attr {
        type_: perf::bindings::PERF_TYPE_TRACEPOINT,
        size: u32::try_from(size_of::<perf::bindings::perf_event_attr>())
            .map_err(io::Error::other)?,
        config: id,
        ..Default::default()
    };
    attr.__bindgen_anon_1.sample_period = 1;
    attr.__bindgen_anon_2.wakeup_events = 1;
    let flags = libc::c_ulong::from(perf::bindings::PERF_FLAG_FD_CLOEXEC);
    // SAFETY: the attributes are initialised and outlive the call; the descriptor that
    // comes back is ours alone; the program's outlives the ioctl.
    unsafe {
        let fd = perf::perf_event_open(&raw mut attr, -1, 0, -1, flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let event = OwnedFd::from_raw_fd(fd);
        let program = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
        if perf::ioctls::SET_BPF(event.as_raw_fd(), program) < 0
            || perf::ioctls::ENABLE(event.as_raw_fd(), 0) < 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::{misses, ours};

    #[test]
    fn misses_are_read_from_the_line_of_the_event() {
        let profile = "  accept_kretprobe_81                           12               0\n  \
                         accept_kretprobe_812                      340023              17\n";
        assert_eq!(misses(profile, "accept_kretprobe_812"), Some(17));
        assert_eq!(misses(profile, "accept_kretprobe_81"), Some(0));
        assert_eq!(misses(profile, "accept"), None);
    }

    #[test]
    fn only_what_a_tracer_made_is_ours() {
        assert_eq!(
            ours("r4096:turnaway_812/accept_kretprobe_812 __sys_accept4"),
            Some(("turnaway_812", "accept_kretprobe_812"))
        );
        assert_eq!(ours("p:kprobes/turnaway_1 do_sys_open"), None);
        assert_eq!(ours("r:turnaway_x/y z"), None);
        assert_eq!(ours("r:turnaway_/y z"), None);
        assert_eq!(ours(""), None);
    }
}
