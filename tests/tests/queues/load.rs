//! Clients of a server, and what came of them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use turnaway_tests::wait;

/// How many clients there are at a time.
pub(crate) const CLIENTS: u32 = 4;

/// Clients that come one after the other, ask and wait for the answer.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Held by each client until it has its answer.
    gate: Arc<RwLock<()>>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: AtomicU64,
    /// Established, and reset before an answer.
    pub(crate) reset: AtomicU64,
    /// Established, and closed without an answer.
    pub(crate) empty: AtomicU64,
    /// Not established.
    pub(crate) refused: AtomicU64,
}

impl Load {
    pub(crate) fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let gate = Arc::new(RwLock::new(()));
        let tally = Arc::new(Tally::default());
        let threads = (0..CLIENTS)
            .map(|_| {
                let (stop, gate, tally) =
                    (Arc::clone(&stop), Arc::clone(&gate), Arc::clone(&tally));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let _open = gate.read().unwrap_or_else(PoisonError::into_inner);
                        ask(port, &tally);
                    }
                })
            })
            .collect();
        Self {
            stop,
            threads,
            gate,
            tally,
        }
    }

    /// Waits until so many more have been answered.
    pub(crate) fn wait_for(&self, more: u64) {
        let answered = || self.tally.answered.load(Ordering::Relaxed);
        let enough = answered() + more;
        wait::until_true("answers", || Ok(answered() >= enough)).unwrap();
    }

    /// All have their answer, and none comes until what this returns is dropped.
    pub(crate) fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more client, who has connected and has not asked yet.
    pub(crate) fn connected(&self, port: u16) -> Late {
        Late {
            stream: TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap(),
            tally: Arc::clone(&self.tally),
        }
    }

    pub(crate) fn finish(self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.tally
    }
}

/// A client who asks when it is told to.
pub(crate) struct Late {
    stream: TcpStream,
    tally: Arc<Tally>,
}

impl Late {
    pub(crate) fn ask(self) {
        ask_on(self.stream, &self.tally);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn ask(port: u16, tally: &Tally) {
    match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
        Ok(stream) => ask_on(stream, tally),
        // It was established, and reset before its thread ran again.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => count(&tally.reset),
        Err(_) => count(&tally.refused),
    }
}

fn ask_on(mut stream: TcpStream, tally: &Tally) {
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let mut answer = Vec::new();
    let asked = stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .and_then(|()| stream.read_to_end(&mut answer).map(drop));
    match asked {
        Ok(()) if answer.starts_with(b"HTTP/1") => count(&tally.answered),
        Ok(()) => count(&tally.empty),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => count(&tally.reset),
        Err(error) => panic!("a client: {error}"),
    }
}
