//! A receiver of lines over TCP that can be taken down and put up again, and notes what came.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::wait;

/// The receiver, which is up until this is dropped.
pub struct Collector {
    shared: Arc<Mutex<State>>,
    /// Where it listens.
    pub port: u16,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    up: bool,
    connections: Vec<TcpStream>,
}

impl Collector {
    /// Listens on any port.
    pub fn start() -> Result<Self> {
        let mut collector = Self {
            shared: Arc::default(),
            port: 0,
            server: None,
        };
        collector.up()?;
        Ok(collector)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }

    /// Listens again.
    pub fn up(&mut self) -> Result<()> {
        let listener = wait::until("the port", || {
            Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).ok())
        })?;
        self.port = listener.local_addr()?.port();
        self.lock().up = true;
        let shared = Arc::clone(&self.shared);
        self.server = Some(thread::spawn(move || {
            let mut readers = Vec::new();
            for connection in listener.incoming().flatten() {
                let Ok(other) = connection.try_clone() else {
                    continue;
                };
                {
                    let mut state = lock(&shared);
                    if !state.up {
                        break;
                    }
                    state.connections.push(other);
                }
                let shared = Arc::clone(&shared);
                readers.push(thread::spawn(move || note(&connection, &shared)));
            }
            drop(listener);
            for reader in readers {
                let _ = reader.join();
            }
        }));
        Ok(())
    }

    /// Goes down as if it were killed: what it has not read yet is lost with it.
    pub fn down(&mut self) {
        {
            let mut state = self.lock();
            state.up = false;
            for connection in state.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        // Has the server see that it is down.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }

    /// How many lines came.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().lines.len()
    }

    /// The records that came, in their order.
    pub fn records(&self) -> Result<Vec<Value>> {
        let lines = self.lock().lines.clone();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).with_context(|| line.clone()))
            .collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.down();
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes whole lines only, and none that comes after it went down.
fn note(connection: &TcpStream, shared: &Mutex<State>) {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        let mut state = lock(shared);
        if line.ends_with('\n') && state.up {
            state.lines.push(line.trim_end().to_owned());
        }
        line.clear();
    }
}

/// Whoever connects to a socket at a path, line by line.
pub fn lines_at(path: &Path) -> Result<std::sync::mpsc::Receiver<String>> {
    let listener = UnixListener::bind(path)?;
    let (sender, lines) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let reader: BufReader<UnixStream> = BufReader::new(connection);
            for line in reader.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        }
    });
    Ok(lines)
}
