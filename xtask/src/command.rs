//! Running other programs, with errors that say what was run, what it answered and what mends it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Ways to run a [`Command`]. `mend` is what the user can do when it fails.
pub(crate) trait CommandExt {
    /// Runs it with this process's own input and output.
    fn show(&mut self, mend: &str) -> Result<()>;

    /// Runs it without input; its output is shown only if it fails.
    fn quiet(&mut self, mend: &str) -> Result<()>;

    /// Runs it without input and returns its standard output.
    fn read(&mut self, mend: &str) -> Result<String>;
}

impl CommandExt for Command {
    fn show(&mut self, mend: &str) -> Result<()> {
        match self.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => bail!("`{}` failed ({status}); {mend}", words(self)),
            Err(error) => bail!("cannot run `{}`: {error}; {mend}", words(self)),
        }
    }

    fn quiet(&mut self, mend: &str) -> Result<()> {
        self.read(mend).map(drop)
    }

    fn read(&mut self, mend: &str) -> Result<String> {
        let output = match self.stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => bail!("cannot run `{}`: {error}; {mend}", words(self)),
        };
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "`{}` failed ({}):\n{stdout}{}\n{mend}",
                words(self),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        Ok(stdout)
    }
}

/// The command as one would type it, without quoting.
fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The program's place in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether `program --version` answers and its answer holds `version`.
pub(crate) fn has_version(program: &Path, version: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| {
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains(version)
        })
}

/// A command that needs root, through sudo where this process is not root.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    sudo
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_its_output_and_the_mend() {
        let error = Command::new("sh")
            .args(["-c", "echo out; echo err >&2; exit 3"])
            .read("try again")
            .unwrap_err()
            .to_string();
        for part in ["sh -c", "exit status: 3", "try again", "out", "err"] {
            assert!(error.contains(part), "no {part:?} in {error:?}");
        }
    }

    #[test]
    fn a_program_that_does_not_exist_has_no_version() {
        assert!(!has_version(Path::new("no-such-program"), ""));
        assert_eq!(find_program("no-such-program"), None);
        assert!(find_program("sh").is_some());
    }
}
