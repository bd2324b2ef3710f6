//! What the kernel says of BPF programs that it has verified.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramError, ProgramInfo, loaded_programs};

use crate::tracer::Tracer;

/// What verifying a program took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its name, of which the kernel keeps 15 bytes.
    pub program: String,
    /// Instructions that the verifier went through, on all ways through the program together; `None`
    /// before Linux 5.16, which keeps no count.
    pub instructions: Option<u32>,
    /// Size of the program as the kernel keeps it, bytes.
    pub bytes: Option<u32>,
}

impl Verified {
    /// The line that `xtask::budget` reads; what is not known is `-`.
    #[must_use]
    pub fn line(&self, tier: &str) -> String {
        let number = |of: Option<u32>| of.map_or_else(|| "-".to_owned(), |of| of.to_string());
        format!(
            "PROGRAM {tier} {} {} {}",
            self.program,
            number(self.instructions),
            number(self.bytes)
        )
    }
}

/// What a turnaway with hooks of this tier has the kernel verify.
pub fn of(turnaway: &Path, tier: &str) -> Result<Vec<Verified>> {
    let before = ids()?;
    let tracer = Tracer::start(turnaway, &["--quiet", "--json", "--tier", tier])?;
    let verified = since(&before)?;
    tracer.stop()?;
    Ok(verified)
}

/// Programs that are in the kernel, by id.
pub fn ids() -> Result<BTreeSet<u32>> {
    Ok(all()?.iter().map(ProgramInfo::id).collect())
}

/// Those that came since, by name.
pub fn since(before: &BTreeSet<u32>) -> Result<Vec<Verified>> {
    let mut verified: Vec<Verified> = all()?
        .iter()
        .filter(|info| !before.contains(&info.id()))
        .map(|info| Verified {
            program: info.name_as_str().unwrap_or_default().to_owned(),
            instructions: info.verified_instruction_count(),
            bytes: info.size_translated(),
        })
        .collect();
    verified.sort_by(|one, other| one.program.cmp(&other.program));
    Ok(verified)
}

fn all() -> Result<Vec<ProgramInfo>> {
    let mut all = Vec::new();
    for info in loaded_programs() {
        match info {
            Ok(info) => all.push(info),
            // It ended meanwhile, and is none of ours.
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error).context("cannot list the kernel's BPF programs"),
        }
    }
    Ok(all)
}
