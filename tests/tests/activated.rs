//! Listeners that systemd-socket-activate makes: for a program that takes its place, or to accept
//! itself and start a program for each connection.

use std::fs::{self, File};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};
use turnaway_tests::apart;
use turnaway_tests::live::Live;
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::servers::gate::Gate;
use turnaway_tests::servers::overflow::{self, Overflowed, address, compare, overflow};
use turnaway_tests::servers::{as_nobody, comm_of, lower_limit};
use turnaway_tests::{tracer, wait};

const PROGRAM: &str = "/usr/bin/systemd-socket-activate";

fn watch(port: u16) -> Result<Live> {
    Live::start(&tracer::binary()?, &["-P", &port.to_string()])
}

/// The first connection makes it become the program, whose process is the same and whose name is
/// another.
#[test]
fn the_program_that_was_started_is_named() {
    const BACKLOG: u32 = 3;
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let turnaway = watch(port).unwrap();
    apart::in_netns(|| {
        // It asks for the longest queue that there is.
        apart::set("core/somaxconn", &BACKLOG.to_string())?;
        let script = dir.path().join("server.py");
        let (gate, began) = (Gate::NAME, Gate::BEGAN);
        fs::write(
            &script,
            format!(
                "import fcntl, os, socket\n\
                listener = socket.socket(fileno=3)\n\
                connection, _ = listener.accept()\n\
                with open('{began}', 'w') as file: file.write(str(os.getpid()))\n\
                with open('{gate}') as file: fcntl.flock(file, fcntl.LOCK_SH)\n"
            ),
        )?;
        let gate = Gate::closed(dir.path())?;
        let server = Foreground::start(
            as_nobody(PROGRAM)
                .args(["-l", &address(port).to_string(), "/usr/bin/python3"])
                .arg(&script)
                .current_dir(dir.path()),
            port,
        )?;
        let pid = server.0.id();
        let before = comm_of(pid).context("it has no name")?;
        let _client = TcpStream::connect(address(port))?;
        let accepted = gate.wait_for(None)?;
        ensure!(accepted == pid, "{accepted} instead of {pid} accepted");
        let after = comm_of(pid).context("it has no name")?;
        ensure!(before != after, "it is still {before}");
        let drops = overflow(port, BACKLOG)?;
        let records = turnaway.stop()?;
        println!("{before} became {after}; {drops} drops");
        let truth = Overflowed {
            acceptor: pid,
            holders: vec![pid],
            drops,
        };
        compare(&records, port, &truth)?;
        drop(gate);
        drop(server);
        Ok(())
    })
    .unwrap();
}

/// Where it accepts, its own limit counts, and it ends when it is reached.
#[test]
fn it_accepts_for_others_until_its_limit() {
    let port = free_port().unwrap();
    let dir = folder().unwrap();
    let turnaway = watch(port).unwrap();
    let log = dir.path().join("log");
    let mut server = Foreground::start_heard(
        as_nobody(PROGRAM)
            .args(["-l", &address(port).to_string(), "--accept", "/bin/cat"])
            .stderr(File::create(&log).unwrap()),
        port,
    )
    .unwrap();
    let pid = server.0.id();
    let comm = comm_of(pid);
    // What it has: three, the listener and what it waits with.
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = u64::try_from(open).unwrap();
    lower_limit(pid, limit).unwrap();
    let _client = TcpStream::connect(address(port)).unwrap();
    wait::until("its end", || Ok(server.0.try_wait()?)).unwrap();
    let records = turnaway.stop().unwrap();

    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("Too many open files").count(), 1, "{said}");
    let told = overflow::totals(&records, &["accept."]);
    let [total] = told[..] else {
        panic!("not one total: {told:?}");
    };
    assert_eq!(total.reason, "accept.emfile");
    assert_eq!(total.count, Some(1));
    assert_eq!(total.process.pid, pid);
    assert_eq!(total.process.comm, comm);
    assert_eq!(total.fd.limit, Some(limit));
}
