//! Which failures are wanted: the same options for every command that shows failures or incidents.

use std::{fs, path::Path};

use anyhow::{Result, bail};

use super::Usage;
use crate::{
    errno,
    filter::{self, Filter},
};

/// What these options are together in `--help`. All that are given must match; of one that is given
/// several times, any.
const FILTERS: &str = "Filters";

/// What records and incidents have as well as failures that just happen.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct AboutArgs {
    /// Only this process. All filters that are given must match; of one that is given several times, any
    #[arg(help_heading = FILTERS, short, long, value_name = "PID")]
    pid: Vec<u32>,

    /// Only processes of this name, whole, as /proc/PID/comm has it
    #[arg(help_heading = FILTERS, long, value_name = "NAME")]
    comm: Vec<String>,

    /// Only processes of this systemd unit; .service may be left out
    #[arg(help_heading = FILTERS, long, value_name = "UNIT")]
    unit: Vec<String>,

    /// Only processes of this container: its name, or the beginning of its id
    #[arg(help_heading = FILTERS, long, value_name = "NAME")]
    container: Vec<String>,

    /// Only processes whose cgroup path has this in it
    #[arg(help_heading = FILTERS, long, value_name = "TEXT")]
    cgroup: Vec<String>,

    /// Only listeners on this port, and connects to it
    #[arg(help_heading = FILTERS, short = 'P', long, value_name = "PORT")]
    port: Vec<u32>,

    /// Only this reason, such as accept.emfile, or a family of them, such as accept
    #[arg(help_heading = FILTERS, long, value_name = "CODE", value_parser = reasons)]
    reason: Vec<Reasons>,
}

/// What only a call itself has.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct CallArgs {
    #[command(flatten)]
    about: AboutArgs,

    /// Only processes of this user: a name, or a number
    #[arg(help_heading = FILTERS, short = 'U', long, value_name = "USER", value_parser = user)]
    uid: Vec<u32>,

    /// Only this errno, such as EMFILE
    #[arg(help_heading = FILTERS, long, value_name = "NAME", value_parser = errno_number)]
    errno: Vec<u16>,

    /// Only failures: nothing else is shown anyway. For those who type it for opensnoop
    #[arg(help_heading = FILTERS, short = 'x', long, hide = true)]
    failed: bool,
}

/// What one `--reason` names.
#[derive(Clone, Debug)]
pub(super) struct Reasons(pub(super) Vec<turnaway_common::Reason>);

impl AboutArgs {
    /// What is wanted. Ports that nothing can listen on are refused.
    pub(super) fn filter(&self) -> Result<Filter> {
        if let Some(port) = self.port.iter().find(|port| **port == 0) {
            return Err(Usage(format!("cannot look for port {port}: no listener has it")).into());
        }
        let texts = |all: &[String]| all.to_vec();
        Ok(Filter {
            pids: self.pid.clone(),
            comms: self
                .comm
                .iter()
                .map(|comm| comm.clone().into_bytes())
                .collect(),
            units: texts(&self.unit),
            containers: texts(&self.container),
            cgroups: texts(&self.cgroup),
            ports: self.port.clone(),
            reasons: self
                .reason
                .iter()
                .flat_map(|Reasons(all)| all.clone())
                .collect(),
            ..Filter::default()
        })
    }

    /// Refuses processes that there are not: nothing of them would ever be seen.
    fn must_live(&self) -> Result<()> {
        for pid in &self.pid {
            if !Path::new("/proc").join(pid.to_string()).exists() {
                bail!("cannot trace process {pid}: there is no such process");
            }
        }
        Ok(())
    }
}

impl CallArgs {
    /// What is wanted of what happens from now on.
    pub(super) fn filter(&self) -> Result<Filter> {
        self.about.must_live()?;
        Ok(Filter {
            uids: self.uid.clone(),
            errnos: self.errno.clone(),
            ..self.about.filter()?
        })
    }
}

pub(super) fn reasons(word: &str) -> Result<Reasons, String> {
    filter::reasons(word).map(Reasons)
}

fn errno_number(name: &str) -> Result<u16, String> {
    errno::number(name).ok_or_else(|| "no such errno; use a name such as EMFILE".to_owned())
}

/// A user's number, from a number or a name of /etc/passwd.
fn user(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let users = fs::read("/etc/passwd").unwrap_or_default();
    named(text, &users).ok_or_else(|| "no such user here; use a name or a number".to_owned())
}

/// The number of a user among the lines of a passwd file.
fn named(name: &str, users: &[u8]) -> Option<u32> {
    users.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let found = fields.next() == Some(name.as_bytes());
        let number = fields.nth(1).filter(|_| found)?;
        std::str::from_utf8(number).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::{errno_number, named, user};

    #[test]
    fn errnos_are_read_by_name() {
        assert_eq!(errno_number("EMFILE"), Ok(24));
        assert!(errno_number("EFOO").is_err());
    }

    #[test]
    fn users_are_read_by_name_and_number() {
        let users = b"root:x:0:0:root:/root:/bin/bash\n\xff:x:7:7::/:\nwww-data:x:33:33:a:/:/\n";
        assert_eq!(named("www-data", users), Some(33));
        assert_eq!(named("www", users), None);
        assert_eq!(named("", b"\n"), None);
        assert_eq!(user("1000"), Ok(1000));
        assert!(user("nobody here").is_err());
    }
}
