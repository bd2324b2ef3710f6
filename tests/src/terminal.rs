//! A terminal that is looked at: a shell in tmux.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::{sys, wait};

/// What the shell says when it waits.
const PROMPT: &str = "ready>";

/// A tmux of its own with one window, in which a shell runs. It ends when this is dropped.
pub struct Terminal {
    dir: tempfile::TempDir,
    name: String,
}

impl Terminal {
    /// One of so many columns and lines; the shell has these variables.
    pub fn open(columns: u16, lines: u16, variables: &[(&str, &str)]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            dir: tempfile::tempdir()?,
            name: format!("turnaway-{}-{number}", std::process::id()),
        };
        let mut command = terminal.tmux();
        command.args(["-f", "/dev/null", "new-session", "-d"]);
        command.args(["-x", &columns.to_string(), "-y", &lines.to_string()]);
        command.args(["env", "-u", "NO_COLOR", "-u", "PROMPT_COMMAND"]);
        command.args(["LANG=C.UTF-8", &format!("PS1={PROMPT} ")]);
        for (name, value) in variables {
            command.arg(format!("{name}={value}"));
        }
        command.args(["bash", "--norc", "--noprofile", "-i"]);
        run(&mut command)?;
        terminal.prompt()?;
        Ok(terminal)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command
            .env("TMUX_TMPDIR", self.dir.path())
            .env_remove("TMUX")
            .args(["-L", &self.name]);
        command
    }

    /// A folder of its own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Presses keys, by tmux's names of them.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        run(self.tmux().arg("send-keys").args(keys)).map(drop)
    }

    /// Types text as it is.
    pub fn write(&self, text: &str) -> Result<()> {
        run(self.tmux().args(["send-keys", "-l", text])).map(drop)
    }

    /// Has the shell do something.
    pub fn shell(&self, line: &str) -> Result<()> {
        self.write(line)?;
        self.press(&["Enter"])
    }

    /// Kills what the terminal is made by, as where a connection breaks.
    pub fn kill(&self) -> Result<()> {
        let server = run(self.tmux().args(["display-message", "-p", "#{pid}"]))?;
        Ok(sys::kill(server.trim().parse()?, libc::SIGKILL)?)
    }

    /// The shell's process.
    pub fn shell_pid(&self) -> Result<u32> {
        let pid = run(self.tmux().args(["display-message", "-p", "#{pane_pid}"]))?;
        Ok(pid.trim().parse()?)
    }

    /// Gives it another size.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let size = ["resize-window", "-x", &columns, "-y", &lines];
        run(self.tmux().args(size)).map(drop)
    }

    /// What is on it.
    pub fn screen(&self) -> Result<String> {
        run(self.tmux().args(["capture-pane", "-p"]))
    }

    /// The same with the codes that make its looks.
    pub fn looks(&self) -> Result<String> {
        run(self.tmux().args(["capture-pane", "-p", "-e"]))
    }

    /// Waits until what is on it is what is waited for, and returns that.
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let seen = wait::until(what, || {
            let screen = self.screen()?;
            Ok(wanted(&screen).then_some(screen))
        });
        seen.with_context(|| format!("on the screen is:\n{}", self.screen().unwrap_or_default()))
    }

    /// Waits until the shell waits.
    pub fn prompt(&self) -> Result<()> {
        let waits = |screen: &str| {
            let last = screen.lines().rfind(|line| !line.trim().is_empty());
            last.is_some_and(|line| line.trim() == PROMPT)
        };
        self.until("the shell's prompt", waits).map(drop)
    }

    /// How the terminal is set, in the words of stty; the shell is asked.
    pub fn settings(&self) -> Result<String> {
        self.prompt()?;
        let file = self.dir.path().join("stty");
        // The shell sets it as it was before it reads its next line.
        self.shell(&format!(
            "clear; stty -a > {0}.new; mv {0}.new {0}",
            file.display()
        ))?;
        wait::until_true("stty to answer", || Ok(file.exists()))?;
        self.prompt()?;
        let settings = std::fs::read_to_string(&file)?;
        std::fs::remove_file(&file)?;
        Ok(settings)
    }

    /// Whether it is on its other screen, and whether its cursor is shown.
    pub fn modes(&self) -> Result<(bool, bool)> {
        let format = "#{alternate_on} #{cursor_flag}";
        let modes = run(self.tmux().args(["display-message", "-p", format]))?;
        let (alternate, cursor) = modes.trim().split_once(' ').context("no modes")?;
        Ok((alternate == "1", cursor == "1"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It fails only if it has ended.
        let _ = run(self.tmux().arg("kill-server"));
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}: run `cargo xtask setup --tests`"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
