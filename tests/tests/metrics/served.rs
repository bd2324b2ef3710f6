//! Metrics that are served from this process, with everything in them.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use turnaway::attribute::{Identity, Who};
use turnaway::event::{Address, Count, Key, Listener, Op, Process, ProcessId, Queue, Tier};
use turnaway::kernel::attach::HookStatus;
use turnaway::kernel::plan::HookName;
use turnaway::kernel::session::Losses;
use turnaway::metrics::{
    BySeverity, Config, Health, Incidents, Listen, ListenerState, Metrics, Moment, NotifierState,
    ProcessState, Server,
};
use turnaway::record::Waits;
use turnaway_common::Reason;

/// Until an answer is there, at the latest.
const ANSWER: Duration = Duration::from_secs(30);

pub(crate) const PROCESS: ProcessId = ProcessId {
    pid: 812,
    start_boottime_ns: 1,
};

/// A server in a thread of its own, which ends with this.
pub(crate) struct Served {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address: Option<SocketAddr>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn start(metrics: Metrics, listen: Listen) -> Self {
        let metrics = Arc::new(metrics);
        let (end, ended) = oneshot::channel();
        let (ready, readied) = std::sync::mpsc::channel();
        let served = metrics.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let server = Server::bind(&listen).unwrap();
                ready.send(server.address()).unwrap();
                tokio::select! {
                    () = server.run(served) => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            metrics,
            address: readied.recv_timeout(ANSWER).unwrap(),
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// On a free port.
    pub(crate) fn tcp(metrics: Metrics) -> Self {
        Self::start(metrics, Listen::Tcp(([127, 0, 0, 1], 0).into()))
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address.unwrap()).unwrap()
    }

    pub(crate) fn get(&self, path: &str, headers: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        ask(self.connect(), request.as_bytes()).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// The answer to a request, after which the connection must end.
pub(crate) fn ask(mut stream: impl io::Read + io::Write, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(|| io::Error::other(head.to_owned()))?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// A process of a unit.
pub(crate) fn who(comm: &str, unit: &str) -> Who {
    let facts = Process {
        tid: None,
        uid: None,
        comm: comm.as_bytes().to_vec(),
        thread_comm: comm.as_bytes().to_vec(),
        cgroup_id: None,
        nofile: None,
        ns_pid: None,
        parent_pid: None,
        syscall: None,
        kernel_worker: false,
    };
    let identity = Identity {
        unit: Some(unit.to_owned()),
        ..Identity::default()
    };
    Who::process(PROCESS, facts, Rc::new(identity))
}

/// So many failures at a port.
pub(crate) fn count(reason: Reason, port: u16, count: u64) -> Count {
    Count {
        key: Key {
            call: None,
            level: None,
            process: Some(PROCESS),
            socket_inode: Some(1),
            target: None,
            reason,
            errno: None,
            op: Op::Syscall,
            tier: Tier::Trampoline,
        },
        count,
        first_ns: 1,
        last_ns: 2,
        process: None,
        listener: Listener {
            fd: None,
            family: None,
            socket_type: None,
            protocol: None,
            address: Some(Address::Inet(([127, 0, 0, 1], port).into())),
            netns: None,
            queue: None,
        },
        waited_max_ns: None,
        approximate: false,
    }
}

/// A listener of which everything is known.
pub(crate) fn listener(accepted: u64, depth: u32) -> ListenerState {
    ListenerState {
        inode: 31_337,
        address: Some(Address::Inet(([127, 0, 0, 1], 6432).into())),
        netns: Some(4_026_531_840),
        who: who("pgbouncer", "pgbouncer.service"),
        queue: Some(Queue {
            depth,
            backlog: 128,
        }),
        since_accept: Some(Duration::from_secs(7)),
        accepted: Some(accepted),
        shed: Some(2),
        cookies: Some(3),
        waited: Some(Waits {
            slots: vec![
                (Duration::from_millis(4), 10),
                (Duration::from_millis(64), 5),
            ],
            longest: Duration::from_millis(60),
        }),
    }
}

/// Metrics without anything in them.
pub(crate) fn empty(max_series: usize) -> Metrics {
    Metrics::new(Config {
        max_series,
        jiffy: Some(Duration::from_millis(4)),
        ..Config::default()
    })
}

/// Capture goes well.
pub(crate) fn healthy(metrics: &Metrics) {
    let hook = |hook, attached: bool| HookStatus {
        hook,
        attached: attached.then(|| (Tier::Trampoline, Vec::new())),
        refused: Vec::new(),
    };
    metrics.set_health(
        &Health {
            events: 17,
            losses: Losses {
                ring: 1,
                map: 0,
                missed: Some(0),
            },
            output: 0,
            recording: Some(0),
            lag: Duration::from_millis(3),
            hooks: &[
                hook(HookName::Accept, true),
                hook(HookName::UnixWait, false),
            ],
        },
        Moment::now(),
    );
}

/// Metrics with all there is.
pub(crate) fn full() -> Metrics {
    let metrics = empty(2000);
    let who = who("pgbouncer", "pgbouncer.service");
    for reason in Reason::ALL {
        metrics.observe_count(&count(*reason, 6432, 5), &who, Moment::now());
    }
    metrics.set_listeners(&[listener(100, 9)], Moment::now());
    metrics.set_processes(&[ProcessState {
        id: PROCESS,
        who,
        used: Some(1000),
        limit: Some(1024),
    }]);
    metrics.set_incidents(Incidents {
        firing: BySeverity {
            critical: 1,
            ..BySeverity::default()
        },
        pending: 1,
        fired: BySeverity {
            critical: 4,
            ..BySeverity::default()
        },
    });
    metrics.set_notifiers(&[NotifierState {
        name: "alertmanager".to_owned(),
        delivered: 8,
        failed: 2,
        dropped: 1,
        queued: 1,
    }]);
    metrics.set_streams(vec![turnaway::stream::Health {
        name: "siem".to_owned(),
        delivered: 7,
        connected: Some(true),
        ..turnaway::stream::Health::default()
    }]);
    healthy(&metrics);
    metrics
}
