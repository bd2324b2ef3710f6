//! What is likely to be the cause, and why (pure). Nothing is said without evidence, and no candidate is an
//! answer.

use jiff::SignedDuration;

use super::{Cause, Explanation, Held, Started, Strength, VictimState};
use crate::history::Incident;

/// Percent of the time from which tasks are said to wait for a disk, or for a processor.
const PRESSED: f64 = 10.0;
/// Bytes a second from which a program is said to use a disk.
const BUSY: f64 = 1_048_576.0;
/// Of all that is used, so large a part is much.
const MUCH: f64 = 0.3;
/// … and so large a part is some.
const SOME: f64 = 0.1;
/// Causes that are told.
const TOLD: usize = 5;
/// What began so shortly before is less likely to be the cause.
const SOON: SignedDuration = SignedDuration::from_secs(3);
/// Growth over so long at least may be steady.
const LONG: SignedDuration = SignedDuration::from_mins(15);

/// How it comes about.
pub(super) fn mechanism(incident: &Incident, found: &Explanation) -> Vec<Cause> {
    if incident.is_of_client() {
        return Vec::new();
    }
    let has = |code: &str| {
        incident
            .reasons
            .iter()
            .any(|total| total.reason.as_str() == code)
    };
    let mut causes = Vec::new();
    let is_of_descriptors = has("accept.emfile") || has("fd.exhausted") || has("fd.pressure");
    if is_of_descriptors {
        causes.extend(
            found
                .victim
                .as_ref()
                .map(|victim| descriptors(victim, found))
                .unwrap_or_default(),
        );
    }
    let overflows = [
        "queue.syn_overflow",
        "queue.ack_overflow",
        "queue.rst_overflow",
        "queue.overflow",
    ];
    if is_of_descriptors {
        // That it does not accept follows from that.
    } else if has("queue.stalled") {
        causes.push(Cause {
            what: "the program has stopped accepting: connections wait, and nobody takes them"
                .to_owned(),
            kind: "stalled".to_owned(),
            strength: Strength::Strong,
            evidence: vec![incident.statement.clone()],
            pid: None,
        });
    } else if overflows.iter().any(|code| has(code)) {
        causes.push(Cause {
            what: "connections come faster than they are accepted".to_owned(),
            kind: "load".to_owned(),
            strength: Strength::Moderate,
            evidence: vec![
                "the queue is full while the program goes on accepting: no accept fails, and none is missing for long"
                    .to_owned(),
            ],
            pid: None,
        });
    }
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.strength));
    causes
}

