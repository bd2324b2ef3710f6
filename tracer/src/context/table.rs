//! Which programs ran when (pure).

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
};

use jiff::{SignedDuration, Timestamp};

use super::Started;
use crate::history::Run;

/// How long what has ended is remembered.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// Most programs that run and are known.
const RUNNING: usize = 32_768;
/// Most programs that have ended and are remembered, the newest.
const ENDED: usize = 20_000;
/// A program that runs so long may set something off, and is kept in the history.
const LONG: SignedDuration = SignedDuration::from_secs(10);
/// Most runs of one program that go into the history in an hour.
const HOURLY: u32 = 60;
/// Most programs whose runs are counted for that.
const COUNTED: usize = 4096;
/// Most programs that are told of one incident.
const TOLD: usize = 50;

/// Which programs ran when.
#[derive(Debug, Default)]
pub(super) struct Table {
    running: HashMap<u32, Entry>,
    ended: VecDeque<Entry>,
    hourly: HashMap<String, u32>,
    hour: i64,
    /// Programs that there was no room for.
    lost: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    program: Started,
    /// It began while it was watched: its runs can be counted.
    is_counted: bool,
    /// It is in the history.
    kept: bool,
}

impl Table {
    /// A program began; `is_counted` if that was seen.
    pub(super) fn began(&mut self, program: Started, is_counted: bool) {
        let pid = program.pid;
        if let Some(mut before) = self.running.remove(&pid) {
            // The process goes on as another program.
            before.program.ended = Some(program.started);
            self.over(before);
        }
        if self.running.len() >= RUNNING {
            self.lost += 1;
            return;
        }
        let entry = Entry {
            program,
            is_counted,
            kept: false,
        };
        self.running.insert(pid, entry);
    }

    /// A process ended; what it ran, if that is to go into the history.
    pub(super) fn ended(&mut self, pid: u32, at: Timestamp) -> Option<Run> {
        let mut entry = self.running.remove(&pid)?;
        entry.program.ended = Some(at);
        let is_long = at.duration_since(entry.program.started) >= LONG;
        let run = (entry.kept || is_long && self.counts(&entry)).then(|| run(&entry.program));
        self.over(entry);
        run
    }

    fn over(&mut self, entry: Entry) {
        if self.ended.len() >= ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(entry);
    }

    /// Those that have come to run long: what is known of them may be completed, then they go into
    /// the history.
    pub(super) fn long(&mut self, now: Timestamp, complete: impl Fn(&mut Started)) -> Vec<Run> {
        while let Some(first) = self.ended.front()
            && first
                .program
                .ended
                .is_some_and(|ended| now.duration_since(ended) > KEPT)
        {
            self.ended.pop_front();
        }
        let long: Vec<u32> = self
            .running
            .iter()
            .filter(|(_, one)| {
                one.is_counted && !one.kept && now.duration_since(one.program.started) >= LONG
            })
            .map(|(pid, _)| *pid)
            .collect();
        let mut runs = Vec::new();
        for pid in long {
            let Some(mut entry) = self.running.remove(&pid) else {
                continue;
            };
            complete(&mut entry.program);
            if self.counts(&entry) {
                runs.push(run(&entry.program));
            }
            entry.kept = true;
            self.running.insert(pid, entry);
        }
        runs
    }

    /// Whether a run may go into the history: a program that begins all the time fills it.
    fn counts(&mut self, entry: &Entry) -> bool {
        if !entry.is_counted {
            return false;
        }
        let hour = entry.program.started.as_second().div_euclid(3600);
        if hour != self.hour || self.hourly.len() >= COUNTED {
            self.hour = hour;
            self.hourly.clear();
        }
        let count = self.hourly.entry(entry.program.comm.clone()).or_default();
        *count += 1;
        *count <= HOURLY
    }

