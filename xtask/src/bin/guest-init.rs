//! The first program of a test guest: mounts the usual file systems, loads the packed kernel
//! modules, runs one command and powers off.
//!
//! The initramfs holds its orders: the command's words, separated by zero bytes, in
//! `/turnaway/command`, and modules to load, in the order of their names, in
//! `/turnaway/modules`. The command's output goes to the second serial port. How it ended goes
//! to the kernel's log, whose lines are written whole: `turnaway-guest: exit CODE`, or
//! `turnaway-guest: failed REASON` if the command could not be run.

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

/// File systems in the order of mounting. Those marked false may be missing from a kernel.
const MOUNTS: &[(&str, &str, bool)] = &[
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("devtmpfs", "/dev", true),
    ("devpts", "/dev/pts", true),
    ("tmpfs", "/dev/shm", true),
    ("tmpfs", "/run", true),
    ("tmpfs", "/tmp", true),
    ("cgroup2", "/sys/fs/cgroup", true),
    ("tracefs", "/sys/kernel/tracing", false),
    ("debugfs", "/sys/kernel/debug", false),
    ("securityfs", "/sys/kernel/security", false),
    ("bpf", "/sys/fs/bpf", false),
];

/// The least that name lookups of real servers ask for.
const ETC: &[(&str, &str)] = &[
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];

fn main() {
    let message = match boot() {
        Ok(status) => format!("exit {}", exit_code(status)),
        Err(error) => format!("failed {error:#}"),
    };
    // Priority 3 is an error, which the kernel prints even if told to be quiet.
    if let Err(error) = fs::write("/dev/kmsg", format!("<3>turnaway-guest: {message}\n")) {
        eprintln!("turnaway-guest: {message} (and cannot write to the kernel's log: {error})");
    }
    // If this fails, the kernel panics because its first program ends: the host sees that.
    let _ = reboot(RebootCommand::PowerOff);
}

fn boot() -> Result<ExitStatus> {
    for &(kind, path, required) in MOUNTS {
        let mounted = mount_at(kind, path);
        if required {
            mounted?;
        }
    }
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, name).with_context(|| format!("cannot create {name}"))?;
    }
    for &(path, content) in ETC {
        if !Path::new(path).exists() {
            create_dir("/etc")?;
            fs::write(path, content).with_context(|| format!("cannot write {path}"))?;
        }
    }
    // IFF_UP; the kernel gives the loopback interface its addresses by itself.
    fs::write("/sys/class/net/lo/flags", "0x1").context("cannot bring lo up")?;
    load_modules()?;
    run_command()
}

fn mount_at(kind: &str, path: &str) -> Result<()> {
    create_dir(path)?;
    mount(kind, path, kind, MountFlags::empty(), None)
        .with_context(|| format!("cannot mount {kind} on {path}"))
}

fn create_dir(path: &str) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {path}"))
}

fn load_modules() -> Result<()> {
    let dir = Path::new("/turnaway/modules");
    let Ok(entries) = dir.read_dir() else {
        return Ok(());
    };
    let mut modules = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot read the modules")?;
    modules.sort();
    for module in modules {
        File::open(&module)
            .map_err(anyhow::Error::from)
            .and_then(|file| Ok(finit_module(&file, c"", 0)?))
            .with_context(|| format!("cannot load kernel module {}", module.display()))?;
    }
    Ok(())
}

fn run_command() -> Result<ExitStatus> {
    let words = fs::read_to_string("/turnaway/command").context("cannot read the command")?;
    let mut words = words.split('\0');
    let program = words.next().unwrap_or_default();
    let port = output_port().context("cannot open the second serial port")?;
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/")
        .env("RUST_BACKTRACE", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(port.try_clone().context("cannot copy a file descriptor")?)
        .stderr(port.try_clone().context("cannot copy a file descriptor")?);
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let status = reap(child.id())?;
    tcdrain(&port).context("cannot flush the output")?;
    Ok(status)
}

/// The second serial port, passing bytes through as they are.
fn output_port() -> Result<File> {
    // Without NOCTTY, the first program would get signals from its own output.
    let port = File::options()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOCTTY.bits().cast_signed())
        .open("/dev/ttyS1")?;
    let mut settings = tcgetattr(&port)?;
    settings.make_raw();
    settings.set_speed(115_200)?;
    tcsetattr(&port, OptionalActions::Now, &settings)?;
    Ok(port)
}

/// Waits for the command. Orphans become this process's children, and are laid to rest too.
fn reap(command: u32) -> Result<ExitStatus> {
    loop {
        let ended = wait(WaitOptions::empty()).context("cannot wait for the command")?;
        if let Some((pid, status)) = ended
            && pid.as_raw_nonzero().get().unsigned_abs() == command
        {
            return Ok(ExitStatus::from_raw(status.as_raw()));
        }
    }
}

/// As a shell has it: the code, or 128 and the number of the signal.
fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}
