//! Many processes, each of which fails a little at a listener of its own; each in a cgroup of its own, if that is wanted.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::holder::{told_to_go, wait_for_line};
use crate::cgroup::{Cgroup, hierarchies};
use crate::sys::{self, Call, Child};
use crate::workload::driven::out_of_descriptors;
use crate::workload::fail;
use crate::workload::listening::Listening;

/// How they fail.
#[derive(Clone, Copy)]
struct Pace {
    /// How often each of them does.
    rounds: u32,
    /// From one failure of a process to its next.
    period: Duration,
}

impl Pace {
    /// So many processes together fail so often a second, for so long.
    fn of(count: u32, a_second: u64, seconds: u64) -> Result<Self> {
        ensure!(count > 0, "nobody fails");
        let rounds = u32::try_from(a_second * seconds / u64::from(count))?;
        ensure!(
            rounds > 0,
            "{count} processes: not each of them fails, at {a_second} a second for {seconds} s"
        );
        let period = Duration::from_secs(seconds) / rounds;
        Ok(Self { rounds, period })
    }

    /// How long one of them waits before its first failure, so that they do not fail all at once.
    fn first(self, number: u32, count: u32) -> Duration {
        self.period.mul_f64(f64::from(number) / f64::from(count))
    }
}

/// Processes, and their cgroups, which outlive them.
#[derive(Default)]
struct Crowd {
    members: Vec<Child>,
    cgroups: Vec<Cgroup>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.members.clear();
        for cgroup in self.cgroups.drain(..) {
            // There is nobody to be told: it fails only if somebody else is in there.
            let _ = cgroup.remove();
        }
    }
}

/// Forks so many processes, has them fail once a line was read, and says how often they did. Their cgroups stay until the
/// input ends.
pub(super) fn run(count: u32, a_second: u64, seconds: u64, apart: bool) -> Result<()> {
    let pace = Pace::of(count, a_second, seconds)?;
    let hierarchy = hierarchies()?.into_iter().next();
    let (ready, say_ready) = sys::pipe()?;
    let (go, hold) = sys::pipe()?;
    let mut crowd = Crowd::default();
    for number in 0..count {
        let cgroup = if apart {
            let hierarchy = hierarchy.as_ref().context("no hierarchy of cgroups")?;
            let made = Cgroup::make(hierarchy, &format!("crowd-{number}"))?;
            crowd.cgroups.push(made);
            crowd.cgroups.last()
        } else {
            None
        };
        let child = sys::fork(|| {
            // Or it would wait for itself.
            sys::close_number(hold.as_raw_fd());
            if let Some(cgroup) = cgroup {
                cgroup.take(sys::own_pid())?;
            }
            member(&go, &say_ready, pace, pace.first(number, count))
        })?;
        crowd.members.push(child);
    }
    drop(say_ready);
    let mut all = vec![0; usize::try_from(count)?];
    File::from(ready)
        .read_exact(&mut all)
        .context("not all of them are ready")?;
    if !told_to_go()? {
        return Ok(());
    }
    drop(hold);
    crowd.members.drain(..).try_for_each(Child::wait)?;
    println!("{}", u64::from(count) * u64::from(pace.rounds));
    wait_for_line()?;
    Ok(())
}

/// One of them.
fn member(go: &OwnedFd, say_ready: &OwnedFd, pace: Pace, first: Duration) -> Result<()> {
    let listening = Listening::tcp4(16)?;
    let mut go = File::from(go.try_clone()?);
    File::from(say_ready.try_clone()?).write_all(&[0])?;
    out_of_descriptors()?;
    // It ends when nobody holds the other end any more.
    go.read_to_end(&mut Vec::new())?;
    let mut due = Instant::now() + first;
    for _ in 0..pace.rounds {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        fail(Call::Accept4, listening.fd(), libc::EMFILE, 1)?;
        due += pace.period;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_they_are_they_fail_as_often() {
        for count in [1, 100, 1_000, 10_000] {
            let pace = Pace::of(count, 1_000, 20).unwrap();
            assert_eq!(pace.rounds * count, 20_000);
            let last = pace.first(count - 1, count) + pace.period * (pace.rounds - 1);
            assert!(last < Duration::from_secs(20), "{count}: {last:?}");
        }
        assert!(Pace::of(30_000, 1_000, 20).is_err());
    }
}
