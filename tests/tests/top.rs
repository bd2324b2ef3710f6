//! `turnaway top` as people use it: in a terminal, by keys.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use turnaway_tests::servers::acceptor::Acceptor;
use turnaway_tests::terminal::Terminal;
use turnaway_tests::{sys, tracer, wait};

/// Failures that a server is told to have.
const FAILURES: u64 = 7;
/// Clients that wait in its queue.
const CLIENTS: usize = 3;
/// The most that may, as `driven` asks for it.
const BACKLOG: u32 = turnaway_tests::workload::driven::BACKLOG;

fn top(arguments: &str) -> Result<String> {
    Ok(format!("{} top {arguments}", tracer::binary()?.display()))
}

/// The line of the screen that has all of these words.
fn line<'a>(screen: &'a str, words: &[&str]) -> Option<&'a str> {
    screen
        .lines()
        .find(|line| words.iter().all(|word| line.contains(word)))
}

fn has(screen: &str, words: &[&str]) -> bool {
    line(screen, words).is_some()
}

/// A server with clients that wait.
fn served() -> Result<(Acceptor, Vec<TcpStream>)> {
    let acceptor = Acceptor::run(&tracer::scenarios()?)?;
    let clients = (0..CLIENTS).map(|_| acceptor.client());
    let clients = clients.collect::<Result<_>>()?;
    Ok((acceptor, clients))
}

