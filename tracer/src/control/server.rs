//! The daemon's side: a thread of its own, so that capture waits for nobody who asks.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{FlockOperation, Mode, fchmod, flock},
    net::sockopt::socket_peercred,
    process::geteuid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixSocket, UnixStream},
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};

use super::{Answer, MAX_REQUEST, Request};
use crate::{
    clients::Clients,
    privileges::{self, Duty},
    socket::make_way,
};

/// Most connections at once. One more, and the oldest is cut.
const CONNECTIONS: usize = 16;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 64;
/// A client has so long to ask, and as long to read its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Within this the daemon answers, or something is wrong with it.
const ANSWER: Duration = Duration::from_secs(10);
/// A change is on disk within this, or is said not to be.
const KEEPING: Duration = Duration::from_secs(4);
/// After a failure to accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A request, and where its answer goes.
pub struct Ask {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; nobody may be there any more.
    pub answer: oneshot::Sender<Reply>,
}

/// An answer, and what is to be waited for before it is given.
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// Tells whether what was changed is on disk.
    pub kept: Option<oneshot::Receiver<bool>>,
}

impl Reply {
    /// An answer that need not wait.
    #[must_use]
    pub fn now(answer: Answer) -> Self {
        Self { answer, kept: None }
    }
}

/// A socket that listens, and is this daemon's alone.
pub struct Server {
    socket: UnixListener,
    runtime: tokio::runtime::Runtime,
    bound: Bound,
}

/// The socket's name, taken away with it, and the lock on it.
struct Bound {
    path: PathBuf,
    _lock: File,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Server {
    /// Listens at a path. A socket that a daemon left behind makes way; one that a daemon serves
    /// is an error.
    pub fn bind(path: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the control socket's runtime")?;
        let shown = path.display();
        if !path.is_absolute() {
            bail!("--socket is a whole path, beginning with /, not {shown}");
        }
        folder(path)?;
        let lock = lock(path)?;
        make_way(path, "requests")?;
        let socket = {
            let _entered = runtime.enter();
            listen(path).with_context(|| format!("cannot listen at {shown}"))?
        };
        Ok(Self {
            socket,
            runtime,
            bound: Bound {
                path: path.to_owned(),
                _lock: lock,
            },
        })
    }

    /// Serves from a thread of its own until the guard that it returns is dropped. Requests go to
    /// `asks`, and `bell` is rung for each.
    pub fn start(self, asks: mpsc::Sender<Ask>, bell: Arc<Notify>) -> Result<Serving> {
        let Self {
            socket,
            runtime,
            bound,
        } = self;
        let (stop, stopped) = oneshot::channel::<()>();
        let asks = Asks { asks, bell };
        thread::Builder::new()
            .name("turnaway-ctl".to_owned())
            .spawn(move || {
                privileges::keep(Duty::Serve);
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(socket, asks) => {}
                        _ = stopped => {}
                    }
                });
            })
            .context("cannot start a thread for the control socket")?;
        Ok(Serving {
            _bound: bound,
            _stop: stop,
        })
    }
}

/// A server at work. Dropped, it ends, and the socket's name is gone at once.
pub struct Serving {
    _bound: Bound,
    _stop: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Asks {
    asks: mpsc::Sender<Ask>,
    bell: Arc<Notify>,
}

/// Makes the socket's folder, or finds that nobody else can put something in its place.
fn folder(path: &Path) -> Result<()> {
    let folder = path.parent().context("the control socket has no folder")?;
    let shown = folder.display();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the control socket's folder {shown}"))?;
    let there = fs::metadata(folder)
        .with_context(|| format!("cannot look at the control socket's folder {shown}"))?;
    if there.uid() != geteuid().as_raw() || there.mode() & 0o022 != 0 {
        bail!(
            "others may write to {shown}, and could answer in the daemon's place: give --socket a \
             folder of its own with mode 0700"
        );
    }
    Ok(())
}

/// Held as long as the daemon lives: of two that start at once, one gets it.
fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name)
        .with_context(|| format!("cannot open {}", name.display()))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "another turnaway daemon answers at {}: stop it, or give this one a --socket of its own",
            path.display()
        ),
        Err(errno) => Err(errno).with_context(|| format!("cannot lock {}", name.display())),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // Before it has a name: bind(2) gives the name the socket's mode (unix_bind_bsd), so that
    // there is no moment at which others may connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

