//! PostgreSQL, and as much of its protocol as asking one question takes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::as_nobody;
use super::foreground::Foreground;
use crate::wait;

/// Whose the database is, and who asks.
pub const USER: &str = "nobody";
/// An answer is not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(30);
/// What most clients send first: a length, and the number of this request.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The version of the protocol: 3.0.
const VERSION: i32 = 3 << 16;

/// Makes a database in a folder and serves it on a port of 127.0.0.1.
pub fn start(dir: &Path, port: u16) -> Result<Foreground> {
    let data = dir.join("postgres");
    let status = as_nobody(&program("initdb")?.to_string_lossy())
        .args([
            "--no-sync",
            "--auth=trust",
            "--locale=C",
            "--username",
            USER,
        ])
        .arg("--pgdata")
        .arg(&data)
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "initdb: {status}");
    let server = Foreground::start(
        as_nobody(&program("postgres")?.to_string_lossy())
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "fsync=off"]),
        port,
    )?;
    // It listens before it is ready to answer.
    wait::until("PostgreSQL to answer", || Ok(Session::begin(port).ok()))?;
    Ok(server)
}

/// A program of the newest PostgreSQL that is installed.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .context("no PostgreSQL: run `cargo xtask setup --tests`")?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("bin").join(name)))
        .filter(|path| path.exists())
        .max()
        .with_context(|| format!("no {name} in /usr/lib/postgresql"))
}

/// A client that is logged in.
pub struct Session(TcpStream);

impl Session {
    /// Connects and logs in.
    pub fn begin(port: u16) -> Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let words = format!("user\0{USER}\0database\0postgres\0\0");
        let length = i32::try_from(words.len())? + 8;
        stream.write_all(
            &[
                &length.to_be_bytes()[..],
                &VERSION.to_be_bytes(),
                words.as_bytes(),
            ]
            .concat(),
        )?;
        let mut session = Self(stream);
        session.until_ready()?;
        Ok(session)
    }

    /// Asks for one and gets it.
    pub fn ask(&mut self) -> Result<()> {
        let words = b"select 1\0";
        let length = i32::try_from(words.len())? + 4;
        self.0
            .write_all(&[b"Q", &length.to_be_bytes()[..], words].concat())?;
        let kinds = self.until_ready()?;
        ensure!(kinds.contains('D'), "no row came, only {kinds:?}");
        Ok(())
    }

    /// Reads messages until the server waits for the next question, and says which came.
    fn until_ready(&mut self) -> Result<String> {
        let mut kinds = String::new();
        // It says how it is set up, one message for each setting.
        for _ in 0..100 {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut body = vec![0; usize::try_from(length)?.saturating_sub(4).min(1 << 16)];
            self.0.read_exact(&mut body)?;
            kinds.push(char::from(head[0]));
            match head[0] {
                b'Z' => return Ok(kinds),
                b'E' => bail!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
        bail!("no end of {kinds:?}")
    }
}