    /// Programs that began within the hour before an incident and ran when it began, the newest first,
    /// and how many more there were.
    pub(super) fn before(&self, onset: Timestamp) -> (Vec<Started>, u64) {
        let fits = |one: &&Entry| {
            let lag = onset.duration_since(one.program.started);
            !lag.is_negative()
                && lag <= KEPT
                && one.program.ended.is_none_or(|ended| ended >= onset)
        };
        let all = self.running.values().chain(&self.ended);
        let mut found: Vec<Started> = all.filter(fits).map(|one| one.program.clone()).collect();
        found.sort_by_key(|one| Reverse((one.started, one.pid)));
        let more = found.len().saturating_sub(TOLD);
        // What began first has had the most time to do harm: both ends are told.
        if more > 0 {
            found.drain(TOLD / 2..TOLD / 2 + more);
        }
        (found, more as u64)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

fn run(program: &Started) -> Run {
    Run {
        pid: program.pid,
        started: program.started,
        ended: program.ended,
        program: program.comm.clone(),
        unit: program.unit.clone(),
        exe: program.exe.clone(),
        argv: program.argv.clone(),
        parent: program.parent.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::tests::wall;

    fn program(comm: &str, pid: u32, ms: u64) -> Started {
        Started {
            pid,
            comm: comm.to_owned(),
            started: wall(ms),
            ended: None,
            exe: None,
            argv: None,
            unit: None,
            parent: None,
            clock: None,
        }
    }

    #[test]
    fn what_ran_over_the_onset_is_told_and_nothing_else() {
        let mut table = Table::default();
        let minute = 60_000;
        table.began(program("old", 1, 0), true);
        table.began(program("over", 2, 20 * minute), true);
        table.ended(2, wall(30 * minute));
        table.began(program("across", 3, 40 * minute), true);
        table.began(program("backup", 4, 50 * minute), true);
        table.ended(3, wall(70 * minute));
        table.began(program("later", 5, 66 * minute), true);
        let (told, more) = table.before(wall(65 * minute));
        let names: Vec<_> = told.iter().map(|one| one.comm.as_str()).collect();
        assert_eq!(names, ["backup", "across"]);
        assert_eq!(told[1].ended, Some(wall(70 * minute)));
        assert_eq!(more, 0);
    }

    #[test]
    fn a_process_that_goes_on_as_another_program_ended_as_the_first() {
        let mut table = Table::default();
        table.began(program("sh", 1, 0), true);
        table.began(program("pg_dump", 1, 100), true);
        let (told, _) = table.before(wall(200));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].comm, "pg_dump");
    }

    #[test]
    fn long_runs_go_into_the_history_once_and_with_their_end() {
        let mut table = Table::default();
        table.began(program("pg_dump", 1, 0), true);
        table.began(program("ls", 2, 0), true);
        table.began(program("before", 3, 0), false);
        assert_eq!(table.ended(2, wall(50)), None);
        assert_eq!(table.long(wall(9_000), |_| {}), []);
        let unit = |one: &mut Started| one.unit = Some("backup.service".to_owned());
        let runs = table.long(wall(11_000), unit);
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].unit.as_deref(), Some("backup.service"));
        assert_eq!(table.long(wall(12_000), |_| {}), []);
        let run = table.ended(1, wall(90_000)).unwrap();
        assert_eq!(run.ended, Some(wall(90_000)));
        assert_eq!(run.unit.as_deref(), Some("backup.service"));
        assert_eq!(
            table.ended(3, wall(90_000)),
            None,
            "when it began was not seen"
        );
    }

    #[test]
    fn what_begins_all_the_time_does_not_fill_the_history() {
        let mut table = Table::default();
        let mut kept = 0;
        for pid in 0..1_000 {
            table.began(program("job", pid, 0), true);
            kept += usize::from(table.ended(pid, wall(20_000)).is_some());
        }
        assert_eq!(kept, 60);
    }

    #[test]
    fn room_is_bounded_and_what_has_none_is_counted() {
        let mut table = Table::default();
        for pid in 0..40_000 {
            table.began(program("job", pid, 0), true);
        }
        assert_eq!(table.running.len() as u64 + table.lost(), 40_000);
        for pid in 0..40_000 {
            table.ended(pid, wall(1));
        }
        assert_eq!(table.ended.len(), ENDED);
        table.long(wall(0) + SignedDuration::from_hours(2), |_| {});
        assert_eq!(table.ended.len(), 0);
        let mut table = Table::default();
        for pid in 0..80 {
            table.began(program("job", pid, u64::from(pid)), true);
        }
        let (told, more) = table.before(wall(100));
        assert_eq!((told.len(), more), (50, 30));
        assert_eq!((told[0].pid, told[49].pid), (79, 0));
    }
}
