//! Who uses disks and processors, against what they used before (pure).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::{Busy, Reading, User, host::Looked};

/// Between two readings that are kept of the hour.
const APART: Duration = Duration::from_mins(5);
/// Readings that are kept: an hour of them.
const KEPT: usize = 13;
/// A process that was seen for less has no hour to compare with.
const HISTORY: Duration = Duration::from_mins(10);
/// A shorter time says nothing of a rate.
const SHORTEST: Duration = Duration::from_secs(2);
/// Users that are told.
const TOLD: usize = 5;

/// A process, so that a reused pid is another one.
type Key = (u32, u64);

/// What each process used.
#[derive(Debug, Default)]
pub(super) struct Usage {
    processes: HashMap<Key, Track>,
    last: Option<(Timestamp, Duration)>,
}

#[derive(Clone, Debug)]
struct Track {
    /// When, by a steady clock; ticks, bytes.
    hour: VecDeque<Point>,
    last: Point,
    /// The reading before the last, for a look that comes soon after it.
    before: Point,
    fds: VecDeque<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at: Duration,
    ticks: u64,
    bytes: Option<u64>,
}

impl Usage {
    /// Notes what all processes used. `steady` is a clock that never goes back.
    pub(super) fn note(&mut self, looked: &[Looked], now: Timestamp, steady: Duration) {
        let mut processes = HashMap::with_capacity(looked.len());
        for one in looked {
            let key = (one.pid, one.start_ticks);
            let point = point(one, steady);
            let mut track = self.processes.remove(&key).unwrap_or_else(|| Track {
                hour: VecDeque::new(),
                last: point,
                before: point,
                fds: VecDeque::new(),
            });
            let is_due = track
                .hour
                .back()
                .is_none_or(|last| steady.saturating_sub(last.at) >= APART);
            if is_due {
                track.hour.push_back(point);
                if let Some(count) = one.used.fds {
                    track.fds.push_back(Reading { read: now, count });
                }
            }
            if track.hour.len() > KEPT {
                track.hour.pop_front();
            }
            if track.fds.len() > KEPT {
                track.fds.pop_front();
            }
            track.before = track.last;
            track.last = point;
            processes.insert(key, track);
        }
        // Those that are not there any more go with the old map.
        self.processes = processes;
        self.last = Some((now, steady));
    }

    /// Who used most since the last reading, or the one before it where that was just now.
    pub(super) fn busiest(
        &self,
        looked: &[Looked],
        now: Timestamp,
        steady: Duration,
        tick: Duration,
    ) -> Option<Busy> {
        let (_, last) = self.last?;
        let mut over = steady.saturating_sub(last);
        let mut disk = Vec::new();
        let mut cpu = Vec::new();
        for one in looked {
            let point = point(one, steady);
            let track = self.processes.get(&(one.pid, one.start_ticks));
            let since = match track {
                Some(track) if over >= SHORTEST => track.last,
                Some(track) => track.before,
                // It began since.
                None => Point {
                    at: last,
                    ticks: 0,
                    bytes: point.bytes.map(|_| 0),
                },
            };
            let time = point.at.saturating_sub(since.at);
            if time < SHORTEST {
                continue;
            }
            over = over.max(time);
            let usual = track.and_then(|track| {
                let (first, last) = (track.hour.front()?, track.last);
                let time = last.at.saturating_sub(first.at);
                (time >= HISTORY).then_some((*first, last, time.as_secs_f64()))
            });
            let user = |now: f64, usual: Option<f64>| User {
                pid: one.pid,
                comm: one.comm.clone(),
                now,
                usual,
            };
            if let Some(now) =
                rate(since.bytes, point.bytes, time.as_secs_f64()).filter(|now| *now > 0.0)
            {
                let usual =
                    usual.and_then(|(first, last, time)| rate(first.bytes, last.bytes, time));
                disk.push(user(now, usual));
            }
            let percent = 100.0 * tick.as_secs_f64();
            if let Some(now) = rate(Some(since.ticks), Some(point.ticks), time.as_secs_f64())
                && now > 0.0
            {
                let usual = usual.and_then(|(first, last, time)| {
                    rate(Some(first.ticks), Some(last.ticks), time)
                });
                cpu.push(user(now * percent, usual.map(|usual| usual * percent)));
            }
        }
        for users in [&mut disk, &mut cpu] {
            users.sort_by(|one, other| other.now.total_cmp(&one.now));
            users.truncate(TOLD);
        }
        Some(Busy {
            read: now,
            over_s: over.as_secs_f64(),
            disk,
            cpu,
        })
    }

    /// How many descriptors a process had open before.
    pub(super) fn fds(&self, pid: u32, start_ticks: u64) -> Vec<Reading> {
        let track = self.processes.get(&(pid, start_ticks));
        track.map_or_else(Vec::new, |track| track.fds.iter().copied().collect())
    }
}

fn point(one: &Looked, at: Duration) -> Point {
    Point {
        at,
        ticks: one.used.ticks,
        bytes: one.used.bytes,
    }
}

fn rate(before: Option<u64>, after: Option<u64>, seconds: f64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a rate is no exact count")]
    let growth = after?.checked_sub(before?)? as f64;
    (seconds > 0.0).then_some(growth / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::host::Used;
    use crate::incident::tests::wall;

    fn looked(pid: u32, ticks: u64, bytes: u64, fds: u64) -> Looked {
        Looked {
            pid,
            comm: format!("p{pid}"),
            parent: 1,
            start_ticks: 7,
            stack: None,
            used: Used {
                ticks,
                bytes: Some(bytes),
                fds: Some(fds),
            },
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these have no fractions")]
    fn a_minute_is_compared_with_the_hour_before() {
        let mut usage = Usage::default();
        let minute = Duration::from_mins(1);
        let tick = Duration::from_millis(10);
        for number in 0..=60_u32 {
            let n = u64::from(number);
            // A thousand bytes a second, and a tenth of a processor.
            let all = [looked(1, n * 600, n * 60_000, 100 + n), looked(2, 0, 0, 3)];
            usage.note(&all, wall(n * 60_000), minute * number);
        }
        let all = [
            looked(1, 60 * 600 + 3_000, 60 * 60_000 + 30_000_000, 1_000),
            looked(2, 0, 0, 3),
            looked(3, 60, 6_000_000, 3),
        ];
        let busy = usage
            .busiest(
                &all,
                wall(61 * 60_000 - 30_000),
                minute * 60 + minute / 2,
                tick,
            )
            .unwrap();
        assert_eq!(busy.over_s, 30.0);
        assert_eq!(busy.disk.len(), 2, "who used nothing is not told");
        assert_eq!((busy.disk[0].pid, busy.disk[0].now), (1, 1_000_000.0));
        assert_eq!(busy.disk[0].usual, Some(1_000.0));
        assert_eq!((busy.disk[1].pid, busy.disk[1].usual), (3, None));
        assert_eq!(busy.disk[1].now, 200_000.0);
        assert!((busy.cpu[0].now - 100.0).abs() < 1e-9);
        assert!((busy.cpu[0].usual.unwrap() - 10.0).abs() < 1e-9);
        let fds = usage.fds(1, 7);
        assert_eq!(fds.len(), KEPT);
        assert_eq!((fds[0].count, fds[12].count), (100, 160));
        assert_eq!(usage.fds(1, 8), [], "another process of the same pid");
        // Right after a reading, the one before it is what to compare with.
        let soon = usage.busiest(&all, wall(0), minute * 60, tick).unwrap();
        assert_eq!(soon.over_s, 60.0);
        assert_eq!(soon.disk[0].now, 30_060_000.0 / 60.0);
    }
}
