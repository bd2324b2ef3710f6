//! What is about to turn connections away on this host, found in what was read of it (pure).

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use serde::Serialize;
use turnaway_common::{Reason, reason::errno};

use crate::{
    advice::{self, AboutListener, Advice, Advised, Network, System, advise, advise_listener},
    attribute::{
        Identity,
        survey::{Survey, Surveyed},
    },
    event::{self, NofileLimit, Op},
    queues::listener_of,
    record::{HolderFields, ListenerFields},
    sink::name,
    sockets::{Listener, Namespace},
    text,
};

/// From here on a limit is nearly used up, percent.
const NEARLY: u64 = 80;
/// A soft limit of open files that comes from nobody having thought of it.
const DEFAULT_NOFILE: u64 = 1024;

/// What was read of the host.
#[derive(Debug, Default)]
pub struct Facts {
    /// The network namespaces and who listens there; the first is turnaway's own.
    pub namespaces: Vec<Namespace>,
    /// All processes, and which of the listeners each holds.
    pub survey: Survey,
    /// `/proc` has every process of the host.
    pub all_processes: bool,
    /// Listeners, by inode number, that no process was found to hold when looked at twice.
    pub held_by_nobody: BTreeSet<u64>,
    /// Who the processes are that [`matters`] names.
    pub identities: HashMap<u32, Rc<Identity>>,
    /// Open files of the whole host, from `fs.file-nr`.
    pub open_files: Option<u64>,
    /// Limits of the whole host.
    pub system: System,
}

/// A kind of risk. Its code is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Code {
    /// More than half of a queue is full now.
    #[serde(rename = "listener.queue_filling")]
    QueueFilling,
    /// A process is over 80 % of its soft limit of open files.
    #[serde(rename = "process.fd_pressure")]
    FdPressure,
    /// The table of tracked connections of a network namespace is over 80 % full.
    #[serde(rename = "net.conntrack_filling")]
    ConntrackFilling,
    /// The host's table of files is over 80 % full.
    #[serde(rename = "host.files_filling")]
    FilesFilling,
    /// No process holds a listener.
    #[serde(rename = "listener.held_by_nobody")]
    HeldByNobody,
    /// A process that listens has a soft limit of 1024 open files, or less.
    #[serde(rename = "process.nofile_low")]
    NofileLow,
    /// `net.ipv4.tcp_syncookies` is 0 where somebody listens.
    #[serde(rename = "net.syncookies_off")]
    SyncookiesOff,
    /// `net.ipv4.tcp_abort_on_overflow` is 1 where somebody listens.
    #[serde(rename = "net.abort_on_overflow")]
    AbortOnOverflow,
    /// A backlog is as long as `net.core.somaxconn` lets it be, and may have been cut.
    #[serde(rename = "listener.backlog_cut")]
    BacklogCut,
}

impl Code {
    /// As JSON and text have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFilling => "listener.queue_filling",
            Self::FdPressure => "process.fd_pressure",
            Self::ConntrackFilling => "net.conntrack_filling",
            Self::FilesFilling => "host.files_filling",
            Self::HeldByNobody => "listener.held_by_nobody",
            Self::NofileLow => "process.nofile_low",
            Self::SyncookiesOff => "net.syncookies_off",
            Self::AbortOnOverflow => "net.abort_on_overflow",
            Self::BacklogCut => "listener.backlog_cut",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::BacklogCut | Self::NofileLow | Self::AbortOnOverflow => Severity::Hint,
            _ => Severity::Warning,
        }
    }
}

/// How near it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Connections will be lost if this goes on, or under the next burst.
    Warning,
    /// It may be meant so, or never matter.
    Hint,
}

/// A risk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Risk {
    /// What kind.
    pub code: Code,
    /// How near.
    pub severity: Severity,
    /// Whose: where several processes hold a listener, the one with the lowest id but for 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<HolderFields>,
    /// On what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerFields>,
    /// Inode number of the network namespace that it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// The number that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// What it is measured against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// In words, one line, safe to show: whose, and the numbers.
    pub text: String,
    /// What to type, one line, safe to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What keeps it from coming back, one line, safe to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
}

/// What could not be found out, and what of that is a risk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By kind, the nearest first.
    pub risks: Vec<Risk>,
    /// In words, one line each.
    pub unknown: Vec<String>,
}

