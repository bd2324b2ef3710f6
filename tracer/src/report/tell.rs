//! From facts to a document.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::{
    Block, Entry, Facts,
    document::Table,
    facts::Again,
    gather::DETAILED,
    plot::{Calendar, Figure, Line, Mark, Plot},
};
use crate::{
    context::{Cause, Explanation, Level, Started, Waiting},
    history::Incident,
    recurrence::lasting,
};

/// Most lines of a timeline, and of similar lists.
const MOST: usize = 100;
/// More victims than these are told of one by one only if they have a pattern.
const FEW: usize = 5;

/// Tells of incidents: one in full, several as a list, or, for what has room for it, both.
#[must_use]
pub fn tell(facts: &Facts, zone: &TimeZone, in_full: bool) -> Vec<Block> {
    let teller = Teller { zone };
    match facts.incidents.as_slice() {
        [] => vec![Block::Text("No incidents.".to_owned())],
        [one] => {
            let mut blocks = teller.entry(one);
            blocks.extend(recurrences(&facts.recurrences));
            vec![Block::Incident(
                one.incident.id.clone(),
                teller.title(&one.incident),
                blocks,
            )]
        }
        several => {
            let mut blocks = vec![
                Block::Title(1, "Incidents".to_owned()),
                Block::Text(teller.overview(several)),
            ];
            blocks.extend(recurrences(&facts.recurrences));
            blocks.push(Block::Figure(Box::new(Figure::Calendar(
                teller.calendar(several),
            ))));
            blocks.push(Block::Table(teller.list(several)));
            if in_full {
                let told = &several[..several.len().min(DETAILED)];
                blocks.extend(told.iter().map(|one| {
                    Block::Incident(
                        one.incident.id.clone(),
                        teller.title(&one.incident),
                        teller.entry(one),
                    )
                }));
                if several.len() > DETAILED {
                    blocks.push(Block::Text(format!(
                        "The {DETAILED} newest of {} are told in full: turnaway report ID tells of any other.",
                        several.len()
                    )));
                }
            }
            blocks
        }
    }
}

struct Teller<'a> {
    zone: &'a TimeZone,
}

