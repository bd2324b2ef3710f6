//! Running a command in a virtual machine.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::console::{Verdict, last_lines, verdict};
use super::initramfs::Initramfs;
use super::kernel::{QEMU, UnpackedKernel};
use super::{libraries, modules, packages};
use crate::workspace;

/// The guest's first program, in the folder of static programs.
pub(crate) const INIT: &str = "guest-init";

/// A virtual machine and what runs in it.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The kernel it boots.
    pub kernel: UnpackedKernel,
    /// Files and folders it holds: path here, absolute path there.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Kernel modules that it loads, beside those that every guest has.
    pub modules: Vec<String>,
    /// Memory, which also holds the files.
    pub memory_mib: u32,
    /// Processors, each emulated by a thread.
    pub cpus: u32,
    /// How long it may run, from power on to power off.
    pub timeout: Duration,
    /// Added to the kernel's command line. `loglevel=7` shows the whole boot, where a guest
    /// hangs without a word.
    pub append: String,
    /// The program's path in the guest, and its arguments.
    pub command: Vec<String>,
}

/// How a guest's command ended.
#[derive(Clone, Debug)]
pub struct GuestExit {
    /// The command's exit code, or 128 and the number of the signal that ended it.
    pub code: i32,
    /// What the command printed, to standard output and standard error.
    pub console: String,
    /// What the kernel printed: warnings and worse.
    pub kernel: String,
}

impl Guest {
    /// A guest with two processors, a GiB of memory and two minutes of time.
    pub fn new<S: Into<String>>(
        kernel: UnpackedKernel,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            kernel,
            files: Vec::new(),
            modules: Vec::new(),
            memory_mib: 1024,
            cpus: 2,
            timeout: Duration::from_mins(2),
            append: String::new(),
            command: command.into_iter().map(Into::into).collect(),
        }
    }

    /// Packs a file or folder.
    pub fn file(&mut self, host: impl Into<PathBuf>, guest: impl Into<PathBuf>) -> &mut Self {
        self.files.push((host.into(), guest.into()));
        self
    }

    /// Packs a program with the shared libraries it needs.
    pub fn program(&mut self, host: &Path, guest: impl Into<PathBuf>) -> Result<&mut Self> {
        for library in libraries::shared_libraries(host)? {
            if !self.files.iter().any(|(_, packed)| *packed == library) {
                self.file(&library, &library);
            }
        }
        Ok(self.file(host, guest))
    }

    /// Packs what Debian packages that are installed here bring, and the packages they depend on.
    pub fn packages(&mut self, names: &[&str]) -> Result<&mut Self> {
        for path in packages::files(names)? {
            self.files.push((path.clone(), path));
        }
        Ok(self)
    }

    /// Boots it, calls `on_line` with each line the command prints as it comes, and waits for
    /// the end. An error means that the command did not run to its end.
    pub fn run(&self, mut on_line: impl FnMut(&str)) -> Result<GuestExit> {
        let deadline = Instant::now() + self.timeout;
        let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
        let initramfs = scratch.path().join("initramfs");
        let kernel_log = scratch.path().join("kernel.log");
        let complaints = scratch.path().join("qemu.log");
        self.pack(&initramfs)?;

        let stderr = File::create(&complaints)
            .with_context(|| format!("cannot create {}", complaints.display()))?;
        let mut qemu = Command::new(QEMU)
            .args(self.arguments(&initramfs, &kernel_log))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map(Machine)
            .with_context(|| format!("cannot run {QEMU}: run `cargo xtask setup --tests`"))?;
        let output = qemu.0.stdout.take().context("qemu has no output")?;

        let mut console = String::new();
        let ended = forward(&lines(output), deadline, |line| {
            console.push_str(line);
            console.push('\n');
            on_line(line);
        });
        // Nothing is left to wait for: either it closed its output, or its time is up.
        if !ended {
            qemu.stop();
        }
        let status = qemu.0.wait().context("cannot wait for qemu")?;

        let kernel = read_lossy(&kernel_log);
        let name = self.kernel.name;
        match verdict(&kernel) {
            Verdict::Exit(code) => Ok(GuestExit {
                code,
                console,
                kernel,
            }),
            Verdict::Failed(reason) => bail!(
                "guest {name} could not run {}: {reason}\n{}",
                self.command.join(" "),
                last_lines(&kernel, &console)
            ),
            Verdict::Silent if !ended => bail!(
                "guest {name} did not end within {} s, so it was stopped\n{}",
                self.timeout.as_secs(),
                last_lines(&kernel, &console)
            ),
            Verdict::Silent => bail!(
                "guest {name} ended without saying how its command did (qemu: {status}) {}\n{}",
                read_lossy(&complaints),
                last_lines(&kernel, &console)
            ),
        }
    }

    fn pack(&self, path: &Path) -> Result<()> {
        let init = init_program()?;
        let modules = modules::collect(&self.kernel.modules, &self.modules)?;
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut archive = Initramfs::new(BufWriter::new(file))?;
        archive.orders(&init, &modules, &self.command)?;
        for (host, guest) in &self.files {
            archive.host_file(host, guest)?;
        }
        archive
            .finish()?
            .into_inner()
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// QEMU's command line. The first serial port is the kernel's, the second the command's, so
    /// that neither garbles the other.
    fn arguments(&self, initramfs: &Path, kernel_log: &Path) -> Vec<String> {
        let append = format!(
            "console=ttyS0 quiet printk.devkmsg=on oops=panic panic=-1 {}",
            self.append
        );
        let words = [
            // KVM is faster where it works; emulation works, and works alike, everywhere.
            ("-accel", "tcg,thread=multi".to_owned()),
            ("-cpu", "max".to_owned()),
            ("-smp", self.cpus.to_string()),
            ("-m", self.memory_mib.to_string()),
            ("-kernel", self.kernel.image.display().to_string()),
            ("-initrd", initramfs.display().to_string()),
            ("-append", append.trim_end().to_owned()),
            ("-display", "none".to_owned()),
            ("-serial", format!("file:{}", kernel_log.display())),
            ("-serial", "stdio".to_owned()),
        ];
        words
            .into_iter()
            .flat_map(|(option, value)| [option.to_owned(), value])
            .chain(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned))
            .collect()
    }
}