/// Whether advice on a process may be wanted, so that it should be known who it is.
#[must_use]
pub fn matters(process: &Surveyed) -> bool {
    nofile_low(process).is_some() || fd_pressure(process).is_some()
}

fn nofile_low(process: &Surveyed) -> Option<u64> {
    let soft = process.nofile?.soft?;
    (soft <= DEFAULT_NOFILE && !process.holds.is_empty()).then_some(soft)
}

/// Open descriptors and their limit.
fn fd_pressure(process: &Surveyed) -> Option<(u64, u64)> {
    let (used, soft) = (process.used?, process.nofile?.soft?);
    nearly_full(used, soft).then_some((used, soft))
}

fn nearly_full(used: u64, limit: u64) -> bool {
    u128::from(used) * 100 > u128::from(limit) * u128::from(NEARLY)
}

/// The risks in what was read, and what was not to be read.
#[must_use]
pub fn risks(facts: &Facts) -> Found {
    let mut risks = Vec::new();
    let mut unknown = Vec::new();
    for process in &facts.survey.processes {
        of_process(facts, process, &mut risks);
    }
    let holders = facts.survey.holders();
    let mut inside = HashMap::new();
    for process in &facts.survey.processes {
        if let Some(netns) = process.netns {
            inside.entry(netns).or_insert(process.pid);
        }
    }
    let own = facts.namespaces.first();
    // How many connections may be tracked.
    let host = own.and_then(|own| own.conntrack.as_ref()?.max);
    let own = own.map(|own| own.inode);
    for namespace in &facts.namespaces {
        let inode = namespace.inode;
        let place = Place {
            inode,
            network: if own == Some(inode) {
                Network::Own
            } else {
                Network::Other {
                    inode,
                    pid: inside.get(&inode).copied(),
                }
            },
        };
        for listener in &namespace.listeners {
            let about = About {
                place,
                found: listener,
                listener: listener_of(listener, inode),
                holders: holders.get(&listener.inode).map_or(&[], Vec::as_slice),
            };
            of_listener(facts, namespace, &about, &mut risks);
        }
        of_namespace(place, namespace, host, &mut risks, &mut unknown);
    }
    of_host(facts, &mut risks, &mut unknown);
    if !facts.all_processes {
        unknown.push(
            "whether anybody holds the listeners that nobody was found to hold: not all processes \
             are seen from here (a pid namespace, or no CAP_SYS_PTRACE)"
                .to_owned(),
        );
    }
    of_survey(&facts.survey, &mut unknown);
    // Stable: within a kind, processes by id and listeners by namespace.
    risks.sort_by_key(|risk| risk.code);
    Found { risks, unknown }
}

/// Where something is.
#[derive(Clone, Copy)]
struct Place {
    inode: u32,
    network: Network,
}

impl Place {
    /// To be put behind what is there; nothing for turnaway's own.
    fn suffix(self) -> String {
        match self.network {
            Network::Own => String::new(),
            Network::Other { inode, .. } => format!(" in net:[{inode}]"),
        }
    }
}

/// What all of them have in common.
fn risk(code: Code, value: Option<u64>, limit: Option<u64>, text: String, advice: Advice) -> Risk {
    Risk {
        code,
        severity: code.severity(),
        process: None,
        listener: None,
        netns: None,
        value,
        limit,
        text,
        advice: advice.now,
        lasting: advice.lasting,
    }
}

fn of_process(facts: &Facts, process: &Surveyed, risks: &mut Vec<Risk>) {
    let name = called(process);
    if let Some((used, soft)) = fd_pressure(process) {
        let text = format!(
            "{name}: {used} of {soft} descriptors are open (soft limit of open files), over {NEARLY} %"
        );
        let advice = nofile_advice(facts, process, soft);
        risks.push(Risk {
            process: Some(holder(process)),
            ..risk(Code::FdPressure, Some(used), Some(soft), text, advice)
        });
    }
    if let Some(soft) = nofile_low(process) {
        let used = process
            .used
            .map_or_else(|| "unknown".to_owned(), |used| used.to_string());
        let text =
            format!("{name}: listens with a soft limit of {soft} open files ({used} are open now)");
        let advice = nofile_advice(facts, process, soft);
        risks.push(Risk {
            process: Some(holder(process)),
            ..risk(Code::NofileLow, process.used, Some(soft), text, advice)
        });
    }
}