fn descriptors(victim: &VictimState, found: &Explanation) -> Vec<Cause> {
    let all: u64 = victim.held.iter().map(|held| held.count).sum();
    if all == 0 {
        return Vec::new();
    }
    let held = Looked {
        victim,
        found,
        all,
        growth: growth(victim),
    };
    let mut causes: Vec<Cause> = [
        held.not_closed(),
        held.slow_dependency(),
        held.other_kinds(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if causes.is_empty() {
        causes.extend(held.clients());
    }
    causes
}

fn cause(what: String, kind: &str, strength: Strength, evidence: Vec<String>) -> Cause {
    Cause {
        what,
        kind: kind.to_owned(),
        strength,
        evidence,
        pid: None,
    }
}

/// Descriptors that were looked at, and what is known around them.
struct Looked<'a> {
    victim: &'a VictimState,
    found: &'a Explanation,
    all: u64,
    growth: Option<Growth>,
}

impl Looked<'_> {
    fn share(&self, part: u64) -> f64 {
        number(part) / number(self.all)
    }

    fn of(&self, part: u64) -> String {
        format!("{part} of {} descriptors that were looked at", self.all)
    }

    fn in_state(&self, state: &str) -> impl Iterator<Item = &Held> {
        let held = self.victim.held.iter();
        held.filter(move |held| held.state.as_deref() == Some(state))
    }

    /// Established connections of clients.
    fn accepted(&self) -> u64 {
        let established = self.in_state("ESTABLISHED");
        let accepted = established.filter(|held| held.accepted_at.is_some());
        accepted.map(|held| held.count).sum()
    }

    fn not_closed(&self) -> Option<Cause> {
        let count: u64 = self.in_state("CLOSE_WAIT").map(|held| held.count).sum();
        let share = self.share(count);
        if share < MUCH {
            return None;
        }
        Some(cause(
            "the program does not close connections that their other ends have closed".to_owned(),
            "not_closed",
            if share >= 0.5 {
                Strength::Strong
            } else {
                Strength::Moderate
            },
            vec![format!("{} are connections in CLOSE_WAIT", self.of(count))],
        ))
    }

    fn slow_dependency(&self) -> Option<Cause> {
        let outgoing = self
            .in_state("ESTABLISHED")
            .filter(|held| held.remote.is_some());
        let largest = outgoing.max_by_key(|held| held.count)?;
        let share = self.share(largest.count);
        if share < MUCH / 2.0 {
            return None;
        }
        let at = largest.remote.as_deref().unwrap_or_default();
        let mut evidence = vec![format!(
            "{} lead to {at}, and are established",
            self.of(largest.count)
        )];
        let waits = self
            .found
            .pressure
            .as_ref()
            .and_then(|pressure| pressure.host?.io);
        let waits = waits.filter(|level| level.avg10 >= PRESSED);
        if let Some(level) = waits {
            evidence.push(format!(
                "tasks waited for a disk in {:.0} % of the last ten seconds",
                level.avg10
            ));
        }
        let accepted = self.accepted();
        if accepted > 0 {
            evidence.push(format!(
                "{} are clients, which hold theirs meanwhile",
                self.of(accepted)
            ));
        }
        Some(cause(
            format!(
                "what it depends on, {at}, is slow: its connections there are in use for longer"
            ),
            "slow_dependency",
            match (share >= MUCH, waits.is_some()) {
                (true, true) => Strength::Strong,
                (true, false) | (false, true) => Strength::Moderate,
                (false, false) => Strength::Weak,
            },
            evidence,
        ))
    }

    fn other_kinds(&self) -> Option<Cause> {
        let others = self.victim.held.iter().filter(|held| held.kind != "socket");
        let most = others.max_by_key(|held| held.count)?;
        if self.share(most.count) < 0.5 {
            return None;
        }
        let mut evidence = vec![format!(
            "{} are of the kind {}",
            self.of(most.count),
            most.kind
        )];
        evidence.extend(self.growth.as_ref().map(Growth::words));
        let is_steady = self.growth.as_ref().is_some_and(|growth| growth.is_steady);
        Some(cause(
            format!(
                "the program opens ever more of the kind {} and does not close them",
                most.kind
            ),
            "leak",
            if is_steady {
                Strength::Strong
            } else {
                Strength::Moderate
            },
            evidence,
        ))
    }

    /// Clients hold the descriptors: more of them than before, or ever more that stay.
    fn clients(&self) -> Option<Cause> {
        let growth = self.growth.as_ref();
        let accepted = self.accepted();
        if self.share(accepted) < 0.5 {
            return None;
        }
        let mut evidence = vec![format!(
            "{} are established connections of clients",
            self.of(accepted)
        )];
        evidence.extend(growth.map(Growth::words));
        let healthy = self
            .found
            .healthy
            .as_ref()
            .filter(|healthy| healthy.open > 0);
        let active = healthy.map(|healthy| number(healthy.carried) / number(healthy.open));
        if let (Some(healthy), Some(_)) = (healthy, active) {
            evidence.push(format!(
                "data went over {} of {} of them since it began",
                healthy.carried, healthy.open
            ));
        }
        let is_idle = active.is_some_and(|active| active <= 0.1);
        let is_active = active.is_some_and(|active| active >= 0.5);
        let (what, kind, strength) = match growth {
            Some(growth) if growth.is_steady && is_idle => (
                "connections are kept and not used, and ever more come: a leak, there or in its clients",
                "leak",
                Strength::Strong,
            ),
            Some(growth) if growth.is_steady && !is_active => (
                "ever more connections are kept: a leak, there or in its clients",
                "leak",
                Strength::Moderate,
            ),
            Some(growth) if growth.is_sudden => (
                "more clients came at once than before: load",
                "load",
                if is_active {
                    Strength::Strong
                } else {
                    Strength::Moderate
                },
            ),
            _ if is_active => (
                "its clients use as many connections: load",
                "load",
                Strength::Moderate,
            ),
            _ if is_idle => (
                "its clients keep connections that they do not use",
                "idle",
                Strength::Weak,
            ),
            _ => return None,
        };
        Some(cause(what.to_owned(), kind, strength, evidence))
    }
}

