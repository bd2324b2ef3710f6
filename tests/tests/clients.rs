//! Clients as people run them, none of which waits in connect: curl, Node, Go, and nginx as a
//! proxy. What turnaway counts is what they say themselves.

#[path = "clients/programs.rs"]
mod programs;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{PoisonError, RwLock};

use anyhow::{Result, ensure};
use turnaway_tests::apart;
use turnaway_tests::records::{Key, Peer, Records};
use turnaway_tests::servers::foreground::{folder, free_port};
use turnaway_tests::tracer::{self, Tracer};

use programs::{Client, Proxy, Said, Work};

/// So many connections as are made by one of the tests may keep others from being seen to fail
/// (`lost.missed`), so it runs alone; the others run together.
static MACHINE: RwLock<()> = RwLock::new(());

/// A port that turnaway is to look at.
fn watch(port: u16) -> Result<Tracer> {
    Tracer::start(&tracer::binary()?, &["-o", "json", "-P", &port.to_string()])
}

/// A failure of one kind, and how every client calls it.
struct Kind {
    reason: &'static str,
    errno: &'static str,
    curl: &'static str,
    go: &'static str,
    nginx: &'static str,
}

const REFUSED: Kind = Kind {
    reason: "connect.refused",
    errno: "ECONNREFUSED",
    curl: "7",
    go: "111",
    nginx: "111: Connection refused",
};

const TIMEOUT: Kind = Kind {
    reason: "connect.timeout",
    errno: "ETIMEDOUT",
    curl: "28",
    go: "110",
    nginx: "110: Connection timed out",
};

const NO_PORT: Kind = Kind {
    reason: "connect.no_port",
    errno: "EADDRNOTAVAIL",
    curl: "7",
    go: "99",
    nginx: "99: Cannot assign requested address",
};

/// How often each of them connects: numbers that cannot be taken for one another.
const CURL: u64 = 17;
const NODE: u64 = 23;
const GO: u64 = 31;
const NGINX: u64 = 41;

/// Lets all of them connect where that fails, and returns who failed how often.
fn fail(kind: &Kind, dir: &Path, target: SocketAddrV4) -> Result<Vec<(Said, u64)>> {
    let all_at_once = |count| Work {
        target,
        count,
        most: count,
    };
    let proxy = Proxy::start(dir, target)?;
    let curl = Client::curl(all_at_once(CURL))?;
    let node = Client::node(all_at_once(NODE))?;
    let go = Client::go(all_at_once(GO))?;
    let answered = proxy.ask(NGINX)?;
    ensure!(
        answered == NGINX,
        "nginx reached something {answered} times"
    );
    let mut failed = Vec::new();
    for (said, word, count) in [
        (curl.finish()?, kind.curl, CURL),
        (node.finish()?, kind.errno, NODE),
        (go.finish()?, kind.go, GO),
        (proxy.said()?, kind.nginx, NGINX),
    ] {
        said.only(word, count)?;
        let connects = said.connects.unwrap_or(count);
        failed.push((said, connects));
    }
    println!("{failed:?}");
    Ok(failed)
}

/// Everything of these clients that turnaway counted, and nothing else, is what they said.
fn compare(
    kind: &Kind,
    target: SocketAddrV4,
    failed: &[(Said, u64)],
    records: &Records,
) -> Result<()> {
    let ours = |key: &&Key| failed.iter().any(|(said, _)| said.pid == key.process.pid);
    let truth: BTreeMap<u32, u64> = failed
        .iter()
        .map(|(said, count)| (said.pid, *count))
        .collect();
    let mut totals = BTreeMap::new();
    for key in records.summary.totals.iter().filter(ours) {
        let twice = totals.insert(key.process.pid, key.count.unwrap_or(0));
        ensure!(twice.is_none(), "a second total: {key:?}");
    }
    ensure!(
        totals == truth,
        "they said {truth:?}, totals are {totals:?}"
    );
    let mut counts = BTreeMap::new();
    for key in records.counts.iter().filter(ours) {
        *counts.entry(key.process.pid).or_insert(0) += key.count.unwrap_or(0);
    }
    ensure!(
        counts == truth,
        "they said {truth:?}, counts are {counts:?}"
    );
    let all = records.summary.totals.iter().chain(&records.counts);
    for key in all.chain(&records.events).filter(ours) {
        let comm = failed
            .iter()
            .find(|(said, _)| said.pid == key.process.pid)
            .map(|(said, _)| said.comm);
        let peer = key.peer.as_ref().map(Peer::name);
        let wanted = format!("{} {}", target.ip(), target.port());
        ensure!(
            key.reason == kind.reason
                && key.errno == kind.errno
                && key.call() == "connect"
                && key.process.comm.as_deref() == comm
                && peer.as_ref() == Some(&wanted),
            "{key:?}"
        );
    }
    for (said, _) in failed {
        let shown = |key: &Key| key.process.pid == said.pid;
        ensure!(
            records.events.iter().any(shown),
            "none of {said:?} was shown"
        );
    }
    Ok(())
}

fn nothing_lost(records: &Records) -> Result<()> {
    let lost = records.summary.lost;
    let all = lost.ring + lost.map + lost.missed.unwrap_or(0) + lost.output;
    ensure!(all + records.summary.other == 0, "{lost:?}");
    Ok(())
}

