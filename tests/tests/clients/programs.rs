//! The clients, and what each says came of its connections.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use turnaway_tests::servers::foreground::Foreground;
use turnaway_tests::servers::nginx::{self, Nginx};
use turnaway_tests::servers::{as_nobody, descendants};
use turnaway_tests::wait;

/// An answer is not waited for longer than this.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often to connect where.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) target: SocketAddrV4,
    pub(crate) count: u64,
    /// So many at a time.
    pub(crate) most: u64,
}

/// What a client has done, by its own account.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) pid: u32,
    pub(crate) comm: &'static str,
    /// Its words for what came of its attempts, and how often it said each.
    pub(crate) words: BTreeMap<String, u64>,
    /// How often it called connect, of a client that tries again by itself.
    pub(crate) connects: Option<u64>,
}

impl Said {
    /// Fails unless that is all that it said, and so often.
    pub(crate) fn only(&self, word: &str, count: u64) -> Result<()> {
        let only = BTreeMap::from([(word.to_owned(), count)]);
        ensure!(self.words == only, "{self:?} instead of {count} {word}");
        Ok(())
    }
}

/// A client that is a program of its own.
pub(crate) struct Client {
    child: Child,
    comm: &'static str,
}

impl Client {
    /// curl, which says its own exit code for each.
    pub(crate) fn curl(work: Work) -> Result<Self> {
        let mut command = Command::new("/usr/bin/curl");
        command.args(["-q", "--silent", "--output", "/dev/null"]);
        command.args(["--header", "Connection: close"]);
        command.args(["--write-out", "%{exitcode}\\n"]);
        if work.most > 1 {
            command.args(["--parallel", "--parallel-immediate", "--parallel-max"]);
            command.arg(work.most.to_string());
        }
        command.arg(format!("http://{}/[1-{}]", work.target, work.count));
        Self::start(&mut command, "curl")
    }

    /// Node, which says the error's code.
    pub(crate) fn node(work: Work) -> Result<Self> {
        let mut command = Command::new("/usr/bin/node");
        command.arg(source("client.js"));
        command.arg(work.target.ip().to_string());
        command.arg(work.target.port().to_string());
        command.args([work.count.to_string(), work.most.to_string()]);
        Self::start(&mut command, "node")
    }

    /// A program in Go, which says the errno's number.
    pub(crate) fn go(work: Work) -> Result<Self> {
        let mut command = Command::new(go_program()?);
        command.args([work.target.to_string(), work.count.to_string()]);
        command.arg(work.most.to_string());
        Self::start(&mut command, GO)
    }

    fn start(command: &mut Command, comm: &'static str) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {command:?}: run `cargo xtask setup --tests`"))?;
        Ok(Self { child, comm })
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Result<Said> {
        let pid = self.child.id();
        let output = self.child.wait_with_output()?;
        let mut said = Said {
            pid,
            comm: self.comm,
            words: BTreeMap::new(),
            connects: None,
        };
        for line in String::from_utf8(output.stdout)?.lines() {
            match line.strip_prefix("connects ") {
                Some(connects) => said.connects = Some(connects.parse()?),
                None => *said.words.entry(line.to_owned()).or_default() += 1,
            }
        }
        Ok(said)
    }
}

/// Name of the program in Go.
const GO: &str = "go-client";

fn source(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    folder.join(name)
}

/// The program in Go, compiled when it is first asked for.
fn go_program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = folder.join(GO);
        let status = Command::new("/usr/bin/go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(source("client.go"))
            .env("GOCACHE", folder.join("go-cache"))
            // One file needs no module, and nothing that it imports needs C.
            .envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0")])
            .status()
            .context("cannot run go: run `cargo xtask setup --tests`")?;
        ensure!(status.success(), "go build: {status}");
        Ok(program)
    });
    match program {
        Ok(program) => Ok(program),
        Err(error) => anyhow::bail!("{error:#}"),
    }
}

/// nginx as a proxy, which its own clients reach by a path, so that they need no ports.
pub(crate) struct Proxy {
    _server: Foreground,
    pub(crate) worker: u32,
    front: PathBuf,
    log: PathBuf,
}

impl Proxy {
    pub(crate) fn start(dir: &Path, target: SocketAddrV4) -> Result<Self> {
        let front = dir.join("front");
        let listen = format!("unix:{}", front.display());
        let location = format!("proxy_pass http://{target};");
        let server = Foreground::start_at(&mut serving(dir, "proxy", &listen, &location)?, &front)?;
        let worker = wait::until("nginx's worker", || {
            Ok(descendants(server.0.id())?.first().copied())
        })?;
        Ok(Self {
            _server: server,
            worker,
            front,
            log: dir.join("proxy").join(nginx::LOG),
        })
    }

    /// Asks so often, all at the same time, and returns how many were answered that the server
    /// behind it cannot be reached.
    pub(crate) fn ask(&self, count: u64) -> Result<u64> {
        let clients = (0..count)
            .map(|_| {
                let mut client = UnixStream::connect(&self.front)?;
                client.set_read_timeout(Some(PATIENCE))?;
                client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                Ok(client)
            })
            .collect::<Result<Vec<UnixStream>>>()?;
        let mut bad = 0;
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer)?;
            // Bad gateway, or gateway timeout.
            let code = answer.split(' ').nth(1).unwrap_or_default();
            ensure!(["204", "502", "504"].contains(&code), "{answer:?}");
            bad += u64::from(code != "204");
        }
        Ok(bad)
    }

    /// What its log says of connections to the server behind it.
    pub(crate) fn said(&self) -> Result<Said> {
        let mut words = BTreeMap::new();
        for line in fs::read_to_string(&self.log)?.lines() {
            let Some((before, _)) = line.split_once(") while connecting to upstream") else {
                continue;
            };
            let errno = before.rsplit('(').next().unwrap_or_default();
            *words.entry(errno.to_owned()).or_default() += 1;
        }
        Ok(Said {
            pid: self.worker,
            comm: "nginx",
            words,
            connects: None,
        })
    }
}

/// nginx as a server that answers everything at once.
pub(crate) fn backend(dir: &Path, port: u16) -> Result<Foreground> {
    let listen = format!("0.0.0.0:{port}");
    let path = dir.join("backend-front");
    // It is known to listen once it does so at a path.
    let location = "return 204;";
    let listens = format!("{listen}; listen unix:{}", path.display());
    Foreground::start_at(&mut serving(dir, "backend", &listens, location)?, &path)
}

fn serving(dir: &Path, name: &str, listen: &str, location: &str) -> Result<Command> {
    let own = dir.join(name);
    fs::create_dir_all(&own)?;
    fs::set_permissions(&own, Permissions::from_mode(0o777))?;
    let server = Nginx {
        http: &format!(
            "proxy_connect_timeout 60s; server {{ listen {listen}; location / {{ {location} }} }}"
        ),
        ..Nginx::default()
    };
    let mut command = as_nobody(nginx::PROGRAM);
    command.args(server.configure(&own)?);
    Ok(command)
}