fn nofile_advice(facts: &Facts, process: &Surveyed, soft: u64) -> Advice {
    let unknown = Rc::default();
    let identity = facts.identities.get(&process.pid).unwrap_or(&unknown);
    advise(
        Reason::AcceptEmfile,
        &Advised {
            pid: process.pid,
            identity,
            errno: errno::EMFILE,
            op: Op::Syscall,
            nofile: Some(NofileLimit {
                soft: Some(soft),
                copied: false,
            }),
            limits: process.nofile,
            system: facts.system,
        },
    )
}

/// A listener, where it is and who holds it.
struct About<'a> {
    place: Place,
    found: &'a Listener,
    listener: event::Listener,
    holders: &'a [&'a Surveyed],
}

impl About<'_> {
    /// The holder to name. systemd holds the listeners of those it starts.
    fn process(&self) -> Option<&Surveyed> {
        let other = self.holders.iter().find(|process| process.pid != 1);
        other.or(self.holders.first()).copied()
    }

    fn shown(&self) -> String {
        let name = name::listener(&self.listener).unwrap_or_else(|| "a listener".to_owned());
        format!("{name}{}", self.place.suffix())
    }

    /// Whose, and which.
    fn what(&self) -> String {
        let shown = self.shown();
        match (self.process(), self.holders.len()) {
            (None, _) => format!("{shown}, held by nobody who was found"),
            (Some(process), 1) => format!("{}: {shown}", called(process)),
            (Some(process), all) => format!("{} and {} more: {shown}", called(process), all - 1),
        }
    }

    fn risk(&self, code: Code, numbers: Option<(u64, u64)>, text: String, advice: Advice) -> Risk {
        let (value, limit) = numbers.unzip();
        Risk {
            process: self.process().map(holder),
            listener: Some(ListenerFields::new(Some(self.found.inode), &self.listener)),
            netns: Some(self.place.inode),
            ..risk(code, value, limit, text, advice)
        }
    }

    /// Why nobody accepts is what there is to know; where nobody is known, who would have to.
    fn queue_advice(&self) -> Advice {
        let about = AboutListener {
            listener: &self.listener,
            pid: self.process().map(|process| process.pid),
        };
        Advice {
            now: advise_listener(Reason::QueueStalled, &about)
                .now
                .or_else(|| {
                    advice::held_by_nobody(self.place.network, self.found.address.as_ref()).now
                }),
            lasting: advise_listener(Reason::QueueOverflow, &about).lasting,
            note: None,
        }
    }
}

fn of_listener(facts: &Facts, namespace: &Namespace, about: &About<'_>, risks: &mut Vec<Risk>) {
    let found = about.found;
    let (depth, limit) = (u64::from(found.depth), u64::from(found.limit));
    if depth * 2 > limit {
        // The kernel lets in one more than the limit.
        let full = if depth > limit { ": full" } else { "" };
        let text = format!(
            "{}: {depth} connections wait of {limit} that may{full}",
            about.what()
        );
        let numbers = Some((depth, limit));
        risks.push(about.risk(Code::QueueFilling, numbers, text, about.queue_advice()));
    }
    if facts.held_by_nobody.contains(&found.inode) {
        let text = format!(
            "{}: no process was found that holds it, so nobody may accept: a descriptor on its \
             way to another process or in io_uring's own table, or a socket of the kernel's (NFS)",
            about.shown()
        );
        let advice = advice::held_by_nobody(about.place.network, found.address.as_ref());
        risks.push(about.risk(Code::HeldByNobody, None, text, advice));
    }
    let somaxconn = namespace.settings.and_then(|settings| settings.somaxconn);
    if let Some(somaxconn) = somaxconn.filter(|most| *most == found.limit) {
        let text = format!(
            "{}: a backlog of {limit} may have been cut by net.core.somaxconn={somaxconn}; what \
             the program asked for is not known",
            about.what()
        );
        let numbers = Some((limit, u64::from(somaxconn)));
        let advice = advice::backlog_cut(about.place.network, somaxconn);
        risks.push(about.risk(Code::BacklogCut, numbers, text, advice));
    }
}

