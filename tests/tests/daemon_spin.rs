//! A server that fails as fast as it can, under the daemon. On its own, since it keeps a processor
//! busy.

use std::time::{Duration, Instant};

use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure, failures, fired_and_over};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::servers::foreground::folder;
use turnaway_tests::tracer;

#[test]
fn a_spin_fires_once_and_is_counted_exactly() {
    const SPIN: Duration = Duration::from_secs(8);
    let dir = folder().unwrap();
    let config = configure(dir.path(), "", Duration::from_secs(3)).unwrap();
    let turnaway = tracer::binary().unwrap();
    let mut daemon = Daemon::start(&turnaway, &config, &dir.path().join("state")).unwrap();
    let mut acceptor = Acceptor::run(&tracer::scenarios().unwrap()).unwrap();
    let (pid, port) = (acceptor.pid, acceptor.port);

    let begun = Instant::now();
    // Somebody reads what it tells while it spins.
    let spinner = std::thread::spawn(move || {
        let tally = acceptor.spin(SPIN)?;
        anyhow::Ok((acceptor, tally))
    });
    daemon.fires(port).unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let (_acceptor, tally) = spinner.join().unwrap().unwrap();
    println!("{} failures a second", tally / SPIN.as_secs());
    assert!(tally > 100_000, "that is no spin: {tally}");
    daemon.until_counted("accept.emfile", port, tally).unwrap();
    daemon.over(port).unwrap();

    let ended = daemon.stop().unwrap();
    let told = ended.told(port);
    let over = fired_and_over(&told).unwrap();
    assert_eq!(failures(over, "accept.emfile"), Some(tally));
    assert_eq!(told.len(), 2, "{told:#?}");
    let summary = ended.records.last().unwrap();
    let ours =
        |total: &&Value| total["process"]["pid"] == pid && total["reason"] == "accept.emfile";
    let totals: Vec<&Value> = summary["totals"]
        .as_array()
        .unwrap()
        .iter()
        .filter(ours)
        .collect();
    assert!(
        matches!(totals[..], [total] if total["count"] == tally),
        "{tally}: {totals:#?}"
    );
    assert_eq!(summary["lost"]["map"], 0, "{}", summary["lost"]);
}
