//! A process that has many listeners.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::holder::told_to_go;
use super::top;
use crate::sys;

/// The command that listens so many times, and fails so often a second once it has read a line.
pub(super) fn command(scenarios: &Path, group: usize, count: usize, failing: usize) -> Command {
    let mut command = Command::new(scenarios);
    command.arg("listeners");
    command.args([group, count].map(|number| number.to_string()));
    command.args(["--failing", &failing.to_string()]);
    command
}

/// Listens so many times on addresses of a group's own, until its input ends; fails meanwhile, once a line was read.
pub(super) fn run(group: u8, count: usize, failing: usize) -> Result<()> {
    const PORTS: usize = 500;
    let (_, hard) = sys::nofile()?;
    sys::set_nofile(hard, hard)?;
    let mut held = Vec::with_capacity(count);
    for number in 0..count {
        let address = Ipv4Addr::new(127, 9, group, u8::try_from(1 + number / PORTS)?);
        let port = 20_000 + u16::try_from(number % PORTS)?;
        held.push(TcpListener::bind((address, port))?);
    }
    if told_to_go()? && failing > 0 {
        println!("{}", top::fail_in_turn(&held, failing)?);
    }
    Ok(())
}
