//! Why a process has no descriptor left: servers that really leak, that do not close, and that have too many clients
//! are told apart. What /proc and the servers' own errors say is the truth.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use turnaway_tests::daemon::{Daemon, configure};
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::{as_nobody, lower_limit};
use turnaway_tests::{tracer, wait};

const LIMIT: u64 = 80;
/// No client waits longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that answers each line with another. What it does wrong is said by its argument.
const SERVER: &str = r#"
import asyncio, sys
kept, wrong = [], sys.argv[2]
async def client(reader, writer):
    if wrong == "leaks":
        kept.append(open("/dev/null"))
    while await reader.readline():
        writer.write(b"done\n")
        await writer.drain()
    if wrong == "does not close":
        kept.append((reader, writer))
    else:
        writer.close()
async def main():
    server = await asyncio.start_server(client, "127.0.0.1", int(sys.argv[1]), backlog=64)
    await server.serve_forever()
asyncio.run(main())
"#;

/// What asyncio writes for each accept that failed for want of descriptors.
const OUT: &str = "socket.accept() out of system resource";

struct Server {
    process: Foreground,
    port: u16,
    errors: std::path::PathBuf,
}

impl Server {
    fn start(dir: &Path, wrong: &str) -> Result<Self> {
        let port = free_port()?;
        let (script, errors) = (dir.join("server.py"), dir.join("errors"));
        fs::write(&script, SERVER)?;
        let mut command = as_nobody("/usr/bin/python3");
        command.arg(script).arg(port.to_string()).arg(wrong);
        command.stderr(File::create(&errors)?);
        let process = Foreground::start_heard(&mut command, port)?;
        lower_limit(process.0.id(), LIMIT)?;
        Ok(Self {
            process,
            port,
            errors,
        })
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    fn client(&self) -> Result<TcpStream> {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok(client)
    }

    /// What its descriptors lead to.
    fn open(&self) -> Result<Vec<String>> {
        let mut open = Vec::new();
        for file in fs::read_dir(format!("/proc/{}/fd", self.pid()))? {
            // It may be closed by now.
            if let Ok(to) = fs::read_link(file?.path()) {
                open.push(to.to_string_lossy().into_owned());
            }
        }
        Ok(open)
    }

    fn is_out(&self) -> Result<bool> {
        Ok(fs::read_to_string(&self.errors)?.contains(OUT))
    }
}

fn asks(mut client: &TcpStream) -> Result<()> {
    client.write_all(b"do\n")?;
    let mut answer = [0; 5];
    client.read_exact(&mut answer).context("no answer")?;
    ensure!(&answer == b"done\n", "{answer:?}");
    Ok(())
}

/// Clients, no more than one at a time, until one finds no descriptor and is not answered.
fn one_after_the_other(server: &Server) -> Result<TcpStream> {
    for _ in 0..2 * LIMIT {
        let client = server.client()?;
        client.set_read_timeout(Some(Duration::from_secs(2)))?;
        if asks(&client).is_err() {
            return Ok(client);
        }
    }
    anyhow::bail!("no end of descriptors")
}

/// The first that is said of how it came about, once it is said of an incident of this process.
fn mechanism(daemon: &mut Daemon, server: &Server) -> Result<Value> {
    let told = daemon.until("what the daemon makes of it", |record| {
        record["victim"]["process"]["pid"] == server.pid()
            && record["severity"] == "critical"
            && record["explanation"]["mechanism"][0].is_object()
    })?;
    Ok(told["explanation"]["mechanism"][0].clone())
}

fn with(wrong: &str, story: impl FnOnce(&Server, &mut Daemon) -> Result<()>) {
    let dir = folder().unwrap();
    let server = Server::start(dir.path(), wrong).unwrap();
    let config = configure(dir.path(), "", Duration::from_secs(30)).unwrap();
    let state = dir.path().join("state");
    let mut daemon = Daemon::start(&tracer::binary().unwrap(), &config, &state).unwrap();
    story(&server, &mut daemon).unwrap();
}

/// One client after the other, no more than one at a time: the same load all the time.
#[test]
fn a_leak_is_told_from_load() {
    with("leaks", |server, daemon| {
        let waits = one_after_the_other(server)?;
        wait::until_true("an accept to fail", || server.is_out())?;
        let open = server.open()?;
        let leaked = open.iter().filter(|to| *to == "/dev/null").count();
        ensure!(2 * leaked > open.len(), "{open:?}");
        let mechanism = mechanism(daemon, server)?;
        ensure!(mechanism["kind"] == "leak", "{mechanism}");
        drop(waits);
        Ok(())
    });
}

/// Clients that go, of whom the server does not take leave.
#[test]
fn a_server_that_does_not_close_is_told_from_its_clients() {
    with("does not close", |server, daemon| {
        let mut waits = None;
        for number in 0.. {
            ensure!(number < 2 * LIMIT, "no end of descriptors");
            let client = server.client()?;
            client.set_read_timeout(Some(Duration::from_secs(2)))?;
            if asks(&client).is_err() {
                waits = Some(client);
                break;
            }
        }
        wait::until_true("an accept to fail", || server.is_out())?;
        let mechanism = mechanism(daemon, server)?;
        ensure!(mechanism["kind"] == "not_closed", "{mechanism}");
        drop(waits);
        Ok(())
    });
}

/// More clients at once than there is room for, and all of them at work.
#[test]
fn load_is_told_from_a_leak() {
    with("nothing", |server, daemon| {
        let mut clients = Vec::new();
        while !server.is_out()? {
            ensure!(
                clients.len() < 2 * usize::try_from(LIMIT)?,
                "no end of descriptors"
            );
            clients.push(server.client()?);
            clients.iter().take(60).try_for_each(asks)?;
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let busy = scope.spawn(|| -> Result<()> {
                while !done.load(Ordering::Relaxed) {
                    clients.iter().take(60).try_for_each(asks)?;
                }
                Ok(())
            });
            let mechanism = mechanism(daemon, server);
            done.store(true, Ordering::Relaxed);
            busy.join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
            let mechanism = mechanism?;
            ensure!(mechanism["kind"] == "load", "{mechanism}");
            anyhow::Ok(())
        })
    });
}
