//! One process that is refused by many: each place is another kind of failure.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::holder::{told_to_go, wait_for_line};

/// Connections are begun in so many steps a second.
const STEPS: u32 = 20;

/// The address of a place: of 127/8, but not this machine's usual ones.
fn place(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number)
}

/// Connects `total` times, to so many places in turn, within so many seconds, once a line was read; says how often it was
/// refused.
pub(super) fn run(places: u32, total: u32, seconds: u32) -> Result<()> {
    ensure!(places > 0 && total >= places, "too few connections");
    // Nobody listens on it at any of them: it was to be had for all addresses.
    let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?
        .local_addr()?
        .port();
    if !told_to_go()? {
        return Ok(());
    }
    let steps = STEPS * seconds;
    let step = Duration::from_secs(1) / STEPS;
    let mut due = Instant::now();
    let mut refused = 0_u32;
    for number in 1..=steps {
        // As many as are due by now, so that they add up to the total.
        let by_now = u64::from(total) * u64::from(number) / u64::from(steps);
        while u64::from(refused) < by_now {
            let address = SocketAddrV4::new(place(refused % places), port);
            match TcpStream::connect(address) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
                other => bail!("{address}: {other:?}"),
            }
        }
        due += step;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    println!("{refused}");
    wait_for_line()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn places_are_as_many_as_they_should_be() {
        let places: HashSet<Ipv4Addr> = (0..100_000).map(place).collect();
        assert_eq!(places.len(), 100_000);
        assert!(places.iter().all(Ipv4Addr::is_loopback));
    }
}
