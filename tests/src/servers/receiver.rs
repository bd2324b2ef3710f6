//! A receiver of alerts over HTTP that does as it is told, and keeps a record of what came.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::wait;
use anyhow::{Context as _, Result};
use serde_json::Value;

/// What it does with a request, after it has noted it.
#[derive(Clone, Debug)]
pub enum Manner {
    /// It answers 200.
    Takes,
    /// It answers this, with the request's head in the body.
    Answers(u16),
    /// It answers this to requests whose body holds a word, and 200 to others.
    ChokesOn(u16, &'static str),
    /// It takes so long to answer 200.
    TakesAfter(Duration),
    /// It keeps whoever asks waiting until it is told something else.
    Waits,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method, path and headers.
    pub head: String,
    /// What was sent.
    pub body: Value,
    /// What it was answered.
    pub answer: u16,
}

impl Request {
    /// The incident and its status, of a native body.
    #[must_use]
    pub fn told(&self) -> (String, String) {
        let text = |name: &str| self.body[name].as_str().unwrap_or_default().to_owned();
        (text("id"), text("status"))
    }
}

/// The receiver. It goes on for as long as the test's process does.
#[derive(Clone)]
pub struct Receiver {
    shared: Arc<(Mutex<State>, Condvar)>,
    /// Where it listens.
    pub port: u16,
}

struct State {
    manner: Manner,
    arrived: usize,
    answered: Vec<Request>,
}

impl Receiver {
    /// Listens on any port.
    pub fn start(manner: Manner) -> Result<Self> {
        Self::start_at(0, manner)
    }

    /// Listens on a port.
    pub fn start_at(port: u16, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let state = State {
            manner,
            arrived: 0,
            answered: Vec::new(),
        };
        let receiver = Self {
            shared: Arc::new((Mutex::new(state), Condvar::new())),
            port: listener.local_addr()?.port(),
        };
        let server = receiver.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let server = server.clone();
                // A client that gives up is no error here.
                thread::spawn(move || server.serve(connection));
            }
        });
        Ok(receiver)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// From now on it does otherwise.
    pub fn becomes(&self, manner: Manner) {
        self.lock().manner = manner;
        self.shared.1.notify_all();
    }

    /// Requests that it took, in order.
    #[must_use]
    pub fn took(&self) -> Vec<Request> {
        let state = self.lock();
        let taken = state
            .answered
            .iter()
            .filter(|request| request.answer == 200);
        taken.cloned().collect()
    }

    /// All requests that were answered.
    #[must_use]
    pub fn answered(&self) -> Vec<Request> {
        self.lock().answered.clone()
    }

    /// Waits until so many requests have arrived, answered or not.
    pub fn until_arrived(&self, count: usize) -> Result<()> {
        wait::until_true("requests", || Ok(self.lock().arrived >= count))
    }

    /// Waits until it has taken so many requests.
    pub fn until_taken(&self, count: usize) -> Result<Vec<Request>> {
        wait::until("alerts", || {
            let took = self.took();
            Ok((took.len() >= count).then_some(took))
        })
        .with_context(|| format!("{} of {count} came", self.took().len()))
    }

    /// What it took of incidents of the server at a port of 127.0.0.1, in order.
    #[must_use]
    pub fn told(&self, port: u16) -> Vec<String> {
        let listener = format!("127.0.0.1:{port}");
        self.took()
            .iter()
            .filter(|request| request.body["labels"]["listener"] == listener)
            .map(|request| request.told().1)
            .collect()
    }

    /// Waits until it has taken that of such an incident.
    pub fn until_told(&self, port: u16, status: &str) -> Result<()> {
        wait::until_true(status, || {
            Ok(self.told(port).iter().any(|told| told == status))
        })
        .with_context(|| format!("of {port} came {:?}", self.told(port)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut connection: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or("0", |(_, value)| value);
        let mut body = vec![0; length.parse()?];
        reader.read_exact(&mut body)?;
        let text = String::from_utf8(body)?;

        let mut state = self.lock();
        state.arrived += 1;
        if let Manner::TakesAfter(time) = state.manner {
            drop(state);
            thread::sleep(time);
            state = self.lock();
        }
        let mut state = self
            .shared
            .1
            .wait_while(state, |state| matches!(state.manner, Manner::Waits))
            .unwrap_or_else(PoisonError::into_inner);
        let answer = match state.manner {
            Manner::Answers(answer) => answer,
            Manner::ChokesOn(answer, word) if text.contains(word) => answer,
            _ => 200,
        };
        let said = if answer == 200 { "" } else { &*head };
        let sent = write!(
            connection,
            "HTTP/1.1 {answer} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{said}",
            said.len()
        );
        // Noted under the same lock: what it says it took, in the order in which it did.
        let body = serde_json::from_str(&text)?;
        state.answered.push(Request { head, body, answer });
        Ok(sent?)
    }
}
