//! Answers to those who ask for metrics. What they do can take no more than a bounded share:
//! few connections, each for a few seconds, one request each.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, fchmod};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream},
    time::{sleep, timeout},
};

use super::{Format, Metrics, Moment, PORT};
use crate::{clients::Clients, socket::make_way};

/// Most connections at once. One more, and the oldest is cut: a client that is in order is
/// answered within milliseconds.
const CONNECTIONS: usize = 32;
/// A connection lasts no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request, headers and all, bytes.
const REQUEST: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS: usize = 64;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;
/// After a failure to accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket, which only its owner may connect to.
    Unix(PathBuf),
}

impl Default for Listen {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], PORT)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    /// `127.0.0.1:9754`, `[::1]:9754` or `unix:/run/turnaway/metrics.sock`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(format!(
                    "{path:?} is no absolute path, as in unix:/run/x.sock"
                ));
            }
            return Ok(Self::Unix(path.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("{text:?} is no address with a port, as in 127.0.0.1:{PORT}, and no unix:/path")
        })?;
        // Names of processes and their troubles are nobody else's business.
        if !address.ip().is_loopback() {
            return Err(format!(
                "{address} is not a loopback address: metrics tell what runs here; put a proxy \
                 with authentication before 127.0.0.1:{PORT}"
            ));
        }
        Ok(Self::Tcp(address))
    }
}

/// A socket that listens.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "held for its drop")] Bound,
    ),
}

/// The name of a socket, which is taken away with it.
#[derive(Debug)]
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Server {
    /// Listens there. Needs a runtime.
    pub fn bind(listen: &Listen) -> Result<Self> {
        let socket = match listen {
            Listen::Tcp(address) => std::net::TcpListener::bind(address)
                .and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    TcpListener::from_std(socket)
                })
                .map(Socket::Tcp)
                .with_context(|| {
                    format!("cannot serve metrics at {listen}: choose another port")
                })?,
            Listen::Unix(path) => {
                make_way(path, "metrics")?;
                let socket =
                    unix(path).with_context(|| format!("cannot serve metrics at {listen}"))?;
                Socket::Unix(socket, Bound(path.clone()))
            }
        };
        Ok(Self { socket })
    }

    /// The address of a TCP socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Answers until it is dropped.
    pub async fn run(self, metrics: Arc<Metrics>) {
        // Metrics are written out one at a time, however many ask.
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        let mut clients = Clients::new(CONNECTIONS);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = clients.served() => continue,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    log::warn!("metrics: cannot accept a connection: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let (metrics, turn) = (metrics.clone(), turn.clone());
            clients.serve(async move {
                let answered = match stream {
                    Stream::Tcp(stream) => {
                        timeout(PATIENCE, connection(stream, metrics, turn)).await
                    }
                    Stream::Unix(stream) => {
                        timeout(PATIENCE, connection(stream, metrics, turn)).await
                    }
                };
                match answered {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => log::debug!("metrics: {error}"),
                    Err(_) => log::debug!("metrics: a client was too slow"),
                }
            });
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(socket) => Ok(Stream::Tcp(socket.accept().await?.0)),
            Self::Unix(socket, _) => Ok(Stream::Unix(socket.accept().await?.0)),
        }
    }
}

fn unix(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // Before it has a name: bind(2) gives the name the socket's mode (unix_bind_bsd), so that
    // there is no moment at which others may connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

pub(crate) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    metrics: Arc<Metrics>,
    turn: Arc<tokio::sync::Mutex<()>>,
) -> hyper::Result<()> {
    let answer = service_fn(move |request| {
        let (metrics, turn) = (metrics.clone(), turn.clone());
        async move { Ok::<_, Infallible>(answer(&request, metrics, turn).await) }
    });
    http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(REQUEST)
        .max_headers(HEADERS)
        // Its time is the connection's.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer(
    request: &Request<Incoming>,
    metrics: Arc<Metrics>,
    turn: Arc<tokio::sync::Mutex<()>>,
) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match metrics.readiness(Instant::now()) {
            Ok(()) => response(StatusCode::OK, TEXT, "ready\n"),
            Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        "/metrics" => {
            let accept: Vec<&str> = request
                .headers()
                .get_all(ACCEPT)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect();
            let format = Format::accepted(&accept.join(","));
            let turn = turn.lock_owned().await;
            // Not on the thread that captures. It may outlast a client that goes, turn and all.
            let written = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                metrics.render(format, Moment::now())
            })
            .await;
            match written {
                Ok(Ok(text)) => response(StatusCode::OK, format.content_type(), text),
                _ => response(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    "metrics could not be written\n",
                ),
            }
        }
        _ => response(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are /metrics, /healthz and /readyz\n",
        ),
    }
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_told() {
        for text in ["127.0.0.1:9754", "[::1]:1", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in [
            "0.0.0.0:9754",
            "[::]:1",
            "192.0.2.1:80",
            "9754",
            "unix:x",
            "",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
