//! What helps, for one victim: now, for good, and what each risks.

use serde::Serialize;

use crate::{
    context::Explanation,
    history::{Incident, Process},
};

/// Something that helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// What it does.
    pub what: String,
    /// What to type, or to set where.
    pub how: String,
    /// Whether it lasts, or is gone with the process.
    pub lasting: bool,
    /// What it risks.
    pub risk: String,
}

/// A limit that suits a busy server.
const ROOMY: u64 = 65_536;
/// A queue that suits a busy server.
const DEEP: u64 = 4096;

/// What helps against an incident. turnaway itself applies none of it.
#[must_use]
pub fn remedies(incident: &Incident, explanation: Option<&Explanation>) -> Vec<Remedy> {
    let has = |code: &str| {
        incident
            .reasons
            .iter()
            .any(|total| total.reason.as_str() == code)
    };
    let mut found = Vec::new();
    let process = incident.victim.process.as_ref();
    if !incident.is_of_client() {
        if has("accept.emfile") || has("fd.exhausted") || has("fd.pressure") {
            let hard = explanation.and_then(|explanation| explanation.victim.as_ref()?.hard);
            descriptors(incident, process, hard, &mut found);
        }
        if has("accept.enfile") || has("fd.table_pressure") {
            found.push(Remedy {
                what: "more files on the host".to_owned(),
                how: "sysctl -w fs.file-max=$(( $(sysctl -n fs.file-max) * 2 ))".to_owned(),
                lasting: false,
                risk:
                    "each open file takes about 1 KiB of kernel memory that cannot be swapped; if \
                       one program leaks, it only takes longer: look at who holds most"
                        .to_owned(),
            });
        }
        if [
            "queue.syn_overflow",
            "queue.ack_overflow",
            "queue.rst_overflow",
            "queue.overflow",
            "queue.unix_full",
        ]
        .iter()
        .any(|code| has(code))
        {
            queue(incident, process, &mut found);
        }
        if has("queue.stalled") || has("queue.slow") {
            stalled(process, &mut found);
        }
    }
    if has("connect.no_port") {
        found.push(Remedy {
            what: "more local ports for outgoing connections".to_owned(),
            how: "sysctl -w net.ipv4.ip_local_port_range='10240 65000'".to_owned(),
            lasting: false,
            risk: "a server that is started later may find its port in use: list such in \
                   net.ipv4.ip_local_reserved_ports"
                .to_owned(),
        });
    }
    if has("net.conntrack_full") {
        found.push(Remedy {
            what: "room for more tracked connections".to_owned(),
            how: "sysctl -w net.netfilter.nf_conntrack_max=$(( $(sysctl -n net.netfilter.nf_conntrack_max) * 2 ))"
                .to_owned(),
            lasting: false,
            risk: "each takes about 320 bytes of kernel memory".to_owned(),
        });
    }
    found
}

fn descriptors(
    incident: &Incident,
    process: Option<&Process>,
    hard: Option<u64>,
    found: &mut Vec<Remedy>,
) {
    let limit = incident.fd.and_then(|fd| fd.limit);
    let wanted = limit.map_or(ROOMY, |limit| limit.saturating_mul(4).max(ROOMY));
    let Some(process) = process else { return };
    if incident.ended.is_none() {
        // Up to the hard limit it needs no more than to be root.
        let limits =
            match hard.filter(|hard| limit.is_none_or(|limit| *hard >= limit.saturating_mul(2))) {
                Some(hard) => format!("{}:", wanted.min(hard)),
                None => format!("{wanted}:{wanted}"),
            };
        found.push(Remedy {
            what: "a higher limit for the running process; it takes effect at once".to_owned(),
            how: format!("prlimit --pid {} --nofile={limits}", process.pid),
            lasting: false,
            risk: "it accepts more work than before: what it connects to must bear that; of a leak it \
                   only puts off the end"
                .to_owned(),
        });
    }
    if let Some(unit) = service(process) {
        found.push(Remedy {
            what: "a higher limit with every start".to_owned(),
            how: format!(
                "systemctl edit {unit}    # [Service] LimitNOFILE={wanted}\nsystemctl restart {unit}"
            ),
            lasting: true,
            risk: "the restart drops its connections: choose the time".to_owned(),
        });
    }
    if let Some((how, risk)) = limit_of(process.comm.as_deref()) {
        found.push(Remedy {
            what: "the program's own settings, which must agree with the limit".to_owned(),
            how: how.to_owned(),
            lasting: true,
            risk: risk.to_owned(),
        });
    }
}

