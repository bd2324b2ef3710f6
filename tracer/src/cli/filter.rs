//! Which failures are wanted: the same options for every command that shows what happens.

use std::path::Path;

use anyhow::{Result, bail};

use super::Usage;
use crate::{
    errno,
    filter::{self, Filter},
};

/// What failures are told apart by.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct CallArgs {
    /// Only this process; may be given several times
    #[arg(short, long, value_name = "PID")]
    pid: Vec<u32>,

    /// Only processes of this name, whole, as /proc/PID/comm has it
    #[arg(long, value_name = "NAME")]
    comm: Vec<String>,

    /// Only processes whose cgroup path has this in it, such as a unit's name or a container's id
    #[arg(long, value_name = "TEXT")]
    cgroup: Vec<String>,

    /// Only listeners on this port, and connects to it
    #[arg(short = 'P', long, value_name = "PORT")]
    port: Vec<u32>,

    /// Only this errno, such as EMFILE
    #[arg(long, value_name = "NAME", value_parser = errno_number)]
    errno: Vec<u16>,

    /// Only this reason, such as accept.emfile, or a family of them, such as accept
    #[arg(long, value_name = "CODE", value_parser = reasons)]
    reason: Vec<Reasons>,
}

/// What one `--reason` names.
#[derive(Clone, Debug)]
struct Reasons(Vec<turnaway_common::Reason>);

impl CallArgs {
    /// What is wanted of what happens from now on.
    pub(super) fn filter(&self) -> Result<Filter> {
        for pid in &self.pid {
            if !Path::new("/proc").join(pid.to_string()).exists() {
                bail!("cannot trace process {pid}: there is no such process");
            }
        }
        if let Some(port) = self.port.iter().find(|port| **port == 0) {
            return Err(Usage(format!("cannot trace port {port}: no listener has it")).into());
        }
        let comms = self.comm.iter().map(|comm| comm.clone().into_bytes());
        let reasons = self.reason.iter().flat_map(|Reasons(all)| all.clone());
        Ok(Filter {
            pids: self.pid.clone(),
            comms: comms.collect(),
            cgroups: self.cgroup.clone(),
            ports: self.port.clone(),
            errnos: self.errno.clone(),
            reasons: reasons.collect(),
        })
    }
}

fn reasons(word: &str) -> Result<Reasons, String> {
    filter::reasons(word).map(Reasons)
}

fn errno_number(name: &str) -> Result<u16, String> {
    errno::number(name).ok_or_else(|| "no such errno; use a name such as EMFILE".to_owned())
}

#[cfg(test)]
mod tests {
    use super::errno_number;

    #[test]
    fn errnos_are_read_by_name() {
        assert_eq!(errno_number("EMFILE"), Ok(24));
        assert!(errno_number("EFOO").is_err());
    }
}
