//! The system's table of open files fills up.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Stage;
use super::enfile::Table;
use crate::sys;
use crate::truth::{Failures, Listener, Process, Tally};

/// Nothing tells the workload that it was looked at, which is done once a second.
const LOOKS: Duration = Duration::from_secs(3);

/// Files that are open on the machine.
fn open_files() -> Result<u64> {
    let text = fs::read_to_string("/proc/sys/fs/file-nr").context("cannot read fs.file-nr")?;
    let number = text.split_whitespace().next().context("no number")?;
    Ok(number.parse()?)
}

/// Files of this process's.
struct Files(Vec<File>);

impl Files {
    /// Opens or closes some until about so many are open on the machine.
    fn until(&mut self, wanted: u64) -> Result<()> {
        let own = self.0.len() as u64 + wanted;
        let own = usize::try_from(own.saturating_sub(open_files()?))?;
        while self.0.len() < own {
            self.0.push(File::open("/dev/null")?);
        }
        self.0.truncate(own);
        Ok(())
    }
}

/// So many crossings of a level, of which so many ended at it.
fn crossed(level: u8, limit: u64, ended: u64) -> Failures {
    let mut truth = Failures::of_listener(
        "fd.table_pressure",
        Process::default(),
        Listener::default(),
        1,
    );
    truth.level = Some(level);
    truth.tier = Some("poll".to_owned());
    truth.shown = Some(1 + ended);
    // An end has that of its own time.
    truth.limit = (ended == 0).then_some(limit);
    truth
}

/// It is nearly full twice, by what else was opened, and has room again.
pub fn fills_up(stage: &mut Stage) -> Result<()> {
    let process = Process::current()?;
    let most = sys::nofile()?.1;
    sys::set_nofile(most, most)?;
    let limit = 2 * open_files()? + 2000;
    stage.ready()?;
    let _table = Table::of(limit)?;
    let mut files = Files(Vec::new());
    // How full it is to be, and between what that makes no difference, percent.
    for (wanted, least, most) in [(77, 0, 80), (85, 80, 90), (98, 95, 110), (60, 0, 75)] {
        files.until(limit * wanted / 100)?;
        std::thread::sleep(LOOKS);
        let now = open_files()? * 100;
        ensure!(
            (limit * least..limit * most).contains(&now),
            "{now} of {limit} files are open: others open or close many"
        );
    }
    stage.report(&Tally {
        pids: vec![process.pid],
        failures: vec![crossed(80, limit, 0), crossed(95, limit, 1)],
        ..Tally::default()
    })
}
