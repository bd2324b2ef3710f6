//! Programs that accept connections and throw them away, and programs that do not although it
//! looks alike.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Stage;
use super::listening::Listening;
use crate::sys::{self, Call};
use crate::truth::{Failures, Listening as Listened, Process, Tally};

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both ends of a new connection: the client's and the program's.
fn pair(listening: &Listening, address: &str) -> Result<(TcpStream, TcpStream)> {
    let address: SocketAddr = format!("{address}:{}", listening.port()?).parse()?;
    let client = TcpStream::connect(address)?;
    let accepted: OwnedFd = sys::accept_by(Call::Accept4, listening.fd())?;
    let accepted = TcpStream::from(accepted);
    for stream in [&client, &accepted] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((client, accepted))
}

/// What the client of a connection that was thrown away sees.
fn is_turned_away(client: &mut TcpStream) -> Result<()> {
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => bail!("the client sees {error}"),
    }
}

/// What a program may do with a connection that it has no use for.
#[derive(Clone, Copy)]
enum Refusal {
    Close,
    CloseUnread,
    Reset,
    Word,
    WordUnread,
}

impl Refusal {
    const ALL: [Self; 5] = [
        Self::Close,
        Self::CloseUnread,
        Self::Reset,
        Self::Word,
        Self::WordUnread,
    ];

    fn act(self, listening: &Listening, address: &str) -> Result<String> {
        let (mut client, mut accepted) = pair(listening, address)?;
        let name = client.local_addr()?;
        if matches!(self, Self::CloseUnread | Self::WordUnread) {
            client.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
            let mut first = [0];
            ensure!(accepted.peek(&mut first)? == 1, "nothing came");
        }
        if matches!(self, Self::Word | Self::WordUnread) {
            accepted.write_all(b"-ERR max number of clients reached\r\n")?;
        }
        if matches!(self, Self::Reset) {
            sys::reset_on_close(&accepted.as_fd().try_clone_to_owned()?)?;
        }
        drop(accepted);
        is_turned_away(&mut client)?;
        Ok(format!("{} {}", name.ip(), name.port()))
    }
}

fn refuse(stage: &mut Stage, listening: &Listening, address: &str) -> Result<()> {
    const ROUNDS: u64 = 9;
    let process = Process::current()?;
    stage.ready()?;
    let mut peers = Vec::new();
    for _ in 0..ROUNDS {
        for refusal in Refusal::ALL {
            peers.push(refusal.act(listening, address)?);
        }
    }
    let count = peers.len() as u64;
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![thrown_away(listening, process, count, peers)],
        accepted: count,
        listening: vec![Listened {
            inode: listening.truth(0).inode.unwrap_or(0),
            accepted: count,
            shed: Some(count),
            ..Listened::default()
        }],
    })
}

fn thrown_away(
    listening: &Listening,
    process: Process,
    count: u64,
    peers: Vec<String>,
) -> Failures {
    let mut truth = listening.truth_of_any_queue();
    truth.queue = None;
    truth.backlog = None;
    let mut failure = Failures::of_listener("accept.shed", process, truth, count).begun();
    failure.peers = peers;
    failure
}

/// A program without room for more, in each of the ways to say so.
pub fn refused(stage: &mut Stage) -> Result<()> {
    refuse(stage, &Listening::tcp4(16)?, "127.0.0.1")
}

/// The same over IPv6.
pub fn refused_ipv6(stage: &mut Stage) -> Result<()> {
    refuse(stage, &Listening::tcp6(16)?, "[::1]")
}