fn of_namespace(
    place: Place,
    namespace: &Namespace,
    host: Option<u64>,
    risks: &mut Vec<Risk>,
    unknown: &mut Vec<String>,
) {
    let about = |risk: Risk| Risk {
        netns: Some(place.inode),
        ..risk
    };
    let is_tcp = |listener: &&Listener| listener.protocol != 0;
    let listening = namespace.listeners.iter().filter(is_tcp).count();
    let settings = namespace.settings.unwrap_or_default();
    let place_of = format!("{listening} TCP listeners{}", place.suffix());
    if listening > 0 {
        if settings.abort_on_overflow.is_some_and(|value| value != 0) {
            let text = format!(
                "{place_of}: clients that find a queue full are reset at once \
                 (net.ipv4.tcp_abort_on_overflow=1), instead of trying again"
            );
            let value = settings.abort_on_overflow.map(u64::from);
            let advice = advice::abort_on_overflow(place.network);
            risks.push(about(risk(
                Code::AbortOnOverflow,
                value,
                None,
                text,
                advice,
            )));
        }
        if settings.syncookies == Some(0) {
            let text = format!(
                "{place_of}: SYNs that find the request queue full are dropped \
                 (net.ipv4.tcp_syncookies=0)"
            );
            let advice = Advice {
                now: Some(place.network.command("sysctl -w net.ipv4.tcp_syncookies=1")),
                lasting: Some(
                    place
                        .network
                        .lasting("net.ipv4.tcp_syncookies = 1", "syncookies"),
                ),
                note: None,
            };
            risks.push(about(risk(
                Code::SyncookiesOff,
                Some(0),
                None,
                text,
                advice,
            )));
        }
        for (name, value) in [
            ("net.core.somaxconn", settings.somaxconn),
            ("net.ipv4.tcp_abort_on_overflow", settings.abort_on_overflow),
            ("net.ipv4.tcp_syncookies", settings.syncookies),
        ] {
            if value.is_none() {
                unknown.push(format!("{name} of net:[{}]", place.inode));
            }
        }
    }
    if let Some(problem) = &namespace.problem {
        unknown.push(format!(
            "other listeners of net:[{}]: {}",
            place.inode,
            text::terminal(problem.as_bytes())
        ));
    }
    if let Some(table) = &namespace.conntrack
        && let Some(max) = table.limit(host)
        && nearly_full(table.count, max)
    {
        let count = table.count;
        let text = format!(
            "{count} connections are tracked{}, of {max} that may be (nf_conntrack_max), over \
             {NEARLY} %: new ones are dropped when it is full",
            place.suffix()
        );
        let advice = advice::conntrack(Some(max));
        risks.push(about(risk(
            Code::ConntrackFilling,
            Some(count),
            Some(max),
            text,
            advice,
        )));
    }
}

fn of_host(facts: &Facts, risks: &mut Vec<Risk>, unknown: &mut Vec<String>) {
    let (Some(open), Some(most)) = (facts.open_files, facts.system.file_max) else {
        unknown.push("open files of the host (fs.file-nr, fs.file-max)".to_owned());
        return;
    };
    if nearly_full(open, most) {
        let text =
            format!("{open} of {most} files of the host are open (fs.file-max), over {NEARLY} %");
        let advice = advise(
            Reason::AcceptEnfile,
            &Advised {
                pid: 0,
                identity: &Identity::default(),
                errno: errno::ENFILE,
                op: Op::Syscall,
                nofile: None,
                limits: None,
                system: facts.system,
            },
        );
        risks.push(risk(
            Code::FilesFilling,
            Some(open),
            Some(most),
            text,
            advice,
        ));
    }
}

fn of_survey(survey: &Survey, unknown: &mut Vec<String>) {
    if !survey.complete {
        unknown.push("processes for which there was no time".to_owned());
    }
    if survey.unread > 0 {
        unknown.push(format!(
            "all descriptors of {} processes: what they hold may seem to be nobody's",
            survey.unread
        ));
    }
    let unmeasured = survey
        .processes
        .iter()
        .filter(|process| process.used.is_none() || process.nofile.is_none())
        .count();
    if unmeasured > 0 {
        unknown.push(format!(
            "how many descriptors {unmeasured} processes have, or may have"
        ));
    }
}

/// `name[pid]`
fn called(process: &Surveyed) -> String {
    let name = process
        .comm
        .as_deref()
        .map_or_else(|| "?".to_owned(), text::terminal);
    format!("{name}[{}]", process.pid)
}

fn holder(process: &Surveyed) -> HolderFields {
    HolderFields {
        pid: process.pid,
        comm: process.comm.as_deref().map(text::json),
    }
}