/// The queue of a port and its limit, as the kernel tells ss.
fn queue(port: u16) -> Result<(String, String)> {
    let filter = format!("sport = :{port}");
    let output = Command::new("ss").args(["-Hltn", &filter]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace().skip(1).map(str::to_owned);
    Ok((
        words.next().context("no queue")?,
        words.next().context("no limit")?,
    ))
}

/// The terminal is as it was before.
fn given_back(terminal: &Terminal, before: &str) -> Result<()> {
    terminal.prompt()?;
    wait::until_true(
        "the other screen to be left, and the cursor to be seen",
        || Ok(terminal.modes()? == (false, true)),
    )?;
    let after = terminal.settings()?;
    ensure!(after == before, "it was:\n{before}\nand is:\n{after}");
    Ok(())
}

/// The processes of the terminal's shell that are turnaway.
fn running(terminal: &Terminal) -> Result<u32> {
    let mark = format!("TOP_IN={}", terminal.folder().display());
    let found = fs::read_dir("/proc")?.find_map(|entry| {
        let path = entry.ok()?.path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let variables = fs::read(path.join("environ")).ok()?;
        let is_ours = variables
            .split(|byte| *byte == 0)
            .any(|one| one == mark.as_bytes());
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        (is_ours && name.trim() == "turnaway").then_some(pid)
    });
    found.context("turnaway does not run")
}

/// Starts it in a terminal, and waits until it shows this port.
fn start(terminal: &Terminal, port: u16, arguments: &str) -> Result<String> {
    start_by(terminal, port, "", arguments)
}

/// The same by a command that runs it in some way.
fn start_by(terminal: &Terminal, port: u16, by: &str, arguments: &str) -> Result<String> {
    // That nobody serves who waits is another failure.
    let command = top(&format!("-P {port} --reason accept {arguments}"))?;
    let mark = terminal.folder().display();
    terminal.shell(&format!("clear; TOP_IN={mark} {by} {command}"))?;
    let port = format!(":{port}");
    terminal.until("the listener and its owner", |screen| {
        has(screen, &[&port, "["])
    })
}

#[test]
fn what_is_shown_is_what_happened() -> Result<()> {
    let (mut acceptor, _clients) = served()?;
    let (port, pid) = (acceptor.port, acceptor.pid);
    let terminal = Terminal::open(80, 24, &[])?;
    let before = terminal.settings()?;
    start(&terminal, port, "")?;
    let failed = acceptor.fail(FAILURES)?;
    let in_all = format!("{failed} in all");
    let screen = terminal.until("failures", |screen| has(screen, &[&in_all]))?;

    // Who, why, and how full the queue is.
    let (depth, limit) = queue(port)?;
    ensure!(depth == CLIENTS.to_string() && limit == BACKLOG.to_string());
    let row = [
        format!(":{port}"),
        format!("[{pid}]"),
        format!("{depth}/{limit}"),
    ];
    let row = [&*row[0], &*row[1], &*row[2], "accept.emfile"];
    ensure!(has(&screen, &row), "{row:?} is not in:\n{screen}");

    // More failures, more in all: exactly.
    let failed = acceptor.fail(FAILURES)?;
    let in_all = format!("{failed} in all");
    terminal.until("further failures", |screen| has(screen, &[&in_all]))?;

    // More of it.
    terminal.press(&["Enter"])?;
    let prlimit = format!("prlimit --pid {pid} ");
    let screen = terminal.until("advice", |screen| has(screen, &["now:", &prlimit]))?;
    let told = ["accept.emfile EMFILE", &format!("{failed} in all")];
    ensure!(has(&screen, &told), "{told:?} is not in:\n{screen}");
    terminal.resize(100, 50)?;
    let waiting = format!("{CLIENTS} wait");
    terminal.until("clients", |screen| has(screen, &["127.0.0.1", &waiting]))?;
    terminal.press(&["Escape"])?;

    // As wide as it is, it shows more; as narrow as it is, it shows what matters most.
    terminal.resize(200, 60)?;
    terminal.until("all columns", |screen| {
        has(screen, &["LISTENER", "WAIT50/99", "UNIT"])
    })?;
    terminal.resize(50, 10)?;
    let screen = terminal.until("few columns", |screen| {
        has(screen, &["LISTENER", "FAIL/S"]) && !screen.contains("UNIT")
    })?;
    ensure!(
        screen.lines().all(|line| line.chars().count() <= 50),
        "{screen}"
    );
    terminal.resize(80, 24)?;
    terminal.until("the usual columns", |screen| {
        has(screen, &["LISTENER", "QUEUE", "FDS"])
    })?;

    // Other views.
    terminal.press(&["2"])?;
    let counts = format!("{failed}");
    terminal.until("reasons", |screen| {
        has(screen, &["accept.emfile", &counts, &format!("[{pid}]")])
    })?;
    terminal.press(&["3"])?;
    terminal.until("an incident", |screen| {
        has(screen, &["critical", &format!("(pid {pid})")])
            || has(screen, &["warning", &format!("(pid {pid})")])
    })?;
    terminal.press(&["1"])?;

    // Its end.
    sys::kill(pid, libc::SIGKILL)?;
    terminal.until("that it is closed", |screen| {
        has(screen, &[&format!(":{port}"), "closed"])
    })?;
    terminal.press(&["q"])?;
    given_back(&terminal, &before)
}

#[test]
fn rows_are_sorted_filtered_and_paused() -> Result<()> {
    let (mut busy, _clients) = served()?;
    let idle = Acceptor::run(&tracer::scenarios()?)?;
    let terminal = Terminal::open(120, 40, &[])?;
    let ports = format!("-P {}", idle.port);
    start(&terminal, busy.port, &ports)?;
    let failed = busy.fail(FAILURES)?;
    let (busy_port, idle_port) = (format!(":{}", busy.port), format!(":{}", idle.port));
    let at = |screen: &str, port: &str| screen.lines().position(|line| line.contains(port));
    // What fails is first.
    terminal.until("what fails to be first", |screen| {
        let (busy, idle) = (at(screen, &busy_port), at(screen, &idle_port));
        busy.is_some() && idle.is_some() && busy < idle
    })?;
    // By name, and the other way around.
    terminal.press(&["s"])?;
    let lower = busy.port.to_string().min(idle.port.to_string());
    let lower_first = |screen: &str| {
        let (busy_at, idle_at) = (at(screen, &busy_port), at(screen, &idle_port));
        (busy_at < idle_at) == (lower == busy.port.to_string())
    };
    terminal.until("names in order", |screen| {
        screen.contains("sort name") && lower_first(screen)
    })?;
    terminal.press(&["r"])?;
    terminal.until("the other order", |screen| {
        screen.contains("sort name reversed") && !lower_first(screen)
    })?;
    // A text.
    terminal.press(&["/"])?;
    terminal.write(&idle_port)?;
    terminal.press(&["Enter"])?;
    terminal.until("one row", |screen| {
        at(screen, &idle_port).is_some() && at(screen, &busy_port).is_none()
    })?;
    terminal.press(&["Escape"])?;
    // Both in one would be another key.
    terminal.until("both rows", |screen| {
        at(screen, &busy_port).is_some() && at(screen, &idle_port).is_some()
    })?;
    terminal.press(&["f"])?;
    terminal.until("what fails alone", |screen| {
        at(screen, &busy_port).is_some() && at(screen, &idle_port).is_none()
    })?;
    terminal.press(&["f", "/"])?;
    terminal.write("no such text")?;
    terminal.until("nothing", |screen| screen.contains("nothing that matches"))?;
    terminal.press(&["Escape"])?;
    // Paused, it shows what it showed; then what happened meanwhile.
    terminal.press(&["Space"])?;
    terminal.until("that it is paused", |screen| screen.contains("PAUSED"))?;
    let before = format!("{failed} in all");
    let after = busy.fail(FAILURES)?;
    let meanwhile = busy.recover()?;
    ensure!(
        meanwhile == CLIENTS as u64,
        "{meanwhile} clients were accepted"
    );
    ensure!(terminal.screen()?.contains(&before));
    terminal.press(&["Space"])?;
    terminal.until("what happened meanwhile", |screen| {
        screen.contains(&format!("{after} in all")) && !screen.contains("PAUSED")
    })?;
    terminal.press(&["?"])?;
    terminal.until("help", |screen| screen.contains("this help"))?;
    terminal.press(&["q"])?;
    terminal.prompt()
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() -> Result<()> {
    let acceptor = Acceptor::run(&tracer::scenarios()?)?;
    let terminal = Terminal::open(80, 24, &[])?;
    let before = terminal.settings()?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        start(&terminal, acceptor.port, "--mouse")?;
        ensure!(
            terminal.modes()? == (true, false),
            "it is not on its screen"
        );
        sys::kill(running(&terminal)?, signal)?;
        given_back(&terminal, &before).with_context(|| format!("signal {signal}"))?;
    }
    start(&terminal, acceptor.port, "")?;
    terminal.press(&["C-c"])?;
    given_back(&terminal, &before)
}

/// The terminal's program is killed: nobody is left to restore anything for, and nothing goes on.
#[test]
fn it_ends_with_its_terminal() -> Result<()> {
    let (acceptor, _clients) = served()?;
    let terminal = Terminal::open(80, 24, &[])?;
    // In a session of its own, so that no SIGHUP comes to its help.
    start_by(&terminal, acceptor.port, "setsid -w", "")?;
    let top = running(&terminal)?;
    terminal.kill()?;
    wait::until_true("turnaway to end", || {
        Ok(!Path::new(&format!("/proc/{top}")).exists())
    })
}

#[test]
fn it_can_be_suspended() -> Result<()> {
    let mut acceptor = Acceptor::run(&tracer::scenarios()?)?;
    let terminal = Terminal::open(80, 24, &[])?;
    let before = terminal.settings()?;
    start(&terminal, acceptor.port, "")?;
    let pid = running(&terminal)?;
    for by_key in [true, false] {
        if by_key {
            terminal.press(&["C-z"])?;
        } else {
            sys::kill(pid, libc::SIGTSTP)?;
        }
        given_back(&terminal, &before)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        ensure!(stat.contains(") T "), "it is not stopped: {stat}");
        let failed = acceptor.fail(FAILURES)?;
        terminal.shell("fg")?;
        // What failed meanwhile is counted.
        let in_all = format!("{failed} in all");
        terminal.until("the screen", |screen| screen.contains(&in_all))?;
        ensure!(
            terminal.modes()? == (true, false),
            "it is not on its screen"
        );
    }
    // One that was stopped by force has not given the terminal back, and takes it anew.
    sys::kill(pid, libc::SIGSTOP)?;
    terminal.until("the shell", |screen| screen.contains("Stopped"))?;
    terminal.shell("fg")?;
    terminal.until("the screen", |screen| screen.contains("in all"))?;
    terminal.press(&["q"])?;
    given_back(&terminal, &before)
}

/// This test runs itself once more, in a terminal and with this variable: then it is what panics.
const PANICS: &str = "TURNAWAY_TEST_PANICS";

#[test]
fn the_terminal_is_given_back_when_it_panics() -> Result<()> {
    if std::env::var_os(PANICS).is_some() {
        turnaway::top::screen::guard();
        turnaway::top::screen::take(true)?;
        println!("on the screen");
        let thread = std::thread::spawn(|| panic!("as the test wants it"));
        ensure!(thread.join().is_err());
        // Not restored by an ordinary end.
        std::process::exit(3);
    }
    let terminal = Terminal::open(80, 24, &[])?;
    let before = terminal.settings()?;
    let this = std::env::current_exe()?;
    let test = "--exact the_terminal_is_given_back_when_it_panics --nocapture";
    terminal.shell(&format!(
        "clear; {PANICS}=1 {} {test}; echo ended by $?",
        this.display()
    ))?;
    let screen = terminal.until("its end", |screen| screen.contains("ended by 3"))?;
    ensure!(screen.contains("as the test wants it"), "{screen}");
    // What was written on the other screen is not here.
    ensure!(!screen.contains("on the screen\n"), "{screen}");
    given_back(&terminal, &before)
}

#[test]
fn without_colour_there_is_none() -> Result<()> {
    let (mut acceptor, _clients) = served()?;
    acceptor.fail(FAILURES)?;
    let is_coloured = |looks: &str| {
        looks.split("\u{1b}[").skip(1).any(|code| {
            let code = code.split('m').next().unwrap_or_default();
            code.split(';').any(|one| {
                one.parse()
                    .is_ok_and(|number: u16| matches!(number, 30..=38 | 40..=48 | 90..=107))
            })
        })
    };
    for (variables, coloured) in [
        (&[][..], true),
        (&[("NO_COLOR", "1"), ("LANG", "C")][..], false),
    ] {
        let terminal = Terminal::open(80, 24, variables)?;
        start(&terminal, acceptor.port, "")?;
        let failed = acceptor.fail(1)?;
        ensure!(failed > FAILURES);
        terminal.until("a failure", |screen| has(screen, &["accept.emfile"]))?;
        let looks = terminal.looks()?;
        ensure!(is_coloured(&looks) == coloured, "{looks}");
        // Bars are characters that the locale has.
        ensure!(looks.is_ascii() != coloured, "{looks}");
        terminal.press(&["q"])?;
        terminal.prompt()?;
    }
    Ok(())
}

#[test]
fn tables_for_scripts() -> Result<()> {
    let (mut acceptor, _clients) = served()?;
    let port = acceptor.port.to_string();
    let mut child = Command::new(tracer::binary()?)
        .args([
            "top", "--batch", "-n", "3", "-P", &port, "--reason", "accept",
        ])
        .env("COLUMNS", "160")
        .stdout(Stdio::piped())
        .spawn()?;
    let tables = turnaway_tests::lines::of(child.stdout.take().context("no output")?);
    let patience = std::time::Duration::from_mins(1);
    let mut said = Vec::new();
    // It watches once the first table is there.
    while !said.iter().any(|line: &String| line.contains("LISTENER")) {
        said.push(tables.recv_timeout(patience)?);
    }
    let failed = acceptor.fail(FAILURES)?;
    let status = tracer::wait_for(&mut child, patience)?;
    said.extend(std::iter::from_fn(|| tables.recv_timeout(patience).ok()));
    let text = said.join("\n");
    ensure!(status.success(), "{status}: {text}");
    ensure!(text.matches("turnaway top ").count() == 3, "{text}");
    let (_, last) = text.rsplit_once("turnaway top ").context("no table")?;
    ensure!(has(last, &[&format!("{failed} in all")]), "{text}");
    let pid = format!("[{}]", acceptor.pid);
    let queue = format!("{CLIENTS}/{BACKLOG}");
    ensure!(
        has(last, &[&format!(":{port}"), &pid, &queue, "accept.emfile"]),
        "{text}"
    );
    ensure!(!text.contains('\u{1b}'), "{text}");
    Ok(())
}

#[test]
fn what_cannot_be_is_said() -> Result<()> {
    let run = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let output = Command::new(tracer::binary()?)
            .arg("top")
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    };
    let (code, said) = run(&[])?;
    ensure!(
        code == Some(2) && said.contains("--batch"),
        "{code:?} {said}"
    );
    let (code, said) = run(&["-n", "3"])?;
    ensure!(code == Some(2), "{code:?} {said}");
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("none.sock");
    let (code, said) = run(&["--once", "--attach", "--socket", &socket.to_string_lossy()])?;
    ensure!(
        code == Some(1) && said.contains("no turnaway daemon"),
        "{code:?} {said}"
    );
    Ok(())
}

