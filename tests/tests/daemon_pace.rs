//! How fast something fails is not how bad it is: the daemon, and servers that fail at a pace.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use turnaway_tests::daemon::{Daemon, configure, failures, fired_and_over};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::servers::foreground::folder;
use turnaway_tests::servers::receiver::{Manner, Receiver};
use turnaway_tests::tracer;

/// Within which it must be told.
const SOON: Duration = Duration::from_secs(3);
/// The daemon's time goes on in steps of so much.
const TICK: Duration = Duration::from_secs(1);

/// A server that fails once in five seconds, as pgbouncer does, and a receiver that takes half a minute
/// to answer, which nobody has to wait for.
#[test]
fn one_failure_in_5_s_fires_once_and_is_over_once() {
    const PACE: Duration = Duration::from_secs(5);
    const TIMES: u64 = 6;
    const RESOLVE: Duration = Duration::from_secs(8);
    let dir = folder().unwrap();
    let quick = Receiver::start(Manner::Takes).unwrap();
    let slow = Receiver::start(Manner::TakesAfter(Duration::from_secs(30))).unwrap();
    let mut receivers = String::new();
    for (name, receiver) in [("slow", &slow), ("quick", &quick)] {
        let url = receiver.url();
        writeln!(
            receivers,
            "[[notify]]\ntype = \"webhook\"\nname = \"{name}\"\nurl = \"{url}\""
        )
        .unwrap();
    }
    let config = configure(dir.path(), &receivers, RESOLVE).unwrap();
    let turnaway = tracer::binary().unwrap();
    let mut daemon = Daemon::start(&turnaway, &config, &dir.path().join("state")).unwrap();
    let mut acceptor = Acceptor::run(&tracer::scenarios().unwrap()).unwrap();
    let port = acceptor.port;

    let begun = Instant::now();
    let mut last = begun;
    for time in 1..=TIMES {
        let due = begun + PACE * u32::try_from(time - 1).unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        last = Instant::now();
        assert_eq!(acceptor.fail(1).unwrap(), time);
        daemon.until_counted("accept.emfile", port, time).unwrap();
        if time == 1 {
            daemon.fires(port).unwrap();
            quick.until_told(port, "firing").unwrap();
            let took = begun.elapsed();
            assert!(took < SOON, "{took:?}");
        }
    }
    let over = daemon.over(port).unwrap();
    let took = last.elapsed();
    assert!(took + TICK >= RESOLVE && took < RESOLVE + SOON, "{took:?}");
    assert_eq!(failures(&over, "accept.emfile"), Some(TIMES));
    quick.until_told(port, "resolved").unwrap();
    // The slow one has been asked, and nobody has waited for its answer.
    slow.until_arrived(1).unwrap();
    fired_and_over(&daemon.stop().unwrap().told(port)).unwrap();
    let told = quick.told(port);
    assert_eq!(told, ["firing", "resolved"]);
}

/// A server fails once and accepts no more: as long as clients wait, it is not over.
#[test]
fn after_one_failure_nobody_accepts() {
    const RESOLVE: Duration = Duration::from_secs(6);
    let dir = folder().unwrap();
    let config = configure(dir.path(), "", RESOLVE).unwrap();
    let turnaway = tracer::binary().unwrap();
    let mut daemon = Daemon::start(&turnaway, &config, &dir.path().join("state")).unwrap();
    let mut acceptor = Acceptor::run(&tracer::scenarios().unwrap()).unwrap();
    let port = acceptor.port;
    let clients: Vec<_> = (0..2).map(|_| acceptor.client().unwrap()).collect();

    let failed = Instant::now();
    assert_eq!(acceptor.fail(1).unwrap(), 1);
    let fired = daemon.fires(port).unwrap();
    let took = failed.elapsed();
    assert!(took < SOON, "{took:?}");
    daemon.until_counted("queue.stalled", port, 1).unwrap();
    // Its end would have been told by now, were it not for those who wait.
    thread::sleep(RESOLVE * 3);
    let told = daemon.told(port).unwrap();
    assert!(
        told.iter().all(|record| record["status"] == "firing"),
        "{told:#?}"
    );

    let recovered = jiff::Timestamp::now();
    assert_eq!(acceptor.recover().unwrap(), 2);
    let over = daemon.over(port).unwrap();
    assert_eq!(over["id"], fired["id"]);
    assert_eq!(failures(&over, "accept.emfile"), Some(1));
    assert_eq!(failures(&over, "queue.stalled"), Some(1));
    let ended: jiff::Timestamp = over["ended"].as_str().unwrap().parse().unwrap();
    let after = ended.duration_since(recovered).abs();
    assert!(after < jiff::SignedDuration::from_secs(2), "{over}");
    fired_and_over(&daemon.stop().unwrap().told(port)).unwrap();
    drop(clients);
}