impl Teller<'_> {
    fn time(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned_datetime(self.zone.clone());
        zoned.strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string()
    }

    fn clock(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned_datetime(self.zone.clone());
        zoned.strftime("%H:%M:%S%.3f").to_string()
    }

    fn title(&self, incident: &Incident) -> String {
        let reason = incident.reason().map_or("", |code| code.as_str());
        format!(
            "{reason}, {}, {}",
            incident.subject(),
            self.time(incident.started)
        )
    }

    fn overview(&self, several: &[Entry]) -> String {
        let failures = several
            .iter()
            .map(|one| one.incident.failures())
            .fold(0, u64::saturating_add);
        let first = several.iter().map(|one| one.incident.started).min();
        let last = several.iter().map(|one| one.incident.started).max();
        let open = several
            .iter()
            .filter(|one| one.incident.ended.is_none())
            .count();
        let span = match (first, last) {
            (Some(first), Some(last)) => {
                format!(" from {} to {}", self.time(first), self.time(last))
            }
            _ => String::new(),
        };
        let open = match open {
            0 => String::new(),
            1 => ", one of which lasts".to_owned(),
            open => format!(", {open} of which last"),
        };
        format!(
            "{} incidents{span}{open}; {failures} failures in all.",
            several.len()
        )
    }

    fn list(&self, several: &[Entry]) -> Table {
        let mut table = Table {
            head: vec![
                "began", "lasted", "severity", "victim", "reason", "failures", "id",
            ],
            ..Table::default()
        };
        for one in several {
            let incident = &one.incident;
            table.incidents.push(incident.id.clone());
            table.rows.push(vec![
                self.time(incident.started),
                duration(incident),
                incident.severity.name().to_owned(),
                incident.subject(),
                incident
                    .reason()
                    .map_or("", |code| code.as_str())
                    .to_owned(),
                incident.failures().to_string(),
                incident.id.clone(),
            ]);
        }
        table
    }

    /// One incident in full.
    fn entry(&self, entry: &Entry) -> Vec<Block> {
        let incident = &entry.incident;
        let mut facts = vec![
            ("began", self.time(incident.started)),
            ("lasted", duration(incident)),
            ("severity", incident.severity.name().to_owned()),
            ("host", incident.host.clone()),
            ("victim", incident.name()),
        ];
        let mut fact = |name, value: String| {
            if !value.is_empty() {
                facts.push((name, value));
            }
        };
        fact("cgroup", victim_cgroup(incident));
        fact("listener", incident.places().join(", "));
        fact("target", incident.victim.target.clone().unwrap_or_default());
        let reasons = incident.reasons.iter().map(|total| {
            let about = if total.approximate == Some(true) {
                "about "
            } else {
                ""
            };
            format!("{} {about}{}", total.reason, total.count)
        });
        fact("failures", reasons.collect::<Vec<_>>().join(", "));
        fact(
            "descriptors",
            descriptors(incident, entry.explanation.as_ref()),
        );
        fact("queue", queue(incident));
        if let Some(before) = &incident.again_of {
            fact("again of", before.clone());
        }
        fact("id", incident.id.clone());
        let mut blocks = vec![Block::Text(incident.statement.clone()), Block::Facts(facts)];
        if let Some(explanation) = &entry.explanation {
            blocks.extend(self.causes(explanation));
        }
        blocks.extend(self.sufferers(incident, entry.explanation.as_ref()));
        if !entry.remedies.is_empty() {
            blocks.push(Block::Title(2, "What helps".to_owned()));
            for remedy in &entry.remedies {
                let lasting = if remedy.lasting { "for good" } else { "now" };
                blocks.push(Block::Text(format!("{lasting}: {}", remedy.what)));
                blocks.push(Block::Code(remedy.how.clone()));
                blocks.push(Block::Text(format!("risk: {}", remedy.risk)));
            }
        }
        blocks.extend(plots(entry));
        if let Some(explanation) = &entry.explanation {
            blocks.extend(self.surroundings(explanation));
        }
        if !incident.timeline.is_empty() {
            blocks.push(Block::Title(2, "What happened".to_owned()));
            let mut lines: Vec<String> = incident
                .timeline
                .iter()
                .take(MOST)
                .map(|line| format!("{} {}", self.clock(line.time), line.text))
                .collect();
            let more = incident.untold + (incident.timeline.len() - lines.len()) as u64;
            if more > 0 {
                lines.push(format!("… and {more} lines more"));
            }
            blocks.push(Block::List(lines));
        }
        blocks
    }

    fn causes(&self, explanation: &Explanation) -> Vec<Block> {
        let mut blocks = vec![Block::Title(2, "Likely cause".to_owned())];
        let mut candidates = |of: &str, causes: &[Cause]| {
            if causes.is_empty() {
                blocks.push(Block::Text(format!("{of}: no candidate")));
            }
            for cause in causes {
                let strength = cause.strength.name();
                blocks.push(Block::Text(format!("{of}: {} ({strength})", cause.what)));
                blocks.push(Block::List(cause.evidence.clone()));
            }
        };
        candidates("how", &explanation.mechanism);
        candidates("what set it off", &explanation.trigger);
        blocks.push(Block::Text(format!(
            "as of {}",
            self.time(explanation.taken)
        )));
        blocks
    }

    fn sufferers(&self, incident: &Incident, explanation: Option<&Explanation>) -> Vec<Block> {
        let mut lines: Vec<String> = incident
            .sufferers
            .iter()
            .map(|one| {
                format!(
                    "{}: {} failures, {} to {}",
                    one.process.name(),
                    one.count,
                    self.clock(one.first),
                    self.clock(one.last)
                )
            })
            .collect();
        if incident.others_suffered > 0 {
            lines.push(format!(
                "other clients: {} failures",
                incident.others_suffered
            ));
        }
        let waiting = explanation.and_then(|explanation| explanation.waiting.as_ref());
        lines.extend(waiting.and_then(Waiting::words));
        if let Some(healthy) = explanation.and_then(|explanation| explanation.healthy.as_ref()) {
            lines.push(format!(
                "not: {} open connections of {}, {} of which carried data meanwhile: a health check over \
                 one of them sees nothing",
                healthy.open, healthy.listener, healthy.carried
            ));
        }
        if lines.is_empty() {
            return Vec::new();
        }
        vec![
            Block::Title(2, "Who suffered".to_owned()),
            Block::List(lines),
        ]
    }

    fn surroundings(&self, explanation: &Explanation) -> Vec<Block> {
        let mut blocks = vec![Block::Title(2, "What went on".to_owned())];
        let mut lines = Vec::new();
        if let Some(pressure) = &explanation.pressure {
            for (of, levels) in [("host", pressure.host), ("its cgroup", pressure.cgroup)] {
                let Some(levels) = levels else { continue };
                let level = |name: &str, level: Option<Level>| {
                    level.map(|level| {
                        format!(
                            "{name} {:.1} % ({:.1} % of the minute)",
                            level.avg10, level.avg60
                        )
                    })
                };
                let levels = [
                    level("processor", levels.cpu),
                    level("disk", levels.io),
                    level("disk, all of it", levels.io_full),
                    level("memory", levels.memory),
                ];
                let levels: Vec<String> = levels.into_iter().flatten().collect();
                lines.push(
                    format!("pressure of the {of}: {}", levels.join(", "))
                        .replace("the its", "its"),
                );
            }
            lines.extend(
                pressure
                    .unavailable
                    .iter()
                    .map(|what| format!("not available: {what}")),
            );
        }
        if let Some(busy) = &explanation.busy {
            for user in busy.disk.iter().take(3) {
                let usual = user.usual.map_or(String::new(), |usual| {
                    format!(" (usually {}/s)", bytes(usual))
                });
                lines.push(format!(
                    "disk: {} (pid {}) {}/s{usual}",
                    user.comm,
                    user.pid,
                    bytes(user.now)
                ));
            }
            for user in busy.cpu.iter().take(3) {
                let usual = user
                    .usual
                    .map_or(String::new(), |usual| format!(" (usually {usual:.0} %)"));
                lines.push(format!(
                    "processor: {} (pid {}) {:.0} %{usual}",
                    user.comm, user.pid, user.now
                ));
            }
        }
        if let Some(victim) = &explanation.victim {
            for held in victim.held.iter().take(5) {
                lines.push(format!("holds {} {}", held.count, held.words()));
            }
        }
        if let Some(memory) = explanation.memory {
            #[expect(clippy::cast_precision_loss, reason = "it is rounded for people")]
            let text = |number: u64| bytes(number as f64);
            lines.push(format!(
                "memory: {} of {} available, {} swapped",
                text(memory.available),
                text(memory.total),
                text(memory.swap_used)
            ));
        }
        if let Some(files) = explanation.files {
            lines.push(format!(
                "files of the host: {} of {}",
                files.used, files.limit
            ));
        }
        for one in explanation.started.iter().take(20) {
            lines.push(self.started(one));
        }
        if explanation.started_more > 0 {
            lines.push(format!("… and {} programs more", explanation.started_more));
        }
        match explanation.started_lost {
            Some(0) => {}
            Some(lost) => lines.push(format!("{lost} starts of programs were not seen")),
            None => lines.push("not available: which programs were started".to_owned()),
        }
        blocks.push(Block::List(lines));
        blocks
    }

    fn started(&self, one: &Started) -> String {
        let unit = one
            .unit
            .as_ref()
            .map_or(String::new(), |unit| format!(", {unit}"));
        let clock = one
            .clock
            .as_ref()
            .map_or(String::new(), |clock| format!(", by {clock}"));
        let argv = one
            .argv
            .as_ref()
            .map_or(String::new(), |argv| format!(": {argv}"));
        let ended = match one.ended {
            Some(ended) => format!("ran until {}", self.clock(ended)),
            None => "still ran".to_owned(),
        };
        format!(
            "{} {} (pid {}{unit}{clock}) began, {ended}{argv}",
            self.clock(one.started),
            one.comm,
            one.pid
        )
    }

    fn calendar(&self, several: &[Entry]) -> Calendar {
        let mut days: BTreeMap<Date, u64> = BTreeMap::new();
        let mut hours = vec![vec![0; 24]; 7];
        for one in several {
            let at = self.zone.to_datetime(one.incident.started);
            *days.entry(at.date()).or_default() += 1;
            let weekday = usize::try_from(at.weekday().to_monday_zero_offset()).unwrap_or(0);
            let hour = usize::try_from(at.hour()).unwrap_or(0);
            hours[weekday][hour] += 1;
        }
        Calendar { days, hours }
    }
}