/// What is no refusal: the client is first to close or to reset, it is served, or it is not
/// heard of for too long; and a program that ends closes everything.
pub fn not_refused(stage: &mut Stage) -> Result<()> {
    const ROUNDS: u64 = 20;
    let listening = Listening::tcp4(16)?;
    let process = Process::current()?;
    stage.ready()?;
    let (first, accepted_first) = pair(&listening, "127.0.0.1")?;
    for _ in 0..ROUNDS {
        // A health check.
        let (client, mut accepted) = pair(&listening, "127.0.0.1")?;
        drop(client);
        ensure!(
            accepted.read(&mut [0])? == 0,
            "the client's end did not come"
        );
        drop(accepted);
        // One that resets.
        let (client, mut accepted) = pair(&listening, "127.0.0.1")?;
        sys::reset_on_close(&client.as_fd().try_clone_to_owned()?)?;
        drop(client);
        let reset = accepted.read(&mut [0]);
        ensure!(
            reset.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
            "the reset did not come"
        );
        drop(accepted);
        // A question and an answer; a question that is read and not answered; an answer that
        // was not asked for.
        for (question, answer) in [(1, 1), (1, 0), (0, 4096)] {
            let (mut client, mut accepted) = pair(&listening, "127.0.0.1")?;
            client.write_all(&vec![b'q'; question])?;
            accepted.read_exact(&mut vec![0; question])?;
            accepted.write_all(&vec![b'a'; answer])?;
            drop(accepted);
            is_turned_away(&mut client)?;
        }
    }
    // A program that ends with connections open.
    let child = sys::fork(|| {
        let (client, accepted) = pair(&listening, "127.0.0.1")?;
        std::mem::forget((client, accepted));
        Ok(())
    })?;
    child.wait()?;
    // One that has waited long enough for its client to say something: the time is under test.
    std::thread::sleep(Duration::from_millis(1_200));
    drop(accepted_first);
    drop(first);
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: Vec::new(),
        accepted: ROUNDS * 5 + 2,
        listening: vec![Listened {
            inode: listening.truth(0).inode.unwrap_or(0),
            accepted: ROUNDS * 5 + 2,
            shed: Some(0),
            ..Listened::default()
        }],
    })
}

/// Two workers that share a listener: one of them has no room.
pub fn by_one_worker(stage: &mut Stage) -> Result<()> {
    const CONNECTIONS: u64 = 8;
    let listening = Listening::tcp4(16)?;
    let own = Process::current()?;
    stage.ready()?;
    let turns: Vec<(OwnedFd, OwnedFd)> = (0..2).map(|_| sys::pipe()).collect::<Result<_, _>>()?;
    let (told, tell) = sys::pipe()?;
    let mut workers = Vec::new();
    for (number, (turn, _)) in turns.iter().enumerate() {
        let (listening, tell) = (&listening, &tell);
        workers.push(sys::fork(move || {
            let process = serde_json::to_vec(&Process::current()?)?;
            let mut tell = std::fs::File::from(tell.try_clone()?);
            // In one piece: the other worker writes too.
            let len = u32::try_from(process.len())?.to_ne_bytes();
            tell.write_all(&[&len[..], &process].concat())?;
            let mut turn = std::fs::File::from(turn.try_clone()?);
            for _ in 0..CONNECTIONS {
                turn.read_exact(&mut [0])?;
                let accepted = sys::accept_by(Call::Accept4, listening.fd())?;
                let mut accepted = TcpStream::from(accepted);
                if number == 0 {
                    let mut question = [0];
                    accepted.read_exact(&mut question)?;
                    accepted.write_all(&question)?;
                }
            }
            // Until it has been looked at.
            turn.read_exact(&mut [0])?;
            Ok(())
        })?);
    }
    let mut told = std::fs::File::from(told);
    let mut processes = Vec::new();
    for _ in 0..2 {
        let mut len = [0; 4];
        told.read_exact(&mut len)?;
        let mut process = vec![0; usize::try_from(u32::from_ne_bytes(len))?];
        told.read_exact(&mut process)?;
        processes.push(serde_json::from_slice::<Process>(&process)?);
    }
    let refuser = processes
        .iter()
        .find(|process| process.pid == workers[1].pid)
        .cloned();
    let Some(refuser) = refuser else {
        bail!("the worker did not say who it is");
    };
    for _ in 0..CONNECTIONS {
        for (_, turn) in &turns {
            let address: SocketAddr = format!("127.0.0.1:{}", listening.port()?).parse()?;
            let mut client = TcpStream::connect(address)?;
            client.set_read_timeout(Some(PATIENCE))?;
            client.write_all(b"q")?;
            sys::write_byte(turn)?;
            is_turned_away(&mut client)?;
        }
    }
    let mut pids: Vec<u32> = processes.iter().map(|process| process.pid).collect();
    pids.push(own.pid);
    stage.report(&Tally {
        pids,
        failures: vec![thrown_away(&listening, refuser, CONNECTIONS, Vec::new())],
        accepted: 2 * CONNECTIONS,
        listening: vec![Listened {
            inode: listening.truth(0).inode.unwrap_or(0),
            accepted: 2 * CONNECTIONS,
            shed: Some(CONNECTIONS),
            ..Listened::default()
        }],
    })?;
    for (_, turn) in &turns {
        sys::write_byte(turn)?;
    }
    for worker in workers {
        worker.wait()?;
    }
    Ok(())
}