#[test]
fn a_daemon_s_data_is_shown_without_hooks() -> Result<()> {
    let (mut acceptor, _clients) = served()?;
    // What there was before one looks on is not counted.
    let dir = tempfile::tempdir()?;
    let mut daemon = Command::new(tracer::binary()?)
        .args(["daemon", "--no-metrics", "--state"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let socket = dir.path().join("control.sock");
    let outcome = attached(&mut acceptor, &socket);
    sys::kill(daemon.id(), libc::SIGTERM)?;
    tracer::wait_for(&mut daemon, std::time::Duration::from_mins(1))?;
    outcome
}

fn attached(acceptor: &mut Acceptor, socket: &Path) -> Result<()> {
    wait::until_true("the daemon", || {
        let status = Command::new(tracer::binary()?)
            .args(["status", "--socket"])
            .arg(socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    })?;
    let before = acceptor.fail(FAILURES)?;
    let terminal = Terminal::open(100, 40, &[])?;
    start(
        &terminal,
        acceptor.port,
        &format!("--attach --socket {}", socket.display()),
    )?;
    let failed = acceptor.fail(FAILURES + 1)? - before;
    let in_all = format!("{failed} in all");
    // What failed before it is told of may be among what comes after.
    let all = format!("{} in all", failed + before);
    terminal.until("failures", |screen| {
        has(screen, &[&in_all]) || has(screen, &[&all])
    })?;
    terminal.press(&["Enter"])?;
    let prlimit = format!("prlimit --pid {} ", acceptor.pid);
    terminal.until("advice", |screen| has(screen, &["now:", &prlimit]))?;
    let pid = running(&terminal)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = fs::read_link(entry?.path())?;
        ensure!(
            !link.to_string_lossy().contains("bpf"),
            "it has {}",
            link.display()
        );
    }
    terminal.press(&["q"])?;
    terminal.prompt()
}
