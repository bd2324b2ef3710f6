//! A receiver of whatever is posted to it, which answers as it is told and notes the bytes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

/// One request.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Method, path and headers.
    pub head: String,
    /// What was sent.
    pub body: Vec<u8>,
    /// What was answered.
    pub status: u16,
}

impl Posted {
    /// Method and path.
    #[must_use]
    pub fn target(&self) -> &str {
        let line = self.head.lines().next().unwrap_or_default();
        line.strip_suffix(" HTTP/1.1").unwrap_or(line)
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(one, _)| one.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).context("the body is not UTF-8")
    }
}

type Answer = dyn Fn(usize, &Posted) -> (u16, Vec<u8>) + Send + Sync;

/// The receiver. It goes on for as long as the test's process does.
#[derive(Clone)]
pub struct Poster {
    posted: Arc<Mutex<Vec<Posted>>>,
    /// Where it listens.
    pub port: u16,
}

impl Poster {
    /// Listens on any port; `answer` is given the number of the request, from 0, and the request.
    pub fn start(
        answer: impl Fn(usize, &Posted) -> (u16, Vec<u8>) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let poster = Self {
            posted: Arc::default(),
            port: listener.local_addr()?.port(),
        };
        let (server, answer): (_, Arc<Answer>) = (poster.clone(), Arc::new(answer));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (server, answer) = (server.clone(), Arc::clone(&answer));
                // A client that gives up is no error here.
                thread::spawn(move || server.serve(&connection, &*answer));
            }
        });
        Ok(poster)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What came so far.
    #[must_use]
    pub fn posted(&self) -> Vec<Posted> {
        let posted = self.posted.lock();
        posted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, connection: &TcpStream, answer: &Answer) -> Result<()> {
        let mut reader = BufReader::new(connection);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let mut posted = Posted {
                head,
                body: Vec::new(),
                status: 0,
            };
            let length = posted.header("content-length").unwrap_or("0").parse()?;
            posted.body = vec![0; length];
            reader.read_exact(&mut posted.body)?;
            let mut all = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
            let (status, said) = answer(all.len(), &posted);
            posted.status = status;
            all.push(posted);
            drop(all);
            let mut connection = connection;
            write!(
                connection,
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n",
                said.len()
            )?;
            connection.write_all(&said)?;
        }
    }
}