/// Stops the emulator when it is dropped, for instance by a panic in the caller's closure.
struct Machine(Child);

impl Machine {
    fn stop(&mut self) {
        // It fails only if there is nothing left to stop.
        let _ = self.0.kill();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
        let _ = self.0.wait();
    }
}

/// The static `guest-init`: `TURNAWAY_GUEST_INIT`, or the one that `cargo xtask` built.
fn init_program() -> Result<PathBuf> {
    let path = std::env::var_os("TURNAWAY_GUEST_INIT").map_or_else(
        || workspace::target().join("release").join(INIT),
        PathBuf::from,
    );
    if !path.is_file() {
        bail!(
            "no {}, the first program of guests: run `cargo xtask test` or `cargo xtask vm run`",
            path.display()
        );
    }
    Ok(path)
}

/// Reads lines as they come, on a thread of its own, because a read cannot be given a deadline.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line);
            if sender
                .send(text.trim_end_matches(['\r', '\n']).to_owned())
                .is_err()
            {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// Hands lines on until there are no more (true) or the deadline has come (false).
fn forward(lines: &Receiver<String>, deadline: Instant, mut on_line: impl FnMut(&str)) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => on_line(&line),
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        let kernel = UnpackedKernel {
            name: "6.12",
            release: "6.12.1".to_owned(),
            image: "/k/vmlinuz".into(),
            modules: "/k/modules".into(),
        };
        Guest::new(kernel, ["/bin/true"])
    }

    #[test]
    fn the_kernel_and_the_command_have_a_port_each() {
        let mut guest = guest();
        guest.append = "debug".to_owned();
        let words = guest.arguments(Path::new("/t/initramfs"), Path::new("/t/log"));
        let values = |option: &str| -> Vec<_> {
            words
                .windows(2)
                .filter(|pair| pair[0] == option)
                .map(|pair| pair[1].as_str())
                .collect()
        };
        assert_eq!(values("-serial"), ["file:/t/log", "stdio"]);
        assert_eq!(values("-kernel"), ["/k/vmlinuz"]);
        assert!(values("-append")[0].ends_with("panic=-1 debug"));
    }

    #[test]
    fn lines_are_handed_on_until_the_end_or_the_deadline() {
        let mut seen = Vec::new();
        let soon = Instant::now() + Duration::from_mins(1);
        assert!(forward(&lines(&b"one\r\ntwo"[..]), soon, |line| {
            seen.push(line.to_owned());
        }));
        assert_eq!(seen, ["one", "two"]);

        let (_open, never) = mpsc::channel();
        assert!(!forward(&never, Instant::now(), |_| ()));
    }
}