/// All of it in a network of its own, which `prepare` makes ready and returns what it must keep.
fn check<T>(
    kind: &Kind,
    address: Ipv4Addr,
    prepare: impl FnOnce(SocketAddrV4) -> Result<T> + Send,
) {
    let _together = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let target = SocketAddrV4::new(address, free_port().unwrap());
    let dir = folder().unwrap();
    let tracer = watch(target.port()).unwrap();
    let failed = apart::in_netns(|| {
        let _kept = prepare(target)?;
        fail(kind, dir.path(), target)
    })
    .unwrap();
    let records = tracer.stop().unwrap().records().unwrap();
    nothing_lost(&records).unwrap();
    compare(kind, target, &failed, &records).unwrap();
}

#[test]
fn a_closed_port_refuses() {
    check(&REFUSED, Ipv4Addr::LOCALHOST, |_| Ok(()));
}

#[test]
fn a_black_hole_does_not_answer() {
    check(&TIMEOUT, BLACK_HOLE, |_| black_hole());
}

fn black_hole() -> Result<()> {
    // What is sent to an address that is not the loopback interface's own, by that interface, is
    // dropped without a word.
    ip(&["route", "add", &format!("{BLACK_HOLE}/32"), "dev", "lo"])?;
    // A SYN is sent twice, and given up after three seconds.
    apart::set("ipv4/tcp_syn_retries", "1")
}

/// Timers end connections on processors where other connections come and go all the time: an
/// interrupt may come while a hook runs for those.
#[test]
fn connections_that_come_and_go_hide_no_failure() {
    const TIMEOUTS: u64 = 900;
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let dir = folder().unwrap();
    let target = SocketAddrV4::new(BLACK_HOLE, free_port().unwrap());
    let port = free_port().unwrap();
    let tracer = watch(target.port()).unwrap();
    let failed = apart::in_netns(|| {
        black_hole()?;
        let backend = programs::backend(dir.path(), port)?;
        let timing_out = (0..3)
            .map(|_| {
                Client::go(Work {
                    target,
                    count: TIMEOUTS,
                    most: TIMEOUTS,
                })
            })
            .collect::<Result<Vec<Client>>>()?;
        let coming_and_going = (2..5)
            .map(|last| {
                Client::go(Work {
                    target: SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), port),
                    count: 24_000,
                    most: 20,
                })
            })
            .collect::<Result<Vec<Client>>>()?;
        let mut failed = Vec::new();
        for client in timing_out {
            let said = client.finish()?;
            said.only(TIMEOUT.go, TIMEOUTS)?;
            failed.push((said, TIMEOUTS));
        }
        for client in coming_and_going {
            client.finish()?.only("ok", 24_000)?;
        }
        drop(backend);
        Ok(failed)
    })
    .unwrap();
    let records = tracer.stop().unwrap().records().unwrap();
    compare(&TIMEOUT, target, &failed, &records).unwrap();
    nothing_lost(&records).unwrap();
}

/// An address of nobody's, for documentation (RFC 5737).
const BLACK_HOLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status()?;
    ensure!(status.success(), "ip {arguments:?}: {status}");
    Ok(())
}

#[test]
fn all_ports_are_used() {
    check(&NO_PORT, Ipv4Addr::LOCALHOST, |target| {
        apart::set("ipv4/ip_local_port_range", "20000 20003")?;
        let listener = TcpListener::bind(target)?;
        let used = (0..4)
            .map(|_| TcpStream::connect(target))
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok((listener, used))
    });
}

/// Connections that are made and closed are nothing to tell of; one that is refused by the way is
/// told, so turnaway was awake.
#[test]
fn good_connections_are_not_told() {
    const EACH: u64 = 10_000;
    const NGINX: u64 = 2_000;
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let dir = folder().unwrap();
    let port = free_port().unwrap();
    let tracer = watch(port).unwrap();
    let (good, refused) = apart::in_netns(|| {
        let backend = programs::backend(dir.path(), port)?;
        // Each has an address, and so all local ports, to itself.
        let work = |last| Work {
            target: SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), port),
            count: EACH,
            most: 20,
        };
        let proxy = Proxy::start(dir.path(), work(1).target)?;
        let curl = Client::curl(work(2))?;
        let node = Client::node(work(3))?;
        let go = Client::go(work(4))?;
        for _ in 0..NGINX / 20 {
            ensure!(proxy.ask(20)? == 0, "nginx did not reach it");
        }
        let (curl, node, go) = (curl.finish()?, node.finish()?, go.finish()?);
        curl.only("0", EACH)?;
        node.only("ok", EACH)?;
        go.only("ok", EACH)?;
        let logged = proxy.said()?;
        ensure!(logged.words.is_empty(), "{logged:?}");
        // The backend's port is the one that is looked at, so it ends before somebody is refused.
        drop(backend);
        let refused = Client::curl(Work {
            count: 1,
            most: 1,
            ..work(2)
        })?
        .finish()?;
        refused.only(REFUSED.curl, 1)?;
        Ok(([curl, node, go, logged].map(|said| said.pid), refused))
    })
    .unwrap();
    let records = tracer.stop().unwrap().records().unwrap();
    let wrong: Vec<&Key> = records
        .summary
        .totals
        .iter()
        .chain(&records.counts)
        .chain(&records.events)
        .filter(|key| good.contains(&key.process.pid))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let target = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), port);
    compare(&REFUSED, target, &[(refused, 1)], &records).unwrap();
}