async fn serve(socket: UnixListener, asks: Asks) {
    let mut clients = Clients::new(CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = clients.served() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::warn!("control socket: cannot accept a connection: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let asks = asks.clone();
        clients.serve(async move {
            if let Err(error) = connection(stream, &asks).await {
                log::debug!("control socket: {error}");
            }
        });
    }
}

async fn connection(mut stream: UnixStream, asks: &Asks) -> io::Result<()> {
    // The name's mode keeps others out already, unless somebody changed it.
    let user = socket_peercred(&stream)?.uid;
    let answer = if user.is_root() || user == geteuid() {
        match timeout(PATIENCE, request(&mut stream)).await {
            Ok(Ok(request)) => answer(request, asks).await,
            Ok(Err(wrong)) => Answer::Error(wrong),
            Err(_) => Answer::Error(format!("no request came within {} s", PATIENCE.as_secs())),
        }
    } else {
        Answer::Error("only root may ask".to_owned())
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(PATIENCE, async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    })
    .await
    .map_err(|_| io::Error::other("a client did not read its answer"))?
}

pub(crate) async fn request(stream: impl AsyncRead + Unpin) -> Result<Request, String> {
    let mut line = Vec::new();
    let most = MAX_REQUEST as u64 + 1;
    BufReader::new(stream.take(most))
        .read_until(b'\n', &mut line)
        .await
        .map_err(|error| format!("the request cannot be read: {error}"))?;
    if line.len() > MAX_REQUEST {
        return Err(format!("a request has no more than {MAX_REQUEST} bytes"));
    }
    serde_json::from_slice(&line).map_err(|error| format!("this is no request: {error}"))
}

async fn answer(request: Request, asks: &Asks) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let ask = Ask {
        request,
        answer: sender,
    };
    if asks.asks.send(ask).is_err() {
        return Answer::Error("the daemon is ending".to_owned());
    }
    asks.bell.notify_one();
    match timeout(ANSWER, receiver).await {
        Ok(Ok(reply)) => once_kept(reply).await,
        Ok(Err(_)) => Answer::Error("the daemon is ending".to_owned()),
        Err(_) => Answer::Error(format!(
            "the daemon has not answered for {} s: it is overloaded, or hangs",
            ANSWER.as_secs()
        )),
    }
}

/// Waits for the disk, but not for long: what was asked is done in any case.
async fn once_kept(reply: Reply) -> Answer {
    let mut answer = reply.answer;
    if let Some(kept) = reply.kept {
        let is_kept = matches!(timeout(KEEPING, kept).await, Ok(Ok(true)));
        match &mut answer {
            Answer::Silenced(done) => done.kept = is_kept,
            Answer::Unsilenced(done) => done.kept = is_kept,
            _ => {}
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::unix::{fs::PermissionsExt as _, net::UnixStream},
    };

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// A server whose daemon says of every request what it is.
    fn start(path: &Path) -> Serving {
        let (asks, asked) = mpsc::channel::<Ask>();
        thread::spawn(move || {
            for ask in asked {
                let said = format!("asked for {:?}", ask.request);
                // Whoever asked may have gone.
                let _ = ask.answer.send(Reply::now(Answer::Error(said)));
            }
        });
        let server = Server::bind(path).unwrap();
        server.start(asks, Arc::default()).unwrap()
    }

    fn said(path: &Path, line: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).unwrap();
        // One that has said enough is answered before it has said all.
        let _ = stream.write_all(line);
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        match serde_json::from_str(&answer).unwrap() {
            Answer::Error(said) => said,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_a_line_and_no_longer_than_so() {
        let dir = folder();
        let path = dir.path().join("control.sock");
        let _serving = start(&path);
        assert_eq!(said(&path, b"{\"ask\":\"status\"}\n"), "asked for Status");
        assert!(said(&path, b"{\"ask\":\"what\"}\n").contains("no request"));
        assert!(said(&path, b"\xff\xfe\n").contains("no request"));
        let long = vec![b'x'; MAX_REQUEST * 2];
        assert!(said(&path, &long).contains("no more than"));
    }

    #[test]
    fn more_clients_than_there_is_room_for_are_cut_and_the_last_is_answered() {
        let dir = folder();
        let path = dir.path().join("control.sock");
        let _serving = start(&path);
        let silent: Vec<UnixStream> = (0..CONNECTIONS * 3)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        assert_eq!(said(&path, b"{\"ask\":\"status\"}\n"), "asked for Status");
        drop(silent);
    }

    #[test]
    fn a_path_has_one_daemon_and_a_dead_one_makes_way() {
        let dir = folder();
        let path = dir.path().join("sub/control.sock");
        let serving = start(&path);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let error = Server::bind(&path).map(drop).unwrap_err();
        assert!(
            format!("{error:#}").contains("another turnaway daemon"),
            "{error:#}"
        );
        drop(serving);
        assert!(!path.exists());
        // As SIGKILL leaves it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _serving = start(&path);
        assert_eq!(said(&path, b"{\"ask\":\"status\"}\n"), "asked for Status");
    }

    #[test]
    fn a_folder_that_others_may_write_to_will_not_do() {
        let dir = folder();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Server::bind(&dir.path().join("control.sock"))
            .map(drop)
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("others may write"),
            "{error:#}"
        );
    }
}
