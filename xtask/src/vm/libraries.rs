//! What a dynamically linked program needs beside itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The shared libraries (and the dynamic loader) of a program, as `ldd` finds them; empty for a
/// static one. Pack each at the same path in the guest.
pub fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // It fails for static programs, which is an answer, not an error.
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd: install libc-bin")?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with('/'))
                .map(PathBuf::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffe)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f5e)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f5f)\n";
        assert_eq!(
            parse(ldd),
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(parse("\tstatically linked\n").is_empty());
    }
}
