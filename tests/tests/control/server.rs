//! A server in a process of its own that does what it is told, and counts it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use turnaway_tests::sys::Call;
use turnaway_tests::workload::fail;
use turnaway_tests::workload::full::Full;
use turnaway_tests::{sys, wait};

const ROLE: &str = "TURNAWAY_TEST_SERVER";
/// Its soft limit of descriptors while it fails.
const LIMIT: u64 = 64;

/// Who the server is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Role {
    /// Another user.
    pub(crate) uid: Option<u32>,
    /// In a network namespace of its own.
    pub(crate) apart: bool,
}

/// The server, from outside. It is ended when this is dropped.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(role: Role) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "server::the_server", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env(ROLE, "1");
        // SAFETY: between fork and exec it makes a few system calls, and nothing else.
        unsafe {
            command.pre_exec(move || {
                // Of the process's first thread, which is what others look at.
                if role.apart {
                    sys::unshare(libc::CLONE_NEWNET)?;
                    sys::loopback_up().map_err(std::io::Error::other)?;
                }
                if let Some(uid) = role.uid {
                    sys::set_uid(uid)?;
                }
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self {
            child,
            input,
            output,
            port: 0,
        };
        server.port = u16::try_from(server.answer()).unwrap();
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something, and says how often it did.
    pub(crate) fn act(&mut self, what: &str, times: u64) -> u64 {
        self.begin(what, times);
        self.answer()
    }

    /// Has it do something.
    pub(crate) fn begin(&mut self, what: &str, times: u64) {
        writeln!(self.input, "{what} {times}").unwrap();
    }

    /// How often it has done what it was told to.
    pub(crate) fn answer(&mut self) -> u64 {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended");
            // The harness begins a line and does not end it.
            if let Some((_, number)) = line.split_once("did ") {
                return number.trim().parse().unwrap();
            }
        }
    }

    /// How many descriptors it has.
    pub(crate) fn descriptors(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.pid());
        fs::read_dir(folder).unwrap().count() as u64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server, from inside; in a run of the tests it is nobody.
#[test]
fn the_server() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut waiting = Vec::new();
    let mut held = Vec::new();
    let mut listeners = Vec::new();
    println!("did {port}");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (what, times) = line.split_once(' ').unwrap();
        let times: u64 = times.parse().unwrap();
        let mut did = times;
        match what {
            "accept" => (0..times).for_each(|_| serve(&listener)),
            "fail" => fail_times(&listener, times),
            "fail-for-ms" => did = fail_for(&listener, Duration::from_millis(times)),
            "queue" => waiting.extend((0..times).map(|_| client(port))),
            "serve-queue" => {
                did = waiting.len() as u64;
                waiting.drain(..).for_each(|client| take(&listener, client));
            }
            // So many listeners more, each of which accepts one.
            "listeners" => {
                let more = (0..times).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
                let at = listeners.len();
                listeners.extend(more);
                listeners[at..].iter().for_each(serve);
            }
            // So many descriptors are open then, and its limit is so much.
            "limit" => {
                let (_, hard) = sys::nofile().unwrap();
                sys::set_nofile(times, hard).unwrap();
            }
            "open" => {
                while open() < times {
                    held.push(fs::File::open("/dev/null").unwrap());
                }
                did = open();
            }
            "close" => held.clear(),
            other => panic!("what is {other:?}?"),
        }
        println!("did {did}");
    }
}

/// The folder's own descriptor is not counted.
fn open() -> u64 {
    fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1
}

fn client(port: u16) -> TcpStream {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    client.write_all(b"x").unwrap();
    client
}

/// Accepts, reads and answers: a connection that is closed unused would look like one thrown away.
fn take(listener: &TcpListener, mut client: TcpStream) {
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    accepted.write_all(b"y").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

fn serve(listener: &TcpListener) {
    let port = listener.local_addr().unwrap().port();
    take(listener, client(port));
}

fn fail_times(listener: &TcpListener, times: u64) {
    let _full = Full::at(LIMIT).unwrap();
    fail(Call::Accept4, listener.as_raw_fd(), libc::EMFILE, times).unwrap();
}

fn fail_for(listener: &TcpListener, time: Duration) -> u64 {
    let _full = Full::at(LIMIT).unwrap();
    let end = Instant::now() + time;
    let mut failed = 0;
    while Instant::now() < end {
        fail(Call::Accept4, listener.as_raw_fd(), libc::EMFILE, 100).unwrap();
        failed += 100;
    }
    failed
}

/// Waits until a process has so many descriptors or fewer.
pub(crate) fn until_descriptors(server: &Server, most: u64) {
    wait::until_true("descriptors to be closed", || {
        Ok(server.descriptors() <= most)
    })
    .unwrap();
}