/// How the number of descriptors grew.
struct Growth {
    over: SignedDuration,
    before: u64,
    now: u64,
    /// A little at a time, over all of it.
    is_steady: bool,
    /// Nearly all of it at its end.
    is_sudden: bool,
}

impl Growth {
    fn words(&self) -> String {
        let minutes = self.over.as_secs() / 60;
        let how = match (self.is_steady, self.is_sudden) {
            (true, _) => ", a little at a time",
            (_, true) => ", nearly all of it at its end",
            _ => "",
        };
        format!(
            "in {minutes} min it went from {} to {} descriptors{how}",
            self.before, self.now
        )
    }
}

fn growth(victim: &VictimState) -> Option<Growth> {
    let now = victim.fd?;
    let before = &victim.fd_before;
    let (first, last) = (before.first()?, before.last()?);
    let over = victim.read.duration_since(first.read);
    let grown = now.checked_sub(first.count)?;
    // What is a small part of all says nothing of the rest.
    if over < LONG || before.len() < 3 || grown < now / 4 {
        return None;
    }
    let middle = first.read + over / 2;
    let at_middle = before.iter().rfind(|reading| reading.read <= middle)?;
    let by_middle = number(at_middle.count.saturating_sub(first.count)) / number(grown);
    let at_end = number(now.saturating_sub(last.count)) / number(grown);
    let never_falls = before
        .windows(2)
        .all(|pair| pair[1].count + grown / 20 >= pair[0].count);
    Some(Growth {
        over,
        before: first.count,
        now,
        is_steady: never_falls && (0.25..=0.75).contains(&by_middle) && at_end <= 0.5,
        is_sudden: at_end >= 0.6,
    })
}

/// What set it off.
pub(super) fn trigger(incident: &Incident, found: &Explanation) -> Vec<Cause> {
    let mut causes: Vec<(u32, Cause)> = found
        .started
        .iter()
        .filter(|program| !is_part_of(incident, program.pid))
        .filter_map(|program| candidate(incident, found, program))
        .collect();
    causes.sort_by_key(|(points, _)| std::cmp::Reverse(*points));
    causes.truncate(TOLD);
    causes.into_iter().map(|(_, cause)| cause).collect()
}

/// Who is turned away, or turns away, did not set it off by being there.
fn is_part_of(incident: &Incident, pid: u32) -> bool {
    let victim = incident.victim.process.iter();
    let sufferers = incident.sufferers.iter().map(|one| &one.process);
    victim.chain(sufferers).any(|process| process.pid == pid)
}