fn recurrences(recurrences: &[Again]) -> Vec<Block> {
    let mut lines = Vec::new();
    let mut precursors = Vec::new();
    let mut patternless = 0;
    for again in recurrences {
        // What happened once is in the list.
        if again.onsets.len() < 2 {
            continue;
        }
        if again.recurrence.pattern.is_none() && recurrences.len() > FEW {
            patternless += 1;
            continue;
        }
        lines.push(format!(
            "{} ({}): {}",
            again.subject, again.reason, again.recurrence.words
        ));
        precursors.extend(again.before.iter().take(5).map(|one| one.words.clone()));
    }
    lines.truncate(MOST);
    if patternless > 0 {
        lines.push(format!(
            "{patternless} other victims several times each, without a pattern that chance does not make as well"
        ));
    }
    if lines.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Title(2, "Again".to_owned()), Block::List(lines)];
    if !precursors.is_empty() {
        precursors.dedup();
        blocks.push(Block::Text("What always ran before:".to_owned()));
        blocks.push(Block::List(precursors));
    }
    blocks
}

fn plots(entry: &Entry) -> Vec<Block> {
    let incident = &entry.incident;
    let samples = &entry.samples;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Vec::new();
    };
    let end = incident.ended.unwrap_or(last.time).max(last.time);
    let lead = end.duration_since(first.time.min(incident.started)) / 3;
    let close = first.time.min(incident.started) - lead.max(SignedDuration::from_secs(30));
    // What set it off may have begun long before: the pressure is shown from then on.
    let far = beginning(entry, close);
    let marks = marks(entry);
    let line = |name: &'static str, of: fn(&crate::history::Sample) -> Option<f64>| Line {
        name,
        points: samples
            .iter()
            .filter_map(|sample| Some((sample.time, of(sample)?)))
            .collect(),
        is_limit: false,
    };
    let limit = |name, of| Line {
        is_limit: true,
        ..line(name, of)
    };
    let mut pressures = vec![
        line("disk", |sample| sample.io),
        line("processor", |sample| sample.cpu),
        line("memory", |sample| sample.memory),
    ];
    for minute in entry.pressures.iter().rev() {
        if minute.time < first.time {
            let values = [minute.io, minute.cpu, minute.memory];
            for (line, value) in pressures.iter_mut().zip(values) {
                line.points.extend(value.map(|value| (minute.time, value)));
            }
        }
    }
    for line in &mut pressures {
        line.points.sort_by_key(|(time, _)| *time);
    }
    let plot = |title, unit, lines: Vec<Line>| Plot {
        title,
        unit,
        from: if title == PRESSURE { far } else { close },
        until: end,
        began: incident.started,
        lines: lines
            .into_iter()
            .filter(|line| !line.points.is_empty())
            .collect(),
        marks: marks.clone(),
    };
    let plots = [
        plot(
            "Failures",
            "a second",
            vec![line("failures", |sample| Some(number(sample.failures)))],
        ),
        plot(
            "Accept queue",
            "connections",
            vec![
                line("waiting", |sample| sample.queue.map(number)),
                limit("limit", |sample| sample.backlog.map(number)),
            ],
        ),
        plot(
            "Descriptors",
            "open",
            vec![
                line("open", |sample| sample.fd_used.map(number)),
                limit("limit", |sample| sample.fd_limit.map(number)),
            ],
        ),
        plot(PRESSURE, "% of the time", pressures),
    ];
    let mut blocks: Vec<Block> = plots
        .into_iter()
        .filter(|plot| !plot.lines.is_empty())
        .map(|plot| Block::Figure(Box::new(Figure::Plot(plot))))
        .collect();
    if !blocks.is_empty() {
        blocks.insert(0, Block::Title(2, "How it went".to_owned()));
    }
    blocks
}

