//! The demo's server: it keeps every connection, as a service with slow clients does, and has
//! a low limit of descriptors.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most descriptors, so that some clients are served and others are not.
pub const LIMIT: u64 = 16;

/// Most failures: it then leaves its listener alone, so that nothing is counted by nobody but itself.
pub const FAILURES: u64 = 20;

/// How long it leaves its listener alone after a failure: nginx's time.
const PAUSE: Duration = Duration::from_millis(500);

/// Says its port, accepts once standard input has a line until that ends, and says how many accepts
/// failed and how many did not.
pub fn run() -> Result<()> {
    // A process is named by its program, which is all of xtask here.
    std::fs::write("/proc/self/comm", "demo-server").context("cannot name the process")?;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(LIMIT),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).context("cannot lower the limit of descriptors")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
    listener.set_nonblocking(true)?;
    tell("port", listener.local_addr()?.port().into())?;

    let mut input = std::io::stdin();
    // A line, or the end of a demo that was cut short.
    let _ = input.read(&mut [0; 16])?;
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    std::thread::spawn(move || {
        // Whatever ends it, the demo is over.
        let _ = input.read(&mut [0; 16]);
        told.store(true, Ordering::Relaxed);
    });
    let (mut failed, mut clients) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        if failed == FAILURES {
            std::thread::sleep(PAUSE / 10);
            continue;
        }
        match listener.accept() {
            Ok((client, _)) => clients.push(client),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE / 10),
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
                failed += 1;
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
    tell("failed", failed)?;
    tell("served", clients.len() as u64)
}

fn tell(what: &str, number: u64) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{what} {number}")?;
    Ok(output.flush()?)
}