fn candidate(incident: &Incident, found: &Explanation, program: &Started) -> Option<(u32, Cause)> {
    let lag = incident.started.duration_since(program.started);
    let mut points = 0_u32;
    let mut evidence = Vec::new();
    if let Some(busy) = &found.busy {
        let used = |users: &[super::User]| {
            let all: f64 = users.iter().map(|user| user.now).sum();
            let own = users.iter().find(|user| user.pid == program.pid)?;
            Some((own.now, own.now / all))
        };
        if let Some((rate, share)) =
            used(&busy.disk).filter(|(rate, share)| *rate >= BUSY && *share >= SOME)
        {
            points += if share >= MUCH { 3 } else { 2 };
            evidence.push(format!(
                "of what the busiest programs moved to and from disks, {:.0} % was its: {:.1} MiB/s",
                share * 100.0,
                rate / BUSY
            ));
            let waits = found
                .pressure
                .as_ref()
                .and_then(|pressure| pressure.host?.io);
            if let Some(level) = waits.filter(|level| level.avg10 >= PRESSED) {
                points += 2;
                evidence.push(format!(
                    "tasks waited for a disk in {:.0} % of the last ten seconds",
                    level.avg10
                ));
            }
        }
        if let Some((percent, _)) =
            used(&busy.cpu).filter(|(percent, share)| *percent >= 50.0 && *share >= MUCH)
        {
            points += 1;
            evidence.push(format!("it used {percent:.0} % of a processor"));
            let waits = found
                .pressure
                .as_ref()
                .and_then(|pressure| pressure.host?.cpu);
            if let Some(level) = waits.filter(|level| level.avg10 >= PRESSED) {
                points += 1;
                evidence.push(format!(
                    "tasks waited for a processor in {:.0} % of the last ten seconds",
                    level.avg10
                ));
            }
        }
    }
    if let Some(clock) = &program.clock {
        points += 1;
        evidence.push(format!("it was started by the clock ({clock})"));
    }
    // What began at the same time has hardly had the time to do harm.
    if lag < SOON {
        points = points.saturating_sub(2);
    }
    if points == 0 {
        return None;
    }
    let still = if program.ended.is_none() {
        "still runs"
    } else {
        "ran when it began"
    };
    evidence.push(format!(
        "it {still}, and began {} before",
        crate::recurrence::lasting(lag)
    ));
    let about = program
        .unit
        .as_ref()
        .map_or(String::new(), |unit| format!(", {unit}"));
    let what = format!(
        "{} (pid {}{about}) began {} before",
        program.comm,
        program.pid,
        crate::recurrence::lasting(lag)
    );
    Some((
        points,
        Cause {
            what,
            kind: "program".to_owned(),
            strength: match points {
                5.. => Strength::Strong,
                3..=4 => Strength::Moderate,
                _ => Strength::Weak,
            },
            evidence,
            pid: Some(program.pid),
        },
    ))
}