/// Programs that began.
fn marks(entry: &Entry) -> Vec<Mark> {
    entry
        .explanation
        .iter()
        .flat_map(|explanation| &explanation.started)
        .take(20)
        .map(|one| Mark {
            at: one.started,
            what: one.comm.clone(),
        })
        .collect()
}

const PRESSURE: &str = "Pressure";

/// Where a time axis begins that has room for what set it off.
fn beginning(entry: &Entry, close: Timestamp) -> Timestamp {
    let mut from = close;
    // What is thought to have set it off is shown, however long before that was.
    let triggers = entry
        .explanation
        .iter()
        .flat_map(|explanation| &explanation.trigger);
    for pid in triggers.filter_map(|cause| cause.pid) {
        let started = entry
            .explanation
            .iter()
            .flat_map(|explanation| &explanation.started);
        for one in started.filter(|one| one.pid == pid) {
            from = from.min(one.started - SignedDuration::from_secs(30));
        }
    }
    from
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
fn number(number: u64) -> f64 {
    number as f64
}

fn duration(incident: &Incident) -> String {
    match incident.ended {
        Some(ended) => lasting(ended.duration_since(incident.started)),
        None => "lasts".to_owned(),
    }
}

fn victim_cgroup(incident: &Incident) -> String {
    let process = incident.victim.process.as_ref();
    process
        .and_then(|process| process.cgroup.clone())
        .unwrap_or_default()
}

fn descriptors(incident: &Incident, explanation: Option<&Explanation>) -> String {
    // A limit that was raised since says nothing of what it was.
    if let Some(victim) = explanation.and_then(|explanation| explanation.victim.as_ref())
        && let (Some(open), Some(limit)) = (victim.fd, victim.soft)
    {
        return format!("{open} of {limit} when it began");
    }
    match incident.fd.map(|fd| (fd.used, fd.limit)) {
        Some((Some(used), Some(limit))) => format!("{used} of {limit}"),
        Some((None, Some(limit))) => format!("limit {limit}"),
        _ => String::new(),
    }
}

fn queue(incident: &Incident) -> String {
    let fullest = incident.listeners.iter().max_by_key(|one| one.queue);
    match fullest.map(|one| (one.queue, one.backlog)) {
        Some((Some(depth), Some(backlog))) => format!("{depth} waiting, limit {backlog}"),
        _ => String::new(),
    }
}

/// Bytes as people write them.
pub(super) fn bytes(number: f64) -> String {
    let mut number = number;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return if unit == "B" {
                format!("{number:.0} B")
            } else {
                format!("{number:.1} {unit}")
            };
        }
        number /= 1024.0;
    }
    format!("{number:.1} TiB")
}
