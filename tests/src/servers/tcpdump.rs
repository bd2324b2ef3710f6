//! tcpdump: which connections to a port were reset, from somebody else than turnaway.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::sys::SockAddr;
use crate::tracer::wait_for;
use crate::{lines, sys};

/// The program.
pub const PROGRAM: &str = "/usr/bin/tcpdump";

/// How long it may take to say something, and to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where nobody else comes from.
const LAST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A running tcpdump. It is killed when this is dropped.
pub struct Tcpdump {
    child: Child,
    port: u16,
    output: Receiver<String>,
    errors: Receiver<String>,
    packets: Vec<String>,
}

/// Connections that the server's side reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resets {
    /// With an RST that has ACK set: there was a socket. The kernel sends it for a connection that
    /// waits to be accepted when its listener is closed.
    pub from_sockets: u64,
    /// With one that has not: it answers a packet that no socket was found for, such as the last
    /// of a handshake whose listener is closed.
    pub from_none: u64,
}

impl Tcpdump {
    /// Starts it and waits until it sees what goes through the loopback interface to and from a port.
    pub fn start(port: u16) -> Result<Self> {
        let syn = format!("dst port {port} and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn");
        let reset = format!("src port {port} and tcp[tcpflags] & tcp-rst != 0");
        let filter = format!("tcp and (({syn}) or ({reset}))");
        let mut child = Command::new(PROGRAM)
            .args(["-i", "lo", "-Z", "root", "--immediate-mode"])
            // Room for 100 000 packets of which only the headers are taken.
            .args(["-B", "32768", "-s", "96"])
            // No names, no times, whole sequence numbers, a line as soon as there is one.
            .args(["-n", "-t", "-S", "-l", &filter])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("no {PROGRAM}: run `cargo xtask setup --tests`"))?;
        let output = lines::of(child.stdout.take().context("no output")?);
        let errors = lines::of(child.stderr.take().context("no standard error")?);
        let tcpdump = Self {
            child,
            port,
            output,
            errors,
            packets: Vec::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = next(&tcpdump.errors, deadline).context("tcpdump does not listen")?;
            if line.starts_with("listening on ") {
                return Ok(tcpdump);
            }
        }
    }

    /// Ends it when it has shown all that there was. Nothing may be missing.
    pub fn stop(mut self) -> Result<Resets> {
        // Whatever came before the SYN of a client who is like no other is shown before it.
        let last = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        sys::bind(&last, &SockAddr::inet((LAST, 0).into()))?;
        let server = SockAddr::inet((Ipv4Addr::LOCALHOST, self.port).into());
        sys::connect(&last, &server).context("nobody listens any more")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = next(&self.output, deadline).context("tcpdump has not seen the last SYN")?;
            if Packet::parse(&line, self.port)?.address == LAST {
                break;
            }
            self.packets.push(line);
        }
        sys::kill(self.child.id(), libc::SIGINT)?;
        let said: Vec<String> = std::iter::from_fn(|| next(&self.errors, deadline).ok()).collect();
        let status = wait_for(&mut self.child, PATIENCE)?;
        ensure!(status.success(), "tcpdump: {status}: {said:?}");
        let whole = said
            .iter()
            .any(|line| line == "0 packets dropped by kernel");
        ensure!(whole, "tcpdump lost some: {said:?}");
        resets(self.packets.iter().map(String::as_str), self.port)
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next(lines: &Receiver<String>, deadline: Instant) -> Result<String> {
    Ok(lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The client's.
    Syn,
    /// The server's; whether ACK is set.
    Reset(bool),
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    /// The client's.
    address: Ipv4Addr,
    port: u16,
    kind: Kind,
    /// Its sequence number.
    number: u32,
}

impl Packet {
    /// Of a line such as `IP 127.0.0.1.80 > 127.0.0.1.4711: Flags [R.], seq 1, ack 2, win 0, length 0`.
    fn parse(line: &str, server: u16) -> Result<Self> {
        let parse = || -> Option<Self> {
            let mut words = line.split_whitespace();
            let end = |word: &str| -> Option<(Ipv4Addr, u16)> {
                let (address, port) = word.trim_end_matches(':').rsplit_once('.')?;
                Some((address.parse().ok()?, port.parse().ok()?))
            };
            let from = end(words.nth(1)?)?;
            let to = end(words.nth(1)?)?;
            let ((address, port), kind) = match words.nth(1)? {
                "[S]," if to.1 == server => (from, Kind::Syn),
                "[R.]," if from.1 == server => (to, Kind::Reset(true)),
                "[R]," if from.1 == server => (to, Kind::Reset(false)),
                _ => return None,
            };
            Some(Self {
                address,
                port,
                kind,
                number: words.nth(1)?.trim_end_matches(',').parse().ok()?,
            })
        };
        parse().with_context(|| format!("tcpdump said {line:?}"))
    }
}

/// Each connection counts once, however many packets of it were answered. A port may be had by one
/// client after the other: their SYNs tell them apart.
fn resets<'a>(lines: impl Iterator<Item = &'a str>, server: u16) -> Result<Resets> {
    let mut connections: HashMap<u16, (u32, bool)> = HashMap::new();
    let mut resets = Resets::default();
    for line in lines {
        let packet = Packet::parse(line, server)?;
        match packet.kind {
            Kind::Syn => {
                let (first, is_reset) = connections.entry(packet.port).or_default();
                // Otherwise it is sent again.
                if *first != packet.number {
                    (*first, *is_reset) = (packet.number, false);
                }
            }
            Kind::Reset(acknowledges) => {
                let (_, is_reset) = connections
                    .get_mut(&packet.port)
                    .with_context(|| format!("no connection for {line:?}"))?;
                if !std::mem::replace(is_reset, true) {
                    resets.from_sockets += u64::from(acknowledges);
                    resets.from_none += u64::from(!acknowledges);
                }
            }
        }
    }
    Ok(resets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_counts_once() {
        let lines = [
            "IP 127.0.0.1.4711 > 127.0.0.1.80: Flags [S], seq 10, win 65495, options [mss 65495], length 0",
            "IP 127.0.0.1.80 > 127.0.0.1.4711: Flags [R], seq 21, win 0, length 0",
            "IP 127.0.0.1.80 > 127.0.0.1.4711: Flags [R], seq 21, win 0, length 0",
            "IP 127.0.0.1.4712 > 127.0.0.1.80: Flags [S], seq 30, win 65495, length 0",
            "IP 127.0.0.1.4712 > 127.0.0.1.80: Flags [S], seq 30, win 65495, length 0",
            "IP 127.0.0.1.80 > 127.0.0.1.4712: Flags [R.], seq 41, ack 31, win 512, length 0",
            // The port is another client's by now.
            "IP 127.0.0.1.4712 > 127.0.0.1.80: Flags [S], seq 50, win 65495, length 0",
            "IP 127.0.0.1.80 > 127.0.0.1.4712: Flags [R.], seq 61, ack 51, win 512, length 0",
        ];
        let counted = resets(lines.into_iter(), 80).unwrap();
        let wanted = Resets {
            from_sockets: 2,
            from_none: 1,
        };
        assert_eq!(counted, wanted);
        assert!(resets(lines.into_iter(), 81).is_err());
        assert!(resets(lines[1..].iter().copied(), 80).is_err());
    }
}