/// A unit that has limits of its own.
fn service(process: &Process) -> Option<&str> {
    let unit = process.unit.as_deref()?;
    (process.container.is_none() && unit.ends_with(".service")).then_some(unit)
}

/// Where programs have limits of their own for connections or descriptors.
fn limit_of(comm: Option<&str>) -> Option<(&'static str, &'static str)> {
    Some(match comm? {
        "pgbouncer" => (
            "pgbouncer.ini: max_client_conn plus the sum of pool sizes must stay below the limit; query_wait_timeout frees clients that wait",
            "more clients wait, and longer, while PostgreSQL is slow",
        ),
        "nginx" => (
            "nginx.conf: worker_rlimit_nofile, at least twice worker_connections for a proxy",
            "each connection to an upstream counts, too",
        ),
        "haproxy" => (
            "haproxy.cfg: global maxconn; ulimit-n is worked out from it, unless it is set",
            "memory: about 33 KiB for each connection",
        ),
        "redis-server" | "valkey-server" => (
            "redis.conf: maxclients; it is lowered in silence to the limit less 32",
            "memory for the clients' buffers",
        ),
        "php-fpm" | "php-fpm8.2" | "php-fpm8.4" => (
            "php-fpm pool: rlimit_files",
            "files and sockets of every script count",
        ),
        "postgres" => (
            "postgresql.conf: max_connections and max_files_per_process",
            "memory for each connection",
        ),
        _ => return None,
    })
}

fn queue(incident: &Incident, process: Option<&Process>, found: &mut Vec<Remedy>) {
    let backlog = incident
        .listeners
        .iter()
        .filter_map(|one| one.backlog)
        .max();
    let wanted = backlog.map_or(DEEP, |backlog| {
        u64::from(backlog).saturating_mul(4).max(DEEP)
    });
    let is_unix = incident.listeners.iter().all(|one| one.path.is_some());
    found.push(Remedy {
        what: "a higher cap for queues; programs must ask for more, too".to_owned(),
        how: if is_unix && !incident.listeners.is_empty() {
            format!("sysctl -w net.core.somaxconn={wanted}    # caps AF_UNIX listeners, too")
        } else {
            format!("sysctl -w net.core.somaxconn={wanted}")
        },
        lasting: false,
        risk: "a longer queue hides slowness: clients wait instead of being refused".to_owned(),
    });
    let comm = process.and_then(|process| process.comm.as_deref());
    let own = match comm {
        Some("nginx") => Some(format!("nginx.conf: listen … backlog={wanted};")),
        Some("haproxy") => Some(format!("haproxy.cfg: bind … backlog {wanted}")),
        Some("redis-server" | "valkey-server") => Some(format!("redis.conf: tcp-backlog {wanted}")),
        Some("pgbouncer") => Some(format!("pgbouncer.ini: listen_backlog = {wanted}")),
        Some("node") => Some(format!("server.listen({{ port, backlog: {wanted} }})")),
        Some(name) if name.starts_with("php-fpm") => {
            Some(format!("php-fpm pool: listen.backlog = {wanted}"))
        }
        Some("memcached") => Some(format!("memcached -b {wanted}")),
        Some("gunicorn") => Some(format!("gunicorn --backlog {wanted}")),
        _ => None,
    };
    if let Some(how) = own {
        found.push(Remedy {
            what: "a longer queue of the program's own listener".to_owned(),
            how,
            lasting: true,
            risk: "it takes effect when the listener is opened anew".to_owned(),
        });
    }
    found.push(Remedy {
        what: "several queues for one port".to_owned(),
        how: "SO_REUSEPORT with one listener for each worker (nginx: listen … reuseport)"
            .to_owned(),
        lasting: true,
        risk:
            "a worker that hangs keeps its share of new connections waiting, and reloads may drop \
               what is queued"
                .to_owned(),
    });
}

fn stalled(process: Option<&Process>, found: &mut Vec<Remedy>) {
    let Some(process) = process else { return };
    let pid = process.pid;
    found.push(Remedy {
        what: "see what it waits for".to_owned(),
        how: format!("cat /proc/{pid}/wchan; cat /proc/{pid}/stack; grep State /proc/{pid}/status"),
        lasting: false,
        risk: "none: it only reads".to_owned(),
    });
    if let Some(unit) = service(process) {
        found.push(Remedy {
            what: "start it anew, if it never accepts again".to_owned(),
            how: format!("systemctl restart {unit}"),
            lasting: false,
            risk: "drops its connections, and what is queued".to_owned(),
        });
    }
}
