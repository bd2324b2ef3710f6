//! Loops of successful calls, as fast as they go: what turnaway's hooks cost those is measured by
//! `cargo xtask bench`.

mod redis;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::redis::Connections;
use crate::{apart, sys};

/// The loads that need no other program: with "redis" and "redis-connects", all.
pub const ALL: &[&str] = &["getppid", "open", "accept", "unix"];

/// Between two looks at the clock.
const BATCH: u32 = 64;

/// Runs a load for so long: how often a second it did what it does.
pub fn run(name: &str, duration: Duration) -> Result<f64> {
    match name {
        "getppid" => repeat(duration, || {
            let _ = sys::parent();
            Ok(())
        }),
        "open" => repeat(duration, || {
            std::fs::File::open("/dev/null")?;
            Ok(())
        }),
        "accept" => apart::in_netns(|| {
            // Ports that connections have left behind are searched through by each that comes later: without
            // this, that search is most of what is measured, and takes longer the more ran before.
            apart::set("ipv4/tcp_max_tw_buckets", "0")?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            repeat(duration, || {
                let client = TcpStream::connect(address)?;
                // The client closes first, as clients do.
                drop(client);
                drop(listener.accept()?);
                Ok(())
            })
        }),
        "unix" => {
            let dir = tempfile::tempdir()?;
            let path = dir.path().join("load.sock");
            let listener = UnixListener::bind(&path)?;
            repeat(duration, || {
                drop(UnixStream::connect(&path)?);
                drop(listener.accept()?);
                Ok(())
            })
        }
        "redis" => redis::run(Connections::Kept, duration),
        "redis-connects" => redis::run(Connections::New, duration),
        _ => bail!(
            "no load is called {name}: there are {}, redis and redis-connects",
            ALL.join(", ")
        ),
    }
}

fn repeat(duration: Duration, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    once().context("the first time")?;
    let begun = Instant::now();
    let mut count = 0_u32;
    loop {
        for _ in 0..BATCH {
            once()?;
        }
        count += 1;
        let passed = begun.elapsed();
        if passed >= duration {
            return Ok(f64::from(count) * f64::from(BATCH) / passed.as_secs_f64());
        }
    }
}