#[expect(clippy::cast_precision_loss, reason = "shares are no exact counts")]
fn number(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::{Busy, Healthy, Level, Levels, Pressures, Reading, User},
        history::tests::incident,
        incident::tests::wall,
    };

    const MINUTE: u64 = 60_000;

    fn held(
        kind: &str,
        state: Option<&str>,
        remote: Option<&str>,
        accepted: bool,
        count: u64,
    ) -> Held {
        Held {
            kind: kind.to_owned(),
            state: state.map(str::to_owned),
            remote: remote.map(str::to_owned),
            accepted_at: accepted.then(|| "6432".to_owned()),
            peers: None,
            count,
        }
    }

    fn clients(count: u64) -> Held {
        held("socket", Some("ESTABLISHED"), None, true, count)
    }

    /// Descriptors of each fifth minute of an hour, up to 1024.
    fn found(held: Vec<Held>, before: impl Fn(u64) -> u64, carried: u64) -> Explanation {
        Explanation {
            victim: Some(VictimState {
                read: wall(60 * MINUTE),
                pid: 812,
                fd: Some(1024),
                soft: Some(1024),
                held,
                complete: true,
                fd_before: (0..12)
                    .map(|number| Reading {
                        read: wall(number * 5 * MINUTE),
                        count: before(number),
                    })
                    .collect(),
                ..VictimState::default()
            }),
            healthy: Some(Healthy {
                read: wall(60 * MINUTE),
                listener: "0.0.0.0:6432".to_owned(),
                open: 1000,
                carried,
                peers: Vec::new(),
            }),
            ..Explanation::default()
        }
    }

    fn kinds(found: &Explanation) -> Vec<(String, Strength)> {
        let causes = mechanism(&incident("a", wall(60 * MINUTE)), found);
        assert!(causes.iter().all(|cause| !cause.evidence.is_empty()));
        causes
            .into_iter()
            .map(|cause| (cause.kind, cause.strength))
            .collect()
    }

    #[test]
    fn a_leak_and_a_spike_of_load_are_told_apart() {
        // Never closed, at a steady pace; hardly any is in use.
        let leak = found(vec![clients(1000)], |fifth| 30 + fifth * 80, 10);
        assert_eq!(kinds(&leak), [("leak".to_owned(), Strength::Strong)]);
        // As ever, and then many at once, which are in use.
        let spike = found(vec![clients(1000)], |fifth| 100 + fifth % 3, 900);
        assert_eq!(kinds(&spike), [("load".to_owned(), Strength::Strong)]);
        let files = found(
            vec![held("file", None, None, false, 900), clients(100)],
            |fifth| 30 + fifth * 80,
            90,
        );
        assert_eq!(kinds(&files), [("leak".to_owned(), Strength::Strong)]);
    }

    #[test]
    fn a_slow_dependency_is_told_from_what_is_not_closed() {
        let mut slow = found(
            vec![
                held(
                    "socket",
                    Some("ESTABLISHED"),
                    Some("127.0.0.1:5432"),
                    false,
                    400,
                ),
                clients(600),
            ],
            |fifth| 100 + fifth % 3,
            300,
        );
        assert_eq!(
            kinds(&slow),
            [("slow_dependency".to_owned(), Strength::Moderate)]
        );
        slow.pressure = Some(pressed(80.0));
        assert_eq!(
            kinds(&slow),
            [("slow_dependency".to_owned(), Strength::Strong)]
        );
        let not_closed = found(
            vec![
                held("socket", Some("CLOSE_WAIT"), None, true, 900),
                clients(100),
            ],
            |fifth| 30 + fifth * 80,
            10,
        );
        assert_eq!(
            kinds(&not_closed),
            [("not_closed".to_owned(), Strength::Strong)]
        );
    }

    #[test]
    fn without_evidence_nothing_is_said() {
        let mut nothing = found(
            vec![clients(600), held("pipe", None, None, false, 400)],
            |_| 900,
            200,
        );
        assert_eq!(kinds(&nothing), []);
        nothing.victim = None;
        assert_eq!(kinds(&nothing), []);
        assert_eq!(trigger(&incident("a", wall(0)), &nothing), []);
    }

    fn pressed(io: f64) -> Pressures {
        Pressures {
            read: wall(0),
            host: Some(Levels {
                io: Some(Level {
                    avg10: io,
                    avg60: io,
                }),
                ..Levels::default()
            }),
            cgroup: None,
            unavailable: Vec::new(),
        }
    }

    fn program(comm: &str, pid: u32, minutes_before: u64, clock: Option<&str>) -> Started {
        Started {
            pid,
            comm: comm.to_owned(),
            started: wall((60 - minutes_before) * MINUTE),
            ended: None,
            exe: None,
            argv: None,
            unit: None,
            parent: None,
            clock: clock.map(str::to_owned),
        }
    }

    #[test]
    fn the_program_that_uses_the_disk_comes_first_and_the_victim_never() {
        let user = |pid: u32, now: f64| User {
            pid,
            comm: String::new(),
            now,
            usual: None,
        };
        let found = Explanation {
            started: vec![
                program("ls", 3, 1, None),
                program("logrotate", 2, 12, Some("logrotate.timer")),
                program("pg_dump", 1, 27, Some("backup.timer")),
                program("pgbouncer", 812, 30, Some("pgbouncer.timer")),
            ],
            pressure: Some(pressed(80.0)),
            busy: Some(Busy {
                read: wall(0),
                over_s: 30.0,
                disk: vec![user(1, 90e6), user(812, 80e6), user(2, 1e3)],
                cpu: Vec::new(),
            }),
            ..Explanation::default()
        };
        let causes = trigger(&incident("a", wall(60 * MINUTE)), &found);
        let told: Vec<_> = causes
            .iter()
            .map(|cause| (cause.pid.unwrap(), cause.strength))
            .collect();
        assert_eq!(told, [(1, Strength::Strong), (2, Strength::Weak)]);
        assert_eq!(causes[0].what, "pg_dump (pid 1) began 27 min before");
        assert!(
            causes[0]
                .evidence
                .iter()
                .any(|words| words.contains("disk"))
        );
    }
}
