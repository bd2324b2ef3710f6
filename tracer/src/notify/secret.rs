//! Secrets, which are in files and never shown.

use std::{fmt, fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, Result, ensure};

/// Bytes of a secret at most.
const MAX: u64 = 8 * 1024;

/// Something that is never shown.
pub(crate) struct Secret(String);

impl Secret {
    /// Reads a file each time it is needed, since secrets change.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
        let mut text = String::new();
        file.take(MAX + 1)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {shown}"))?;
        ensure!(text.len() as u64 <= MAX, "{shown} is too long for a secret");
        let secret = text.trim();
        ensure!(!secret.is_empty(), "{shown} is empty");
        ensure!(
            !secret.chars().any(char::is_control),
            "{shown} holds more than one line"
        );
        Ok(Self(secret.to_owned()))
    }

    /// A part of something that is secret.
    pub(crate) fn part(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Text from outside, in which the secret may have come back.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, "[hidden]")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_is_one_line_and_hides() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(Secret::read(&path).is_err());
        for wrong in ["", "\n", "a\nb", &"x".repeat(9000)] {
            std::fs::write(&path, wrong).unwrap();
            let error = format!("{:#}", Secret::read(&path).unwrap_err());
            assert!(!error.contains("xxxx"), "{error}");
        }
        std::fs::write(&path, "s3cret\n").unwrap();
        let secret = Secret::read(&path).unwrap();
        assert_eq!(secret.reveal(), "s3cret");
        assert_eq!(format!("{secret:?}"), "[hidden]");
        assert_eq!(secret.hide_in("no s3cret here"), "no [hidden] here");
    }
}
